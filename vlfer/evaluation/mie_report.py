"""A leave-one-subject-out run on paper: pooled UF1 and UAR, Full and parts, mean and spread over seeds."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlfer.config import write_atomically
from vlfer.errors import DataError
from vlfer.evaluation.mie_loso import Pooled, leaky_claim
from vlfer.metrics import compute_metrics
from vlfer.micro.samples import ClipSamples
from vlfer.types import IntArray

LEAKAGE_WARNING = (
    "Not a result. The epoch of each fold was chosen on the subject it is tested on, as much public code does. The "
    "difference to uf1 and uar above is what that habit adds without any skill."
)


@dataclass(frozen=True, slots=True)
class Protocol:
    """A task on which methods are compared.

    Attributes:
        name: What a command calls it.
        classes: The declared classes, in the order of the labels.
        groups: None to leave one subject out at a time, else the number of folds of whole subjects.
        source: Where it is defined.
    """

    name: str
    classes: tuple[str, ...]
    groups: int | None
    source: str


_THREE = ("negative", "positive", "surprise")

PROTOCOLS: dict[str, Protocol] = {
    p.name: p
    for p in (
        Protocol("megc2019", _THREE, None, "See et al., MEGC 2019: CASME II, SAMM and SMIC-HS together, 442 clips"),
        Protocol("smic-3", _THREE, None, "Li et al., FG 2013: SMIC-HS"),
        Protocol("casme2-3", _THREE, None, "CASME II with the classes of MEGC 2019"),
        Protocol("samm-3", _THREE, None, "SAMM with the classes of MEGC 2019"),
        Protocol(
            "casme2-5", ("happiness", "disgust", "repression", "surprise", "others"), None, "Yan et al., 2014: CASME II"
        ),
        Protocol(
            "samm-5", ("happiness", "anger", "contempt", "surprise", "others"), None, "Davison et al., 2018: SAMM"
        ),
        Protocol(
            "mmew-6", ("happiness", "surprise", "anger", "disgust", "fear", "sadness"), 5, "Ben et al., 2021: MMEW"
        ),
        Protocol("casme3-3", _THREE, None, "Li et al., 2022: CAS(ME)^3"),
        Protocol("casme3-4", ("negative", "positive", "surprise", "others"), None, "Li et al., 2022: CAS(ME)^3"),
        Protocol(
            "casme3-7",
            ("happiness", "disgust", "fear", "anger", "sadness", "surprise", "others"),
            None,
            "Li et al., 2022: CAS(ME)^3",
        ),
    )
}


def check_classes(samples: ClipSamples, protocol: Protocol) -> None:
    """Demand that the archive's classes are those of the protocol, in its order.

    Raises:
        DataError: If they are not.
    """
    if samples.classes != protocol.classes:
        raise DataError(
            f"The archive has the classes {', '.join(samples.classes)}.",
            why=f"{protocol.name} is over {', '.join(protocol.classes)}, in this order.",
            fix="another --protocol, or an archive made for this one",
        )


def figures(samples: ClipSamples, prediction: IntArray) -> dict[str, Any]:
    """Return pooled UF1, UAR and accuracy over all clips and over each data set.

    A class that no clip of a part has is left out of that part's means and named in ``absent``.

    Args:
        samples: The clips.
        prediction: (N,) int64.
    """

    def of(rows: IntArray) -> dict[str, Any]:
        all_figures = compute_metrics(samples.label[rows], prediction[rows], classes=samples.classes).as_dict()
        kept = {key: all_figures[key] for key in ("uf1", "uar", "war", "n", "absent", "confusion")}
        kept["subjects"] = len(np.unique(samples.subject_keys[rows]))
        kept["recall"] = {name: one["recall"] for name, one in all_figures["per_class"].items()}
        return kept

    parts = {str(name): of(np.flatnonzero(samples.dataset == name)) for name in np.unique(samples.dataset)}
    return {"full": of(np.arange(len(samples))), "parts": parts}


def build_report(
    samples: ClipSamples, runs: Sequence[Pooled], *, protocol: Protocol, model: Mapping[str, Any], leakage: bool = False
) -> dict[str, Any]:
    """Return the report as JSON-ready values; figures are fractions, means over seeds.

    Args:
        samples: The clips.
        runs: One entry a seed, at least one.
        protocol: The task.
        model: Name and settings of the learner.
        leakage: Add what a choice of the epoch on the test subject would have claimed; the runs need traces.
    """
    singles = [figures(samples, run.prediction) for run in runs]
    summary = _mean_and_spread(singles)
    report: dict[str, Any] = {
        "protocol": protocol.name,
        "source": protocol.source,
        "aggregate": "predictions pooled over all folds, then figures over fixed classes; mean over seeds",
        "schedule": "fixed: the classifier after the last epoch",
        "unit": "fraction",
        **summary["full"],
        "n": len(samples),
        "subjects": len(np.unique(samples.subject_keys)),
        "classes": list(samples.classes),
        "parts": summary["parts"],
        "seeds": [run.seed for run in runs],
        "per_seed": [{"seed": run.seed, **single} for run, single in zip(runs, singles, strict=True)],
        "model": dict(model),
        "data_sha256": samples.sha256,
    }
    if leakage:
        claims = _mean_and_spread([figures(samples, leaky_claim(run, samples.label)) for run in runs])
        report["leakage"] = {"warning": LEAKAGE_WARNING, **claims["full"], "parts": claims["parts"]}
    return report


def write_report(report: Mapping[str, Any], samples: ClipSamples, runs: Sequence[Pooled], *, out: Path) -> list[Path]:
    """Write ``report.json``, ``report.md`` and ``predictions.csv`` into a folder.

    Raises:
        OSError: If a file cannot be written.
    """
    texts = {
        "report.json": json.dumps(report, indent=2) + "\n",
        "report.md": report_markdown(report),
        "predictions.csv": _predictions(samples, runs),
    }
    for name, text in texts.items():
        write_atomically(out / name, text.encode("utf-8"))
    return [out / name for name in texts]


def report_markdown(report: Mapping[str, Any]) -> str:
    """Return the table of a report: a line for all clips, one for each data set."""
    lines = [
        f"# {report['protocol']}, {report['model']['name']}",
        "",
        f"{report['n']} clips, {report['subjects']} subjects, seeds {', '.join(map(str, report['seeds']))}. "
        f"{report['aggregate'].capitalize()}. Schedule {report['schedule']}.",
        "",
        "| part | clips | UF1 | UAR | accuracy |",
        "|---|---|---|---|---|",
        *(_line(name, part) for name, part in (("Full", report), *report["parts"].items())),
    ]
    if "leakage" in report:
        leaky = report["leakage"]
        lines += [
            "",
            "## What leakage would have claimed",
            "",
            leaky["warning"],
            "",
            "| part | UF1 | UAR |",
            "|---|---|---|",
        ]
        lines += [
            f"| {name} | {part['uf1']:.3f} | {part['uar']:.3f} |"
            for name, part in (("Full", leaky), *leaky["parts"].items())
        ]
    return "\n".join(lines) + "\n"


def _line(name: str, part: Mapping[str, Any]) -> str:
    cells = [f"{part[key]:.3f} ± {part[key + '_std']:.3f}" for key in ("uf1", "uar", "war")]
    return f"| {name} | {part['n']} | " + " | ".join(cells) + " |"


def _mean_and_spread(singles: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return means and sample standard deviations over seeds (0 for a single seed) of the headline figures."""

    def of(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for key in ("uf1", "uar", "war"):
            values = [part[key] for part in parts]
            out[key] = float(np.mean(values))
            out[key + "_std"] = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        return out | {key: parts[0][key] for key in ("n", "subjects", "absent")}

    names = singles[0]["parts"]
    return {
        "full": of([single["full"] for single in singles]),
        "parts": {name: of([single["parts"][name] for single in singles]) for name in names},
    }


def _predictions(samples: ClipSamples, runs: Sequence[Pooled]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["dataset", "subject", "clip", "label", "seed", "predicted", *(f"p_{c}" for c in samples.classes)])
    for run in runs:
        for row in range(len(samples)):
            writer.writerow([
                samples.dataset[row], samples.subject[row], samples.clip[row], samples.classes[samples.label[row]],
                run.seed, samples.classes[run.prediction[row]], *(f"{p:.6f}" for p in run.probability[row]),
            ])  # fmt: skip
    return buffer.getvalue()
