"""Figures against scikit-learn, hand-made cases and their own definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, f1_score, recall_score, roc_auc_score

from vlfer.errors import ShapeError
from vlfer.evaluation.significance import bootstrap_intervals, compare_runs, mcnemar_exact
from vlfer.evaluation.wheel import WHEEL, find_sector, open_vocabulary_f
from vlfer.metrics import (
    FAILED,
    compute_metrics,
    confusion_matrix,
    expected_calibration_error,
    fit_temperature,
    risk_coverage,
    softmax,
    summary,
    uar,
    vote_agreement,
    war,
    war_uar,
)

ABC = ("a", "b", "c")


def ints(*values):
    return np.array(values, dtype=np.int64)


def random_rows(seed=0, n=300, c=4):
    rng = np.random.default_rng(seed)
    probability = rng.dirichlet(np.ones(c), size=n).astype(np.float32)
    truth = np.where(rng.random(n) < 0.5, probability.argmax(1), rng.integers(0, c, n)).astype(np.int64)
    return truth, probability.argmax(1).astype(np.int64), probability


def test_agrees_with_scikit_learn():
    truth, prediction, probability = random_rows()
    got = compute_metrics(truth, prediction, classes=tuple("abcd"), probability=probability)
    assert got.war == pytest.approx((truth == prediction).mean())
    assert got.uar == pytest.approx(balanced_accuracy_score(truth, prediction))
    assert got.uf1 == pytest.approx(f1_score(truth, prediction, average="macro"))
    assert got.auc == pytest.approx(np.mean([roc_auc_score(truth == c, probability[:, c]) for c in range(4)]))
    recalls = recall_score(truth, prediction, average=None)
    assert [c.recall for c in got.per_class] == pytest.approx(list(recalls))
    assert got.failed == 0
    assert got.coverage == 1.0


def test_failed_rows_are_errors_not_dropped():
    got = compute_metrics(ints(0, 0, 1, 1), ints(0, FAILED, 1, 1), classes=("a", "b"))
    assert (got.n, got.failed, got.coverage) == (4, 1, 0.75)
    assert got.war == 0.75
    assert got.uar == 0.75
    assert got.answered == {"war": 1.0, "uar": 1.0, "uf1": 1.0}
    assert got.per_class[0].f1 == pytest.approx(2 / 3)
    assert got.per_class[0].failed == 1
    assert got.confusion[0].tolist() == [1, 0, 1]


def test_absent_class_is_named_and_left_out_of_the_mean_while_calls_of_it_stay_errors():
    got = compute_metrics(ints(0, 0, 1, 1), ints(0, 2, 1, 1), classes=ABC)
    assert got.absent == ("c",)
    assert got.uar == 0.75
    assert got.war == 0.75
    assert got.per_class[2].recall is None
    assert got.per_class[2].f1 is None
    assert got.per_class[2].precision == 0.0


def test_declaring_more_classes_changes_nothing_else():
    truth, prediction, _ = random_rows(c=4)
    four = compute_metrics(truth, prediction, classes=tuple("abcd"))
    six = compute_metrics(truth, prediction, classes=tuple("abcdef"))
    assert (four.war, four.uar, four.uf1) == (six.war, six.uar, six.uf1)


def test_all_rows_failed_and_no_rows():
    none = compute_metrics(ints(0, 1), ints(FAILED, FAILED), classes=("a", "b"), probability=np.zeros((2, 2), "f4"))
    assert (none.war, none.uar, none.auc, none.ece, none.coverage) == (0.0, 0.0, None, None, 0.0)
    assert none.answered["war"] is None
    empty = compute_metrics(ints(), ints(), classes=("a",))
    assert empty.war is None
    assert empty.uar is None


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(4)), st.integers(0, 50))
def test_order_of_classes_and_of_rows_does_not_matter(order, seed):
    truth, prediction, probability = random_rows(seed, n=60)
    names = tuple("abcd")
    base = compute_metrics(truth, prediction, classes=names, probability=probability)
    place = np.argsort(np.array(order))
    shuffle = np.random.default_rng(seed).permutation(60)
    moved = compute_metrics(
        place[truth][shuffle],
        place[prediction][shuffle],
        classes=[names[i] for i in order],
        probability=probability[:, list(order)][shuffle],
    )
    for figure in ("war", "uar", "uf1", "auc", "ece"):
        assert getattr(base, figure) == pytest.approx(getattr(moved, figure))


def test_calibration_error_by_hand():
    # two rows at confidence 0.8, one right: |0.5 - 0.8|; two at 0.6, both right: |1 - 0.6|
    probability = np.array([[0.8, 0.2], [0.8, 0.2], [0.6, 0.4], [0.6, 0.4]], dtype=np.float32)
    assert expected_calibration_error(ints(0, 1, 0, 0), probability) == pytest.approx(0.35, abs=1e-6)
    sure = np.eye(2, dtype=np.float32)
    assert expected_calibration_error(ints(0, 1), sure) == 0.0


@pytest.mark.parametrize(
    ("truth", "prediction"), [(ints(0, 1), ints(0)), (ints(0, 3), ints(0, 0)), (ints(0), ints(-2)), (ints(-1), ints(0))]
)
def test_wrong_arrays_are_refused(truth, prediction):
    with pytest.raises(ShapeError):
        confusion_matrix(truth, prediction, n_classes=3)


def test_bootstrap_interval_matches_resampling_of_rows():
    truth, prediction, _ = random_rows(n=200)
    got = bootstrap_intervals(confusion_matrix(truth, prediction, n_classes=4), samples=3000)
    rng = np.random.default_rng(1)
    picks = rng.integers(0, 200, size=(3000, 200))
    matrices = [confusion_matrix(truth[p], prediction[p], n_classes=4) for p in picks]
    for name, figure in (("war", war), ("uar", uar)):
        want = np.quantile([float(figure(m)) for m in matrices], [0.025, 0.975])
        assert got[name] == pytest.approx(tuple(want), abs=0.01)
    assert got == bootstrap_intervals(confusion_matrix(truth, prediction, n_classes=4), samples=3000)


def test_mcnemar_against_known_values():
    assert mcnemar_exact(0, 0) == 1.0
    assert mcnemar_exact(5, 5) == 1.0
    assert mcnemar_exact(1, 9) == pytest.approx(0.021484375)  # 2 * (1 + 10) / 1024
    assert mcnemar_exact(9, 1) == mcnemar_exact(1, 9)
    assert 0 < mcnemar_exact(1000, 1400) < 1e-14


def test_paired_test_sees_a_difference_and_sees_none():
    truth = np.tile(np.arange(4, dtype=np.int64), 100)
    rng = np.random.default_rng(0)
    good = np.where(rng.random(400) < 0.8, truth, (truth + 1) % 4)
    bad = np.where(rng.random(400) < 0.6, truth, FAILED)
    result = compare_runs(truth, good, bad, n_classes=4)
    assert result.difference["war"] == pytest.approx((good == truth).mean() - (bad == truth).mean())
    assert result.interval["war"][0] > 0
    assert result.mcnemar_p < 1e-4
    assert result.bootstrap_p["war"] < 0.01
    same = compare_runs(truth, good, good, n_classes=4)
    assert same.mcnemar_p == 1.0
    assert same.difference == {"war": 0.0, "uar": 0.0, "uf1": 0.0}
    assert same.bootstrap_p["uar"] == 1.0


def test_every_word_of_the_wheel_lies_in_its_sector():
    for sector, words in WHEEL.items():
        for word in words.split():
            assert find_sector(word) == sector, word


@pytest.mark.parametrize(
    ("word", "sector"),
    [
        ("Happiness", "joy"),
        ("happily", "joy"),
        ("smiling", "joy"),
        ("about to cry", "sadness"),
        ("frightened", "fear"),
        ("annoyed", "anger"),
        ("surprised", "surprise"),
        ("sadness", "sadness"),
        ("anxiety", "fear"),
        ("helplessness", "fear"),
        ("disappointment", "sadness"),
        ("contemptuous", "contempt"),
        ("fearful", "fear"),
        ("disgusted", "disgust"),
        ("xyzzy", None),
    ],
)
def test_inflected_words_find_their_sector(word, sector):
    assert find_sector(word) == sector


def test_open_vocabulary_f():
    same = open_vocabulary_f([["joyful"], ["angry", "sad"]], [["happy"], ["grief", "furious"]])
    assert (same.precision, same.recall, same.f1) == (1.0, 1.0, 1.0)
    half = open_vocabulary_f([["angry", "sad"]], [["rage"]])
    assert (half.precision, half.recall) == (1.0, 0.5)
    assert half.f1 == pytest.approx(2 / 3)
    none = open_vocabulary_f([["angry"]], [["zorp"]])
    assert none.f1 == 0.0
    assert none.unknown == ("zorp",)
    with pytest.raises(ShapeError):
        open_vocabulary_f([[]], [["joy"]])


def test_a_comparison_by_folds_is_about_means_over_folds():
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 3, 400)
    a = np.where(rng.random(400) < 0.7, truth, (truth + 1) % 3)
    b = np.where(rng.random(400) < 0.5, truth, (truth + 1) % 3)
    folds = (np.arange(400) < 30).astype(np.int64)
    got = compare_runs(truth, a, b, n_classes=3, folds=folds, samples=500)
    by_hand = np.mean([(a == truth)[folds == k].mean() - (b == truth)[folds == k].mean() for k in (0, 1)])
    assert got.difference["war"] == pytest.approx(by_hand)
    assert got.folds == 2
    low, high = got.interval["war"]
    assert low < by_hand < high
    pooled = compare_runs(truth, a, b, n_classes=3, samples=500)
    assert pooled.difference["war"] == pytest.approx((a == truth).mean() - (b == truth).mean())
    assert high - low > pooled.interval["war"][1] - pooled.interval["war"][0]  # the small fold weighs as much


def test_the_fitted_temperature_recovers_the_one_that_labels_were_drawn_with():
    rng = np.random.default_rng(0)
    similarity = rng.uniform(-0.3, 0.3, (4000, 5)).astype(np.float32)
    probability = softmax(similarity / 0.1)
    truth = np.array([rng.choice(5, p=p / p.sum()) for p in probability.astype(np.float64)])
    assert fit_temperature(similarity, truth) == pytest.approx(0.1, rel=0.1)


def test_risk_falls_with_coverage_where_confidence_means_something():
    probability = np.array([[0.9, 0.1], [0.8, 0.2], [0.55, 0.45], [0.55, 0.45]], np.float32)
    rows = risk_coverage(probability, ints(0, 0, 0, 1))
    assert (rows[0]["coverage"], rows[0]["accuracy"]) == (1.0, 0.75)
    assert (rows[-1]["threshold"], rows[-1]["coverage"], rows[-1]["accuracy"]) == (0.8, 0.5, 1.0)


def test_agreement_looks_at_disputed_faces_only():
    votes = np.array([[10, 0, 0], [5, 4, 1]], np.float32)
    assert vote_agreement(np.array([[0.0, 0.2, 0.8], [0.6, 0.3, 0.1]], np.float32), votes) == pytest.approx(1.0)
    assert np.isnan(vote_agreement(votes[:1], votes[:1]))


def test_a_summary_is_the_figures_of_the_whole_module():
    truth, prediction, probability = random_rows()
    votes = np.eye(4, dtype=np.float32)[truth]
    got = summary(np.log(probability), 1.0, votes, tuple("abcd"))
    full = compute_metrics(truth, prediction, classes=tuple("abcd"), probability=probability)
    assert (got["n"], got["war"], got["uar"]) == (300, round(full.war, 4), round(full.uar, 4))
    assert got["ece"] == pytest.approx(full.ece, abs=1e-4)
    assert got["spearman_split_votes"] is None  # every vote is for one class; NaN would be no JSON
    assert war_uar(prediction, truth) == (full.war, full.uar)
