"""`vlfer bench mie`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vlfer.cli.exits import say
from vlfer.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from vlfer.bench.measurement import Measurement
    from vlfer.micro.flow import FlowMethod
    from vlfer.mie import MicroRecognizer

PARTS = ("pair", "speed", "spotting", "loso", "few-labels")


def bench_mie(
    parts: Annotated[str, typer.Option(help=f"What to measure: {', '.join(PARTS)}.")] = ",".join(PARTS[:4]),
    seconds: Annotated[float, typer.Option(help="Length of the 200 fps video.", min=2.0)] = 6.0,
    videos: Annotated[int, typer.Option(help="Made long videos to spot in.", min=1)] = 8,
    model: Annotated[str, typer.Option(help="Of the leave-one-subject-out run.")] = "vlfer",
    faces: Annotated[
        list[Path] | None, typer.Option(help="few-labels: pictures of faces, the last for testing. [the portrait]")
    ] = None,
    epochs: Annotated[int, typer.Option(help="few-labels: of pre-training.", min=1)] = 120,
    shots: Annotated[str, typer.Option(help="few-labels: labelled pairs a class.")] = "2,4,8",
    seeds: Annotated[int, typer.Option(help="few-labels: draws of the labelled pairs.", min=1)] = 5,
    run: Annotated[Path | None, typer.Option(help="few-labels: keep pre-training here and go on with it.")] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the numbers to this JSON file.")] = None,
    form: Annotated[Literal["table", "json"], typer.Option("--format", help="How to print.")] = "table",
) -> None:
    """Measure micro-expressions: time of an answer, speed and F1 of spotting, one LOSO, what pre-training is worth.

    Everything is made from the portrait that comes with vlfer. few-labels trains for minutes and runs only if it is
    named. Close other programs first: a busy machine is measured as a slow one.
    """
    wanted = [part.strip() for part in parts.split(",") if part.strip()]
    for part in wanted:
        if part not in PARTS:
            raise ConfigError(f"There is no part {part!r}.", why=did_you_mean(part, PARTS), fix=", ".join(PARTS))

    from vlfer.bench import mie as bench
    from vlfer.cli.bench import _report
    from vlfer.faces.detect import build_detector

    found: list[Measurement] = []
    with tempfile.TemporaryDirectory(prefix="vlfer-bench-") as name:
        if "pair" in wanted:
            say("Onset and apex")
            found += bench.bench_pair(_recogniser)
        if "speed" in wanted:
            say("Spotting speed")
            found += bench.bench_spotting_speed(Path(name), detector=build_detector(), seconds=seconds)
        if "spotting" in wanted:
            say("Spotting")
            face = bench.resting_grey(detector=build_detector())
            for speech in (False, True):
                found += bench.bench_spotting(face, videos=videos, speech=speech)
        if "loso" in wanted:
            say("Leave one subject out")
            found += bench.bench_loso(model)
        if "few-labels" in wanted:
            found += _few_labels(faces or [], epochs, shots, seeds, run or Path(name) / "run")
    _report("mie", found, out=out, form=form, backbone="bundled")


def _recogniser(method: FlowMethod) -> MicroRecognizer:
    from vlfer.config import resource_dir
    from vlfer.faces.detect import build_detector
    from vlfer.mie import MicroRecognizer
    from vlfer.models.encoder import load_encoder
    from vlfer.models.flow_encoder import load_flow_adapter
    from vlfer.text.bank import TextBank
    from vlfer.text.labels import resolve_label_spec

    encoder = load_encoder("bundled")
    adapter = load_flow_adapter(resource_dir("adapters") / "mie-flow", space=encoder.space)
    return MicroRecognizer(build_detector(), adapter, TextBank(encoder), resolve_label_spec("micro3"), method)


def _few_labels(faces: list[Path], epochs: int, shots: str, seeds: int, run: Path) -> list[Measurement]:
    from vlfer.bench.mie_few import SIDE_PX, bench_few_labels, default_few_labels
    from vlfer.bench.mie_made import resting_faces
    from vlfer.cli.mie_pretrain import told
    from vlfer.faces.detect import build_detector

    try:
        counts = [int(count) for count in shots.split(",")]
    except ValueError as error:
        raise ConfigError(f"--shots {shots!r}: {error}.", fix="--shots 4,8") from error
    rest = resting_faces(faces, side=SIDE_PX, detector=build_detector())
    how = default_few_labels(epochs=epochs)
    return bench_few_labels(rest, how, shots=counts, seeds=seeds, folder=run, hook=told(), tell=say)
