"""Whether the relevance map points at what the model uses: hide that part, and see what the label loses."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from vlfer.bench.wording import VotedEmbedding
from vlfer.calibration import default_temperature
from vlfer.explain import face_thirds
from vlfer.metrics import softmax
from vlfer.models.relevance import relevance_map
from vlfer.models.tower import TowerEncoder
from vlfer.scoring import mixing_matrix
from vlfer.text.bank import SentenceBank, embed_labels
from vlfer.types import FloatArray, LabelSet, UInt8Array

_HIDDEN_SHARE = 0.2


def relevance_rows(
    encoder: TowerEncoder,
    bank: SentenceBank,
    faces: VotedEmbedding,
    labels: LabelSet,
    *,
    count: int = 120,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Hide the fifth of the pixels that the map calls most relevant, and for comparison others.

    The others are the fifth by the map of another face (so of the same shape, in a usual place), and the least
    relevant fifth. Hidden pixels become a blur, so that no new edge is seen.

    Args:
        encoder: The backbone.
        bank: Of its space.
        faces: With pixels.
        labels: What is asked.
        count: Faces drawn.
        seed: Of the draw.

    Returns:
        One row for each way of hiding: mean probability of the predicted label, and the share of labels that change.
    """
    rng = np.random.default_rng(seed)
    temperature = default_temperature(encoder, ensemble="all")
    chosen = rng.permutation(len(faces.votes))[:count]
    sentences, owner, weight = embed_labels(bank, labels)
    means = mixing_matrix(owner, weight, labels=labels) @ sentences.vectors
    directions: FloatArray = means / np.linalg.norm(means, axis=1, keepdims=True)

    def probability(pixels: UInt8Array) -> FloatArray:
        return softmax(encoder.encode_images(pixels).vectors @ directions.T / temperature)

    pixels = np.ascontiguousarray(faces.pixels[chosen])
    before = probability(pixels)
    best = before.argmax(axis=1)
    maps = [
        relevance_map(encoder, face, directions, label=int(label), temperature=temperature)
        for face, label in zip(pixels, best, strict=True)
    ]
    ways = {
        "nothing hidden": None,
        "most relevant fifth hidden": maps,
        "fifth by the map of another face": [maps[(i + 1) % len(maps)] for i in range(len(maps))],
        "least relevant fifth hidden": [-one for one in maps],
    }
    rows = []
    for name, own in ways.items():
        shown = pixels if own is None else np.stack([_hide(f, m, rng) for f, m in zip(pixels, own, strict=True)])
        after = probability(shown)
        kept = after[np.arange(len(best)), best]
        rows.append({"hidden": name, "mean probability of the label": 100 * float(kept.mean()),
                     "labels that change": 100 * float((after.argmax(axis=1) != best).mean())})  # fmt: skip
    return rows + _where(maps, best, labels)


def _where(maps: list[FloatArray], best: Any, labels: LabelSet) -> list[dict[str, Any]]:
    rows = []
    for i, name in enumerate(labels.names):
        own = [face_thirds(one) for one, label in zip(maps, best, strict=True) if label == i]
        if len(own) >= 5:
            shares = {f"{part} %": 100 * float(np.mean([one[part] for one in own])) for part in own[0]}
            rows.append({"relevance by third, predicted": name, "faces": len(own), **shares})
    return rows


def _hide(face: UInt8Array, relevance: FloatArray, rng: np.random.Generator) -> UInt8Array:
    order = np.argsort(-(relevance + 1e-6 * rng.random(relevance.shape)), axis=None)
    mask = np.zeros(relevance.size, np.float32)
    mask[order[: int(_HIDDEN_SHARE * relevance.size)]] = 1.0
    soft = cv2.GaussianBlur(mask.reshape(relevance.shape), (5, 5), 0)[..., None]
    side = face.shape[0] // 3 * 2 + 1
    blurred = cv2.GaussianBlur(face, (side, side), 0)
    return np.asarray(np.round(face * (1 - soft) + blurred * soft), np.uint8)
