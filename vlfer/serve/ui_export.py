"""Results to take along: CSV, JSON and WebVTT, made in memory."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path
from tempfile import TemporaryDirectory

from vlfer.export.subtitles import write_vtt
from vlfer.serve.ui_html import text_uri
from vlfer.types import Report

COLUMNS = ("person", "start_s", "end_s", "label", "probability", "reason")


def report_csv(report: Report) -> str:
    """Return one line a segment, then one column a label with its probability."""
    names = sorted({name for prediction in report.predictions for name, _ in prediction.top})
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*COLUMNS, *(_plain(f"p({name})") for name in names)])
    for one in report.predictions:
        shares = dict(one.top)
        writer.writerow([
            one.track_id + 1, f"{one.start_s:.3f}", f"{one.end_s:.3f}", _plain(one.label or ""),
            f"{one.probability:.4f}", _plain(one.reason), *(f"{shares.get(name, 0.0):.4f}" for name in names),
        ])  # fmt: skip
    return buffer.getvalue()


def report_json(report: Report) -> str:
    """Return the whole report with its provenance; of the source only its name is told."""
    named = dataclasses.replace(report, source=report.source.replace("\\", "/").rsplit("/", 1)[-1])
    return json.dumps(dataclasses.asdict(named), indent=2, ensure_ascii=False) + "\n"


def report_vtt(report: Report) -> str:
    """Return subtitles as browsers show them."""
    with TemporaryDirectory(prefix="vlfer-") as folder:
        path = Path(folder) / "expressions.vtt"
        write_vtt(report.predictions, path)
        return path.read_text("utf-8")


def downloads(report: Report) -> str:
    """Return links to the three files; they lie in the page, not on the server."""
    files = (
        ("expressions.csv", "CSV", text_uri(report_csv(report), kind="text/csv")),
        ("expressions.json", "JSON", text_uri(report_json(report), kind="application/json")),
        ("expressions.vtt", "Subtitles", text_uri(report_vtt(report), kind="text/vtt")),
    )
    links = "".join(f'<a download="{name}" href="{address}">{title}</a>' for name, title, address in files)
    return f'<div class="vl-downloads"><span class="vl-faint">Take along:</span>{links}</div>'


def _plain(cell: str) -> str:
    """Keep a spreadsheet from running a cell that begins like a formula."""
    return f"'{cell}" if cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell
