"""Faces of a folder of videos, in the reference frame, as pairs of frames a short random time apart."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlfer.config import write_atomically
from vlfer.errors import DataError, VlferError
from vlfer.faces.detect import FaceDetector
from vlfer.mie import steady_faces
from vlfer.types import FloatArray, IntArray, UInt8Array
from vlfer.video.paths import VIDEO_SUFFIXES
from vlfer.video.read import read_video

_MOST_FRAMES = 20_000

Tell = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class FaceVideos:
    """Frames of faces, some of one person and place after the other.

    Attributes:
        faces: One (T, S, S, 3) uint8 RGB array a video, possibly mapped from disk.
        times_s: (T,) float64 of each.
        stretch: (T,) int64 of each; frames of one stretch share a transform.
    """

    faces: tuple[UInt8Array, ...]
    times_s: tuple[NDArray[np.float64], ...]
    stretch: tuple[IntArray, ...]

    def __len__(self) -> int:
        return sum(len(part) for part in self.faces)

    @property
    def sha256(self) -> str:
        """Hash of everything in it."""
        digest = hashlib.sha256()
        for parts in (self.faces, self.times_s, self.stretch):
            for part in parts:
                digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()

    def pairs(self, *, shortest_s: float, longest_s: float) -> Pairs:
        """Return where pairs can be drawn.

        Raises:
            DataError: If no two frames of one stretch are that far apart.
        """
        rows: list[NDArray[Any]] = []
        for number, (times, stretch) in enumerate(zip(self.times_s, self.stretch, strict=True)):
            ends = np.searchsorted(stretch, stretch, side="right") - 1
            low = np.searchsorted(times, times + shortest_s - 1e-6)
            high = np.minimum(np.searchsorted(times, times + longest_s + 1e-6, side="right") - 1, ends)
            start = np.flatnonzero(high >= low)
            rows.append(np.stack([np.full(len(start), number), start, low[start], high[start]], axis=1))
        table = np.concatenate(rows) if rows else np.zeros((0, 4), np.int64)
        if not len(table):
            raise DataError(
                f"No two of {len(self)} frames are {shortest_s:g} to {longest_s:g} s apart on one face.",
                why="Pre-training learns from such pairs.", fix="videos of 10 frames a second at least",
            )  # fmt: skip
        return Pairs(self, table.astype(np.int64))


@dataclass(frozen=True, slots=True)
class Pairs:
    """Where pairs can be drawn: video, first frame, nearest and farthest second frame, (P, 4) int64."""

    videos: FaceVideos
    table: IntArray

    def __len__(self) -> int:
        return len(self.table)

    def draw(self, count: int, *, rng: np.random.Generator) -> tuple[UInt8Array, UInt8Array]:
        """Draw pairs, every first frame as likely as any other, then every second one: (N, S, S, 3) uint8 twice."""
        chosen = self.table[rng.integers(len(self.table), size=count)]
        later = rng.integers(chosen[:, 2], chosen[:, 3] + 1)
        first = [self.videos.faces[video][frame] for video, frame in chosen[:, :2]]
        second = [self.videos.faces[video][frame] for video, frame in zip(chosen[:, 0], later, strict=True)]
        return np.stack(first), np.stack(second)


def prepare_videos(
    folder: Path, *, cache: Path, side: int, detector: FaceDetector, tell: Tell | None = None
) -> tuple[FaceVideos, list[tuple[str, str]]]:
    """Find the faces of all videos below a folder once, and keep them.

    Args:
        folder: Searched with its subfolders.
        cache: Folder of the faces; videos that are there already are not read again.
        side: S in pixels.
        detector: Finds faces with the landmarks of the face mesh.
        tell: Told (what, done, total).

    Returns:
        The faces, and name and reason of each video that gave none.

    Raises:
        DataError: If there is no video, or none with a face.
    """
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in VIDEO_SUFFIXES)
    if not files:
        raise DataError(f"There is no video in {str(folder)!r}.", why=f"Videos end in {', '.join(VIDEO_SUFFIXES)}.")
    cache.mkdir(parents=True, exist_ok=True)
    found, failed = [], []
    for done, file in enumerate(files, start=1):
        name = str(file.relative_to(folder))
        stat = file.stat()
        key = hashlib.sha256(json.dumps([name, stat.st_size, stat.st_mtime_ns, side]).encode()).hexdigest()[:16]
        try:
            if not (cache / f"{key}.json").is_file():
                _keep(file, cache / key, side=side, detector=detector)
            found.append(_kept(cache / key))
        except VlferError as error:
            failed.append((name, error.what))
        if tell:
            tell("faces", done, len(files))
    if not found:
        raise DataError(f"None of {len(files)} videos shows a face.", why=f"{failed[0][0]}: {failed[0][1]}")
    faces, times, stretch = zip(*found, strict=True)
    return FaceVideos(tuple(faces), tuple(times), tuple(stretch)), failed


def _keep(file: Path, place: Path, *, side: int, detector: FaceDetector) -> None:
    """Write the faces of one video, at most so many frames that they stay below a gigabyte at 128 px."""
    kept = list(_limited(file, side=side, detector=detector))
    if not kept:
        raise DataError(f"{file.name!r} shows no face.")
    buffer = io.BytesIO()
    np.save(buffer, np.stack([face.pixels for face in kept]), allow_pickle=False)
    write_atomically(place.with_suffix(".npy"), buffer.getvalue())
    facts = {"video": file.name, "times_s": [f.time_s for f in kept], "stretch": [f.stretch for f in kept]}
    write_atomically(place.with_suffix(".json"), json.dumps(facts).encode())


def _limited(file: Path, *, side: int, detector: FaceDetector) -> Iterator[Any]:
    for number, face in enumerate(steady_faces(read_video(str(file)), detector=detector, side=side)):
        if number == _MOST_FRAMES:
            return
        yield face


def _kept(place: Path) -> tuple[UInt8Array, NDArray[np.float64], IntArray]:
    facts = json.loads(place.with_suffix(".json").read_text())
    faces = np.load(place.with_suffix(".npy"), mmap_mode="r", allow_pickle=False)
    return faces, np.array(facts["times_s"]), np.array(facts["stretch"], dtype=np.int64)


def to_unit(faces: UInt8Array) -> FloatArray:
    """Return faces (N, S, S, 3) uint8 as (N, 3, S, S) float32 in -1..1."""
    return np.ascontiguousarray(faces.transpose(0, 3, 1, 2), dtype=np.float32) / np.float32(127.5) - np.float32(1)
