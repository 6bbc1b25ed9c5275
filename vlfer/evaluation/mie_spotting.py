"""How well expressions are spotted: F1 at IoU 0.5 pooled over videos, and STRS, as MEGC defines them.

Li et al., MEGC 2021 and 2022: a spotted interval is a hit if its intersection with a true one is at least half of their
union; hits, misses and false alarms are added up over all videos before F1 is computed, for macro, micro and both.
STRS is the F1 of spotting times the F1 of recognition on the hits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vlfer.errors import ShapeError
from vlfer.metrics import confusion_matrix, uf1
from vlfer.types import IntArray

Span = tuple[float, float]
Kind = Literal["micro", "macro"]


@dataclass(frozen=True, slots=True)
class SpotScore:
    """Counts pooled over videos.

    Attributes:
        hits: True positives.
        false_alarms: Spotted intervals that match none.
        misses: True intervals that were not spotted.
    """

    hits: int
    false_alarms: int
    misses: int

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN); 0 where there is nothing at all."""
        total = 2 * self.hits + self.false_alarms + self.misses
        return 2 * self.hits / total if total else 0.0

    def __add__(self, other: SpotScore) -> SpotScore:
        return SpotScore(self.hits + other.hits, self.false_alarms + other.false_alarms, self.misses + other.misses)


def overlap(a: Span, b: Span) -> float:
    """Return the intersection over union of two intervals in seconds or frames."""
    shared = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    union = (a[1] - a[0]) + (b[1] - b[0]) - shared
    return shared / union if union > 0 else 0.0


def match(spotted: Sequence[Span], truth: Sequence[Span], *, least: float = 0.5) -> list[tuple[int, int]]:
    """Pair spotted with true intervals, each at most once, the best overlaps first; both as indices."""
    pairs = [(overlap(s, t), i, j) for i, s in enumerate(spotted) for j, t in enumerate(truth)]
    taken_s: set[int] = set()
    taken_t: set[int] = set()
    out = []
    for value, i, j in sorted(pairs, key=lambda pair: (-pair[0], pair[1], pair[2])):
        if value >= least and i not in taken_s and j not in taken_t:
            taken_s.add(i)
            taken_t.add(j)
            out.append((i, j))
    return out


def score_video(spotted: Sequence[Span], truth: Sequence[Span], *, least: float = 0.5) -> SpotScore:
    """Count hits, false alarms and misses of one video."""
    hits = len(match(spotted, truth, least=least))
    return SpotScore(hits, len(spotted) - hits, len(truth) - hits)


def score_videos(
    spotted: Sequence[Mapping[Kind, Sequence[Span]]], truth: Sequence[Mapping[Kind, Sequence[Span]]]
) -> dict[str, SpotScore]:
    """Return pooled counts for "macro", "micro" and "all"; a hit must be of the right kind.

    Raises:
        ShapeError: If the numbers of videos differ.
    """
    if len(spotted) != len(truth):
        raise ShapeError(f"{len(spotted)} videos were spotted in and {len(truth)} are annotated.")
    kinds: tuple[Kind, Kind] = ("macro", "micro")
    scores: dict[str, SpotScore] = {kind: SpotScore(0, 0, 0) for kind in kinds}
    for found, true in zip(spotted, truth, strict=True):
        for kind in kinds:
            scores[kind] += score_video(found.get(kind, ()), true.get(kind, ()))
    return scores | {"all": scores["macro"] + scores["micro"]}


def strs(spotting: SpotScore, *, truth: IntArray, prediction: IntArray, n_classes: int) -> float:
    """Return the spot-then-recognise score: F1 of spotting times UF1 of the labels given to the hits.

    Args:
        spotting: Pooled counts.
        truth: (hits,) int64 true classes of the hits.
        prediction: (hits,) int64 classes that were recognised.
        n_classes: Number of declared classes.

    Raises:
        ShapeError: If there is not one label a hit.
    """
    if len(truth) != spotting.hits or len(prediction) != spotting.hits:
        raise ShapeError(f"{len(truth)} labels for {spotting.hits} hits.", why="Only hits are recognised.")
    value = uf1(confusion_matrix(truth, prediction, n_classes=n_classes)) if spotting.hits else np.float64(0)
    return spotting.f1 * float(value)
