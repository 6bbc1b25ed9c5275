from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlfer.errors import ConfigError
from vlfer.video.sample import (
    at_fps,
    dfer_clip_ticks,
    every_kth,
    segments_random,
    tim_positions,
    uniform,
    where_it_changes,
)

lengths = st.integers(1, 2000)
counts = st.integers(1, 64)


def check(indices: np.ndarray, n_frames: int, count: int | None = None) -> None:
    assert indices.dtype == np.int64
    assert bool((np.diff(indices) >= 0).all())
    assert bool(((indices >= 0) & (indices < n_frames)).all())
    if count is not None:
        assert len(indices) == count


@given(st.integers(0, 2000), st.integers(1, 50), st.integers(0, 20))
def test_every_kth(n_frames: int, k: int, start: int) -> None:
    assert every_kth(n_frames, k=k, start=start).tolist() == list(range(start, n_frames, k))


@given(lengths, counts)
def test_uniform_spans_the_clip(n_frames: int, count: int) -> None:
    indices = uniform(n_frames, count=count)
    check(indices, n_frames, count)
    if count > 1:
        assert (indices[0], indices[-1]) == (0, n_frames - 1)
        assert np.ptp(np.diff(indices)) <= 1
    if count == n_frames:
        assert indices.tolist() == list(range(n_frames))


@given(lengths, counts)
def test_ticks_are_the_published_formula(n_frames: int, count: int) -> None:
    indices = dfer_clip_ticks(n_frames, count=count)
    check(indices, n_frames, count)
    if n_frames >= count:
        tick = n_frames / count
        assert indices.tolist() == [int(tick / 2.0 + tick * number) for number in range(count)]
        assert len(set(indices)) == count


def test_short_clips_in_both_published_ways() -> None:
    assert dfer_clip_ticks(3, count=6).tolist() == [0, 1, 2, 2, 2, 2]
    assert dfer_clip_ticks(3, count=6, short="first").tolist() == [0] * 6
    assert dfer_clip_ticks(32).tolist() == list(range(1, 32, 2))


@given(lengths, st.integers(1, 20), st.integers(1, 5), st.integers(0, 2**32))
def test_random_frames_stay_in_their_segment(n_frames: int, segments: int, per_segment: int, seed: int) -> None:
    def draw(seed: int) -> np.ndarray:
        return segments_random(n_frames, segments=segments, per_segment=per_segment, seed=seed)

    indices = draw(seed)
    check(indices, n_frames, segments * per_segment)
    assert indices.tolist() == draw(seed).tolist()
    if n_frames >= segments * per_segment:
        parts = indices.reshape(segments, per_segment)
        assert all(len(set(part)) == per_segment for part in parts)
        edges = np.arange(segments + 1) * n_frames // segments
        assert bool((parts >= edges[:-1, None]).all())
        assert bool((parts < edges[1:, None]).all())


def test_random_frames_reach_every_frame() -> None:
    seen = {int(i) for seed in range(200) for i in segments_random(12, segments=3, per_segment=2, seed=seed)}
    assert seen == set(range(12))


@given(lengths, counts)
def test_tim_positions(n_frames: int, count: int) -> None:
    positions = tim_positions(n_frames, count=count)
    assert len(positions) == count
    if count > 1:
        assert (positions[0], positions[-1]) == (0, n_frames - 1)
        np.testing.assert_allclose(np.diff(positions), (n_frames - 1) / (count - 1), atol=1e-9)


steps = st.lists(st.floats(0.001, 0.5), min_size=0, max_size=80)


@given(steps, st.floats(0.5, 120), st.floats(0, 100))
def test_at_fps_takes_the_nearest_frame(gaps: list[float], fps: float, start: float) -> None:
    times_s = start + np.concatenate([[0.0], np.cumsum(gaps)])
    indices = at_fps(times_s, fps=fps)
    check(indices, len(times_s))
    ticks = times_s[0] + np.arange(len(indices)) / fps
    best = np.abs(times_s[None] - ticks[:, None]).min(axis=1)
    np.testing.assert_allclose(np.abs(times_s[indices] - ticks), best, atol=1e-9)
    assert ticks[-1] <= times_s[-1] + 1e-6
    assert ticks[-1] + 1 / fps > times_s[-1] - 1e-6


@given(st.integers(1, 300), st.sampled_from([5.0, 24.0, 25.0, 29.97, 60.0, 200.0]))
def test_at_fps_of_the_source_is_every_frame(n_frames: int, fps: float) -> None:
    assert at_fps(np.arange(n_frames) / fps, fps=fps).tolist() == list(range(n_frames))


def test_at_fps_of_nothing_is_nothing() -> None:
    assert at_fps(np.zeros(0), fps=5).tolist() == []


@pytest.mark.parametrize(
    "call",
    [
        lambda: every_kth(5, k=0),
        lambda: every_kth(-1, k=1),
        lambda: uniform(0, count=4),
        lambda: uniform(4, count=0),
        lambda: dfer_clip_ticks(0),
        lambda: dfer_clip_ticks(5, short="middle"),
        lambda: segments_random(5, segments=0, seed=0),
        lambda: segments_random(5, segments=1, seed=-1),
        lambda: tim_positions(0, count=3),
        lambda: at_fps(np.arange(3.0), fps=0),
        lambda: at_fps(np.arange(3.0), fps=float("nan")),
        lambda: at_fps(np.array([0.0, 0.0]), fps=5),
    ],
)
def test_settings_out_of_range(call: object) -> None:
    with pytest.raises(ConfigError, match=r"Expected|increasing"):
        call()


def test_more_frames_are_taken_where_the_face_changes():
    change = np.zeros(100, np.float32)
    change[60:70] = 1.0
    chosen = where_it_changes(change, count=20, evenness=0.3)
    assert len(chosen) == 20
    assert (np.diff(chosen) >= 0).all()
    assert ((chosen >= 60) & (chosen < 70)).sum() >= 12
    assert chosen.min() < 30  # the still stretches are not left out
    assert chosen.max() > 80


def test_without_change_the_frames_are_even():
    np.testing.assert_allclose(where_it_changes(np.zeros(64, np.float32), count=16), dfer_clip_ticks(64), atol=1)
    busy = np.random.default_rng(0).random(64).astype(np.float32)
    np.testing.assert_allclose(where_it_changes(busy, count=16, evenness=1.0), dfer_clip_ticks(64), atol=1)


@given(st.integers(1, 50), st.integers(1, 40), st.floats(0, 1))
def test_as_many_frames_as_asked_for_whatever_the_length(n, count, evenness):
    change = np.random.default_rng(n).random(n).astype(np.float32)
    chosen = where_it_changes(change, count=count, evenness=evenness)
    assert chosen.shape == (count,)
    assert chosen.min() >= 0
    assert chosen.max() < n


@pytest.mark.parametrize("change", [[], [0, -1], [0, np.nan]])
def test_changes_that_are_no_distances_are_refused(change):
    with pytest.raises(ConfigError):
        where_it_changes(np.array(change, np.float32), count=4)
