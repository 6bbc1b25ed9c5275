"""Do the next step while the present one is looked at: an iterable, computed by a thread of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from typing import TypeVar

T = TypeVar("T")

_POLL_S = 0.1


class _End:
    """Marks the end of the items; ``error`` is what ended them early."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def read_ahead(items: Iterable[T], *, depth: int = 1) -> Generator[T, None, None]:
    """Yield ``items`` while a thread computes those that follow.

    An error of the items is raised where it belongs, after those before it. When the caller stops early the thread
    ends too, and the items are closed in it.

    Args:
        items: Any iterable; it is used by the thread alone.
        depth: Items that wait at most; one more is being computed.
    """
    waiting: queue.Queue[T | _End] = queue.Queue(maxsize=max(1, depth))
    stopped = threading.Event()

    def offer(item: T | _End) -> bool:
        while not stopped.is_set():
            try:
                waiting.put(item, timeout=_POLL_S)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        iterator = iter(items)
        try:
            for item in iterator:
                if not offer(item):
                    return
            offer(_End())
        except BaseException as error:
            offer(_End(error))
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()

    thread = threading.Thread(target=work, name="vlfer-ahead", daemon=True)
    thread.start()
    try:
        while True:
            item = waiting.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item
    finally:
        stopped.set()
        thread.join(timeout=5.0)
