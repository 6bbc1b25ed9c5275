"""From a stream of frames to people through time: reading, finding and encoding overlap.

Memory holds a few chunks of pixels; what is kept of the past is the collector's choice.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator

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

    def run(self, frames: Frames) -> tuple[Sightings, UInt8Array | None]:
        """Return what is in the frames, without vectors, and the crops (N, S, S, 3) to encode, None for none.

        Raises:
            VlferError: Whatever the finder raises.
        """
        owner: list[int] = []
        faces: list[Face] = []
        crops: list[UInt8Array] = []
        looks: list[FloatArray] = []
        thumbs: list[tuple[int, UInt8Array]] = []
        cuts = np.zeros(len(frames), dtype=bool)
        notes: dict[str, None] = {}
        for number, (pixels, moment) in enumerate(zip(frames.pixels, frames.times_s, strict=True)):
            begun = time.perf_counter()
            found = self._follower.update(pixels, float(moment))
            self.seconds["detect"] += time.perf_counter() - begun
            begun = time.perf_counter()
            cuts[number] = found.is_cut
            notes |= {found.note: None} if found.note else {}
            slot = int(moment / _THUMB_EVERY_S)
            for face in found.faces:
                if slot != self._thumb_slot:
                    thumb = crop_face(pixels, face, size=THUMB_PX, margin=_THUMB_MARGIN)
                    thumbs.append((len(faces), thumb))
                owner.append(number)
                faces.append(face)
                crops.append(self._crop(pixels, face))
                if self._with_looks:
                    looks.append(appearance(pixels, face))
            self._thumb_slot = slot if found.faces else self._thumb_slot
            self.seconds["align"] += time.perf_counter() - begun
        sightings = Sightings(
            times_s=frames.times_s,
            cuts=cuts,
            owner=np.array(owner, dtype=np.int64),
            boxes=np.array([face.box for face in faces], dtype=np.float32).reshape(-1, 4),
            scores=np.array([face.score for face in faces], dtype=np.float32),
            looks=np.stack(looks) if looks else np.zeros((len(faces), 0), dtype=np.float32),
            vectors=np.zeros((0, 0), dtype=np.float32),
            thumbs=np.stack([thumb for _, thumb in thumbs])
            if thumbs
            else np.zeros((0, THUMB_PX, THUMB_PX, 3), dtype=np.uint8),
            thumb_of=np.array([number for number, _ in thumbs], dtype=np.int64),
            notes=tuple(notes),
        )
        return sightings, np.stack(crops) if crops else None


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
    """Find, crop, encode and link the faces of a stream; the faces of a chunk go through the tower at once.

    Args:
        chunks: Consecutive frames, already thinned to the rate wanted, from where ``collector`` stands.
        stage: Frames to crops.
        encode: Crops (N, S, S, 3) uint8 to N vectors.
        collector: What takes the sightings; it may hold those of an earlier run.
        journal: Written as sightings come, so that a run that is killed can go on.
        on_frames: Told the number of frames looked at so far, after each chunk.
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
    staged = read_ahead(stage.run(frames) for frames in decoded)
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
        on_frames: Told the number of frames looked at so far, after each chunk.
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
