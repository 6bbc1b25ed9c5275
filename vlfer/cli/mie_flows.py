"""`vlfer mie flows` and `vlfer mie faces`: micro-expression data sets as downloaded to archives."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vlfer.cli.exits import SOME_FAILED, say
from vlfer.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable

    from vlfer.evaluation.mie_datasets import MicroClip
    from vlfer.evaluation.mie_flows import FlowSet

_SAY_EVERY_S = 20.0


def flows(
    roots: Annotated[list[str], typer.Argument(help="casme2=DIR samm=DIR smic=DIR mmew=DIR casme3=DIR")],
    out: Annotated[Path, typer.Option(help="The archive, .npz, for vlfer mie eval --flow-archive.")],
    protocol: Annotated[str, typer.Option(help="Whose classes: megc2019, casme2-5, samm-5, mmew-6, ...")] = "megc2019",
    flow: Annotated[
        Literal["farneback", "dis", "tvl1", "deepflow"], typer.Option(help="tvl1 is exact, farneback fast.")
    ] = "tvl1",
    form: Annotated[Literal["table", "json"], typer.Option("--format", help="How to print.")] = "table",
) -> None:
    """Compute the onset-to-apex flow of data sets as downloaded: coding sheet and frame folders.

    Several data sets make a composite. An apex that is not coded is looked for between onset and offset. Emotions that
    the protocol does not count are left out and counted.

    Exit codes: 0 done, 1 some clips failed, 2 usage.
    """
    from vlfer.evaluation.mie_flows import compute_flows, save_flows
    from vlfer.evaluation.mie_report import PROTOCOLS
    from vlfer.faces.detect import build_detector

    counted, skipped = _counted(roots, protocol)
    found = compute_flows(
        counted, protocol=PROTOCOLS[protocol], detector=build_detector(), method=flow, skipped=skipped, progress=_told()
    )
    save_flows(found, out)
    say(f"Written: {out}")
    report = _summary(found)
    if form == "json":
        typer.echo(json.dumps(report, indent=2))
    else:
        for part, about in report["parts"].items():
            classes = ", ".join(f"{name} {count}" for name, count in about["classes"].items())
            typer.echo(f"{part}: {about['clips']} clips, {about['subjects']} subjects; {classes}")
        typer.echo(f"apex looked for in {report['searched']} clips; not counted: {report['skipped'] or 'none'}")
    _tell_failed(found.failed)


def faces(
    roots: Annotated[list[str], typer.Argument(help="casme2=DIR samm=DIR smic=DIR mmew=DIR casme3=DIR clips=DIR")],
    out: Annotated[Path, typer.Option(help="The archive, .npz, for vlfer mie eval --face-archive.")],
    protocol: Annotated[str, typer.Option(help="Whose classes: megc2019, casme2-5, samm-5, mmew-6, ...")] = "megc2019",
    side: Annotated[int, typer.Option(help="Side of a face in pixels.", min=16)] = 64,
    frames: Annotated[int, typer.Option(help="Frames from onset to offset; 0 for onset and apex only.", min=0)] = 10,
) -> None:
    """Register the faces of data sets as downloaded: onset, apex, and the clip in equal steps of time.

    For models that read pictures, miacnet and lbp-top. clips=DIR is a folder of one's own, SUBJECT/EMOTION/CLIP, each
    clip a video or a folder of frames. The archive shows faces: keep it as private as the data set.

    Exit codes: 0 done, 1 some clips failed, 2 usage.
    """
    from vlfer.evaluation.mie_faces import compute_faces
    from vlfer.evaluation.mie_report import PROTOCOLS
    from vlfer.faces.detect import build_detector
    from vlfer.micro.samples import save_archive

    counted, skipped = _counted(roots, protocol)
    samples, failed = compute_faces(
        counted, protocol=PROTOCOLS[protocol], detector=build_detector(), side=side, frames=frames, progress=_told()
    )
    save_archive(samples, out)
    say(f"Written: {out}")
    people = len(set(samples.subject_keys.tolist()))
    typer.echo(f"{len(samples)} clips of {people} subjects, {side} px, {frames} frames")
    typer.echo(f"not counted: {skipped or 'none'}")
    _tell_failed(failed)


def _counted(roots: list[str], protocol: str) -> tuple[list[tuple[MicroClip, int]], dict[str, int]]:
    from vlfer.evaluation.mie_flows import collect_clips
    from vlfer.evaluation.mie_report import PROTOCOLS

    if protocol not in PROTOCOLS:
        raise ConfigError(f"There is no protocol {protocol!r}.", why=did_you_mean(protocol, PROTOCOLS))
    places = {}
    for given in roots:
        name, equals, folder = given.partition("=")
        if not equals or not folder:
            raise ConfigError(f"{given!r} names no folder.", fix=f"{name}=DIR")
        places[name] = Path(folder)
    counted, skipped = collect_clips(places, PROTOCOLS[protocol])
    say(f"{len(counted)} clips of {len({(c.dataset, c.subject) for c, _ in counted})} subjects")
    return counted, skipped


def _told() -> Callable[[int, int], None]:
    last = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal last
        if done == total or time.monotonic() - last > _SAY_EVERY_S:
            last = time.monotonic()
            say(f"{done} of {total} clips")

    return tell


def _tell_failed(failed: tuple[tuple[str, str], ...]) -> None:
    if failed:
        say(f"{len(failed)} clips failed, the first: {failed[0][0]}: {failed[0][1]}")
        raise typer.Exit(SOME_FAILED)


def _summary(found: FlowSet) -> dict[str, Any]:
    samples = found.samples
    parts = {}
    for name in sorted(set(samples.dataset.tolist())):
        rows = samples.dataset == name
        labels = samples.label[rows].tolist()
        parts[name] = {
            "clips": len(labels),
            "subjects": len(set(samples.subject[rows].tolist())),
            "classes": {word: labels.count(i) for i, word in enumerate(samples.classes)},
        }
    failed = [{"clip": clip, "reason": reason} for clip, reason in found.failed]
    return {"parts": parts, "searched": found.searched, "skipped": found.skipped, "failed": failed}
