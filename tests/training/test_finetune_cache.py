"""The cache adapter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vlfer.errors import AdapterError, ShapeError, SpaceError
from vlfer.training.cache_adapter import CacheAdapter
from vlfer.types import Embedding


def clouds(n: int, seed: int) -> tuple[Embedding, np.ndarray]:
    rng = np.random.default_rng(seed)
    centres = np.eye(3, 8)
    label = np.arange(n) % 3
    vectors = centres[label] + rng.normal(size=(n, 8)) * 0.15
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Embedding(vectors.astype(np.float32), "here"), label


def test_neighbours_tell_what_the_words_do_not() -> None:
    keys, label = clouds(30, 0)
    images, truth = clouds(60, 1)
    words = np.zeros((60, 3), np.float32)  # the words know nothing
    cache = CacheAdapter(keys, np.eye(3, dtype=np.float32)[label])
    assert (cache.logits(images, words, temperature=0.1).argmax(axis=1) == truth).mean() > 0.95
    tuned = cache.tuned(images, words, np.eye(3, dtype=np.float32)[truth], temperature=0.1)
    assert tuned.alpha > 0


def test_a_useless_cache_is_tuned_away() -> None:
    keys, label = clouds(30, 0)
    images, truth = clouds(60, 1)
    wrong = CacheAdapter(keys, np.eye(3, dtype=np.float32)[(label + 1) % 3])
    good = np.eye(3, dtype=np.float32)[truth]
    assert wrong.tuned(images, good, good, temperature=0.1).alpha == 0


def test_a_cache_outvotes_words_that_never_name_a_class() -> None:
    keys, label = clouds(30, 0)
    images, truth = clouds(60, 1)
    votes = np.eye(3, dtype=np.float32)
    words = votes[np.where(truth == 2, 0, truth)]  # class 2 is taken for class 0, surely
    cache = CacheAdapter(keys, votes[label])
    assert (cache.logits(images, words, temperature=0.1).argmax(axis=1) == truth)[truth == 2].mean() < 0.1
    tuned = cache.tuned(images, words, votes[truth], temperature=0.1)
    assert (tuned.logits(images, words, temperature=0.1).argmax(axis=1) == truth).mean() > 0.9


def test_more_samples_of_a_class_do_not_favour_it() -> None:
    keys, label = clouds(30, 0)
    votes = np.eye(3, dtype=np.float32)[label]
    images, words = clouds(12, 1)[0], np.zeros((12, 3), np.float32)
    once = CacheAdapter(keys, votes).logits(images, words, temperature=0.1)
    rows = np.concatenate([np.arange(30), np.flatnonzero(label == 0)])
    twice = CacheAdapter(Embedding(keys.vectors[rows], "here"), votes[rows]).logits(images, words, temperature=0.1)
    assert np.allclose(once, twice, atol=1e-5)


def test_it_is_bound_to_its_space_and_comes_back_from_disk(tmp_path: Path) -> None:
    keys, label = clouds(9, 0)
    cache = CacheAdapter(keys, np.eye(3, dtype=np.float32)[label], alpha=2.0, beta=3.0)
    with pytest.raises(SpaceError):
        cache.logits(Embedding(keys.vectors, "there"), np.zeros((9, 3), np.float32), temperature=1.0)
    cache.save(tmp_path / "cache.safetensors")
    again = CacheAdapter.load(tmp_path / "cache.safetensors")
    assert (again.alpha, again.beta, again.keys.space) == (2.0, 3.0, "here")
    assert np.array_equal(again.votes, cache.votes)
    (tmp_path / "cache.safetensors").write_bytes(b"x" * 40)
    with pytest.raises(AdapterError, match="cannot be read"):
        CacheAdapter.load(tmp_path / "cache.safetensors")
    with pytest.raises(ShapeError):
        CacheAdapter(keys, np.zeros((3, 3), np.float32))
