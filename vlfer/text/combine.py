"""Which sentences stand for a label, and how much each counts: every way has a name, and can be measured.

``vlfer bench words`` measures them all on held-out faces; docs/words.md tells the figures.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

from vlfer.config import resource_dir
from vlfer.errors import PromptError, did_you_mean
from vlfer.text.labels import load_label_set
from vlfer.text.sentences import class_sentences
from vlfer.types import Label, LabelSet, fold_label

Ensemble = Literal["name", "templates", "descriptors", "all", "dynamics", "definitions", "contrast", "parts"]
ENSEMBLES: tuple[str, ...] = get_args(Ensemble)
#: Share of the cues that speak against a label, against the share 1 of all that speak for it.
NEGATIVE_SHARE = 0.2
_JOINED = re.compile(r"\s*(?:_|\+|\band\b|\bmixed with\b|\bwith a touch of\b)\s*")


@dataclass(frozen=True, slots=True)
class Group:
    """Sentences that share a part of a label's weight.

    Attributes:
        sentences: At least one.
        share: Of the group within the label; negative for cues against it.
        weights: One a sentence, or empty for equal ones.
    """

    sentences: tuple[str, ...]
    share: float = 1.0
    weights: tuple[float, ...] = ()

    def spread(self) -> list[float]:
        """Return the weight of every sentence; they sum to ``share``."""
        weights = self.weights or (1.0,) * len(self.sentences)
        total = sum(weights)
        return [self.share * weight / total for weight in weights]


def check_ensemble(ensemble: str) -> None:
    """Raise PromptError unless a way of combining is called so."""
    if ensemble not in ENSEMBLES:
        raise PromptError(
            f"The ensemble {ensemble!r} is unknown.",
            why=f"{did_you_mean(ensemble, ENSEMBLES)} Known: {', '.join(ENSEMBLES)}.".strip(),
        )


def sentence_groups(
    label: Label, label_set: LabelSet, *, ensemble: Ensemble, templates: str | Sequence[str] = "grammatical"
) -> list[Group]:
    """Return the groups of sentences that stand for a label; the shares of those that speak for it sum to 1.

    Args:
        label: One label of ``label_set``.
        label_set: Where its parts are looked up, before the library ``basic``.
        ensemble:
            ``name``: the bare name. ``templates``: the name in templates. ``descriptors``: the sentences on how the
            face looks (a label without any falls back to templates), weighted where the file says so.
            ``all``: templates, synonyms and descriptors with one equal share each, as far as the label has them.
            ``dynamics``: ``all`` and the sentences on how it unfolds, for video.
            ``definitions``: ``all`` and what the word means, by the file or the glossary that comes with vlfer.
            ``contrast``: ``all`` less the cues that speak against the label.
            ``parts``: a mixture is the mean of its parts (EmoCLIP, Foteinopoulou and Patras, 2024), given by the file
            or joined by "and" or "_" in its name; any other label is as in ``all``.
        templates: See `class_sentences`.

    Raises:
        PromptError: If the ensemble or the templates are unknown.
    """
    check_ensemble(ensemble)
    if ensemble == "name":
        return [Group((label.name,))]
    if ensemble == "parts":
        parts = find_parts(label, label_set)
        groups = [sentence_groups(part, label_set, ensemble="all", templates=templates) for part in parts]
        if groups:
            return [Group(g.sentences, g.share / len(groups), g.weights) for own in groups for g in own]
    in_templates = Group(class_sentences(label, templates=templates))
    described = [Group(label.descriptors, weights=label.weights)] if label.descriptors else []
    if ensemble == "templates":
        return [in_templates]
    if ensemble == "descriptors":
        return described or [in_templates]
    groups_ = [in_templates, *([Group(label.synonyms)] if label.synonyms else []), *described]
    if ensemble == "dynamics" and label.dynamics:
        groups_.append(Group(label.dynamics))
    if ensemble == "definitions" and (meaning := definition_of(label)):
        groups_.append(Group(definition_sentences(label.name, meaning)))
    equal = [Group(g.sentences, 1 / len(groups_), g.weights) for g in groups_]
    if ensemble == "contrast" and label.negatives:
        equal.append(Group(label.negatives, -NEGATIVE_SHARE))
    return equal


def find_parts(label: Label, label_set: LabelSet) -> tuple[Label, ...]:
    """Return the labels that a mixture joins, looked up in its set and then in the library ``basic``; or none."""
    names = label.parts or tuple(part for part in _JOINED.split(label.name) if part)
    if len(names) < 2:
        return ()
    basic = load_label_set("basic")
    found = []
    for name in names:
        part = _look_up(name, label_set) or _look_up(name, basic)
        if part is None or part.name == label.name:
            return ()
        found.append(part)
    return tuple(found) if len({part.name for part in found}) == len(found) else ()


def _look_up(name: str, label_set: LabelSet) -> Label | None:
    try:
        return label_set.labels[label_set.index(name)]
    except PromptError:
        return None


def definition_of(label: Label) -> str:
    """Return what a label means: by its file, else by the glossary; "" if neither tells."""
    return label.definition or load_glossary().get(fold_label(label.name), "")


def definition_sentences(name: str, meaning: str) -> tuple[str, ...]:
    """Return sentences that bring a word together with its meaning."""
    plain = meaning.strip().rstrip(".")
    return (plain, f"{name}: {plain}", f"a face with a look of {name}, that is, {plain}")


@lru_cache(maxsize=1)
def load_glossary() -> Mapping[str, str]:
    """Return the meanings of rare words and idioms that come with vlfer, by folded word.

    Raises:
        PromptError: If the file is damaged.
    """
    path = resource_dir("prompts") / "glossary.tsv"
    meanings: dict[str, str] = {}
    with path.open(encoding="utf-8", newline="") as stream:
        for number, row in enumerate(csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE), start=1):
            if len(row) != 3 or not all(cell.strip() for cell in row):
                raise PromptError(f"{path}, line {number}: {row!r} is not word, kind, meaning.")
            if number > 1:
                meanings[fold_label(row[0])] = row[2]
    return meanings
