"""The panel in which words are asked: a label set or any words, and the sentences behind each, edited in place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from vlfer.errors import PromptError
from vlfer.serve.ui_engine import Engine
from vlfer.serve.ui_guard import guarded
from vlfer.serve.ui_html import note
from vlfer.text.labels import load_label_set, non_latin, parse_labels, shipped_sets
from vlfer.types import LabelSet, fold_label

OWN_WORDS = "my own words"
FACE_IDEAS = (
    "polite smile, real joy, smirk",
    "about to cry, tired, calm",
    "concentrated, bored, curious, proud",
)
MOST_DESCRIPTORS = 40


@dataclass(frozen=True, slots=True)
class Ask:
    """The fields of one panel; ``labels`` is the state in which the question lies."""

    labels: gr.State
    chosen: gr.Dropdown
    words: gr.Textbox
    picked: gr.Dropdown
    descriptors: gr.Textbox
    remark: gr.HTML

    def on_change(self, handler: Callable[..., Any], inputs: Sequence[Any], outputs: Sequence[Any]) -> Any:
        """Call ``handler(labels, *inputs)`` whenever the question changes; return the event, for what comes then."""
        return self.labels.change(
            handler, [self.labels, *inputs], list(outputs),
            show_progress="hidden", concurrency_id="scores", concurrency_limit=4, api_visibility="private",
        )  # fmt: skip


def joined(labels: LabelSet) -> str:
    """Return the names as one would type them."""
    return ", ".join(f'"{name}"' if any(mark in name for mark in ",;") else name for name in labels.names)


def typed(text: str, before: LabelSet) -> LabelSet:
    """Return the labels of typed words; a word that was there before keeps its descriptors, which the panel shows.

    Raises:
        PromptError: As `vlfer.text.labels.parse_labels`.
    """
    fresh = parse_labels(text)
    known = {fold_label(label.name): label for label in before.labels}
    kept = tuple(replace(known.get(fold_label(one.name), one), name=one.name) for one in fresh.labels)
    return replace(fresh, labels=kept, origin="Typed by the user; descriptors as shown in the panel.")


def described(text: str, name: str, labels: LabelSet) -> LabelSet:
    """Return the labels with other descriptors for one of them.

    Args:
        text: One sentence a line.
        name: The label.
        labels: The question so far.

    Raises:
        PromptError: If the label is not there, or there are too many sentences or one that is too long.
    """
    lines = tuple(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))
    if len(lines) > MOST_DESCRIPTORS:
        raise PromptError(f"There are {len(lines)} sentences.", why=f"At most {MOST_DESCRIPTORS} are compared.")
    long = [line for line in lines if len(line) > 500]
    if long:
        raise PromptError(f"A sentence has {len(long[0])} characters.", why="At most 500 are read.", fix="two of them.")
    at = labels.index(name)
    changed = replace(labels.labels[at], descriptors=lines)
    return LabelSet(
        (*labels.labels[:at], changed, *labels.labels[at + 1 :]), name="custom", origin="Edited in the app."
    )


def build_ask(engine: Engine, *, labels: LabelSet, ideas: Sequence[str] = FACE_IDEAS, place: str = "") -> Ask:
    """Lay out a panel and wire its fields to one another.

    Args:
        engine: Checks the size of a question.
        labels: What is asked at first.
        ideas: Questions that one click asks.
        place: Name of the tab, for the ids of the fields.
    """
    with gr.Group(elem_classes="vl-ask"):
        words = gr.Textbox(
            joined(labels), label="Which expressions?", info="Any words or phrases, separated by commas.",
            lines=1, max_lines=6, max_length=20_000, elem_id=f"vl-words-{place}", elem_classes="vl-words",
        )  # fmt: skip
        with gr.Row(elem_classes="vl-ideas"):
            buttons = [gr.Button(idea, size="sm", variant="secondary", min_width=60) for idea in ideas]
        sets = [OWN_WORDS, *shipped_sets()]
        first = labels.name if labels.name in sets else OWN_WORDS
        chosen = gr.Dropdown(sets, value=first, label="or take a label set", elem_id=f"vl-set-{place}")
        remark = gr.HTML(apply_default_css=False, elem_classes="vl-remark")
        with gr.Accordion("Describe a word: how does it look?", open=False, elem_classes="vl-describe"):
            picked = gr.Dropdown(list(labels.names), value=labels.names[0], label="Word", elem_id=f"vl-picked-{place}")
            descriptors = gr.Textbox(
                "\n".join(labels.labels[0].descriptors), label="Sentences on brows, eyes, mouth; one a line",
                info="The scores follow as you type.", lines=5, max_lines=14, max_length=20_000,
                elem_id=f"vl-descriptors-{place}",
            )  # fmt: skip
    ask = Ask(gr.State(labels), chosen, words, picked, descriptors, remark)
    _wire(engine, ask, buttons)
    return ask


def _wire(engine: Engine, ask: Ask, buttons: Sequence[gr.Button]) -> None:
    quiet: Any = {
        "show_progress": "hidden", "concurrency_id": "scores", "concurrency_limit": 4, "api_visibility": "private",
    }  # fmt: skip
    following = [ask.picked, ask.descriptors, ask.remark]

    def unchanged(card: str) -> Any:
        return gr.skip(), gr.skip(), gr.skip(), gr.skip(), gr.skip(), card

    def take(found: LabelSet, *, words: Any, chosen: Any) -> Any:
        engine.check(found)
        first = found.labels[0]
        lines = "\n".join(first.descriptors)
        return found, words, chosen, gr.Dropdown(list(found.names), value=first.name), lines, foreign_note(found)

    @guarded(failed=unchanged)
    def words_typed(text: str, before: LabelSet) -> Any:
        return take(typed(text, before), words=gr.skip(), chosen=OWN_WORDS)

    @guarded(failed=unchanged)
    def set_chosen(name: str) -> Any:
        if name == OWN_WORDS:
            return (gr.skip(),) * 6
        found = load_label_set(name)
        return take(found, words=joined(found), chosen=gr.skip())

    @guarded(failed=unchanged)
    def idea_taken(idea: str, before: LabelSet) -> Any:
        return take(typed(idea, before), words=idea, chosen=OWN_WORDS)

    @guarded(failed=lambda card: (gr.skip(), card))
    def word_picked(name: str, labels: LabelSet) -> Any:
        return "\n".join(labels.labels[labels.index(name)].descriptors), ""

    @guarded(failed=lambda card: (gr.skip(), gr.skip(), card))
    def descriptors_typed(text: str, name: str, labels: LabelSet) -> Any:
        return described(text, name, labels), OWN_WORDS, ""

    asked = [ask.labels, ask.words, ask.chosen, *following]
    ask.words.input(words_typed, [ask.words, ask.labels], asked, trigger_mode="always_last", **quiet)
    ask.chosen.input(set_chosen, ask.chosen, asked, **quiet)
    for button in buttons:
        button.click(idea_taken, [button, ask.labels], asked, **quiet)
    ask.picked.input(word_picked, [ask.picked, ask.labels], [ask.descriptors, ask.remark], **quiet)
    ask.descriptors.input(
        descriptors_typed, [ask.descriptors, ask.picked, ask.labels], [ask.labels, ask.chosen, ask.remark],
        trigger_mode="always_last", **quiet,
    )  # fmt: skip


def foreign_note(labels: LabelSet) -> str:
    """Return a warning where words are in a script that the bundled model does not read."""
    foreign = non_latin(labels)
    if not foreign:
        return ""
    return note(f"The bundled model reads English: expect guesses for {', '.join(foreign[:5])}")
