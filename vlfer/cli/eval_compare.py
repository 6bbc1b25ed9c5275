"""`vlfer eval-compare`: whether one evaluation is better than another by more than chance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vlfer.cli.exits import say

if TYPE_CHECKING:
    from vlfer.evaluation.significance import PairedTest


def eval_compare(
    run_a: Annotated[Path, typer.Argument(help="Folder that vlfer eval --out wrote.", show_default=False)],
    run_b: Annotated[Path, typer.Argument(help="Another one, over the same samples.", show_default=False)],
    bootstrap: Annotated[int, typer.Option(help="Bootstrap samples.", min=100, max=1_000_000)] = 10_000,
    level: Annotated[float, typer.Option(help="Of the intervals.", min=0.5, max=0.999)] = 0.95,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.", min=0)] = 0,
    out: Annotated[Path | None, typer.Option(help="Also write the comparison to this JSON file.")] = None,
    form: Annotated[Literal["table", "json"], typer.Option("--format", help="How to print.")] = "table",
) -> None:
    """Test two runs of `vlfer eval` over the same samples against one another.

    Reports the difference A minus B of WAR, UAR and UF1 with its paired bootstrap interval and p-value, and the exact
    McNemar test on the rows that only one of them has right. Failed rows count as errors, as in the runs themselves.
    Runs over other samples, other classes or other true labels are refused.
    """
    from vlfer.evaluation.paired import compare, load_run

    a, b = load_run(run_a), load_run(run_b)
    test = compare(a, b, level=level, samples=bootstrap, seed=seed)
    about = {"a": a.about(), "b": b.about()}
    text = json.dumps({**about, "level": level, "unit": "fraction", **test.as_dict()}, indent=2, ensure_ascii=False)
    if out is not None:
        from vlfer.config import write_atomically

        write_atomically(out, f"{text}\n".encode())
        say(f"Written: {out}")
    if form == "json":
        typer.echo(text)
    else:
        _print(about, test, level=level)


def _print(about: dict[str, dict[str, Any]], test: PairedTest, *, level: float) -> None:
    from rich.table import Table

    from vlfer.cli.output import table_console

    console = table_console()
    for name, run in about.items():
        tower = f"{run['backbone']} with {run['adapter']}" if run["adapter"] else run["backbone"]
        console.print(f"{name.upper()}: {run['run']} ({tower}, {run['label_set']})", highlight=False, markup=False)
    table = Table("", "A %", "B %", "A - B", f"{100 * level:g} % interval", "p", box=None, pad_edge=False)
    for figure, difference in test.difference.items():
        low, high = test.interval[figure]
        table.add_row(
            figure.upper(), f"{100 * test.a[figure]:.2f}", f"{100 * test.b[figure]:.2f}", f"{100 * difference:+.2f}",
            f"{100 * low:+.2f} to {100 * high:+.2f}", _p(test.bootstrap_p[figure], least=test.least_p),
        )  # fmt: skip
    console.print(table)
    how = f"mean of {test.folds} folds" if test.folds else "all rows"
    console.print(
        f"{test.n} samples, {how}. Only A is right on {test.only_a}, only B on {test.only_b}: "
        f"exact McNemar p {_p(test.mcnemar_p)}.",
        highlight=False,
    )


def _p(value: float, *, least: float = 0.0) -> str:
    if value <= least:
        return f"<= {least:.2g}"
    return f"{value:.2g}" if value < 0.001 else f"{value:.3f}"
