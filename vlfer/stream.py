"""From a stream of frames to embedded face tracks.

Memory holds one chunk of pixels; of the past only vectors, boxes and a bounded number of thumbnails stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from vlfer.errors import VlferError
from vlfer.faces.track import link_faces
from vlfer.types import Embedding, Face, FaceTrack, Frames, TimeArray, UInt8Array

FindFaces = Callable[[UInt8Array], tuple[list[Face], str]]
CropFace = Callable[[UInt8Array, Face], UInt8Array]
EncodeFaces = Callable[[UInt8Array], Embedding]

MOST_KEPT_CROPS = 512
MOST_THUMBNAILS = 24


@dataclass(frozen=True, slots=True)
class EmbeddedTrack:
    """One face through time with its vectors.

    Attributes:
        track: Geometry of T sightings; ``frame_index`` counts the frames that were looked at.
        times_s: (T,) float64 seconds.
        embedding: T vectors.
        thumbnails: Moments in seconds with the crop at that moment, evenly spread, at most 24.
    """

    track: FaceTrack
    times_s: TimeArray
    embedding: Embedding
    thumbnails: tuple[tuple[float, UInt8Array], ...]


@dataclass(slots=True)
class EmbeddedStream:
    """What a stream yielded, as far as it could be read.

    Attributes:
        tracks: The faces, in the order of their ids.
        n_frames: Frames looked at.
        last_s: Time of the last frame.
        notes: Distinct remarks of the face finder.
        failure: The error that ended the stream early, or None.
    """

    tracks: list[EmbeddedTrack] = field(default_factory=list)
    n_frames: int = 0
    last_s: float = 0.0
    notes: dict[str, None] = field(default_factory=dict)
    failure: VlferError | None = None


def embed_stream(
    chunks: Iterable[Frames],
    *,
    find: FindFaces,
    crop: CropFace,
    encode: EncodeFaces,
    on_frames: Callable[[int], None] | None = None,
) -> EmbeddedStream:
    """Find, crop, encode and link the faces of a stream; the faces of a chunk go through the tower at once.

    Args:
        chunks: Consecutive frames, already thinned to the rate wanted.
        find: Frame (H, W, 3) uint8 to faces and a remark.
        crop: Frame and face to an upright crop (S, S, 3) uint8.
        encode: Crops (N, S, S, 3) uint8 to N vectors.
        on_frames: Told the number of frames looked at so far, after each chunk.

    Returns:
        Everything up to the end, or up to the error that broke the stream off.

    Raises:
        VlferError: Whatever the stream raises before its first frame.
    """
    result = EmbeddedStream()
    faces_per_frame: list[list[Face]] = []
    times_s: list[float] = []
    vectors: dict[tuple[int, bytes], Embedding] = {}
    kept = _KeptCrops()
    try:
        for chunk in chunks:
            keys: list[tuple[int, bytes]] = []
            crops: list[UInt8Array] = []
            for pixels, time_s in zip(chunk.pixels, chunk.times_s, strict=True):
                number = len(times_s)
                faces, note = find(pixels)
                result.notes |= {note: None} if note else {}
                faces_per_frame.append([Face(box=face.box, score=face.score) for face in faces])
                times_s.append(float(time_s))
                keys += [(number, face.box.tobytes()) for face in faces]
                crops += [crop(pixels, face) for face in faces]
            if crops:
                encoded = encode(np.stack(crops))
                for key, picture, vector in zip(keys, crops, encoded.vectors, strict=True):
                    vectors[key] = Embedding(vector[None].copy(), encoded.space)
                    kept.add(key, picture)
            if on_frames is not None:
                on_frames(len(times_s))
    except VlferError as error:
        if not times_s:
            raise
        result.failure = error
    result.n_frames = len(times_s)
    result.last_s = times_s[-1] if times_s else 0.0
    indices = np.arange(len(times_s), dtype=np.int64)
    for track in link_faces(faces_per_frame, indices) if vectors else []:
        result.tracks.append(_join(track, np.asarray(times_s, dtype=np.float64), vectors=vectors, kept=kept))
    return result


class _KeptCrops:
    """Every k-th frame's crops; k doubles whenever there are too many, so that memory does not grow with length."""

    def __init__(self) -> None:
        self.stride = 1
        self.crops: dict[tuple[int, bytes], UInt8Array] = {}

    def add(self, key: tuple[int, bytes], crop: UInt8Array) -> None:
        if key[0] % self.stride:
            return
        self.crops[key] = crop
        while len(self.crops) > MOST_KEPT_CROPS and self.stride < 1 << 30:
            self.stride *= 2
            self.crops = {k: v for k, v in self.crops.items() if k[0] % self.stride == 0}


def _join(
    track: FaceTrack, times_s: TimeArray, *, vectors: dict[tuple[int, bytes], Embedding], kept: _KeptCrops
) -> EmbeddedTrack:
    """Attach to a track the vectors and crops of its own sightings."""
    keys = [(int(i), box.tobytes()) for i, box in zip(track.frame_index, track.boxes, strict=True)]
    found = [vectors[key] for key in keys]
    thumbnails = [(float(times_s[key[0]]), kept.crops[key]) for key in keys if key in kept.crops]
    step = max(1, -(-len(thumbnails) // MOST_THUMBNAILS))
    return EmbeddedTrack(
        track=track,
        times_s=times_s[track.frame_index],
        embedding=Embedding(np.concatenate([one.vectors for one in found]), found[0].space),
        thumbnails=tuple(thumbnails[::step]),
    )
