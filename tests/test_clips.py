import numpy as np
import pytest
import torch

from vlfer.clips import build_pool
from vlfer.config import PredictConfig
from vlfer.errors import ConfigError, VideoReadError
from vlfer.faces.align import crop_face
from vlfer.live import LiveWatcher, Pace
from vlfer.models.temporal import TemporalAdapter
from vlfer.pipeline import EmotionPipeline
from vlfer.text.bank import TextBank
from vlfer.text.labels import parse_labels
from vlfer.types import Face

WORDS = "joy, grief, awe"
FPS = 10


class BrightFace:
    """Finds the one bright square of a frame."""

    name = "bright"

    def __init__(self):
        self.searched = 0
        self.stop_after = None

    def detect(self, pixels, *, effort="thorough"):
        self.searched += 1
        if self.stop_after is not None and self.searched > self.stop_after:
            raise self.error
        y, x = np.nonzero(pixels[..., 0] > 150)
        return [Face(np.array([x.min(), y.min(), x.max() + 1, y.max() + 1], np.float32), 0.9)] if len(x) else []


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Six seconds in which a bright square drifts and changes its pattern."""
    import av

    path = tmp_path_factory.mktemp("film") / "film.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for t in range(6 * FPS):
            pixels = np.full((96, 128, 3), 20, np.uint8)
            x = 20 + t // 2
            pixels[30:62, x : x + 32] = 230
            pixels[34 : 38 + t // 3, x + 4 : x + 28, 1] = 160
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture
def build(tiny_backbone):
    def make(**settings):
        config = PredictConfig(labels=WORDS, **{"faces": "detect", "fps": FPS, "detect_every_s": 0.0, **settings})
        bank = TextBank(tiny_backbone)
        labels = parse_labels(WORDS)
        return EmotionPipeline(tiny_backbone, labels=labels, bank=bank, detector=BrightFace(), config=config)

    return make


def only(pipeline, film, **options):
    (analysis,) = pipeline.analyse([film], **options)
    return analysis


def assert_same(ours, theirs):
    assert [(p.track_id, p.start_s, p.end_s, p.label) for p in ours.report.predictions] == [
        (p.track_id, p.start_s, p.end_s, p.label) for p in theirs.report.predictions
    ]
    for a, b in zip(ours.timelines, theirs.timelines, strict=True):
        np.testing.assert_allclose(a.scores.probability, b.scores.probability, atol=1e-5)
        np.testing.assert_allclose(a.frames.times_s, b.frames.times_s)
        np.testing.assert_allclose(a.frames.scores.probability, b.frames.scores.probability, atol=1e-5)


def test_every_frame_and_every_cell_is_scored(build, film):
    analysis = only(build(), film)
    (line,) = analysis.timelines
    assert len(line.frames) == 60
    assert len(line.start_s) == 24
    assert line.embedding.vectors.shape[0] == 24
    assert analysis.n_frames == 60
    assert set(analysis.seconds) == {"decode", "detect", "align", "encode", "score"}


def test_watched_then_told_equals_analysed(build, film):
    from vlfer.sources import open_source

    pipeline = build()
    clip = open_source(film, fps=FPS)
    assert_same(pipeline.tell(clip, pipeline.watch(clip)), only(pipeline, film))


def test_an_interval_keeps_its_times(build, film):
    (line,) = only(build(start_s=2.0, end_s=4.0), film).timelines
    assert line.frames.times_s[0] == pytest.approx(2.0)
    assert line.frames.times_s[-1] == pytest.approx(3.9)


def test_an_interval_behind_the_end_says_how_long_the_video_is(build, film):
    analysis = only(build(start_s=60.0), film)
    assert analysis.report.status == "error"
    assert "It lasts 6.00 s" in analysis.report.message


def test_an_interrupted_run_keeps_what_it_had_and_goes_on(build, film, tmp_path):
    whole = only(build(), film)
    first = build()
    first.detector.stop_after, first.detector.error = 40, KeyboardInterrupt()
    analyses = first.analyse([film], journal_dir=tmp_path)
    broken = next(analyses)
    assert broken.was_interrupted
    assert broken.report.error_type == "Interrupted"
    assert 0 < len(broken.timelines[0].frames) <= 40
    with pytest.raises(KeyboardInterrupt):
        next(analyses)
    second = build()
    resumed = only(second, film, journal_dir=tmp_path)
    assert resumed.report.status == "ok"
    assert resumed.n_replayed == broken.n_frames > 0
    assert second.detector.searched == 60 - resumed.n_replayed
    assert_same(resumed, whole)


def test_other_settings_do_not_go_on_from_a_journal(build, film, tmp_path):
    only(build(), film, journal_dir=tmp_path)
    assert only(build(), film, journal_dir=tmp_path).n_replayed == 60
    assert only(build(margin=0.1), film, journal_dir=tmp_path).n_replayed == 0
    assert only(build(fps=5.0), film, journal_dir=tmp_path).n_replayed == 0


def test_a_full_disk_costs_the_journal_and_not_the_answer(build, film, tmp_path, monkeypatch, caplog):
    from vlfer.sightings import Journal

    def full(self, sightings):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Journal, "add", full)
    assert only(build(), film, journal_dir=tmp_path).report.status == "ok"
    assert "No space left" in caplog.text


def test_a_video_that_breaks_in_the_middle_is_told_as_far_as_it_goes(build, film):
    pipeline = build()
    pipeline.detector.stop_after, pipeline.detector.error = 40, VideoReadError("The file is damaged.")
    analysis = only(pipeline, film)
    assert analysis.report.status == "error"
    assert "After" in analysis.report.message
    assert len(analysis.timelines[0].frames) >= 30


@pytest.mark.parametrize("temporal", ["mean", "attention", "topk", "ema"])
def test_temporal_models_answer_alike_on_a_still_face(build, film, temporal):
    (line,) = only(build(temporal=temporal), film).timelines
    (mean,) = only(build(), film).timelines
    assert line.scores.probability.shape == mean.scores.probability.shape
    np.testing.assert_allclose(line.embedding.vectors[0] @ mean.embedding.vectors[0], 1.0, atol=0.05)


def test_the_adapter_of_an_encoder_is_used_and_untrained_changes_nothing(build, film, monkeypatch):
    pipeline = build()
    plain = only(pipeline, film)
    adapter = TemporalAdapter(pipeline.encoder.dimension, max_frames=6).eval()
    monkeypatch.setattr(pipeline.encoder, "temporal", adapter, raising=False)
    (line,) = only(build(window_s=0.5), film).timelines
    (mean,) = only(build(window_s=0.5, temporal="mean"), film).timelines
    np.testing.assert_allclose(line.scores.probability, mean.scores.probability, atol=1e-5)
    torch.nn.init.normal_(adapter.head.weight, std=0.5)
    (read,) = only(build(), film).timelines  # windows of 11 frames, of which 6 are read
    assert np.abs(read.scores.probability - plain.timelines[0].scores.probability).max() > 1e-3


def test_an_adapter_that_is_not_there_is_asked_for(build, film):
    with pytest.raises(ConfigError, match="No temporal adapter"):
        build_pool("adapter", build().encoder)
    report = only(build(temporal="adapter"), film).report
    assert (report.status, report.error_type) == ("error", "ConfigError")


def test_live_scores_follow_a_person_and_fade(build):
    pipeline = build()
    watcher = LiveWatcher(pipeline.clip_tools(), half_life_s=0.2)
    pixels = np.full((96, 128, 3), 20, np.uint8)
    pixels[30:62, 40:72] = 230
    changed = pixels.copy()
    changed[34:58, 44:68, 1] = 155
    box = np.array([40, 30, 72, 62], np.float32)
    crops = np.stack([crop_face(p, Face(box, 0.9), size=pipeline.encoder.spec.image_size) for p in (pixels, changed)])
    before, after = pipeline.encode(crops).vectors
    first = watcher.look(pixels, 0.0)
    assert [face.track_id for face in first] == [0]
    np.testing.assert_allclose(first[0].vector, before, atol=1e-5)
    soon = watcher.look(changed, 0.05)[0]
    late = [watcher.look(changed, 0.05 + 0.1 * t)[0] for t in range(1, 20)][-1]
    assert float(before @ soon.vector) > float(before @ late.vector)
    np.testing.assert_allclose(late.vector, after, atol=1e-2)
    assert sum(p for _, p in late.top) == pytest.approx(1.0, abs=1e-5)
    assert watcher.look(np.full_like(pixels, 20), 2.5) == []
    with pytest.raises(ConfigError, match="half-life"):
        LiveWatcher(pipeline.clip_tools(), half_life_s=0)


def test_pace_counts_frames_and_latency():
    now = iter(np.arange(1, 100) * 0.1)
    pace = Pace(clock=lambda: float(next(now)))
    assert (pace.fps, pace.latency_s) == (0.0, 0.0)
    for t in range(20):
        pace.add(0.1 * (t + 1) - 0.03)
    assert pace.fps == pytest.approx(10.0)
    assert pace.latency_s == pytest.approx(0.03)
