"""Gradio's image and video fields, handing over the upload untouched: vlfer reads it, and explains if it cannot.

Methods are replaced on the instance, as Gradio writes a stub file beside the module of every subclass.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import FileData


def photo_input(**settings: Any) -> gr.Image:
    """Return a field for a picture from a file, the clipboard or the camera, given to handlers as a path."""
    field = gr.Image(type="filepath", **settings)
    field.preprocess = _path_of  # type: ignore[method-assign]
    return field


def clip_input(**settings: Any) -> gr.Video:
    """Return a field for a video from a file or the camera, given to handlers as a path; nothing is converted."""
    field = gr.Video(**settings)
    field.preprocess = _path_of
    field.postprocess = _file_at
    return field


def camera_input(**settings: Any) -> gr.Image:
    """Return a field for the live camera, each frame given to handlers as the bytes of a file."""
    field = gr.Image(type="filepath", sources=["webcam"], streaming=True, **settings)
    field.preprocess = _bytes_of  # type: ignore[method-assign, assignment]
    return field


def _bytes_of(payload: Any) -> bytes | None:
    if payload is None:
        return None
    if payload.url and payload.url.startswith("data:"):
        return base64.b64decode(payload.url.partition(",")[2])
    return Path(payload.path).read_bytes()


def _path_of(payload: Any) -> str | None:
    return None if payload is None else str(payload.path)


def _file_at(value: Any) -> FileData | None:
    return None if value is None else FileData(path=str(value))
