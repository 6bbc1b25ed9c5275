"""The Webcam tab: faces as they are now, smoothed over the last half second."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
import numpy as np

from vlfer.faces.detect import overlap
from vlfer.serve.ui_ask import build_ask
from vlfer.serve.ui_engine import Engine, Photo
from vlfer.serve.ui_guard import guarded
from vlfer.serve.ui_html import empty, relative
from vlfer.serve.ui_inputs import camera_input
from vlfer.serve.ui_photo_html import face_card
from vlfer.types import Embedding, Face, FloatArray, LabelSet, UInt8Array

SMOOTHING_S = 0.5
_SAME_FACE = 0.3
_FORGET_S = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class Live:
    """What is remembered from one frame to the next: no pixels, save in the answer on the screen.

    Attributes:
        boxes: Of the faces in the last frame.
        vectors: (N, D) float32, their smoothed vectors.
        at_s: When it was.
        fps: Answers a second, smoothed.
    """

    boxes: tuple[FloatArray, ...]
    vectors: FloatArray
    at_s: float
    fps: float = 0.0


def start_html() -> str:
    """Return what stands in the place of the first answer."""
    return empty("Live", "Allow the camera and press Record; stop it at any time. No picture is kept.", drawing="live")


def see_frame(
    engine: Engine, pixels: UInt8Array | None, labels: LabelSet, before: Live | None, *, now_s: float
) -> tuple[Live | None, str]:
    """Answer for one frame.

    Args:
        engine: Looks and tells.
        pixels: (H, W, 3) uint8 RGB, or None where the camera gave nothing.
        labels: What is asked.
        before: What is known of the last frame.
        now_s: A clock.
    """
    if pixels is None:
        return before, start_html()
    begun = time.perf_counter()
    faces, _ = engine.pipeline.find(pixels, effort="fast")
    fps = _pace(before, now_s)
    if not faces:
        waiting = empty("No face in sight", "Move into the picture, or turn on a light.", drawing="live")
        spent = time.perf_counter() - begun
        return Live((), np.zeros((0, 0), dtype=np.float32), now_s, fps), _gauges(fps, spent, 0) + waiting
    faces = faces[:4]
    crops = tuple(engine.pipeline.crop(pixels, face) for face in faces)
    fresh = engine.pipeline.encode(np.stack(crops))
    vectors = smooth(fresh.vectors, faces, before, now_s=now_s)
    height, width = pixels.shape[:2]
    photo = Photo(pixels, width, height, tuple(faces), crops, Embedding(vectors, fresh.space))
    answer = engine.tell(photo, labels)
    spent = time.perf_counter() - begun
    cards = "".join(face_card(photo, answer, i, before=None, is_open=True) for i in range(len(faces)))
    page = (
        f'{_gauges(fps, spent, len(faces))}<div class="vl-cards">{cards}</div>'
        f"{relative(labels, threshold=answer.threshold)}"
    )
    return Live(tuple(face.box for face in faces), vectors, now_s, fps), page


def smooth(fresh: FloatArray, faces: Sequence[Face], before: Live | None, *, now_s: float) -> FloatArray:
    """Return unit vectors that follow the fresh ones with a time constant of half a second, face by face."""
    if before is None or not before.boxes or now_s - before.at_s > _FORGET_S:
        return fresh
    new = 1 - float(np.exp(-max(now_s - before.at_s, 1e-3) / SMOOTHING_S))
    mixed = fresh.copy()
    for i, face in enumerate(faces):
        shared = [overlap(face.box, box)[0] for box in before.boxes]
        best = int(np.argmax(shared))
        if shared[best] > _SAME_FACE:
            mixed[i] = new * fresh[i] + (1 - new) * before.vectors[best]
    norms = np.linalg.norm(mixed, axis=1, keepdims=True)
    return np.where(norms > 1e-6, mixed / np.maximum(norms, 1e-6), fresh).astype(np.float32)


def webcam_tab(engine: Engine) -> None:
    """Lay out the tab and wire it."""
    with gr.Row(elem_classes="vl-columns"):
        with gr.Column(scale=5, min_width=300, elem_classes="vl-left"):
            camera = camera_input(label="Camera", height=330, buttons=[], elem_id="vl-camera")
            ask = build_ask(engine, labels=engine.pipeline.labels, place="webcam")
        with gr.Column(scale=7, min_width=320):
            result = gr.HTML(start_html(), apply_default_css=False, elem_id="vl-webcam-result")
    live = gr.State(None, time_to_live=600)

    @guarded(failed=lambda card: (None, card))
    def see(frame: bytes | None, labels: LabelSet, before: Live | None) -> Any:
        pixels = engine.uploads.pixels(frame) if frame else None
        return see_frame(engine, pixels, labels, before, now_s=time.monotonic())

    camera.stream(
        see, [camera, ask.labels, live], [live, result], stream_every=0.1, time_limit=600, concurrency_id="live",
        concurrency_limit=2, show_progress="hidden", api_visibility="private",
    )  # fmt: skip


def _pace(before: Live | None, now_s: float) -> float:
    if before is None or now_s - before.at_s > _FORGET_S:
        return 0.0
    now = 1 / max(now_s - before.at_s, 1e-3)
    return now if before.fps == 0 else 0.8 * before.fps + 0.2 * now


def _gauges(fps: float, spent_s: float, faces: int) -> str:
    rate = f"{fps:.1f}" if fps else "-"
    return (
        f'<div class="vl-gauges"><div><strong>{rate}</strong><span class="vl-faint">answers a second</span></div>'
        f'<div><strong>{1000 * spent_s:.0f} ms</strong><span class="vl-faint">to look and answer</span></div>'
        f'<div><strong>{faces}</strong><span class="vl-faint">{"face" if faces == 1 else "faces"}</span></div></div>'
    )
