"""What a chunk of frames came to: faces with their vectors; and a journal of it, from which a broken run goes on."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from vlfer.types import FloatArray, IntArray, TimeArray, UInt8Array

_MAGIC = b"vlfer-journal-1\n"
_LENGTH_BYTES = 8


@dataclass(frozen=True, slots=True)
class Sightings:
    """The faces of consecutive frames: N sightings in T frames.

    Attributes:
        times_s: (T,) float64.
        cuts: (T,) bool, whether a frame begins a new shot.
        owner: (N,) int64, which of the T frames each sighting is in, not decreasing.
        boxes: (N, 4) float32 xyxy px.
        scores: (N,) float32.
        looks: (N, A) float32 unit descriptions of the appearance, or (N, 0).
        vectors: (N, D) float32 unit vectors.
        thumbs: (M, S, S, 3) uint8 RGB.
        thumb_of: (M,) int64, which sighting each thumbnail shows.
        notes: Remarks of the face finder.
    """

    times_s: TimeArray
    cuts: NDArray[np.bool_]
    owner: IntArray
    boxes: FloatArray
    scores: FloatArray
    looks: FloatArray
    vectors: FloatArray
    thumbs: UInt8Array
    thumb_of: IntArray
    notes: tuple[str, ...] = ()


class Journal:
    """A file to which sightings are added as they come, and from which they are read after an interruption.

    Args:
        path: The file; its folder is created.
        identity: What the sightings were made of and with, JSON-ready. A file of another identity is begun anew.
    """

    def __init__(self, path: Path, *, identity: Mapping[str, Any]) -> None:
        self.path = path
        self._header = _MAGIC + json.dumps(dict(identity), sort_keys=True, default=str).encode() + b"\n"
        self._file: IO[bytes] | None = None

    def replay(self) -> Iterator[Sightings]:
        """Yield what the file holds, up to where a crash or a full disk cut it; then it is ready to be added to.

        Raises:
            OSError: If the file cannot be read or created.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        good = 0
        if self.path.exists():
            with self.path.open("rb") as file:
                if file.read(len(self._header)) == self._header:
                    good = len(self._header)
                    for record in _records(file):
                        good += _LENGTH_BYTES + len(record)
                        yield _unpack(record)
        self._file = self.path.open("r+b" if good else "wb")
        self._file.truncate(good)
        self._file.seek(good)
        if not good:
            self._file.write(self._header)

    def add(self, sightings: Sightings) -> None:
        """Add sightings.

        Raises:
            OSError: If the disk is full or the file cannot be written.
        """
        if self._file is None:
            raise ValueError("replay() comes first")
        record = _pack(sightings)
        self._file.write(len(record).to_bytes(_LENGTH_BYTES, "little") + record)
        self._file.flush()

    def close(self) -> None:
        """Close the file; it stays, also when all is done: who began it removes it."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # a full disk was told of when it was written to
                self._file.close()
            self._file = None


def _records(file: IO[bytes]) -> Iterator[bytes]:
    while True:
        head = file.read(_LENGTH_BYTES)
        if len(head) < _LENGTH_BYTES:
            return
        length = int.from_bytes(head, "little")
        record = file.read(length)
        if len(record) < length or not zipfile.is_zipfile(io.BytesIO(record)):
            return
        yield record


def _pack(sightings: Sightings) -> bytes:
    buffer = io.BytesIO()
    arrays = {field.name: getattr(sightings, field.name) for field in fields(sightings) if field.name != "notes"}
    np.savez(buffer, notes=np.array(json.dumps(sightings.notes)), **arrays)
    return buffer.getvalue()


def _unpack(record: bytes) -> Sightings:
    with np.load(io.BytesIO(record), allow_pickle=False) as archive:
        values: dict[str, Any] = {name: archive[name] for name in archive.files}
    values["notes"] = tuple(json.loads(str(values["notes"])))
    return Sightings(**values)
