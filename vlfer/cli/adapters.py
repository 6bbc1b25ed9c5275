"""`vlfer adapters`: what is there, whether it is whole, and how it travels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from vlfer.cli.exits import SOME_FAILED, say
from vlfer.errors import ConfigError, VlferError

app = typer.Typer(help="Adapters: small folders that change a backbone.", no_args_is_help=True, rich_markup_mode=None)

Name = Annotated[str, typer.Argument(help="Folder of an adapter, or its name.", show_default=False)]


@app.callback()
def _root() -> None:
    """Adapters: small folders that change a backbone."""


@app.command("list")
def list_all(
    form: Annotated[Literal["table", "json"], typer.Option("--format", help="How to print.")] = "table",
) -> None:
    """List the adapters that come with vlfer and those that were pulled."""
    from vlfer.models.adapter import adapters_home, list_adapters, load_adapter

    rows: list[dict[str, Any]] = []
    for name, folder in list_adapters().items():
        row: dict[str, Any] = {"name": name, "folder": str(folder), "own": folder.parent == adapters_home()}
        try:
            adapter = load_adapter(folder)
            row |= {"kind": adapter.kind, "backbone": _backbone(adapter.card), "labels": _labels(adapter.card)}
        except VlferError as error:
            row |= {"kind": "damaged", "backbone": "", "labels": [], "error": error.message}
        rows.append(row)
    if form == "json":
        typer.echo(json.dumps(rows, indent=2))
        return
    from rich.table import Table

    from vlfer.cli.output import table_console

    table = Table("name", "kind", "backbone", "labels", "", box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(row["name"], row["kind"], row["backbone"], ", ".join(row["labels"]), "own" if row["own"] else "")
    table_console().print(table)


def _backbone(card: Any) -> str:
    return str(card["backbone"]["name"]) if "backbone" in card else str(card.get("text_space", "")).split("/")[0]


def _labels(card: Any) -> list[str]:
    return list(card.get("label_set", {}).get("labels", []))


@app.command()
def show(
    name: Name,
    form: Annotated[
        Literal["card", "json"], typer.Option("--format", help="The card for people, or all of it.")
    ] = "card",
) -> None:
    """Show the model card of an adapter."""
    from vlfer.models.adapter import README_NAME, load_adapter

    adapter = load_adapter(name)
    readme = adapter.folder / README_NAME
    if form == "json" or not readme.is_file():
        typer.echo(json.dumps(dict(adapter.card), indent=2, ensure_ascii=False))
    else:
        typer.echo(readme.read_text("utf-8"))


@app.command()
def verify(
    name: Name,
    backbone: Annotated[str | None, typer.Option(help="Also check that it fits this backbone.")] = None,
) -> None:
    """Check every file of an adapter against its card, and with --backbone that it fits."""
    from vlfer.models.adapter import FLOW_KIND, check_fits, load_adapter

    adapter = load_adapter(name)
    if backbone is not None:
        from vlfer.models.encoder import load_encoder

        encoder = load_encoder(backbone, device="cpu")
        if adapter.kind == FLOW_KIND:
            from vlfer.models.flow_encoder import load_flow_adapter

            load_flow_adapter(adapter.folder, space=encoder.space)
        else:
            check_fits(adapter, encoder)
            load_encoder(backbone, device="cpu", adapter=adapter.folder)
    typer.echo(f"{adapter.name} {adapter.kind} {adapter.sha256}")
    say("whole" if backbone is None else f"whole, and fits {backbone}")


@app.command()
def merge(
    name: Name,
    out: Annotated[Path, typer.Option(help="Folder of the merged model.")],
    backbone: Annotated[str | None, typer.Option(help="[that of the card]")] = None,
) -> None:
    """Write backbone and LoRA as one model folder, which loads as --backbone bundled:FOLDER, open_clip: or hf: do."""
    from vlfer.models.adapter import load_adapter
    from vlfer.models.merge import write_merged

    adapter = load_adapter(name)
    if adapter.kind != "lora":
        raise ConfigError(
            f"The adapter {adapter.name!r} is of the kind {adapter.kind}.", why="A plain model holds LoRA only.",
            fix="load it with --adapter, or train it with train.residual=false and no other part beside train.lora",
        )  # fmt: skip
    typer.echo(write_merged(adapter, out, backbone=backbone or _backbone(adapter.card)))


@app.command()
def pack(name: Name, out: Annotated[Path, typer.Option(help="The .zip file, or a folder for it.")] = Path()) -> None:
    """Write an adapter as one zip file for a colleague: vlfer adapters pull FILE."""
    from vlfer.models.adapter_share import pack_adapter

    typer.echo(pack_adapter(name, out))


@app.command()
def pull(
    source: Annotated[str, typer.Argument(help="A packed file, a folder, or ORG/NAME of the hub.")],
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite one of the same name.")] = False,
) -> None:
    """Take an adapter into your own, verified; afterwards it is known by its name."""
    from vlfer.models.adapter_share import pull_adapter

    adapter = pull_adapter(source, replace=replace)
    typer.echo(adapter.folder)
    say(f"Use it: --adapter {adapter.folder.name}")


@app.command()
def push(
    name: Name,
    repository: Annotated[str, typer.Argument(help="ORG/NAME of the hub.")],
    public: Annotated[bool, typer.Option("--public", help="Let everyone see it.")] = False,
) -> None:
    """Upload an adapter to the hub; private unless told otherwise."""
    from vlfer.models.adapter_share import push_adapter

    typer.echo(push_adapter(name, repository, private=not public))


@app.command()
def remove(name: Name, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False) -> None:
    """Delete one of your own adapters."""
    from vlfer.models.adapter_share import remove_adapter

    if not yes and not typer.confirm(f"Delete the adapter {name!r}?"):
        raise typer.Exit(SOME_FAILED)
    typer.echo(remove_adapter(name))
