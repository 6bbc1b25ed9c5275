"""Sets of face crops to measure on: archives with votes, archives of labelled JPEGs, and manifests.

An archive that a backbone was trained on is cut by the split that its card records, so that no face it learned from is
ever scored.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vlfer.errors import ConfigError, DataError
from vlfer.evaluation.manifest import load_manifest
from vlfer.evaluation.media import read_frames
from vlfer.faces.align import crop_face
from vlfer.text.labels import load_label_set
from vlfer.training.data import VotedFaces, file_sha256, load_labelled_jpegs, load_voted_faces, split_by_content
from vlfer.types import Face, FloatArray, IntArray, LabelSet, UInt8Array

Part = Literal["validation", "test", "held-out"]
PARTS: tuple[Part, ...] = ("validation", "test", "held-out")
DEFAULT_LABELS = "ferplus8"
_ADDRESS = re.compile(r"^(?P<name>[\w.+-]+)(?:@(?P<labels>[^=]+))?=(?P<path>.+)$")
_BOX_SIZE_PX = 224


@dataclass(frozen=True, slots=True)
class FaceSet:
    """Face crops with what annotators saw in them.

    Attributes:
        name: Chosen by the user.
        images: N arrays (H, W, 3) uint8 RGB, of any sizes.
        votes: (N, C) float32 votes over ``labels``; ones and zeros where there is one label a face.
        labels: The C classes that are asked for.
        has_votes: Whether ``votes`` tells how far several annotators agree.
        part: What of the file was taken: "all", or a part that was held out from training.
        sha256: Hash of the file.
    """

    name: str
    images: tuple[UInt8Array, ...]
    votes: FloatArray
    labels: LabelSet
    has_votes: bool
    part: str
    sha256: str

    def __len__(self) -> int:
        return len(self.images)

    @property
    def truth(self) -> IntArray:
        """(N,) int64, the class with most votes; the first of ties."""
        return np.asarray(self.votes.argmax(axis=1), np.int64)

    def take(self, rows: IntArray) -> FaceSet:
        """Return the given faces, in that order."""
        return replace(self, images=tuple(self.images[i] for i in rows), votes=self.votes[rows])

    def about(self) -> dict[str, Any]:
        """Return what it is, JSON-ready."""
        counts = np.bincount(self.truth, minlength=len(self.labels))
        return {
            "name": self.name, "n": len(self), "part": self.part, "sha256": self.sha256, "labels": self.labels.name,
            "per_class": dict(zip(self.labels.names, counts.tolist(), strict=True)),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Address:
    """Where a set lies: ``NAME=FILE`` or ``NAME@LABELS=FILE``."""

    name: str
    labels: str
    path: Path


def parse_address(text: str) -> Address:
    """Read ``NAME=FILE`` or ``NAME@LABELS=FILE``.

    Raises:
        ConfigError: If it is neither.
    """
    match = _ADDRESS.match(text)
    if match is None:
        raise ConfigError(f"--data {text!r} names no set.", fix="--data ferplus=faces.npz, --data wild@ekman7=wild.csv")
    return Address(match["name"], match["labels"] or DEFAULT_LABELS, Path(match["path"]).expanduser())


def load_faces(address: Address, *, cards: Sequence[Mapping[str, Any]] = (), part: Part = "validation") -> FaceSet:
    """Load a set of faces, without any that one of the given backbones was trained on.

    Args:
        address: An archive with ``images`` and ``votes``, one with ``jpeg`` and ``label``, or a manifest (CSV).
        cards: Cards of the backbones to be measured. Where one records that it was trained on this very file, only
            faces of ``part`` of its split are taken; of several such cards, the faces held out by all.
        part: "validation" (chosen on), "test" (only reported on) or "held-out" (both).

    Raises:
        DataError: If the file is missing or malformed, holds a label that the label set lacks, or nothing is left.
        PromptError: If the label set is unknown.
    """
    labels = load_label_set(address.labels)
    if not address.path.is_file():
        raise DataError(f"{address.path} does not exist.", fix=f"--data {address.name}=FILE")
    if address.path.suffix.lower() != ".npz":
        return _from_manifest(address, labels)
    keys = _keys(address.path)
    if {"images", "votes", "classes"} <= keys:
        return _from_votes(address, labels, cards=cards, part=part)
    if {"jpeg", "offset", "label"} <= keys:
        images, names = load_labelled_jpegs(address.path)
        votes = _one_hot(names, labels, name=address.name)
        return FaceSet(address.name, tuple(images), votes, labels, False, "all", file_sha256(address.path))
    raise DataError(
        f"{address.path} has the keys {', '.join(sorted(keys)) or 'none'}.",
        why="Expected images, votes, classes; or jpeg, offset, label.",
    )


def held_out_rows(faces: VotedFaces, cards: Sequence[Mapping[str, Any]], *, part: Part) -> IntArray | None:
    """Return the rows that every card which names this archive has held out; None if none names it.

    Raises:
        DataError: If no row is left.
    """
    rows: set[int] | None = None
    splits: dict[tuple[float, float, int], Mapping[Any, IntArray]] = {}
    for card in cards:
        if card.get("data_sha256") != faces.sha256:
            continue
        recipe = card["recipe"]
        key = (float(recipe["data"]["validation"]), float(recipe["data"]["test"]), int(recipe["seed"]))
        if key not in splits:
            splits[key] = split_by_content(faces.images, validation=key[0], test=key[1], seed=key[2])
        wanted: tuple[Any, ...] = ("validation", "test") if part == "held-out" else (part,)
        own = {int(row) for name in wanted for row in splits[key][name]}
        rows = own if rows is None else rows & own
    if rows is None:
        return None
    if not rows:
        raise DataError(f"No face of part {part!r} was held out by all of the backbones.", fix="measure them apart.")
    return np.array(sorted(rows), np.int64)


def class_rows(address: Address, name: str) -> FaceSet:
    """Load every face whose majority is ``name``, from an archive with votes; for backbones trained without it."""
    labels = load_label_set(address.labels)
    faces = load_voted_faces(address.path, classes=labels.names)
    return _voted_set(address, labels, faces, np.flatnonzero(faces.majority == labels.index(name)), f"all {name}")


def crops_of(faces: FaceSet, crop: Callable[[UInt8Array], UInt8Array]) -> UInt8Array:
    """Return (N, S, S, 3) uint8: every image through ``crop``."""
    return np.stack([crop(image) for image in faces.images])


def _from_votes(address: Address, labels: LabelSet, *, cards: Sequence[Mapping[str, Any]], part: Part) -> FaceSet:
    faces = load_voted_faces(address.path, classes=labels.names)
    # The split was made of the faces that the card's own classes leave, which here are all of the archive's columns.
    rows = held_out_rows(faces, cards, part=part)
    everything = np.arange(len(faces))
    return _voted_set(address, labels, faces, everything if rows is None else rows, "all" if rows is None else part)


def _voted_set(address: Address, labels: LabelSet, faces: VotedFaces, rows: IntArray, part: str) -> FaceSet:
    images = tuple(np.repeat(image[..., None], 3, axis=2) for image in faces.images[rows])
    return FaceSet(address.name, images, faces.votes[rows], labels, True, part, faces.sha256)


def _from_manifest(address: Address, labels: LabelSet) -> FaceSet:
    manifest = load_manifest(address.path)
    votes = _one_hot([row.label for row in manifest.rows], labels, name=address.name)
    images = []
    for row in manifest.rows:
        try:
            pixels = read_frames(row, sampling="uniform", count=1).pixels[0]
        except OSError as error:
            raise DataError(
                f"{row.path} of {address.name} cannot be read: {error}",
                why="All backbones are measured on the same faces.",
                fix="remove the row, or use vlfer eval manifest, which counts it as an error.",
            ) from error
        if row.box is not None:
            box = Face(np.array(row.box, np.float32), 1.0)
            pixels = crop_face(pixels, box, size=_BOX_SIZE_PX, align=False)
        images.append(pixels)
    return FaceSet(address.name, tuple(images), votes, labels, False, "all", file_sha256(address.path))


def _one_hot(names: Sequence[str], labels: LabelSet, *, name: str) -> FloatArray:
    unknown = sorted({label for label in names if not _knows(labels, label)})
    if unknown:
        raise DataError(
            f"{name} has the labels {', '.join(unknown)}, which {labels.name!r} lacks.", fix=f"--data {name}@SET=FILE"
        )
    return np.asarray(np.eye(len(labels), dtype=np.float32)[[labels.index(label) for label in names]])


def _knows(labels: LabelSet, name: str) -> bool:
    try:
        labels.index(name)
    except ValueError:
        return False
    return True


def _keys(path: Path) -> set[str]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return set(archive.files)
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{path} is not an .npz archive ({error}).") from error
