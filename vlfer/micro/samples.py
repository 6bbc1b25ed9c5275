"""Onset-to-apex flow as samples: what a classifier learns from, and what samples and learners are.

The format of flow is the one of the published 28x28 images (STSTNet, HTNet): horizontal flow, vertical flow and optical
strain, each channel scaled from its minimum to its maximum within the sample, so that magnitude and zero are lost.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from vlfer.errors import DataError, ShapeError
from vlfer.types import FloatArray, IntArray, UInt8Array

SIDE = 28
CHANNELS = ("u", "v", "strain")
_NEEDED = ("flow", "dataset", "subject", "clip", "label", "classes")

TextArray = NDArray[np.str_]

FlowClassifier = Callable[[UInt8Array], FloatArray]
"""Maps the inputs of N samples, for flow (N, 28, 28, 3) uint8, to probabilities (N, C) float32."""


class ClipSamples(Protocol):
    """Labelled clips of several people, whatever is known of each: flow, or faces.

    Attributes of an implementation are those of `FlowSamples`, with ``inputs`` for what a classifier gets to see.
    """

    @property
    def inputs(self) -> UInt8Array:
        """What is known of each clip, (N, ...) uint8."""
        ...

    @property
    def label(self) -> IntArray:
        """(N,) int64 in 0..C-1."""
        ...

    @property
    def dataset(self) -> TextArray:
        """(N,) str, the part that a clip comes from."""
        ...

    @property
    def subject(self) -> TextArray:
        """(N,) str, unique only together with the data set."""
        ...

    @property
    def clip(self) -> TextArray:
        """(N,) str."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """C names."""
        ...

    @property
    def subject_keys(self) -> TextArray:
        """The people, (N,) str."""
        ...

    @property
    def sha256(self) -> str:
        """Hash of everything in it."""
        ...

    def __len__(self) -> int: ...

    def take(self, rows: NDArray[Any]) -> Self:
        """Return the clips at ``rows``, an index or a mask."""
        ...


S_contra = TypeVar("S_contra", contravariant=True)


@dataclass(frozen=True, slots=True)
class FlowSamples:
    """Labelled flow images of several people.

    Attributes:
        flow: (N, 28, 28, 3) uint8: u, v, strain; each channel min-max scaled per sample.
        label: (N,) int64 in 0..C-1.
        dataset: (N,) str, the part that a clip comes from.
        subject: (N,) str; a subject is unique only together with its data set, see `subject_keys`.
        clip: (N,) str, unique within a subject.
        classes: C names.
    """

    flow: UInt8Array
    label: IntArray
    dataset: TextArray
    subject: TextArray
    clip: TextArray
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        shape = getattr(self.flow, "shape", None)
        if self.flow.dtype != np.uint8 or self.flow.ndim != 4 or self.flow.shape[1:] != (SIDE, SIDE, 3):
            raise ShapeError(
                f"The flow has shape {shape} and dtype {self.flow.dtype}.",
                why=f"Expected (N, {SIDE}, {SIDE}, 3) uint8: u, v and strain of each clip.",
            )
        lengths = {name: len(getattr(self, name)) for name in ("flow", "label", "dataset", "subject", "clip")}
        if len(set(lengths.values())) > 1:
            raise ShapeError(f"The parts differ in length: {lengths}.", why="They describe the same clips.")
        if len(self.label) and not (self.label.min() >= 0 and self.label.max() < len(self.classes)):
            raise DataError(
                f"Labels run from {self.label.min()} to {self.label.max()}.",
                why=f"There are {len(self.classes)} classes: {', '.join(self.classes)}.",
            )

    def __len__(self) -> int:
        return len(self.flow)

    @property
    def inputs(self) -> UInt8Array:
        """The flow."""
        return self.flow

    @property
    def subject_keys(self) -> TextArray:
        """The people: ``dataset/subject`` of each clip, (N,) str. "sub01" of two data sets is two people."""
        return np.char.add(np.char.add(self.dataset, "/"), self.subject)

    def take(self, rows: NDArray[Any]) -> FlowSamples:
        """Return the clips at ``rows``, an index or a mask."""
        return FlowSamples(
            flow=self.flow[rows],
            label=self.label[rows],
            dataset=self.dataset[rows],
            subject=self.subject[rows],
            clip=self.clip[rows],
            classes=self.classes,
        )

    @property
    def sha256(self) -> str:
        """Hash of everything in it."""
        digest = hashlib.sha256(repr(self.classes).encode())
        digest.update(np.ascontiguousarray(self.flow).tobytes())
        digest.update(np.ascontiguousarray(self.label).tobytes())
        for column in (self.dataset, self.subject, self.clip):
            digest.update("\0".join(column.tolist()).encode())
        return digest.hexdigest()


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
    path = Path(path)
    if not path.is_file():
        raise DataError(
            f"There is no flow archive at {str(path)!r}.", fix="vlfer mie flows --help tells how to make one"
        )
    try:
        with np.load(path, allow_pickle=False) as archive:
            keys = archive.files if isinstance(archive, np.lib.npyio.NpzFile) else []
            content = {key: archive[key] for key in _NEEDED if key in keys}
    except (OSError, ValueError, EOFError, BadZipFile, AttributeError, TypeError) as error:
        raise DataError(
            f"{str(path)!r} could not be read as a flow archive.",
            why=f"Not a sound .npz file: {error}.",
            fix=f"an .npz with the keys {', '.join(_NEEDED)}",
        ) from error
    missing = [key for key in _NEEDED if key not in content]
    if missing:
        raise DataError(
            f"{str(path)!r} lacks {', '.join(missing)}.",
            why=f"It holds {', '.join(keys) or 'one bare array'}.",
            fix=f"an .npz with the keys {', '.join(_NEEDED)}",
        )
    if content["label"].dtype.kind not in "iu":
        raise DataError(f"The labels are {content['label'].dtype}.", why="Each is the position of a class, an integer.")
    samples = FlowSamples(
        flow=content["flow"],
        label=content["label"].astype(np.int64),
        dataset=content["dataset"].astype(np.str_),
        subject=content["subject"].astype(np.str_),
        clip=content["clip"].astype(np.str_),
        classes=tuple(str(name) for name in content["classes"]),
    )
    _demand_distinct_clips(samples, path)
    return samples


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


def save_flow_archive(samples: FlowSamples, path: str | Path) -> None:
    """Write ``samples`` as an archive that `load_flow_archive` reads."""
    np.savez_compressed(
        Path(path),
        flow=samples.flow,
        dataset=samples.dataset,
        subject=samples.subject,
        clip=samples.clip,
        label=samples.label,
        classes=np.array(samples.classes),
    )


def _demand_distinct_clips(samples: FlowSamples, path: Path) -> None:
    names = np.char.add(np.char.add(samples.subject_keys, "/"), samples.clip)
    seen: dict[tuple[str, bytes], int] = {}
    for row, name in enumerate(names.tolist()):
        first = seen.setdefault((name, samples.flow[row].tobytes()), row)
        if first != row:
            raise DataError(
                f"{str(path)!r} holds the clip {name!r} twice, in rows {first} and {row}.",
                why="A clip that counts twice distorts the figures.",
            )
