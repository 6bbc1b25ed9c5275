"""An index of moments on disk: add sources, remove them, ask for what is nearest to a vector."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from vlfer.errors import ConfigError, DataError, ShapeError, did_you_mean
from vlfer.search.store import Moment, Row, Store
from vlfer.search.vectors import FLAT_UP_TO, VectorIndex
from vlfer.types import FloatArray

__all__ = ["Hit", "Moment", "SearchIndex"]

_MOST_HITS = 1000
# Neighbouring stretches of one face are one answer: more are looked up than are asked for.
_LOOKED_UP = 4
_TOUCHING_S = 0.02
# Cosines of one answer lie within this much: a smile that ends is not the same moment as what follows.
_ALIKE = 0.1


@dataclass(frozen=True, slots=True)
class Hit:
    """A moment that answers a query.

    Attributes:
        source: Name of the source.
        start_s: Start in seconds.
        end_s: End in seconds.
        track_id: Which face of the source.
        similarity: Inner product with the query; of the best stretch where several were joined.
        thumbnail: A JPEG picture of the face, or None.
    """

    source: str
    start_s: float
    end_s: float
    track_id: int
    similarity: float
    thumbnail: bytes | None


class SearchIndex:
    """Moments of many sources in a folder: ``moments.sqlite`` is the truth, ``vectors.faiss`` a cache of it.

    A process may be killed at any time: a source is in the index whole or not at all, and a FAISS file that is missing,
    damaged or out of date is put right on opening. Several processes may share a folder; safe from several threads.
    Open one with `SearchIndex.open`.
    """

    def __init__(self, store: Store, vectors: VectorIndex) -> None:
        self._store = store
        self._vectors = vectors
        self._lock = threading.RLock()
        self._seen = -1

    @classmethod
    def open(cls, folder: str | Path, *, encoder_space: str, flat_up_to: int = FLAT_UP_TO) -> SearchIndex:
        """Open an index, or make an empty one.

        Args:
            folder: Where it lives.
            encoder_space: ``encoder.space`` of the model whose vectors it holds.
            flat_up_to: Number of moments up to which every one is compared.

        Raises:
            SpaceError: If it holds vectors of another model.
            DataError: If the folder holds something else, or cannot be written.
        """
        folder = Path(folder)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # faces are personal data
        except OSError as error:
            raise DataError(f"The folder {str(folder)!r} cannot be made: {error.strerror}.") from error
        store = Store(folder / "moments.sqlite", space=encoder_space)
        index = cls(store, VectorIndex(folder / "vectors.faiss", flat_up_to=flat_up_to))
        index._agree()
        return index

    def __enter__(self) -> SearchIndex:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        with self._lock:
            self._agree()
            return len(self._vectors)

    @property
    def kind(self) -> str:
        """Return how vectors are looked up: "flat" (all are compared) or "ivf"."""
        return self._vectors.kind

    def add_source(self, source: str | Path, moments: Sequence[Moment], *, stamp: str = "", note: str = "") -> int:
        """Put a source in, in place of what was known of it.

        Args:
            source: Its path or name.
            moments: What was seen, see `vlfer.search.find_moments`; may be empty.
            stamp: What tells a changed file from an unchanged one.
            note: Remark, such as why there is no moment.

        Returns:
            The number of moments added.

        Raises:
            ShapeError: If the vectors are no (D,) float32 of the index's D.
        """
        _check_vectors(moments)
        with self._lock:
            self._agree()
            if moments and self._vectors.dimension not in (0, len(moments[0].vector)):
                raise ShapeError(
                    f"The moments have vectors of {len(moments[0].vector)} numbers.",
                    why=f"Those of the index have {self._vectors.dimension}.",
                )
            removed, added = self._store.replace(str(source), moments, stamp=stamp, note=note)
            self._vectors.remove(np.array(removed, np.int64))
            if moments:
                self._vectors.add(np.array(added, np.int64), np.stack([m.vector for m in moments]))
        return len(added)

    def remove(self, source: str | Path) -> int:
        """Remove a source and everything kept of it; return the number of moments.

        Raises:
            DataError: If it is not in the index.
        """
        with self._lock:
            self._agree()
            removed = self._store.remove(str(source))
            if removed is None:
                names = self._store.sources()
                raise DataError(
                    f"{str(source)!r} is not in the index.",
                    why=f"It holds {len(names)} sources. {did_you_mean(str(source), names)}".strip(),
                    fix="vlfer index list",
                )
            self._vectors.remove(np.array(removed, np.int64))
        return len(removed)

    def sources(self) -> Mapping[str, str]:
        """Return the name of every source with the stamp it was added with."""
        with self._lock:
            return self._store.sources()

    def notes(self) -> Mapping[str, str]:
        """Return the remark of every source that has one."""
        with self._lock:
            return self._store.notes()

    def query(self, vector: FloatArray, k: int = 12) -> list[Hit]:
        """Return the ``k`` moments nearest to a vector, best first.

        Stretches of one face that touch are joined where they answer about as well.

        Args:
            vector: (D,) float32, see `vlfer.search.query_vector`.
            k: How many, 1 to 1000.

        Raises:
            ConfigError: If ``k`` is out of range.
            ShapeError: If the vector has another length than those of the index, or is not finite.
        """
        if not 1 <= k <= _MOST_HITS:
            raise ConfigError(f"{k} hits were asked for.", why=f"Expected 1 to {_MOST_HITS}.")
        if vector.ndim != 1 or not bool(np.isfinite(vector).all()):
            raise ShapeError(f"The query has shape {vector.shape}.", why="Expected one finite vector (D,).")
        with self._lock:
            self._agree()
            if self._vectors.dimension not in (0, len(vector)):
                raise ShapeError(f"The query has {len(vector)} numbers.", why=f"Expected {self._vectors.dimension}.")
            ids = self._vectors.search(vector, min(_LOOKED_UP * k, _MOST_HITS)).tolist()
            rows = self._store.rows(ids)
        return _joined(list(rows.values()), vector)[:k]

    def save(self) -> None:
        """Write the FAISS file, so that the next start need not make it again.

        Raises:
            OSError: If it cannot be written.
        """
        with self._lock:
            self._agree()
            self._vectors.save()

    def close(self) -> None:
        """Save and close."""
        with self._lock:
            self.save()
            self._store.close()

    def _agree(self) -> None:
        """Take in what other processes have changed since the last look, and rebuild where the size asks for it."""
        version = self._store.version()
        crossed = self._vectors.kind == "flat" and len(self._vectors) > self._vectors.flat_up_to
        if version != self._seen or crossed:
            self._vectors.agree(self._store.ids(), self._store.vectors)
            self._seen = version


def _check_vectors(moments: Sequence[Moment]) -> None:
    lengths = {moment.vector.shape for moment in moments}
    if len(lengths) > 1 or any(m.vector.ndim != 1 or m.vector.dtype != np.float32 for m in moments):
        raise ShapeError(f"Moments have vectors of shapes {sorted(lengths)}.", why="Expected (D,) float32, one D.")


def _joined(rows: Sequence[Row], vector: FloatArray) -> list[Hit]:
    """Return hits, best first, stretches of one face that touch in time and are about as similar made one."""
    by_face: dict[tuple[str, int], list[Hit]] = {}
    for row in rows:
        m = row.moment
        hit = Hit(row.source, m.start_s, m.end_s, m.track_id, float(m.vector @ vector), m.thumbnail)
        by_face.setdefault((row.source, m.track_id), []).append(hit)
    hits: list[Hit] = []
    for found in by_face.values():
        run: list[Hit] = []
        for hit in sorted(found, key=lambda h: h.start_s):
            cosines = [one.similarity for one in (*run, hit)]
            if run and (hit.start_s - run[-1].end_s > _TOUCHING_S or max(cosines) - min(cosines) > _ALIKE):
                hits.append(_one(run))
                run = []
            run.append(hit)
        hits.append(_one(run))
    return sorted(hits, key=lambda h: -h.similarity)


def _one(run: Sequence[Hit]) -> Hit:
    best = max(run, key=lambda h: h.similarity)
    return Hit(best.source, run[0].start_s, run[-1].end_s, best.track_id, best.similarity, best.thumbnail)
