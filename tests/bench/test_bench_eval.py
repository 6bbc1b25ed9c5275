"""The benchmark of evaluation, on small sizes."""

import json
import time

import numpy as np
import pytest

from vlfer.bench import eval as bench
from vlfer.bench.measurement import Measurement, PeakMemory
from vlfer.evaluation.manifest import Row
from vlfer.evaluation.media import read_frames


def test_bars():
    assert Measurement("x", 4.0, "s", bar=5.0).is_met is True
    assert Measurement("x", 6.0, "s", bar=5.0).is_met is False
    assert Measurement("x", 0.95, "", bar=0.9, at_least=True).is_met is True
    assert Measurement("x", None, "s", bar=5.0).is_met is None
    assert Measurement("x", 1.0, "s").as_dict()["is_met"] is None


def test_peak_memory_sees_what_was_held_and_let_go():
    with PeakMemory() as memory:
        block = np.ones(8_000_000)
        time.sleep(0.2)
        del block
    if memory.grown_mb is None:
        pytest.skip("this system does not tell the memory of a process")
    assert 55 < memory.grown_mb < 120


def test_made_up_media_are_what_they_claim(tmp_path):
    clip = read_frames(Row(str(bench.write_clip(tmp_path, 0, size=31)), "x"), sampling="all", count=0)
    assert clip.pixels.shape == (16, 32, 32, 3)
    assert clip.pixels.std() > 10
    assert not np.array_equal(clip.pixels[0], clip.pixels[8])
    image = read_frames(Row(str(bench.write_image(tmp_path, 1, size=31)), "x"), sampling="all", count=0)
    assert image.pixels.shape == (1, 31, 31, 3)


@pytest.mark.slow
def test_command_measures_scoring_and_encoding(run, tiny_backbone_name, tmp_path):
    result = run(
        "bench", "eval", "--backbone", tiny_backbone_name, "--device", "cpu", "--parts", "scoring,encoding",
        "--sizes", "50", "--clips", "3", "--images", "20", "--out", tmp_path / "b.json",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    report = json.loads((tmp_path / "b.json").read_text())
    values = {m["name"]: m["value"] for m in report["measurements"]}
    assert values["score 50 stored clips of 16 frames"] > 0
    assert 0 < values["images, share of the tower alone"] < 1.5
    assert "tower alone" in result.stdout


def test_mistakes_are_told(run):
    assert "Did you mean 'encoding'" in run("bench", "eval", "--parts", "encodign").stderr
    assert run("bench", "eval", "--sizes", "ten").exit_code == 2
    assert run("bench", "eval", "--sizes", "0").exit_code == 2
