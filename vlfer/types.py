"""Core types: what flows between the parts of vlfer. NumPy only.

Axis alphabet: N batch, T time, C classes, D dimension, H height, W width, S side of a square crop, L landmarks.
Pixels are RGB, coordinates are pixels with the origin at the top left, times are seconds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from vlfer.errors import PromptError, ShapeError, SpaceError, did_you_mean

UInt8Array = NDArray[np.uint8]
FloatArray = NDArray[np.float32]
TimeArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def _check(name: str, array: Any, shape: tuple[int | str, ...], dtype: DTypeLike) -> None:
    """Raise ShapeError unless ``array`` has ``dtype`` and matches ``shape`` (letters stand for any size)."""
    if not isinstance(array, np.ndarray):
        raise ShapeError(f"{name} is a {type(array).__name__}.", why=f"Expected a NumPy array {shape}.")
    fits = array.ndim == len(shape) and all(
        isinstance(want, str) or want == got for want, got in zip(shape, array.shape, strict=True)
    )
    if not fits or array.dtype != np.dtype(dtype):
        wanted = "(" + ", ".join(str(s) for s in shape) + ")"
        raise ShapeError(
            f"{name} has shape {array.shape} and dtype {array.dtype}.",
            why=f"Expected shape {wanted} and dtype {np.dtype(dtype)}.",
        )


def _check_same_length(owner: str, **arrays: NDArray[Any] | None) -> None:
    lengths = {name: len(array) for name, array in arrays.items() if array is not None}
    if len(set(lengths.values())) > 1:
        raise ShapeError(f"{owner} has parts of different length: {lengths}.", why="They share one axis.")


@dataclass(frozen=True, slots=True)
class Frames:
    """Consecutive frames of one source; an image is one frame at time 0.

    Attributes:
        pixels: (T, H, W, 3) uint8 RGB.
        times_s: (T,) float64, seconds from the start of the source.
        source: Path or name the frames came from.
    """

    pixels: UInt8Array
    times_s: TimeArray
    source: str = "array"

    def __post_init__(self) -> None:
        _check("Frames.pixels", self.pixels, ("T", "H", "W", 3), np.uint8)
        _check("Frames.times_s", self.times_s, ("T",), np.float64)
        _check_same_length("Frames", pixels=self.pixels, times_s=self.times_s)

    def __len__(self) -> int:
        return len(self.pixels)


@dataclass(frozen=True, slots=True)
class Face:
    """One face found in one frame.

    Attributes:
        box: (4,) float32 xyxy in pixels; may reach beyond the frame.
        score: Confidence of the detector, 0..1.
        landmarks: (L, 2) float32 pixels, or None where the detector gives none.
    """

    box: FloatArray
    score: float
    landmarks: FloatArray | None = None

    def __post_init__(self) -> None:
        _check("Face.box", self.box, (4,), np.float32)
        if self.landmarks is not None:
            _check("Face.landmarks", self.landmarks, ("L", 2), np.float32)


@dataclass(frozen=True, slots=True)
class FaceTrack:
    """One face through time, as geometry.

    Attributes:
        boxes: (T, 4) float32 xyxy in pixels.
        scores: (T,) float32 detector confidence.
        frame_index: (T,) int64, strictly increasing index of the frame in its source.
        landmarks: (T, L, 2) float32 pixels, or None.
        track_id: Identity, counted from 0.
    """

    boxes: FloatArray
    scores: FloatArray
    frame_index: IntArray
    landmarks: FloatArray | None = None
    track_id: int = 0

    def __post_init__(self) -> None:
        _check("FaceTrack.boxes", self.boxes, ("T", 4), np.float32)
        _check("FaceTrack.scores", self.scores, ("T",), np.float32)
        _check("FaceTrack.frame_index", self.frame_index, ("T",), np.int64)
        if self.landmarks is not None:
            _check("FaceTrack.landmarks", self.landmarks, ("T", "L", 2), np.float32)
        _check_same_length(
            "FaceTrack", boxes=self.boxes, scores=self.scores, frame_index=self.frame_index, landmarks=self.landmarks
        )
        if len(self.frame_index) > 1 and not bool((np.diff(self.frame_index) > 0).all()):
            raise ShapeError("FaceTrack.frame_index does not increase.", why="A face is in a frame at most once.")

    def __len__(self) -> int:
        return len(self.boxes)


@dataclass(frozen=True, slots=True)
class FaceClip:
    """One face through time, as aligned square crops.

    Attributes:
        pixels: (T, S, S, 3) uint8 RGB.
        times_s: (T,) float64 seconds.
        track_id: Identity, counted from 0.
    """

    pixels: UInt8Array
    times_s: TimeArray
    track_id: int = 0

    def __post_init__(self) -> None:
        _check("FaceClip.pixels", self.pixels, ("T", "S", "S", 3), np.uint8)
        _check("FaceClip.times_s", self.times_s, ("T",), np.float64)
        _check_same_length("FaceClip", pixels=self.pixels, times_s=self.times_s)

    def __len__(self) -> int:
        return len(self.pixels)


@dataclass(frozen=True, slots=True)
class Embedding:
    """Unit vectors in one named space; vectors of two spaces never meet.

    Attributes:
        vectors: (N, D) float32, each of L2 norm 1.
        space: Id made of backbone, weights hash and adapter hash.
    """

    vectors: FloatArray
    space: str

    def __post_init__(self) -> None:
        _check("Embedding.vectors", self.vectors, ("N", "D"), np.float32)
        norms = np.linalg.norm(self.vectors, axis=1)
        if not bool(np.all(np.abs(norms - 1.0) < 1e-3)):
            raise ShapeError("Embedding.vectors are not unit vectors.", why="A zero or NaN vector has no direction.")

    def __len__(self) -> int:
        return len(self.vectors)

    def similarity(self, other: Embedding) -> FloatArray:
        """Cosine similarity, (N, M) float32.

        Raises:
            SpaceError: If ``other`` lives in another space.
        """
        if self.space != other.space:
            raise SpaceError(
                f"Vectors of space {self.space!r} were compared with vectors of {other.space!r}.",
                why="Only vectors of one backbone, weights and adapter are comparable.",
                fix="encode both sides with the same backbone and adapter.",
            )
        return self.vectors @ other.vectors.T


@dataclass(frozen=True, slots=True)
class Label:
    """One class, in words.

    Attributes:
        name: What is shown and reported.
        descriptors: Sentences on how the face looks; empty for a label typed by a user.
        synonyms: Other words for it, also accepted as aliases.
        negatives: Cues that speak against it.
        aliases: Spellings used by data sets ("Angry", "AN", "anger").
        action_units: FACS units with side where it matters ("AU12", "R14").
        parts: Names whose union this compound label is; empty for a basic label.
        definition: What the word means, for a rare one.
        dynamics: Sentences on how it unfolds over time.
        weights: One a descriptor, how much it counts; empty counts all alike.
    """

    name: str
    descriptors: tuple[str, ...] = ()
    synonyms: tuple[str, ...] = ()
    negatives: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    action_units: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    definition: str = ""
    dynamics: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()


def fold_label(name: str) -> str:
    """Return ``name`` without case, hyphens, underscores and spare spaces: what labels are compared by."""
    return " ".join(name.replace("_", " ").replace("-", " ").casefold().split())


@dataclass(frozen=True, slots=True)
class LabelSet:
    """The classes one asks for, in order.

    Attributes:
        labels: At least one label; names are distinct without regard to case.
        name: Name of the set ("ferplus8", or "custom").
        origin: Who wrote it and how, or the file it came from.
    """

    labels: tuple[Label, ...]
    name: str = "custom"
    origin: str = "given by the user"
    _index: Mapping[str, int] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        if not self.labels:
            raise PromptError("The label list is empty.", fix='--labels "happiness, sadness, anger"')
        index: dict[str, int] = {}
        for i, label in enumerate(self.labels):
            key = fold_label(label.name)
            if not key:
                raise PromptError(f"Label {i + 1} of {self.name!r} has no name.")
            if key in index:
                raise PromptError(f"The label {label.name!r} is given twice.", why="Labels compete with one another.")
            index[key] = i
        for words in ("aliases", "synonyms"):  # a data set's spelling wins over another label's synonym
            for i, label in enumerate(self.labels):
                for word in getattr(label, words):
                    index.setdefault(fold_label(word), i)
        object.__setattr__(self, "_index", index)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def names(self) -> tuple[str, ...]:
        """The names, in order."""
        return tuple(label.name for label in self.labels)

    @property
    def sha256(self) -> str:
        """Hash of every word that can change a result."""
        # Later keys count only where they are used, so that hashes of sets without them stay what they were.
        content = [
            [label.name, label.descriptors, label.synonyms, label.negatives, label.parts,
             *(extra for extra in (label.definition, label.dynamics, label.weights) if extra)]
            for label in self.labels
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()

    def index(self, name: str) -> int:
        """Return the position of the label that ``name`` means: its name, an alias or a synonym.

        Raises:
            PromptError: If no label of the set is meant.
        """
        found = self._index.get(fold_label(name))
        if found is None:
            raise PromptError(
                f"The label {name!r} is not in the set {self.name!r}.",
                why=f"It holds {', '.join(self.names)}. {did_you_mean(name, self.names)}".strip(),
            )
        return found


@dataclass(frozen=True, slots=True)
class Scores:
    """How N faces compare with C labels.

    Attributes:
        similarity: (N, C) float32 cosine-like agreement; comparable within one space only.
        probability: (N, C) float32, rows sum to 1: relative to the labels given, not absolute.
        temperature: What similarities were divided by before the softmax.
        labels: The labels, in column order.
    """

    similarity: FloatArray
    probability: FloatArray
    temperature: float
    labels: LabelSet

    def __post_init__(self) -> None:
        _check("Scores.similarity", self.similarity, ("N", len(self.labels)), np.float32)
        _check("Scores.probability", self.probability, ("N", len(self.labels)), np.float32)
        _check_same_length("Scores", similarity=self.similarity, probability=self.probability)

    def __len__(self) -> int:
        return len(self.probability)


@dataclass(frozen=True, slots=True)
class Prediction:
    """What one face shows over one interval.

    Attributes:
        start_s: Start in seconds; 0 for an image.
        end_s: End in seconds; equal to ``start_s`` for an image.
        track_id: Which face.
        label: The label, or None for an abstention.
        probability: Of ``label``, or of the best label when abstaining; relative to the labels given.
        top: Labels with probabilities, best first.
        similarity: Cosine similarity of each label in ``top``, in that order; comparable within one space only.
        reason: Why it abstained; empty otherwise.
        box: xyxy in pixels of the frame in the middle of the interval, or None for a whole image.
        note: Remarks on how the face was found ("no face found, the whole image was taken").
        explanation: What pulled towards the label, see `vlfer.explain`; empty unless asked for.
    """

    start_s: float
    end_s: float
    track_id: int
    label: str | None
    probability: float
    top: tuple[tuple[str, float], ...]
    reason: str = ""
    box: tuple[float, float, float, float] | None = None
    note: str = ""
    similarity: tuple[float, ...] = ()
    explanation: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Report:
    """The answer for one source.

    Attributes:
        source: Path or name.
        status: "ok", "no_face" or "error".
        predictions: One per face of an image, one per segment and face of a video.
        error_type: Class of the error where ``status`` is not "ok".
        message: Its message.
        provenance: Versions, weights hash, prompts hash, configuration, seed.
    """

    source: str
    status: str
    predictions: tuple[Prediction, ...] = ()
    error_type: str = ""
    message: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)
