"""Fitting a card's calibration on faces, and the picture of it."""

import json

import numpy as np
import pytest

from vlfer.bench.calibration import risk_coverage_png
from vlfer.bench.faces import load_faces, parse_address
from vlfer.bench.fairness import NOT_MEASURED, accuracy_by, properties_of
from vlfer.models import bundled
from vlfer.models.bundled import load_bundled
from vlfer.pipeline import load_pipeline
from vlfer.training.data import file_sha256


@pytest.fixture
def own_model(tmp_path, votes_file):
    """A copy of the bundled model whose card says that it was trained on the noise archive."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in (bundled.CONFIG_NAME, bundled.WEIGHTS_NAME):
        (folder / name).write_bytes((bundled.BUNDLED_DIR / name).read_bytes())
    card = json.loads((bundled.BUNDLED_DIR / bundled.CARD_NAME).read_text())
    card |= {"data_sha256": file_sha256(votes_file), "temperature": 0.5}
    card.pop("calibration", None)
    card["recipe"] |= {"data": {"validation": 0.3, "test": 0.3, "leave_out": None}, "seed": 0}
    (folder / bundled.CARD_NAME).write_text(json.dumps(card))
    return folder


@pytest.mark.slow
def test_command_fits_writes_and_the_pipeline_reads(run, own_model, votes_file, jpeg_file, tmp_path):
    arguments = [
        "bench", "calibration", "--backbone", f"bundled:{own_model}", "--data", f"own={votes_file}",
        "--data", f"lfw={jpeg_file}", "--out", tmp_path / "c.json", "--picture", tmp_path / "c.png", "--device", "cpu",
    ]  # fmt: skip
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    report = json.loads((tmp_path / "c.json").read_text())
    assert [one["set"] for one in report["judged"]] == ["own, validation", "own, test", "lfw, all"]
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    assert load_bundled(own_model).spec.calibration is None  # nothing is written unless asked for
    assert run(*arguments, "--write").exit_code == 0
    temperature = report["calibration"]["temperature"]
    assert load_bundled(own_model).temperature == temperature["all"]
    for ensemble in ("all", "name"):
        pipeline = load_pipeline(f"bundled:{own_model}", labels="ferplus8", faces="whole", ensemble=ensemble)
        assert pipeline.temperature == temperature[ensemble]
    asked = load_pipeline(f"bundled:{own_model}", labels="ferplus8", faces="whole", temperature=0.3)
    assert asked.temperature == 0.3


def test_a_set_that_it_was_not_trained_on_cannot_be_fitted_on(run, own_model, jpeg_file):
    result = run("bench", "calibration", "--backbone", f"bundled:{own_model}", "--data", f"lfw={jpeg_file}")
    assert result.exit_code == 2
    assert "None of lfw is the archive" in result.stderr


def test_picture_of_few_faces():
    curve = ("x", np.linspace(0.1, 1, 10).astype(np.float32), np.linspace(0, 0.4, 10).astype(np.float32))
    assert risk_coverage_png([curve]).startswith(b"\x89PNG")


def test_properties_follow_what_was_done_to_the_picture():
    rng = np.random.default_rng(0)
    coarse = np.kron(rng.integers(90, 170, (8, 8, 1)), np.ones((10, 10, 3))).astype(np.uint8)
    fine = rng.integers(90, 170, (80, 80, 1)).repeat(3, axis=2).astype(np.uint8)
    found = properties_of([coarse, coarse // 2, fine, coarse[:40, :60]])
    assert found["brightness"][1] == pytest.approx(found["brightness"][0] / 2, rel=0.02)
    assert found["contrast"][1] == pytest.approx(found["contrast"][0] / 2, rel=0.05)
    assert found["sharpness"][2] > 1.5 * found["sharpness"][0]
    assert found["size_px"].tolist() == [80, 80, 80, 40]
    assert np.isnan(found["turn"]).all()  # no face, no pose


def test_bins_hold_every_face_once_and_discount_the_mix_of_classes(votes_file):
    faces = load_faces(parse_address(f"own={votes_file}"))
    n = len(faces)
    probability = np.full((n, 8), 0.1, np.float32)
    knows = np.isin(faces.truth, [0, 1, 2, 3])  # right on four classes, never on the others
    probability[np.arange(n), np.where(knows, faces.truth, 0)] = 0.9
    by_class = np.where(knows, 1.0, 2.0)
    light = np.concatenate([[np.nan] * 4, np.arange(n - 4.0)])
    rows = accuracy_by({"by_class": by_class, "light": light, "same": np.ones(n)}, probability, faces)
    assert not any(row["property"] == "same" for row in rows)
    assert sum(row["n"] for row in rows if row["property"] == "light") == n
    assert [row["n"] for row in rows if row["property"] == "light" and row["from"] is None] == [4]
    for row in rows:
        assert row["difference"] == pytest.approx(0, abs=1e-3)  # all of it is the mix of classes


@pytest.mark.slow
def test_command_tells_what_cannot_be_measured(run, tiny_backbone_name, votes_file, tmp_path):
    result = run(
        "bench", "fairness", "--backbone", tiny_backbone_name, "--data", f"own={votes_file}", "--out",
        tmp_path / "f.json", "--device", "cpu",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    report = json.loads((tmp_path / "f.json").read_text())
    assert report["not_measured"] == NOT_MEASURED
    assert {row["property"] for row in report["rows"]} >= {"brightness", "contrast", "sharpness"}
    assert "gender" in result.stdout
