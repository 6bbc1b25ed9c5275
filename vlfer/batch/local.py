"""One machine: rows are decoded ahead in threads or processes while the tower works here."""

from __future__ import annotations

import multiprocessing
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, Literal

from vlfer.batch import Steps
from vlfer.memory import keep_freed_memory

Decoders = Literal["threads", "processes"]

_BLOCKS_AHEAD = 2


@dataclass(frozen=True, slots=True)
class LocalEngine:
    """Decode in a pool, encode in the calling thread.

    Threads start at once and share memory; decoders and detectors leave the interpreter lock for most of their time.
    Processes cost a start of seconds each. They survive a file whose decoder crashes: only that row is lost.

    Attributes:
        workers: Threads or processes.
        decoders: Which of them.
    """

    workers: int = 2
    decoders: Decoders = "threads"

    def __call__(self, blocks: Sequence[Sequence[Any]], steps: Steps[Any, Any, Any]) -> Iterator[tuple[int, Any]]:
        """Yield the result of each block, in order; two blocks are decoded ahead."""
        tower = steps.build_tower()
        pool = _Processes(steps, self.workers) if self.decoders == "processes" else _Threads(steps, self.workers)
        try:
            ahead: deque[tuple[int, Sequence[Any], list[Future[Any]]]] = deque()
            for index, block in enumerate(blocks):
                ahead.append((index, block, pool.submit(block)))
                if len(ahead) > _BLOCKS_AHEAD:
                    first, rows, futures = ahead.popleft()
                    yield first, tower(pool.collect(rows, futures))
            while ahead:
                first, rows, futures = ahead.popleft()
                yield first, tower(pool.collect(rows, futures))
        finally:
            pool.close()


class _Threads:
    """Decoding threads, each with a reader of its own."""

    def __init__(self, steps: Steps[Any, Any, Any], workers: int) -> None:
        self._build_reader = steps.build_reader
        self._own = threading.local()
        self._pool: Executor = ThreadPoolExecutor(max_workers=workers)

    def submit(self, rows: Sequence[Any]) -> list[Future[Any]]:
        return [self._pool.submit(self._read, row) for row in rows]

    def collect(self, rows: Sequence[Any], futures: list[Future[Any]]) -> list[Any]:
        return [future.result() for future in futures]

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _read(self, row: Any) -> Any:
        if not hasattr(self._own, "read"):
            self._own.read = self._build_reader()
        return self._own.read(row)


class _Processes:
    """Decoding processes; a row that kills its process is told apart from its neighbours."""

    def __init__(self, steps: Steps[Any, Any, Any], workers: int) -> None:
        self._steps = steps
        self._workers = workers
        self._pool = self._start(workers)
        self._alone: ProcessPoolExecutor | None = None

    def submit(self, rows: Sequence[Any]) -> list[Future[Any]]:
        try:
            return [self._pool.submit(_read_here, row) for row in rows]
        except BrokenProcessPool:
            self._restart()
            return [self._pool.submit(_read_here, row) for row in rows]

    def collect(self, rows: Sequence[Any], futures: list[Future[Any]]) -> list[Any]:
        """Return what was decoded; rows that were in flight when a process died are read again, one at a time."""
        records = []
        for row, future in zip(rows, futures, strict=True):
            try:
                records.append(future.result())
            except BrokenProcessPool:
                records.append(self._read_alone(row))
        return records

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._alone is not None:
            self._alone.shutdown(wait=False, cancel_futures=True)

    def _read_alone(self, row: Any) -> Any:
        self._alone = self._alone or self._start(1)
        try:
            return self._alone.submit(_read_here, row).result()
        except BrokenProcessPool as error:
            self._alone = None
            return self._steps.lost(row, str(error))

    def _start(self, workers: int) -> ProcessPoolExecutor:
        # spawn: a fork of a process with running torch threads may stand still for ever
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(workers, context, initializer=_start_reading, initargs=(self._steps.build_reader,))

    def _restart(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._pool = self._start(self._workers)


_reader: Callable[[Any], Any] | None = None  # of this decoding process


def _start_reading(build_reader: Callable[[], Callable[[Any], Any]]) -> None:
    global _reader
    keep_freed_memory()
    _reader = build_reader()


def _read_here(row: Any) -> Any:
    if _reader is None:
        raise RuntimeError("This process was not started as a decoder.")
    return _reader(row)
