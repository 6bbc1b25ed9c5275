"""The Compare tab: one photo, asked twice: with two label sets, or of two backbones."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import gradio as gr

from vlfer.models.registry import backbone_names
from vlfer.pipeline import load_pipeline
from vlfer.serve.ui_ask import build_ask
from vlfer.serve.ui_engine import Engine, Photo
from vlfer.serve.ui_guard import guarded
from vlfer.serve.ui_html import empty, esc
from vlfer.serve.ui_inputs import photo_input
from vlfer.serve.ui_photo_html import photo_html
from vlfer.serve.ui_samples import portrait_path
from vlfer.text.labels import parse_labels
from vlfer.types import LabelSet

SIDES = ("left", "right")
_MOST_LOADED = 2


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """A photo as one backbone saw it."""

    path: str
    backbone: str
    photo: Photo


class Backbones:
    """The app's own backbone, and those that were asked for beside it; the one unused longest goes first.

    Args:
        engine: Of the app's own.
    """

    def __init__(self, engine: Engine) -> None:
        self.own = engine
        self.own_name = engine.pipeline.config.backbone
        self._others: dict[str, Engine] = {}
        self._lock = threading.Lock()

    @property
    def names(self) -> tuple[str, ...]:
        """What can be chosen: only names that vlfer knows, never a path."""
        return tuple(dict.fromkeys([self.own_name, "bundled", *backbone_names()]))

    def engine(self, name: str) -> Engine:
        """Return the engine of a backbone; it is loaded at the first call.

        Raises:
            BackboneError: If its weights cannot be had.
        """
        if name == self.own_name or name not in self.names:
            return self.own
        with self._lock:
            if name not in self._others:
                while len(self._others) >= _MOST_LOADED:
                    del self._others[next(iter(self._others))]
                self._others[name] = Engine(
                    load_pipeline(name), limits=self.own.limits, pool=lambda: self.own.uploads.pool
                )
            self._others[name] = self._others.pop(name)
            return self._others[name]


def start_html() -> str:
    """Return what stands in the place of the first answer."""
    return empty("Twice the question", "Choose a photo above; each side then answers in its own words.",
                 drawing="compare")  # fmt: skip


def one_side(
    backbones: Backbones, path: str | None, labels: LabelSet, backbone: str, seen: Seen | None
) -> tuple[Seen | None, str]:
    """Answer for one side.

    Args:
        backbones: Loads what is asked for.
        path: The photo, or None.
        labels: What this side asks.
        backbone: Who answers.
        seen: What this side saw last.
    """
    if not path:
        return None, start_html()
    engine = backbones.engine(backbone)
    if seen is None or (seen.path, seen.backbone) != (path, backbone):
        seen = Seen(path, backbone, engine.look(path))
    answer = engine.tell(seen.photo, labels)
    title = f"{esc(backbone)}, {len(labels)} label{'' if len(labels) == 1 else 's'}"
    return seen, f'<h3 class="vl-side">{title}</h3>{photo_html(seen.photo, answer, labels)}'


def compare_tab(engine: Engine) -> None:
    """Lay out the tab and wire it."""
    backbones = Backbones(engine)
    questions = (engine.pipeline.labels, parse_labels("polite smile, real joy, smirk, neutral"))
    with gr.Row(elem_classes="vl-columns"), gr.Column(min_width=300):
        picture = photo_input(
            label="Photo", sources=["upload", "clipboard", "webcam"], height=220, buttons=[],
            elem_id="vl-compare-input", placeholder="Drop a photo here\nor click to choose one",
        )  # fmt: skip
        example = gr.Button("Try it on the example portrait", size="sm", elem_id="vl-compare-example")
    with gr.Row(elem_classes="vl-columns"):
        for side, labels in zip(SIDES, questions, strict=True):
            with gr.Column(min_width=300):
                ask = build_ask(engine, labels=labels, ideas=(), place=f"compare-{side}")
                name = gr.Dropdown(
                    list(backbones.names), value=backbones.own_name, label="Backbone",
                    info="Others than the bundled one are fetched at first use.", elem_id=f"vl-backbone-{side}",
                )  # fmt: skip
                result = gr.HTML(start_html(), apply_default_css=False, elem_id=f"vl-compare-{side}")
                _wire(backbones, picture, ask, name, result)
    example.click(lambda: str(portrait_path()), None, picture, queue=False, api_visibility="private")


def _wire(backbones: Backbones, picture: Any, ask: Any, name: Any, result: Any) -> None:
    seen = gr.State(None, time_to_live=1800)

    @guarded(failed=lambda card: (None, card))
    def look(path: str | None, labels: LabelSet, backbone: str, before: Seen | None) -> Any:
        return one_side(backbones, path, labels, backbone, before)

    @guarded(failed=lambda card: (gr.skip(), card))
    def again(labels: LabelSet, path: str | None, backbone: str, before: Seen | None) -> Any:
        return one_side(backbones, path, labels, backbone, before)

    model: Any = {"concurrency_id": "model", "api_visibility": "private", "show_progress": "minimal"}
    for field in (picture, name):
        field.change(look, [picture, ask.labels, name, seen], [seen, result], **model)
    ask.on_change(again, [picture, name, seen], [seen, result])
