"""What a program asks the app through Gradio's own client; richer answers come from the HTTP service."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from vlfer.errors import VideoReadError
from vlfer.serve.ui_engine import Engine
from vlfer.serve.ui_guard import spoken
from vlfer.serve.ui_inputs import clip_input, photo_input
from vlfer.text.labels import parse_labels, resolve_label_spec
from vlfer.types import LabelSet, Prediction

Ask = Callable[[Engine, str | None, str], dict[str, Any]]


def asked(words: str) -> LabelSet:
    """Return the labels that words mean: one bare word names a shipped set; a path is never opened.

    Raises:
        PromptError: If they cannot be used.
    """
    text = words.strip()
    is_path = any(mark in text for mark in "/\\") or text.lower().endswith((".yaml", ".yml"))
    return parse_labels(text) if is_path else resolve_label_spec(text)


def ask_photo(engine: Engine, path: str | None, words: str) -> dict[str, Any]:
    """Return what the faces of a photo show, JSON-ready.

    Args:
        engine: Looks and tells.
        path: The upload.
        words: Labels, or the name of a set; empty for those the app was started with.

    Raises:
        VlferError: If there is no picture, no face, or the words cannot be used.
    """
    labels = asked(words) if words.strip() else engine.pipeline.labels
    answer = engine.tell(engine.look(path or ""), labels)
    return {"faces": _plain(answer.predictions), **_compared(engine, labels)}


def ask_video(engine: Engine, path: str | None, words: str) -> dict[str, Any]:
    """Return what the people of a video show, JSON-ready; arguments and errors as for `ask_photo`."""
    if not path:
        raise VideoReadError("There is no video.", why="None was given.", fix="a file.")
    labels = asked(words) if words.strip() else engine.pipeline.labels
    report = engine.tell_film(engine.watch(path, session=secrets.token_hex(8)), labels).report
    return {"segments": _plain(report.predictions), "message": report.message, **_compared(engine, labels)}


def _plain(predictions: Sequence[Prediction]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(prediction) for prediction in predictions]


def _compared(engine: Engine, labels: LabelSet) -> dict[str, Any]:
    sentences = {name: [one.text for one in group] for name, group in engine.sentences(labels)}
    reading = "perceived expression, not felt emotion; probabilities are relative to the labels given"
    return {"sentences": sentences, "threshold": engine.threshold(labels), "reading": reading}


def add_api(engine: Engine) -> None:
    """Offer `ask_photo` as ``/photo`` and `ask_video` as ``/video``."""

    def told(ask: Ask) -> Any:
        def run(path: str | None, words: str) -> dict[str, Any]:
            try:
                return ask(engine, path, words)
            except Exception as error:
                raise gr.Error(spoken(error), print_exception=False) from None

        return run

    with gr.Row(visible=False):
        picture, clip = photo_input(label="Photo"), clip_input(label="Video")
        words, answer, go = gr.Textbox(label="Words"), gr.JSON(label="Answer"), gr.Button("Ask")
    for name, field, ask in (("photo", picture, ask_photo), ("video", clip, ask_video)):
        go.click(told(ask), [field, words], answer, api_name=name, concurrency_id="model")
