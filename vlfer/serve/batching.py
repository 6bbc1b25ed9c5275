"""Micro-batching: faces of requests that come together go through the tower together.

While the tower works, whatever arrives piles up and is the next batch. Where more faces are known to be on their way, a
small batch is held back for a moment: the cores are busy with finding those faces, and four faces cost less together.
Where no image waits for a decoder, no request waits for another.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np

from vlfer.models.encoder import Encoder
from vlfer.models.preprocess import Fit
from vlfer.types import Embedding, FloatArray, UInt8Array

_LONGEST_WAIT_S = 120.0
_ENOUGH = 4
_HOLD_S = 0.04
_LOOK_S = 0.005


@dataclass(slots=True)
class _Waiting:
    crops: UInt8Array
    answer: Future[FloatArray]


class MicroBatcher:
    """One thread that encodes what is waiting, at most ``max_batch`` faces at a time. Safe from several threads.

    Args:
        encode: Crops (N, S, S, 3) uint8 to vectors (N, D) float32.
        max_batch: Most faces in a batch that joins several requests; a larger request goes alone.
        on_batch: Told the size of every batch.
        coming: Tells whether so many faces are on their way that a small batch may wait for some.
    """

    def __init__(
        self,
        encode: Callable[[UInt8Array], FloatArray],
        *,
        max_batch: int,
        on_batch: Callable[[int], None],
        coming: Callable[[], bool],
    ) -> None:
        self._encode = encode
        self._coming = coming
        self._max_batch = max_batch
        self._on_batch = on_batch
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._held: _Waiting | None = None
        self._thread = threading.Thread(target=self._work, name="vlfer-tower", daemon=True)
        self._thread.start()

    def submit(self, crops: UInt8Array) -> Future[FloatArray]:
        """Ask for the vectors of crops (N, S, S, 3), N at least 1."""
        answer: Future[FloatArray] = Future()
        self._queue.put(_Waiting(crops, answer))
        return answer

    def close(self) -> None:
        """End the thread when everything that waits is answered."""
        self._queue.put(None)
        self._thread.join(timeout=_LONGEST_WAIT_S)

    def _work(self) -> None:
        while True:
            first = self._held or self._queue.get()
            self._held = None
            if first is None:
                return
            batch, is_last = self._fill(first)
            self._answer(batch)
            if is_last:
                return

    def _fill(self, first: _Waiting) -> tuple[list[_Waiting], bool]:
        """Take what else is waiting and fits; tell whether the end was met."""
        batch, count = [first], len(first.crops)
        until_s = time.monotonic() + _HOLD_S
        while count < self._max_batch:
            try:
                more = self._next(until_s if count < _ENOUGH else 0.0)
            except queue.Empty:
                break
            if more is None:
                return batch, True
            if count + len(more.crops) > self._max_batch or more.crops.shape[1:] != first.crops.shape[1:]:
                self._held = more
                break
            batch.append(more)
            count += len(more.crops)
        return batch, False

    def _next(self, until_s: float) -> _Waiting | None:
        """Return what is waiting or comes in time; raise ``queue.Empty`` if there is nothing to wait for."""
        while True:
            try:
                return self._queue.get_nowait()
            except queue.Empty:
                left_s = until_s - time.monotonic()
                if left_s <= 0 or not self._coming():
                    raise
            try:
                return self._queue.get(timeout=min(left_s, _LOOK_S))
            except queue.Empty:
                continue

    def _answer(self, batch: Sequence[_Waiting]) -> None:
        try:
            crops = np.concatenate([one.crops for one in batch]) if len(batch) > 1 else batch[0].crops
            vectors = self._encode(crops)
        except Exception as error:
            if len(batch) == 1:
                batch[0].answer.set_exception(error)
                return
            for one in batch:  # one of them may have spoilt it for all
                self._answer([one])
            return
        self._on_batch(len(crops))
        first = 0
        for one in batch:
            one.answer.set_result(vectors[first : first + len(one.crops)])
            first += len(one.crops)


class BatchingEncoder:
    """An `Encoder` whose faces go through a `MicroBatcher`; in everything else the encoder it stands for."""

    def __init__(self, encoder: Encoder, batcher: MicroBatcher) -> None:
        self._encoder = encoder
        self._batcher = batcher
        self.spec = encoder.spec
        self.space = encoder.space
        self.dimension = encoder.dimension
        self.temperature = encoder.temperature

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def encode_images(self, pixels: UInt8Array, *, batch_size: int = 32, fit: Fit = "pad") -> Embedding:
        """Encode (N, S, S, 3) uint8 RGB crops into N unit vectors, together with those of other callers."""
        if not len(pixels) or fit != "pad":
            return self._encoder.encode_images(pixels, batch_size=batch_size, fit=fit)
        return Embedding(self._batcher.submit(pixels).result(timeout=_LONGEST_WAIT_S), self.space)

    def encode_texts(self, sentences: Sequence[str]) -> Embedding:
        """Encode N sentences into N unit vectors."""
        return self._encoder.encode_texts(sentences)
