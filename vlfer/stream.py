"""From a stream of frames to people through time: reading, finding and encoding overlap.

Memory holds a few chunks of pixels; what is kept of the past is the collector's choice.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from vlfer.collect import Collector, EmbedCollector, EmbeddedTrack, StreamOf, TrackT
from vlfer.errors import VlferError
from vlfer.faces.align import crop_face
from vlfer.faces.appearance import appearance
from vlfer.faces.follow import FaceFollower, FindFaces
from vlfer.faces.track import FaceLinker
from vlfer.sightings import Journal, Sightings
from vlfer.types import Embedding, Face, FloatArray, Frames, UInt8Array
from vlfer.video.ahead import read_ahead

CropFace = Callable[[UInt8Array, Face], UInt8Array]
EncodeFaces = Callable[[UInt8Array], Embedding]
EmbeddedStream = StreamOf[EmbeddedTrack]

_log = logging.getLogger(__name__)

THUMB_PX = 112
_THUMB_MARGIN = 0.12
_THUMB_EVERY_S = 0.5
# Faces that go through the tower together, if no more than so many frames need to be waited for. From 16 on one thread
# multiplies as fast as it can; activations of more fall out of the cache.
GROUP_FACES = 16
GROUP_FRAMES = 64


class FaceStage:
    """From frames to crops: the step before the tower.

    Args:
        follower: Finds and follows.
        crop: Frame and face to an upright crop (S, S, 3) uint8.
        with_looks: Whether faces are described so that they can be known again.
    """

    def __init__(self, follower: FaceFollower, crop: CropFace, *, with_looks: bool = True) -> None:
        self._follower = follower
        self._crop = crop
        self._with_looks = with_looks
        self._thumb_slot = -1
        self.seconds = {"detect": 0.0, "align": 0.0}

    def run(self, chunks: Iterable[Frames]) -> Iterator[tuple[Sightings, UInt8Array | None]]:
        """Yield what is in successive frames, without vectors, and the crops (N, S, S, 3) to encode, None for none.

        Small chunks are put together, so that few frames are held and yet enough faces go through the tower at once.

        Raises:
            VlferError: Whatever the chunks or the finder raise, after what was found before.
        """
        found = _Found()
        try:
            for frames in chunks:
                for pixels, moment in zip(frames.pixels, frames.times_s, strict=True):
                    self._look(pixels, float(moment), found)
                if len(found.faces) >= GROUP_FACES or len(found.times_s) >= GROUP_FRAMES:
                    yield found.told()
                    found = _Found()
        except VlferError:
            if found.times_s:
                yield found.told()
            raise
        if found.times_s:
            yield found.told()

    def _look(self, pixels: UInt8Array, time_s: float, found: _Found) -> None:
        begun = time.perf_counter()
        seen = self._follower.update(pixels, time_s)
        self.seconds["detect"] += time.perf_counter() - begun
        begun = time.perf_counter()
        slot = int(time_s / _THUMB_EVERY_S)
        for face in seen.faces:
            if slot != self._thumb_slot:
                found.thumb_of.append(len(found.faces))
                found.thumbs.append(crop_face(pixels, face, size=THUMB_PX, margin=_THUMB_MARGIN))
            found.owner.append(len(found.times_s))
            found.faces.append(face)
            found.crops.append(self._crop(pixels, face))
            if self._with_looks:
                found.looks.append(appearance(pixels, face))
        self._thumb_slot = slot if seen.faces else self._thumb_slot
        found.times_s.append(time_s)
        found.cuts.append(seen.is_cut)
        found.notes |= {seen.note: None} if seen.note else {}
        self.seconds["align"] += time.perf_counter() - begun


@dataclass(slots=True)
class _Found:
    """Sightings while they are gathered."""

    times_s: list[float] = field(default_factory=list)
    cuts: list[bool] = field(default_factory=list)
    owner: list[int] = field(default_factory=list)
    faces: list[Face] = field(default_factory=list)
    crops: list[UInt8Array] = field(default_factory=list)
    looks: list[FloatArray] = field(default_factory=list)
    thumbs: list[UInt8Array] = field(default_factory=list)
    thumb_of: list[int] = field(default_factory=list)
    notes: dict[str, None] = field(default_factory=dict)

    def told(self) -> tuple[Sightings, UInt8Array | None]:
        no_thumbs = np.zeros((0, THUMB_PX, THUMB_PX, 3), dtype=np.uint8)
        sightings = Sightings(
            times_s=np.array(self.times_s, dtype=np.float64),
            cuts=np.array(self.cuts, dtype=bool),
            owner=np.array(self.owner, dtype=np.int64),
            boxes=np.array([face.box for face in self.faces], dtype=np.float32).reshape(-1, 4),
            scores=np.array([face.score for face in self.faces], dtype=np.float32),
            looks=np.stack(self.looks) if self.looks else np.zeros((len(self.faces), 0), dtype=np.float32),
            vectors=np.zeros((0, 0), dtype=np.float32),
            thumbs=np.stack(self.thumbs) if self.thumbs else no_thumbs,
            thumb_of=np.array(self.thumb_of, dtype=np.int64),
            notes=tuple(self.notes),
        )
        return sightings, np.stack(self.crops) if self.crops else None


def with_vectors(sightings: Sightings, vectors: FloatArray) -> Sightings:
    """Return sightings with the vectors of their crops."""
    values = {name: getattr(sightings, name) for name in Sightings.__dataclass_fields__}
    return Sightings(**{**values, "vectors": vectors})


def run_stream(
    chunks: Iterable[Frames],
    *,
    stage: FaceStage,
    encode: EncodeFaces,
    collector: Collector[TrackT],
    journal: Journal | None = None,
    on_frames: Callable[[int], None] | None = None,
    keep_interrupted: bool = False,
) -> StreamOf[TrackT]:
    """Find, crop, encode and link the faces of a stream; the faces of many frames go through the tower at once.

    Args:
        chunks: Consecutive frames, already thinned to the rate wanted, from where ``collector`` stands.
        stage: Frames to crops.
        encode: Crops (N, S, S, 3) uint8 to N vectors.
        collector: What takes the sightings; it may hold those of an earlier run.
        journal: Written as sightings come, so that a run that is killed can go on.
        on_frames: Told the number of frames looked at so far, now and then.
        keep_interrupted: Whether Ctrl-C ends the stream with what was seen, instead of ending the program.

    Returns:
        Everything up to the end, or up to the error that broke the stream off.

    Raises:
        VlferError: Whatever the stream raises before its first frame.
    """
    seconds = {"decode": 0.0, "detect": 0.0, "align": 0.0, "encode": 0.0, "score": 0.0}
    failure: VlferError | None = None
    was_interrupted = False
    decoded = read_ahead(_timed(chunks, seconds))
    staged = read_ahead(stage.run(decoded))
    try:
        for sightings, crops in staged:
            begun = time.perf_counter()
            if crops is not None:
                encoded = encode(crops)
                collector.space = encoded.space
                sightings = with_vectors(sightings, encoded.vectors)
            seconds["encode"] += time.perf_counter() - begun
            journal = _noted(journal, sightings)
            begun = time.perf_counter()
            collector.take(sightings)
            seconds["score"] += time.perf_counter() - begun
            if on_frames is not None:
                on_frames(collector.n_frames)
    except VlferError as error:
        if not collector.n_frames:
            raise
        failure = error
    except KeyboardInterrupt:
        if not (collector.n_frames and keep_interrupted):
            raise
        was_interrupted = True
    finally:
        staged.close()
    result = collector.finish()
    result.failure, result.was_interrupted = failure, was_interrupted
    result.seconds = {**seconds, **stage.seconds}
    return result


def _noted(journal: Journal | None, sightings: Sightings) -> Journal | None:
    """Add to the journal; where that fails, go on without one."""
    if journal is None:
        return None
    try:
        journal.add(sightings)
    except OSError as error:
        _log.warning("%s cannot be written (%s); an interruption would lose this run", journal.path, error)
        return None
    return journal


def embed_stream(
    chunks: Iterable[Frames],
    *,
    find: FindFaces,
    crop: CropFace,
    encode: EncodeFaces,
    on_frames: Callable[[int], None] | None = None,
    follower: FaceFollower | None = None,
) -> EmbeddedStream:
    """Find, crop, encode and link the faces of a stream and keep every vector, to be scored for any labels.

    Args:
        chunks: Consecutive frames, already thinned to the rate wanted.
        find: Frame (H, W, 3) uint8 to faces and a remark; called for every frame, in order, in another thread.
        crop: Frame and face to an upright crop (S, S, 3) uint8; called after the frame was searched.
        encode: Crops (N, S, S, 3) uint8 to N vectors.
        on_frames: Told the number of frames looked at so far, now and then.
        follower: Searches and follows in place of ``find``.

    Returns:
        Everything up to the end, or up to the error that broke the stream off.

    Raises:
        VlferError: Whatever the stream raises before its first frame.
    """
    stage = FaceStage(follower or FaceFollower(find, every_s=0.0, smooth=False), crop)
    collector = EmbedCollector(linker=FaceLinker(keep_faces=False))
    return run_stream(chunks, stage=stage, encode=encode, collector=collector, on_frames=on_frames)


def _timed(chunks: Iterable[Frames], seconds: dict[str, float]) -> Iterator[Frames]:
    iterator = iter(chunks)
    while True:
        begun = time.perf_counter()
        frames = next(iterator, None)
        seconds["decode"] += time.perf_counter() - begun
        if frames is None:
            return
        yield frames
