"""Face archives with annotators' votes, and splits that hold out by image content."""

from __future__ import annotations

import hashlib
import io
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from vlfer.errors import DataError
from vlfer.types import FloatArray, IntArray, UInt8Array

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True, slots=True)
class VotedFaces:
    """Grey face crops with the votes of several annotators.

    Attributes:
        images: (N, S, S) uint8 grey.
        votes: (N, C) float32 votes over ``classes``; rows have at least one vote.
        classes: The class names, in column order.
        sha256: Hash of the file.
    """

    images: UInt8Array
    votes: FloatArray
    classes: tuple[str, ...]
    sha256: str

    def __len__(self) -> int:
        return len(self.images)

    @property
    def majority(self) -> IntArray:
        """(N,) int64, the class with most votes; the first of ties."""
        return np.asarray(self.votes.argmax(axis=1), np.int64)

    @property
    def distribution(self) -> FloatArray:
        """(N, C) float32, votes divided by their sum."""
        return np.asarray(self.votes / self.votes.sum(axis=1, keepdims=True), np.float32)

    def take(self, rows: IntArray) -> VotedFaces:
        """Return the given rows, in that order."""
        return VotedFaces(self.images[rows], self.votes[rows], self.classes, self.sha256)

    def rows_without(self, names: Sequence[str]) -> IntArray:
        """Return the rows whose majority is none of ``names`` and that have a vote for another class."""
        columns = [self.classes.index(name) for name in names]
        others = np.delete(self.votes, columns, axis=1).sum(axis=1)
        return np.flatnonzero(~np.isin(self.majority, columns) & (others > 0))

    def without_votes_for(self, names: Sequence[str]) -> VotedFaces:
        """Return the same faces with every vote for ``names`` removed."""
        votes = self.votes.copy()
        votes[:, [self.classes.index(name) for name in names]] = 0
        return VotedFaces(self.images, votes, self.classes, self.sha256)


def file_sha256(path: Path) -> str:
    """Return the hex SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def load_voted_faces(path: Path, *, classes: tuple[str, ...]) -> VotedFaces:
    """Load an archive with the keys ``images`` (N, S, S) uint8, ``votes`` (N, K) and ``classes`` (K,).

    Columns that are not among ``classes`` (unknown, non-face) are dropped, and faces left without a vote with them.
    Single votes are kept: they are where mixed expressions live.

    Raises:
        DataError: If the file is missing, is no such archive, or lacks one of ``classes``.
    """
    archive = _open_archive(path, keys=("images", "votes", "classes"))
    images, votes, names = archive["images"], archive["votes"], [str(name) for name in archive["classes"]]
    if images.ndim != 3 or images.dtype != np.uint8 or images.shape[1] != images.shape[2]:
        raise DataError(
            f"{path}: 'images' has shape {images.shape} and dtype {images.dtype}.",
            why="Expected (N, S, S) uint8 grey faces.",
        )
    if votes.shape != (len(images), len(names)):
        raise DataError(
            f"{path}: 'votes' has shape {votes.shape}.", why=f"Expected ({len(images)}, {len(names)}), as 'classes'."
        )
    missing = [name for name in classes if name not in names]
    if missing:
        raise DataError(f"{path}: no votes for {', '.join(missing)}.", why=f"It has {', '.join(names)}.")
    chosen = votes[:, [names.index(name) for name in classes]].astype(np.float32)
    rows = np.flatnonzero(chosen.sum(axis=1) > 0)
    return VotedFaces(images[rows], chosen[rows], classes, file_sha256(path))


def load_labelled_jpegs(path: Path) -> tuple[list[UInt8Array], list[str]]:
    """Load an archive with ``jpeg`` (bytes), ``offset`` (N + 1,) and ``label`` (N,): RGB images and their labels.

    Raises:
        DataError: If the file is missing or is no such archive.
    """
    archive = _open_archive(path, keys=("jpeg", "offset", "label"))
    jpeg, offset = archive["jpeg"], archive["offset"]
    images = [
        np.asarray(Image.open(io.BytesIO(jpeg[start:stop].tobytes())).convert("RGB"), np.uint8)
        for start, stop in itertools.pairwise(offset)
    ]
    return images, [str(label) for label in archive["label"]]


def _open_archive(path: Path, *, keys: tuple[str, ...]) -> Mapping[str, NDArray[Any]]:
    if not path.is_file():
        raise DataError(f"{path} does not exist.", fix="name the archive in the configuration under data.")
    try:
        archive = np.load(path, allow_pickle=False)
        found = list(archive.files)
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{path} is not an .npz archive ({error}).") from error
    missing = [key for key in keys if key not in found]
    if missing:
        raise DataError(f"{path} has no {', '.join(missing)}.", why=f"Its keys are {', '.join(found) or 'none'}.")
    return {key: archive[key] for key in keys}


def content_groups(images: UInt8Array, *, threshold: float = 0.985) -> IntArray:
    """Group images that show the same picture: equal up to small changes of crop, light and compression.

    Two images belong together when their standardised 16 x 16 thumbnails correlate above ``threshold``; groups are
    the connected components.

    Args:
        images: (N, S, S) uint8.
        threshold: Correlation from which two images count as the same picture.

    Returns:
        (N,) int64 group numbers.
    """
    small = np.stack([cv2.resize(image, (16, 16), interpolation=cv2.INTER_AREA) for image in images])
    flat = small.reshape(len(images), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    rows, columns = [], []
    for start in range(0, len(flat), 2048):
        near = flat[start : start + 2048] @ flat[start:].T > threshold
        i, j = np.nonzero(near)
        rows.append(i + start)
        columns.append(j + start)
    i, j = np.concatenate(rows), np.concatenate(columns)
    graph = coo_matrix((np.ones(len(i), np.int8), (i, j)), shape=(len(flat), len(flat)))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def split_by_content(images: UInt8Array, *, validation: float, test: float, seed: int = 0) -> dict[Split, IntArray]:
    """Split so that one picture is never on two sides.

    The side of a group follows from a hash of its first image, so it does not depend on the order of the archive.

    Args:
        images: (N, S, S) uint8.
        validation: Share of the pictures to choose on.
        test: Share of the pictures to report on.
        seed: Another seed gives another split.
    """
    groups = content_groups(images)
    digests = np.array([hashlib.sha256(image.tobytes()).hexdigest() for image in images])
    order = np.lexsort((digests, groups))
    firsts = order[np.unique(groups[order], return_index=True)[1]]
    draw = np.array(
        [int(hashlib.sha256(f"{seed}:{digests[i]}".encode()).hexdigest()[:12], 16) / 16**12 for i in firsts]
    )
    side = draw[groups]
    return {
        "test": np.flatnonzero(side < test),
        "validation": np.flatnonzero((side >= test) & (side < test + validation)),
        "train": np.flatnonzero(side >= test + validation),
    }
