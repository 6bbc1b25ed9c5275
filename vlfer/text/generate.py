"""Descriptors from a language model: asked, checked, asked again, kept, and written as a prompt file.

One label is one request, so that what is done stays done: answers are kept on disk, and the same command run again asks
only for what is missing.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from vlfer.config import write_atomically
from vlfer.errors import PromptError, VlferError
from vlfer.text.answers import Answer, AnswerError, answer_schema, read_answer
from vlfer.text.instructions import AGAIN, build_messages, instructions_sha256
from vlfer.text.llm import ChatModel, Reply
from vlfer.text.prompt_file import PromptFile
from vlfer.text.rules import plain_words
from vlfer.types import Embedding, LabelSet, fold_label

_log = logging.getLogger(__name__)

Hook = Callable[[str, int, int], None]
"""Told (label, done, total)."""
MOST_NEAR = 6
_MOST_TOKENS = 8192


@dataclass(frozen=True, slots=True)
class GenerationSettings:
    """How answers are asked for.

    Attributes:
        seed: Of the first try; each further try of a label takes another.
        temperature: Of sampling; each further try is a little warmer, so that it can differ.
        tries: How often one label is asked for.
        max_tokens: Longest answer; doubled for a label whose answer was cut off.
        workers: Labels asked for at once.
    """

    seed: int = 0
    temperature: float = 0.7
    tries: int = 3
    max_tokens: int = 2048
    workers: int = 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one label.

    Attributes:
        label: As the user wrote it.
        answer: The checked answer, or None if every try failed.
        tries: Requests made; 0 if the answer was kept from before.
        problem: What was wrong with the last try.
    """

    label: str
    answer: Answer | None
    tries: int
    problem: str = ""


def near_labels(labels: Sequence[str], vectors: Embedding | None = None, *, most: int = MOST_NEAR) -> list[list[str]]:
    """Return for each label those that it must be told from: all others, or the nearest by text vector.

    Args:
        labels: C labels.
        vectors: Their vectors; None takes the neighbours in the list.
        most: How many for each.
    """
    if len(labels) <= most + 1:
        return [[other for other in labels if other != label] for label in labels]
    if vectors is None:
        return [[labels[(i + step) % len(labels)] for step in range(1, most + 1)] for i in range(len(labels))]
    similarity = vectors.similarity(vectors)
    orders = (-similarity).argsort(axis=1, kind="stable")
    return [[labels[j] for j in order if j != i][:most] for i, order in enumerate(orders)]


def generate(
    model: ChatModel,
    labels: Sequence[str],
    *,
    near: Sequence[Sequence[str]] | None = None,
    settings: GenerationSettings | None = None,
    cache_dir: Path | None = None,
    hook: Hook | None = None,
) -> list[Outcome]:
    """Ask a model for descriptors of every label.

    Args:
        model: What answers.
        labels: The labels, in any script.
        near: For each the labels to be told from; None takes `near_labels`.
        settings: Seed, tries, workers.
        cache_dir: Where good answers are kept; None keeps none.
        hook: Told about progress.

    Returns:
        One outcome a label, in order; a label that failed does not stop the others.

    Raises:
        EnvironmentProblem: If the model cannot be reached; what was answered before is kept.
    """
    chosen = settings or GenerationSettings()
    others = near_labels(labels) if near is None else near
    folder = None if cache_dir is None else cache_dir / "generated"
    done = 0
    stopped = threading.Event()
    lock = threading.Lock()

    def work(item: tuple[str, Sequence[str]]) -> Outcome:
        nonlocal done
        if stopped.is_set():  # the model is out of reach: the first error is told, no further request is made
            return Outcome(item[0], None, 0, "not asked")
        try:
            outcome = _one(model, item[0], near=item[1], settings=chosen, folder=folder)
        except VlferError:
            stopped.set()
            raise
        with lock:
            done += 1
            if hook is not None:
                hook(item[0], done, len(labels))
        return outcome

    pairs = list(zip(labels, others, strict=True))
    if chosen.workers <= 1:
        return [work(pair) for pair in pairs]
    with ThreadPoolExecutor(chosen.workers) as pool:
        return list(pool.map(work, pairs))


def _one(
    model: ChatModel, label: str, *, near: Sequence[str], settings: GenerationSettings, folder: Path | None
) -> Outcome:
    path = None if folder is None else folder / f"{_key(model, label, near=near, settings=settings)}.json"
    kept = None if path is None else _load(path, label=label, near=near)
    if kept is not None:
        return Outcome(label, kept, 0)
    messages: list[dict[str, str]] = build_messages(label, near=near)
    problem = ""
    max_tokens = settings.max_tokens
    for attempt in range(settings.tries):
        reply = model.reply(
            messages, schema=answer_schema(), seed=settings.seed + attempt, max_tokens=max_tokens,
            temperature=min(settings.temperature + 0.1 * attempt, 1.5),
        )  # fmt: skip
        try:
            answer = read_answer(reply, label=label, near=near)
        except AnswerError as error:
            problem = f"{error.kind}: {error.complaints[0]}"
            _log.info("%r, try %d: %s", label, attempt + 1, error)
            messages = build_messages(label, near=near)
            if error.kind == "cut off":
                max_tokens = min(2 * max_tokens, _MOST_TOKENS)
            if error.kind != "refusal":  # a refusal in view is repeated
                again = AGAIN.format(complaints="\n".join(f"- {line}" for line in error.complaints))
                messages += [{"role": "assistant", "content": reply.text[:4000]}, {"role": "user", "content": again}]
            continue
        if path is not None:
            _keep(path, answer)
        return Outcome(label, answer, attempt + 1)
    return Outcome(label, None, settings.tries, problem)


def _key(model: ChatModel, label: str, *, near: Sequence[str], settings: GenerationSettings) -> str:
    content = [model.provenance(), instructions_sha256(), label, list(near), settings.seed, settings.temperature]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:40]


def _load(path: Path, *, label: str, near: Sequence[str]) -> Answer | None:
    try:
        return read_answer(Reply(path.read_text("utf-8")), label=label, near=near)
    except (OSError, UnicodeDecodeError, AnswerError, ValidationError):
        return None  # missing or damaged: asked for again


def _keep(path: Path, answer: Answer) -> None:
    try:
        write_atomically(path, answer.model_dump_json(indent=1).encode())
    except OSError as error:
        _log.warning("Answers cannot be kept in %s (%s); going on without.", path.parent, error)


def build_prompt_file(
    outcomes: Sequence[Outcome],
    *,
    name: str,
    provenance: Mapping[str, Any],
    written: str,
    title: str = "",
    base: LabelSet | None = None,
) -> PromptFile:
    """Join answers into a prompt file; a label without an answer becomes a bare name.

    Args:
        outcomes: One a label.
        name: Of the set.
        provenance: What is told under ``origin``: model, endpoint, instructions, seed.
        written: The date.
        title: Of the set.
        base: Where the labels came from; aliases and parts are taken over.

    Raises:
        PromptError: If no label has an answer.
    """
    answered = [one for one in outcomes if one.answer is not None]
    if not answered:
        raise PromptError(
            f"The model gave no usable answer for any of {len(outcomes)} labels.",
            why=f"The last one: {outcomes[-1].problem}." if outcomes else "",
            fix="a larger model, or --tries 6",
        )
    claimed = {fold_label(one.label) for one in outcomes}
    said: set[str] = set()
    labels = []
    for one in outcomes:
        entry: dict[str, Any] = {"name": one.label}
        known = base.labels[base.index(one.label)] if base is not None else None
        if known is not None and known.aliases:
            entry["aliases"] = [word for word in known.aliases if _claim(word, claimed)]
        if one.answer is not None:
            entry |= _entry(one.answer, claimed, said)
        labels.append({key: value for key, value in entry.items() if value})
    missing = len(outcomes) - len(answered)
    checked = f"{len(answered)} of {len(outcomes)} labels answered and checked by vlfer; no human reviewed them"
    content = {
        "name": name,
        "title": title or f"Written by {provenance.get('model', 'a language model')}",
        "origin": {
            "author": f"the language model {provenance.get('model', 'unknown')}",
            "written": written,
            "instructions": "vlfer prompts generate: visible facial action only, by FACS, in three intensities",
            "checked": checked + (f"; {missing} stand as bare names" if missing else ""),
            "generated": {key: str(value) for key, value in provenance.items()},
        },
        "labels": labels,
    }
    return PromptFile.model_validate(content)


def _entry(answer: Answer, claimed: set[str], said: set[str]) -> dict[str, Any]:
    """Return the keys of a label; a sentence that an earlier label has tells the two apart no more, and is dropped."""
    return {
        "definition": answer.definition,
        "synonyms": [word for word in answer.synonyms if _claim(word, claimed)],
        "action_units": answer.action_units,
        "descriptors": [text for text in answer.descriptors if _is_new(text, said)],
        "dynamics": [text for text in answer.dynamics if _is_new(text, said)],
        "negatives": answer.negatives,
    }


def _is_new(sentence: str, said: set[str]) -> bool:
    key = plain_words(sentence)
    fresh = key not in said
    said.add(key)
    return fresh


def _claim(word: str, claimed: set[str]) -> bool:
    """Tell whether a word is still free, and take it: it can mean one label of a set only."""
    key = fold_label(word)
    free = key not in claimed
    claimed.add(key)
    return free


def with_weights(labels: LabelSet, *, name: str, note: str) -> PromptFile:
    """Return a prompt file of resolved labels that carry weights.

    Args:
        labels: What to write out, nothing inherited.
        name: Of the set.
        note: How the weights were found.
    """
    keys = (
        "aliases",
        "synonyms",
        "action_units",
        "descriptors",
        "weights",
        "negatives",
        "definition",
        "dynamics",
        "parts",
    )
    claimed = {fold_label(name) for name in labels.names}
    entries = []
    for label in labels.labels:
        entry = {"name": label.name, **{key: _plain(getattr(label, key)) for key in keys}}
        for words in ("aliases", "synonyms"):
            entry[words] = [word for word in entry[words] if _claim(word, claimed)]
        entries.append({key: value for key, value in entry.items() if value})
    return PromptFile.model_validate(
        {"name": name, "title": f"{labels.name}, weighted", "labels": entries,
         "origin": {"author": "see sources", "checked": note, "sources": [labels.origin]}}
    )  # fmt: skip


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def render_prompt_file(file: PromptFile) -> str:
    """Return a prompt file as YAML."""
    content = file.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
    return yaml.safe_dump(content, allow_unicode=True, sort_keys=False, width=120)
