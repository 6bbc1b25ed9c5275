"""From what a language model said to descriptors that can be used, or to complaints that it can act on."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vlfer.text.llm import Reply
from vlfer.text.prompt_file import MAX_WORDS
from vlfer.text.rules import FEELING, IDENTITY, VISIBLE, names_label, plain_words
from vlfer.types import fold_label

_REFUSAL = re.compile(
    r"\b(?:I(?:'m| am) (?:very )?sorry|I can(?:'t|not| not)|I(?:'m| am) (?:unable|not able)|I won't|as an AI"
    r"|unable to assist)\b",
    re.IGNORECASE,
)
_LONGEST_SENTENCE = 40
_FEWEST_WORDS = 3
_GRADES = {"subtle": 2, "moderate": 3, "strong": 2}
_FEWEST_DYNAMICS = 1
_FEWEST_NEGATIVES = 3
_MOST_SYNONYMS = 6
_HIGHEST_UNIT = 64


class Contrast(BaseModel):
    """What tells an expression from a near one."""

    model_config = ConfigDict(extra="ignore")

    against: str = ""
    sentence: str


class Answer(BaseModel):
    """What a model wrote on one label; unknown keys are ignored."""

    model_config = ConfigDict(extra="ignore")

    definition: str
    synonyms: list[str] = Field(default_factory=list)
    action_units: list[str] = Field(default_factory=list)
    subtle: list[str]
    moderate: list[str]
    strong: list[str]
    dynamics: list[str]
    contrast: list[Contrast] = Field(default_factory=list)
    negatives: list[str]

    @property
    def descriptors(self) -> tuple[str, ...]:
        """The sentences that stand for a still face, weak to strong, then those that tell it from near ones."""
        return (*self.subtle, *self.moderate, *self.strong, *(one.sentence for one in self.contrast))


class AnswerError(ValueError):
    """An answer that cannot be used.

    Args:
        kind: "refusal", "cut off", "no JSON", "invalid JSON", "wrong keys" or "weak sentences".
        complaints: What is wrong, one line each, as the model is told.
    """

    def __init__(self, kind: str, complaints: Sequence[str]) -> None:
        self.kind = kind
        self.complaints = tuple(complaints)
        super().__init__(f"{kind}: {'; '.join(complaints)}")


def answer_schema() -> dict[str, Any]:
    """Return the JSON schema that endpoints are asked to keep to."""
    return Answer.model_json_schema()


def read_answer(reply: Reply, *, label: str, near: Sequence[str] = ()) -> Answer:
    """Check an answer and keep the sentences that follow the rules.

    Single bad sentences are dropped; the answer fails only if too few are left.

    Args:
        reply: What the model said.
        label: The label it was asked about.
        near: The labels it was to be told from.

    Raises:
        AnswerError: If it is a refusal, is cut off, is no JSON, lacks keys, or leaves too few good sentences.
    """
    content = _read_json(reply)
    try:
        answer = Answer.model_validate(content)
    except ValidationError as error:
        lines = [f"{'.'.join(str(part) for part in e['loc'])}: {e['msg'].lower()}" for e in error.errors()[:8]]
        raise AnswerError("wrong keys", lines) from error
    return _cleaned(answer, label=label, near=near)


def _read_json(reply: Reply) -> Any:
    text = reply.text.strip()
    start = text.find("{")
    if reply.ending == "refusal" or (start < 0 and _REFUSAL.search(text)):
        raise AnswerError("refusal", [f"the model refuses: {_short(text)}"])
    if start < 0:
        if reply.ending == "length":
            raise AnswerError("cut off", ["the answer was cut off before any JSON began; answer with JSON at once"])
        raise AnswerError("no JSON", [f"there is no JSON object in it; it begins {_short(text)!r}"])
    try:
        content, _ = json.JSONDecoder().raw_decode(text[start:])
    except (json.JSONDecodeError, RecursionError) as error:
        at_end = isinstance(error, json.JSONDecodeError) and error.pos >= len(text[start:].rstrip()) - 1
        if reply.ending == "length" or at_end or text.count("{") > text.count("}"):
            raise AnswerError("cut off", ["the JSON ends in the middle; write shorter sentences"]) from error
        raise AnswerError("invalid JSON", [f"it is not valid JSON: {error}"]) from error
    return content


def _cleaned(answer: Answer, *, label: str, near: Sequence[str]) -> Answer:
    seen: set[str] = set()
    complaints: list[str] = []
    kept: dict[str, list[str]] = {}
    for key, fewest in (*_GRADES.items(), ("dynamics", _FEWEST_DYNAMICS)):
        written = getattr(answer, key)
        kept[key] = [_sentence(text) for text in written if not _objection(text, label, seen, complaints)]
        if len(kept[key]) < fewest:
            complaints.append(f"{key}: {len(kept[key])} of {len(written)} sentences can be used, {fewest} are needed")
    _complain_of_sameness(answer, complaints)
    negatives = list(dict.fromkeys(" ".join(text.split()).rstrip(".") for text in answer.negatives))
    negatives = [t for t in negatives if 2 <= len(t.split()) <= 15 and not IDENTITY.search(t) and not FEELING.search(t)]
    if len(negatives) < _FEWEST_NEGATIVES:
        complaints.append(f"negatives: {len(negatives)} distinct cues can be used, {_FEWEST_NEGATIVES} are needed")
    definition = " ".join(answer.definition.split())
    if not definition or len(definition.split()) > _LONGEST_SENTENCE or IDENTITY.search(definition):
        complaints.append("definition: one plain sentence of at most 20 words is needed")
    if any(line for line in complaints if " are needed" in line or " is needed" in line):
        raise AnswerError("weak sentences", list(dict.fromkeys(complaints))[:12])
    contrast = [
        Contrast(against=one.against, sentence=_sentence(one.sentence))
        for one in answer.contrast
        if fold_label(one.against) in {fold_label(name) for name in near}
        and not _objection(one.sentence, label, seen, [])
    ]
    return answer.model_copy(
        update={
            **kept, "definition": definition, "negatives": negatives, "contrast": contrast,
            "synonyms": _synonyms(answer.synonyms, label=label, near=near), "action_units": _units(answer.action_units),
        }
    )  # fmt: skip


def _objection(text: str, label: str, seen: set[str], complaints: list[str]) -> bool:
    """Tell whether a sentence breaks a rule, and note which."""
    reason = ""
    words = len(text.split())
    if not _FEWEST_WORDS <= words <= min(_LONGEST_SENTENCE, MAX_WORDS):
        reason = f"has {words} words"
    elif match := IDENTITY.search(text):
        reason = f"says who it is ({match.group()!r})"
    elif match := FEELING.search(text):
        reason = f"says what is felt ({match.group()!r})"
    elif names_label(text, [label]):
        reason = "says the name of the expression"
    elif not VISIBLE.search(text):
        reason = "names nothing visible on a face"
    elif plain_words(text) in seen:
        reason = "is given twice"
    if reason:
        complaints.append(f"{_short(text)!r} {reason}")
        return True
    seen.add(plain_words(text))
    return False


def _complain_of_sameness(answer: Answer, complaints: list[str]) -> None:
    written = [*answer.descriptors, *answer.dynamics]
    distinct = {plain_words(text) for text in written}
    if len(written) > 3 and len(distinct) <= len(written) / 2:
        complaints.insert(
            0, f"only {len(distinct)} of {len(written)} sentences are different: every one must be its own"
        )


def _synonyms(words: Sequence[str], *, label: str, near: Sequence[str]) -> list[str]:
    taken = {fold_label(name) for name in (label, *near)}
    kept: dict[str, str] = {}
    for word in words:
        plain = " ".join(word.split())
        if plain and len(plain.split()) <= 4 and fold_label(plain) not in taken and not IDENTITY.search(plain):
            kept.setdefault(fold_label(plain), plain)
    return list(kept.values())[:_MOST_SYNONYMS]


def _units(written: Sequence[str]) -> list[str]:
    numbers = dict.fromkeys(int(n) for text in written for n in re.findall(r"\d{1,2}", text))
    return [f"AU{n}" for n in numbers if 1 <= n <= _HIGHEST_UNIT]


def _sentence(text: str) -> str:
    plain = " ".join(text.split())
    plain = plain[:1].upper() + plain[1:]
    return plain if plain.endswith((".", "!", "?")) else f"{plain}."


def _short(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= 80 else f"{plain[:77]}..."
