"""Label sets: shipped ones by name, your own from a YAML file, or words as you type them.

Typed words are taken exactly as typed. A typed "awe" gets the sentence templates that every label gets, but not the
descriptors of the shipped label "awe": what a word adds to a score must be seen by whoever typed it. To have the
shipped words, write ``from: open/awe`` in a YAML file or take a shipped set.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from vlfer.config import resource_dir
from vlfer.errors import PromptError, did_you_mean
from vlfer.text.prompt_file import (
    MAX_CHARS,
    MAX_WORDS,
    LabelOrder,
    PromptFile,
    read_prompt_file,
    resolve_labels,
    shipped_file,
)
from vlfer.types import Label, LabelSet, fold_label

_QUOTES = {'"': '"', "\u201c": "\u201d", "\u201e": "\u201c"}
_SEPARATORS = ",;\n"


def shipped_sets() -> tuple[str, ...]:
    """Return the names of the label sets that come with vlfer, sorted."""
    return tuple(name for name in _shipped_files() if shipped_file(name).kind == "set")


def load_label_set(spec: str | Path) -> LabelSet:
    """Load a label set by name or from a YAML file.

    Args:
        spec: Name of a shipped set ("ferplus8"; case, "-" and "_" make no difference), or the path of a prompt file.
            A string is a path if it ends in .yaml or .yml or holds a path separator.

    Raises:
        PromptError: If no such set or file exists (the message names the near one and lists them all), or the file is
            malformed.
    """
    file, path = _find(spec)
    origin = file.origin.text() if file.origin else f"Read from {path}."
    return LabelSet(resolve_labels(file, path), name=file.name, origin=origin)


def load_orders(spec: str | Path) -> dict[str, LabelOrder]:
    """Return how data sets number the labels of a set, by data set ("dfew", "dfew-rebased").

    Args:
        spec: As for :func:`load_label_set`.

    Raises:
        PromptError: As for :func:`load_label_set`.
    """
    return dict(_find(spec)[0].orders)


def parse_labels(text: str) -> LabelSet:
    """Take labels as typed, separated by commas, semicolons or line breaks.

    Double quotes keep a comma inside a label: ``awe, "relief, after a scare"``. Nothing is added to the words.

    Args:
        text: At least one label.

    Raises:
        PromptError: If there is no label, or one is empty, given twice, holds no letter or is longer than 60 words or
            500 characters, or a quote is not closed.
    """
    return labels_from_words(_split(text))


def labels_from_words(words: Iterable[str]) -> LabelSet:
    """Make a label set of words as given, one label each; the checks are those of :func:`parse_labels`.

    Raises:
        PromptError: As for :func:`parse_labels`.
    """
    labels = [Label(name=_checked(word, position)) for position, word in enumerate(words, start=1)]
    if not labels:
        raise PromptError(
            "The label list is empty.",
            why="At least one label is needed to compare a face with.",
            fix='--labels "happiness, sadness, anger"',
        )
    return LabelSet(tuple(labels), name="custom", origin="Typed by the user; no descriptors were added.")


def resolve_label_spec(spec: str | Path | Sequence[str] | LabelSet) -> LabelSet:
    """Return the label set that an argument ``labels=`` or ``--labels`` means.

    Args:
        spec: A label set (returned as it is), a list of words, a path, the name of a shipped set, or words separated by
            commas, semicolons or line breaks. One bare word is always the name of a set, so that a mistyped name is
            told and not scored.

    Raises:
        PromptError: If it is none of these.
    """
    if isinstance(spec, LabelSet):
        return spec
    if isinstance(spec, Path):
        return load_label_set(spec)
    if not isinstance(spec, str):
        return labels_from_words(spec)
    if spec.strip().lower().endswith((".yaml", ".yml")):
        return load_label_set(spec.strip())
    if not spec.strip() or any(mark in spec.strip() for mark in (*_SEPARATORS, *_QUOTES)):
        return parse_labels(spec)
    return load_label_set(spec.strip())


def compound_label(name: str, base_set: LabelSet) -> Label:
    """Make the label of a mixture such as "anger_disgust" from the labels it joins.

    The descriptors of the parts are taken in turn, after EmoCLIP (Foteinopoulou and Patras, 2024), which represents the
    compound classes of MAFW by the mean of their parts. Cues against a part are left out: what speaks against one part
    may be there because of the other.

    Args:
        name: Two or more names or aliases of ``base_set``, joined by "_" in any order.
        base_set: Where the parts come from.

    Returns:
        A label named by its parts in the order of ``base_set``; ``name`` stays an alias.

    Raises:
        PromptError: If there are fewer than two parts, one is unknown, or one comes twice.
    """
    words = [word for word in name.strip().split("_") if word.strip()]
    if len(words) < 2:
        raise PromptError(
            f"The label {name!r} is not a mixture.",
            why='A mixture joins two or more labels by "_".',
            fix='"fear_surprise"',
        )
    found = [base_set.index(word) for word in words]
    if len(set(found)) < len(found):
        raise PromptError(f"The mixture {name!r} names a part twice.", why="Each part counts once.")
    parts = [base_set.labels[i] for i in sorted(found)]
    depth = max(len(part.descriptors) for part in parts)
    turns = [part.descriptors[i] for i in range(depth) for part in parts if i < len(part.descriptors)]
    joined = "_".join(part.name for part in parts)
    return Label(
        name=joined,
        descriptors=tuple(turns),
        synonyms=(" and ".join(part.name for part in parts),),
        aliases=() if fold_label(joined) == fold_label(name) else (name.strip(),),
        action_units=tuple(dict.fromkeys(unit for part in parts for unit in part.action_units)),
        parts=tuple(part.name for part in parts),
    )


def non_latin(labels: LabelSet | Iterable[str]) -> tuple[str, ...]:
    """Return the names that hold letters of another script than Latin.

    They are accepted, but an English text tower such as MiniLM reads next to nothing out of them: warn the user.

    Args:
        labels: A label set or names.
    """
    names = labels.names if isinstance(labels, LabelSet) else labels
    return tuple(name for name in names if any(ch.isalpha() and not _is_latin(ch) for ch in name))


def _is_latin(ch: str) -> bool:
    return unicodedata.name(ch, "").startswith(("LATIN", "FULLWIDTH LATIN", "MODIFIER LETTER", "FEMININE", "MASCULINE"))


def _shipped_files() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in resource_dir("prompts").glob("*.yaml")))


def _find(spec: str | Path) -> tuple[PromptFile, Path]:
    """Return the prompt file that ``spec`` means and its path."""
    text = str(spec).strip()
    if isinstance(spec, Path) or text.lower().endswith((".yaml", ".yml")) or re.search(r"[/\\]", text):
        path = Path(text).expanduser()
        return read_prompt_file(path), path
    by_key = {fold_label(name): name for name in _shipped_files()}
    name = by_key.get(fold_label(text))
    if name is None:
        sets = shipped_sets()
        near = did_you_mean(fold_label(text).replace(" ", "-"), sets)
        raise PromptError(
            f"There is no label set called {text!r}.",
            why=f"{near} Shipped are {', '.join(sets)}.".strip(),
            fix='a shipped name, a YAML file, or at least two words of your own: --labels "awe, polite smile"',
        )
    return shipped_file(name), resource_dir("prompts") / f"{name}.yaml"


def _split(text: str) -> list[str]:
    """Cut typed text into labels; empty lines and a separator at the very end are not labels."""
    items: list[str] = []
    buffer: list[str] = []
    quoted = False
    closing = ""

    def close(mark: str) -> None:
        nonlocal quoted
        item = "".join(buffer).strip()
        if item or quoted or mark in {",", ";"}:
            items.append(item)
        buffer.clear()
        quoted = False

    for ch in text.replace("\r\n", "\n").replace("\r", "\n"):
        if closing:
            if ch == closing:
                closing = ""
            else:
                buffer.append(ch)
        elif ch in _QUOTES and not "".join(buffer).strip():
            closing, quoted = _QUOTES[ch], True
        elif ch in _SEPARATORS:
            close(ch)
        else:
            buffer.append(ch)
    if closing:
        raise PromptError(
            f"A quote is opened and not closed after label {len(items)}.",
            why=f"It begins {''.join(buffer)[:40]!r}.",
            fix=f"close it with {closing}",
        )
    close("")
    return items


def _checked(word: str, position: int) -> str:
    """Return ``word`` with single spaces, or raise PromptError naming the label."""
    name = " ".join("".join(" " if unicodedata.category(ch) == "Cc" else ch for ch in word).split())
    if not name:
        raise PromptError(
            f"Label {position} is empty.",
            why="Two separators follow one another, or there is nothing but spaces between them.",
            fix='--labels "happiness, sadness, anger"',
        )
    short = name if len(name) <= 40 else f"{name[:40]}..."
    if len(name.split()) > MAX_WORDS or len(name) > MAX_CHARS:
        raise PromptError(
            f"Label {position} ({short!r}) has {len(name.split())} words and {len(name)} characters.",
            why=f"At most {MAX_WORDS} words and {MAX_CHARS} characters are read; the rest would be cut off silently.",
            fix="say it in one short sentence.",
        )
    if not any(ch.isalpha() for ch in name):
        raise PromptError(
            f"Label {position} ({short!r}) holds no letter.",
            why="A label is read as English text.",
            fix="write it as a word.",
        )
    return name
