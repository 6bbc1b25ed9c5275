"""Which temporal model reads a window of frames best: made windows in which a face passes into an expression and back.

A neutral face of one person is blended into an expressive face of another for a part of the window, frames tremble, and
a quarter of them is blurred and shifted as a turning head is. Made data: it ranks the poolers, it does not say how well
films are read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from vlfer.bench.measurement import Measurement
from vlfer.clips import build_pool
from vlfer.errors import DataError
from vlfer.faces.align import crop_face
from vlfer.faces.find import whole_face
from vlfer.metrics import confusion_matrix, recalls
from vlfer.models.encoder import Encoder
from vlfer.scoring import score
from vlfer.text.bank import TextBank
from vlfer.text.labels import load_label_set
from vlfer.training.data import VotedFaces, load_voted_faces, split_by_content
from vlfer.types import Embedding, FloatArray, IntArray, LabelSet, UInt8Array

POOLERS = ("mean", "attention", "topk", "ema")
#: Share of the window for which the expression is shown.
SHARES: Mapping[str, float] = {"the whole window": 1.0, "half of it": 0.5, "a quarter": 0.25}
FRAMES = 12
WINDOW_S = 1.0
_SURE = 0.7  # of the votes
_DISTURBED = 0.25
_HELD_OUT = 0.06  # as in the bundled model's recipe, which has not seen these


@dataclass(frozen=True, slots=True)
class Windows:
    """Made windows.

    Attributes:
        pixels: (N, T, S, S, 3) uint8 RGB.
        truth: (N,) int64, class of the expression.
    """

    pixels: UInt8Array
    truth: IntArray


def make_windows(faces: VotedFaces, rows: IntArray, *, share: float, each: int, size: int, seed: int = 0) -> Windows:
    """Make ``each`` windows of every class; those of "neutral" pass from one neutral face into another.

    Args:
        faces: With the class "neutral".
        rows: What may be used.
        share: Of the window for which the expression is shown, in its middle.
        each: Windows a class; fewer where there are not so many sure faces, drawn without repetition.
        size: Side in pixels.
        seed: Of the draw.

    Raises:
        DataError: If a class has no face that annotators agree on.
    """
    rng = np.random.default_rng(seed)
    majority, is_sure = faces.majority[rows], faces.distribution[rows].max(axis=1) > _SURE
    calm = rows[(majority == faces.classes.index("neutral")) & is_sure]
    pixels: list[UInt8Array] = []
    truth: list[int] = []
    for number, name in enumerate(faces.classes):
        shown = rows[(majority == number) & is_sure]
        if not len(shown) or not len(calm):
            raise DataError(f"No face of the class {name!r} is agreed on.", why=f"{_SURE:.0%} of the votes are asked.")
        for row in rng.choice(shown, min(each, len(shown)), replace=False):
            pair = faces.images[rng.choice(calm)], faces.images[row]
            pixels.append(_window(*pair, share=share, size=size, rng=rng))
            truth.append(number)
    return Windows(np.stack(pixels), np.array(truth, dtype=np.int64))


def _window(before: UInt8Array, after: UInt8Array, *, share: float, size: int, rng: np.random.Generator) -> UInt8Array:
    """Return (T, S, S, 3) in which one grey face passes into another and back, trembling, now and then blurred."""
    away = np.abs(np.linspace(-1.0, 1.0, FRAMES)) - share
    amount = np.clip(0.5 - 4.0 * away, 0.0, 1.0) if share < 1 else np.ones(FRAMES)
    side = before.shape[0]
    frames = []
    for part in amount:
        grey = (1 - part) * before.astype(np.float32) + part * after.astype(np.float32)
        is_disturbed = rng.random() < _DISTURBED
        shift = rng.normal(0, 0.10 if is_disturbed else 0.01, 2) * side
        grey = cv2.GaussianBlur(grey, (0, 0), 1.6) if is_disturbed else grey
        matrix = cv2.getRotationMatrix2D((side / 2, side / 2), float(rng.normal(0, 2)), 1 + float(rng.normal(0, 0.02)))
        matrix[:, 2] += shift
        moved = cv2.warpAffine(grey, matrix, (side, side), borderMode=cv2.BORDER_REPLICATE)
        rgb = np.repeat(np.clip(moved, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
        frames.append(crop_face(rgb, whole_face(rgb), size=size))
    return np.stack(frames)


def bench_pooling(
    archive: Path, encoder: Encoder, *, each: int = 25, say: Callable[[str], None] = lambda _: None
) -> list[Measurement]:
    """Measure the recall of every temporal model that needs no training, unweighted over classes.

    Args:
        archive: Faces with votes, .npz, as for train-backbone; those held out of the bundled model's training are used.
        encoder: What encodes the frames.
        each: Windows a class and share.
        say: Told what is going on.

    Raises:
        DataError: If the archive cannot be used.
    """
    labels = load_label_set("ekman7")
    faces = load_voted_faces(archive, classes=labels.names)
    held = split_by_content(faces.images, validation=_HELD_OUT, test=_HELD_OUT, seed=0)
    rows = np.concatenate([held["test"], held["validation"]])
    found = []
    for told, share in SHARES.items():
        windows = make_windows(faces, rows, share=share, each=each, size=encoder.spec.image_size)
        say(f"{len(windows.truth)} windows, the expression for {told}")
        flat = windows.pixels.reshape(-1, *windows.pixels.shape[2:])
        vectors = encoder.encode_images(flat, batch_size=16).vectors.reshape(len(windows.truth), FRAMES, -1)
        for name in POOLERS:
            value = 100 * recall_of(name, vectors, windows.truth, encoder=encoder, labels=labels)
            found.append(Measurement(f"expression for {told}: {name}", value, "% UAR"))
    return found


def recall_of(name: str, vectors: FloatArray, truth: IntArray, *, encoder: Encoder, labels: LabelSet) -> float:
    """Return the unweighted average recall of windows (N, T, D) that the pooler ``name`` makes one vector of."""
    offsets_s = np.tile(np.linspace(-WINDOW_S / 2, WINDOW_S / 2, vectors.shape[1], dtype=np.float32), (len(vectors), 1))
    mask = np.ones(vectors.shape[:2], dtype=bool)
    pooled = Embedding(build_pool(name, encoder)(vectors, mask, offsets_s), encoder.space)
    told = score(pooled, labels, TextBank(encoder), temperature=encoder.temperature).probability.argmax(axis=1)
    matrix = confusion_matrix(truth, told.astype(np.int64), n_classes=len(labels))
    return float(np.nanmean(recalls(matrix)))
