"""Onset-to-apex flow as samples: what a classifier learns from, and what samples and learners are.

The format of flow is the one of the published 28x28 images (STSTNet, HTNet): horizontal flow, vertical flow and optical
strain, each channel scaled from its minimum to its maximum within the sample, so that magnitude and zero are lost.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, TypeVar
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from vlfer.errors import DataError, ShapeError
from vlfer.types import FloatArray, IntArray, UInt8Array

SIDE = 28
CHANNELS = ("u", "v", "strain")
_COLUMNS = ("dataset", "subject", "clip", "label")

TextArray = NDArray[np.str_]

FlowClassifier = Callable[[UInt8Array], FloatArray]
"""Maps the inputs of N samples, for flow (N, 28, 28, 3) uint8, to probabilities (N, C) float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipSamples:
    """Labelled clips of several people, whatever is known of each: `FlowSamples`, or faces.

    A kind adds the array of what is known and checks its shape.

    Attributes:
        KEY: Name of that array, as an attribute and in an archive.
        label: (N,) int64 in 0..C-1.
        dataset: (N,) str, the part that a clip comes from.
        subject: (N,) str; a subject is unique only together with its data set, see `subject_keys`.
        clip: (N,) str, unique within a subject.
        classes: C names.
    """

    KEY: ClassVar[str]

    label: IntArray
    dataset: TextArray
    subject: TextArray
    clip: TextArray
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        lengths = {name: len(column) for name, column in self._rows.items()}
        if len(set(lengths.values())) > 1:
            raise ShapeError(f"The parts differ in length: {lengths}.", why="They describe the same clips.")
        if len(self.label) and not (self.label.min() >= 0 and self.label.max() < len(self.classes)):
            raise DataError(
                f"Labels run from {self.label.min()} to {self.label.max()}.",
                why=f"There are {len(self.classes)} classes: {', '.join(self.classes)}.",
            )

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def inputs(self) -> UInt8Array:
        """What is known of each clip, (N, ...) uint8."""
        known: UInt8Array = getattr(self, self.KEY)
        return known

    @property
    def subject_keys(self) -> TextArray:
        """The people: ``dataset/subject`` of each clip, (N,) str. "sub01" of two data sets is two people."""
        return np.char.add(np.char.add(self.dataset, "/"), self.subject)

    @property
    def arrays(self) -> dict[str, Any]:
        """Everything in it, by its key in an archive."""
        return {**self._rows, "classes": np.array(self.classes)}

    @property
    def sha256(self) -> str:
        """Hash of everything in it."""
        digest = hashlib.sha256(repr(self.classes).encode())
        for array in (self.inputs, self.label):
            digest.update(np.ascontiguousarray(array).tobytes())
        for column in (self.dataset, self.subject, self.clip):
            digest.update("\0".join(column.tolist()).encode())
        return digest.hexdigest()

    def take(self, rows: NDArray[Any]) -> Self:
        """Return the clips at ``rows``, an index or a mask."""
        return replace(self, **{name: column[rows] for name, column in self._rows.items()})

    @property
    def _rows(self) -> dict[str, NDArray[Any]]:
        return {name: getattr(self, name) for name in (self.KEY, *_COLUMNS)}


K = TypeVar("K", bound=ClipSamples)
S_contra = TypeVar("S_contra", contravariant=True)


@dataclass(frozen=True, slots=True)
class FlowSamples(ClipSamples):
    """Labelled flow images of several people.

    Attributes:
        flow: (N, 28, 28, 3) uint8: u, v, strain; each channel min-max scaled per sample. The rest: see `ClipSamples`.
    """

    KEY: ClassVar[str] = "flow"

    flow: UInt8Array

    def __post_init__(self) -> None:
        shape = getattr(self.flow, "shape", None)
        if self.flow.dtype != np.uint8 or self.flow.ndim != 4 or self.flow.shape[1:] != (SIDE, SIDE, 3):
            raise ShapeError(
                f"The flow has shape {shape} and dtype {self.flow.dtype}.",
                why=f"Expected (N, {SIDE}, {SIDE}, 3) uint8: u, v and strain of each clip.",
            )
        ClipSamples.__post_init__(self)  # super() knows the class before it got slots


class Learner(Protocol[S_contra]):
    """Something that can be trained on samples of one kind."""

    @property
    def name(self) -> str:
        """Name of the method."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """Everything that decides the result besides samples and seed; JSON-ready."""
        ...

    def fit(self, samples: S_contra, *, seed: int) -> Iterator[FlowClassifier]:
        """Train on ``samples`` and yield the classifier as it stands after each epoch; the last one is the result.

        A learner gets training samples only. It can hold some of them out for choices of its own, by subject, but the
        clips that it is judged on never reach it.
        """
        ...


def load_flow_archive(path: str | Path) -> FlowSamples:
    """Read an ``.npz`` archive of flow samples.

    Args:
        path: Archive with the keys ``flow`` (N, 28, 28, 3) uint8, ``dataset``, ``subject``, ``clip`` (N,) str,
            ``label`` (N,) int and ``classes`` (C,) str; further keys are ignored.

    Raises:
        DataError: If the file is missing, is no such archive, names a clip twice or has labels outside the classes.
        ShapeError: If an array has another shape or dtype.
    """
    keys = "flow, dataset, subject, clip, label, classes"
    fix = f"an .npz with the keys {keys}; vlfer mie flows --help tells how to make one"
    samples = load_archive(FlowSamples, path, name="flow", fix=fix)
    _demand_distinct_clips(samples, path)
    return samples


def load_archive(kind: type[K], path: str | Path, *, name: str, fix: str, without: str = "") -> K:
    """Read an ``.npz`` archive of samples of one kind, as `save_archive` writes it; further keys are ignored.

    Args:
        kind: Class of the samples.
        path: The archive.
        name: What messages call the kind.
        fix: How to get such an archive.
        without: Why an archive without the array of the kind cannot serve.

    Raises:
        DataError: If the file is missing, is no such archive or has labels outside the classes.
        ShapeError: If an array has another shape or dtype.
    """
    path = Path(path)
    needed = (kind.KEY, *_COLUMNS, "classes")
    if not path.is_file():
        raise DataError(f"There is no {name} archive at {str(path)!r}.", fix=fix)
    try:
        with np.load(path, allow_pickle=False) as archive:
            content = {key: archive[key] for key in needed if key in archive.files}
            held = ", ".join(archive.files)
    except (OSError, ValueError, EOFError, BadZipFile, AttributeError, TypeError) as error:
        raise DataError(
            f"{str(path)!r} could not be read as a {name} archive.", why=f"Not a sound .npz file: {error}.", fix=fix
        ) from error
    missing = [key for key in needed if key not in content]
    if missing:
        why = without if without and kind.KEY in missing else f"It holds {held or 'nothing'}."
        raise DataError(f"{str(path)!r} lacks {', '.join(missing)}.", why=why, fix=fix)
    if content["label"].dtype.kind not in "iu":
        raise DataError(f"The labels are {content['label'].dtype}.", why="Each is the position of a class, an integer.")
    texts = {key: content[key].astype(np.str_) for key in ("dataset", "subject", "clip")}
    label, classes = content["label"].astype(np.int64), tuple(str(each) for each in content["classes"])
    return kind(**{kind.KEY: content[kind.KEY]}, **texts, label=label, classes=classes)


def load_annotations(path: str | Path, *, n: int) -> tuple[list[str], list[str]]:
    """Read the finer emotion and the action units of an archive's clips, where it has them.

    Args:
        path: An archive that `load_flow_archive` reads; ``emotion_raw`` and ``au`` (N,) str are optional.
        n: Number of clips.

    Returns:
        Emotion and units of each clip, "" where unknown.

    Raises:
        DataError: If one of the columns has another length.
    """
    columns = []
    with np.load(Path(path), allow_pickle=False) as archive:
        for key in ("emotion_raw", "au"):
            column = [str(value) for value in archive[key]] if key in archive.files else [""] * n
            if len(column) != n:
                raise DataError(f"{key} has {len(column)} entries.", why=f"The archive has {n} clips.")
            columns.append(column)
    return columns[0], columns[1]


def save_archive(samples: ClipSamples, path: str | Path) -> None:
    """Write ``samples`` as an archive that `load_flow_archive`, or the loader of their kind, reads."""
    np.savez_compressed(Path(path), **samples.arrays)


def _demand_distinct_clips(samples: FlowSamples, path: str | Path) -> None:
    names = np.char.add(np.char.add(samples.subject_keys, "/"), samples.clip)
    seen: dict[tuple[str, bytes], int] = {}
    for row, name in enumerate(names.tolist()):
        first = seen.setdefault((name, samples.flow[row].tobytes()), row)
        if first != row:
            raise DataError(
                f"{str(path)!r} holds the clip {name!r} twice, in rows {first} and {row}.",
                why="A clip that counts twice distorts the figures.",
            )
