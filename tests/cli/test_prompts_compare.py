"""`vlfer prompts compare` from the command line, with a tiny random backbone."""

import json

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def compare(run, tiny_backbone_name, tmp_path):
    lines = ["path,label,fold"]
    for i in range(24):
        pixels = np.random.default_rng(i).integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,{('anger', 'fear', 'happiness')[i % 3]},{i % 2 + 1}")
    (tmp_path / "m.csv").write_text("\n".join(lines) + "\n")

    def call(*arguments):
        return run(
            "prompts", "compare", "manifest", "--manifest", tmp_path / "m.csv", "--faces", "whole", "--backbone",
            tiny_backbone_name, "--device", "cpu", "--cache", tmp_path / "cache", *arguments,
        )  # fmt: skip

    return call


def test_json_holds_every_candidate_and_the_second_time_no_pixel_is_read(compare, tmp_path):
    given = ("--sets", "ferplus8,ekman7", "--ensembles", "name,all", "--format", "json", "--out", tmp_path / "c.json")
    first = compare(*given)
    assert first.exit_code == 0, first.stderr
    report = json.loads(first.stdout)
    assert len(report["ranking"]) == 2 * 2 * 3
    assert report["embeddings"] == {"from_cache": 0, "encoded": 24}
    assert [c["uar"] for c in report["ranking"]] == sorted((c["uar"] for c in report["ranking"]), reverse=True)
    assert set(report["chosen"]) == {"1", "2"}
    for name, chosen in report["chosen"].items():
        assert chosen["set_name"] in ("ferplus8", "ekman7")
        assert report["test"][name]["n"] == 12
    assert report["war"] == pytest.approx(np.mean([fold["war"] for fold in report["test"].values()]))
    assert json.loads((tmp_path / "c.json").read_text()) == report
    for path in tmp_path.glob("*.png"):
        path.touch()  # content is what counts, not the time
    again = json.loads(compare(*given).stdout)
    assert again["embeddings"] == {"from_cache": 24, "encoded": 0}
    assert again["ranking"] == report["ranking"]


def test_table(compare):
    result = compare("--sets", "ferplus8", "--ensembles", "name", "--priors", "0")
    assert result.exit_code == 0, result.stderr
    assert "Ranking by UAR" in result.stdout
    assert "Chosen for fold 1: ferplus8, name, prior 0" in result.stdout
    assert "On the test rows: WAR" in result.stdout


def test_failed_rows_are_told_and_end_with_one(compare, tmp_path):
    (tmp_path / "3.png").unlink()
    (tmp_path / "4.png").write_text("text")
    result = compare("--sets", "ferplus8", "--ensembles", "name", "--priors", "0", "--format", "json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert [row["error_type"] for row in report["failed_rows"]] == ["MediaReadError", "ImageReadError"]
    assert sum(fold["failed"] for fold in report["test"].values()) == 2
    assert "2 of 24 rows failed" in result.stderr
    assert "3.png does not exist" in result.stderr


def test_notes_are_told(compare, tmp_path):
    (tmp_path / "m.csv").write_text((tmp_path / "m.csv").read_text() + "0.png,anger,1\n")
    result = compare("--sets", "ferplus8", "--ensembles", "name", "--priors", "0", "--format", "json")
    assert "Note: 1 rows repeat" in result.stderr
    assert "1 rows repeat" in json.loads(result.stdout)["notes"][0]


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (["--sets", "ferplus9"], "ferplus8", 2),
        (["--sets", "ferplus8", "--ensembles", "names"], "Did you mean 'name'", 2),
        (["--sets", "ferplus8", "--priors", "much"], "--priors 'much'", 2),
        (["--sets", "ferplus8,ferplus8"], "same name", 2),
        (["--sets", ","], "No label set", 2),
        (["--sets", "ferplus8", "--ensembles", ","], "No ensemble", 2),
        (["--sets", "ferplus8", "--priors", ","], "No strength", 2),
        (["--sets", "ferplus8", "--priors", "0,7", "--backbone", "not loaded"], "The prior strength is 7.0", 2),
        (["--sets", "ferplus8", "--out", __file__ + "/c.json", "--backbone", "not loaded"], "cannot be written", 2),
        (["--sets", "ferplus8", "--out", ".", "--backbone", "not loaded"], "is a folder", 2),
        (["--sets", "ferplus8", "--root", ".", "--backbone", "not loaded"], "None of the 24 media", 2),
    ],
)
def test_mistakes_are_told(compare, arguments, words, code):
    result = compare(*arguments)
    assert words in result.stderr
    assert result.exit_code == code
    assert result.stdout == ""


def test_the_file_is_written_when_the_reader_of_stdout_leaves(compare, tmp_path, monkeypatch):
    def leave(*_, **__):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("vlfer.cli.prompts._print", leave)
    compare("--sets", "ferplus8", "--ensembles", "name", "--priors", "0", "--out", tmp_path / "c.json")
    assert json.loads((tmp_path / "c.json").read_text())["n"] == 24
