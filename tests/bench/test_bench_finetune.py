"""The fine-tuning benchmark, on made faces and the tiny backbone: what is drawn, kept apart and counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vlfer.bench.finetune import bench_new_classes, bench_order, draw_shots, new_and_old, new_at_old, order_samples
from vlfer.errors import DataError
from vlfer.training.data import VotedFaces, content_groups
from vlfer.training.finetune_config import FinetuneConfig

CLASSES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")


def made_faces(each: int = 12) -> VotedFaces:
    rng = np.random.default_rng(0)
    n = each * len(CLASSES)
    images = rng.integers(0, 255, (n, 6, 6)).astype(np.uint8).repeat(8, axis=1).repeat(8, axis=2)
    votes = np.eye(len(CLASSES), dtype=np.float32)[np.arange(n) % len(CLASSES)] * 10
    return VotedFaces(images, votes, CLASSES, "x")


def save(faces: VotedFaces, path: Path) -> Path:
    np.savez(path, images=faces.images, votes=faces.votes, classes=np.array(CLASSES))
    return path


def test_few_samples_share_no_picture_with_what_is_tested() -> None:
    faces = made_faces()
    images = faces.images.copy()
    images[8:16] = images[:8]  # each of the first eight is there twice
    faces = VotedFaces(images, faces.votes, CLASSES, "x")
    groups, train = content_groups(faces.images), np.arange(72)
    drawn, tested = draw_shots(faces, train, np.arange(72, 96), groups, new=[6, 7], shots=3, seed=0)
    assert np.bincount(faces.majority[drawn]).tolist() == [3] * 8
    assert not set(groups[drawn].tolist()) & set(groups[tested].tolist())
    of_old = tested[~np.isin(faces.majority[tested], [6, 7])]
    assert of_old.min() >= 72
    assert (faces.majority[tested] == 6).sum() >= 7
    with pytest.raises(DataError, match="to draw 50 from"):
        draw_shots(faces, train, np.arange(72, 96), groups, new=[6], shots=50, seed=0)


def test_old_classes_are_also_judged_among_themselves() -> None:
    logits = np.array([[1.0, 0.5, 2.0], [0.2, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]], np.float32)
    found = new_and_old(logits, np.array([0, 1, 2, 2]), fresh=[2])
    assert found == {"new": 0.5, "old": 0.5, "old_alone": 1.0}


def test_new_classes_get_as_much_as_old_ones_bear() -> None:
    logits = np.array([[3, 0, 2], [0, 3, 1], [2, 0, 1], [0, 2, 1.5]], np.float32)
    truth = np.array([0, 1, 2, 2])
    assert new_and_old(logits, truth, fresh=[2])["new"] == 0.0
    assert new_at_old(logits, truth, fresh=[2], floor=1.0) == 0.5  # 0.6 on top turns the last alone
    assert new_at_old(logits, truth, fresh=[2], floor=0.5) == 1.0
    assert new_at_old(logits, truth, fresh=[2], floor=1.1) == 0.0


def test_made_onsets_differ_from_offsets_by_order_alone() -> None:
    samples = order_samples(made_faces(), np.arange(96), count=4, frames=5, size=16, seed=0)
    assert samples.pixels.shape == (8, 5, 16, 16, 3)
    length = int(samples.lengths[0])
    assert 2 <= length <= 5
    assert np.array_equal(samples.pixels[0, :length], samples.pixels[1, :length][::-1])
    assert samples.counts == {"an expression that appears": 4, "an expression that fades": 4}


@pytest.mark.slow
def test_both_parts_run(tmp_path: Path, tiny_backbone_name: str) -> None:
    archive = save(made_faces(40), tmp_path / "faces.npz")
    config = FinetuneConfig.model_validate(
        {"backbone": tiny_backbone_name, "device": "cpu",
         "loop": {"epochs": 1, "steps_per_epoch": 2, "batch_size": 8}}
    )  # fmt: skip
    rows, content = bench_new_classes(archive, config=config, new=["fear", "contempt"], shots=4, seeds=2)
    assert set(content["methods"]) == {"zero-shot", "linear probe", "cache adapter", "LoRA"}
    assert {row.name: row.bar for row in rows if row.bar}["LoRA over zero-shot on new classes"] == 10
    video = config.model_copy(
        update={"input": "videos", "train": config.train.model_validate({"lora": None, "temporal": {"layers": 1}})}
    )
    rows, _ = bench_order(archive, config=video, pairs=6, save=tmp_path / "kept")
    assert rows[0].value == pytest.approx(50, abs=1e-3)  # the mean of frames cannot tell order
    assert (tmp_path / "kept" / "temporal.safetensors").is_file()
