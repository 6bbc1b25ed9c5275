"""Open vocabulary: what is lost where class names are replaced by other words or phrases for the same class."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlfer.bench.accuracy import war_uar_of
from vlfer.bench.faces import FaceSet
from vlfer.errors import PromptError
from vlfer.models.encoder import Encoder
from vlfer.text.bank import Ensemble, SentenceBank, embed_labels
from vlfer.text.lexicon import HELD_OUT_PHRASES, HELD_OUT_WORDS, VOTE_CLASSES, load_lexicon, load_training_lexicon
from vlfer.types import Embedding, FloatArray, IntArray, Label, LabelSet

HELD_OUT = "heldout"
_COLUMNS = ("class", "kind", "text")
_CLEAR_MAJORITY = 0.6


@dataclass(frozen=True, slots=True)
class ClassTexts:
    """Texts that stand for classes.

    Attributes:
        source: Where they come from.
        texts: M texts.
        kinds: M kinds, such as "word" and "phrase".
        classes: M class names.
    """

    source: str
    texts: tuple[str, ...]
    kinds: tuple[str, ...]
    classes: tuple[str, ...]


def load_texts(source: str) -> ClassTexts:
    """Load ``heldout``, the words and phrases that the bundled backbone never saw, or a table class, kind, text.

    Args:
        source: "heldout", or a file of tab-separated values with the header ``class  kind  text``.

    Raises:
        PromptError: If the file is missing, has another header or a row of another length.
    """
    if source == HELD_OUT:
        return _held_out()
    path = Path(source).expanduser()
    if not path.is_file():
        raise PromptError(
            f"The words {source!r} do not exist.", fix=f"--words {HELD_OUT}, or a file: class, kind, text"
        )
    with path.open(encoding="utf-8-sig", newline="") as stream:
        rows = [row for row in csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE) if any(row)]
    header = tuple(cell.strip().casefold() for cell in rows[0]) if rows else ()
    if header != _COLUMNS:
        raise PromptError(f"{path} starts with {header}.", why=f"Expected the columns {', '.join(_COLUMNS)}, by tabs.")
    wrong = [i for i, row in enumerate(rows, start=1) if len(row) != 3 or not all(cell.strip() for cell in row)]
    if wrong or len(rows) == 1:
        raise PromptError(f"{path}, line {wrong[0] if wrong else 2}: not three filled cells.")
    classes, kinds, texts = zip(*(tuple(cell.strip() for cell in row) for row in rows[1:]), strict=True)
    return ClassTexts(str(path), texts, kinds, classes)


def _held_out() -> ClassTexts:
    texts: list[str] = []
    kinds: list[str] = []
    classes: list[str] = []
    for file, kind in ((HELD_OUT_WORDS, "word"), (HELD_OUT_PHRASES, "phrase")):
        lexicon = load_lexicon(file)
        for text, votes in zip(lexicon.texts, lexicon.votes, strict=True):
            if votes.max() >= _CLEAR_MAJORITY - 1e-6:  # a text between two classes names neither
                texts.append(text)
                kinds.append(kind)
                classes.append(VOTE_CLASSES[int(votes.argmax())])
    return ClassTexts(HELD_OUT, tuple(texts), tuple(kinds), tuple(classes))


def unmet(texts: ClassTexts) -> ClassTexts:
    """Return the texts that are no text of the lexicon, whatever the case of their letters.

    A kind that then leaves a class without a name is dropped.

    Raises:
        PromptError: If no kind is left.
    """
    known = {text.casefold() for text in load_training_lexicon(hold_out=False).texts}
    rows = [i for i, text in enumerate(texts.texts) if text.casefold() not in known]
    named = {(texts.kinds[i], texts.classes[i]) for i in rows}
    whole = {kind for kind in texts.kinds if all((kind, name) in named for name in set(texts.classes))}
    if not whole:
        raise PromptError(
            f"{texts.source} names no class that way.", why="The lexicon holds every text of one class or another."
        )
    rows = [i for i in rows if texts.kinds[i] in whole]
    parts = ((tuple(column[i] for i in rows)) for column in (texts.texts, texts.kinds, texts.classes))
    return ClassTexts(f"{texts.source} (unmet)", *parts)


def words_report(
    encoder: Encoder,
    bank: SentenceBank,
    images: Embedding,
    faces: FaceSet,
    texts: ClassTexts,
    *,
    draws: int = 100,
    ensemble: Ensemble = "all",
    seed: int = 0,
    show_texts: bool = False,
) -> dict[str, Any]:
    """Replace class names by other texts and tell what is lost, for each kind of text.

    In a draw every class is named by one text of its own at random, each text of a class as often as the others. A
    text gets the templates that any typed label gets. Losses are in points of WAR: against the shipped label set with
    its descriptors, and against the bare class names in the same templates.

    Args:
        encoder: The backbone.
        bank: Of its space.
        images: N faces, encoded.
        faces: The same faces.
        texts: What to name classes by; classes that ``faces`` does not ask for are left out.
        draws: Draws per kind.
        ensemble: Sentences per label, for the class names and the texts.
        seed: Of the draws.
        show_texts: Whether to list every text with its own loss; without, only counts are told.

    Raises:
        PromptError: If a class has no text of a kind.
    """
    truth = faces.truth
    full = prototypes(bank, faces.labels, ensemble=ensemble)
    names = prototypes(bank, LabelSet(tuple(Label(n) for n in faces.labels.names)), ensemble=ensemble)
    base, base_uar, base_confusion = war_uar_of(images.vectors @ full.T, truth)
    bare, bare_uar, _ = war_uar_of(images.vectors @ names.T, truth)
    report: dict[str, Any] = {
        "source": texts.source, "ensemble": ensemble, "draws": draws,
        "label_set": {"war": round(base, 4), "uar": round(base_uar, 4)},
        "class_names": {"war": round(bare, 4), "uar": round(bare_uar, 4)},
    }  # fmt: skip
    for kind in sorted(set(texts.kinds), reverse=True):
        groups = _groups(texts, kind, faces.labels)
        flat = [text for group in groups for text in group]
        owner = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
        vectors = prototypes(bank, [Label(text) for text in flat], ensemble=ensemble)
        similarity = images.vectors @ vectors.T
        found = _drawn(similarity, owner, truth, draws=draws, seed=seed)
        found |= {
            "loss_against_label_set": round(100 * (base - found["war"]), 2),
            "loss_against_class_names": round(100 * (bare - found["war"]), 2),
            "one_class_at_a_time": _singles(
                images.vectors @ full.T, similarity, owner, truth, flat, faces.labels.names, base_confusion,
                show_texts=show_texts,
            ),
            "nearest_class": _nearest(vectors @ full.T, owner, faces.labels.names),
        }  # fmt: skip
        report[kind] = found
    return report


def prototypes(bank: SentenceBank, labels: LabelSet | Sequence[Label], *, ensemble: Ensemble) -> FloatArray:
    """Return (C, D) unit vectors, the renormalised weighted mean of each label's sentences."""
    if not isinstance(labels, LabelSet):  # texts may repeat between classes, which one label set could not hold
        parts = [prototypes(bank, LabelSet((label,)), ensemble=ensemble) for label in labels]
        return np.concatenate(parts)
    sentences, owner, weight = embed_labels(bank, labels, ensemble=ensemble)
    means = np.zeros((len(labels), sentences.vectors.shape[1]), np.float32)
    np.add.at(means, owner, sentences.vectors * weight[:, None])
    return np.asarray(means / np.linalg.norm(means, axis=1, keepdims=True), np.float32)


def _groups(texts: ClassTexts, kind: str, labels: LabelSet) -> list[list[str]]:
    groups: list[list[str]] = [[] for _ in labels.names]
    place = {name: i for i, name in enumerate(labels.names)}
    for text, own, name in zip(texts.texts, texts.kinds, texts.classes, strict=True):
        if own == kind and name in place:
            groups[place[name]].append(text)
    empty = [name for name, group in zip(labels.names, groups, strict=True) if not group]
    if empty:
        raise PromptError(f"{texts.source} has no {kind} for {', '.join(empty)}.", why="Every class needs a name.")
    return groups


def _drawn(similarity: FloatArray, owner: IntArray, truth: IntArray, *, draws: int, seed: int) -> dict[str, Any]:
    """Return means over draws in which every class is named by a text of its own."""
    rng = np.random.default_rng(seed)
    columns = [np.flatnonzero(owner == c) for c in range(int(owner.max()) + 1)]
    orders = [np.concatenate([rng.permutation(own) for _ in range(-(-draws // len(own)))]) for own in columns]
    wars, uars, confusion = [], [], np.zeros((len(columns), len(columns)))
    for draw in range(draws):
        one, mean, counts = war_uar_of(similarity[:, [order[draw] for order in orders]], truth)
        wars.append(one)
        uars.append(mean)
        confusion += counts / draws
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1e-9)
    return {
        "war": round(float(np.mean(wars)), 4), "uar": round(float(np.mean(uars)), 4),
        "war_middle_90_percent": [round(float(v), 4) for v in np.quantile(wars, [0.05, 0.95])],
        "standard_error_of_war": round(float(np.std(wars) / np.sqrt(draws)), 4),
        "texts_per_class": [len(own) for own in columns],
        "recall": np.round(np.diagonal(shares), 4).tolist(),
        "confusion_share": np.round(shares, 4).tolist(),
    }  # fmt: skip


def _singles(
    base: FloatArray, similarity: FloatArray, owner: IntArray, truth: IntArray, texts: Sequence[str],
    names: Sequence[str], base_confusion: IntArray, *, show_texts: bool,
) -> dict[str, Any]:  # fmt: skip
    """Return what is lost where one class alone is renamed."""
    base_war = float(np.trace(base_confusion) / base_confusion.sum())
    losses = np.zeros(len(texts))
    recalls = np.zeros(len(texts))
    for i, c in enumerate(owner):
        changed = base.copy()
        changed[:, c] = similarity[:, i]
        war, _, confusion = war_uar_of(changed, truth)
        losses[i] = 100 * (base_war - war)
        recalls[i] = confusion[c, c] / max(confusion[c].sum(), 1)
    report: dict[str, Any] = {"mean_loss": round(float(losses.mean()), 2), "per_class": {}}
    for c, name in enumerate(names):
        own = owner == c
        count = base_confusion[c].sum()
        report["per_class"][name] = {
            "mean_loss": round(float(losses[own].mean()), 2), "worst_loss": round(float(losses[own].max()), 2),
            "recall_with_label_set": round(float(base_confusion[c, c] / count), 4) if count else None,
            "mean_recall": round(float(recalls[own].mean()), 4) if count else None,
        }  # fmt: skip
    if show_texts:
        report["texts"] = [
            {"text": t, "class": names[c], "loss": round(float(loss), 2), "recall": round(float(recall), 4)}
            for t, c, loss, recall in zip(texts, owner, losses, recalls, strict=True)
        ]
    return report


def _nearest(similarity: FloatArray, owner: IntArray, names: Sequence[str]) -> dict[str, Any]:
    """Return to which class's own sentences the texts of each class lie nearest."""
    nearest = similarity.argmax(axis=1)
    return {
        "right": round(float((nearest == owner).mean()), 4),
        "sent_to": {
            name: {names[k]: int(((owner == c) & (nearest == k)).sum()) for k in np.unique(nearest[owner == c])}
            for c, name in enumerate(names)
        },
    }
