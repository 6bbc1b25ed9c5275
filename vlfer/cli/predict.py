"""`vlfer predict`: images, videos and folders to a table, JSON, CSV and pictures."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vlfer.cli import predict_explain
from vlfer.cli.exits import DONE, INTERRUPTED, SOME_FAILED, USAGE, say
from vlfer.cli.progress import progress
from vlfer.errors import BackboneError, ConfigError, VlferError

if TYPE_CHECKING:
    from vlfer.cli.predict_video import VideoFiles
    from vlfer.config import PredictConfig
    from vlfer.pipeline import Hook
    from vlfer.reporting import Analysis
    from vlfer.types import Report

Form = Literal["table", "json", "csv"]
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".pdf", ".svg", ".webp")
SAMPLE = "astronaut.jpg (sample)"


def predict(
    paths: Annotated[
        list[str] | None, typer.Argument(help="Images, videos, folders, globs.", show_default=False)
    ] = None,
    sample: Annotated[bool, typer.Option("--sample", help="Try it on the portrait that comes with vlfer.")] = False,
    labels: Annotated[
        str | None, typer.Option(help='A shipped set, a YAML file, or words: "awe, polite smile". [ekman7]')
    ] = None,
    faces: Annotated[
        Literal["detect", "whole", "auto"] | None,
        typer.Option(help="Find faces, or take each image as one face. [auto]"),
    ] = None,
    margin: Annotated[float | None, typer.Option(help="Extra around a face, as a share of its side. [0]")] = None,
    backbone: Annotated[str | None, typer.Option(help="See: vlfer backbones list. [bundled]")] = None,
    adapter: Annotated[
        str | None, typer.Option(help="Folder or name of an adapter; brings its labels. See: vlfer adapters list.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps. [auto]")] = None,
    top: Annotated[int | None, typer.Option(help="Labels listed per face. [5]")] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Abstain below this probability. [2 / (number of labels + 1)]")
    ] = None,
    fps: Annotated[float | None, typer.Option(help="Frames looked at per second of video. [8]")] = None,
    window: Annotated[float | None, typer.Option(help="Seconds averaged over in a video. [1.0]")] = None,
    hop: Annotated[float | None, typer.Option(help="Shortest segment of a video in seconds. [0.25]")] = None,
    start: Annotated[float | None, typer.Option(help="Of a video, from this second on. [0]")] = None,
    end: Annotated[float | None, typer.Option(help="Of a video, up to this second.")] = None,
    temporal: Annotated[
        Literal["mean", "attention", "topk", "ema", "adapter"] | None,
        typer.Option(help="How the frames of a window become one. [the adapter's, else mean]"),
    ] = None,
    write: Annotated[
        str | None,
        typer.Option(
            help="Files for each video in the --out folder: frames, parquet, segments, srt, vtt, elan, summary, "
            "timeline, video (annotated), or all. [frames,segments,srt,summary,timeline]"
        ),
    ] = None,
    detector: Annotated[
        Literal["mediapipe", "yunet"] | None, typer.Option(help="What finds faces. [mediapipe]")
    ] = None,
    detector_file: Annotated[str | None, typer.Option(help="Model file of YuNet.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings; flags win over it.")] = None,
    form: Annotated[Form | None, typer.Option("--format", help="How to print. [table]")] = None,
    out: Annotated[Path | None, typer.Option(help="Write results to this file, or into this folder.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw faces, or a video's timeline: a file, or a folder.")] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Tell which sentences pulled, and where on the face; see also --plot.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Stop at the first error and show where it arose.")] = False,
) -> None:
    """Tell which expression each face shows, in words of your choice.

    What is told is the PERCEIVED expression, not the felt emotion: a smile may be polite, a scowl may be
    concentration. Probabilities are relative to the labels given. The model has known biases (see the README). Do not
    use it on people without their consent, nor to judge, hire, police or diagnose anyone.

    Exit codes: 0 done, 1 some files failed or show no face, 2 usage, 3 environment, 130 interrupted.
    """
    settings = _settings(
        config, labels=labels, faces=faces, margin=margin, backbone=backbone, adapter=adapter, device=device, top=top,
        threshold=threshold, fps=fps, window_s=window, hop_s=hop, detector=detector, detector_file=detector_file,
        start_s=start, end_s=end, temporal=temporal,
    )  # fmt: skip
    sources = _sources(paths or [], sample=sample)
    _check_plot(plot)
    from vlfer.cli.output import is_folder
    from vlfer.cli.predict_video import VideoFiles

    files = VideoFiles(out if out is not None and is_folder(out) else None, write, settings=settings)
    code = _Run(settings, form=form, out=out, plot=plot, debug=debug, files=files, explain=explain).go(sources)
    if code != DONE:
        raise typer.Exit(code)


def _settings(file: Path | None, **flags: Any) -> PredictConfig:
    """Resolve and check everything that needs no model, so that a typo is told at once."""
    from vlfer.config import load_config
    from vlfer.models.adapter import with_adapter_labels
    from vlfer.models.registry import find_backbone
    from vlfer.text.labels import non_latin, resolve_label_spec

    settings = with_adapter_labels(load_config(file, overrides=flags))
    label_set = resolve_label_spec(settings.labels)
    try:
        spec = find_backbone(settings.backbone)
    except BackboneError as error:
        say(f"Error: {error.message}")
        raise typer.Exit(USAGE) from error
    foreign = non_latin(label_set)
    if foreign and spec.origin == "bundled":
        say(f"Warning: {', '.join(foreign)}: the bundled model reads English only, so expect guesses for these labels.")
    return settings


def _sources(paths: Sequence[str], *, sample: bool) -> list[Path]:
    extra = [sample_path()] if sample else []
    if not paths and not sample:
        raise ConfigError("No image or video is named.", fix="vlfer predict PATH..., or vlfer predict --sample")
    if not paths:
        return extra
    from vlfer.video.paths import expand_paths

    return extra + expand_paths(list(paths))


def _check_plot(plot: Path | None) -> None:
    if plot is not None and plot.suffix and not plot.is_dir() and plot.suffix.lower() not in PICTURE_SUFFIXES:
        raise ConfigError(
            f"--plot {plot} is no kind of picture.",
            why=f"Known are {', '.join(PICTURE_SUFFIXES)}.",
            fix="--plot out.png",
        )


class _Run:
    """One call of `vlfer predict`: what has been found so far, and where it goes."""

    def __init__(
        self,
        settings: PredictConfig,
        *,
        form: Form | None,
        out: Path | None,
        plot: Path | None,
        debug: bool,
        files: VideoFiles,
        explain: bool = False,
    ) -> None:
        self.settings = settings
        self.form: Form | None = form
        self.out = out
        self.plot = plot
        self.debug = debug
        self.files = files
        self.explain = explain
        self.reasons: predict_explain.Reasons = ()
        self.reports: list[Report] = []
        self.pictures: set[Path] = set()
        self.pictures_failed = False

    def go(self, sources: Sequence[Path]) -> int:
        """Answer for every source, print or write what was found, and return the exit code."""
        code = DONE
        try:
            with progress(len(sources)) as (stage, hook):
                from vlfer.pipeline import load_pipeline

                stage("loading the model")
                pipeline = load_pipeline(**self.settings.model_dump())
                stage("looking for faces")
                analyses = pipeline.analyse(
                    sources, hook=hook, on_error="raise" if self.debug else "record", journal_dir=self.files.journal_dir
                )
                for source, analysis in zip(sources, analyses, strict=True):
                    if self.explain:
                        analysis, self.reasons = predict_explain.explain(pipeline, source, analysis, strict=self.debug)
                    self._take(source, analysis, alone=len(sources) == 1, hook=hook)
            self.files.forget()
        except KeyboardInterrupt:
            say(f"Interrupted: {len(self.reports)} of {len(sources)} files are done, and kept.")
            code = INTERRUPTED
        self._emit()
        if code == DONE and (self.pictures_failed or any(report.status != "ok" for report in self.reports)):
            code = SOME_FAILED
        return code

    def _take(self, source: Path, analysis: Analysis, *, alone: bool, hook: Hook | None = None) -> None:
        report = analysis.report
        if source == sample_path():
            report = dataclasses.replace(report, source=SAMPLE)
        self.reports.append(report)
        if report.status != "ok" and (self.out is not None or self.form in ("json", "csv")):
            say(f"{report.source}: {report.message}")
        if not self.files.write(source, analysis, hook=hook):
            self.pictures_failed = True
        if self.plot is None or not report.predictions:
            return
        try:
            path = self._picture_path(self.plot, source, alone=alone)
            self._draw(source, dataclasses.replace(analysis, report=report), path=path)
        except (VlferError, OSError, ValueError) as error:
            if self.debug:
                raise
            self.pictures_failed = True
            say(f"{report.source}: the picture could not be drawn: {error}")

    def _draw(self, source: Path, analysis: Analysis, *, path: Path) -> None:
        from vlfer.serve.plots import plot_faces, plot_timeline, save_figure
        from vlfer.video.read import load_image

        report = analysis.report
        title = Path(report.source).name
        if analysis.timelines:
            figure = plot_timeline(analysis.timelines, report.predictions, title=title, cuts_s=analysis.cuts_s)
        else:
            pixels = load_image(source).pixels[0]
            figure = plot_faces(pixels, report.predictions, title=title, top=self.settings.top)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_figure(figure, path)
        self.pictures.add(path)
        say(f"{report.source}: drawn in {path}")
        if any(self.reasons):
            say(f"{report.source}: reasons drawn in {predict_explain.draw(self.reasons, path, title=title)}")

    def _picture_path(self, plot: Path, source: Path, *, alone: bool) -> Path:
        """Return where a source's picture goes: a name of its own where there are several."""
        from vlfer.cli.output import is_folder

        if is_folder(plot):
            wanted = plot / f"{source.stem}.png"
        else:
            wanted = plot if alone else plot.with_name(f"{plot.stem}-{source.stem}{plot.suffix}")
        path, number = wanted, 1
        while path in self.pictures:
            number += 1
            path = wanted.with_name(f"{wanted.stem}-{number}{wanted.suffix}")
        return path

    def _emit(self) -> None:
        from vlfer.cli.output import print_table, render, table_console, write_results

        if self.out is not None:
            config = self.settings.model_dump(mode="json")
            written = write_results(self.reports, self.out, form=self.form, config=config)
            say(f"Written: {', '.join(str(path) for path in written)}")
        elif self.form in (None, "table"):
            print_table(self.reports, console=table_console())
            predict_explain.print_reasons(self.reports, console=table_console())
        else:
            sys.stdout.write(render(self.reports, form=self.form))


def sample_path() -> Path:
    """Return the portrait that comes with vlfer (Eileen Collins, NASA, public domain)."""
    from importlib.resources import files

    return Path(str(files("vlfer").joinpath("samples", "astronaut.jpg")))
