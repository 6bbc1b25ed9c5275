"""`vlfer mie eval`: leave one subject out over an archive of flow or of faces."""

from __future__ import annotations

import json
import os
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vlfer.cli.exits import goes_on, say
from vlfer.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from vlfer.evaluation.mie_loso import Progress
    from vlfer.evaluation.mie_report import Protocol


def evaluate(
    flow_archive: Annotated[
        Path | None, typer.Option(help="Flow samples, .npz: flow, dataset, subject, clip, label, classes.")
    ] = None,
    face_archive: Annotated[
        Path | None, typer.Option(help="Faces, .npz of vlfer mie faces, for miacnet and lbp-top.")
    ] = None,
    protocol: Annotated[str, typer.Option(help="megc2019, casme2-5, samm-5, mmew-6, ...")] = "megc2019",
    model: Annotated[str, typer.Option(help="vlfer, or a reference: svm, stst, rcn-a, clip, lbp-top, ...")] = "vlfer",
    start: Annotated[Path | None, typer.Option(help="miacnet: run of vlfer mie pretrain. [from scratch]")] = None,
    backbone: Annotated[str, typer.Option(help="clip: what looks at the flow as a picture.")] = "bundled",
    folds: Annotated[
        int | None, typer.Option(min=2, help="So many folds of whole subjects. [what the protocol says]")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the report; finished folds are kept in it.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings with so many seeds; the mean is reported.")] = 1,
    seed: Annotated[int, typer.Option(help="The first seed.")] = 0,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes. [one a core]")] = None,
    show_leakage: Annotated[
        bool, typer.Option("--show-leakage", help="Also print what choosing epochs on the test subject would claim.")
    ] = False,
    form: Annotated[Literal["table", "json"], typer.Option("--format", help="How to print.")] = "table",
) -> None:
    """Leave one subject out, pool the predictions, print UF1 and UAR.

    Every fold trains by a fixed schedule on all subjects but one and is judged after the last epoch. A run that is
    stopped goes on where it was if it is started again with the same --out. Models over flow read --flow-archive;
    miacnet and lbp-top read --face-archive.
    """
    from vlfer.evaluation.mie_loso import run_loso
    from vlfer.evaluation.mie_report import build_report, check_classes, report_markdown, write_report

    task = _protocol(protocol)
    task = replace(task, groups=folds) if folds else task
    samples, learner = _samples_and_learner(flow_archive, face_archive, model, start=start, backbone=backbone)
    check_classes(samples, task)
    started = time.perf_counter()
    with goes_on(out) if out else nullcontext():
        runs = [
            run_loso(
                samples, learner=learner, seed=one, groups=task.groups, out=out / "folds" if out else None,
                workers=workers or os.cpu_count() or 1, trace=show_leakage, progress=_progress(f"seed {one}"),
            )
            for one in range(seed, seed + seeds)
        ]  # fmt: skip
    described = {"name": learner.name, "settings": dict(learner.settings)}
    report = build_report(samples, runs, protocol=task, model=described, leakage=show_leakage)
    report["wall_s"] = round(time.perf_counter() - started, 2)
    if out:
        for path in write_report(report, samples, runs, out=out):
            say(f"Wrote {path}")
    typer.echo(json.dumps(report, indent=2) if form == "json" else report_markdown(report), nl=form == "json")


def _samples_and_learner(
    flow_archive: Path | None, face_archive: Path | None, model: str, *, start: Path | None, backbone: str
) -> tuple[Any, Any]:
    from vlfer.micro.face_samples import load_face_archive
    from vlfer.micro.samples import load_flow_archive
    from vlfer.training.mie_recipes import build_face_learner, build_learner

    if (flow_archive is None) == (face_archive is None):
        raise ConfigError(
            "Two archives are named." if flow_archive else "No archive is named.",
            fix="--flow-archive FILE.npz of vlfer mie flows, or --face-archive FILE.npz of vlfer mie faces",
        )
    if face_archive is not None:
        return load_face_archive(face_archive), build_face_learner(model, start=start)
    learner = build_learner(model, backbone=backbone)
    return load_flow_archive(str(flow_archive)), learner


def _protocol(name: str) -> Protocol:
    from vlfer.evaluation.mie_report import PROTOCOLS

    if name not in PROTOCOLS:
        raise ConfigError(
            f"There is no protocol {name!r}.",
            why=f"There are {', '.join(PROTOCOLS)}. {did_you_mean(name, PROTOCOLS)}".strip(),
        )
    return PROTOCOLS[name]


def _progress(title: str) -> Progress:
    import sys

    started: list[Any] = []

    def tell(done: int, total: int) -> None:
        if not started:
            started.extend([time.perf_counter(), done])
        spent, new = time.perf_counter() - started[0], done - started[1]
        left = f", {spent / new * (total - done):.0f} s left" if new and done < total else ""
        if sys.stderr.isatty():
            end = "\n" if done == total else ""
            sys.stderr.write(f"\r{title}: fold {done} of {total}{left}    {end}")
            sys.stderr.flush()
        elif done == total or done % 20 == 0:
            say(f"{title}: fold {done} of {total}{left}")

    return tell
