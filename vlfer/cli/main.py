"""`vlfer`: the table of commands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from vlfer.cli import (
    adapters,
    backbones,
    bench,
    datasets,
    doctor,
    eval,
    eval_compare,
    eval_open,
    finetune,
    index,
    labels,
    mie,
    predict,
    prompts,
    serve,
    train_backbone,
    watch,
)
from vlfer.cli import app as web_app
from vlfer.cli.exits import ReportingGroup
from vlfer.memory import keep_freed_memory

app = typer.Typer(
    cls=ReportingGroup,
    name="vlfer",
    help="Tell which expression a face shows, in words of your choice. Perceived expression, not felt emotion.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help is printed in half the time
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

COMMANDS: dict[str, Callable[..., None]] = {
    "predict": predict.predict,
    "eval": eval.evaluate,
    "eval-compare": eval_compare.eval_compare,
    "eval-open": eval_open.eval_open,
    "serve": serve.serve,
    "train-backbone": train_backbone.train_backbone,
    "finetune": finetune.finetune,
    "app": web_app.app,
    "watch": watch.watch,
    "doctor": doctor.doctor,
}
GROUPS = {
    "labels": labels.app,
    "prompts": prompts.app,
    "backbones": backbones.app,
    "adapters": adapters.app,
    "datasets": datasets.app,
    "mie": mie.app,
    "index": index.app,
    "bench": bench.app,
}

for _name, _command in COMMANDS.items():
    app.command(_name)(_command)
for _name, _group in GROUPS.items():
    app.add_typer(_group, name=_name)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"vlfer {version('vlfer')}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Hold the options of `vlfer` itself; the docstring of the app is its help."""


def main() -> None:
    """Run `vlfer` as the program of this process."""
    keep_freed_memory()
    app(prog_name="vlfer")
