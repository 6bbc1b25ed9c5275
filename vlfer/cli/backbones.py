"""`vlfer backbones`: which towers there are."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import typer

app = typer.Typer(help="The image and text towers that can be used.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _root() -> None:
    """The image and text towers that can be used."""


@app.command("list")
def list_backbones(
    output: Annotated[Literal["table", "json"], typer.Option("--format", help="How to print.")] = "table",
) -> None:
    """List the backbones known by name; any other open_clip or transformers model works too."""
    from vlfer.models.registry import REGISTRY, backbone_names, find_backbone

    rows = [find_backbone(name) for name in backbone_names()]
    if output == "json":
        fields = ("name", "library", "origin", "image_size", "dimension", "licence", "note")
        typer.echo(json.dumps([{field: getattr(row, field) for field in fields} for row in rows], indent=2))
        return
    from rich.table import Table

    from vlfer.cli.output import table_console

    table = Table("name", "library", "pixels", "licence", "note", title=f"{len(REGISTRY)} by name, and bundled")
    for row in rows:
        note = row.note or ("Comes with vlfer; the default." if row.origin == "bundled" else "")
        licence = "Apache-2.0" if row.origin == "bundled" else row.licence
        table.add_row(row.name, row.library, str(row.image_size or "-"), licence, note)
    console = table_console()
    console.print(table)
    console.print("Others: open_clip:ARCH/TAG, open_clip:ARCH@FILE, hf:ORG/NAME, hf:FOLDER", highlight=False)
