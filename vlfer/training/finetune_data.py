"""Samples to adapt a backbone with: checked labels, sides that share no person and no picture, balanced draws."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import cv2
import numpy as np

from vlfer.errors import DataError, PromptError
from vlfer.training.data import content_groups
from vlfer.types import FloatArray, IntArray, LabelSet, UInt8Array, fold_label

ValidateBy = Literal["auto", "subject", "content"]
_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Skipped:
    """A sample that could not be used, and why."""

    source: str
    reason: str


@dataclass(frozen=True, slots=True)
class Samples:
    """Crops with what is known of them.

    Attributes:
        pixels: (N, T, S, S, 3) uint8 RGB; T is 1 for images. May be a memory map.
        lengths: (N,) int64, how many of the T frames are real.
        votes: (N, C) float32, rows sum to 1: a label, or shares of annotators.
        classes: The C labels as the data write them, one spelling each.
        subjects: N names, "" where unknown.
        sources: N paths or ids.
        captions: N sentences, or empty.
        sha256: Hash of the data.
        skipped: What could not be used.
    """

    pixels: UInt8Array
    lengths: IntArray
    votes: FloatArray
    classes: tuple[str, ...]
    subjects: tuple[str, ...]
    sources: tuple[str, ...]
    captions: tuple[str, ...] = ()
    sha256: str = ""
    skipped: tuple[Skipped, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.votes)

    @property
    def majority(self) -> IntArray:
        """(N,) int64, the class of most votes."""
        return np.asarray(self.votes.argmax(axis=1), np.int64)

    @property
    def counts(self) -> dict[str, int]:
        """Samples of each class by majority."""
        found = np.bincount(self.majority, minlength=len(self.classes)) if len(self) else np.zeros(len(self.classes))
        return {name: int(count) for name, count in zip(self.classes, found, strict=True)}

    def take(self, rows: IntArray) -> Samples:
        """Return the given rows, in that order."""
        picked = rows.tolist()
        return replace(
            self,
            pixels=self.pixels[rows],
            lengths=self.lengths[rows],
            votes=self.votes[rows],
            subjects=tuple(self.subjects[i] for i in picked),
            sources=tuple(self.sources[i] for i in picked),
            captions=tuple(self.captions[i] for i in picked) if self.captions else (),
        )


def clean_labels(labels: Sequence[str]) -> tuple[tuple[str, ...], IntArray, tuple[str, ...]]:
    """Bring labels that differ in case, spaces, hyphens or underscores only to one spelling: the most frequent one.

    Args:
        labels: N labels as written.

    Returns:
        The C classes in order of their folded names, (N,) int64 class of each, and remarks on what was joined.
    """
    spelled: dict[str, Counter[str]] = {}
    for label in labels:
        spelled.setdefault(fold_label(label), Counter())[" ".join(label.split())] += 1
    keys = sorted(spelled)
    names = tuple(spelled[key].most_common(1)[0][0] for key in keys)
    notes = tuple(
        f"{', '.join(repr(word) for word in sorted(set(labels)) if fold_label(word) == key)} were taken as {name!r}"
        for key, name in zip(keys, names, strict=True)
        if len({word for word in labels if fold_label(word) == key}) > 1
    )
    place = {key: i for i, key in enumerate(keys)}
    return names, np.array([place[fold_label(label)] for label in labels], np.int64), notes


def check_classes(samples: Samples) -> None:
    """Refuse data that cannot teach a difference.

    Raises:
        DataError: If there is no sample, one class only, or a class with a single sample.
    """
    present = {name: count for name, count in samples.counts.items() if count}
    if len(present) < 2:
        raise DataError(
            f"The training data hold {len(present)} class{'' if len(present) == 1 else 'es'}: {', '.join(present)}."
            if present else "There is no training sample that can be used.",
            why="Nothing can be told apart." if present else _why_skipped(samples.skipped),
            fix="add a second class, such as neutral faces" if present else "check the paths, or data.faces=whole",
        )  # fmt: skip
    single = [name for name, count in present.items() if count < 2]
    if single:
        raise DataError(
            f"The class{'es' if len(single) > 1 else ''} {', '.join(single)} "
            f"{'have' if len(single) > 1 else 'has'} one sample.",
            why=f"One picture teaches itself and not the expression. Found {present}.",
            fix="add samples (16 of a class are a good start), or take the class out",
        )


def _why_skipped(skipped: Sequence[Skipped]) -> str:
    return f"{len(skipped)} were skipped, the first: {skipped[0].source}: {skipped[0].reason}" if skipped else ""


def check_leakage(train: Samples, test: Samples) -> None:
    """Refuse a test whose people or pictures were trained on.

    Raises:
        DataError: Naming the subjects, or the files.
    """
    known = {name for name in train.subjects if name}
    both = sorted(known & set(test.subjects))
    if both:
        raise DataError(
            f"{len(both)} subjects are in training and in test: {_some(both)}.",
            why="Figures on faces that were trained on say nothing about new people.",
            fix="give each subject one split or fold, or leave the test out with data.test=none",
        )
    files = sorted(set(train.sources) & set(test.sources))
    if files:
        raise DataError(
            f"{len(files)} samples are in training and in test: {_some(files)}.",
            why="A sample that was trained on tests nothing.",
            fix="take them out of one of the two",
        )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def inner_split(samples: Samples, *, share: float, by: ValidateBy, seed: int) -> tuple[IntArray, IntArray, str]:
    """Split off the part that the epoch is chosen on, so that no person or picture is on both sides.

    Groups (people, or pictures that look the same) are drawn in an order that the seed decides until each class that
    can spare some has its share; every class keeps at least one group for training.

    Args:
        samples: The training samples.
        share: Of the samples.
        by: What must not be on both sides; "auto" takes subjects where all are known.
        seed: Of the draw.

    Returns:
        Rows for training, rows for validation (empty where nothing can be spared), and what was kept apart.

    Raises:
        DataError: If subjects are wanted and unknown.
    """
    everything = np.arange(len(samples))
    known = all(samples.subjects)
    if by == "subject" and not known:
        raise DataError(
            f"{sum(not s for s in samples.subjects)} of {len(samples)} samples have no subject.",
            why="data.validate_by is subject.", fix="add the column subject, or data.validate_by=content",
        )  # fmt: skip
    by_subject = by == "subject" or (by == "auto" and known and len(set(samples.subjects)) > 1)
    if share == 0:
        return everything, everything[:0], "nothing"
    groups = _subject_groups(samples) if by_subject else _picture_groups(samples)
    majority = samples.majority
    keys = {g: hashlib.sha256(f"{seed}:{samples.sources[int(np.flatnonzero(groups == g)[0])]}".encode()).hexdigest()
            for g in np.unique(groups).tolist()}  # fmt: skip
    left = {c: set(groups[majority == c].tolist()) for c in np.unique(majority).tolist()}
    wanted = {c: share * int((majority == c).sum()) for c in left}
    held = np.zeros(len(samples), bool)
    for group in sorted(keys, key=lambda g: keys[g]):
        inside = majority[groups == group]
        if any(left[c] == {group} for c in np.unique(inside).tolist()):
            continue  # the last group of a class stays in training
        have = Counter(majority[held].tolist())
        if any(have[c] + 0.5 < wanted[c] for c in inside.tolist()):
            held |= groups == group
            for c in left:
                left[c].discard(group)
    return everything[~held], everything[held], "subjects" if by_subject else "pictures"


def _subject_groups(samples: Samples) -> IntArray:
    return np.unique(np.array(samples.subjects), return_inverse=True)[1].astype(np.int64)


def _picture_groups(samples: Samples) -> IntArray:
    middle = samples.lengths // 2
    thumbs = np.stack([samples.pixels[i, m].mean(axis=-1).astype(np.uint8) for i, m in enumerate(middle)])
    return content_groups(thumbs)


def at_most(samples: Samples, *, per_class: int | None, seed: int) -> IntArray:
    """Return the rows of at most ``per_class`` samples of each class, drawn by the seed, in their order."""
    if per_class is None:
        return np.arange(len(samples))
    rng = np.random.default_rng(np.random.SeedSequence([seed, 4]))
    rows = [rng.permutation(np.flatnonzero(samples.majority == c))[:per_class] for c in range(len(samples.classes))]
    return np.sort(np.concatenate(rows))


def shrunk(samples: Samples, *, side: int) -> Samples:
    """Return samples whose crops were reduced to ``side`` px and enlarged again: faces of a far or poor camera."""
    pixels = np.empty(samples.pixels.shape, np.uint8)
    for place in np.ndindex(pixels.shape[:2]):
        small = cv2.resize(samples.pixels[place], (side, side), interpolation=cv2.INTER_AREA)
        pixels[place] = cv2.resize(small, pixels.shape[2:4], interpolation=cv2.INTER_CUBIC)
    return replace(samples, pixels=pixels, sha256=hashlib.sha256(f"{samples.sha256} {side} px".encode()).hexdigest())


def draw_weights(majority: IntArray, *, classes: int, balance: float) -> FloatArray:
    """Return the (N,) float64 probability to draw each sample: 1 / frequency of its class ** balance."""
    counts = np.maximum(np.bincount(majority, minlength=classes), 1).astype(np.float64)
    weights = counts[majority] ** -balance
    return np.asarray(weights / weights.sum(), np.float64)


def matched_labels(classes: Sequence[str], labels: LabelSet) -> IntArray:
    """Return the column in ``labels`` that each class of the data means, by name, alias or synonym; (C,) int64.

    Raises:
        DataError: If a class means none of them.
    """
    columns, lost = [], []
    for name in classes:
        try:
            columns.append(labels.index(name))
        except PromptError:
            lost.append(name)
    if lost:
        raise DataError(
            f"The data carry labels that {labels.name!r} lacks: {', '.join(lost)}.",
            why=f"It holds {', '.join(labels.names)}.",
            fix="leave labels out of the configuration to take the data's own words, or add them as aliases",
        )
    return np.array(columns, np.int64)


def relabelled(samples: Samples, labels: LabelSet) -> Samples:
    """Return the samples with one column a label of ``labels``, classes that mean the same label added up.

    Raises:
        DataError: As `matched_labels`.
    """
    columns = matched_labels(samples.classes, labels)
    votes = np.zeros((len(samples), len(labels)), np.float32)
    for i, column in enumerate(columns.tolist()):
        votes[:, column] += samples.votes[:, i]
    return replace(samples, votes=votes, classes=labels.names)
