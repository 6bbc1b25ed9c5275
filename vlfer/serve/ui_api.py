"""What a program asks the app through Gradio's own client; richer answers come from the HTTP service."""

from __future__ import annotations

import dataclasses
from typing import Any

import gradio as gr

from vlfer.serve.ui_engine import Engine
from vlfer.serve.ui_guard import spoken
from vlfer.serve.ui_inputs import photo_input
from vlfer.text.labels import parse_labels, resolve_label_spec
from vlfer.types import LabelSet


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
    faces = [dataclasses.asdict(prediction) for prediction in answer.predictions]
    compared = {name: [one.text for one in group] for name, group in engine.sentences(labels)}
    reading = "perceived expression, not felt emotion; probabilities are relative to the labels given"
    return {"faces": faces, "sentences": compared, "threshold": answer.threshold, "reading": reading}


def add_api(engine: Engine) -> None:
    """Offer `ask_photo` as ``/photo``."""

    def photo(picture: str | None, words: str) -> dict[str, Any]:
        try:
            return ask_photo(engine, picture, words)
        except Exception as error:
            raise gr.Error(spoken(error), print_exception=False) from None

    with gr.Row(visible=False):
        picture, words, answer = photo_input(label="Photo"), gr.Textbox(label="Words"), gr.JSON(label="Answer")
        ask = gr.Button("Ask")
    ask.click(photo, [picture, words], answer, api_name="photo", concurrency_id="model")
