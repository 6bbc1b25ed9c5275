"""`vlfer bench serve` and `vlfer bench search`: the service under load, and the index."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vlfer.cli.exits import say
from vlfer.errors import ConfigError

if TYPE_CHECKING:
    from vlfer.bench.measurement import Measurement
    from vlfer.bench.serve import Server


def bench_serve(
    clients: Annotated[str, typer.Option(help="Numbers of clients that ask at once.")] = "1,4,16,64",
    requests: Annotated[int, typer.Option(help="Questions at each number of clients.", min=1)] = 120,
    memory: Annotated[int, typer.Option(help="Questions for the growth of memory; 0 leaves it out.", min=0)] = 2000,
    backbone: Annotated[str, typer.Option(help="See: vlfer backbones list.")] = "bundled",
    edge: Annotated[bool, typer.Option("--edge", help="Compare a full upload with edge mode instead.")] = False,
    out: Annotated[Path | None, typer.Option(help="Also write the numbers to this JSON file.")] = None,
    form: Annotated[Literal["table", "json"], typer.Option("--format", help="How to print.")] = "table",
) -> None:
    """Measure throughput, latency and memory of `vlfer serve`, with and without joining requests.

    Photos are frames of 1280 x 720 with one face; crops are faces cut out by the client. One by one: a request is sent
    when the one before is answered. No joining: every face goes through the tower alone. Clients and service share
    this machine.
    """
    try:
        counts = [int(count) for count in clients.split(",")]
    except ValueError as error:
        raise ConfigError(f"--clients {clients!r}: {error}.", fix="--clients 1,4,16,64") from error
    if min(counts) < 1:
        raise ConfigError(f"--clients {clients!r} holds a number below 1.", fix="--clients 1,4,16,64")

    from vlfer.bench import serve as bench
    from vlfer.cli.bench import _report

    found: list[Measurement] = []
    if edge:
        from vlfer.bench.edge import bench_edge
        from vlfer.pipeline import load_pipeline

        with bench.running_server(backbone=backbone) as server:
            found += bench_edge(server, load_pipeline(backbone), requests=requests)
    else:
        found += _loads(counts, requests=requests, memory=memory, backbone=backbone)
    _report("serve", found, out=out, form=form, backbone=backbone)


def _loads(counts: list[int], *, requests: int, memory: int, backbone: str) -> list[Measurement]:
    from vlfer.bench import serve as bench
    from vlfer.bench.measurement import Measurement

    photo = bench.photo_request(bench.photo_720p())
    crop = bench.photo_request(bench.photo_720p()[100:250, 520:670], faces="whole", form="PNG")
    busy = 16 if 16 in counts else max(counts)
    found: list[Measurement] = []

    def compare(title: str, server: Server, bar: float | None, at_once: int | None = None) -> None:
        say(f"The same, {title}")
        for name, request, with_it in (("photo", photo, photos), ("crop", crop, crops)):
            rows, loads = bench.bench_load(
                f"{name}, {title}", server, request, clients=[busy], requests=requests, at_once=at_once
            )
            gain = with_it[busy].per_s / loads[busy].per_s
            found.extend([*rows, Measurement(f"{name}, {busy} clients: throughput over {title}", gain, "x", bar, True)])

    say("The service as it is")
    with bench.running_server(backbone=backbone) as server:
        rows, photos = bench.bench_load("photo", server, photo, clients=counts, requests=requests, p50_bar_ms=60.0)
        more, crops = bench.bench_load("crop", server, crop, clients=counts, requests=requests)
        found += rows + more
        compare("one by one", server, 1.5, at_once=1)
        if memory:
            say(f"{memory} requests")
            found += bench.bench_memory(server, photo, requests=memory)
    for title, options in (
        ("no joining", ("--max-batch", "1")),
        ("one decoder, no joining", ("--max-batch", "1", "--decoders", "1")),
    ):
        with bench.running_server(*options, backbone=backbone) as server:
            compare(title, server, None)
    return found


def bench_search(
    sizes: Annotated[str, typer.Option(help="Numbers of segments.")] = "10000,1000000",
    out: Annotated[Path | None, typer.Option(help="Also write the numbers to this JSON file.")] = None,
    form: Annotated[Literal["table", "json"], typer.Option("--format", help="How to print.")] = "table",
) -> None:
    """Measure queries against indexes of made vectors of 384 numbers, in clusters as faces are."""
    try:
        counts = [int(size) for size in sizes.split(",")]
    except ValueError as error:
        raise ConfigError(f"--sizes {sizes!r}: {error}.", fix="--sizes 10000,1000000") from error
    if min(counts) < 100:
        raise ConfigError(f"--sizes {sizes!r} holds a number below 100.", fix="--sizes 10000")

    from vlfer.bench import search as bench
    from vlfer.cli.bench import _report

    found: list[Measurement] = []
    for count in counts:
        say(f"{count:,} segments")
        with tempfile.TemporaryDirectory(prefix="vlfer-bench-") as folder:
            found += bench.bench_search(count, folder=Path(folder))
    _report("search", found, out=out, form=form, backbone="none")
