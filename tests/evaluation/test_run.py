"""From manifest to report with an encoder that sees colours."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest

from vlfer.errors import DataError
from vlfer.evaluation.datasets import load_dataset
from vlfer.evaluation.embed import EmbeddingStore
from vlfer.evaluation.manifest import Manifest, Row
from vlfer.evaluation.media import Recipe, fit_whole, read_crops, read_frames, sample_indices
from vlfer.evaluation.protocols import plan_test
from vlfer.evaluation.report import markdown, predictions_csv, report_dict, summary_rows, write_report
from vlfer.evaluation.run import EvalConfig, embed_words, evaluate
from vlfer.types import Face, Label, LabelSet

RECIPE = Recipe(size=16, faces="whole")


@pytest.fixture
def run(make_encoder, fake, tmp_path):
    """Evaluate a manifest with the colour encoder; keyword arguments go to `EvalConfig`, `Recipe` and the plan."""

    def go(manifest, *, encoder=None, recipe=RECIPE, names=None, plan=None, detector=None, progress=None, **settings):
        labels = LabelSet(tuple(Label(n) for n in names or fake.DFEW_CLASSES))
        encoder = encoder or make_encoder(fake.DFEW_CLASSES)
        return evaluate(
            plan_test(manifest, **(plan or {})),
            labels=labels,
            words=embed_words(labels, bank=encoder, ensemble="name"),
            encoder=encoder,
            recipe=recipe,
            store=EmbeddingStore(tmp_path / "cache"),
            config=EvalConfig(bootstrap=100, **settings),
            temperature=encoder.temperature,
            build_detector=detector,
            progress=progress,
        )

    return go


@pytest.mark.parametrize("media", ["frames", "video"])
def test_dfew_is_read_and_scored_by_fold(run, fake, tmp_path, media):
    result = run(load_dataset("dfew", fake.dfew(tmp_path / "d", media=media)))
    assert result.headline["war"] == 1.0
    assert result.headline["uar"] == 1.0
    assert list(result.folds) == ["1", "2", "3", "4", "5"]
    assert sum(f.n for f in result.folds.values()) == result.pooled.n == 14


def test_failed_rows_count_as_errors_and_stay_in_the_report(run, fake, tmp_path):
    good = fake.picture(tmp_path / "a.png", 0)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    rows = [Row(str(good), "happiness"), Row(str(tmp_path / "broken.png"), "sadness")]
    rows += [Row(str(tmp_path / "missing.png"), "sadness"), Row(str(tmp_path / "t.csv#3"), "fear")]
    rows += [Row(str(good), "happiness", start_s=1.0)]
    result = run(Manifest(tuple(rows)))
    assert (result.pooled.n, result.pooled.failed) == (5, 4)
    assert result.headline["war"] == 0.2
    assert result.pooled.answered["war"] == 1.0
    assert sum(result.failures.values()) == 4
    report = report_dict(result, provenance={})
    assert {row["path"] for row in report["failed_rows"]} == {row.path for row in rows[1:]}
    assert all(row["message"] for row in report["failed_rows"])
    lines = list(csv.DictReader(io.StringIO(predictions_csv(result))))
    assert [line["status"] for line in lines] == ["ok", "error", "error", "error", "error"]
    assert lines[0]["prediction"] == "happiness"
    assert lines[1]["prediction"] == ""


def test_labels_are_checked_before_anything_is_encoded(run, make_encoder, fake, tmp_path):
    encoder = make_encoder(fake.DFEW_CLASSES)
    with pytest.raises(DataError, match="awe 1"):
        run(Manifest((Row(str(fake.picture(tmp_path / "a.png", 0)), "awe"),)), encoder=encoder)
    assert encoder.faces_seen == 0


def test_second_run_touches_no_pixel_and_other_words_give_other_answers(run, make_encoder, fake, tmp_path):
    manifest = load_dataset("dfew", fake.dfew(tmp_path / "d"))
    first, second = make_encoder(fake.DFEW_CLASSES), make_encoder(fake.DFEW_CLASSES)
    before = run(manifest, encoder=first)
    for row in manifest.rows:  # same content elsewhere would do too: here the media vanish from under their names
        assert row.path
    after = run(manifest, encoder=second, frame_pooling="probabilities")
    assert first.faces_seen == 42
    assert second.faces_seen == 0
    assert after.encoded.from_cache == 14
    assert np.array_equal(before.prediction, after.prediction)
    swapped = dict(zip(fake.DFEW_CLASSES, reversed(fake.DFEW_CLASSES), strict=True))
    other = make_encoder([swapped[c] for c in fake.DFEW_CLASSES])
    wrong = run(manifest, encoder=other)
    assert other.faces_seen == 0
    assert wrong.headline["war"] == pytest.approx(2 / 14, abs=0.1)  # only the middle class keeps its colour


def test_moved_files_are_known_and_changed_ones_are_not(run, make_encoder, fake, tmp_path):
    encoder = make_encoder(fake.DFEW_CLASSES)
    here = fake.picture(tmp_path / "a.png", 1)
    run(Manifest((Row(str(here), "sadness"),)), encoder=encoder)
    there = here.rename(tmp_path / "b.png")
    run(Manifest((Row(str(there), "sadness"),)), encoder=encoder)
    assert encoder.faces_seen == 1
    fake.picture(there, 2, mark=77)
    assert run(Manifest((Row(str(there), "neutral"),)), encoder=encoder).headline["war"] == 1.0
    assert encoder.faces_seen == 2


def test_sampling_faces_and_space_are_part_of_the_key(run, make_encoder, fake, tmp_path):
    encoder = make_encoder(fake.DFEW_CLASSES)
    manifest = Manifest((Row(str(fake.frame_folder(tmp_path / "clip", 1)), "sadness"),))
    run(manifest, encoder=encoder)
    run(manifest, encoder=encoder, recipe=Recipe(size=16, faces="whole", frames=2))
    run(manifest, encoder=encoder, recipe=Recipe(size=16, fit="squash"))
    assert encoder.faces_seen == 3 + 2 + 3
    run(manifest, encoder=make_encoder(fake.DFEW_CLASSES, space="colours/2/none"))
    run(manifest, encoder=encoder)
    assert encoder.faces_seen == 8


def test_batches_reach_over_clips(run, make_encoder, fake, tmp_path):
    rows = tuple(
        Row(str(fake.picture(tmp_path / f"{i}.png", i % 7, mark=i)), fake.DFEW_CLASSES[i % 7]) for i in range(70)
    )
    encoder = make_encoder(fake.DFEW_CLASSES)
    seen = []
    result = run(Manifest(rows), encoder=encoder, batch_size=8, progress=lambda *a: seen.append(a))
    assert result.headline["war"] == 1.0
    assert max(encoder.batches) >= 32
    assert seen[-1] == ("encode", 70, 70)


class BoxDetector:
    """Finds a face in the left half of wide images only."""

    name = "box"

    def detect(self, pixels, *, effort="thorough"):
        if pixels.shape[1] <= pixels.shape[0]:
            return []
        return [Face(np.array([2, 2, 28, 28], np.float32), 0.9)]


def test_no_face_is_a_failure_that_is_remembered(run, make_encoder, fake, tmp_path):
    fake.expw(tmp_path / "e")
    wide = tmp_path / "e" / "data" / "image" / "origin" / "image_0.jpg"
    rows = (Row(str(wide), "happiness"), Row(str(fake.picture(tmp_path / "no.png", 3)), "anger"))
    recipe = Recipe(size=16, faces="detect")
    encoder = make_encoder(fake.DFEW_CLASSES)
    for _ in range(2):
        result = run(Manifest(rows), encoder=encoder, recipe=recipe, detector=BoxDetector)
        assert result.failures == {"NoFaceError": 1}
        assert result.encoded.places[1].status == "no_face"
        assert result.prediction.tolist() == [0, -1]
    assert encoder.faces_seen == 1
    assert result.encoded.encoded == 0


def test_given_boxes_are_cut_out(run, fake, tmp_path):
    manifest = load_dataset("expw", fake.expw(tmp_path / "e"))
    crops = read_crops(manifest.rows[1], recipe=Recipe(size=8, faces="whole"), detector=None)
    assert np.abs(crops.pixels[0, 4, 4].astype(int) - fake.colour(1)).max() < 12


@pytest.mark.parametrize("box", [(280.0, 2.0, 300.0, 28.0), (2.0, 30.0, 28.0, 60.0), (-9.0, 2.0, 0.0, 28.0)])
def test_a_box_beside_the_image_fails_its_row(fake, tmp_path, box):
    row = replace(load_dataset("expw", fake.expw(tmp_path / "e")).rows[0], box=box)
    crops = read_crops(row, recipe=Recipe(size=8, faces="whole"), detector=None)
    assert (crops.status, crops.error_type) == ("error", "DataError")
    assert "60 x 30 px" in crops.message


@pytest.mark.parametrize(
    ("sampling", "n", "expected"),
    [
        ("dfer-clip", 32, list(range(1, 32, 2))),
        ("exp-clip", 32, list(range(1, 32, 2))),
        ("dfer-clip", 20, [0, 1, 3, 4, 5, 6, 8, 9, 10, 11, 13, 14, 15, 16, 18, 19]),
        ("dfer-clip", 16, list(range(16))),
        ("exp-clip", 16, [0] * 16),
        ("dfer-clip", 3, [0, 1] + [2] * 14),
        ("exp-clip", 3, [0] * 16),
        ("uniform", 3, [0, 1, 2]),
        ("all", 5, [0, 1, 2, 3, 4]),
    ],
)
def test_sampling(sampling, n, expected):
    assert sample_indices(n, sampling=sampling, count=16).tolist() == expected


def test_interval_of_a_video(fake, tmp_path):
    clip = fake.video(tmp_path / "v.mp4", 0, n_frames=20)  # 10 frames a second
    part = read_frames(Row(str(clip), "x", start_s=0.5, end_s=1.0), sampling="all", count=0)
    assert len(part) == 5
    assert part.times_s == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9])
    assert len(read_frames(Row(str(clip), "x"), sampling="uniform", count=4)) == 4
    assert len(read_frames(Row(str(clip), "x"), sampling="exp-clip", count=4)) == 4


def test_published_preprocessing_matches_torchvision():
    from PIL import Image
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

    pixels = np.random.default_rng(0).integers(0, 256, (50, 80, 3), dtype=np.uint8)
    squashed = np.asarray(Resize((32, 32))(Image.fromarray(pixels)))
    assert np.array_equal(fit_whole(pixels, size=32, fit="squash"), squashed)
    clip = Compose([Resize(32, interpolation=InterpolationMode.BICUBIC), CenterCrop(32)])
    difference = fit_whole(pixels, size=32, fit="center").astype(int) - np.asarray(clip(Image.fromarray(pixels)))
    assert np.abs(difference).max() == 0


def test_report_files(run, fake, tmp_path):
    result = run(load_dataset("dfew", fake.dfew(tmp_path / "d")), names=[*fake.DFEW_CLASSES, "contempt"])
    provenance = {"backbone": "colours", "space": "s", "label_set": "l", "labels_sha256": "0" * 64, "config": {"a": 1}}
    report = report_dict(result, provenance=provenance)
    files = write_report(result, tmp_path / "out", report=report)
    assert {f.name for f in files} == {
        "report.json", "predictions.csv", "confusion.csv", "confusion.png", "report.md", "config.yaml",
    }  # fmt: skip
    again = json.loads((tmp_path / "out" / "report.json").read_text())
    assert {"war", "uar", "uf1", "n", "failed", "per_class", "folds", "mean"} <= set(again)
    assert again["aggregate"] == "mean"
    assert again["absent"] == ["contempt"]
    assert again["folds"]["2"]["war"] == 1.0
    assert (tmp_path / "out" / "confusion.png").read_bytes()[:4] == b"\x89PNG"
    text = (tmp_path / "out" / "report.md").read_text()
    assert "| 100.00 | 100.00 | 100.00 |" in text
    assert "left out of the means: contempt" in text
    assert "\n\n\n" not in markdown({**report, "notes": []})
    assert "Split 'A', fold 'KA' only. 14 rows" in markdown({**report, "protocol": "split 'A', fold 'KA' only"})
    counts = list(csv.reader((tmp_path / "out" / "confusion.csv").open()))
    assert [int(counts[i][i]) for i in range(1, 8)] == [2] * 7
    assert summary_rows(report)[-1] == ["mean of folds", "14", "0", "100.00", "100.00", "100.00"]
