"""The Video tab: a clip, any words, a timeline per person linked with playback."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from vlfer.pipeline import Hook
from vlfer.serve.ui_ask import build_ask
from vlfer.serve.ui_engine import Engine, Film
from vlfer.serve.ui_export import downloads
from vlfer.serve.ui_film_html import film_html
from vlfer.serve.ui_guard import guarded
from vlfer.serve.ui_html import empty
from vlfer.serve.ui_inputs import clip_input
from vlfer.serve.ui_samples import clip_path
from vlfer.types import LabelSet


def start_html() -> str:
    """Return what stands in the place of the first answer."""
    return empty("What happens in a face?", "Drop a video on the left, record one, or begin with the example.",
                 drawing="film")  # fmt: skip


def watch_film(
    engine: Engine, path: str | None, labels: LabelSet, *, session: str = "", hook: Hook | None = None
) -> tuple[Film | None, str]:
    """Answer for a new video.

    Args:
        engine: Watches and tells.
        path: The upload, or None where it was taken away.
        labels: What is asked.
        session: Name under which it can be stopped.
        hook: Told about progress.
    """
    if not path:
        return None, start_html()
    engine.check(labels)
    film = engine.watch(path, hook=hook, session=session)
    return film, tell_film(engine, film, labels)


def tell_film(engine: Engine, film: Film | None, labels: LabelSet) -> str:
    """Answer for a video that was watched; nothing is decoded again."""
    if film is None:
        return start_html()
    analysis = engine.tell_film(film, labels)
    drawn = film_html(analysis, labels, sentences=engine.sentences(labels), threshold=engine.threshold(labels))
    return drawn + downloads(analysis.report)


def annotated(engine: Engine, film: Film, labels: LabelSet, folder: Path) -> Path:
    """Write the video with boxes and labels drawn in, and return where it lies.

    Args:
        engine: Tells.
        film: What was watched.
        labels: What is asked.
        folder: The private folder of the app.

    Raises:
        VlferError: If the video cannot be read again.
    """
    path = folder / secrets.token_hex(8) / "annotated.mp4"
    engine.uploads.annotate(film.clip.source, engine.tell_film(film, labels).timelines, path)
    return path


def video_tab(engine: Engine) -> None:
    """Lay out the tab and wire it."""
    with gr.Row(elem_classes="vl-columns"):
        with gr.Column(scale=5, min_width=300, elem_classes="vl-left"):
            clip = clip_input(
                label="Video", sources=["upload", "webcam"], height=300, buttons=[], elem_id="vl-video", loop=False
            )
            with gr.Row():
                example = gr.Button("Try it on the example clip", size="sm", elem_id="vl-video-example")
                stop = gr.Button("Stop", size="sm", visible=False, elem_id="vl-video-stop", min_width=80)
            ask = build_ask(engine, labels=engine.pipeline.labels, place="video")
        with gr.Column(scale=7, min_width=320):
            result = gr.HTML(start_html(), apply_default_css=False, elem_id="vl-video-result")
            with gr.Row(visible=False, elem_classes="vl-draw") as drawing:
                draw = gr.Button("Draw the labels into the video", size="sm", elem_id="vl-video-draw")
                drawn = gr.DownloadButton("Download the annotated video", size="sm", visible=False,
                                          elem_id="vl-video-drawn")  # fmt: skip
                remark = gr.HTML(apply_default_css=False)
    kept = gr.State(None, time_to_live=1800)

    @guarded(failed=lambda card: (None, card))
    def watch(path: str | None, labels: LabelSet, request: gr.Request, progress: Any = gr.Progress()) -> Any:  # noqa: B008
        def hook(_: str, done: int, total: int) -> None:
            progress((done, max(total, done)) if total else None, desc="Watching", unit="frames")

        return watch_film(engine, path, labels, session=str(request.session_hash), hook=hook)

    @guarded(failed=lambda card: (gr.skip(), card))
    def make_annotated(film: Film | None, labels: LabelSet) -> Any:
        if film is None:
            return gr.skip(), ""
        path = annotated(engine, film, labels, Path(get_upload_folder()))
        drawn.temp_files.add(str(path))  # swept with the uploads
        return gr.DownloadButton(value=str(path), visible=True), ""

    @guarded(failed=lambda card: card)
    def again(labels: LabelSet, film: Film | None) -> str:
        return tell_film(engine, film, labels)

    def end(request: gr.Request) -> None:
        engine.stop(str(request.session_hash))

    @guarded(failed=lambda card: (gr.skip(), card))
    def show_example() -> Any:
        return str(clip_path(example_folder(), "moods", detector=engine.detector())), gr.skip()

    hidden: Any = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    clip.change(lambda path: gr.Button(visible=bool(path)), clip, stop, **hidden)
    clip.change(watch, [clip, ask.labels], [kept, result], concurrency_id="model", api_visibility="private").then(
        lambda film: (gr.Button(visible=False), gr.Row(visible=film is not None), gr.DownloadButton(visible=False)),
        kept, [stop, drawing, drawn], **hidden,
    )  # fmt: skip
    draw.click(make_annotated, [kept, ask.labels], [drawn, remark], concurrency_id="model", api_visibility="private")
    stop.click(end, None, None, **hidden)
    example.click(show_example, None, [clip, result], concurrency_id="model", api_visibility="private")
    ask.on_change(again, [kept], [result])


def example_folder() -> Path:
    """Return where example clips are kept: the private folder of the app."""
    return Path(get_upload_folder()) / "examples"
