"""An evaluation on paper: report.json, predictions.csv, confusion.csv and .png, report.md and the configuration."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from vlfer.config import write_atomically
from vlfer.evaluation.embed import Clip
from vlfer.evaluation.encode import Failure
from vlfer.evaluation.manifest import Row
from vlfer.evaluation.run import Evaluation
from vlfer.metrics import FAILED

HEADLINE = ("war", "uar", "uf1", "auc", "ece")


def report_dict(
    evaluation: Evaluation, *, provenance: Mapping[str, Any], notes: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Return the report as JSON-ready values.

    ``war``, ``uar`` and the other headline figures are fractions from 0 to 1: the mean over folds where the protocol
    has folds, else over all rows; ``aggregate`` says which. ``per_class``, ``confusion``, ``absent`` and ``interval``
    are over all rows.

    Args:
        evaluation: What was measured.
        provenance: Versions, hashes and configuration.
        notes: Remarks beside those of the manifest.
    """
    pooled = evaluation.pooled.as_dict()
    return {
        "dataset": evaluation.plan.manifest.name,
        "protocol": evaluation.plan.protocol,
        "aggregate": evaluation.plan.aggregate,
        "unit": "fraction",
        **{name: evaluation.headline[name] for name in HEADLINE},
        "n": evaluation.pooled.n,
        "failed": evaluation.pooled.failed,
        "coverage": evaluation.pooled.coverage,
        "failures": evaluation.failures,
        "interval": {"level": 0.95, **{name: list(ends) for name, ends in evaluation.intervals.items()}},
        "absent": pooled["absent"],
        "per_class": pooled["per_class"],
        "classes": list(evaluation.labels.names),
        "confusion": pooled["confusion"],
        "answered": pooled["answered"],
        "mean": dict(evaluation.headline),
        "pooled": {name: pooled[name] for name in HEADLINE},
        "folds": {name: figures.as_dict() for name, figures in evaluation.folds.items()},
        "seconds": {
            "total": round(evaluation.total_s, 3),
            "tower": round(evaluation.encoded.tower_s, 3),
            "waiting_for_media": round(evaluation.encoded.read_s, 3),
            "scoring": round(evaluation.score_s, 3),
        },
        "embeddings": {"from_cache": evaluation.encoded.from_cache, "encoded": evaluation.encoded.encoded},
        "notes": [*evaluation.plan.manifest.remarks, *notes],
        "manifest_sha256": evaluation.plan.manifest.sha256,
        "failed_rows": failed_rows(evaluation.plan.manifest.rows, evaluation.encoded.places),
        "provenance": dict(provenance),
    }


def failed_rows(rows: Sequence[Row], places: Sequence[Clip | Failure]) -> list[dict[str, str]]:
    """Return what failed and why, JSON-ready."""
    return [
        {"path": row.path, "status": place.status, "error_type": place.error_type, "message": place.message}
        for row, place in zip(rows, places, strict=True)
        if isinstance(place, Failure)
    ]


def write_report(evaluation: Evaluation, folder: str | Path, *, report: Mapping[str, Any]) -> list[Path]:
    """Write every file of a report; each appears whole or not at all.

    Args:
        evaluation: What was measured.
        folder: Made where it does not exist.
        report: See `report_dict`.

    Returns:
        The files.

    Raises:
        OSError: If one cannot be written.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    texts = {
        "report.json": json.dumps(report, indent=2, ensure_ascii=False) + "\n",
        "predictions.csv": predictions_csv(evaluation),
        "confusion.csv": confusion_csv(evaluation),
        "report.md": markdown(report),
        "config.yaml": yaml.safe_dump(dict(report["provenance"]), sort_keys=False, allow_unicode=True),
    }
    for name, text in texts.items():
        write_atomically(target / name, text.encode())
    write_atomically(target / "confusion.png", confusion_png(evaluation))
    return [target / name for name in (*texts, "confusion.png")]


def predictions_csv(evaluation: Evaluation) -> str:
    """Return one line a row: what it was, what was predicted, the probability of each class, and why it failed."""
    names = evaluation.labels.names
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        ["path", "label", "prediction", "status", "error_type", "message", "fold", "subject", "start_s", "end_s"]
        + ["split", "box"]
        + [f"p_{name}" for name in names]
    )
    rows = zip(evaluation.plan.manifest.rows, evaluation.encoded.places, strict=True)
    for i, (row, place) in enumerate(rows):
        failed = isinstance(place, Failure)
        record = (place.status, place.error_type, place.message) if isinstance(place, Failure) else ("ok", "", "")
        writer.writerow(
            [row.path, names[evaluation.truth[i]]]
            + ["" if evaluation.prediction[i] == FAILED else names[evaluation.prediction[i]], *record]
            + [
                row.fold,
                row.subject,
                "" if row.start_s is None else row.start_s,
                "" if row.end_s is None else row.end_s,
                row.split,
                "" if row.box is None else " ".join(f"{side:g}" for side in row.box),
            ]
            + ([""] * len(names) if failed else [f"{p:.6f}" for p in evaluation.probability[i]])
        )
    return buffer.getvalue()


def confusion_csv(evaluation: Evaluation) -> str:
    """Return the confusion matrix, true classes down, predictions across, failed rows last."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["true \\ predicted", *evaluation.labels.names, "failed"])
    for name, counts in zip(evaluation.labels.names, evaluation.pooled.confusion.tolist(), strict=True):
        writer.writerow([name, *counts])
    return buffer.getvalue()


def confusion_png(evaluation: Evaluation) -> bytes:
    """Draw the confusion matrix in percent of each true class, a column for failed rows where there are any."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    counts = evaluation.pooled.confusion
    names = list(evaluation.labels.names)
    columns = [*names, "failed"] if evaluation.pooled.failed else names
    totals = counts.sum(axis=1, keepdims=True)
    percent = 100.0 * counts[:, : len(columns)] / np.maximum(totals, 1)
    side = max(5.0, 0.62 * len(names) + 2.5)
    figure = Figure(figsize=(side + 1.0, side), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    image = axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    axes.set_xticks(range(len(columns)), columns, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), [f"{n} ({t})" for n, t in zip(names, totals[:, 0], strict=True)])
    axes.set_xlabel("predicted")
    axes.set_ylabel("true (rows)")
    if len(names) <= 20:
        for i, j in np.ndindex(percent.shape):
            if totals[i, 0]:
                shade = "white" if percent[i, j] > 55 else "black"
                axes.text(j, i, f"{percent[i, j]:.0f}", ha="center", va="center", color=shade, fontsize=9)
    axes.set_title(f"{evaluation.plan.manifest.name}: WAR {_percent(evaluation.headline['war'])}, "
                   f"UAR {_percent(evaluation.headline['uar'])}")  # fmt: skip
    figure.colorbar(image, ax=axes, label="% of the true class", shrink=0.8)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=120)
    return buffer.getvalue()


def markdown(report: Mapping[str, Any]) -> str:
    """Return the report for people, in percent."""
    provenance = report["provenance"]
    ends, done = report["interval"], report["protocol"]
    lines = [
        f"# {report['dataset']}",
        "",
        f"{done[:1].upper()}{done[1:]}. {report['n']} rows, {report['failed']} failed and counted as errors"
        f" (coverage {_percent(report['coverage'])} %).",
        "",
        "| WAR | UAR | UF1 | AUC | ECE |",
        "|---|---|---|---|---|",
        "| " + " | ".join(_percent(report[name]) for name in HEADLINE) + " |",
        "",
        "In percent"
        + (", mean over folds. " if report["aggregate"] == "mean" else ". ")
        + "95 % bootstrap intervals over all rows: "
        + ", ".join(f"{n.upper()} {_percent(ends[n][0])} to {_percent(ends[n][1])}" for n in ("war", "uar", "uf1"))
        + ".",
        "",
        "| class | rows | failed | recall | precision | F1 |",
        "|---|---|---|---|---|---|",
    ]
    for name, c in report["per_class"].items():
        figures = " | ".join(_percent(c[key]) for key in ("recall", "precision", "f1"))
        lines.append(f"| {name} | {c['n']} | {c['failed']} | {figures} |")
    if report["absent"]:
        lines += ["", f"Declared, without a row, and left out of the means: {', '.join(report['absent'])}."]
    if report["folds"]:
        lines += ["", "| fold | rows | failed | WAR | UAR | UF1 |", "|---|---|---|---|---|---|"]
        for name, f in report["folds"].items():
            figures = " | ".join(_percent(f[key]) for key in ("war", "uar", "uf1"))
            lines.append(f"| {name} | {f['n']} | {f['failed']} | {figures} |")
    if report["failures"]:
        lines += ["", "Failures: " + ", ".join(f"{kind} {count}" for kind, count in report["failures"].items()) + "."]
    if report["notes"]:
        lines += ["", *(f"- {note}" for note in report["notes"])]
    lines += [
        "",
        f"Backbone {provenance.get('backbone')}, space `{provenance.get('space')}`, labels "
        f"{provenance.get('label_set')} (`{str(provenance.get('labels_sha256'))[:16]}`), manifest "
        f"`{report['manifest_sha256'][:16]}`. Probabilities are relative to the labels given.",
        "",
    ]
    return "\n".join(lines)


def summary_rows(report: Mapping[str, Any]) -> list[list[str]]:
    """Return the report as a table: one line a fold, then the headline, in percent; the first line is the header."""
    table = [["part", "n", "failed", "WAR %", "UAR %", "UF1 %"]]
    for name, f in report["folds"].items():
        table.append([f"fold {name}", str(f["n"]), str(f["failed"]), *(_percent(f[k]) for k in ("war", "uar", "uf1"))])
    title = "mean of folds" if report["aggregate"] == "mean" else "all rows"
    figures = (_percent(report[k]) for k in ("war", "uar", "uf1"))
    return [*table, [title, str(report["n"]), str(report["failed"]), *figures]]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"
