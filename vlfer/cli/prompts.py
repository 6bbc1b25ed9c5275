"""`vlfer prompts`: words that work: written, checked and compared."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vlfer.cli import prompts_check, prompts_faces, prompts_generate
from vlfer.cli.exits import goes_on, say
from vlfer.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from vlfer.evaluation.compare import Comparison
    from vlfer.evaluation.run import EvalConfig

app = typer.Typer(help="Write, check and compare the words behind labels.", no_args_is_help=True)
app.command("generate")(prompts_generate.generate)
app.command("check")(prompts_check.check)
app.command("reference")(prompts_faces.reference)
app.command("weigh")(prompts_faces.weigh)

_ENSEMBLES = ("name", "templates", "descriptors", "all", "dynamics", "definitions", "contrast", "parts")
_COMPARED = _ENSEMBLES[:4]


@app.callback()
def _group() -> None:
    """Write, check and compare the words behind labels."""


@app.command("compare")
def compare(
    name: Annotated[str, typer.Argument(help="A data set (see: vlfer datasets), or manifest.", show_default=False)],
    sets: Annotated[str, typer.Option(help="Label sets, joined by commas: shipped names or YAML files.")],
    root: Annotated[Path | None, typer.Option(help="Folder of the data set, or of a manifest's media.")] = None,
    manifest: Annotated[Path | None, typer.Option(help="CSV: path,label[,fold][,subject][,split].")] = None,
    ensembles: Annotated[str, typer.Option(help=f"Sentences per label, of: {', '.join(_ENSEMBLES)}.")] = ",".join(
        _COMPARED
    ),
    priors: Annotated[str, typer.Option(help="Strengths of the prior correction.")] = "0,0.5,1",
    by: Annotated[Literal["war", "uar", "uf1"], typer.Option(help="The figure that decides.")] = "uar",
    fold: Annotated[str, typer.Option(help="One fold, or all.")] = "all",
    backbone: Annotated[str | None, typer.Option(help="See: vlfer backbones list. [bundled]")] = None,
    adapter: Annotated[str | None, typer.Option(help="Folder or name of an adapter.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps. [auto]")] = None,
    faces: Annotated[
        Literal["detect", "whole", "auto"] | None, typer.Option(help="Find faces, or take frames as faces. [auto]")
    ] = None,
    sampling: Annotated[
        Literal["uniform", "dfer-clip", "exp-clip", "all"] | None, typer.Option(help="Frames of a clip. [uniform]")
    ] = None,
    frames: Annotated[int | None, typer.Option(help="How many frames of a clip. [16]")] = None,
    pooling: Annotated[
        Literal["embeddings", "logits"] | None, typer.Option(help="How sentences are averaged. [embeddings]")
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="[that of backbone and ensemble]")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the division and the bootstrap. [0]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Faces through the tower at once. [32]")] = None,
    workers: Annotated[int | None, typer.Option(help="Decoding threads. [2]")] = None,
    engine: Annotated[Literal["local", "ray"] | None, typer.Option(help="This machine, or a cluster. [local]")] = None,
    address: Annotated[str | None, typer.Option(help="Of a Ray cluster: auto, HOST:6379. [one is started]")] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder of frame embeddings. [the user's cache]")] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the comparison to this JSON file.")] = None,
    form: Annotated[Literal["table", "json"], typer.Option("--format", help="How to print.")] = "table",
) -> None:
    """Rank label sets, ensembles and prior corrections on training rows; report the best on the test rows, once.

    Rows for choosing are the training part of each fold, else the official training split, else half of the subjects
    or files. Once embeddings are stored no pixel is touched: other words take seconds. Failed rows count as errors.

    Exit codes: 0 done, 1 some rows failed, 2 usage, 3 environment, 130 interrupted.
    """
    from vlfer.cli.eval import claim_file, resolve_options, tell_failed
    from vlfer.evaluation.compare import check_priors

    config = resolve_options(
        dataset=name, root=None if root is None else str(root), manifest=None if manifest is None else str(manifest),
        backbone=backbone, adapter=adapter, device=device, faces=faces, sampling=sampling, frames=frames, fold=fold,
        pooling=pooling, temperature=temperature, seed=seed, batch_size=batch_size, workers=workers, engine=engine,
        address=address,
    )  # fmt: skip
    names = [spec.strip() for spec in sets.split(",") if spec.strip()]
    chosen = [kind.strip() for kind in ensembles.split(",") if kind.strip()]
    for kind in chosen:
        if kind not in _ENSEMBLES:
            raise ConfigError(
                f"The ensemble {kind!r} is unknown.", why=did_you_mean(kind, _ENSEMBLES), fix=", ".join(_ENSEMBLES)
            )
    if not chosen:
        raise ConfigError("No ensemble is named.", fix=f"--ensembles {','.join(_COMPARED)}")
    strengths = _numbers(priors)
    check_priors(strengths)
    if out is not None:
        claim_file(out, option="--out")
    with goes_on(cache):
        comparison, about = _compare(config, names, ensembles=chosen, priors=strengths, by=by, cache=cache)
    report = {**comparison.as_dict(), **about}
    text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
    try:  # neither a disk that is full by now nor a reader that left (| head) takes the figures along
        if form == "json":
            typer.echo(text, nl=False)
        else:
            _print(comparison)
    finally:
        if out is not None:
            from vlfer.config import write_atomically

            write_atomically(out, text.encode())
            say(f"Written: {out}")
    tell_failed(about["failed_rows"], n=about["n"])


def _numbers(text: str) -> list[float]:
    """Return numbers joined by commas.

    Raises:
        ConfigError: If one is none.
    """
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise ConfigError(f"--priors {text!r}: {error}.", fix="--priors 0,0.5,1") from error


def _compare(
    config: EvalConfig, sets: Sequence[str], *, ensembles: Sequence[str], priors: Sequence[float], by: Any,
    cache: Path | None,
) -> tuple[Comparison, dict[str, Any]]:  # fmt: skip
    """Encode what is not stored, embed every wording, and compare."""
    from vlfer.cli.eval import load_rows
    from vlfer.evaluation.compare import check_same_classes
    from vlfer.evaluation.media import check_media
    from vlfer.text.labels import load_label_set

    label_sets = [load_label_set(spec) for spec in sets]
    if not label_sets:
        raise ConfigError("No label set is named.", fix="--sets ferplus8,affectnet8")
    if len({labels.name for labels in label_sets}) < len(label_sets):
        raise ConfigError(f"Two of the label sets {', '.join(sets)} have the same name.", fix="name them apart")
    rows, _ = load_rows(config.model_copy(update={"labels": sets[0]}))
    check_same_classes(rows, label_sets)
    check_media(rows)

    from vlfer.calibration import default_temperature
    from vlfer.cli.eval import choose_engine, load_tower, open_store, remote, show_progress
    from vlfer.config import cache_dir
    from vlfer.evaluation.compare import Wording, compare_wordings, divide
    from vlfer.evaluation.encode import encode_rows
    from vlfer.evaluation.report import failed_rows
    from vlfer.evaluation.run import choose_pool, describe_rows, embed_words
    from vlfer.faces.detect import build_detector
    from vlfer.text.bank import TextBank

    say(f"{rows.name}: {describe_rows(rows)}")
    for remark in rows.remarks:
        say(f"Note: {remark}")
    build = functools.partial(
        load_tower, config.backbone, adapter=config.adapter, device=config.device, raw_pixels=False
    )
    encoder = build()
    recipe = config.recipe(encoder.spec.image_size)
    make = functools.partial(build_detector, config.detector, model_file=config.detector_file)
    bank = TextBank(encoder, cache_dir=cache_dir())
    with open_store(cache) as store, show_progress() as progress:
        divisions, how = divide(rows, contents=store.content_ids(rows.rows), fold=config.fold, seed=config.seed)
        encoded = encode_rows(
            rows.rows, encoder=encoder, recipe=recipe, store=store, batch_size=config.batch_size,
            build_detector=make if recipe.needs_detector else None, engine=choose_engine(config),
            build_encoder=remote(build) if config.engine == "ray" else None, progress=progress,
        )  # fmt: skip
        wordings = [
            Wording(
                labels.name,
                kind,
                labels,
                embed_words(labels, bank=bank, ensemble=kind),  # type: ignore[arg-type]
                config.temperature or default_temperature(encoder, ensemble=kind),
            )
            for labels in label_sets
            for kind in ensembles
        ]
        comparison = compare_wordings(
            rows, encoded.places, store=store, space=encoder.space, wordings=wordings, priors=priors, by=by,
            divisions=divisions, division=how,
            pooling=config.pooling, pool=choose_pool(config.frame_pooling, encoder), seed=config.seed,
        )  # fmt: skip
    about = {
        "dataset": rows.name, "n": len(rows), "notes": list(rows.remarks), "manifest_sha256": rows.sha256,
        "space": encoder.space,
        "labels_sha256": {labels.name: labels.sha256 for labels in label_sets},
        "embeddings": {"from_cache": encoded.from_cache, "encoded": encoded.encoded},
        "failed_rows": failed_rows(rows.rows, encoded.places),
        "config": config.model_dump(mode="json"),
    }  # fmt: skip
    return comparison, about


def _print(comparison: Comparison) -> None:
    from rich.table import Table

    from vlfer.cli.output import table_console

    def percent(value: float) -> str:
        return f"{100 * value:.2f}"

    table = Table("label set", "ensemble", "prior", box=None, pad_edge=False, header_style="bold")
    for figure in ("WAR %", "UAR %", "UF1 %"):
        table.add_column(figure, justify="right")
    for one in comparison.ranking:
        values = [percent(value) for value in (one.war, one.uar, one.uf1)]
        table.add_row(one.set_name, one.ensemble, f"{one.prior:g}", *values)
    console = table_console()
    console.print(f"Ranking by {comparison.by.upper()}, {comparison.division}:", highlight=False)
    console.print(table)
    for name, one in comparison.chosen.items():
        where = f" for fold {name}" if name else ""
        console.print(f"Chosen{where}: {one.set_name}, {one.ensemble}, prior {one.prior:g}", highlight=False)
    figures = [f"{n.upper()} {percent(comparison.headline[n])} ({percent(comparison.interval[n][0])} to "
               f"{percent(comparison.interval[n][1])})" for n in ("war", "uar", "uf1")]  # fmt: skip
    console.print(f"On the test rows: {', '.join(figures)}", highlight=False)
