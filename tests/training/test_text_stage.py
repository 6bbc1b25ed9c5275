from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertModel

from vlfer.models.bundled import text_folder
from vlfer.text.lexicon import Lexicon
from vlfer.training.recipe import TextSection
from vlfer.training.text_stage import (
    adapt_text_tower,
    batches_by_length,
    in_template,
    pool_texts,
    unit_matrix,
    unit_names,
)


@pytest.fixture
def lexicon() -> Lexicon:
    happy = ("glad", "cheerful", "merry", "joyful")
    sad = ("sad", "gloomy", "tearful", "sorrowful")
    votes = np.zeros((8, 8), np.float32)
    votes[:4, 1] = 1
    votes[4:, 3] = 1
    units = (("6", "12"),) * 4 + (("1", "15"),) * 3 + ((),)
    return Lexicon(happy + sad, ("word",) * 8, votes, units)


def test_the_tower_learns_and_the_updates_are_merged(lexicon: Lexicon) -> None:
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(str(text_folder()), local_files_only=True)
    config = BertConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        vocab_size=tokenizer.vocab_size,
    )  # fmt: skip
    tower = BertModel(config, add_pooling_layer=False)
    names = set(tower.state_dict())
    before = pool_texts(tower.eval(), tokenizer, lexicon.texts)
    section = TextSection(lora_rank=4, epochs=60, batch_size=4, learning_rate=0.03)
    adapt_text_tower(tower, tokenizer, lexicon, section, seed=0)
    after = pool_texts(tower, tokenizer, lexicon.texts)
    assert set(tower.state_dict()) == names

    def gap(vectors: torch.Tensor) -> float:
        unit = torch.nn.functional.normalize(vectors, dim=1)
        return float((unit[:4] @ unit[:4].T).mean() - (unit[:4] @ unit[4:].T).mean())

    assert gap(after) > 2 * gap(before)


def test_batches_hold_texts_of_similar_length_and_each_text_once() -> None:
    lengths = [i % 50 for i in range(1000)]
    batches = batches_by_length(lengths, 16, rng=random.Random(0))
    rows = [i for batch in batches for i in batch]
    assert len(set(rows)) == len(rows) == 16 * (1000 // 16)
    assert np.mean([np.ptp([lengths[i] for i in batch]) for batch in batches]) < 10
    assert batches == batches_by_length(lengths, 16, rng=random.Random(0))
    assert batches != batches_by_length(lengths, 16, rng=random.Random(1))


def test_texts_are_pooled_in_their_own_order(lexicon: Lexicon) -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(text_folder()), local_files_only=True)
    config = BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    tower = BertModel(config, add_pooling_layer=False).eval()
    texts = ["a very long sentence about nothing at all", "glad", "a sad face"]
    together = pool_texts(tower, tokenizer, texts)
    for text, vector in zip(texts, together, strict=True):
        torch.testing.assert_close(pool_texts(tower, tokenizer, [text])[0], vector, atol=1e-5, rtol=1e-4)


def test_action_units_become_a_matrix_with_unknown_rows(lexicon: Lexicon) -> None:
    names = unit_names(lexicon, at_least=3)
    assert names == ("1", "6", "12", "15")
    matrix = unit_matrix(lexicon, names)
    assert matrix[0].tolist() == [0, 1, 1, 0]
    assert np.isnan(matrix[7]).all()


def test_sentences_are_left_as_they_are() -> None:
    rng = random.Random(0)
    assert in_template("lips parted", "action", rng=rng, probability=1.0) == "lips parted"
    assert {in_template("joy", "word", rng=rng, probability=1.0) for _ in range(30)} > {"joy"}
