"""The benchmark of video, on small sizes; its made clip of five people is also the test of stable names."""

import json

import numpy as np
import pytest

from vlfer.bench.clips import MadeClip, count_switches, make_clip
from vlfer.bench.video import by_frame


@pytest.fixture(scope="module")
def five(tmp_path_factory):
    return make_clip(tmp_path_factory.mktemp("clips") / "five.mp4", people=5, seconds=9.0, fps=10, cuts=True)


def truth(tmp_path, boxes, seen=None):
    boxes = np.asarray(boxes, np.float32)
    return MadeClip(tmp_path, boxes, np.ones(boxes.shape[:2], bool) if seen is None else seen, (), 10.0)


def test_switches_are_counted_and_matched_faces_too(tmp_path):
    left, right = [0, 0, 10, 10], [50, 0, 60, 10]
    clip = truth(tmp_path, [[left, right]] * 4)
    boxes = [np.array([left, right], np.float32)] * 4
    times_s = [0.0, 0.1, 0.2, 0.3]
    assert count_switches(clip, times_s, boxes, [[7, 9]] * 4) == (0, 8, 8)
    assert count_switches(clip, times_s, boxes, [[7, 9], [9, 7], [9, 7], [7, 9]]) == (4, 8, 8)
    far = [np.array([left, [200, 0, 210, 10]], np.float32)] * 4
    assert count_switches(clip, times_s, far, [[7, 9]] * 4) == (0, 4, 8)


def test_a_hidden_face_is_not_asked_for(tmp_path):
    seen = np.array([[True], [False], [True]])
    clip = truth(tmp_path, [[[0, 0, 10, 10]]] * 3, seen)
    boxes = [np.array([[0, 0, 10, 10]], np.float32)] * 3
    assert count_switches(clip, [0.0, 0.1, 0.2], boxes, [[1], [5], [1]]) == (0, 2, 2)


@pytest.mark.slow
def test_five_people_keep_their_names_through_crossings_and_cuts(five, tiny_backbone_name):
    from vlfer.pipeline import load_pipeline

    pipeline = load_pipeline(tiny_backbone_name, labels="joy, grief", faces="detect", fps=100.0, device="cpu")
    (analysis,) = pipeline.analyse([five.path], on_error="raise")
    np.testing.assert_allclose(analysis.cuts_s, [cut / five.fps for cut in five.cuts], atol=0.01)
    switches, matched, there = count_switches(five, *by_frame(analysis))
    assert switches <= 2
    assert matched >= 0.85 * there
    assert 5 <= len(analysis.timelines) <= 7


@pytest.mark.slow
def test_the_command_measures_all_parts(run, tiny_backbone_name, tmp_path):
    done = run(
        "bench", "video", "--backbone", tiny_backbone_name, "--device", "cpu", "--seconds", "1", "--minutes", "0.1",
        "--memory-fps", "1", "--parts", "latency,memory", "--out", tmp_path / "video.json",
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    names = [one["name"] for one in json.loads((tmp_path / "video.json").read_text())["measurements"]]
    for words in ("latency (median)", "peak memory"):
        assert any(words in name for name in names)


def test_a_part_that_is_not_there_is_told(run):
    done = run("bench", "video", "--parts", "sped")
    assert done.exit_code == 2
    assert "speed" in done.stderr
