"""Spotting on made long videos of a real face."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from vlfer.errors import ShapeError
from vlfer.evaluation.mie_spotting import SpotScore, match, overlap, score_video, score_videos, strs
from vlfer.faces.detect import build_detector
from vlfer.micro.long_video import Event, plan_events, render_video
from vlfer.micro.registration import register
from vlfer.micro.spotting import SpotSettings, spot, talking, trace_motion


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    pixels = astronaut()
    landmarks = build_detector().detect(pixels, effort="fast")[0].landmarks
    crop = register(pixels, pixels, onset_landmarks=landmarks, apex_landmarks=landmarks, side=112).onset
    return cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)


def _spot(face, events, *, duration_s, fps=30.0, seed=0, **how):
    return spot(trace_motion(render_video(face, tuple(events), duration_s=duration_s, fps=fps, seed=seed, **how)))


def test_made_expressions_are_found_between_blinks_and_drift(face) -> None:
    """The figure of the docs is over more and longer videos; this guards it."""
    total = SpotScore(0, 0, 0)
    for seed in (1, 2):
        events = plan_events(duration_s=24, seed=seed)
        found = _spot(face, events, duration_s=24, seed=seed)
        kinds = ("micro", "macro")
        total += score_videos(
            [{kind: [(i.onset_s, i.offset_s) for i in found if i.kind == kind] for kind in kinds}],
            [{kind: [(e.onset_s, e.offset_s) for e in events if e.kind == kind] for kind in kinds}],
        )["all"]
    assert total.f1 >= 0.6


def test_a_single_smile_has_its_onset_apex_offset_and_place(face) -> None:
    [found] = _spot(face, [Event(2.0, 2.2, 2.45, "micro", ("AU12",), 0.012)], duration_s=5, fps=60)
    assert found.kind == "micro"
    assert "mouth" in found.region
    assert found.onset_s == pytest.approx(2.0, abs=0.08)
    assert found.apex_s == pytest.approx(2.2, abs=0.08)
    assert found.offset_s == pytest.approx(2.45, abs=0.08)


def test_what_is_short_and_large_is_no_micro_expression(face) -> None:
    [small] = _spot(face, [Event(2.0, 2.15, 2.35, "micro", ("AU12",), 0.02)], duration_s=5, fps=60)
    assert 0.004 < small.strength < 0.03
    assert _spot(face, [Event(2.0, 2.15, 2.35, "micro", ("AU12",), 0.12)], duration_s=5, fps=60) == ()


@pytest.mark.parametrize("drift", [0.0, 0.03])
def test_a_still_face_that_blinks_shows_nothing(face, drift) -> None:
    blinks = [Event(1, 1.12, 1.3, "blink", (), 0.05), Event(3, 3.12, 3.3, "blink", (), 0.05)]
    assert _spot(face, blinks, duration_s=6, drift=drift) == ()


def test_a_face_that_talks_is_not_taken_for_expressions_and_its_brows_are_still_read(face) -> None:
    events = plan_events(duration_s=16, seed=7, blinks=False, speech=True)
    talk = [event for event in events if event.kind == "speech"]
    brows = Event(talk[4].onset_s, talk[4].onset_s + 0.5, talk[4].onset_s + 1.0, "macro", ("AU1", "AU2"), 0.025)
    trace = trace_motion(render_video(face, (*talk, brows), duration_s=16, fps=30.0, seed=7))
    heard, spoken = talking(trace), np.zeros(len(trace.times_s), bool)
    for event in talk:
        spoken |= (trace.times_s >= event.onset_s) & (trace.times_s <= event.offset_s)
    assert heard[spoken].mean() > 0.8
    assert heard[~spoken].mean() < 0.35  # half a second before and after
    deaf = spot(trace, settings=SpotSettings(syllables=10**6))
    found = spot(trace)
    assert len(deaf) > 2 * len(found)
    [raised] = [one for one in found if "brow" in one.region]
    assert overlap((raised.onset_s, raised.offset_s), (brows.onset_s, brows.offset_s)) >= 0.5


def test_expressions_without_speech_are_no_speech(face) -> None:
    events = plan_events(duration_s=24, seed=2)
    assert not talking(trace_motion(render_video(face, events, duration_s=24, fps=30.0, seed=2))).any()


def test_too_few_frames(face) -> None:
    with pytest.raises(ShapeError, match="2 frames"):
        trace_motion([(0.0, face), (0.1, face)])


def test_overlap_and_match() -> None:
    assert overlap((0, 2), (1, 3)) == pytest.approx(1 / 3)
    assert overlap((0, 1), (2, 3)) == 0
    assert overlap((1, 1), (1, 1)) == 0
    assert match([(0, 10), (1, 10)], [(1, 10)]) == [(1, 0)]
    assert score_video([(0, 2)], [(0, 4)]) == SpotScore(1, 0, 0)  # exactly half is a hit
    assert score_video([(0, 1.9)], [(0, 4)]) == SpotScore(0, 1, 1)


def test_counts_are_pooled_over_videos_before_f1() -> None:
    found = [{"micro": [(0, 1)], "macro": []}, {"micro": [(5, 6), (8, 9)], "macro": [(0, 4)]}]
    truth = [{"micro": [(0, 1)]}, {"micro": [(20, 21)], "macro": [(0, 5)]}]
    scores = score_videos(found, truth)
    assert scores["micro"] == SpotScore(1, 2, 1)
    assert scores["macro"] == SpotScore(1, 0, 0)
    assert scores["all"].f1 == pytest.approx(4 / (4 + 2 + 1))
    with pytest.raises(ShapeError):
        score_videos(found, truth[:1])


def test_strs_is_a_product_over_hits() -> None:
    spotting = SpotScore(2, 1, 1)
    assert strs(spotting, truth=np.array([0, 1]), prediction=np.array([0, 1]), n_classes=2) == spotting.f1
    assert strs(spotting, truth=np.array([0, 1]), prediction=np.array([1, 0]), n_classes=2) == 0
    assert strs(SpotScore(0, 1, 1), truth=np.array([], int), prediction=np.array([], int), n_classes=2) == 0
    with pytest.raises(ShapeError, match="1 labels for 2 hits"):
        strs(spotting, truth=np.array([0]), prediction=np.array([0]), n_classes=2)
