"""`vlfer finetune`: adapt a backbone to one's own faces and words."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vlfer.cli.exits import goes_on, say

if TYPE_CHECKING:
    from vlfer.training.finetune_run import Outcome

_SAY_EVERY_S = 15.0
_SHOWN_SKIPPED = 10


def finetune(
    config: Annotated[Path, typer.Argument(help="YAML configuration, such as configs/quick_cpu.yaml.")],
    override: Annotated[
        list[str] | None, typer.Option("--set", help="Change a key: data.root=faces, train.lora.rank=8. Repeatable.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; the same command goes on. [runs/finetune/NAME]")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved configuration and stop.")] = False,
    form: Annotated[Literal["table", "json"], typer.Option("--format", help="How to print the figures.")] = "table",
) -> None:
    """Adapt a backbone to your labels and your data, and write a small adapter folder with its model card.

    A run that was stopped, also by Ctrl-C, goes on where it was when the same command is given again. On several GPUs:
    accelerate launch -m vlfer.cli finetune CONFIG. Several processes without GPUs: torchrun in its place.
    """
    from vlfer.training.finetune_config import load_finetune_config

    settings = load_finetune_config(config, overrides=override or [])
    if dry_run:
        typer.echo(settings.model_dump_json(indent=2))
        return
    folder = out or Path("runs/finetune") / settings.name
    outcome = _run(settings, folder)
    if not _is_first():
        return
    if form == "json":
        typer.echo(json.dumps({"adapter": str(outcome.adapter.folder), "sha256": outcome.adapter.sha256,
                               "figures": outcome.figures}, indent=2))  # fmt: skip
    else:
        _print(outcome)
    use = "vlfer mie recognize CLIP" if settings.input == "flow" else "vlfer predict PHOTO"
    say(f"Try it: {use} --adapter {outcome.adapter.folder}")


def _run(settings: Any, folder: Path) -> Outcome:
    from vlfer.cli.finetune_data import read_samples

    size = 28 if settings.input == "flow" else _image_size(settings)
    with _progress() as show:
        train, test = read_samples(settings, image_size=size, folder=folder, hook=show)
        if _is_first():
            _tell_skipped(train, test)
            say(f"{len(train)} samples: " + ", ".join(f"{name} {count}" for name, count in train.counts.items()))
        if settings.input == "flow":
            from vlfer.training.finetune_flow import finetune_flow as tune
        else:
            from vlfer.training.finetune_run import finetune as tune
        with goes_on(folder):
            return tune(settings, train, test, folder=folder, hook=show)


def _is_first() -> bool:
    """Return whether this process is the one that speaks: `accelerate launch` numbers them in RANK."""
    return os.environ.get("RANK", "0") == "0"


def _image_size(settings: Any) -> int:
    from vlfer.models.encoder import load_encoder
    from vlfer.models.registry import find_backbone

    spec = find_backbone(settings.backbone)
    return spec.image_size or load_encoder(settings.backbone, device="cpu").spec.image_size


def _tell_skipped(*parts: Any) -> None:
    skipped = [one for part in parts if part is not None for one in part.skipped]
    if skipped:
        say(f"Skipped {len(skipped)} samples that cannot be used:")
        for one in skipped[:_SHOWN_SKIPPED]:
            say(f"  {one.source}: {one.reason}")
        if len(skipped) > _SHOWN_SKIPPED:
            say(f"  and {len(skipped) - _SHOWN_SKIPPED} more, all in the adapter's card")


class _progress:  # noqa: N801, used as a function
    """Show progress on stderr: a bar on a terminal, a line now and then elsewhere."""

    def __enter__(self) -> _progress:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.console = Console(stderr=True)
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"),
            TimeRemainingColumn(), console=self.console, disable=not (self.console.is_terminal and _is_first()),
        )  # fmt: skip
        self.bar.start()
        self.task = self.bar.add_task("starting", total=1)
        self.last = time.monotonic()
        return self

    def __call__(self, message: str, done: int, total: int) -> None:
        """Show how far a step has come."""
        self.bar.update(self.task, description=message, completed=done, total=total)
        if not self.console.is_terminal and _is_first() and time.monotonic() - self.last > _SAY_EVERY_S:
            self.last = time.monotonic()
            say(f"{message}, {done}/{total}")

    def __exit__(self, *_: object) -> None:
        self.bar.stop()


def _print(outcome: Outcome) -> None:
    from rich.table import Table

    from vlfer.cli.output import table_console

    table = Table("part", "n", "", "WAR", "UAR", "UF1", box=None, pad_edge=False, header_style="bold")
    for part, both in outcome.figures.items():
        for when in ("before", "after"):
            row = both[when]
            cells = ["-" if row[key] is None else f"{100 * row[key]:.1f}" for key in ("war", "uar", "uf1")]
            table.add_row(part, str(row["n"]), when, *cells)
    table_console().print(table)
    say(f"Written: {outcome.adapter.folder} ({outcome.adapter.sha256[:16]})")
