"""`vlfer train-backbone`: train a bundled backbone from a recipe."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from vlfer.cli.exits import goes_on, say

_SAY_EVERY_S = 20.0


def train_backbone(
    recipe: Annotated[Path, typer.Argument(help="YAML recipe, such as configs/bundled.yaml.")],
    out: Annotated[Path, typer.Option(help="Run folder; the same command resumes a stopped run.")] = Path(
        "runs/backbone"
    ),
    override: Annotated[
        list[str] | None, typer.Option("--set", help="Change a key, such as image.epochs=2. Repeatable.")
    ] = None,
    install: Annotated[
        bool, typer.Option("--install", help="Put the result into the package as the default backbone.")
    ] = False,
) -> None:
    """Train the image tower, the text tower and their alignment; hold out by image content; write weights and card."""
    import json
    import logging
    import shutil

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from vlfer.models.bundled import BUNDLED_DIR, read_card
    from vlfer.training.backbone import train_backbone as train
    from vlfer.training.recipe import load_recipe

    settings = load_recipe(recipe, overrides=override or [])
    out.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", filename=str(out / "log.txt"))
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"),
        TimeRemainingColumn(), console=console, disable=not console.is_terminal,
    ) as bar:  # fmt: skip
        task = bar.add_task("starting", total=1)
        last_said = 0.0

        def show(message: str, done: int, total: int) -> None:
            nonlocal last_said
            bar.update(task, description=message, completed=done, total=total)
            if not console.is_terminal and time.monotonic() - last_said > _SAY_EVERY_S:
                last_said = time.monotonic()
                say(f"{message}, {done}/{total}")

        with goes_on(out):
            folder = train(settings, out, hook=show)
    if install:
        shutil.copytree(folder, BUNDLED_DIR, dirs_exist_ok=True)
        say(f"installed in {BUNDLED_DIR}")
    typer.echo(json.dumps(read_card(folder)["figures"], indent=2))
    say(f"try it: vlfer predict --sample --backbone bundled:{folder}")
