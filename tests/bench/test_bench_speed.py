"""What is told of a backbone's cost; never how fast it should be."""

import json

import pytest

from vlfer.bench.speed import ms_per_face, speed_report
from vlfer.errors import EnvironmentProblem


def test_time_is_told_for_one_face_of_a_batch():
    sizes = []
    assert ms_per_face(lambda crops: sizes.append(crops.shape), size=4, seconds=0.0) > 0
    assert sizes[0] == (4, 160, 160, 3)
    assert len(sizes) == 8  # three before, five counted


@pytest.mark.slow
def test_command_tells_size_and_time(run, tmp_path):
    result = run("bench", "speed", "--threads", "1", "--seconds", "0.1", "--out", tmp_path / "s.json")
    assert result.exit_code == 0, result.stderr
    (row,) = json.loads((tmp_path / "s.json").read_text())["rows"]
    assert set(row["ms_per_face"]["1"]) == {"1", "32"}
    assert 0 < row["image_parameters"] < row["parameters"]
    assert 1e6 < row["weights_bytes"] < 100e6 < row["shared_bytes"] + 50e6
    assert "1 threads, batch 32" in " ".join(result.stdout.split())


@pytest.mark.slow
def test_a_backbone_that_cannot_be_loaded_is_told():
    with pytest.raises(EnvironmentProblem, match=r"cannot be measured: .*nowhere"):
        speed_report(["bundled:/nowhere"], threads=[1], seconds=0.1)


def test_mistakes_are_told(run):
    assert run("bench", "speed", "--threads", "two").exit_code == 2
    assert run("bench", "speed", "--threads", "0").exit_code == 2
    assert "Did you mean 'fer'" in run("bench", "speed", "--peers", "ferr").stderr
