"""`vlfer eval-open`: words said against words that are true, by the emotion wheel."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from vlfer.evaluation.open_words import choose_words, split_words
from vlfer.evaluation.wheel import open_vocabulary_f


def test_words_near_the_best_are_said_too():
    probability = np.array([[0.5, 0.3, 0.2], [0.9, 0.06, 0.04], [0.34, 0.33, 0.33]], np.float32)
    assert choose_words(probability, ("a", "b", "c"), most=2) == [("a", "b"), ("a",), ("a", "b")]
    assert split_words(" joy | awe;fear/ ") == ("joy", "awe", "fear")


@pytest.fixture
def words(tmp_path):
    lines = ["path,label"]
    for i, label in enumerate(("furious|sad", "joyful", "scared", "zonked")):
        pixels = np.random.default_rng(i).integers(0, 255, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,{label}")
    (tmp_path / "m.csv").write_text("\n".join([*lines, "gone.png,happy"]) + "\n")
    return tmp_path


def test_the_figures_are_those_of_the_wheel(run, words, tiny_backbone_name):
    given = (
        "eval-open", "--manifest", words / "m.csv", "--labels", "rage, delight, terror, gloomy", "--faces", "whole",
        "--backbone", tiny_backbone_name, "--device", "cpu", "--cache", words / "cache", "--out", words / "out",
    )  # fmt: skip
    result = run(*given, "--format", "json")
    assert result.exit_code == 1  # one file is missing
    report = json.loads(result.stdout)
    assert (report["n"], report["failed"]) == (5, 1)
    assert report["unknown_words"] == ["zonked"]
    lines = list(csv.DictReader((words / "out" / "predictions.csv").open()))
    assert lines[-1]["prediction"] == ""
    truth, said = ([split_words(line[name]) for line in lines] for name in ("label", "prediction"))
    by_hand = open_vocabulary_f(truth, said)
    assert (report["f1"], report["precision"], report["recall"]) == (by_hand.f1, by_hand.precision, by_hand.recall)
    assert "not on the wheel: zonked" in run(*given).stdout
