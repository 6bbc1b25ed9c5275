"""Sentences for a label: families of templates, and the little grammar that lets any word or phrase stand in them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from vlfer.errors import PromptError, did_you_mean
from vlfer.types import Label

WordForm = Literal["noun", "adjective", "phrase"]

#: Families of templates. ``name``, ``expression``, ``photo`` are used word for word by Exp-CLIP (Zhao et al., 2024),
#: whatever the label's grammar, so that its figures can be reproduced.
FIXED_TEMPLATES: dict[str, tuple[str, ...]] = {
    "name": ("{}",),
    "expression": ("an expression of {}",),
    "photo": ("a photo of a face with an expression of {}",),
}
#: The default family: sentences in which a label of that form reads as English.
GRAMMATICAL_TEMPLATES: dict[WordForm, tuple[str, ...]] = {
    "noun": (
        "{}",
        "an expression of {}",
        "a face showing {}",
        "a photo of a face with an expression of {}",
        "a person whose face shows {}",
    ),
    "adjective": (
        "{}",
        "a {} expression",
        "a {} face",
        "a photo of a person who looks {}",
        "a person with a {} look on their face",
    ),
    "phrase": (
        "{}",
        "a facial expression: {}",
        "a person's face, {}",
        "a photo of someone who looks like this: {}",
        "the face of a person, {}",
    ),
}
TEMPLATE_FAMILIES: tuple[str, ...] = (*FIXED_TEMPLATES, "grammatical")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_DETERMINERS = frozenset({"a", "an", "the", "no", "some", "his", "her", "their"})
_NOUN_ENDINGS = ("ness", "ment", "tion", "sion", "ity", "ance", "ence", "ship", "ism", "hood", "tude", "ure", "dom")
_ADJECTIVE_ENDINGS = ("ful", "less", "ous", "ive", "able", "ible", "ed", "ing", "ish", "ic", "y", "al", "ant", "ent")
# Everyday emotion words whose ending misleads, or that have none to go by.
_NOUNS = _words(
    """
    agony anger anguish anticipation anxiety apathy awe bliss boredom calm contempt crying curiosity delight
    desire despair disgust distress doubt dread ecstasy empathy envy euphoria fear frowning fury glee grief
    guilt hate hatred hope horror hostility interest jealousy joy laughing laughter love malice melancholy
    misery nostalgia other others pain panic pity pleasure pride rage regret relief remorse scorn serenity shame
    shouting smiling sorrow spite surprise sympathy terror trust weeping wonder worry yawning
    """
)
_COUNTABLE = _words(
    """
    cry expression face frown gasp gaze glance glare grimace grin laugh look pout scowl scream smile smirk sneer
    stare wince wink yawn
    """
)
_ADJECTIVES = _words(
    """
    afraid aghast alert aloof angry awake bitter blank bored calm cheerful content glad gloomy happy hurt
    jealous lonely mad moody nervous neutral numb proud sad scared serious shy sick sleepy smug stern tense
    tired upset
    """
)


def word_form(label: str) -> WordForm:
    """Return whether a label reads as a noun ("happiness", "a broad smile"), an adjective ("happy"), or else a phrase.

    A rule of thumb for English; a wrong guess costs a clumsy sentence, never a result.
    """
    words = re.findall(r"[^\W_]+", label.casefold())
    if not words:
        return "phrase"
    if words[0] in _DETERMINERS and len(words) > 1:
        return "noun"
    last = words[-1]
    if len(words) > 3 or {"to", "of", "by", "at", "with", "about", "just", "and", "or"} & set(words):
        return "phrase"
    if last in _ADJECTIVES:
        return "adjective"
    if last in _NOUNS | _COUNTABLE or last.endswith(_NOUN_ENDINGS):
        return "noun"
    return "adjective" if last.endswith(_ADJECTIVE_ENDINGS) else "phrase"


def class_sentences(label: Label | str, *, templates: str | Sequence[str] = "grammatical") -> tuple[str, ...]:
    """Put a label into templates.

    Args:
        label: The label, or a word for it.
        templates: A family of ``TEMPLATE_FAMILIES``, or templates with one ``{}`` each.

    Returns:
        Distinct sentences in template order.

    Raises:
        PromptError: If the family is unknown, or a template lacks ``{}``.
    """
    name = label if isinstance(label, str) else label.name
    if isinstance(templates, str):
        chosen = (
            GRAMMATICAL_TEMPLATES[word_form(name)] if templates == "grammatical" else FIXED_TEMPLATES.get(templates)
        )
        if chosen is None:
            raise PromptError(
                f"The template family {templates!r} is unknown.",
                why=f"{did_you_mean(templates, TEMPLATE_FAMILIES)} Known: {', '.join(TEMPLATE_FAMILIES)}.".strip(),
            )
    else:
        chosen = tuple(templates)
    wrong = [template for template in chosen if template.count("{}") != 1]
    if wrong or not chosen:
        raise PromptError(
            f"The template {wrong[0]!r} has no place for the label." if wrong else "The list of templates is empty.",
            why="A template holds {} exactly once.",
            fix='"a photo of a face that shows {}"',
        )
    inside = _with_article(name) if templates == "grammatical" else name
    return tuple(dict.fromkeys(t.replace("{}", name if t == "{}" else inside) for t in chosen))


def _with_article(name: str) -> str:
    """Return "a polite smile" for "polite smile", and any word that takes no article as it is."""
    words = name.split()
    if word_form(name) != "noun" or words[0].casefold() in _DETERMINERS or words[-1].casefold() not in _COUNTABLE:
        return name
    return f"{'an' if words[0][0].casefold() in 'aeiou' else 'a'} {name}"
