"""Finer than classes: whether words for more and less of one expression order the faces of one class.

Two rulers: the share of annotators who chose the class, which grows with how plainly it shows, and measurements on the
face mesh. Everything is ranked within a class, so that knowing the class gains nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import spearmanr

from vlfer.bench.wording import VotedEmbedding, Wordings
from vlfer.text.lexicon import VOTE_CLASSES
from vlfer.types import FloatArray

#: Class, words for little and for much of it.
INTENSITIES = (
    ("happiness", "mildly amused", "overjoyed"),
    ("happiness", "a hint of a smile", "beaming with joy"),
    ("surprise", "a little taken aback", "shocked"),
    ("surprise", "slightly surprised", "astounded"),
    ("sadness", "a bit down", "heartbroken"),
    ("sadness", "wistful", "in tears"),
    ("anger", "irritated", "furious"),
    ("anger", "a bit cross", "enraged"),
    ("fear", "uneasy", "terrified"),
    ("fear", "a little worried", "scared to death"),
)
#: Words for little and for much of a movement, and the measurements whose mean it is.
ACTIONS = (
    ("eyes shut", "eyes wide open", ("eye_open_right", "eye_open_left")),
    ("lips closed", "mouth wide open", ("mouth_open",)),
    ("lowered eyebrows", "raised eyebrows", ("brow_mid_right", "brow_mid_left")),
    ("eyebrows pulled together", "eyebrows relaxed and apart", ("brow_gap",)),
    ("lip corners pulled down", "lip corners pulled up", ("corner_up_right", "corner_up_left")),
    ("a narrow mouth", "a wide mouth", ("mouth_width",)),
)
_FEWEST_FACES = 30


def shade_rows(bench: Wordings) -> list[dict[str, Any]]:
    """Return the rank correlation of each pair of words with its ruler, on validation and test faces together.

    The score of a face is its similarity to the stronger words less that to the weaker. For actions, the Spearman
    correlation is the mean over classes of at least 30 faces.
    """
    from vlfer.training.geometry import NAMES, measure, mesh_of_crops

    parts = (bench.validation, bench.test)
    vectors = np.concatenate([part.images.vectors for part in parts])
    votes = np.concatenate([part.votes for part in parts])
    truth, share = votes.argmax(axis=1), votes / votes.sum(axis=1, keepdims=True)
    measured = measure(np.concatenate([mesh_of_crops(_grey(part)) for part in parts]))

    def lead(less: str, more: str) -> FloatArray:
        weak, strong = bench.bank.encode([less, more]).vectors
        return np.asarray(vectors @ (strong - weak), np.float32)

    rows: list[dict[str, Any]] = []
    for name, less, more in INTENSITIES:
        own = truth == VOTE_CLASSES.index(name)
        if own.sum() >= _FEWEST_FACES:
            ruler = share[own, VOTE_CLASSES.index(name)]
            rows.append({"within": name, "less": less, "more": more, "ruler": "share of votes", "faces": int(own.sum()),
                         "Spearman": _rank(lead(less, more)[own], ruler)})  # fmt: skip
    for less, more, names in ACTIONS:
        ruler = measured[:, [NAMES.index(name) for name in names]].mean(axis=1)
        seen = np.isfinite(ruler)
        groups = [seen & (truth == i) for i in range(len(VOTE_CLASSES))]
        groups = [group for group in groups if group.sum() >= _FEWEST_FACES]
        if groups:
            found = [_rank(lead(less, more)[group], ruler[group]) for group in groups]
            part = names[0].removesuffix("_right").replace("_", " ")
            rows.append({"within": "each class", "less": less, "more": more, "ruler": part,
                         "faces": int(sum(map(np.sum, groups))), "Spearman": float(np.mean(found))})  # fmt: skip
    return rows


def _grey(part: VotedEmbedding) -> Any:
    """Return (N, S, S) uint8 of faces that are grey."""
    return np.ascontiguousarray(part.pixels[..., 0])


def _rank(score: Any, ruler: Any) -> float:
    return float(spearmanr(score, ruler).statistic)
