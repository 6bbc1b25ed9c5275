"""Faces of coded clips as samples: for learners that read pictures rather than flow."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from vlfer.errors import DataError, ShapeError
from vlfer.micro.samples import TextArray
from vlfer.types import IntArray, UInt8Array

_NEEDED = ("faces", "dataset", "subject", "clip", "label", "classes")
_FIX = "vlfer mie faces casme2=DIR --out FILE.npz"


@dataclass(frozen=True, slots=True)
class FaceSamples:
    """Labelled faces of several people, in the reference frame.

    Attributes:
        faces: (N, 2 + T, S, S, 3) uint8 RGB: onset, apex, then the clip from onset to offset in T equal steps of time;
            T may be 0.
        label: (N,) int64 in 0..C-1.
        dataset: (N,) str, the part that a clip comes from.
        subject: (N,) str; a subject is unique only together with its data set, see `subject_keys`.
        clip: (N,) str, unique within a subject.
        classes: C names.
    """

    faces: UInt8Array
    label: IntArray
    dataset: TextArray
    subject: TextArray
    clip: TextArray
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        shape = self.faces.shape
        if self.faces.dtype != np.uint8 or len(shape) != 5 or shape[1] < 2 or shape[2] != shape[3] or shape[4] != 3:
            raise ShapeError(
                f"The faces have shape {shape} and dtype {self.faces.dtype}.",
                why="Expected (N, 2 + T, S, S, 3) uint8: onset, apex and the clip of each.",
            )
        lengths = {name: len(getattr(self, name)) for name in ("faces", "label", "dataset", "subject", "clip")}
        if len(set(lengths.values())) > 1:
            raise ShapeError(f"The parts differ in length: {lengths}.", why="They describe the same clips.")
        if len(self.label) and not (self.label.min() >= 0 and self.label.max() < len(self.classes)):
            raise DataError(
                f"Labels run from {self.label.min()} to {self.label.max()}.",
                why=f"There are {len(self.classes)} classes: {', '.join(self.classes)}.",
            )

    def __len__(self) -> int:
        return len(self.faces)

    @property
    def inputs(self) -> UInt8Array:
        """The faces."""
        return self.faces

    @property
    def side(self) -> int:
        """S in pixels."""
        return int(self.faces.shape[2])

    @property
    def subject_keys(self) -> TextArray:
        """The people: ``dataset/subject`` of each clip, (N,) str. "sub01" of two data sets is two people."""
        return np.char.add(np.char.add(self.dataset, "/"), self.subject)

    def take(self, rows: NDArray[Any]) -> FaceSamples:
        """Return the clips at ``rows``, an index or a mask."""
        return FaceSamples(
            self.faces[rows], self.label[rows], self.dataset[rows], self.subject[rows], self.clip[rows], self.classes
        )

    @property
    def sha256(self) -> str:
        """Hash of everything in it."""
        digest = hashlib.sha256(repr(self.classes).encode())
        for array in (self.faces, self.label):
            digest.update(np.ascontiguousarray(array).tobytes())
        for column in (self.dataset, self.subject, self.clip):
            digest.update("\0".join(column.tolist()).encode())
        return digest.hexdigest()


def save_face_archive(samples: FaceSamples, path: str | Path) -> None:
    """Write ``samples`` as an archive that `load_face_archive` reads."""
    np.savez_compressed(
        Path(path),
        faces=samples.faces,
        dataset=samples.dataset,
        subject=samples.subject,
        clip=samples.clip,
        label=samples.label,
        classes=np.array(samples.classes),
    )


def load_face_archive(path: str | Path) -> FaceSamples:
    """Read an ``.npz`` archive of faces.

    Args:
        path: Archive with the keys ``faces`` (N, 2 + T, S, S, 3) uint8, ``dataset``, ``subject``, ``clip`` (N,) str,
            ``label`` (N,) int and ``classes`` (C,) str.

    Raises:
        DataError: If the file is missing, is no such archive, or has labels outside the classes.
        ShapeError: If an array has another shape or dtype.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"There is no face archive at {str(path)!r}.", fix=_FIX)
    try:
        with np.load(path, allow_pickle=False) as archive:
            content = {key: archive[key] for key in _NEEDED if key in archive.files}
    except (OSError, ValueError, EOFError, BadZipFile, AttributeError, TypeError) as error:
        raise DataError(f"{str(path)!r} could not be read as a face archive.", why=f"{error}.", fix=_FIX) from error
    missing = [key for key in _NEEDED if key not in content]
    if missing:
        raise DataError(
            f"{str(path)!r} lacks {', '.join(missing)}.",
            why="A flow archive holds motion; grey values over time cannot be had back from it."
            if "faces" in missing
            else f"Wanted are {', '.join(_NEEDED)}.",
            fix=_FIX,
        )
    return FaceSamples(
        faces=content["faces"],
        label=content["label"].astype(np.int64),
        dataset=content["dataset"].astype(np.str_),
        subject=content["subject"].astype(np.str_),
        clip=content["clip"].astype(np.str_),
        classes=tuple(str(name) for name in content["classes"]),
    )
