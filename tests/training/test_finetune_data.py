"""Samples for fine-tuning: labels, sides, leaks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from vlfer.errors import DataError
from vlfer.text.labels import labels_from_words, load_label_set
from vlfer.training.finetune_augment import augment_clips
from vlfer.training.finetune_data import (
    Samples,
    at_most,
    check_classes,
    check_leakage,
    clean_labels,
    draw_weights,
    inner_split,
    relabelled,
    shrunk,
)


def made(labels: Sequence[int], *, subjects: Sequence[str] | None = None, seed: int = 0, prefix: str = "s") -> Samples:
    rng, classes = np.random.default_rng(seed), max(labels) + 1
    coarse = rng.integers(0, 255, (len(labels), 1, 4, 4, 3), dtype=np.uint8)
    return Samples(
        pixels=coarse.repeat(4, 2).repeat(4, 3), lengths=np.ones(len(labels), np.int64),
        votes=np.eye(classes, dtype=np.float32)[list(labels)], classes=tuple("abcdefgh"[:classes]),
        subjects=tuple(subjects or [""] * len(labels)), sources=tuple(f"{prefix}{i}" for i in range(len(labels))),
    )  # fmt: skip


def test_spellings_of_one_label_are_joined_and_told() -> None:
    names, label, notes = clean_labels(["Happy", " happy", "HAPPY ", "Happy", "very_sad", "Very Sad", "very_sad"])
    assert names == ("Happy", "very_sad")
    assert label.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert len(notes) == 2
    assert "'HAPPY '" in notes[0]


def test_one_class_and_single_samples_are_refused() -> None:
    with pytest.raises(DataError, match="1 class: a"):
        check_classes(made([0, 0, 0]))
    with pytest.raises(DataError, match="The class b has one sample"):
        check_classes(made([0, 0, 1, 2, 2]))
    check_classes(made([0, 0, 1, 1]))


def test_subjects_in_both_parts_are_named() -> None:
    train = made([0, 1, 0], subjects=["ann", "ben", "cat"])
    test = made([0, 1], subjects=["ben", "dan"], prefix="t")
    with pytest.raises(DataError, match="1 subjects are in training and in test: ben"):
        check_leakage(train, test)
    check_leakage(train, made([0, 1], subjects=["eve", "dan"], prefix="t"))
    with pytest.raises(DataError, match="samples are in training and in test: s0"):
        check_leakage(made([0, 1]), made([0, 1]))


def test_validation_shares_no_subject_and_every_class_stays() -> None:
    labels = [i % 3 for i in range(60)]
    samples = made(labels, subjects=[f"p{i // 5}" for i in range(60)])
    train, held, apart = inner_split(samples, share=0.25, by="auto", seed=1)
    assert apart == "subjects"
    people = [set(np.array(samples.subjects)[rows].tolist()) for rows in (train, held)]
    assert not people[0] & people[1]
    assert sorted([*train.tolist(), *held.tolist()]) == list(range(60))
    assert 8 <= len(held) <= 25
    assert set(samples.majority[train].tolist()) == {0, 1, 2}


def test_validation_shares_no_picture() -> None:
    samples = made([0] * 12 + [1] * 12)
    pixels = samples.pixels.copy()
    pixels[6:12] = pixels[:6]  # the second six show the first six again
    samples = Samples(
        pixels=pixels, lengths=samples.lengths, votes=samples.votes, classes=samples.classes,
        subjects=samples.subjects, sources=samples.sources,
    )  # fmt: skip
    train, held, apart = inner_split(samples, share=0.4, by="auto", seed=0)
    assert apart == "pictures"
    assert len(held)
    sides = np.zeros(24)
    sides[held] = 1
    assert np.array_equal(sides[:6], sides[6:12])
    assert len(train) + len(held) == 24


def test_the_only_person_of_a_class_stays_in_training() -> None:
    samples = made([0, 0, 1, 1, 1, 1], subjects=["a", "a", "b", "c", "d", "e"])
    for seed in range(5):
        train, _, _ = inner_split(samples, share=0.5, by="subject", seed=seed)
        assert {0, 1} <= set(train.tolist())


def test_unknown_subjects_cannot_be_kept_apart() -> None:
    with pytest.raises(DataError, match="have no subject"):
        inner_split(made([0, 1, 0, 1]), share=0.5, by="subject", seed=0)


def test_draws_are_balanced_and_few_are_drawn_by_the_seed() -> None:
    samples = made([0] * 30 + [1] * 3)
    weights = draw_weights(samples.majority, classes=2, balance=1.0)
    assert weights[:30].sum() == pytest.approx(0.5)
    assert draw_weights(samples.majority, classes=2, balance=0.0)[0] == pytest.approx(1 / 33)
    rows = at_most(samples, per_class=2, seed=3)
    assert np.bincount(samples.majority[rows]).tolist() == [2, 2]
    assert rows.tolist() == at_most(samples, per_class=2, seed=3).tolist()


def test_labels_of_a_set_take_the_datas_words() -> None:
    samples = Samples(
        pixels=np.zeros((3, 1, 8, 8, 3), np.uint8), lengths=np.ones(3, np.int64),
        votes=np.eye(3, dtype=np.float32), classes=("Angry", "happy", "happiness"), subjects=("",) * 3,
        sources=("a", "b", "c"),
    )  # fmt: skip
    labels = load_label_set("ekman7")
    found = relabelled(samples, labels)
    assert [labels.names[i] for i in found.majority] == ["anger", "happiness", "happiness"]
    with pytest.raises(DataError, match="lacks: Angry"):
        relabelled(samples, labels_from_words(["happy", "happiness"]))


def test_augmentation_is_the_same_for_all_frames_of_a_clip() -> None:
    frame = torch.rand(3, 1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    clips = frame.expand(3, 5, 3, 16, 16).contiguous()
    out = augment_clips(clips, strength=1.0, generator=torch.Generator().manual_seed(1))
    assert torch.equal(out, out[:, :1].expand_as(out))
    assert not torch.allclose(out[0], out[1])
    assert (out - clips).abs().max() > 0.05
    assert torch.equal(augment_clips(clips, strength=0.0, generator=torch.Generator()), clips)
    again = augment_clips(clips, strength=1.0, generator=torch.Generator().manual_seed(1))
    assert torch.equal(out, again)


def test_shrinking_loses_detail_and_keeps_the_rest() -> None:
    samples = made([0, 1])
    small = shrunk(samples, side=4)
    assert small.pixels.shape == samples.pixels.shape
    assert np.abs(small.pixels.mean(axis=(1, 2, 3)) - samples.pixels.mean(axis=(1, 2, 3))).max() < 12
    rough = [np.abs(np.diff(s.pixels.astype(float), axis=2)).max() for s in (samples, small)]
    assert rough[1] < rough[0]
    assert small.sha256 != samples.sha256
    assert small.sources == samples.sources
