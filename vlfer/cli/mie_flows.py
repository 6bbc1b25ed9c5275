"""`vlfer mie flows`: a micro-expression data set as downloaded to a flow archive."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vlfer.cli.exits import SOME_FAILED, say
from vlfer.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
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
    from vlfer.evaluation.mie_flows import collect_clips, compute_flows, save_flows
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

    from vlfer.faces.detect import build_detector

    last = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal last
        if done == total or time.monotonic() - last > _SAY_EVERY_S:
            last = time.monotonic()
            say(f"{done} of {total} clips")

    found = compute_flows(
        counted, protocol=PROTOCOLS[protocol], detector=build_detector(), method=flow, skipped=skipped, progress=tell
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
    if found.failed:
        say(f"{len(found.failed)} clips failed, the first: {found.failed[0][0]}: {found.failed[0][1]}")
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
