"""The Micro-expression tab: a short clip, or an onset and an apex, to motion and labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import gradio as gr
import numpy as np

from vlfer.config import resource_dir
from vlfer.errors import DataError
from vlfer.mie import MicroRecognizer, MicroResult
from vlfer.models.flow_encoder import FlowAdapter, load_flow_adapter
from vlfer.scoring import default_threshold
from vlfer.serve.ui_ask import build_ask
from vlfer.serve.ui_engine import Engine, SentenceScore
from vlfer.serve.ui_guard import guarded
from vlfer.serve.ui_html import empty
from vlfer.serve.ui_inputs import clip_input, photo_input
from vlfer.serve.ui_micro_html import micro_html
from vlfer.serve.ui_samples import clip_path
from vlfer.serve.ui_video import example_folder
from vlfer.text.bank import compared_sentences
from vlfer.text.labels import load_label_set
from vlfer.types import Frames, LabelSet, UInt8Array

IDEAS = ("suppressed smile, flash of disgust, startled look", "frowning brows, raised brows, pressed lips")
LONGEST_S, MOST_FRAMES, LONGEST_SIDE_PX = 12.0, 2400, 480
_EVERY_FRAME_FPS = 10_000.0


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """The two frames that were compared, so that other words can be asked without searching the clip again.

    Attributes:
        onset: (H, W, 3) uint8 RGB.
        apex: (H, W, 3) uint8 RGB.
        result: What was found.
        length_s: Of the clip; 0 for two pictures.
    """

    onset: UInt8Array
    apex: UInt8Array
    result: MicroResult
    length_s: float


class MicroEngine:
    """Recognises micro-expressions with the tower and the detector of the app; its own weights are read once."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._adapter: FlowAdapter | None = None

    def recognizer(self, labels: LabelSet) -> MicroRecognizer:
        """Return what recognises these labels.

        Raises:
            AdapterError: If the shipped flow encoder was made for another backbone.
            PromptError: If there are too many labels.
        """
        self.engine.check(labels)
        pipeline = self.engine.pipeline
        if self._adapter is None:
            self._adapter = load_flow_adapter(resource_dir("adapters") / "mie-flow", space=pipeline.encoder.space)
        return MicroRecognizer(self.engine.detector(), self._adapter, pipeline.bank, labels)

    def clip(self, path: str, labels: LabelSet) -> Motion:
        """Find onset and apex in a clip and say what moved.

        Raises:
            VlferError: If it is no video, or too long.
            NoFaceError: If it shows no face.
        """
        recognizer = self.recognizer(labels)
        frames = self._frames(path)
        result = recognizer.recognize_clip(frames)
        found = result.moments
        length_s = float(frames.times_s[-1])
        return Motion(frames.pixels[found.onset], frames.pixels[found.apex], result, length_s)

    def pair(self, onset: str, apex: str, labels: LabelSet) -> Motion:
        """Say what moved between two pictures.

        Raises:
            VlferError: If one is no picture.
            NoFaceError: If one shows no face.
        """
        first, second = self.engine.uploads.pixels(onset), self.engine.uploads.pixels(apex)
        return Motion(first, second, self.recognizer(labels).recognize_pair(first, second), 0.0)

    def again(self, motion: Motion, labels: LabelSet) -> Motion:
        """Answer for the same motion in other words."""
        result = self.recognizer(labels).recognize_pair(motion.onset, motion.apex)
        kept = replace(result, moments=motion.result.moments, notes=motion.result.notes)
        return replace(motion, result=kept)

    def _frames(self, path: str) -> Frames:
        """Read a whole short clip, scaled down where it is large."""
        chunks, count = [], 0
        opened = self.engine.uploads.video(path, fps=_EVERY_FRAME_FPS, longest_s=LONGEST_S, side_px=LONGEST_SIDE_PX)
        with opened as clip:
            for chunk in clip.chunks:
                chunks.append(chunk)
                count += len(chunk)
                if count > MOST_FRAMES:
                    raise DataError(f"The clip has more than {MOST_FRAMES} frames.", fix="cut it to the moment.")
        pixels = np.concatenate([chunk.pixels for chunk in chunks])
        return Frames(pixels, np.concatenate([chunk.times_s for chunk in chunks]), "upload")


def start_html() -> str:
    """Return what stands in the place of the first answer."""
    return empty("Half a second", "A clip of one expression, best at 100 frames a second or more; or two pictures.",
                 drawing="motion")  # fmt: skip


def shown(motion: Motion | None, labels: LabelSet) -> tuple[Motion | None, str]:
    """Return a motion with its answer as HTML."""
    if motion is None:
        return None, start_html()
    sentences = tuple(
        (label.name, tuple(SentenceScore(text) for text in compared_sentences(label, label_set=labels)))
        for label in labels.labels
    )
    page = micro_html(
        motion.result, labels, sentences=sentences, length_s=motion.length_s, threshold=default_threshold(len(labels))
    )
    return motion, page


def micro_tab(engine: Engine) -> None:
    """Lay out the tab and wire it."""
    micro = MicroEngine(engine)
    with gr.Row(elem_classes="vl-columns"):
        with gr.Column(scale=5, min_width=300, elem_classes="vl-left"):
            with gr.Tabs():
                with gr.Tab("A clip"):
                    clip = clip_input(label="Clip", sources=["upload"], height=250, buttons=[], elem_id="vl-micro-clip")
                with gr.Tab("Onset and apex"), gr.Row():
                    size: Any = {"sources": ["upload", "clipboard"], "height": 220, "buttons": [], "min_width": 120}
                    onset = photo_input(label="Onset (at rest)", elem_id="vl-onset", **size)
                    apex = photo_input(label="Apex (strongest)", elem_id="vl-apex", **size)
            example = gr.Button("Try it on the example clip", size="sm", elem_id="vl-micro-example")
            ask = build_ask(engine, labels=load_label_set("micro3"), ideas=IDEAS, place="micro")
        with gr.Column(scale=7, min_width=320):
            result = gr.HTML(start_html(), apply_default_css=False, elem_id="vl-micro-result")
    kept = gr.State(None, time_to_live=1800)

    @guarded(failed=lambda card: (None, card))
    def see_clip(path: str | None, labels: LabelSet) -> Any:
        return shown(micro.clip(path, labels) if path else None, labels)

    @guarded(failed=lambda card: (None, card))
    def see_pair(first: str | None, second: str | None, labels: LabelSet) -> Any:
        if not first or not second:
            return (gr.skip(), gr.skip()) if first or second else (None, start_html())
        return shown(micro.pair(first, second, labels), labels)

    @guarded(failed=lambda card: (gr.skip(), card))
    def again(labels: LabelSet, motion: Motion | None) -> Any:
        return shown(micro.again(motion, labels) if motion else None, labels)

    @guarded(failed=lambda card: (gr.skip(), card))
    def show_example() -> Any:
        return str(clip_path(example_folder(), "micro", detector=engine.detector())), gr.skip()

    model: Any = {"concurrency_id": "model", "api_visibility": "private"}
    clip.change(see_clip, [clip, ask.labels], [kept, result], **model)
    for field in (onset, apex):
        field.change(see_pair, [onset, apex, ask.labels], [kept, result], **model)
    example.click(show_example, None, [clip, result], **model)
    ask.on_change(again, [kept], [kept, result])
