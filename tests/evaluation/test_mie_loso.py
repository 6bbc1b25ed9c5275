"""The harness: no leak, no loss, no repetition."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from vlfer.errors import DataError
from vlfer.evaluation.mie_loso import Pooled, leaky_claim, run_loso, subject_folds
from vlfer.evaluation.mie_report import PROTOCOLS, build_report, check_classes, figures, report_markdown
from vlfer.micro.samples import SIDE, FlowClassifier, FlowSamples


def made(people: int = 5, clips: int = 4) -> FlowSamples:
    """Every clip's flow holds its row number, so that a learner can be asked what it saw."""
    n = people * clips
    flow = np.zeros((n, SIDE, SIDE, 3), np.uint8)
    flow[:, 0, 0, 0] = np.arange(n)
    return FlowSamples(
        flow=flow,
        label=np.arange(n) % 3,
        dataset=np.array(["one" if i // clips % 2 else "two" for i in range(n)]),
        subject=np.array([f"s{i // clips // 2}" for i in range(n)]),
        clip=np.array([f"c{i}" for i in range(n)]),
        classes=("negative", "positive", "surprise"),
    )


@dataclass
class Spy:
    """A learner that remembers what it was given, and answers by the parity of the epoch."""

    name: str = "spy"
    epochs: int = 2
    seen: list[Any] = field(default_factory=list)

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"epochs": self.epochs}

    def fit(self, samples: FlowSamples, *, seed: int) -> Iterator[FlowClassifier]:
        self.seen.append((set(samples.flow[:, 0, 0, 0].tolist()), set(samples.subject_keys.tolist()), seed))
        for epoch in range(self.epochs):
            yield lambda images, epoch=epoch: np.eye(3, dtype=np.float32)[(images[:, 0, 0, 0] + epoch) % 3]


def test_no_learner_sees_a_clip_of_the_subject_it_is_judged_on() -> None:
    samples, spy = made(), Spy()
    run_loso(samples, learner=spy, seed=3)
    folds = subject_folds(samples, seed=3)
    assert len(spy.seen) == len(folds) == 5
    for fold, (rows, people, seed) in zip(folds, spy.seen, strict=True):
        assert rows == set(range(20)) - set(fold.rows.tolist())
        assert fold.name not in people
        assert seed == 3
    np.testing.assert_array_equal(np.sort(np.concatenate([f.rows for f in folds])), np.arange(20))


def test_labels_of_held_out_clips_change_nothing() -> None:
    """Whatever the test labels are, the predictions of their fold are the same."""
    from vlfer.training.mie import SvmLearner

    rng = np.random.default_rng(0)
    samples = made()
    samples.flow[:] = rng.integers(0, 256, samples.flow.shape)
    before = run_loso(samples, learner=SvmLearner()).probability
    held = subject_folds(samples, seed=0)[0].rows
    samples.label[held] = (samples.label[held] + 1) % 3
    after = run_loso(samples, learner=SvmLearner()).probability
    np.testing.assert_array_equal(before[held], after[held])
    assert not np.array_equal(before, after)


def test_the_last_epoch_counts_and_leakage_is_only_a_claim() -> None:
    samples = made()
    pooled = run_loso(samples, learner=Spy(epochs=2), trace=True)
    # Epoch 1 of the spy is right everywhere, epoch 2, the last, nowhere.
    assert figures(samples, pooled.prediction)["full"]["war"] == 0
    assert (leaky_claim(pooled, samples.label) == samples.label).all()
    report = build_report(samples, [pooled], protocol=PROTOCOLS["megc2019"], model={"name": "spy"}, leakage=True)
    assert report["uf1"] == 0
    assert report["leakage"]["uf1"] == 1
    assert "Not a result" in report_markdown(report)


def test_leaky_claim_needs_a_trace() -> None:
    with pytest.raises(DataError, match="no trace"):
        leaky_claim(run_loso(made(), learner=Spy()), made().label)


def test_a_stopped_run_goes_on_and_repeats_nothing(tmp_path) -> None:
    samples = made()

    class Stops(Spy):
        def fit(self, given: FlowSamples, *, seed: int) -> Iterator[FlowClassifier]:
            if len(self.seen) == 2:
                raise KeyboardInterrupt
            return super().fit(given, seed=seed)

    with pytest.raises(KeyboardInterrupt):
        run_loso(samples, learner=Stops(), out=tmp_path)
    spy = Spy()
    resumed = run_loso(samples, learner=spy, out=tmp_path)
    assert len(spy.seen) == 3
    np.testing.assert_array_equal(resumed.probability, run_loso(samples, learner=Spy()).probability)


def test_stored_folds_are_not_taken_for_another_model_seed_or_data(tmp_path) -> None:
    samples = made()
    run_loso(samples, learner=Spy(), out=tmp_path)
    for learner, seed, data in (
        (Spy(epochs=3), 0, samples),
        (Spy(), 1, samples),
        (Spy(), 0, samples.take(np.arange(19))),
    ):
        run_loso(data, learner=learner, seed=seed, out=tmp_path)
        assert len(learner.seen) == 5


def test_a_damaged_stored_fold_is_run_again(tmp_path, caplog) -> None:
    run_loso(made(), learner=Spy(), out=tmp_path)
    next(tmp_path.rglob("*.npz")).write_bytes(b"PK broken")
    spy = Spy()
    run_loso(made(), learner=spy, out=tmp_path)
    assert len(spy.seen) == 1
    assert "damaged" in caplog.text


def test_groups_hold_whole_subjects() -> None:
    samples = made(people=7)
    folds = subject_folds(samples, seed=0, groups=3)
    assert len(folds) == 3
    people = [set(samples.subject_keys[fold.rows]) for fold in folds]
    assert sum(len(p) for p in people) == len(set.union(*people)) == 7


def test_one_subject_cannot_be_left_out() -> None:
    with pytest.raises(DataError, match="1 subjects"):
        subject_folds(made(people=1), seed=0)


def test_pooling_differs_from_averaging_folds() -> None:
    samples = made(people=2, clips=3)
    truth = samples.label.copy()
    prediction = truth.copy()
    prediction[0] = 1
    pooled = figures(samples, prediction)["full"]["uf1"]
    per_fold = [
        figures(samples.take(f.rows), prediction[f.rows])["full"]["uf1"] for f in subject_folds(samples, seed=0)
    ]
    assert pooled == pytest.approx((2 / 3 + 4 / 5 + 1) / 3)
    assert pooled != pytest.approx(np.mean(per_fold))


def test_a_class_absent_from_a_part_is_named() -> None:
    samples = made()
    samples = samples.take((samples.label != 2) | (samples.dataset == "one"))
    out = figures(samples, samples.label)
    assert out["parts"]["two"]["absent"] == ["surprise"]
    assert out["full"]["absent"] == []


def test_spread_over_seeds() -> None:
    samples = made()
    right = Pooled(0, np.eye(3, dtype=np.float32)[samples.label])
    wrong = Pooled(1, np.eye(3, dtype=np.float32)[(samples.label + 1) % 3])
    report = build_report(samples, [right, wrong], protocol=PROTOCOLS["megc2019"], model={"name": "x"})
    assert report["uar"] == pytest.approx(0.5)
    assert report["uar_std"] == pytest.approx(np.std([0, 1], ddof=1))
    assert [one["full"]["uar"] for one in report["per_seed"]] == [1, 0]


def test_protocol_and_archive_must_agree() -> None:
    with pytest.raises(DataError, match="casme2-5 is over happiness"):
        check_classes(made(), PROTOCOLS["casme2-5"])
