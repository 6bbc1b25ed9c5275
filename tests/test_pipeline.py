import dataclasses
import itertools
import json

import numpy as np
import pytest
from PIL import Image

import vlfer
from vlfer.config import PredictConfig
from vlfer.errors import BackboneError, ConfigError, MediaReadError, PromptError
from vlfer.pipeline import EmotionPipeline, load_pipeline
from vlfer.text.bank import TextBank
from vlfer.text.labels import parse_labels
from vlfer.types import Face, Frames


class BrightFaces:
    """A detector that finds the bright squares that `picture` draws: one face a distinct grey level above 100."""

    name = "bright"

    def detect(self, pixels, *, effort="thorough"):
        faces = []
        for level in np.unique(pixels[..., 0]):
            if level > 100:
                y, x = np.nonzero(pixels[..., 0] == level)
                faces.append(Face(np.array([x.min(), y.min(), x.max() + 1, y.max() + 1], np.float32), 0.9))
        return sorted(faces, key=lambda face: -float(np.prod(face.box[2:] - face.box[:2])))


def picture(*levels, size=64):
    """A dark picture with one bright square a level."""
    pixels = np.full((size, size * 3, 3), 20, np.uint8)
    for i, level in enumerate(levels):
        pixels[16 : 40 - 4 * i, 8 + 60 * i : 32 + 60 * i] = level
    return pixels


@pytest.fixture
def build(tiny_backbone):
    def make(labels="joy, grief, awe", **settings):
        config = PredictConfig(labels=labels, faces="detect", **settings)
        bank = TextBank(tiny_backbone)
        return EmotionPipeline(
            tiny_backbone, labels=parse_labels(labels), bank=bank, detector=BrightFaces(), config=config
        )

    return make


def save(path, pixels):
    Image.fromarray(pixels).save(path)
    return path


def test_every_face_of_an_image_gets_a_prediction(build):
    report = build().predict(picture(200, 150))
    assert report.status == "ok"
    assert [p.track_id for p in report.predictions] == [0, 1]
    for prediction in report.predictions:
        assert sum(p for _, p in prediction.top) == pytest.approx(1.0, abs=1e-5)
        assert prediction.probability == prediction.top[0][1]
        assert len(prediction.similarity) == len(prediction.top)
        assert prediction.label in (None, prediction.top[0][0])
        assert bool(prediction.reason) == (prediction.label is None)
    assert report.predictions[0].box == (8.0, 16.0, 32.0, 40.0)


def test_a_batch_of_files_equals_the_files_alone(build, tmp_path):
    paths = [save(tmp_path / f"{i}.png", picture(*levels)) for i, levels in enumerate([(200,), (150, 250), (120,)])]
    pipeline = build(batch_size=2)
    together = pipeline.predict(paths)
    for path, report in zip(paths, together, strict=True):
        alone = pipeline.predict(path)
        assert [p.top[0][0] for p in alone.predictions] == [p.top[0][0] for p in report.predictions]
        np.testing.assert_allclose(
            [p.probability for p in alone.predictions], [p.probability for p in report.predictions], atol=1e-5
        )
    assert [report.source for report in together] == [str(path) for path in paths]


def test_the_faces_of_many_images_share_a_batch(build, monkeypatch, tiny_backbone):
    sizes = []
    encode = tiny_backbone.encode_images
    monkeypatch.setattr(tiny_backbone, "encode_images", lambda p, **k: (sizes.append(len(p)), encode(p, **k))[1])
    build(batch_size=4).predict([picture(200), picture(150), picture(250, 180), picture(120)])
    assert sizes == [4, 1]


def test_permuted_labels_permute_scores(build):
    one = build("joy, grief, awe").predict(picture(200)).predictions[0]
    two = build("awe, joy, grief").predict(picture(200)).predictions[0]
    assert dict(one.top) == pytest.approx(dict(two.top), abs=1e-5)


def test_a_failing_source_stops_no_other(build, tmp_path):
    good = save(tmp_path / "good.png", picture(200))
    empty = tmp_path / "empty.jpg"
    empty.write_bytes(b"")
    text = tmp_path / "text.mp4"
    text.write_text("this is no video")
    faceless = save(tmp_path / "faceless.png", picture())
    reports = build().predict([tmp_path / "missing.png", good, empty, text, faceless, good])
    assert [r.status for r in reports] == ["error", "ok", "error", "error", "no_face", "ok"]
    assert reports[4].error_type == "NoFaceError"
    assert "No face was found" in reports[4].message
    for report in reports:
        assert bool(report.message) == (report.status != "ok")
        assert report.provenance["labels"] == ["joy", "grief", "awe"]
    assert reports[1].predictions == reports[5].predictions


def test_errors_can_be_raised(build, tmp_path):
    with pytest.raises(MediaReadError, match="does not exist"):
        build().predict(tmp_path / "missing.png", on_error="raise")


def test_an_unforeseen_error_becomes_a_row_with_its_type(build, monkeypatch):
    pipeline = build()
    monkeypatch.setattr(pipeline.detector, "detect", lambda pixels, effort: 1 / 0, raising=True)
    report = pipeline.predict(picture(200))
    assert (report.status, report.error_type) == ("error", "ZeroDivisionError")
    assert "Unexpected" in report.message
    with pytest.raises(ZeroDivisionError):
        pipeline.predict(picture(200), on_error="raise")


def test_one_poisoned_row_does_not_spoil_its_batch(build, monkeypatch, tiny_backbone):
    encode = tiny_backbone.encode_images

    def poisoned(pixels, **settings):
        if (pixels[..., 0] > 245).any():
            raise RuntimeError("poison")
        return encode(pixels, **settings)

    monkeypatch.setattr(tiny_backbone, "encode_images", poisoned)
    reports = build().predict([picture(200), picture(250), picture(150)])
    assert [report.status for report in reports] == ["ok", "error", "ok"]
    assert "poison" in reports[1].message


def moving(n=40, fps=10.0, levels=(200, 150)):
    """A video in which both faces drift to the right."""
    frames = np.stack([np.roll(picture(*levels), i // 4, axis=1) for i in range(n)])
    return Frames(frames, np.arange(n) / fps, source="made")


def test_a_video_is_cut_into_segments_per_face(build):
    pipeline = build(fps=10.0, threshold=0.0, tie_margin=0.0)
    (analysis,) = pipeline.analyse([moving()])
    report = analysis.report
    assert report.status == "ok"
    assert {p.track_id for p in report.predictions} == {0, 1}
    for timeline in analysis.timelines:
        own = [p for p in report.predictions if p.track_id == timeline.track_id]
        assert own[0].start_s == 0.0
        assert own[-1].end_s == pytest.approx(4.0, abs=0.01)
        for before, after in itertools.pairwise(own):
            assert before.end_s == pytest.approx(after.start_s)
            assert before.label != after.label
        assert timeline.thumbnails


def test_a_video_is_looked_at_as_often_as_asked(build):
    told = []
    build(fps=2.0).predict(moving(), hook=lambda *news: told.append(news))
    assert ("frames", 8, 8) in told
    assert told[-1] == ("sources", 1, 1)


def test_a_video_without_a_face_says_so(build):
    report = build().predict(moving(levels=()))
    assert (report.status, report.error_type) == ("no_face", "NoFaceError")
    assert "frames" in report.message


def test_one_label_is_answered_with_a_warning(build):
    prediction = build('"joy"').predict(picture(200)).predictions[0]
    assert prediction.probability == 1.0
    assert "one label only" in prediction.note


def test_a_report_is_json_and_says_how_it_was_made(build):
    report = build(top=2).predict(picture(200))
    row = json.loads(json.dumps(dataclasses.asdict(report)))
    made = row["provenance"]
    assert len(row["predictions"][0]["top"]) == 2
    assert made["config"]["top"] == 2
    assert made["versions"]["vlfer"]
    assert made["space"]
    assert len(made["labels_sha256"]) == 64


def test_load_pipeline_wires_the_real_parts(tiny_backbone_name):
    pipeline = vlfer.load_pipeline(tiny_backbone_name, labels=["a broad smile", "weeping"], faces="whole", device="cpu")
    report = pipeline.predict(picture(200))
    assert report.status == "ok"
    assert report.predictions[0].box == (0.0, 0.0, 192.0, 64.0)
    assert {name for name, _ in report.predictions[0].top} == {"a broad smile", "weeping"}


@pytest.mark.parametrize(
    ("settings", "kind", "words"),
    [
        ({"labels": "ekman"}, PromptError, "ekman7"),
        ({"labels": "joy, joy"}, PromptError, "twice"),
        ({"labels": ""}, PromptError, "empty"),
        ({"labels": "joy, " + "very " * 500 + "sad"}, PromptError, "words"),
        ({"topp": 3}, ConfigError, "Did you mean 'top'"),
        ({"backbone": "bundeld"}, BackboneError, "Did you mean 'bundled'"),
    ],
)
def test_mistakes_are_told_before_anything_is_loaded(settings, kind, words):
    with pytest.raises(kind, match=words):
        load_pipeline(**settings)
