"""A video of two people who were analysed, made up of numbers."""

import av
import numpy as np
import pytest

from vlfer.reporting import Analysis
from vlfer.segments import FrameScores, Timeline, merge_cells
from vlfer.types import Label, LabelSet, Report, Scores

LABELS = LabelSet((Label("joy"), Label("grief & <awe>"), Label("plain")))
FPS, SECONDS = 10, 4


def _scores(probability):
    values = np.asarray(probability, np.float32)
    return Scores(values / 2, values, 1.0, LABELS)


def _timeline(track_id, first_s, cells):
    count = round(len(cells) * 0.5 * FPS)
    times_s = first_s + np.arange(count) / FPS
    boxes = np.stack(
        [np.array([20 + 80 * track_id + t, 30, 50 + 80 * track_id + t, 70], np.float32) for t in range(count)]
    )
    start_s = first_s + np.arange(len(cells)) * 0.5
    frames = FrameScores(
        np.round(times_s * FPS).astype(np.int64), times_s, boxes, np.full(count, 0.9, np.float32),
        _scores(np.repeat(cells, round(0.5 * FPS), axis=0)),
    )  # fmt: skip
    vectors = np.tile(np.eye(1, 6, dtype=np.float16), (len(cells), 1))
    return Timeline(track_id, start_s, start_s + 0.5, _scores(cells), (), frames, vectors, "s")


@pytest.fixture
def analysis():
    joy, grief, unclear = [0.8, 0.1, 0.1], [0.1, 0.7, 0.2], [0.34, 0.33, 0.33]
    timelines = (_timeline(0, 0.0, [joy] * 4 + [unclear] * 2 + [grief] * 2), _timeline(1, 1.0, [grief] * 4))
    predictions = tuple(
        segment
        for line in timelines
        for segment in merge_cells(line, boxes=line.frames.boxes, box_times_s=line.frames.times_s)
    )
    return Analysis(Report("film.mp4", "ok", predictions), timelines, cuts_s=(2.0,), n_frames=40, last_s=3.9)


@pytest.fixture(scope="session")
def film(tmp_path_factory):
    """Four seconds of grey with a tone, 161 x 121 px as far as H.264 can: 160 x 120."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        tone = container.add_stream("aac", rate=16000, layout="mono")
        for _ in range(FPS * SECONDS):
            frame = av.VideoFrame.from_ndarray(np.full((120, 160, 3), 128, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        wave = (0.3 * np.sin(np.arange(16000 * SECONDS) / 16000 * 2 * np.pi * 440)).astype(np.float32)
        for start in range(0, len(wave) - 1023, 1024):
            chunk = av.AudioFrame.from_ndarray(wave[None, start : start + 1024], format="fltp", layout="mono")
            chunk.sample_rate, chunk.pts = 16000, start
            container.mux(tone.encode(chunk))
        container.mux(tone.encode())
    return path
