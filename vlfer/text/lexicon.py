"""The lexicon: texts with the votes that a face so described would get, to train and judge text towers."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlfer.config import resource_dir
from vlfer.errors import PromptError
from vlfer.types import FloatArray

#: Order of the votes in the files; the eight classes of FER+.
VOTE_CLASSES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
TRAINING_FILES = ("words", "phrases", "actions", "captions")
HELD_OUT_WORDS, HELD_OUT_PHRASES = "heldout_words", "heldout_phrases"


@dataclass(frozen=True, slots=True)
class Lexicon:
    """Texts with their meaning for a face.

    Attributes:
        texts: N texts.
        kinds: N kinds ("word", "phrase", "action", ...).
        votes: (N, 8) float32 shares of ten votes over ``VOTE_CLASSES``; rows sum to 1.
        action_units: N tuples of FACS units as numbers without side ("12"), possibly empty.
    """

    texts: tuple[str, ...]
    kinds: tuple[str, ...]
    votes: FloatArray
    action_units: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: Iterable[int]) -> Lexicon:
        """Return the given rows."""
        chosen = list(rows)
        return Lexicon(
            tuple(self.texts[i] for i in chosen),
            tuple(self.kinds[i] for i in chosen),
            self.votes[chosen],
            tuple(self.action_units[i] for i in chosen),
        )


def load_lexicon(*names: str, folder: Path | None = None) -> Lexicon:
    """Load files of the lexicon by name, in order.

    Raises:
        PromptError: If a file is missing, or a row has not four fields or its votes do not add up to ten.
    """
    root = folder or resource_dir("prompts") / "lexicon"
    texts: list[str] = []
    kinds: list[str] = []
    votes: list[list[int]] = []
    units: list[tuple[str, ...]] = []
    for name in names:
        path = root / f"{name}.tsv"
        if not path.is_file():
            raise PromptError(f"The lexicon has no file {name!r}.", why=f"{path} does not exist.")
        with path.open(encoding="utf-8", newline="") as stream:
            for number, row in enumerate(csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE), start=1):
                if number == 1:
                    continue
                try:
                    text, kind, shares, action_units = row
                    counts = [int(share) for share in shares.split(",")]
                except ValueError as error:
                    raise PromptError(f"{path}, line {number}: {row!r} is not text, kind, votes, units.") from error
                if len(counts) != len(VOTE_CLASSES) or sum(counts) != 10 or min(counts) < 0:
                    raise PromptError(f"{path}, line {number}: the votes {shares!r} are not eight numbers of sum ten.")
                texts.append(text)
                kinds.append(kind)
                votes.append(counts)
                units.append(tuple(re.findall(r"\d+", action_units)))
    return Lexicon(tuple(texts), tuple(kinds), np.asarray(np.array(votes) / 10, np.float32), tuple(units))


def load_training_lexicon(*, hold_out: bool = True, folder: Path | None = None) -> Lexicon:
    """Load what a text tower may learn from.

    Args:
        hold_out: Whether every row in which a held-out text occurs stays away, so that these texts can measure words
            never met; without, they are learned with the rest.
        folder: Another folder than the project's.
    """
    if not hold_out:
        return load_lexicon(*TRAINING_FILES, HELD_OUT_WORDS, HELD_OUT_PHRASES, folder=folder)
    held = load_lexicon(HELD_OUT_WORDS, HELD_OUT_PHRASES, folder=folder)
    lexicon = load_lexicon(*TRAINING_FILES, folder=folder)
    return lexicon.take(rows_without(lexicon.texts, held.texts))


def rows_without(texts: Sequence[str], held_out: Sequence[str]) -> list[int]:
    """Return the rows of ``texts`` that contain none of ``held_out`` as whole words, without regard to case."""
    pattern = re.compile(r"(?<!\w)(?:" + "|".join(re.escape(text.casefold()) for text in held_out) + r")(?!\w)")
    return [i for i, text in enumerate(texts) if not pattern.search(text.casefold())]
