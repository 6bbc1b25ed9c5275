from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlfer.errors import ShapeError
from vlfer.faces.track import FaceLinker, link_faces
from vlfer.types import Face


def face(x: float, y: float, size: float = 40, *, score: float = 0.9, landmarks: int | None = 5) -> Face:
    marks = None if landmarks is None else np.full((landmarks, 2), (x, y), np.float32)
    box = np.array([x - size / 2, y - size / 2, x + size / 2, y + size / 2], np.float32)
    return Face(box=box, score=score, landmarks=marks)


def centers(track) -> np.ndarray:
    return (track.boxes[:, :2] + track.boxes[:, 2:]) / 2


def test_two_moving_faces_keep_their_ids() -> None:
    frames = [[face(100 + 5 * t, 100), face(400 - 5 * t, 300)][:: 1 if t % 2 else -1] for t in range(30)]
    tracks = link_faces(frames)
    assert [track.track_id for track in tracks] == [0, 1]
    assert all(len(track) == 30 for track in tracks)
    for track in tracks:
        assert len({round(y) for y in centers(track)[:, 1]}) == 1
        assert track.landmarks.shape == (30, 5, 2)
        assert track.scores.dtype == np.float32
        np.testing.assert_array_equal(track.frame_index, np.arange(30))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(1, 25), st.randoms(use_true_random=False))
def test_order_within_a_frame_does_not_matter(people: int, length: int, random) -> None:
    frames = [[face(100 * p, 50 + 2 * t, score=p / 10) for p in range(people)] for t in range(length)]
    for faces in frames:
        random.shuffle(faces)
    tracks = link_faces(frames)
    assert len(tracks) == people
    for track in tracks:
        assert len(track) == length
        assert len(set(track.scores.tolist())) == 1


def test_neighbours_are_assigned_jointly() -> None:
    """Greedy matching would give the second face's old place to the first and lose the second."""
    tracks = link_faces([[face(100, 100), face(122, 100)], [face(118, 100), face(140, 100)]])
    assert sorted(centers(track)[:, 0].tolist() for track in tracks) == [[100, 118], [122, 140]]


@pytest.mark.parametrize(("gap", "expected"), [(3, 1), (4, 2)])
def test_gaps_up_to_the_limit_are_bridged(gap: int, expected: int) -> None:
    frames = [[face(50, 50)], *[[]] * gap, [face(52, 50)]]
    tracks = link_faces(frames, max_gap_frames=3)
    assert len(tracks) == expected
    assert tracks[0].frame_index.tolist() == ([0, gap + 1] if expected == 1 else [0])


def test_gaps_are_measured_in_source_frames() -> None:
    frames = [[face(50, 50)], [face(51, 50)]]
    assert len(link_faces(frames, [0, 10], max_gap_frames=9)) == 1
    assert len(link_faces(frames, [0, 11], max_gap_frames=9)) == 2


def test_leaps_and_sudden_growth_begin_a_new_track() -> None:
    assert len(link_faces([[face(50, 50)], [face(100, 50)]])) == 2
    assert len(link_faces([[face(50, 50)], [face(50, 50, 90)]])) == 2
    assert len(link_faces([[face(50, 50)], [face(60, 55, 50)]])) == 1


def test_short_tracks_can_be_dropped() -> None:
    frames = [[face(50, 50)] + ([face(400, 400)] if t == 3 else []) for t in range(8)]
    assert [len(track) for track in link_faces(frames)] == [8, 1]
    [track] = link_faces(frames[::-1], min_frames=2)
    assert (track.track_id, len(track)) == (0, 8)


def test_mixed_landmarks_are_left_out() -> None:
    assert link_faces([[face(50, 50)], [face(50, 50, landmarks=None)]])[0].landmarks is None
    assert link_faces([[face(50, 50)], [face(50, 50, landmarks=6)]])[0].landmarks is None


def test_a_stream_gives_the_same_tracks_and_frees_what_ended() -> None:
    frames = [[face(50 + t, 50)] + ([face(300, 300)] if t < 5 else []) for t in range(40)]
    linker = FaceLinker(max_gap_frames=4)
    assert linker.update(frames[0], 0) == [0, 1]
    early = []
    for t in range(1, 40):
        ids = linker.update(frames[t], t)
        assert ids[0] == 0
        early += linker.take_closed()
        assert bool(early) == (t >= 10)
    streamed = sorted(early + linker.finish(), key=lambda track: track.track_id)
    assert linker.finish() == []
    for ours, theirs in zip(streamed, link_faces(frames, max_gap_frames=4), strict=True):
        assert ours.track_id == theirs.track_id
        np.testing.assert_array_equal(ours.boxes, theirs.boxes)
        np.testing.assert_array_equal(ours.frame_index, theirs.frame_index)


def test_nothing_gives_nothing() -> None:
    assert link_faces([]) == []
    assert link_faces([[], []]) == []


def test_wrong_indices_and_limits() -> None:
    with pytest.raises(ShapeError, match="2 frames and 1 indices"):
        link_faces([[], []], [0])
    with pytest.raises(ShapeError, match="Frame 3 came after frame 3"):
        link_faces([[], []], [3, 3])
    for limits in ({"max_gap_frames": -1}, {"max_distance": 0}, {"max_growth": 0.5}):
        with pytest.raises(ShapeError, match="Expected"):
            link_faces([], **limits)
