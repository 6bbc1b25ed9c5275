"""`vlfer watch`: what the faces of a webcam, a stream or a played file show, while it happens."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vlfer.cli.exits import say
from vlfer.cli.window import LiveWindow, WindowClosed

if TYPE_CHECKING:
    from vlfer.export.mjpeg import LivePage
    from vlfer.live import LiveFace, Pace
    from vlfer.types import UInt8Array
    from vlfer.video.live import LiveSource

View = Literal["terminal", "window", "browser", "lines", "none"]
_NOTE = "Perceived expression, not felt emotion. Only with the consent of those who are seen."
_MOST_BARS = 4


def watch(
    source: Annotated[str, typer.Argument(help="A webcam (0), an address (rtsp://...), or a video file.")] = "0",
    labels: Annotated[str | None, typer.Option(help="A shipped set, a YAML file, or words. [ekman7]")] = None,
    view: Annotated[
        View | None,
        typer.Option(
            help="terminal: bars; window, browser: the picture with boxes; lines: JSON to stdout; none. [terminal]"
        ),
    ] = None,
    backbone: Annotated[str | None, typer.Option(help="See: vlfer backbones list. [bundled]")] = None,
    adapter: Annotated[str | None, typer.Option(help="Folder or name of an adapter.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, mps. [auto]")] = None,
    threshold: Annotated[float | None, typer.Option(help="Abstain below this probability.")] = None,
    half_life: Annotated[float, typer.Option(help="Seconds after which a frame weighs half.", min=0.01)] = 0.4,
    seconds: Annotated[float | None, typer.Option(help="Stop after so long.", min=0.0)] = None,
    reconnects: Annotated[int, typer.Option(help="How often in a row to reconnect.", min=0)] = 6,
    port: Annotated[int, typer.Option(help="Of the browser view; 0 takes any.", min=0, max=65535)] = 8777,
) -> None:
    """Watch a webcam, a network stream, or a file played at its own pace; end with Ctrl-C.

    The newest frame is looked at, whatever came in between is dropped and counted. Shown are frames a second and the
    latency from a frame in hand to its scores. What is told is the PERCEIVED expression, not the felt emotion.
    """
    from vlfer.live import LiveWatcher, Pace
    from vlfer.pipeline import load_pipeline
    from vlfer.video.live import open_live

    live = open_live(source, reconnects=reconnects)
    chosen: View = view or ("terminal" if sys.stdout.isatty() else "lines")
    say(_NOTE)
    pace = Pace()
    begun_s: float | None = None
    try:
        with _shown(chosen, port=port) as show:  # what cannot be shown is told before models are loaded
            pipeline = load_pipeline(
                backbone, labels=labels, adapter=adapter, device=device, threshold=threshold, faces="detect"
            )
            watcher = LiveWatcher(pipeline.clip_tools(), half_life_s=half_life)
            for frame in live.frames():
                begun_s = frame.time_s if begun_s is None else begun_s
                faces = watcher.look(frame.pixels, frame.time_s)
                pace.add(frame.arrived_s)
                show(frame.pixels, frame.time_s, faces, _pace_line(pace, live))
                if seconds is not None and frame.time_s - begun_s >= seconds:
                    break
    except (KeyboardInterrupt, WindowClosed):
        pass
    finally:
        say(_farewell(pace, live))


def _pace_line(pace: Pace, live: LiveSource) -> str:
    return f"{pace.fps:.0f} fps  ·  latency {1000 * pace.latency_s:.0f} ms  ·  {live.n_dropped} dropped"


def _farewell(pace: Pace, live: LiveSource) -> str:
    import numpy as np

    if not pace.latencies_s:
        return f"{live.name}: no frame was seen."
    median, late = np.percentile(pace.latencies_s, [50, 95])
    return (
        f"{live.name}: {len(pace.latencies_s)} frames seen, {live.n_dropped} dropped, {live.n_reconnects} reconnects; "
        f"latency {1000 * median:.0f} ms (95 %: {1000 * late:.0f} ms)"
    )


@contextmanager
def _shown(view: View, *, port: int) -> Iterator[Callable[..., None]]:
    if view == "terminal":
        with _terminal() as show:
            yield show
    elif view in ("browser", "window"):
        with closing(_browser(port) if view == "browser" else _window()) as screen:
            yield partial(_show_picture, screen)
    elif view == "lines":
        yield _print_line
    else:
        yield lambda *_: None


def _print_line(pixels: UInt8Array, time_s: float, faces: list[LiveFace], pace: str) -> None:
    del pixels, pace
    row = {
        "time_s": round(time_s, 3),
        "faces": [
            {
                "face": face.track_id + 1, "label": face.label, "probability": round(face.probability, 4),
                "box": [round(float(v), 1) for v in face.box],
                "top": {name: round(value, 4) for name, value in face.top},
            }
            for face in faces
        ],
    }  # fmt: skip
    sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")
    sys.stdout.flush()


@contextmanager
def _terminal() -> Iterator[Callable[..., None]]:
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(), auto_refresh=False, screen=False) as live:
        last_s = 0.0

        def show(pixels: UInt8Array, time_s: float, faces: list[LiveFace], pace: str) -> None:
            nonlocal last_s
            del pixels
            now = time.monotonic()
            if now - last_s > 0.1:  # ten times a second is read as moving
                last_s = now
                live.update(terminal_view(time_s, faces, pace), refresh=True)

        yield show


def terminal_view(time_s: float, faces: list[LiveFace], pace: str) -> Any:
    """Return what the terminal shows: for each face its label and a bar a label."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    for face in faces:
        table.add_row(Text(f"face {face.track_id + 1}", style="bold"), Text(face.label or "unclear", style="bold"), "")
        for name, value in face.top[:_MOST_BARS]:
            bar = "█" * round(24 * value)
            table.add_row("", Text(name), Text(f"{bar:<24} {value:4.0%}"))
    return Group(Text(f"{time_s:7.1f} s  ·  {pace}", style="dim"), table if faces else Text("no face", style="dim"))


def _window() -> LiveWindow:
    window = LiveWindow("vlfer watch")
    say("Close the window, or press q in it, to end.")
    return window


def _browser(port: int) -> LivePage:
    from vlfer.export.mjpeg import LivePage

    page = LivePage(port=port)
    say(f"Open {page.address} in a browser.")
    return page


def _show_picture(
    screen: LiveWindow | LivePage, pixels: UInt8Array, time_s: float, faces: list[LiveFace], pace: str
) -> None:
    from vlfer.export.overlay import Tag, draw_tags

    del time_s
    tags = [Tag(face.track_id + 1, face.box, face.label, face.top) for face in faces]
    screen.show(draw_tags(pixels, tags, footer=f"{pace}  ·  perceived, not felt"))
