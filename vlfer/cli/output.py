"""How reports are printed and written: table, JSON, CSV."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.console import Console

    from vlfer.types import Prediction, Report

Format = Literal["table", "json", "csv"]

CSV_COLUMNS = (
    "source", "status", "track_id", "start_s", "end_s", "label", "probability", "similarity", "reason", "note",
    "x1", "y1", "x2", "y2", "top", "error_type", "message",
)  # fmt: skip
CAPTION = (
    "Perceived expression, not felt emotion. A probability is relative to the labels given: it says nothing about "
    "labels that were not asked for."
)


def table_console(file: Any = None) -> Console:
    """Return a console for stdout, or for ``file``; wide where there is no terminal to measure."""
    from rich.console import Console

    target = file or sys.stdout
    is_terminal = hasattr(target, "isatty") and target.isatty()
    return Console(file=target, width=None if is_terminal else 120)


def render(reports: Sequence[Report], *, form: Format) -> str:
    """Return the reports as text in the given format."""
    if form == "json":
        return json.dumps([dataclasses.asdict(report) for report in reports], indent=2, ensure_ascii=False) + "\n"
    if form == "csv":
        return _render_csv(reports)
    buffer = io.StringIO()
    print_table(reports, console=table_console(buffer))
    return buffer.getvalue()


def print_table(reports: Sequence[Report], *, console: Console) -> None:
    """Print one line a face or segment, the best label first."""
    from rich.markup import escape
    from rich.table import Table

    timed = any(prediction.end_s > prediction.start_s for report in reports for prediction in report.predictions)
    table = Table(box=None, pad_edge=False, header_style="bold", caption=CAPTION, caption_justify="left")
    table.add_column("source", overflow="fold")
    table.add_column("face", justify="right")
    if timed:
        table.add_column("seconds", justify="right", no_wrap=True)
    table.add_column("expression", overflow="fold")
    table.add_column("prob.", justify="right", no_wrap=True)
    table.add_column("then, or why not", overflow="fold")
    for report in reports:
        for i, prediction in enumerate(report.predictions):
            table.add_row(*_table_row(report.source if i == 0 else "", prediction, timed=timed))
        if report.status != "ok":
            heading = "no face" if report.status == "no_face" else "error"
            source = escape(report.source) if not report.predictions else ""
            cells = [source, "", *([""] if timed else []), f"[red]{heading}[/red]", "", escape(report.message)]
            table.add_row(*cells)
    console.print(table)


def _table_row(source: str, prediction: Prediction, *, timed: bool) -> list[str]:
    from rich.markup import escape

    others = ", ".join(f"{name} {probability:.0%}" for name, probability in prediction.top[1:])
    remarks = [prediction.reason, others if prediction.label else "", prediction.note]
    label = f"[bold]{escape(prediction.label)}[/bold]" if prediction.label else "[dim]no clear label[/dim]"
    span = [f"{prediction.start_s:.2f} - {prediction.end_s:.2f}"] if timed else []
    face = str(prediction.track_id + 1)
    return [
        escape(source), face, *span, label, f"{prediction.probability:.0%}",
        escape("; ".join(part for part in remarks if part)),
    ]  # fmt: skip


def _render_csv(reports: Sequence[Report]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, CSV_COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for report in reports:
        common = {"source": report.source, "status": report.status}
        failure = {"error_type": report.error_type, "message": report.message}
        for prediction in report.predictions:
            writer.writerow({**common, **_csv_cells(prediction), **failure})
        if not report.predictions:
            writer.writerow({**common, **failure})
    return buffer.getvalue()


def _csv_cells(prediction: Prediction) -> dict[str, Any]:
    cells: dict[str, Any] = {
        "track_id": prediction.track_id,
        "start_s": round(prediction.start_s, 4),
        "end_s": round(prediction.end_s, 4),
        "label": prediction.label or "",
        "probability": round(prediction.probability, 6),
        "similarity": round(prediction.similarity[0], 6) if prediction.similarity else "",
        "reason": prediction.reason,
        "note": prediction.note,
        "top": json.dumps({name: round(value, 6) for name, value in prediction.top}, ensure_ascii=False),
    }
    if prediction.box is not None:
        cells |= dict(zip(("x1", "y1", "x2", "y2"), (round(side, 2) for side in prediction.box), strict=True))
    return cells


def is_folder(out: Path) -> bool:
    """Tell whether ``--out`` or ``--plot`` means a folder: it is one, or its name has no suffix."""
    return out.is_dir() or not out.suffix


def write_results(
    reports: Sequence[Report], out: Path, *, form: Format | None, config: Mapping[str, Any]
) -> list[Path]:
    """Write reports to a file or into a folder, with the resolved configuration beside them.

    A file is written whole or not at all.

    Args:
        reports: What was found so far.
        out: A folder (``predictions.json``, ``predictions.csv`` and ``config.json`` go into it) or a file.
        form: Format of the file; None follows its suffix.
        config: The resolved configuration.

    Returns:
        The files written.

    Raises:
        OSError: If a file cannot be written.
    """
    from vlfer.config import write_atomically

    config_text = json.dumps(dict(config), indent=2, ensure_ascii=False, default=str) + "\n"
    if is_folder(out):
        texts = {
            out / "predictions.json": render(reports, form="json"),
            out / "predictions.csv": render(reports, form="csv"),
            out / "config.json": config_text,
        }
    else:
        chosen = form or format_of(out)
        texts = {out: render(reports, form=chosen), out.with_suffix(".config.json"): config_text}
    for path, text in texts.items():
        write_atomically(path, text.encode("utf-8"))
    return list(texts)


def format_of(path: Path) -> Format:
    """Return the format that a file's suffix stands for; anything but .json and .csv is a table."""
    if path.suffix.lower() == ".json":
        return "json"
    return "csv" if path.suffix.lower() == ".csv" else "table"
