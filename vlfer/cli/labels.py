"""`vlfer labels`: which label sets there are, and what they say."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated, Literal

import typer

app = typer.Typer(help="The label sets that come with vlfer.", no_args_is_help=True, rich_markup_mode=None)

Output = Annotated[Literal["table", "json"], typer.Option("--format", help="How to print.")]


@app.callback()
def _root() -> None:
    """The label sets that come with vlfer, and your own."""


@app.command("list")
def list_sets(output: Output = "table") -> None:
    """List the shipped label sets."""
    from vlfer.text.labels import load_label_set, shipped_sets

    sets = [load_label_set(name) for name in shipped_sets()]
    if output == "json":
        rows = [{"name": s.name, "labels": list(s.names), "origin": s.origin, "sha256": s.sha256} for s in sets]
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    from rich.table import Table

    from vlfer.cli.output import table_console

    table = Table("set", "size", "labels")
    for label_set in sets:
        names = label_set.names
        shown = ", ".join(names[:12]) + (f", and {len(names) - 12} more" if len(names) > 12 else "")
        table.add_row(label_set.name, str(len(names)), shown)
    table_console().print(table)


@app.command("show")
def show_set(
    spec: Annotated[str, typer.Argument(help='A shipped set, a YAML file, or words: "awe, polite smile".')],
    output: Output = "table",
) -> None:
    """Show each label of a set with the sentences that stand for it."""
    from vlfer.text.labels import resolve_label_spec

    label_set = resolve_label_spec(spec)
    if output == "json":
        row = {"name": label_set.name, "origin": label_set.origin, "sha256": label_set.sha256}
        labels = [dataclasses.asdict(label) for label in label_set.labels]
        typer.echo(json.dumps({**row, "labels": labels}, indent=2, ensure_ascii=False))
        return
    from rich.markup import escape

    from vlfer.cli.output import table_console

    console = table_console()
    console.print(f"[bold]{escape(label_set.name)}[/bold]: {len(label_set)} labels. {escape(label_set.origin)}")
    for label in label_set.labels:
        console.print(f"\n[bold]{escape(label.name)}[/bold]", highlight=False)
        parts = {
            "mixture of": label.parts,
            "synonyms": label.synonyms,
            "action units": label.action_units,
            "spoken against by": label.negatives,
        }
        for heading, words in parts.items():
            if words:
                console.print(f"  {heading}: {escape(', '.join(words))}", highlight=False)
        for sentence in label.descriptors:
            console.print(f"  - {escape(sentence)}", highlight=False)
