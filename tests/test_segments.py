import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlfer.errors import ConfigError, ShapeError
from vlfer.segments import Timeline, merge_cells, window_means
from vlfer.types import Embedding, Label, LabelSet, Scores

LABELS = LabelSet((Label("joy"), Label("grief"), Label("awe")))


def embedding(n, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(n, 6)).astype(np.float32)
    return Embedding(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), "s")


def timeline(probability, *, start_s=None, hop_s=0.25):
    values = np.asarray(probability, dtype=np.float32)
    start = np.arange(len(values)) * hop_s if start_s is None else np.asarray(start_s, dtype=np.float64)
    scores = Scores(similarity=values / 2, probability=values, temperature=1.0, labels=LABELS)
    return Timeline(3, start, start + hop_s, scores)


def merge(line, **settings):
    boxes = np.arange(len(line.start_s) * 4, dtype=np.float32).reshape(-1, 4)
    return merge_cells(line, boxes=boxes, box_times_s=line.start_s, **settings)


def test_a_cell_is_the_mean_of_the_frames_in_its_window():
    frames = embedding(10)
    times_s = np.arange(10) * 0.1
    cells = window_means(frames, times_s, window_s=0.5, hop_s=0.5, frame_s=0.1)
    np.testing.assert_allclose(cells.start_s, [0.0, 0.5])
    np.testing.assert_allclose(cells.end_s, [0.5, 1.0])
    mean = frames.vectors[:6].mean(axis=0)  # both ends of the window count
    np.testing.assert_allclose(cells.embedding.vectors[0], mean / np.linalg.norm(mean), atol=1e-6)


@given(
    n=st.integers(1, 60),
    fps=st.floats(1.0, 60.0),
    hop_s=st.floats(0.05, 2.0),
    factor=st.floats(1.0, 8.0),
)
def test_cells_of_an_unbroken_face_tile_its_time(n, fps, hop_s, factor):
    times_s = np.arange(n) / fps
    cells = window_means(embedding(n), times_s, window_s=hop_s * factor, hop_s=hop_s, frame_s=1 / fps)
    assert cells.start_s[0] == 0.0
    np.testing.assert_allclose(cells.start_s[1:], cells.end_s[:-1], atol=1e-9)
    assert cells.end_s[-1] <= times_s[-1] + 1 / fps + 1e-9
    assert (cells.end_s > cells.start_s).all()
    np.testing.assert_allclose(np.linalg.norm(cells.embedding.vectors, axis=1), 1.0, atol=1e-5)


def test_a_face_that_leaves_leaves_a_gap():
    times_s = np.concatenate([np.arange(8) * 0.125, 5 + np.arange(8) * 0.125])
    cells = window_means(embedding(16), times_s, window_s=0.5, hop_s=0.25, frame_s=0.125)
    gaps = cells.start_s[1:] - cells.end_s[:-1]
    assert (gaps > 1.0).sum() == 1
    assert len(cells.start_s) == 8


def test_a_constant_face_gives_constant_cells():
    frames = Embedding(np.repeat(embedding(1).vectors, 40, axis=0), "s")
    cells = window_means(frames, np.arange(40) * 0.04, window_s=1.0, hop_s=0.25, frame_s=0.04)
    np.testing.assert_allclose(cells.embedding.vectors, frames.vectors[: len(cells.start_s)], atol=1e-5)


@pytest.mark.parametrize(("window_s", "hop_s"), [(0.1, 0.2), (1.0, 0.0), (-1.0, -2.0)])
def test_impossible_windows_are_refused(window_s, hop_s):
    with pytest.raises(ConfigError, match="The window is"):
        window_means(embedding(3), np.arange(3.0), window_s=window_s, hop_s=hop_s)


def test_times_that_do_not_increase_are_refused():
    with pytest.raises(ShapeError, match="increasing times"):
        window_means(embedding(3), np.array([0.0, 1.0, 1.0]))


def test_equal_neighbours_become_one_segment():
    joy, grief = [0.8, 0.1, 0.1], [0.1, 0.8, 0.1]
    found = merge(timeline([joy, joy, grief, grief, grief, joy]))
    assert [(s.start_s, s.end_s, s.label) for s in found] == [
        (0.0, 0.5, "joy"),
        (0.5, 1.25, "grief"),
        (1.25, 1.5, "joy"),
    ]
    assert {s.track_id for s in found} == {3}
    assert found[0].probability == pytest.approx(0.8)
    assert found[0].similarity[0] == pytest.approx(0.4)


def test_a_segment_says_the_mean_of_its_cells():
    found = merge(timeline([[0.6, 0.3, 0.1], [0.8, 0.1, 0.1]]))
    assert len(found) == 1
    assert dict(found[0].top) == pytest.approx({"joy": 0.7, "grief": 0.2, "awe": 0.1})


def test_a_gap_ends_a_segment():
    joy = [0.8, 0.1, 0.1]
    found = merge(timeline([joy, joy, joy], start_s=[0.0, 0.25, 5.0]))
    assert [(s.start_s, s.end_s) for s in found] == [(0.0, 0.5), (5.0, 5.25)]


def test_an_unclear_stretch_is_kept_with_its_reason():
    found = merge(timeline([[0.8, 0.1, 0.1], [0.34, 0.33, 0.33], [0.8, 0.1, 0.1]]))
    assert [s.label for s in found] == ["joy", None, "joy"]
    assert "below the threshold 0.50" in found[1].reason


def test_the_box_is_that_of_the_middle():
    joy = [0.8, 0.1, 0.1]
    found = merge(timeline([joy] * 5))
    assert found[0].box == (8.0, 9.0, 10.0, 11.0)


def test_top_limits_the_labels_listed():
    assert len(merge(timeline([[0.8, 0.1, 0.1]]), top=2)[0].top) == 2
