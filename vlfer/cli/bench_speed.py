"""`vlfer bench speed`: what a face costs, for any backbone and for peers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from vlfer.cli.exits import say
from vlfer.errors import ConfigError


def bench_speed(
    backbone: Annotated[list[str] | None, typer.Option(help="See: vlfer backbones list. May repeat.")] = None,
    threads: Annotated[str, typer.Option(help="Numbers of CPU threads.")] = "2,1",
    peers: Annotated[str, typer.Option(help="Networks of other packages: names by commas, or all.")] = "",
    seconds: Annotated[float, typer.Option(help="How long each batch size is repeated.", min=0.1)] = 3.0,
    out: Annotated[Path | None, typer.Option(help="Also write the numbers to this JSON file.")] = None,
    form: Annotated[Literal["table", "json"], typer.Option("--format", help="How to print.")] = "table",
) -> None:
    """Measure milliseconds a face on the CPU, alone and in batches of 32, size and time to load.

    Close other programs first: a busy machine is measured as a slow one.
    """
    try:
        counts = [int(count) for count in threads.split(",")]
    except ValueError as error:
        raise ConfigError(f"--threads {threads!r}: {error}.", fix="--threads 2,1") from error
    if min(counts) < 1:
        raise ConfigError(f"--threads {threads!r} holds a number below 1.", fix="--threads 2,1")

    from vlfer.bench.machine import machine
    from vlfer.bench.peers.environment import find_peers
    from vlfer.bench.speed import speed_report

    chosen = find_peers([name.strip() for name in peers.split(",") if name.strip()])
    rows = speed_report(backbone or ["bundled"], threads=counts, peers=chosen, seconds=seconds, say=say)
    text = json.dumps({"bench": "speed", "machine": machine(), "rows": rows}, indent=2)
    if out is not None:
        from vlfer.config import write_atomically

        write_atomically(out, f"{text}\n".encode())
        say(f"Written: {out}")
    if form == "json":
        typer.echo(text)
    else:
        _print(rows, counts)


def _print(rows: Sequence[Mapping[str, Any]], counts: Sequence[int]) -> None:
    from rich.table import Table

    from vlfer.cli.output import table_console

    table = Table("ms a face", box=None, pad_edge=False, header_style="bold")
    for count in counts:
        for size in (1, 32):
            table.add_column(f"{count} threads, batch {size}", justify="right")
    for name in ("weights MB", "parameters M", "load s"):
        table.add_column(name, justify="right")
    for row in rows:
        times = [f"{row['ms_per_face'][str(count)][str(size)]:.2f}" for count in counts for size in (1, 32)]
        size_mb, parameters = row.get("weights_bytes"), row.get("parameters")
        table.add_row(
            row["backbone"], *times, "-" if size_mb is None else f"{size_mb / 1e6:.1f}",
            "-" if parameters is None else f"{parameters / 1e6:.2f}", f"{row['load_s']:.1f}",
        )  # fmt: skip
    table_console().print(table)
