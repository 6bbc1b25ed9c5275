"""`vlfer bench calibration`: temperatures, risk against coverage, thresholds; measured and put into a card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from vlfer.cli.exits import say


def bench_calibration(
    data: Annotated[list[str], typer.Option(help="NAME=FILE; one is the archive that the backbone was trained on.")],
    backbone: Annotated[str, typer.Option(help="bundled, or bundled:FOLDER.")] = "bundled",
    write: Annotated[bool, typer.Option("--write", help="Put what was fitted into the backbone's card.")] = False,
    picture: Annotated[Path | None, typer.Option(help="Draw the risk-coverage curves into this PNG file.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
    out: Annotated[Path | None, typer.Option(help="Also write the figures to this JSON file.")] = None,
    form: Annotated[Literal["table", "json"], typer.Option("--format", help="How to print.")] = "table",
) -> None:
    """Fit temperatures on held-out faces and tell what they and a threshold are worth on others."""
    from vlfer.bench.calibration import calibration_report, risk_coverage_png, write_to_card
    from vlfer.bench.faces import parse_address
    from vlfer.config import write_atomically

    report, curves = calibration_report(backbone, [parse_address(text) for text in data], device=device, say=say)
    text = json.dumps(report, indent=2, ensure_ascii=False)
    for path, content in ((out, f"{text}\n".encode()), (picture, risk_coverage_png(curves) if picture else b"")):
        if path is not None:
            write_atomically(path, content)
            say(f"Written: {path}")
    if write:
        say(f"Written: {write_to_card(backbone, report['calibration'])}")
    if form == "json":
        typer.echo(text)
    else:
        _print(report)


def _print(report: Mapping[str, Any]) -> None:
    from rich.table import Table

    from vlfer.cli.output import table_console

    console = table_console()
    table = Table("sentences", "temperature", box=None, pad_edge=False, header_style="bold")
    for one in report["judged"]:
        table.add_column(f"ECE, {one['set']}", justify="right")
    for family, value in report["calibration"]["temperature"].items():
        table.add_row(family, f"{value:.4f}", *(f"{one['ece'][family]:.3f}" for one in report["judged"]))
    console.print(table)
    table = Table("set", box=None, pad_edge=False, header_style="bold")
    for name in ("AURC", "best", "random", "threshold", "answered %", "right %", "right of the rest %"):
        table.add_column(name, justify="right")
    for one in report["judged"]:
        curve = one["risk_coverage"]
        for i, row in enumerate(one["threshold"].values()):
            head = [one["set"], *(f"{curve[key]:.3f}" for key in ("aurc", "best", "random"))] if i == 0 else [""] * 4
            shares = (row["coverage"], row["accuracy"], row["accuracy_of_the_rest"])
            table.add_row(*head, f"{row['threshold']:.3f}", *("-" if s is None else f"{100 * s:.1f}" for s in shares))
    console.print(table)
