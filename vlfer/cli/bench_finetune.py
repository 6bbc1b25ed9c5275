"""`vlfer bench finetune`: what a few samples of new classes give, and what a temporal transformer reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from vlfer.cli.exits import say
from vlfer.errors import ConfigError


def bench_finetune(
    archive: Annotated[Path, typer.Option(help="Faces with votes, .npz, as for train-backbone.")],
    part: Annotated[
        Literal["new-classes", "order"], typer.Option(help="Few samples of new classes, or onsets and offsets.")
    ] = "new-classes",
    backbone: Annotated[
        str, typer.Option(help="For new classes one trained without them: bundled:FOLDER, see data.leave_out.")
    ] = "bundled",
    new: Annotated[str | None, typer.Option(help="The new classes. [what the backbone's card says]")] = None,
    shots: Annotated[int, typer.Option(help="Samples a class.", min=2)] = 16,
    seeds: Annotated[int, typer.Option(help="Draws of the samples.", min=1)] = 5,
    pairs: Annotated[int, typer.Option(help="Pairs of faces for order.", min=4)] = 120,
    config: Annotated[Path | None, typer.Option(help="[configs/quick_cpu.yaml or video_temporal_bundled.yaml]")] = None,
    override: Annotated[list[str] | None, typer.Option("--set", help="Change a key of it. Repeatable.")] = None,
    save: Annotated[Path | None, typer.Option(help="Keep the adapter of order in this folder.")] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the numbers to this JSON file.")] = None,
) -> None:
    """Measure LoRA against zero-shot, linear probe and cache adapter, or a temporal transformer against pooling."""
    from vlfer.config import resource_dir, write_atomically
    from vlfer.training.finetune_config import load_finetune_config

    default = "quick_cpu" if part == "new-classes" else "video_temporal_bundled"
    file = config or resource_dir("configs") / f"{default}.yaml"
    few = ["data.validation=0"] if part == "new-classes" else []  # sixteen samples leave none to choose an epoch on
    settings = load_finetune_config(file, overrides=[f"backbone={backbone}", *few, *(override or [])])
    from vlfer.bench.finetune import bench_new_classes, bench_order

    if part == "order":
        rows, content = bench_order(archive, config=settings, pairs=pairs, save=save, say=say)
    else:
        names = [word.strip() for word in new.split(",")] if new else _left_out(backbone)
        rows, content = bench_new_classes(archive, config=settings, new=names, shots=shots, seeds=seeds, say=say)
    _print(rows)
    if out is not None:
        found = {"bench": "finetune", "part": part, "backbone": backbone, **content}
        found["measurements"] = [row.as_dict() for row in rows]
        write_atomically(out, (json.dumps(found, indent=2) + "\n").encode())
        say(f"Written: {out}")


def _left_out(backbone: str) -> list[str]:
    """Return the classes that a model was trained without, as its card says."""
    from vlfer.models.bundled import read_card
    from vlfer.models.registry import find_backbone

    spec = find_backbone(backbone)
    card = read_card(Path(spec.source) if spec.source else None) if spec.origin == "bundled" else {}
    found = card.get("recipe", {}).get("data", {}).get("leave_out")
    if not found:
        raise ConfigError(
            f"The backbone {backbone!r} was trained with every class.", why="A class is new if no training saw it.",
            fix="vlfer train-backbone CONFIG --set data.leave_out=fear, then --backbone bundled:FOLDER; or --new WORDS",
        )  # fmt: skip
    return [found] if isinstance(found, str) else list(found)


def _print(rows: list[Any]) -> None:
    from rich.table import Table

    from vlfer.cli.output import table_console

    table = Table("measured", "value", "bar", "", box=None, pad_edge=False, header_style="bold")
    for row in rows:
        bar = "" if row.bar is None else f"{'≥' if row.at_least else '≤'} {row.bar:g}"
        verdict = {True: "met", False: "missed", None: row.note}[row.is_met]
        table.add_row(row.name, f"{row.value:.3g} {row.unit}", bar, verdict)
    table_console().print(table)
