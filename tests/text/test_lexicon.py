from __future__ import annotations

from pathlib import Path

import pytest

from vlfer.errors import PromptError
from vlfer.text.lexicon import (
    HELD_OUT_PHRASES,
    HELD_OUT_WORDS,
    TRAINING_FILES,
    VOTE_CLASSES,
    load_lexicon,
    load_training_lexicon,
    rows_without,
)


@pytest.mark.parametrize("name", [*TRAINING_FILES, HELD_OUT_WORDS, HELD_OUT_PHRASES])
def test_every_file_is_sound_and_covers_every_class(name: str) -> None:
    lexicon = load_lexicon(name)
    folded = [text.casefold() for text in lexicon.texts]
    assert len(set(folded)) == len(folded)
    majority = lexicon.votes.argmax(axis=1)
    assert set(majority) == set(range(len(VOTE_CLASSES)))


def test_no_held_out_text_occurs_in_what_is_trained_on() -> None:
    training = load_training_lexicon()
    held = load_lexicon(HELD_OUT_WORDS, HELD_OUT_PHRASES)
    assert len(rows_without(training.texts, held.texts)) == len(training) > 5000


def test_what_is_shipped_may_learn_the_held_out_texts_too() -> None:
    everything = set(load_training_lexicon(hold_out=False).texts)
    assert everything >= set(load_training_lexicon().texts)
    assert everything >= set(load_lexicon(HELD_OUT_WORDS, HELD_OUT_PHRASES).texts)


def test_held_out_texts_are_found_as_whole_words_only() -> None:
    assert rows_without(["a GRIM face", "grime", "the grim-faced man"], ["grim"]) == [1]


@pytest.mark.parametrize("row", ["joy\tword\t1,2,3\t", "joy\tword", "joy\tword\t0,11,-1,0,0,0,0,0\t"])
def test_a_malformed_row_is_named(tmp_path: Path, row: str) -> None:
    (tmp_path / "bad.tsv").write_text(f"text\tkind\tdist\tau\n{row}\n")
    with pytest.raises(PromptError, match="line 2"):
        load_lexicon("bad", folder=tmp_path)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(PromptError, match="'nothing'"):
        load_lexicon("nothing")
