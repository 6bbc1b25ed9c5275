"""How many cores a tower takes while other steps run beside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def sharing_cores() -> Iterator[None]:
    """Let torch use half of its threads, at least one, in this thread.

    Decoding and finding faces run beside the tower. Threads of a tower that wait for one another busily take the cores
    from them: on two cores one thread for the tower is twice as fast for the whole as two.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, before // 2))
    try:
        yield
    finally:
        torch.set_num_threads(before)
