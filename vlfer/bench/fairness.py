"""Accuracy by what a picture itself tells: light, contrast, sharpness, size and pose.

Age, gender and ethnicity are not annotated in any set that this project may use, so nothing is said of them; see
``NOT_MEASURED``. Classes are not spread evenly over bins, so each accuracy stands beside the one that the mix of
classes in its bin would give: what is left between the two belongs to the bin.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vlfer.bench.accuracy import encode_faces, wilson
from vlfer.bench.faces import Address, FaceSet, Part, load_faces
from vlfer.bench.report import cards_of
from vlfer.calibration import default_temperature
from vlfer.config import cache_dir
from vlfer.models.encoder import load_encoder
from vlfer.scoring import score
from vlfer.text.bank import TextBank
from vlfer.training.geometry import NAMES, measure, mesh_of_crops
from vlfer.types import FloatArray, UInt8Array

Float64 = NDArray[np.float64]
NOT_MEASURED = (
    "Not measured: accuracy by age, gender, ethnicity or skin colour. None of these sets says who its people are, and "
    "guessing it from their faces would be one more error. Expect differences; do not read their absence from here."
)
BINS = 4
_SIDE_PX = 96


def fairness_report(
    backbones: Sequence[str],
    addresses: Sequence[Address],
    *,
    part: Part = "held-out",
    device: str = "auto",
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Return accuracy by property, for each backbone and set; JSON-ready.

    Args:
        backbones: Names.
        addresses: Sets of faces.
        part: See `vlfer.bench.faces.load_faces`.
        device: Of the backbones.
        say: Told what is going on.

    Raises:
        DataError: If a set cannot be loaded.
        BackboneError: If a backbone cannot be loaded.
    """
    sets = [load_faces(address, cards=cards_of(backbones), part=part) for address in addresses]
    rows: list[dict[str, Any]] = []
    properties = []
    for faces in sets:
        say(f"Measuring light and pose of {len(faces)} faces of {faces.name}")
        properties.append(properties_of(faces.images))
    for name in backbones:
        encoder = load_encoder(name, device=device)
        bank = TextBank(encoder, cache_dir=cache_dir())
        for faces, measured in zip(sets, properties, strict=True):
            say(f"{name} on {faces.name}")
            temperature = default_temperature(encoder, ensemble="all")
            scores = score(encode_faces(encoder, faces), faces.labels, bank, temperature=temperature)
            for row in accuracy_by(measured, scores.probability, faces):
                rows.append({"backbone": name, "set": faces.name, **row})
    return {"sets": [faces.about() for faces in sets], "rows": rows, "not_measured": NOT_MEASURED}


def properties_of(images: Sequence[UInt8Array]) -> dict[str, Float64]:
    """Return for N crops what can be measured on them, each (N,) float64, NaN where it cannot be.

    brightness: mean grey level, 0 to 255. contrast: its standard deviation. sharpness: share of the contrast that is
    finer than a 24th of the face. size_px: shorter side of the crop. turn, tilt: how far the tip of the nose lies
    sidewards and below the eyes on the face mesh, in units of the distance from eyes to mouth (turn without sign); NaN
    where no mesh was found.
    """
    grey = [cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (_SIDE_PX, _SIDE_PX)) for image in images]
    flat = np.stack(grey).astype(np.float64)
    fine = flat - np.stack([cv2.GaussianBlur(image, (0, 0), _SIDE_PX / 48) for image in flat])
    contrast = flat.std(axis=(1, 2))
    geometry = measure(mesh_of_crops(np.stack(grey).astype(np.uint8)))
    return {
        "brightness": flat.mean(axis=(1, 2)),
        "contrast": contrast,
        "sharpness": fine.std(axis=(1, 2)) / np.maximum(contrast, 1e-6),
        "size_px": np.array([min(image.shape[:2]) for image in images], np.float64),
        "turn": np.abs(geometry[:, NAMES.index("yaw")]).astype(np.float64),
        "tilt": geometry[:, NAMES.index("pitch")].astype(np.float64),
    }


def accuracy_by(
    properties: Mapping[str, Float64], probability: FloatArray, faces: FaceSet, *, bins: int = BINS
) -> list[dict[str, Any]]:
    """Return accuracy in equally large bins of each property, and for faces on which it could not be measured.

    Args:
        properties: (N,) values by name, NaN where unknown. One that is the same for all faces is left out.
        probability: (N, C) float32.
        faces: N faces.
        bins: Bins of each property.
    """
    truth = faces.truth
    right = probability.argmax(axis=1) == truth
    recall = np.array([right[truth == c].mean() if (truth == c).any() else 0.0 for c in range(len(faces.labels))])
    rows = []
    for name, values in properties.items():
        known = np.isfinite(values)
        edges = np.unique(np.quantile(values[known], np.linspace(0, 1, bins + 1))) if known.any() else np.zeros(0)
        if len(edges) > 2:
            place = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
            for i in range(len(edges) - 1):
                chosen = known & (place == i)
                span = [round(float(edges[i]), 3), round(float(edges[i + 1]), 3)]
                rows.append(
                    {
                        "property": name,
                        "from": span[0],
                        "to": span[1],
                        **_bin(chosen, right, truth, recall, probability),
                    }
                )
        if not known.all() and (len(edges) > 2 or not known.any()):
            rows.append({"property": name, "from": None, "to": None, **_bin(~known, right, truth, recall, probability)})
    return rows


def _bin(
    chosen: NDArray[np.bool_], right: NDArray[np.bool_], truth: NDArray[Any], recall: Float64, probability: FloatArray
) -> dict[str, Any]:
    n, hits = int(chosen.sum()), int(right[chosen].sum())
    if not n:
        return {"n": 0}
    shares = [right[chosen & (truth == c)].mean() for c in np.unique(truth[chosen])]
    expected = float(recall[truth[chosen]].mean())
    return {
        "n": n, "war": round(hits / n, 4), "interval": wilson(hits, n), "uar": round(float(np.mean(shares)), 4),
        "classes": len(shares), "war_of_this_mix_of_classes": round(expected, 4),
        "difference": round(hits / n - expected, 4),
        "mean_confidence": round(float(probability[chosen].max(axis=1).mean()), 4),
    }  # fmt: skip
