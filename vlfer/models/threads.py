"""How many cores a tower takes while other steps run beside it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor


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


def one_thread_each(steps: Sequence[Callable[[], Tensor]]) -> list[Tensor]:
    """Run steps that need no gradients at the same time, each on one thread; one after another if torch has fewer.

    A small network on one face is many operations of some microseconds, which two threads cannot share without
    waiting for one another at each; two networks can.
    """
    before = torch.get_num_threads()
    if before < len(steps):
        return [step() for step in steps]
    futures = [_helpers(os.getpid(), len(steps) - 1).submit(_run, step) for step in steps[1:]]
    try:
        return [_run(steps[0]), *(future.result() for future in futures)]
    finally:
        wait(futures)
        torch.set_num_threads(before)


def _run(step: Callable[[], Tensor]) -> Tensor:
    torch.set_num_threads(1)
    with torch.inference_mode():
        return step()


@cache
def _helpers(process: int, count: int) -> ThreadPoolExecutor:
    """Return threads that stay, as what they have set up is lost with a thread; a forked process needs its own."""
    del process
    return ThreadPoolExecutor(count, thread_name_prefix="vlfer-tower")
