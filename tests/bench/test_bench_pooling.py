"""The comparison of temporal models: its made windows, and that it tells a good pooler from a bad one."""

import json

import numpy as np
import pytest

from vlfer.bench.pooling import FRAMES, POOLERS, SHARES, make_windows
from vlfer.errors import DataError
from vlfer.text.labels import load_label_set
from vlfer.training.data import VotedFaces

CLASSES = load_label_set("ekman7").names


def grey_faces(each=3, classes=CLASSES):
    """Faces of one grey a class; neutral is dark."""
    level = {name: 40 if name == "neutral" else 200 for name in classes}
    images = [np.full((48, 48), level[name] + i, np.uint8) for name in classes for i in range(each)]
    votes = np.eye(len(classes), dtype=np.float32).repeat(each, axis=0) * 10
    return VotedFaces(np.stack(images), votes, tuple(classes), "none")


@pytest.mark.parametrize("share", SHARES.values())
def test_the_expression_is_shown_for_its_share_in_the_middle(share):
    faces = grey_faces()
    windows = make_windows(faces, np.arange(len(faces)), share=share, each=2, size=32)
    assert windows.pixels.shape == (2 * len(CLASSES), FRAMES, 32, 32, 3)
    for pixels, truth in zip(windows.pixels, windows.truth, strict=True):
        shown = pixels.mean(axis=(1, 2, 3)) > 120
        if CLASSES[truth] == "neutral":
            assert not shown.any()
            continue
        assert abs(shown.sum() - share * FRAMES) <= 1.5
        assert shown[FRAMES // 2]
        assert shown[0] == shown[-1] == (share == 1)


def test_windows_are_the_same_every_time_and_need_faces_of_every_class():
    faces = grey_faces()
    rows = np.arange(len(faces))
    one, other = (make_windows(faces, rows, share=0.5, each=2, size=24) for _ in range(2))
    np.testing.assert_array_equal(one.pixels, other.pixels)
    with pytest.raises(DataError, match="is agreed on"):
        make_windows(faces, rows[:6], share=0.5, each=2, size=24)


def test_the_command_compares_all_poolers(run, tiny_backbone_name, tmp_path):
    random = np.random.default_rng(0)
    images = random.integers(0, 255, (700, 24, 24), dtype=np.uint8)
    votes = np.eye(len(CLASSES), dtype=np.uint8)[np.arange(700) % len(CLASSES)] * 10
    np.savez(tmp_path / "faces.npz", images=images, votes=votes, classes=np.array(CLASSES))
    done = run("bench", "video", "--parts", "pooling", "--archive", tmp_path / "faces.npz", "--backbone",
               tiny_backbone_name, "--device", "cpu", "--out", tmp_path / "pool.json")  # fmt: skip
    assert done.exit_code == 0, done.stderr
    rows = json.loads((tmp_path / "pool.json").read_text())["measurements"]
    assert len(rows) == len(POOLERS) * len(SHARES)
    assert all(0 <= row["value"] <= 100 for row in rows)


def test_without_faces_it_says_what_is_missing(run):
    done = run("bench", "video", "--parts", "pooling")
    assert done.exit_code == 2
    assert "--archive" in done.stderr
