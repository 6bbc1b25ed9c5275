import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlfer.errors import ConfigError, ShapeError, SpaceError
from vlfer.scoring import decide, default_threshold, score, score_sentences, top_labels
from vlfer.types import Embedding, Label, LabelSet, Scores


def unit(seed, n, d=8, space="s"):
    vectors = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    return Embedding(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), space)


def label_set(*names):
    return LabelSet(tuple(Label(name) for name in names))


def scores_of(*rows):
    labels = label_set(*"abcdefgh"[: len(rows[0])])
    values = np.asarray(rows, dtype=np.float32)
    return Scores(similarity=values, probability=values, temperature=1.0, labels=labels)


class HashBank:
    """Sentences to fixed pseudo-random unit vectors."""

    space = "s"

    def encode(self, sentences):
        rows = [unit(int.from_bytes(s.encode()[:6], "little") % 10**9 + len(s), 1).vectors for s in sentences]
        return Embedding(np.concatenate(rows), self.space)


OWNER = np.array([0, 0, 1, 2, 2, 2])
WEIGHT = np.array([0.5, 0.5, 1.0, 0.2, 0.3, 0.5], dtype=np.float32)
NAMES = ("joy", "grief", "awe")


@pytest.mark.parametrize("pooling", ["embeddings", "logits"])
def test_rows_sum_to_one_and_similarity_ignores_temperature_and_prior(pooling):
    images, sentences, labels = unit(0, 5), unit(1, 6), label_set(*NAMES)
    plain = score_sentences(images, sentences, OWNER, WEIGHT, labels=labels, temperature=0.1, pooling=pooling)
    prior = np.log(np.array([0.7, 0.2, 0.1], dtype=np.float32))
    other = score_sentences(
        images, sentences, OWNER, WEIGHT, labels=labels, temperature=0.5, pooling=pooling, prior=prior
    )
    np.testing.assert_allclose(plain.probability.sum(axis=1), 1.0, atol=1e-6)
    np.testing.assert_array_equal(plain.similarity, other.similarity)
    assert not np.allclose(plain.probability, other.probability)


def test_mean_of_embeddings_is_the_cosine_with_the_renormalised_mean():
    images, sentences = unit(0, 3), unit(1, 6)
    found = score_sentences(images, sentences, OWNER, WEIGHT, labels=label_set(*NAMES), temperature=1.0)
    mean = (sentences.vectors[3:] * WEIGHT[3:, None]).sum(axis=0)
    np.testing.assert_allclose(found.similarity[:, 2], images.vectors @ (mean / np.linalg.norm(mean)), atol=1e-6)


def test_mean_of_logits_is_the_weighted_mean_of_cosines():
    images, sentences = unit(0, 3), unit(1, 6)
    found = score_sentences(
        images, sentences, OWNER, WEIGHT, labels=label_set(*NAMES), temperature=1.0, pooling="logits"
    )
    want = (images.vectors @ sentences.vectors[3:].T) @ WEIGHT[3:]
    np.testing.assert_allclose(found.similarity[:, 2], want, atol=1e-6)


@given(order=st.permutations(range(3)), pooling=st.sampled_from(["embeddings", "logits"]))
def test_permuted_labels_permute_scores(order, pooling):
    images, sentences = unit(0, 4), unit(1, 6)
    straight = score_sentences(
        images, sentences, OWNER, WEIGHT, labels=label_set(*NAMES), temperature=0.1, pooling=pooling
    )
    place = np.argsort(order)  # label i moves to column place[i]
    turned = score_sentences(
        images, sentences, place[OWNER], WEIGHT, labels=label_set(*(NAMES[i] for i in order)), temperature=0.1,
        pooling=pooling,
    )  # fmt: skip
    np.testing.assert_allclose(turned.probability, straight.probability[:, order], atol=1e-6)
    np.testing.assert_allclose(turned.similarity, straight.similarity[:, order], atol=1e-6)


def test_weights_matter_only_relative_to_one_another():
    images, sentences = unit(0, 4), unit(1, 6)
    scales = np.array([3, 3, 7, 0.5, 0.5, 0.5], dtype=np.float32)
    one = score_sentences(images, sentences, OWNER, WEIGHT, labels=label_set(*NAMES), temperature=0.1)
    two = score_sentences(images, sentences, OWNER, WEIGHT * scales, labels=label_set(*NAMES), temperature=0.1)
    np.testing.assert_allclose(one.probability, two.probability, atol=1e-6)


def test_a_prior_lowers_the_favoured_label_and_a_flat_one_changes_nothing():
    images, sentences, labels = unit(0, 4), unit(1, 6), label_set(*NAMES)
    plain = score_sentences(images, sentences, OWNER, WEIGHT, labels=labels, temperature=0.1)
    flat = np.full(3, -1.0986, dtype=np.float32)
    same = score_sentences(images, sentences, OWNER, WEIGHT, labels=labels, temperature=0.1, prior=flat)
    np.testing.assert_allclose(same.probability, plain.probability, atol=1e-6)
    favoured = np.log(np.array([0.8, 0.1, 0.1], dtype=np.float32))
    corrected = score_sentences(images, sentences, OWNER, WEIGHT, labels=labels, temperature=0.1, prior=favoured)
    assert (corrected.probability[:, 0] < plain.probability[:, 0]).all()


def test_score_takes_its_sentences_from_the_bank():
    labels = LabelSet((Label("joy", descriptors=("the lip corners rise",)), Label("grief")))
    names = score(unit(0, 2), labels, HashBank(), temperature=0.1, ensemble="name")
    both = score(unit(0, 2), labels, HashBank(), temperature=0.1, ensemble="all")
    assert names.probability.shape == (2, 2)
    assert not np.allclose(names.similarity, both.similarity)


def test_a_label_of_the_same_meaning_shares_the_probability():
    images, sentence = unit(0, 1), unit(1, 1)
    twice = Embedding(np.repeat(sentence.vectors, 2, axis=0), "s")
    found = score_sentences(
        images, twice, np.array([0, 1]), np.ones(2, dtype=np.float32), labels=label_set("joy", "gladness"),
        temperature=0.01,
    )  # fmt: skip
    np.testing.assert_allclose(found.probability, 0.5)
    label, reason = decide(found)[0]
    assert label is None
    assert "below the threshold" in reason or "tie" in reason


def test_one_label_has_probability_one():
    found = score_sentences(
        unit(0, 3), unit(1, 2), np.array([0, 0]), np.ones(2, dtype=np.float32), labels=label_set("joy"), temperature=0.1
    )
    np.testing.assert_array_equal(found.probability, 1.0)
    assert decide(found) == [("joy", "")] * 3


def test_no_faces_give_no_scores():
    empty = Embedding(np.zeros((0, 8), dtype=np.float32), "s")
    found = score_sentences(empty, unit(1, 6), OWNER, WEIGHT, labels=label_set(*NAMES), temperature=0.1)
    assert len(found) == 0
    assert decide(found) == []


def test_extreme_temperatures_stay_finite():
    for temperature in (1e-6, 1e6):
        found = score_sentences(
            unit(0, 3), unit(1, 6), OWNER, WEIGHT, labels=label_set(*NAMES), temperature=temperature
        )
        assert np.isfinite(found.probability).all()


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_must_be_a_positive_number(temperature):
    with pytest.raises(ConfigError, match="temperature is"):
        score_sentences(unit(0, 1), unit(1, 6), OWNER, WEIGHT, labels=label_set(*NAMES), temperature=temperature)


def test_two_spaces_never_meet():
    with pytest.raises(SpaceError, match="'s'"):
        score_sentences(unit(0, 1), unit(1, 6, space="other"), OWNER, WEIGHT, labels=label_set(*NAMES), temperature=1.0)


def test_malformed_ensembles_are_refused():
    labels = label_set(*NAMES)
    with pytest.raises(ShapeError, match=r"\['grief'\] have no sentence"):
        score_sentences(unit(0, 1), unit(1, 6), np.array([0, 0, 0, 2, 2, 2]), WEIGHT, labels=labels, temperature=1.0)
    opposite = Embedding(np.stack([unit(1, 1).vectors[0], -unit(1, 1).vectors[0]]), "s")
    with pytest.raises(ShapeError, match="cancel out"):
        score_sentences(
            unit(0, 1), opposite, np.array([0, 0]), np.ones(2, np.float32), labels=label_set("joy"), temperature=1.0
        )
    prior = np.zeros(2, dtype=np.float32)
    with pytest.raises(ShapeError, match="prior"):
        score_sentences(unit(0, 1), unit(1, 6), OWNER, WEIGHT, labels=labels, temperature=1.0, prior=prior)


def test_abstention_below_the_threshold_says_the_numbers():
    label, reason = decide(scores_of([0.21, 0.2, 0.59 - 0.2, 0.2]), threshold=0.5)[0]
    assert label is None
    assert reason == "best label 'c' has 0.39, below the threshold 0.50"


def test_abstention_on_a_tie_says_both_labels():
    label, reason = decide(scores_of([0.31, 0.302, 0.2, 0.188]), threshold=0.1)[0]
    assert label is None
    assert reason == "'a' and 'b' tie (0.31 against 0.30)"


def test_a_clear_lead_among_many_labels_is_no_tie():
    row = [0.05] + [0.04] * 4 + [0.79]
    assert decide(scores_of(row))[0] == ("f", "")
    assert decide(scores_of([0.10, 0.05, 0.05, 0.8]), threshold=0.0)[0] == ("d", "")


@given(st.integers(min_value=1, max_value=500))
def test_the_default_threshold_lies_above_chance_and_can_be_reached(n_labels):
    assert 1 / n_labels <= default_threshold(n_labels) <= 1.0


@pytest.mark.parametrize("wrong", [{"threshold": 1.5}, {"threshold": -0.1}, {"tie_margin": 2.0}])
def test_limits_outside_zero_to_one_are_refused(wrong):
    with pytest.raises(ConfigError, match="It is compared with probabilities"):
        decide(scores_of([0.5, 0.5]), **wrong)


def test_top_labels_are_sorted_and_carry_their_similarity():
    top, similarity = top_labels(scores_of([0.2, 0.5, 0.3]), 0, count=2)
    assert [name for name, _ in top] == ["b", "c"]
    assert similarity == pytest.approx((0.5, 0.3))
