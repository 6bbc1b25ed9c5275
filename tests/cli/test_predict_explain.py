"""`vlfer predict --explain`."""

from __future__ import annotations

import json


def test_reasons_are_printed_drawn_and_written(run, images, tiny_backbone_name, tmp_path):
    common = ["--faces", "whole", "--backbone", tiny_backbone_name, "--labels", "ferplus8", "--explain"]
    result = run("predict", images / "0.png", *common, "--plot", tmp_path / "a.png")
    assert result.exit_code == 0, result.stderr
    assert "face 1: why" in result.stdout
    assert "on the face: brows and eyes" in result.stdout
    assert (tmp_path / "a-why.png").stat().st_size > 10_000
    assert "reasons drawn in" in result.stderr
    answer = json.loads(run("predict", images, *common, "--format", "json").stdout)
    assert len(answer) == 3
    why = answer[1]["predictions"][0]["explanation"]
    assert why["label"] == answer[1]["predictions"][0]["top"][0][0]
    assert len(why["pulled_for"]) == 5
    assert len(why["relevance"]) == len(why["relevance"][0]) == 7


def test_without_the_flag_nothing_is_explained(run, images, tiny_backbone_name):
    result = run("predict", images / "0.png", "--faces", "whole", "--backbone", tiny_backbone_name, "--format", "json")
    assert json.loads(result.stdout)[0]["predictions"][0]["explanation"] == {}
