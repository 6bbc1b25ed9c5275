"""`vlfer datasets`: which data sets are read, and whether a copy is complete."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vlfer.cli.exits import SOME_FAILED, say

if TYPE_CHECKING:
    from vlfer.evaluation.datasets import Check

app = typer.Typer(help="The data sets that are read as downloaded.", invoke_without_command=True)


@app.callback()
def list_datasets(
    context: typer.Context,
    form: Annotated[Literal["table", "json"], typer.Option("--format", help="How to print.")] = "table",
) -> None:
    """List the data sets that `vlfer eval` reads as downloaded, with the files they are known by."""
    if context.invoked_subcommand is not None:
        return
    from vlfer.evaluation.datasets import DATASETS

    if form == "json":
        fields = ("name", "title", "labels", "media", "layout", "protocol", "source", "verified", "unverified")
        rows = [{f: getattr(d, f) for f in fields} | {"published": dict(d.published)} for d in DATASETS.values()]
        typer.echo(json.dumps(rows, indent=2))
        return
    from rich.table import Table

    from vlfer.cli.output import table_console

    table = Table("name", "data set", "labels", box=None, pad_edge=False)
    for heading in ("known by", "protocol"):  # a name that is cut off is of no use to somebody who looks for a file
        table.add_column(heading, overflow="fold")
    for row in DATASETS.values():
        table.add_row(row.name, row.title, row.labels, "\n".join(row.layout), row.protocol)
    console = table_console()
    console.print(table)
    console.print(
        "Anything else: vlfer eval manifest --manifest FILE.csv (path,label[,fold][,subject])", highlight=False
    )


@app.command("check")
def check(
    name: Annotated[str, typer.Argument(help="See: vlfer datasets.", show_default=False)],
    root: Annotated[Path, typer.Argument(help="Its folder.", show_default=False)],
    manifest: Annotated[Path | None, typer.Option(help="Also write the rows to this CSV file.")] = None,
    form: Annotated[Literal["table", "json"], typer.Option("--format", help="How to print.")] = "table",
) -> None:
    """Compare a copy with the published counts and look for missing media.

    Exit codes: 0 complete, 1 something is missing or differs, 2 usage, 3 environment.
    """
    from vlfer.cli.eval import claim_file
    from vlfer.evaluation.datasets import check_dataset
    from vlfer.evaluation.manifest import save_manifest

    if manifest is not None:
        claim_file(manifest, option="--manifest")
    result = check_dataset(name, root)
    if manifest is not None:
        save_manifest(result.manifest, manifest)
    if form == "json":
        counts = {part: {"published": p, "found": f} for part, (p, f) in result.counts.items()}
        typer.echo(
            json.dumps(
                {
                    "dataset": result.manifest.name, "n": len(result.manifest), "complete": result.is_complete,
                    "counts": counts, "verified": result.dataset.verified, "unverified": result.dataset.unverified,
                    "labels": result.labels, "missing": list(result.missing),
                    "notes": list(result.manifest.remarks),
                },
                indent=2, ensure_ascii=False,
            )
        )  # fmt: skip
    else:
        _print_check(result)
    if not result.is_complete:
        raise typer.Exit(SOME_FAILED)


def _print_check(result: Check) -> None:
    from rich.table import Table

    from vlfer.cli.output import table_console

    table = Table("part", "published", "found", "", box=None, pad_edge=False)
    for part, (published, found) in result.counts.items():
        table.add_row(part, str(published), str(found), "" if published == found else "[red]differs[/red]")
    console = table_console()
    console.print(f"{result.manifest.name}: {len(result.manifest)} rows", highlight=False)
    if result.counts:
        console.print(table)
    else:
        console.print("There is no count to compare with.", highlight=False)
    for title, text in (("Verified", result.dataset.verified), ("Not verified", result.dataset.unverified)):
        if text:
            console.print(f"{title}: {text}", highlight=False)
    labels = ", ".join(f"{label} {count}" for label, count in result.labels.items())
    console.print(f"Labels: {labels}", highlight=False)
    for note in result.manifest.remarks:
        console.print(note, highlight=False)
    if result.missing:
        say(f"{len(result.missing)} media are listed and not there, for example {result.missing[0]}")
