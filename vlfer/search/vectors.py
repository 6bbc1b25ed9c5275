"""The FAISS half of an index: nearest vectors by inner product, exact while there are few, IVF beyond.

FAISS: Douze et al., "The Faiss library", 2024. HNSW is not used: it cannot forget a vector, and a source must be
removable.
"""

from __future__ import annotations

import contextlib
import math
import os
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from vlfer.types import FloatArray, IntArray

FLAT_UP_TO = 50_000
"""Up to so many vectors all are compared: 2 to 10 ms on two cores."""
_RETRAIN_AT = 8
_TRAIN_PER_LIST = 64
_PROBED = 1 / 32

Portions = Callable[[IntArray], Iterable[tuple[IntArray, FloatArray]]]


class VectorIndex:
    """Vectors by id. The file is a cache: whatever it lacks or has too much is put right from the store.

    Args:
        path: Where `save` writes; read if it is there and whole.
        flat_up_to: Number of vectors from which on inverted lists are used.
    """

    def __init__(self, path: Path, *, flat_up_to: int = FLAT_UP_TO) -> None:
        self.path = path
        self.flat_up_to = flat_up_to
        self._index: Any = None
        self._is_saved = True
        with contextlib.suppress(RuntimeError):  # missing, cut off or of another version: it is made again
            self._index = faiss.read_index(str(path)) if path.is_file() else None

    def __len__(self) -> int:
        return 0 if self._index is None else int(self._index.ntotal)

    @property
    def dimension(self) -> int:
        """Return D, 0 while there is no vector."""
        return int(self._index.d) if len(self) else 0

    @property
    def kind(self) -> str:
        """Return "flat" or "ivf"."""
        return "ivf" if isinstance(self._index, faiss.IndexIVF) else "flat"

    def agree(self, ids: IntArray, portions: Portions) -> None:
        """Hold exactly the vectors of ``ids``, which `portions` delivers; rebuild where the size asks for it.

        Args:
            ids: (N,) int64, increasing.
            portions: Takes ids and yields them with their vectors (n, D) float32.
        """
        if self._must_rebuild(len(ids)):
            self._rebuild(ids, portions)
            return
        known = self._ids()
        gone, new = np.setdiff1d(known, ids), np.setdiff1d(ids, known)
        self.remove(gone)
        for some, vectors in portions(new) if len(new) else ():
            self.add(some, vectors)

    def add(self, ids: IntArray, vectors: FloatArray) -> None:
        """Add vectors (n, D) float32 under new ids."""
        if len(ids):
            if self._index is None:
                self._index = faiss.IndexIDMap2(faiss.IndexFlatIP(vectors.shape[1]))
            self._index.add_with_ids(np.ascontiguousarray(vectors, np.float32), ids)
            self._is_saved = False

    def remove(self, ids: IntArray) -> None:
        """Forget vectors."""
        if len(ids) and self._index is not None:
            self._index.remove_ids(np.ascontiguousarray(ids, np.int64))
            self._is_saved = False

    def search(self, vector: FloatArray, count: int) -> IntArray:
        """Return the ids of the ``count`` vectors of the largest inner product with ``vector`` (D,), best first."""
        if not len(self):
            return np.zeros(0, np.int64)
        _, ids = self._index.search(np.ascontiguousarray(vector[None], np.float32), min(count, len(self)))
        found: IntArray = ids[0][ids[0] >= 0].astype(np.int64)
        return found

    def save(self) -> None:
        """Write the file, whole or not at all.

        Raises:
            OSError: If it cannot be written.
        """
        if self._is_saved or self._index is None:
            return
        temporary = self.path.parent / f".tmp-{secrets.token_hex(8)}.faiss"
        try:
            faiss.write_index(self._index, str(temporary))
            os.replace(temporary, self.path)
        except RuntimeError as error:
            raise OSError(f"{self.path}: {error}") from error
        finally:
            temporary.unlink(missing_ok=True)
        self._is_saved = True

    def _must_rebuild(self, count: int) -> bool:
        if self._index is None:
            return True
        if self.kind == "flat":
            return count > self.flat_up_to
        trained_for = self._index.nlist**2
        return count <= self.flat_up_to // 2 or count > _RETRAIN_AT * trained_for

    def _rebuild(self, ids: IntArray, portions: Portions) -> None:
        self._index = None
        if len(ids) > self.flat_up_to:
            lists = 2 ** max(2, round(math.log2(math.sqrt(len(ids)))))
            step = max(1, len(ids) // (_TRAIN_PER_LIST * lists))
            sample = np.concatenate([vectors for _, vectors in portions(ids[::step])])
            self._index = _inverted_lists(sample, lists=lists)
        for some, vectors in portions(ids) if len(ids) else ():
            self.add(some, vectors)

    def _ids(self) -> IntArray:
        if self._index is None:
            return np.zeros(0, np.int64)
        if self.kind == "flat":
            return np.sort(faiss.vector_to_array(self._index.id_map)).astype(np.int64)
        lists = self._index.invlists
        sizes = [lists.list_size(i) for i in range(self._index.nlist)]
        parts = [faiss.rev_swig_ptr(lists.get_ids(i), n).copy() for i, n in enumerate(sizes) if n]
        return np.sort(np.concatenate(parts)) if parts else np.zeros(0, np.int64)


def _inverted_lists(sample: FloatArray, *, lists: int) -> Any:
    """Return an empty IVF index trained on a sample; vectors in it take half precision."""
    dimension = sample.shape[1]
    index = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatIP(dimension), dimension, lists, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
    )
    index.cp.niter = 8
    index.cp.min_points_per_centroid = 1
    index.train(np.ascontiguousarray(sample, np.float32))
    index.nprobe = max(4, round(lists * _PROBED))
    return index
