"""The Photo tab: one picture, any words, a card a face."""

from __future__ import annotations

from typing import Any

import gradio as gr

from vlfer.serve.ui_ask import build_ask
from vlfer.serve.ui_engine import Engine, Photo, PhotoAnswer
from vlfer.serve.ui_guard import guarded
from vlfer.serve.ui_html import empty
from vlfer.serve.ui_inputs import photo_input
from vlfer.serve.ui_photo_html import photo_html
from vlfer.serve.ui_samples import portrait_path
from vlfer.serve.ui_why import why_html
from vlfer.types import LabelSet

Kept = tuple[Photo, PhotoAnswer]
"""What a session holds of its photo, in memory only."""


def start_html() -> str:
    """Return what stands in the place of the first answer."""
    return empty("Whose face?", "Drop a photo on the left, or begin with the example.", drawing="face")


def look_at(engine: Engine, path: str | None, labels: LabelSet) -> tuple[Kept | None, str]:
    """Answer for a new picture.

    Args:
        engine: Looks and tells.
        path: The upload, or None where it was taken away.
        labels: What is asked.
    """
    if not path:
        return None, start_html()
    photo = engine.look(path)
    answer = engine.tell(photo, labels)
    return (photo, answer), photo_html(photo, answer, labels)


def ask_again(engine: Engine, labels: LabelSet, kept: Kept | None) -> tuple[Kept | None, str]:
    """Answer for the same picture in other words; bars move from where they were."""
    if kept is None:
        return None, start_html()
    photo, last = kept
    answer = engine.tell(photo, labels)
    before = [dict(prediction.top) for prediction in last.predictions]
    return (photo, answer), photo_html(photo, answer, labels, before=before)


def say_why(engine: Engine, is_wanted: bool, kept: Kept | None, labels: LabelSet) -> str:
    """Return why each of the largest faces got its label, or nothing where that is not wanted."""
    if not is_wanted or kept is None:
        return ""
    photo, answer = kept
    return why_html(engine.explain(photo, answer, labels), faces=len(photo.faces))


def photo_tab(engine: Engine) -> None:
    """Lay out the tab and wire it."""
    first = engine.pipeline.labels
    with gr.Row(elem_classes="vl-columns"):
        with gr.Column(scale=5, min_width=300, elem_classes="vl-left"):
            picture = photo_input(
                label="Photo", sources=["upload", "clipboard", "webcam"], height=230, buttons=[],
                elem_id="vl-photo-input", placeholder="Drop a photo here\nor click to choose one",
            )  # fmt: skip
            example = gr.Button("Try it on the example portrait", size="sm", elem_id="vl-photo-example")
            ask = build_ask(engine, labels=first, place="photo")
        with gr.Column(scale=7, min_width=320):
            result = gr.HTML(start_html(), apply_default_css=False, elem_id="vl-photo-result")
            with gr.Column(visible=False, elem_classes="vl-why-panel") as panel:
                wanted = gr.Checkbox(
                    False, label="Say why: which sentences pulled, and where on the face", elem_id="vl-why-toggle",
                    container=False,
                )  # fmt: skip
                reasons = gr.HTML(apply_default_css=False, elem_id="vl-why")
    kept = gr.State(None, time_to_live=1800)

    @guarded(failed=lambda card: (None, card))
    def look(path: str | None, labels: LabelSet) -> Any:
        return look_at(engine, path, labels)

    @guarded(failed=lambda card: (gr.skip(), card))
    def again(labels: LabelSet, photo: Kept | None) -> Any:
        return ask_again(engine, labels, photo)

    @guarded(failed=lambda card: (gr.skip(), card))
    def why(is_wanted: bool, photo: Kept | None, labels: LabelSet) -> Any:
        return gr.Column(visible=photo is not None), say_why(engine, is_wanted, photo, labels)

    model: Any = {"concurrency_id": "model", "api_visibility": "private"}
    explaining: Any = {"fn": why, "inputs": [wanted, kept, ask.labels], "outputs": [panel, reasons], **model}
    picture.change(look, [picture, ask.labels], [kept, result], show_progress="minimal", **model).then(
        show_progress="hidden", **explaining
    )
    example.click(lambda: str(portrait_path()), None, picture, queue=False, api_visibility="private")
    ask.on_change(again, [kept], [kept, result]).then(show_progress="hidden", **explaining)
    wanted.input(show_progress="minimal", **explaining)
