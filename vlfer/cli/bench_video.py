"""`vlfer bench video`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vlfer.cli.exits import say
from vlfer.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from vlfer.bench.measurement import Measurement

PARTS = ("speed", "ids", "latency", "memory", "pooling")
_USUAL = PARTS[:4]


def bench_video(
    video: Annotated[Path | None, typer.Option(help="Measure speed on this video too.")] = None,
    backbone: Annotated[str, typer.Option(help="See: vlfer backbones list.")] = "bundled",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
    parts: Annotated[str, typer.Option(help="What to measure; pooling needs --archive.")] = ",".join(_USUAL),
    seconds: Annotated[float, typer.Option(help="Length of the made clips.", min=1.0)] = 12.0,
    minutes: Annotated[float, typer.Option(help="Length of the long video for memory.", min=0.1)] = 60.0,
    memory_fps: Annotated[float, typer.Option(help="Frames looked at per second of it.", min=0.1)] = 8.0,
    archive: Annotated[
        Path | None, typer.Option(help="Faces with votes, .npz, as for train-backbone: to compare temporal models.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the numbers to this JSON file.")] = None,
    form: Annotated[Literal["table", "json"], typer.Option("--format", help="How to print.")] = "table",
) -> None:
    """Measure video: speed with its steps apart, stable ids, live latency, memory over length, temporal models.

    Clips of 720p, H.264, 30 fps are made up in a temporary folder, with one face and with five. Close other programs
    first: a busy machine is measured as a slow one.
    """
    wanted = tuple(part.strip() for part in parts.split(",") if part.strip())
    for part in wanted:
        if part not in PARTS:
            raise ConfigError(f"There is no part {part!r}.", why=did_you_mean(part, PARTS), fix=", ".join(PARTS))

    if "pooling" in wanted and archive is None:
        raise ConfigError(
            "Temporal models are compared on faces.", why="--archive is missing.", fix="--archive FER+.npz"
        )

    from vlfer.bench import video as bench
    from vlfer.cli.bench import _report
    from vlfer.pipeline import load_pipeline

    found: list[Measurement] = []
    pipeline = load_pipeline(backbone, device=device, faces="detect", fps=1000.0)
    with tempfile.TemporaryDirectory(prefix="vlfer-bench-") as name:
        clips = bench.build_clips(Path(name), seconds=seconds, parts=wanted, memory_fps=memory_fps, tell=say)
        if "speed" in wanted:
            say("Speed")
            one = bench.bench_speed(pipeline, clips["one"].path, name="one face", bar_fps=45.0, with_share=True)
            five = bench.bench_speed(pipeline, clips["five"].path, name="five faces", bar_fps=20.0, with_share=False)
            found += one + five
        if video is not None:
            found += bench.bench_speed(pipeline, video, name=video.name, bar_fps=45.0, with_share=True)
        if "ids" in wanted:
            say("Identities")
            found += bench.bench_switches(pipeline, clips["five"])
        if "latency" in wanted:
            say("Latency")
            found += bench.bench_latency(pipeline, clips["one"].path)
        if "memory" in wanted:
            say("Memory")
            slow = load_pipeline(backbone, device=device, faces="detect", fps=memory_fps)
            found += bench.bench_memory(slow, clips["slow"].path, long_s=60 * minutes)
    if "pooling" in wanted and archive is not None:
        from vlfer.bench.pooling import bench_pooling

        found += bench_pooling(archive, pipeline.encoder, say=say)
    _report("video", found, out=out, form=form, backbone=backbone)
