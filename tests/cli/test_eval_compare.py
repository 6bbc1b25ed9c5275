"""`vlfer eval-compare`: two written runs against one another."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

NAMES = ("anger", "fear", "happiness")


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_backbone_name):
    """Two runs over the same thirty pictures with other sentences, made by the command itself."""
    from typer.testing import CliRunner

    from vlfer.cli.main import app

    home = tmp_path_factory.mktemp("runs")
    lines = ["path,label,fold"]
    for i in range(30):
        pixels = np.random.default_rng(i).integers(0, 255, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(home / f"{i}.png")
        lines.append(f"{i}.png,{NAMES[i % 3]},{i % 2}")
    (home / "m.csv").write_text("\n".join(lines) + "\n")
    for name, ensemble in (("a", "name"), ("b", "descriptors")):
        result = CliRunner().invoke(app, [
            "eval", "manifest", "--manifest", str(home / "m.csv"), "--faces", "whole", "--backbone", tiny_backbone_name,
            "--device", "cpu", "--ensemble", ensemble, "--cache", str(home / "cache"), "--out", str(home / name),
        ])  # fmt: skip
        assert result.exit_code == 0, result.output
    return home


def predictions(folder):
    return list(csv.DictReader((folder / "predictions.csv").open()))


def rewrite(folder, lines):
    with (folder / "predictions.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, lines[0])
        writer.writeheader()
        writer.writerows(lines)


@pytest.fixture
def copy(runs, tmp_path):
    """A second run that a test may change."""
    return shutil.copytree(runs / "b", tmp_path / "b")


def test_the_figures_are_those_of_the_runs(run, runs, tmp_path):
    result = run("eval-compare", runs / "a", runs / "b", "--format", "json", "--out", tmp_path / "c.json")
    assert result.exit_code == 0, result.stderr
    got = json.loads(result.stdout)
    assert json.loads((tmp_path / "c.json").read_text()) == got
    for side in ("a", "b"):
        report = json.loads((runs / side / "report.json").read_text())
        for name in ("war", "uar", "uf1"):
            assert got["figures"][side][name] == pytest.approx(report[name])
    assert got["folds"] == 2
    a, b = ([one["prediction"] == one["label"] for one in predictions(runs / side)] for side in ("a", "b"))
    assert got["only_a"] == sum(x and not y for x, y in zip(a, b, strict=True))
    low, high = got["interval"]["war"]
    assert low <= got["difference"]["war"] <= high
    assert "McNemar" in run("eval-compare", runs / "a", runs / "b").stdout


def test_a_run_does_not_differ_from_itself(run, runs):
    got = json.loads(run("eval-compare", runs / "a", runs / "a", "--format", "json").stdout)
    assert got["mcnemar_p"] == 1
    assert got["difference"] == {"war": 0, "uar": 0, "uf1": 0}
    assert got["bootstrap_p"]["war"] == 1


def test_order_and_place_of_the_files_do_not_matter(run, runs, copy):
    lines = [{**line, "path": line["path"].replace(str(runs), "/elsewhere/copy")} for line in predictions(copy)]
    rewrite(copy, lines[::-1])
    moved = json.loads(run("eval-compare", runs / "a", copy, "--format", "json").stdout)
    plain = json.loads(run("eval-compare", runs / "a", runs / "b", "--format", "json").stdout)
    assert moved["difference"] == pytest.approx(plain["difference"])
    assert moved["only_b"] == plain["only_b"]


def test_other_samples_are_refused(run, runs, copy):
    lines = predictions(copy)
    lines[0]["path"] = lines[0]["path"].replace("0.png", "other.png")
    rewrite(copy, lines)
    result = run("eval-compare", runs / "a", copy)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "different samples" in result.stderr
    assert "other.png" in result.stderr


def test_other_labels_or_classes_are_refused(run, runs, copy):
    lines = predictions(copy)
    lines[4]["label"] = "fear" if lines[4]["label"] != "fear" else "anger"
    rewrite(copy, lines)
    assert "another true label" in run("eval-compare", runs / "a", copy).stderr
    report = json.loads((copy / "report.json").read_text())
    report["classes"] = report["classes"][1:]
    (copy / "report.json").write_text(json.dumps(report))
    assert "different classes" in run("eval-compare", runs / "a", copy).stderr


def test_what_is_no_run_is_told(run, runs, copy, tmp_path):
    assert "cannot be read" in run("eval-compare", runs / "a", tmp_path).stderr
    rewrite(copy, predictions(copy)[:-1])
    assert "29 predictions for 30 rows" in run("eval-compare", copy, runs / "a").stderr
    (copy / "report.json").write_text("{")
    assert "no JSON" in run("eval-compare", copy, runs / "a").stderr
