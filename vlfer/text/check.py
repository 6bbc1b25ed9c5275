"""Check the words of a label set: each finding says which sentence, what is wrong with it, and what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from vlfer.text.bank import SentenceBank
from vlfer.text.labels import non_latin
from vlfer.text.rules import FEELING, IDENTITY, VISIBLE, actions_in, excluded_units, names_label, plain_words
from vlfer.types import FloatArray, IntArray, Label, LabelSet, fold_label

Severity = Literal["error", "warning"]
CountTokens = Callable[[Sequence[str]], tuple[list[int], int]]
"""Sentences to the number of tokens of each before any cut, and the number a text tower reads."""

#: Every rule with what it looks for.
RULES: dict[str, str] = {
    "format": "the file cannot be read as a prompt file",
    "few": "fewer than four descriptors, or none",
    "empty": "a sentence without a word",
    "duplicate": "the same sentence twice, for one label or for two",
    "too-long": "more tokens than a text tower reads; the rest would be cut off",
    "names-label": "a descriptor says the label itself, and so adds nothing that templates do not say",
    "names-other": "a descriptor says another label of the set, and so pulls towards it",
    "identity": "age, gender, race or culture",
    "feeling": "what is felt or thought, which no picture shows",
    "not-visible": "no part of the face and no visible action",
    "facs": "an action that the expression excludes by FACS",
    "negative": "a negative cue that describes what the label itself shows",
    "near-duplicate": "sentences of two labels that the text tower can hardly tell apart",
    "reads-as-other": "a sentence that lies nearer to another label than to its own",
    "script": "a label in another script than Latin",
}
_ERRORS = frozenset({"format", "empty", "duplicate", "too-long", "identity", "facs", "negative"})
_FEWEST = 4
NEAR_DUPLICATE = 0.985
READS_AS_OTHER = 4.0
_MOST_READS = 2
_CLEARLY_APART = 0.5


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to look at.

    Attributes:
        rule: One of ``RULES``.
        severity: An error makes results wrong or unfair; a warning makes them weaker.
        label: Of which label; "" for the file.
        key: Where it stands ("descriptors", "negatives", "synonyms", "name", "dynamics", "definition").
        text: The words in question.
        why: What is wrong with them.
        fix: What to do.
    """

    rule: str
    severity: Severity
    label: str
    key: str
    text: str
    why: str
    fix: str

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return asdict(self)


def find(rule: str, label: str, key: str, text: str, *, why: str, fix: str) -> Finding:
    """Make a finding; its severity follows from the rule."""
    return Finding(rule, "error" if rule in _ERRORS else "warning", label, key, text, why, fix)


def check_words(
    labels: LabelSet,
    *,
    counters: Mapping[str, CountTokens] | None = None,
    bank: SentenceBank | None = None,
    temperature: float = 0.05,
) -> list[Finding]:
    """Check every sentence of a label set.

    Args:
        labels: Resolved labels.
        counters: Name of a text tower to what counts its tokens; none checks no length.
        bank: Encodes sentences, to find those that read alike or as another label; None looks at words alone.
        temperature: Of the bank's space.

    Returns:
        Findings in the order of the labels, errors first within a label.
    """
    found: list[Finding] = []
    for label in labels.labels:
        found += _by_words(label, labels)
    found += _duplicates(labels)
    for name, count in (counters or {}).items():
        found += _too_long(labels, count, tower=name)
    if bank is not None and len(labels) > 1:
        found += _by_vectors(labels, bank, temperature=temperature)
    place = {name: i for i, name in enumerate(labels.names)}
    return sorted(found, key=lambda f: (place.get(f.label, -1), f.severity != "error"))


def sentences_of(label: Label) -> Iterator[tuple[str, str]]:
    """Yield (key, sentence) of everything that a text tower reads for a label."""
    yield "name", label.name
    for key in ("synonyms", "descriptors", "dynamics", "negatives"):
        for text in getattr(label, key):
            yield key, text
    if label.definition:
        yield "definition", label.definition


def _by_words(label: Label, labels: LabelSet) -> Iterator[Finding]:
    name = label.name
    if len(label.descriptors) < _FEWEST:
        many = f"only {len(label.descriptors)}" if label.descriptors else "no"
        yield find("few", name, "descriptors", "", why=f"{many} descriptors: the label is little more than its name",
                   fix="write eight or more, or: vlfer prompts generate")  # fmt: skip
    if non_latin([name]):
        yield find("script", name, "name", name, why="an English text tower reads next to nothing out of it",
                   fix="give an English name and keep this as an alias, or use a multilingual backbone")  # fmt: skip
    excluded = excluded_units(label)
    # a unit of one side is no contradiction to a cue that speaks of both
    own = {unit.removeprefix("AU") for unit in label.action_units if unit.startswith("AU")}
    if "1" in own:
        own.discard("4")  # together they raise the brows and draw them: lowered brows do speak against that
    # a label that is itself something to be seen ("pout") may be used to describe another
    others = [x for x in labels.names if fold_label(x) != fold_label(name) and not VISIBLE.search(x)]
    others = [x for x in others if x not in label.parts]
    for key, text in sentences_of(label):
        if not plain_words(text):
            yield find("empty", name, key, text, why="it holds no word", fix="remove it")
            continue
        if key != "name" and (match := IDENTITY.search(text)):
            yield find("identity", name, key, text, why=f"{match.group()!r} tells who it is, not what the face does",
                       fix="describe the muscles: brows, eyes, nose, cheeks, mouth, head")  # fmt: skip
        if key in ("descriptors", "dynamics"):
            yield from _descriptor(label, key, text, others=others, excluded=excluded)
        if key == "negatives":
            shown = next((a for a in actions_in(text) if a.unit in own), None)
            if shown is not None:
                yield find("negative", name, key, text, why=f"the label itself lists AU{shown.unit} ({shown.words})",
                           fix="remove the cue, or the unit from action_units")  # fmt: skip


def _descriptor(
    label: Label, key: str, text: str, *, others: Sequence[str], excluded: frozenset[str]
) -> Iterator[Finding]:
    name = label.name
    if said := names_label(text, [name]):
        yield find("names-label", name, key, text, why=f"it says {said!r}", fix="say how that looks instead")
    if said := names_label(text, others):
        yield find("names-other", name, key, text, why=f"it says {said!r}, another label of the set",
                   fix="say what can be seen instead")  # fmt: skip
    if match := FEELING.search(text):
        yield find("feeling", name, key, text, why=f"{match.group()!r} is inside, and no picture shows it",
                   fix="say what moves on the face")  # fmt: skip
    if not VISIBLE.search(text):
        yield find("not-visible", name, key, text, why="it names no part of the face and no visible action",
                   fix="name brows, eyes, nose, cheeks, mouth or head")  # fmt: skip
    for action in actions_in(text):
        if action.unit in excluded:
            yield find("facs", name, key, text,
                       why=f"{action.found!r} is AU{action.unit} ({action.words}), which {name!r} excludes",
                       fix=f"take it out, or list AU{action.unit} under action_units if it belongs there")  # fmt: skip


def _duplicates(labels: LabelSet) -> Iterator[Finding]:
    first: dict[str, tuple[str, str]] = {}
    for label in labels.labels:
        for key, text in sentences_of(label):
            if key in ("name", "negatives", "definition"):
                continue
            plain = plain_words(text)
            if plain and plain in first:
                owner, where = first[plain]
                whose = "this label" if owner == label.name else f"the label {owner!r}"
                yield find("duplicate", label.name, key, text, why=f"{whose} has it already, under {where}",
                           fix="remove one of the two")  # fmt: skip
            first.setdefault(plain, (label.name, key))
        repeated = [text for text, count in Counter(plain_words(t) for t in label.negatives).items() if count > 1]
        for text in repeated:
            yield find("duplicate", label.name, "negatives", text, why="it is given twice", fix="remove one of the two")


def _too_long(labels: LabelSet, count: CountTokens, *, tower: str) -> Iterator[Finding]:
    items = [(label.name, key, text) for label in labels.labels for key, text in sentences_of(label)]
    lengths, limit = count([text for _, _, text in items])
    for (name, key, text), length in zip(items, lengths, strict=True):
        if length > limit:
            yield find("too-long", name, key, text, why=f"{tower} reads {limit} tokens, and it has {length}",
                       fix="split it into two sentences")  # fmt: skip


def _by_vectors(labels: LabelSet, bank: SentenceBank, *, temperature: float) -> Iterator[Finding]:
    """Yield sentences that read as another label, and pairs across labels that read alike."""
    items = [(i, text) for i, label in enumerate(labels.labels) for text in label.descriptors]
    owners = np.array([i for i, _ in items], np.int64)
    if len(set(owners.tolist())) < 2:
        return
    vectors = bank.encode([text for _, text in items]).vectors
    centred = _centred(vectors, owners)
    sums = np.zeros((len(labels), vectors.shape[1]), np.float32)
    np.add.at(sums, owners, vectors)
    looks = np.zeros_like(sums)
    np.add.at(looks, owners, centred)
    looks = _unit(looks)
    apart = looks @ looks.T < _CLEARLY_APART  # labels that mean nearly the same may share their looks
    strayed: dict[int, list[tuple[float, int, str]]] = {}
    for row, (i, text) in enumerate(items):
        centres = sums.copy()
        centres[i] -= vectors[row]  # a sentence is not its own witness
        lead, other = _lead(vectors[row], centres, own=i)
        related = _related(labels.labels[i], labels.labels[other]) or not apart[i, other]
        if lead / temperature > READS_AS_OTHER and not related:
            strayed.setdefault(i, []).append((lead / temperature, other, text))
    for i, worst in strayed.items():
        for lead, other, text in sorted(worst, reverse=True)[:_MOST_READS]:
            yield find("reads-as-other", labels.names[i], "descriptors", text,
                       why=f"the text tower puts it {lead:.1f} logits nearer to {labels.names[other]!r}",
                       fix="add what is only seen here, or remove it")  # fmt: skip
    unit = _unit(centred)
    similarity = unit @ unit.T
    similarity[owners[:, None] == owners[None, :]] = -1.0
    nearest = similarity.argmax(axis=1)
    for i in dict.fromkeys(owners.tolist()):  # of each label the pair that is most alike
        a = max(np.flatnonzero(owners == i), key=lambda row: float(similarity[row, nearest[row]]))
        b = int(nearest[a])
        one, two = labels.labels[owners[b]], labels.labels[i]
        if similarity[a, b] > NEAR_DUPLICATE and not _related(one, two):
            yield find("near-duplicate", two.name, "descriptors", items[a][1],
                       why=f"{one.name!r} has {items[b][1]!r} (cosine {similarity[a, b]:.3f})",
                       fix="name in each what the other does not show")  # fmt: skip


def _centred(vectors: FloatArray, owners: IntArray) -> FloatArray:
    """Return vectors without what all labels have in common, which says nothing about any of them."""
    centres = np.stack([vectors[owners == i].mean(axis=0) for i in np.unique(owners)])
    return np.asarray(vectors - centres.mean(axis=0), np.float32)


def _unit(vectors: FloatArray) -> FloatArray:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6), np.float32)


def _lead(vector: FloatArray, centres: FloatArray, *, own: int) -> tuple[float, int]:
    """Return by how much the best other label is nearer than the own one, and which it is."""
    norms = np.linalg.norm(centres, axis=1)
    cosines = np.where(norms > 1e-6, centres @ vector / np.maximum(norms, 1e-6), -1.0)
    if norms[own] <= 1e-6:
        return -1.0, own
    others = cosines.copy()
    others[own] = -2.0
    best = int(others.argmax())
    return float(cosines[best] - cosines[own]), best


def _related(one: Label, two: Label) -> bool:
    """Tell whether one label is a part of the other, or both share a part: they are bound to read alike."""
    a, b = {one.name, *one.parts}, {two.name, *two.parts}
    return bool(a & b)
