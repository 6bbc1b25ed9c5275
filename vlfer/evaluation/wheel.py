"""Open-vocabulary scoring: words are grouped by an emotion wheel, then compared as sets.

The metric is that of OV-MER (Lian et al., "OV-MER: Towards open-vocabulary multimodal emotion recognition", 2024):
bring each word to its base form, to a common synonym, to a sector of an emotion wheel, and take precision, recall and
F of the two sets of sectors. The wheel has the eight sectors with three intensities each of Plutchik ("Emotion: a
psychoevolutionary synthesis", 1980). Everyday words are filed under them for this library. Three sectors are added
that faces show and Plutchik files as dyads or not at all: contempt (disgust, anger), love (joy, trust) and neutral.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vlfer.errors import ShapeError

WHEEL: dict[str, str] = {
    "joy": "serenity joy ecstasy happy glad cheerful delight please amuse laugh elate bliss euphoria content satisfy "
    "pride proud relief relieve optimism optimistic excite enthusiasm smile beam merry playful jolly triumph",
    "trust": "acceptance trust admire admiration confident confidence respect grateful gratitude calm reassure",
    "fear": "apprehension apprehensive fear terror afraid scare fright frighten panic horror dread anxiety anxious "
    "worry nervous alarm helpless insecure uneasy timid",
    "surprise": "distract surprise amaze astonish startle shock wonder awe stun disbelief confuse confusion bewilder "
    "perplex puzzle",
    "sadness": "pensive sad grief gloomy sorrow unhappy miserable despair depress lonely hurt cry weep tears "
    "disappoint hopeless regret guilt remorse shame melancholy mourn",
    "disgust": "boredom bored disgust loathe repulse revulsion nausea distaste aversion",
    "anger": "annoy anger angry rage fury furious irritate frustrate hostile mad outrage resent aggressive",
    "anticipation": "interest anticipate vigilance vigilant curious hope eager expect attentive concentrate thoughtful",
    "contempt": "contempt contemptuous scorn disdain sarcastic smug arrogant mock sneer despise",
    "love": "love affection tender fond adore caring compassion warm romantic",
    "neutral": "neutral blank expressionless indifferent unmoved composed",
}
"""Sector of the wheel, and the words filed under it, mildest of Plutchik's intensities first."""

_SUFFIXES = (
    "fulness", "iness", "ingly", "ation", "ness", "edly", "ment", "ance", "ence", "ical", "ful", "ing", "ion", "ily",
    "ied", "ies", "ety", "ity", "ous", "ed", "ly", "er", "es", "al", "y", "e", "s",
)  # fmt: skip
_MIN_STEM = 3


@dataclass(frozen=True, slots=True)
class OpenVocabularyFigures:
    """Set agreement between words said and words meant, averaged over rows.

    Attributes:
        n: Rows.
        precision: Mean share of the predicted sectors that are true; 0 for a row without a known predicted word.
        recall: Mean share of the true sectors that were predicted.
        f1: Harmonic mean of the two means, as OV-MER takes it.
        unknown: Words that the wheel does not hold, sorted; such a word is a sector of its own.
    """

    n: int
    precision: float
    recall: float
    f1: float
    unknown: tuple[str, ...]


def find_sector(phrase: str) -> str | None:
    """Return the sector of a word or phrase, or None: the whole phrase first, then its first word that is known."""
    words = re.findall(r"[^\W\d_]+", phrase.casefold())
    for word in words:
        sector = _BY_STEM.get(_stem(word))
        if sector is not None:
            return sector
    return None


def open_vocabulary_f(truth: Sequence[Iterable[str]], prediction: Sequence[Iterable[str]]) -> OpenVocabularyFigures:
    """Compare sets of words by the sectors of the wheel that they fall in.

    Args:
        truth: For each row, the words that are true of it; at least one.
        prediction: For each row, the words predicted; may be empty.

    Returns:
        Mean precision, mean recall and their harmonic mean.

    Raises:
        ShapeError: If the lengths differ, there is no row, or a row has no true word.
    """
    if len(truth) != len(prediction) or not truth:
        raise ShapeError(f"{len(truth)} true and {len(prediction)} predicted rows.", why="They are compared in pairs.")
    precision = recall = 0.0
    unknown: set[str] = set()
    for i, (meant, said) in enumerate(zip(truth, prediction, strict=True)):
        true_set, said_set = _sectors(meant, unknown), _sectors(said, unknown)
        if not true_set:
            raise ShapeError(f"Row {i} has no true word.", why="Recall over nothing is undefined.")
        shared = len(true_set & said_set)
        precision += shared / len(said_set) if said_set else 0.0
        recall += shared / len(true_set)
    precision, recall = precision / len(truth), recall / len(truth)
    total = precision + recall
    f1 = 2 * precision * recall / total if total else 0.0
    return OpenVocabularyFigures(len(truth), precision, recall, f1, tuple(sorted(unknown)))


def _sectors(phrases: Iterable[str], unknown: set[str]) -> set[str]:
    found = set()
    for phrase in phrases:
        sector = find_sector(phrase)
        if sector is None:
            sector = " ".join(phrase.casefold().split())
            unknown.add(sector)
        found.add(sector)
    return found


def _stem(word: str) -> str:
    """Return a crude base form: suffixes are cut until none is left or the rest would be too short."""
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= _MIN_STEM:
            cut = word[: -len(suffix)]
            if suffix in ("ing", "ed", "er") and len(cut) > _MIN_STEM and cut[-1] == cut[-2] and cut[-1] not in "sl":
                cut = cut[:-1]
            return _stem(cut)
    return word[:-1] + "y" if word.endswith("i") else word


_BY_STEM = {_stem(word): sector for sector, words in WHEEL.items() for word in words.split()}
