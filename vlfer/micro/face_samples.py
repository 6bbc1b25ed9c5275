"""Faces of coded clips as samples: for learners that read pictures rather than flow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from vlfer.errors import ShapeError
from vlfer.micro.samples import ClipSamples, load_archive
from vlfer.types import UInt8Array


@dataclass(frozen=True, slots=True)
class FaceSamples(ClipSamples):
    """Labelled faces of several people, in the reference frame.

    Attributes:
        faces: (N, 2 + T, S, S, 3) uint8 RGB: onset, apex, then the clip from onset to offset in T equal steps of time;
            T may be 0. The rest: see `ClipSamples`.
    """

    KEY: ClassVar[str] = "faces"

    faces: UInt8Array

    def __post_init__(self) -> None:
        shape = self.faces.shape
        if self.faces.dtype != np.uint8 or len(shape) != 5 or shape[1] < 2 or shape[2] != shape[3] or shape[4] != 3:
            raise ShapeError(
                f"The faces have shape {shape} and dtype {self.faces.dtype}.",
                why="Expected (N, 2 + T, S, S, 3) uint8: onset, apex and the clip of each.",
            )
        ClipSamples.__post_init__(self)  # super() knows the class before it got slots

    @property
    def side(self) -> int:
        """S in pixels."""
        return int(self.faces.shape[2])


def load_face_archive(path: str | Path) -> FaceSamples:
    """Read an ``.npz`` archive of faces.

    Args:
        path: Archive with the keys ``faces`` (N, 2 + T, S, S, 3) uint8, ``dataset``, ``subject``, ``clip`` (N,) str,
            ``label`` (N,) int and ``classes`` (C,) str.

    Raises:
        DataError: If the file is missing, is no such archive, or has labels outside the classes.
        ShapeError: If an array has another shape or dtype.
    """
    return load_archive(
        FaceSamples, path, name="face", fix="vlfer mie faces casme2=DIR --out FILE.npz",
        without="A flow archive holds motion; grey values over time cannot be had back from it.",
    )  # fmt: skip
