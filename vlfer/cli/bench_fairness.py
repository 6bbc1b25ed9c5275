"""`vlfer bench fairness`: accuracy by light, contrast, sharpness, size and pose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from vlfer.cli.exits import say


def bench_fairness(
    data: Annotated[list[str], typer.Option(help="NAME=FILE or NAME@LABELS=FILE. May repeat.")],
    backbone: Annotated[list[str] | None, typer.Option(help="See: vlfer backbones list. May repeat.")] = None,
    part: Annotated[
        Literal["validation", "test", "held-out"], typer.Option(help="Of an archive that a backbone was trained on.")
    ] = "held-out",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
    out: Annotated[Path | None, typer.Option(help="Also write the figures to this JSON file.")] = None,
    form: Annotated[Literal["table", "json"], typer.Option("--format", help="How to print.")] = "table",
) -> None:
    """Tell for which pictures a backbone is worse: dark, flat, blurred, small, turned.

    Each accuracy stands beside the one that the mix of classes in its bin would give.
    """
    from vlfer.bench.faces import parse_address
    from vlfer.bench.fairness import fairness_report

    addresses = [parse_address(text) for text in data]
    report = fairness_report(backbone or ["bundled"], addresses, part=part, device=device, say=say)
    text = json.dumps(report, indent=2, ensure_ascii=False)
    if out is not None:
        from vlfer.config import write_atomically

        write_atomically(out, f"{text}\n".encode())
        say(f"Written: {out}")
    if form == "json":
        typer.echo(text)
    else:
        _print(report)


def _print(report: dict[str, Any]) -> None:
    from rich.table import Table

    from vlfer.cli.output import table_console

    console = table_console()
    table = Table("set", "backbone", "property", "from", "to", box=None, pad_edge=False, header_style="bold")
    for name in ("faces", "WAR %", "95 %", "of this mix %", "difference", "UAR %"):
        table.add_column(name, justify="right")
    for row in report["rows"]:
        if not row["n"]:
            continue
        span = ["no mesh", ""] if row["from"] is None else [f"{row['from']:g}", f"{row['to']:g}"]
        low, high = row["interval"]
        table.add_row(
            row["set"], row["backbone"], row["property"], *span, str(row["n"]), f"{100 * row['war']:.1f}",
            f"{100 * low:.0f} to {100 * high:.0f}", f"{100 * row['war_of_this_mix_of_classes']:.1f}",
            f"{100 * row['difference']:+.1f}", f"{100 * row['uar']:.1f}",
        )  # fmt: skip
    console.print(table)
    console.print(report["not_measured"], highlight=False)
