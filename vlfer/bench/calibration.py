"""Calibration of a backbone, fitted on faces it has held out and judged on others."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vlfer.bench.accuracy import encode_faces
from vlfer.bench.faces import Address, FaceSet, load_faces
from vlfer.bench.report import card_of
from vlfer.bench.words import prototypes
from vlfer.calibration import (
    FAMILIES,
    ODDS,
    at_threshold,
    fit_calibration,
    risk_coverage_report,
    selective_risk,
    threshold_transfer,
)
from vlfer.config import cache_dir, write_atomically
from vlfer.errors import DataError
from vlfer.metrics import expected_calibration_error, softmax
from vlfer.models.bundled import BUNDLED_DIR, CARD_NAME
from vlfer.models.encoder import Encoder, load_encoder
from vlfer.models.registry import find_backbone
from vlfer.text.bank import TextBank
from vlfer.types import FloatArray, IntArray

Curve = tuple[str, FloatArray, FloatArray]
_LABEL_COUNTS = (2, 3, 5, 7)
_SUBSETS = 20


def calibration_report(
    backbone: str, addresses: Sequence[Address], *, device: str = "auto", say: Callable[[str], None] = lambda _: None
) -> tuple[dict[str, Any], list[Curve]]:
    """Fit on the validation part of the archive a backbone was trained on; judge there, on its test part, elsewhere.

    Args:
        backbone: Name of a backbone in the bundled format.
        addresses: Sets of faces; one of them is that archive.
        device: Where to compute.
        say: Told what is going on.

    Returns:
        JSON-ready: "calibration", as it goes into the card, and "judged", one entry a set; and the risk-coverage
        curves (name, coverage, risk) of the sets.

    Raises:
        DataError: If no set is the archive that the card names.
        BackboneError: If the backbone cannot be loaded.
    """
    card = card_of(backbone)
    own = [load_faces(a, cards=[card], part="validation") for a in addresses] if card else []
    fitted_on = next((faces for faces in own if faces.part == "validation"), None)
    if card is None or fitted_on is None:
        raise DataError(
            f"None of {', '.join(a.name for a in addresses)} is the archive that {backbone!r} was trained on.",
            why="Calibration is fitted on the validation part that its card records.",
        )
    encoder = load_encoder(backbone, device=device)
    bank = TextBank(encoder, cache_dir=cache_dir())
    say(f"Fitting on {len(fitted_on)} faces of {fitted_on.name}")
    similarity = family_similarities(encoder, bank, fitted_on)
    about = {"set": fitted_on.name, "part": "validation", "labels": fitted_on.labels.name, "sha256": fitted_on.sha256}
    calibration = fit_calibration(similarity, fitted_on.votes, fitted_on=about)
    judged, curves = [], []
    for address, faces in zip(addresses, own, strict=True):
        parts = [(f"{faces.name}, {faces.part}", faces)]
        if faces.part == "validation":
            parts.append((f"{faces.name}, test", load_faces(address, cards=[card], part="test")))
        for name, part in parts:
            say(f"Judging on {len(part)} faces of {name}")
            values = similarity if part is fitted_on else family_similarities(encoder, bank, part)
            judged.append({"set": name, "n": len(part), **_judge(values, part, calibration["temperature"])})
            coverage, risk, _ = selective_risk(softmax(values["all"] / calibration["temperature"]["all"]), part.truth)
            curves.append((name, coverage.astype(np.float32), risk.astype(np.float32)))
    return {"backbone": backbone, "calibration": calibration, "judged": judged}, curves


def family_similarities(encoder: Encoder, bank: TextBank, faces: FaceSet) -> dict[str, FloatArray]:
    """Return (N, C) cosine similarities of faces with labels, for each family of sentences."""
    vectors = encode_faces(encoder, faces).vectors
    return {family: vectors @ prototypes(bank, faces.labels, ensemble=family).T for family in FAMILIES}


def _judge(similarity: Mapping[str, FloatArray], faces: FaceSet, temperature: Mapping[str, float]) -> dict[str, Any]:
    truth = faces.truth
    probability = softmax(similarity["all"] / temperature["all"])
    return {
        "ece": {
            family: round(expected_calibration_error(truth, softmax(values / temperature[family])), 4)
            for family, values in similarity.items()
        },
        "ece_with_one_temperature": {
            family: round(expected_calibration_error(truth, softmax(values / temperature["all"])), 4)
            for family, values in similarity.items()
        },
        "risk_coverage": risk_coverage_report(probability, truth),
        "threshold": {f"{odds:g}": at_threshold(probability, truth, odds=odds) for odds in ODDS},
        "other_numbers_of_labels": {
            f"{odds:g}": threshold_transfer(_subsets(similarity["all"], truth, temperature["all"]), odds=odds)
            for odds in ODDS
        },
    }


def _subsets(similarity: FloatArray, truth: IntArray, temperature: float) -> dict[int, list[Any]]:
    """Return the same faces asked with fewer labels: up to 20 random choices of each number of them."""
    n_classes = similarity.shape[1]
    rng = np.random.default_rng(0)
    asked: dict[int, list[Any]] = {}
    for count in (*(c for c in _LABEL_COUNTS if c < n_classes), n_classes):
        choices = list(itertools.combinations(range(n_classes), count))
        asked[count] = []
        for i in rng.permutation(len(choices))[:_SUBSETS]:
            columns = np.array(choices[i])
            place = np.full(n_classes, -1)
            place[columns] = np.arange(count)
            asked[count].append((softmax(similarity[:, columns] / temperature), place[truth]))
    return asked


def write_to_card(backbone: str, calibration: Mapping[str, Any]) -> Path:
    """Put a calibration into the card of a backbone, with the temperature of the whole ensemble as its temperature.

    Returns:
        The card.

    Raises:
        OSError: If the card cannot be written.
    """
    spec = find_backbone(backbone)
    path = (Path(spec.source).expanduser() if spec.source else BUNDLED_DIR) / CARD_NAME
    card = json.loads(path.read_text("utf-8"))
    card["temperature"] = calibration["temperature"]["all"]
    card["calibration"] = dict(calibration)
    write_atomically(path, json.dumps(card, indent=2, ensure_ascii=False).encode())
    return path


def risk_coverage_png(curves: Sequence[Curve]) -> bytes:
    """Draw accuracy of the answers against the share of faces that is answered, surest first."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, coverage, risk in curves:
        shown = coverage >= 0.05  # below, a single face moves the curve by a percent and more
        axes.plot(100 * coverage[shown], 100 * (1 - risk[shown]), label=name)
    axes.set_xlabel("% of the faces answered, surest first")
    axes.set_ylabel("% of the answers right")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="lower left")
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=120, metadata={"Software": None})
    return buffer.getvalue()
