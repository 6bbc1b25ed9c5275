"""Engines: who decodes and encodes, on one machine or on many.

An engine gets blocks of rows and the work as plain functions (`Steps`). It yields (index of a block, result) once for
each block, in any order. It decides where and when, never what: the functions and the blocks are the same for all, so
the results are the same bytes wherever the processors and the number of threads of a tower are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

Row = TypeVar("Row", contravariant=True)
Crops = TypeVar("Crops")
Out = TypeVar("Out", covariant=True)


class Steps(Protocol[Row, Crops, Out]):
    """The work on one block."""

    @property
    def build_reader(self) -> Callable[[], Callable[[Row], Crops]]:
        """Makes what decodes one row; can be pickled, and is called once in each thread, process or actor."""
        ...

    @property
    def build_tower(self) -> Callable[[], Callable[[Sequence[Crops]], Out]]:
        """Makes what encodes the decoded rows of one block; called once in each process that encodes."""
        ...

    def lost(self, row: Row, reason: str) -> Crops:
        """Return the record of a row that ends the process which decodes it."""
        ...
