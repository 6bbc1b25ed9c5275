"""From sightings, chunk by chunk, to people through time: with their scores in bounded memory, or with all vectors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from vlfer.cells import CellBuilder, Cells
from vlfer.errors import VlferError
from vlfer.faces.track import FaceLinker
from vlfer.sightings import Sightings
from vlfer.types import Embedding, Face, FaceTrack, FloatArray, IntArray, Scores, TimeArray, UInt8Array

ScoreFaces = Callable[[Embedding], Scores]
Thumbnails = tuple[tuple[float, UInt8Array], ...]

MOST_KEPT_THUMBS = 256
MOST_THUMBNAILS = 24
_THUMB_EVERY_S = 0.5

TrackT = TypeVar("TrackT")


@dataclass(frozen=True, slots=True)
class EmbeddedTrack:
    """One face through time with its vectors.

    Attributes:
        track: Geometry of T sightings; ``frame_index`` counts the frames that were looked at.
        times_s: (T,) float64 seconds.
        embedding: T vectors.
        thumbnails: Moments in seconds with the face at that moment, evenly spread, at most 24.
    """

    track: FaceTrack
    times_s: TimeArray
    embedding: Embedding
    thumbnails: Thumbnails


@dataclass(frozen=True, slots=True)
class ScoredTrack:
    """One person through time with the scores of every frame and of every cell.

    Attributes:
        track: Geometry of T sightings; ``frame_index`` counts the frames that were looked at.
        times_s: (T,) float64 seconds.
        frame_scores: T sightings against C labels.
        cell_start_s: (N,) float64, start of each slice of time.
        cell_end_s: (N,) float64.
        cell_vectors: (N, D) float16, the pooled vector of each; half precision, since all of a long film are kept.
        cell_scores: N cells against C labels, of the vectors in full precision.
        thumbnails: Moments in seconds with the face at that moment, evenly spread, at most 24.
    """

    track: FaceTrack
    times_s: TimeArray
    frame_scores: Scores
    cell_start_s: TimeArray
    cell_end_s: TimeArray
    cell_vectors: NDArray[np.float16]
    cell_scores: Scores
    thumbnails: Thumbnails


@dataclass(slots=True)
class StreamOf(Generic[TrackT]):
    """What a stream yielded, as far as it could be read.

    Attributes:
        tracks: The people, in the order of their ids.
        n_frames: Frames looked at.
        last_s: Time of the last frame.
        notes: Distinct remarks of the face finder.
        failure: The error that ended the stream early, or None.
        n_replayed: Of the frames, how many came from the journal of an earlier run.
        cuts_s: Times of the cuts between shots.
        was_interrupted: Whether the user ended it.
        seconds: Time spent per step: decode, detect, align, encode, score. Steps overlap, so the sum may exceed the
            time on the clock.
    """

    tracks: list[TrackT] = field(default_factory=list)
    n_frames: int = 0
    last_s: float = 0.0
    notes: dict[str, None] = field(default_factory=dict)
    failure: VlferError | None = None
    n_replayed: int = 0
    cuts_s: list[float] = field(default_factory=list)
    was_interrupted: bool = False
    seconds: dict[str, float] = field(default_factory=dict)


class Collector(ABC, Generic[TrackT]):
    """Gives ids to sightings and keeps what is wanted of them.

    Args:
        linker: Gives ids; made with ``keep_faces=False``.
        space: Of the vectors; may be set when the first come.
    """

    def __init__(self, *, linker: FaceLinker, space: str = "") -> None:
        self._linker = linker
        self.space = space
        self._thumbs = _KeptThumbs()
        self._result: StreamOf[TrackT] = StreamOf()

    @property
    def n_frames(self) -> int:
        """Frames taken so far."""
        return self._result.n_frames

    @property
    def last_s(self) -> float:
        """Time of the last frame."""
        return self._result.last_s

    def take(self, sightings: Sightings, *, is_replay: bool = False) -> list[int]:
        """Take in the next sightings; return the id of each.

        Raises:
            VlferError: Whatever scoring raises.
        """
        result = self._result
        ids: list[int] = []
        for number in range(len(sightings.times_s)):
            low, high = np.searchsorted(sightings.owner, [number, number + 1])
            faces = [
                Face(box=box, score=float(score))
                for box, score in zip(sightings.boxes[low:high], sightings.scores[low:high], strict=True)
            ]
            looks = sightings.looks[low:high] if sightings.looks.shape[1] else None
            ids += self._linker.update(
                faces, result.n_frames + number, looks=looks, is_cut=bool(sightings.cuts[number])
            )
        if ids:
            self._add(sightings, np.array(ids, dtype=np.int64))
        for row, thumb in zip(sightings.thumb_of, sightings.thumbs, strict=True):
            self._thumbs.add(ids[int(row)], float(sightings.times_s[sightings.owner[row]]), thumb)
        result.cuts_s += sightings.times_s[sightings.cuts].tolist()
        result.notes |= dict.fromkeys(sightings.notes)
        result.n_frames += len(sightings.times_s)
        result.n_replayed += len(sightings.times_s) if is_replay else 0
        result.last_s = float(sightings.times_s[-1]) if len(sightings.times_s) else result.last_s
        return ids

    def finish(self) -> StreamOf[TrackT]:
        """Close everything and return it."""
        thumbs = self._thumbs.by_person()
        for track_id in self._people():
            own = thumbs.get(track_id, [])
            step = max(1, -(-len(own) // MOST_THUMBNAILS))
            self._result.tracks.append(self._joined(track_id, tuple(own[::step])))
        return self._result

    @abstractmethod
    def _add(self, sightings: Sightings, ids: IntArray) -> None:
        """Keep the N sightings of a chunk, whose first frame is number `n_frames`."""

    @abstractmethod
    def _people(self) -> list[int]:
        """Return all ids, in order."""

    @abstractmethod
    def _joined(self, track_id: int, thumbnails: Thumbnails) -> TrackT:
        """Return one person."""


@dataclass(slots=True)
class _Vectors:
    times: list[TimeArray] = field(default_factory=list)
    frames: list[IntArray] = field(default_factory=list)
    blocks: list[tuple[FloatArray, FloatArray, FloatArray]] = field(default_factory=list)


class EmbedCollector(Collector[EmbeddedTrack]):
    """Keeps the vector of every sighting, so that any labels can be asked for afterwards; memory grows with length."""

    def __init__(self, *, linker: FaceLinker, space: str = "") -> None:
        super().__init__(linker=linker, space=space)
        self._kept: dict[int, _Vectors] = {}

    def _add(self, sightings: Sightings, ids: IntArray) -> None:
        for track_id in np.unique(ids).tolist():
            kept = self._kept.setdefault(track_id, _Vectors())
            rows = np.flatnonzero(ids == track_id)
            kept.times.append(sightings.times_s[sightings.owner[rows]])
            kept.frames.append(sightings.owner[rows] + self.n_frames)
            kept.blocks.append((sightings.boxes[rows], sightings.scores[rows], sightings.vectors[rows]))

    def _people(self) -> list[int]:
        return sorted(self._kept)

    def _joined(self, track_id: int, thumbnails: Thumbnails) -> EmbeddedTrack:
        kept = self._kept[track_id]
        boxes, scores, vectors = (np.concatenate(parts) for parts in zip(*kept.blocks, strict=True))
        track = FaceTrack(boxes, scores, np.concatenate(kept.frames), None, track_id)
        return EmbeddedTrack(track, np.concatenate(kept.times), Embedding(vectors, self.space), thumbnails)


@dataclass(slots=True)
class _Person:
    """What is kept of one track: numbers per sighting in blocks, and cells."""

    cells: CellBuilder
    blocks: list[tuple[FloatArray, ...]] = field(default_factory=list)
    times: list[TimeArray] = field(default_factory=list)
    frames: list[IntArray] = field(default_factory=list)
    done: list[tuple[TimeArray, TimeArray, NDArray[np.float16], Scores]] = field(default_factory=list)


class ScoreCollector(Collector[ScoredTrack]):
    """Scores sightings as they come and keeps numbers only: an hour of one face at 30 fps takes 20 MB.

    Args:
        linker: Gives ids; made with ``keep_faces=False``.
        space: Of the vectors.
        score: Vectors to scores.
        build_cells: Makes the cell builder of a new person.
    """

    def __init__(
        self, *, linker: FaceLinker, space: str, score: ScoreFaces, build_cells: Callable[[], CellBuilder]
    ) -> None:
        super().__init__(linker=linker, space=space)
        self._score = score
        self._build_cells = build_cells
        self._persons: dict[int, _Person] = {}

    def _add(self, sightings: Sightings, ids: IntArray) -> None:
        scores = self._score(Embedding(sightings.vectors, self.space))
        for track_id in np.unique(ids):
            person = self._persons.get(int(track_id))
            if person is None:
                person = self._persons[int(track_id)] = _Person(self._build_cells())
            rows = np.flatnonzero(ids == track_id)
            owner = sightings.owner[rows]
            times_s = sightings.times_s[owner]
            person.times.append(times_s)
            person.frames.append(owner + self.n_frames)
            person.blocks.append(
                (sightings.boxes[rows], sightings.scores[rows], scores.similarity[rows], scores.probability[rows])
            )
            self._keep(person, person.cells.add(times_s, Embedding(sightings.vectors[rows], self.space)))

    def _keep(self, person: _Person, cells: Cells | None) -> None:
        if cells is not None:
            half = cells.embedding.vectors.astype(np.float16)
            person.done.append((cells.start_s, cells.end_s, half, self._score(cells.embedding)))

    def _people(self) -> list[int]:
        return sorted(self._persons)

    def _joined(self, track_id: int, thumbnails: Thumbnails) -> ScoredTrack:
        person = self._persons[track_id]
        self._keep(person, person.cells.finish())
        boxes, scores, similarity, probability = (np.concatenate(parts) for parts in zip(*person.blocks, strict=True))
        starts, ends, vectors, cell_scores = zip(*person.done, strict=True)
        some = cell_scores[0]
        return ScoredTrack(
            track=FaceTrack(boxes, scores, np.concatenate(person.frames), None, track_id),
            times_s=np.concatenate(person.times),
            frame_scores=Scores(similarity, probability, some.temperature, some.labels),
            cell_start_s=np.concatenate(starts),
            cell_end_s=np.concatenate(ends),
            cell_vectors=np.concatenate(vectors),
            cell_scores=Scores(
                np.concatenate([part.similarity for part in cell_scores]),
                np.concatenate([part.probability for part in cell_scores]),
                some.temperature,
                some.labels,
            ),
            thumbnails=thumbnails,
        )


def score_track(found: EmbeddedTrack, *, score: ScoreFaces, cells: CellBuilder) -> ScoredTrack:
    """Score a track whose vectors were kept.

    Raises:
        VlferError: Whatever ``score`` raises.
    """
    parts = [part for part in (cells.add(found.times_s, found.embedding), cells.finish()) if part is not None]
    vectors = np.concatenate([part.embedding.vectors for part in parts])
    return ScoredTrack(
        track=found.track,
        times_s=found.times_s,
        frame_scores=score(found.embedding),
        cell_start_s=np.concatenate([part.start_s for part in parts]),
        cell_end_s=np.concatenate([part.end_s for part in parts]),
        cell_vectors=vectors.astype(np.float16),
        cell_scores=score(Embedding(vectors, found.embedding.space)),
        thumbnails=found.thumbnails,
    )


class _KeptThumbs:
    """Thumbnails at least so many seconds apart; the step doubles whenever there are too many."""

    def __init__(self) -> None:
        self.step_s = _THUMB_EVERY_S
        self.kept: dict[tuple[int, int], tuple[float, UInt8Array]] = {}

    def add(self, track_id: int, time_s: float, thumb: UInt8Array) -> None:
        self.kept.setdefault((track_id, int(time_s / self.step_s)), (time_s, thumb.copy()))
        while len(self.kept) > MOST_KEPT_THUMBS and self.step_s < 1e6:
            self.step_s *= 2
            old, self.kept = self.kept, {}
            for (who, _), (moment, picture) in old.items():
                self.kept.setdefault((who, int(moment / self.step_s)), (moment, picture))

    def by_person(self) -> dict[int, list[tuple[float, UInt8Array]]]:
        people: dict[int, list[tuple[float, UInt8Array]]] = {}
        for (track_id, _), one in sorted(self.kept.items(), key=lambda item: item[0]):
            people.setdefault(track_id, []).append(one)
        return people
