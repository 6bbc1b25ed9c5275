"""`vlfer eval-open`: free words against free words."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vlfer.cli.exits import SOME_FAILED, say

if TYPE_CHECKING:
    from vlfer.evaluation.open_words import OpenEvaluation
    from vlfer.evaluation.run import EvalConfig


def eval_open(
    manifest: Annotated[Path, typer.Option(help="CSV: path,label; a label is one word or several joined by |.")],
    root: Annotated[Path | None, typer.Option(help="Folder of the media.")] = None,
    labels: Annotated[
        str,
        typer.Option("--labels", "--prompts", help="The words that may be said: a shipped set, a YAML file, words."),
    ] = "open",
    backbone: Annotated[str | None, typer.Option(help="See: vlfer backbones list. [bundled]")] = None,
    adapter: Annotated[str | None, typer.Option(help="Folder or name of an adapter.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps. [auto]")] = None,
    faces: Annotated[
        Literal["detect", "whole", "auto"] | None, typer.Option(help="Find faces, or take frames as faces. [auto]")
    ] = None,
    frames: Annotated[int | None, typer.Option(help="How many frames of a clip. [16]")] = None,
    most: Annotated[int, typer.Option(help="Words of a row at most.", min=1)] = 3,
    cache: Annotated[Path | None, typer.Option(help="Folder of frame embeddings. [the user's cache]")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for report.json and predictions.csv.")] = None,
    form: Annotated[Literal["table", "json"], typer.Option("--format", help="How to print.")] = "table",
) -> None:
    """Measure open-vocabulary answers: F of the sectors of an emotion wheel, as OV-MER does.

    Of each row the most probable word is said, and those at least half as probable. Words count by the sector of the
    wheel that they fall in; a word that the wheel does not hold is a sector of its own and is listed. Failed rows count
    as 0.

    Exit codes: 0 done, 1 some rows failed, 2 usage, 3 environment.
    """
    from vlfer.cli.eval import claim_folder, resolve_options

    config = resolve_options(
        dataset="manifest", manifest=str(manifest), root=None if root is None else str(root), labels=labels,
        backbone=backbone, adapter=adapter, device=device, faces=faces, frames=frames,
    )  # fmt: skip
    if out is not None:
        claim_folder(out)
    evaluation, provenance = _measure(config, most=most, cache=cache)
    report = {**evaluation.as_dict(), "provenance": provenance}
    text = json.dumps(report, indent=2, ensure_ascii=False)
    if form == "json":
        typer.echo(text)
    else:
        f = evaluation.figures
        typer.echo(f"F {100 * f.f1:.2f} %, precision {100 * f.precision:.2f} %, recall {100 * f.recall:.2f} %")
        typer.echo(f"{f.n} rows, {evaluation.failed} failed; not on the wheel: {', '.join(f.unknown) or 'none'}")
    if out is not None:
        from vlfer.config import write_atomically

        write_atomically(out / "report.json", f"{text}\n".encode())
        write_atomically(out / "predictions.csv", evaluation.predictions_csv().encode())
        say(f"Written: {out}")
    if evaluation.failed:
        say(f"{evaluation.failed} rows failed, the first: {report['failed_rows'][0]['message']}")
        raise typer.Exit(SOME_FAILED)


def _measure(config: EvalConfig, *, most: int, cache: Path | None) -> tuple[OpenEvaluation, Any]:
    from vlfer.evaluation.manifest import load_manifest
    from vlfer.evaluation.media import check_media
    from vlfer.text.labels import resolve_label_spec

    rows = load_manifest(str(config.manifest), root=config.root)
    check_media(rows)
    label_set = resolve_label_spec(str(config.labels))

    from vlfer.calibration import default_temperature
    from vlfer.cli.eval import choose_engine, load_tower, open_store, show_progress
    from vlfer.config import cache_dir
    from vlfer.evaluation.open_words import evaluate_open
    from vlfer.evaluation.run import embed_words
    from vlfer.faces.detect import build_detector
    from vlfer.provenance import build_provenance
    from vlfer.text.bank import TextBank

    encoder = load_tower(config.backbone, adapter=config.adapter, device=config.device, raw_pixels=False)
    temperature = default_temperature(encoder, ensemble=config.ensemble)
    recipe = config.recipe(encoder.spec.image_size)
    make = functools.partial(build_detector, config.detector) if recipe.needs_detector else None
    with open_store(cache) as store, show_progress() as progress:
        words = embed_words(label_set, bank=TextBank(encoder, cache_dir=cache_dir()), ensemble=config.ensemble)
        evaluation = evaluate_open(
            rows, labels=label_set, words=words, encoder=encoder, recipe=recipe, store=store, config=config,
            temperature=temperature, most=most, build_detector=make, engine=choose_engine(config),
            progress=progress,
        )  # fmt: skip
    settings = {**config.model_dump(mode="json"), "most": most}
    return evaluation, build_provenance(encoder, temperature=temperature, labels=label_set, config=settings)
