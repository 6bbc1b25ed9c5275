"""`vlfer bench`: what things cost on this machine, and how good backbones are."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vlfer.cli.bench_accuracy import bench_accuracy
from vlfer.cli.bench_calibration import bench_calibration
from vlfer.cli.bench_fairness import bench_fairness
from vlfer.cli.bench_finetune import bench_finetune
from vlfer.cli.bench_mie import bench_mie
from vlfer.cli.bench_serve import bench_search, bench_serve
from vlfer.cli.bench_speed import bench_speed
from vlfer.cli.bench_video import bench_video
from vlfer.cli.bench_words import bench_words
from vlfer.cli.exits import say
from vlfer.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vlfer.bench.measurement import Measurement

app = typer.Typer(help="Measure speed, memory and accuracy.", no_args_is_help=True)

_PARTS = ("scoring", "encoding", "ray")

app.command("accuracy")(bench_accuracy)
app.command("words")(bench_words)
app.command("speed")(bench_speed)
app.command("serve")(bench_serve)
app.command("search")(bench_search)
app.command("calibration")(bench_calibration)
app.command("fairness")(bench_fairness)
app.command("video")(bench_video)
app.command("finetune")(bench_finetune)
app.command("mie")(bench_mie)


@app.callback()
def _group() -> None:
    """Measure speed, memory and accuracy."""


@app.command("eval")
def bench_eval(
    backbone: Annotated[str, typer.Option(help="See: vlfer backbones list.")] = "bundled",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
    parts: Annotated[str, typer.Option(help="What to measure.")] = ",".join(_PARTS),
    sizes: Annotated[str, typer.Option(help="Numbers of stored clips to score.")] = "100,1000,10000",
    clips: Annotated[int, typer.Option(help="Clips to encode.", min=1)] = 500,
    images: Annotated[int, typer.Option(help="Images to encode.", min=1)] = 2000,
    workers: Annotated[int, typer.Option(help="Decoding threads.", min=1)] = 2,
    out: Annotated[Path | None, typer.Option(help="Also write the numbers to this JSON file.")] = None,
    form: Annotated[Literal["table", "json"], typer.Option("--format", help="How to print.")] = "table",
) -> None:
    """Measure scoring of stored clips, encoding against the tower alone, and the overhead of Ray.

    Media are made up in a temporary folder. Close other programs first: a busy machine is measured as a slow one.
    """
    wanted = [part.strip() for part in parts.split(",") if part.strip()]
    for part in wanted:
        if part not in _PARTS:
            raise ConfigError(f"There is no part {part!r}.", why=did_you_mean(part, _PARTS), fix=", ".join(_PARTS))
    try:
        counts = [int(size) for size in sizes.split(",")]
    except ValueError as error:
        raise ConfigError(f"--sizes {sizes!r}: {error}.", fix="--sizes 100,1000") from error
    if min(counts) < 1:
        raise ConfigError(f"--sizes {sizes!r} holds a number below 1.", fix="--sizes 100,1000")

    from vlfer.bench import eval as bench
    from vlfer.models.encoder import load_encoder

    build = functools.partial(load_encoder, backbone, device=device)
    encoder = build()
    found: list[Measurement] = []
    with tempfile.TemporaryDirectory(prefix="vlfer-bench-") as name:
        folder = Path(name)
        if "scoring" in wanted:
            say("Scoring stored clips")
            found += bench.bench_scoring(encoder, sizes=counts, folder=folder)
        if "encoding" in wanted:
            say("Encoding")
            found += bench.bench_encoding(encoder, images=images, clips=clips, workers=workers, folder=folder)
        if "ray" in wanted:
            say("Ray")
            found += bench.bench_ray(encoder, build_encoder=build, clips=clips, workers=workers, folder=folder)
    _report("eval", found, out=out, form=form, backbone=encoder.spec.name)


def _report(
    name: str, found: Sequence[Measurement], *, out: Path | None, form: Literal["table", "json"], backbone: str
) -> None:
    """Write and print measurements."""
    from vlfer.bench.machine import machine

    text = json.dumps(
        {"bench": name, "backbone": backbone, "machine": machine(), "measurements": [m.as_dict() for m in found]},
        indent=2,
    )  # fmt: skip
    if out is not None:
        from vlfer.config import write_atomically

        write_atomically(out, f"{text}\n".encode())
        say(f"Written: {out}")
    if form == "json":
        typer.echo(text)
        return
    from rich.table import Table

    from vlfer.cli.output import table_console

    table = Table("measured", box=None, pad_edge=False, header_style="bold")
    for column in ("value", "bar", ""):
        table.add_column(column, justify="right" if column else "left")
    for one in found:
        value = "-" if one.value is None else f"{one.value:.3g} {one.unit}".strip()
        bar = "" if one.bar is None else f"{'≥' if one.at_least else '≤'} {one.bar:g} {one.unit}".strip()
        table.add_row(one.name, value, bar, {True: "met", False: "missed", None: one.note}[one.is_met])
    table_console().print(table)
