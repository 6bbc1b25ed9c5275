"""`vlfer eval`: a data set or a manifest to the field's figures."""

from __future__ import annotations

import contextlib
import functools
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vlfer.cli.exits import SOME_FAILED, goes_on, say
from vlfer.errors import ConfigError, EnvironmentProblem

if TYPE_CHECKING:
    from vlfer.evaluation.embed import EmbeddingStore
    from vlfer.evaluation.encode import Engine, Progress
    from vlfer.evaluation.manifest import Manifest
    from vlfer.evaluation.run import EvalConfig, Evaluation
    from vlfer.types import LabelSet

Form = Literal["table", "json", "csv"]
_SAY_EVERY_S = 20.0


def evaluate(
    name: Annotated[str, typer.Argument(help="A data set (see: vlfer datasets), or manifest.", show_default=False)],
    root: Annotated[Path | None, typer.Option(help="Folder of the data set, or of a manifest's media.")] = None,
    manifest: Annotated[Path | None, typer.Option(help="CSV: path,label[,fold][,subject][,start_s,end_s].")] = None,
    labels: Annotated[
        str | None,
        typer.Option("--labels", "--prompts", help="A shipped set, a YAML file, or words. [the data set's own]"),
    ] = None,
    backbone: Annotated[str | None, typer.Option(help="See: vlfer backbones list. [bundled]")] = None,
    adapter: Annotated[str | None, typer.Option(help="Folder or name of an adapter. See: vlfer adapters list.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps. [auto]")] = None,
    faces: Annotated[
        Literal["detect", "whole", "auto"] | None, typer.Option(help="Find faces, or take frames as faces. [auto]")
    ] = None,
    margin: Annotated[float | None, typer.Option(help="Extra around a face, as a share of its side. [0]")] = None,
    detector: Annotated[Literal["mediapipe", "yunet"] | None, typer.Option(help="[mediapipe]")] = None,
    detector_file: Annotated[str | None, typer.Option(help="Model file of YuNet.")] = None,
    sampling: Annotated[
        Literal["uniform", "dfer-clip", "exp-clip", "all"] | None, typer.Option(help="Frames of a clip. [uniform]")
    ] = None,
    frames: Annotated[int | None, typer.Option(help="How many frames of a clip. [16]")] = None,
    frame_pooling: Annotated[
        Literal["auto", "embeddings", "probabilities", "attention", "topk", "adapter"] | None,
        typer.Option(help="Frames to a clip. [the adapter's temporal model, else the mean of embeddings]"),
    ] = None,
    ensemble: Annotated[
        Literal["name", "templates", "descriptors", "all"] | None, typer.Option(help="Sentences per label. [all]")
    ] = None,
    pooling: Annotated[
        Literal["embeddings", "logits"] | None, typer.Option(help="How sentences are averaged. [embeddings]")
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="[that of backbone and ensemble]")] = None,
    reproduce: Annotated[
        str | None, typer.Option(help="Measure as published: exp-clip, dfer-clip, clip-benchmark.")
    ] = None,
    protocol: Annotated[
        Literal["auto", "all", "folds", "loso", "subject-kfold"] | None, typer.Option(help="[auto]")
    ] = None,
    fold: Annotated[str | None, typer.Option(help="One fold, or all. [all]")] = None,
    split: Annotated[str | None, typer.Option(help="train, val, test, all; auto takes test. [auto]")] = None,
    k: Annotated[int | None, typer.Option(help="Folds of subject-kfold. [5]")] = None,
    seed: Annotated[int | None, typer.Option(help="Of bootstrap and folds. [0]")] = None,
    bootstrap: Annotated[int | None, typer.Option(help="Bootstrap samples. [2000]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Faces through the tower at once. [32]")] = None,
    workers: Annotated[int | None, typer.Option(help="Decoding threads or processes, locally. [2]")] = None,
    decoders: Annotated[
        Literal["threads", "processes"] | None, typer.Option(help="Processes survive a crashing decoder. [threads]")
    ] = None,
    engine: Annotated[Literal["local", "ray"] | None, typer.Option(help="This machine, or a cluster. [local]")] = None,
    address: Annotated[str | None, typer.Option(help="Of a Ray cluster: auto, HOST:6379. [one is started]")] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of frame embeddings, shared by runs. [the user's cache]")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for report.json, predictions.csv, confusion.png ...")] = None,
    form: Annotated[Form, typer.Option("--format", help="How to print the report.")] = "table",
) -> None:
    """Measure a backbone and a set of words on a data set, zero-shot.

    WAR is accuracy, UAR the mean recall over the classes that occur. A row that cannot be read or shows no face is
    counted in `failed` and as an error of its class; it is never dropped. Frame embeddings are kept, so that other
    words, temperatures or poolings touch no pixel, and a run that was killed goes on where it stopped.

    Exit codes: 0 done, 1 some rows failed, 2 usage, 3 environment, 130 interrupted.
    """
    config = resolve_options(
        dataset=name, root=_text(root), manifest=_text(manifest), labels=labels, backbone=backbone, adapter=adapter,
        device=device, faces=faces, margin=margin, detector=detector, detector_file=detector_file, sampling=sampling,
        frames=frames, frame_pooling=frame_pooling, ensemble=ensemble, pooling=pooling, temperature=temperature,
        reproduce=reproduce, protocol=protocol, fold=fold, split=split, k=k, seed=seed, bootstrap=bootstrap,
        batch_size=batch_size, workers=workers, decoders=decoders, engine=engine, address=address,
    )  # fmt: skip
    if out is not None:
        claim_folder(out)
    with goes_on(cache):
        evaluation, report = _measure(config, cache=cache)
    try:  # neither a disk that is full by now nor a reader that left (| head) takes the figures along
        _print(report, form=form)
    finally:
        if out is not None:
            from vlfer.evaluation.report import write_report

            write_report(evaluation, out, report=report)
            say(f"Written: {out}")
    tell_failed(report["failed_rows"], n=evaluation.pooled.n)


def tell_failed(failed: Sequence[Mapping[str, str]], *, n: int) -> None:
    """Say how many of ``n`` rows failed, of what, and end with code 1 if any did."""
    if not failed:
        return
    kinds = ", ".join(f"{kind} {count}" for kind, count in Counter(row["error_type"] for row in failed).items())
    say(f"{len(failed)} of {n} rows failed and count as errors ({kinds}), the first:")
    say(f"  {failed[0]['message']}")
    raise typer.Exit(SOME_FAILED)


def claim_file(file: Path, *, option: str) -> None:
    """Make the folder of a file to be written before the work, not after.

    Raises:
        ConfigError: If it cannot be made or written, or the file is a folder.
    """
    if file.is_dir():
        raise ConfigError(f"{option} {str(file)!r} is a folder.", fix=f"{option} {file / 'FILE'}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=file.parent):
            pass
    except OSError as error:
        raise ConfigError(f"{option} {str(file)!r} cannot be written: {error}.", fix="another folder") from error


def claim_folder(folder: Path) -> None:
    """Make the folder of the report before hours of work, not after.

    Raises:
        ConfigError: If it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(f"--out {str(folder)!r} cannot be written: {error}.", fix="another folder") from error


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def resolve_options(**given: Any) -> EvalConfig:
    """Return the settings.

    Raises:
        ConfigError: If one is out of range, or contradicts another.
    """
    from pydantic import ValidationError

    from vlfer.evaluation.reproduce import resolve_config

    try:
        config = resolve_config(given)
    except ValidationError as error:
        mistakes = "; ".join(
            f"--{str(e['loc'][0]).replace('_', '-')} {e['input']!r}: {e['msg']}" for e in error.errors()
        )
        raise ConfigError(f"{mistakes}.", fix="vlfer eval --help") from error
    if config.dataset == "manifest":
        if config.manifest is None:
            raise ConfigError("No manifest is named.", fix="vlfer eval manifest --manifest FILE.csv")
    elif config.manifest is not None:
        raise ConfigError(f"--manifest was given for the data set {config.dataset!r}.", fix="vlfer eval manifest ...")
    elif config.root is None:
        raise ConfigError(
            f"The folder of {config.dataset!r} is not named.", fix=f"vlfer eval {config.dataset} --root DIR"
        )
    if given.get("k") is not None and config.protocol != "subject-kfold":
        raise ConfigError(
            f"--k {config.k} was given for the protocol {config.protocol!r}.", fix="--protocol subject-kfold"
        )
    if config.address is not None and config.engine != "ray":
        raise ConfigError(f"--address {config.address!r} was given for the local engine.", fix="--engine ray")
    return config


def load_rows(config: EvalConfig) -> tuple[Manifest, LabelSet]:
    """Return rows and classes; both are checked before a model is loaded."""
    from vlfer.evaluation.datasets import find_dataset
    from vlfer.evaluation.manifest import load_manifest
    from vlfer.text.labels import resolve_label_spec

    if config.dataset == "manifest":
        rows = load_manifest(str(config.manifest), root=config.root)
        return rows, resolve_label_spec(config.labels or _adapter_labels(config) or "ekman7")
    dataset = find_dataset(config.dataset)
    labels = resolve_label_spec(config.labels or dataset.labels)
    return dataset.read(Path(str(config.root)).expanduser()), labels


def _adapter_labels(config: EvalConfig) -> Path | None:
    if config.adapter is None:
        return None
    from vlfer.models.adapter import load_adapter

    return load_adapter(config.adapter).labels_file


def _measure(config: EvalConfig, *, cache: Path | None) -> tuple[Evaluation, dict[str, Any]]:
    from vlfer.evaluation.media import check_media
    from vlfer.evaluation.protocols import plan_test
    from vlfer.evaluation.reproduce import find_preset

    rows, labels = load_rows(config)
    plan = plan_test(rows, protocol=config.protocol, fold=config.fold, split=config.split, k=config.k, seed=config.seed)
    plan.manifest.label_indices(labels)
    check_media(plan.manifest)
    preset = find_preset(config.reproduce) if config.reproduce else None
    sentences = preset.sentences_of(labels) if preset else None

    from vlfer.calibration import default_temperature
    from vlfer.config import cache_dir
    from vlfer.evaluation.report import report_dict
    from vlfer.evaluation.run import describe_rows, embed_words
    from vlfer.evaluation.run import evaluate as run_evaluation
    from vlfer.faces.detect import build_detector
    from vlfer.provenance import build_provenance
    from vlfer.text.bank import TextBank

    say(f"{plan.manifest.name}: {describe_rows(plan.manifest)} ({plan.protocol})")
    for remark in plan.manifest.remarks:
        say(f"Note: {remark}")
    build = functools.partial(
        load_tower, config.backbone, adapter=config.adapter, device=config.device,
        raw_pixels=preset is not None and preset.raw_pixels,
    )  # fmt: skip
    encoder: Any = build()
    temperature = config.temperature or default_temperature(encoder, ensemble=config.ensemble)
    recipe = config.recipe(encoder.spec.image_size)
    make = functools.partial(build_detector, config.detector, model_file=config.detector_file)
    with open_store(cache) as store, show_progress() as progress:
        words = embed_words(
            labels, bank=TextBank(encoder, cache_dir=cache_dir()), ensemble=config.ensemble, sentences=sentences
        )
        evaluation = run_evaluation(
            plan, labels=labels, words=words, encoder=encoder, recipe=recipe, store=store, config=config,
            temperature=temperature, build_detector=make if recipe.needs_detector else None,
            build_encoder=remote(build) if config.engine == "ray" else None, engine=choose_engine(config),
            progress=progress,
        )  # fmt: skip
    provenance = build_provenance(
        encoder, temperature=temperature, labels=labels, config=config.model_dump(mode="json")
    )
    return evaluation, report_dict(evaluation, provenance=provenance, notes=(preset.note,) if preset else ())


def load_tower(backbone: str, *, device: str, raw_pixels: bool, adapter: str | None = None) -> Any:
    """Load the backbone of an evaluation; also called in Ray's actors."""
    from vlfer.evaluation.reproduce import raw_pixel_encoder
    from vlfer.models.encoder import load_encoder

    encoder = load_encoder(backbone, device=device, adapter=adapter)
    return raw_pixel_encoder(encoder) if raw_pixels else encoder


def remote(build: functools.partial[Any]) -> functools.partial[Any]:
    """Return a loader for actors: each sees the one GPU that it was given, whatever its number is here."""
    device = "cuda" if str(build.keywords["device"]).startswith("cuda") else build.keywords["device"]
    return functools.partial(build, device=device)


def choose_engine(config: EvalConfig) -> Engine:
    """Return who decodes and encodes."""
    if config.engine == "ray":
        from vlfer.batch.ray import RayEngine

        return RayEngine(address=config.address, gpus=config.device != "cpu")
    from vlfer.batch.local import LocalEngine

    return LocalEngine(workers=config.workers, decoders=config.decoders)


@contextmanager
def open_store(cache: Path | None) -> Iterator[EmbeddingStore]:
    """Open the embedding cache; where the user's own one cannot be written, a folder that lives as long as the run."""
    from vlfer.config import cache_dir
    from vlfer.evaluation.embed import EmbeddingStore

    if cache is not None:
        yield EmbeddingStore(cache)
        return
    with contextlib.ExitStack() as stack:
        try:
            store = EmbeddingStore(cache_dir() / "embeddings")
        except EnvironmentProblem as error:
            say(f"Warning: {error.what} Embeddings are kept for this run only.")
            store = EmbeddingStore(stack.enter_context(tempfile.TemporaryDirectory(prefix="vlfer-")))
        yield store


@contextmanager
def show_progress() -> Iterator[Progress]:
    """Yield a hook that shows progress on stderr: a bar on a terminal, a line now and then elsewhere."""
    began = last = time.monotonic()
    if not sys.stderr.isatty():

        def line(step: str, done: int, total: int) -> None:
            nonlocal last
            now = time.monotonic()
            if step == "encode" and (done == total or now - last > _SAY_EVERY_S):
                last = now
                rate = done / max(now - began, 1e-9)
                say(f"{done} of {total} rows done, {rate:.1f} a second, {(total - done) / rate:.0f} s left")

        yield line
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def bar(step: str, done: int, total: int) -> None:
            if step not in tasks:
                words = {"hash": "looking at the files", "encode": "reading and encoding"}
                tasks[step] = bars.add_task(words.get(step, step), total=total)
            bars.update(tasks[step], completed=done, total=total)

        yield bar


def _print(report: dict[str, Any], *, form: Form) -> None:
    from vlfer.evaluation.report import summary_rows

    if form == "json":
        typer.echo(json.dumps(report, indent=2, ensure_ascii=False))
        return
    header, *lines = summary_rows(report)
    if form == "csv":
        import csv

        csv.writer(sys.stdout, lineterminator="\n").writerows([header, *lines])
        return
    from rich.table import Table

    from vlfer.cli.output import table_console

    console = table_console()
    for title, rows in (("", [header, *lines]), ("per class", _class_rows(report))):
        table = Table(box=None, pad_edge=False, header_style="bold", title=title or None, title_justify="left")
        for i, cell in enumerate(rows[0]):
            table.add_column(cell, justify="left" if i == 0 else "right")
        for row in rows[1:]:
            table.add_row(*row)
        console.print(table)
    if report["absent"]:
        console.print(f"Without a row, and left out of the means: {', '.join(report['absent'])}", highlight=False)
    for note in report["notes"]:
        console.print(note, highlight=False)


def _class_rows(report: dict[str, Any]) -> list[list[str]]:
    def percent(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.2f}"

    rows = [["class", "n", "failed", "recall %", "precision %", "F1 %"]]
    for name, c in report["per_class"].items():
        rows.append([name, str(c["n"]), str(c["failed"]), *(percent(c[x]) for x in ("recall", "precision", "f1"))])
    return rows
