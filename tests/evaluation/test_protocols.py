"""Folds, subjects, means; and presets of published evaluations."""

import numpy as np
import pytest

from vlfer.errors import ConfigError, DataError, PromptError
from vlfer.evaluation.manifest import Manifest, Row
from vlfer.evaluation.protocols import by_subject_groups, mean_of_folds, plan_test, training_rows
from vlfer.evaluation.reproduce import PRESETS, find_preset, raw_pixel_encoder, resolve_config
from vlfer.metrics import compute_metrics
from vlfer.text.labels import load_label_set
from vlfer.types import Label, LabelSet


def rows(n=12, **columns):
    return Manifest(tuple(Row(f"{i}.png", "sad", **{k: f(i) for k, f in columns.items()}) for i in range(n)))


def test_auto_takes_folds_and_the_test_split():
    manifest = rows(fold=lambda i: str(i % 3 + 1), split=lambda i: "test" if i < 6 else "train")
    plan = plan_test(manifest)
    assert (len(plan.manifest), plan.aggregate) == (6, "mean")
    assert {name: len(part) for name, part in plan.parts.items()} == {"1": 2, "2": 2, "3": 2}
    assert plan_test(manifest, split="all", fold="2").parts.keys() == {"2"}
    assert plan_test(manifest, protocol="all", split="all").aggregate == "pooled"
    both = plan_test(manifest, split="val+test")
    assert (len(both.manifest), both.protocol) == (6, "split 'test', mean of 3 folds")
    with pytest.raises(DataError, match="no split 'val'"):
        plan_test(manifest, split="val")
    with pytest.raises(DataError, match="no folds"):
        plan_test(rows(), protocol="folds")


def test_validation_split_stands_in_where_there_is_no_test():
    assert len(plan_test(rows(split=lambda i: "val" if i < 4 else "train")).manifest) == 4


def test_training_rows_hold_no_tested_sample():
    manifest = rows(fold=lambda i: str(i % 3))
    assert {row.fold for row in training_rows(manifest, fold="1").rows} == {"0", "2"}
    twice = Manifest((Row("a", "x", fold="1"), Row("a", "x", fold="2"), Row("b", "x", fold="2")))
    assert [row.path for row in training_rows(twice, fold="1").rows] == ["b"]
    with pytest.raises(DataError):
        training_rows(rows(fold=lambda i: "1"), fold="1")


def test_loso_pools_and_needs_every_subject():
    plan = plan_test(rows(subject=lambda i: f"s{i % 4}"), protocol="loso")
    assert (len(plan.parts), plan.aggregate) == (4, "pooled")
    with pytest.raises(DataError, match="12 of 12 rows"):
        plan_test(rows(), protocol="loso")
    with pytest.raises(DataError, match="Try: another --protocol"):
        plan_test(rows(subject=lambda i: "s"), protocol="loso")


@pytest.mark.parametrize("k", [2, 3, 5])
def test_subject_folds_are_disjoint_balanced_and_reproducible(k):
    manifest = rows(n=60, subject=lambda i: f"s{int(i**0.5)}")
    folds = by_subject_groups(manifest, k=k, seed=1)
    homes = {(row.subject, row.fold) for row in folds.rows}
    assert len(homes) == len(manifest.subjects)
    sizes = [len(folds.select(fold=name)) for name in folds.folds]
    assert len(sizes) == k
    assert max(sizes) - min(sizes) <= 15
    assert folds == by_subject_groups(manifest, k=k, seed=1)
    with pytest.raises(DataError, match=r"8 subjects and 9.*--k 8"):
        by_subject_groups(manifest, k=9)


def test_mean_over_folds_is_unweighted():
    big = compute_metrics(np.zeros(90, np.int64), np.zeros(90, np.int64), classes=("a", "b"))
    small = compute_metrics(np.array([0, 1]), np.array([1, 0]), classes=("a", "b"))
    means = mean_of_folds([big, small])
    assert (means["war"], means["uar"]) == (0.5, 0.5)
    assert means["auc"] is None


def test_presets_speak_for_the_classes_of_their_data_sets():
    for name in ("exp-clip", "exp-clip-ten", "exp-clip-name", "dfer-clip"):
        for labels in ("dfew7", "mafw11", "ferplus8", "affectnet8"):
            sentences = find_preset(name).sentences_of(load_label_set(labels))
            assert len(sentences) == len(load_label_set(labels))
    ten = find_preset("exp-clip-ten").sentences_of(load_label_set("dfew7"))
    assert [len(own) for own in ten] == [10] * 7
    place = load_label_set("dfew7").index("anger")
    assert ten[place][-1] == "a clean photo showcasing a person's angry expression."
    with pytest.raises(PromptError, match="contempt"):
        find_preset("clip-benchmark").sentences_of(load_label_set("ferplus8"))
    awe = LabelSet((Label("awe"),))
    with pytest.raises(PromptError, match="awe"):
        find_preset("exp-clip").sentences_of(awe)


def test_exp_clip_sentences_differ_by_class_as_published():
    five = PRESETS["exp-clip"].sentences
    assert five["sadness"][1:3] == (
        "a cropped photo emphasizing a face expressing sadness.",
        "a photo exuding sadness in a person.",
    )
    assert five["fear"][1] == "a photo of a face with an expression of fear."
    ten = PRESETS["exp-clip-ten"].sentences
    assert ten["happiness"][5] == "a photo of a face exuding happiness."
    assert ten["neutral"][7] == "a good photo capturing someone's neutral state."
    assert ten["sadness"][8] == "a photo of a face with an expression of sadness."


def test_settings_of_a_preset_cannot_be_contradicted():
    config = resolve_config({"reproduce": "dfer-clip", "labels": None, "frames": 16})
    assert (config.sampling, config.fit, config.faces, config.frames) == ("dfer-clip", "squash", "whole", 16)
    with pytest.raises(ConfigError, match="frames 8"):
        resolve_config({"reproduce": "dfer-clip", "frames": 8})
    with pytest.raises(ConfigError, match="ensemble"):
        resolve_config({"reproduce": "dfer-clip", "ensemble": "name"})
    with pytest.raises(ConfigError, match="Did you mean 'exp-clip'"):
        resolve_config({"reproduce": "exp_clip"})


def test_raw_pixels_skip_mean_and_std_in_a_space_of_their_own(tiny_backbone):
    raw = raw_pixel_encoder(tiny_backbone)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    assert raw.space != tiny_backbone.space
    assert tiny_backbone.spec.mean != (0.0, 0.0, 0.0)
    assert not np.allclose(raw.encode_images(pixels).vectors, tiny_backbone.encode_images(pixels).vectors)
