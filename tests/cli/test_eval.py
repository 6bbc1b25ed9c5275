"""`vlfer eval` and `vlfer datasets` from the command line, with a tiny random backbone."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

FERPLUS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")


@pytest.fixture
def crops(tmp_path):
    """Twelve face crops from 48 px grey to 350 px colour, in a manifest without neutral and contempt."""
    folder = tmp_path / "crops"
    folder.mkdir()
    lines = ["path,label,fold"]
    for i in range(12):
        side = (48, 112, 350)[i % 3]
        shape = (side, side) if i % 3 == 0 else (side, side + i, 3)
        pixels = np.random.default_rng(i).integers(0, 255, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        lines.append(f"{i}.png,{FERPLUS[1 + i % 6]},{i % 2 + 1}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def evaluate(run, tiny_backbone_name, tmp_path):
    def call(*arguments, cache=tmp_path / "cache"):
        return run("eval", *arguments, "--backbone", tiny_backbone_name, "--device", "cpu", "--cache", cache)

    return call


def test_manifest_of_crops_to_json(evaluate, crops, tmp_path):
    given = ("manifest", "--manifest", crops / "manifest.csv", "--labels", "ferplus8", "--faces", "whole")
    result = evaluate(*given, "--out", tmp_path / "run", "--format", "json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert (report["n"], report["failed"]) == (12, 0)
    assert report["absent"] == ["neutral", "contempt"]
    assert set(report["folds"]) == {"1", "2"}
    per_fold = [fold["war"] for fold in report["folds"].values()]
    assert report["war"] == report["mean"]["war"] == pytest.approx(np.mean(per_fold))
    assert report["per_class"]["happiness"]["n"] == 2
    assert json.loads((tmp_path / "run" / "report.json").read_text()) == report
    lines = list(csv.DictReader((tmp_path / "run" / "predictions.csv").open()))
    assert [line["label"] for line in lines] == [FERPLUS[1 + i % 6] for i in range(12)]
    assert float(lines[0]["p_neutral"]) <= max(float(lines[0][f"p_{name}"]) for name in FERPLUS)
    assert sum(float(lines[0][f"p_{name}"]) for name in FERPLUS) == pytest.approx(1, abs=1e-4)
    right = np.mean([line["label"] == line["prediction"] for line in lines])
    assert report["pooled"]["war"] == pytest.approx(right)
    again = json.loads(evaluate(*given, "--format", "json").stdout)
    assert again["embeddings"] == {"from_cache": 12, "encoded": 0}
    assert again["pooled"] == report["pooled"]


def test_predictions_are_those_of_predict(evaluate, run, crops, tiny_backbone_name, tmp_path):
    evaluate(
        "manifest",
        "--manifest",
        crops / "manifest.csv",
        "--labels",
        "ferplus8",
        "--faces",
        "whole",
        "--out",
        tmp_path / "r",
    )
    images = [crops / f"{i}.png" for i in range(12)]
    common = ("--labels", "ferplus8", "--faces", "whole", "--backbone", tiny_backbone_name, "--device", "cpu")
    said = json.loads(run("predict", *images, *common, "--format", "json", "--top", "1").stdout)
    lines = list(csv.DictReader((tmp_path / "r" / "predictions.csv").open()))
    assert [line["prediction"] for line in lines] == [one["predictions"][0]["top"][0][0] for one in said]


@pytest.mark.parametrize("ensemble", ["name", "all"])
def test_probabilities_are_those_of_predict_with_the_bundled_backbone(run, crops, tmp_path, ensemble):
    """Each family of sentences has a temperature of its own in the card; both commands must divide by it."""
    common = ("--labels", "ferplus8", "--faces", "whole", "--device", "cpu")
    given = ("--manifest", crops / "manifest.csv", "--cache", tmp_path / "cache", "--out", tmp_path / "r")
    assert run("eval", "manifest", *given, *common, "--ensemble", ensemble).exit_code == 0
    lines = list(csv.DictReader((tmp_path / "r" / "predictions.csv").open()))
    images = [crops / f"{i}.png" for i in range(12)]
    (tmp_path / "c.yaml").write_text(f"ensemble: {ensemble}\ntop: 8\n")
    said = json.loads(run("predict", *images, *common, "--config", tmp_path / "c.yaml", "--format", "json").stdout)
    for line, one in zip(lines, said, strict=True):
        told = dict(one["predictions"][0]["top"])
        assert [float(line[f"p_{name}"]) for name in FERPLUS] == pytest.approx([told[n] for n in FERPLUS], abs=2e-4)
    report = json.loads((tmp_path / "r" / "report.json").read_text())
    assert report["provenance"]["temperature"] == said[0]["provenance"]["temperature"]


def test_missing_files_are_counted_and_end_with_one(evaluate, crops):
    (crops / "3.png").unlink()
    given = ("manifest", "--manifest", crops / "manifest.csv", "--labels", "ferplus8", "--faces", "whole")
    result = evaluate(*given, "--format", "json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert (report["n"], report["failed"]) == (12, 1)
    assert report["failed_rows"][0]["path"].endswith("3.png")
    assert "3.png does not exist" in report["failed_rows"][0]["message"]


def test_a_root_without_any_medium_is_told_before_a_model_is_loaded(run, crops, tmp_path):
    (tmp_path / "other" / "holiday").mkdir(parents=True)
    given = ("manifest", "--manifest", crops / "manifest.csv", "--labels", "ferplus8", "--faces", "whole")
    result = run("eval", *given, "--root", tmp_path / "other", "--backbone", "not loaded")
    assert result.exit_code == 2
    assert "None of the 12 media" in result.stderr
    assert "holiday/" in result.stderr


def test_no_row_is_lost_whatever_its_label_is_called(evaluate, crops):
    """Other words for the classes, a repeated row, a folder and a text file among the pictures."""
    words = ["path,label", "0.png,Happy", "1.png,surprised", "2.png,ANGRY", "3.png,Sad", "4.png,afraid"]
    words += ["5.png,disgusted", "6.png,Happiness ", "0.png,Happy", "empty,fear", "manifest.csv,neutral"]
    (crops / "empty").mkdir()
    (crops / "other.csv").write_text("\r\n".join(words))
    result = evaluate(
        "manifest", "--manifest", crops / "other.csv", "--labels", "ferplus8", "--faces", "whole", "--format", "json"
    )
    report = json.loads(result.stdout)
    assert (report["n"], report["failed"]) == (10, 2)
    assert report["per_class"]["happiness"]["n"] == 3
    assert "1 rows repeat" in report["notes"][0]
    assert "holds no image" in result.stderr


def test_csv_and_table_are_data_on_stdout(evaluate, crops):
    given = ("manifest", "--manifest", crops / "manifest.csv", "--labels", "ferplus8", "--faces", "whole")
    rows = list(csv.reader(evaluate(*given, "--format", "csv").stdout.splitlines()))
    assert rows[0] == ["part", "n", "failed", "WAR %", "UAR %", "UF1 %"]
    assert rows[-1][:3] == ["mean of folds", "12", "0"]
    table = evaluate(*given).stdout
    assert "mean of folds" in table
    assert "left out of the means: neutral, contempt" in table


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (["manifest"], "No manifest is named", 2),
        (["dfew"], "folder of 'dfew' is not named", 2),
        (["dfew", "--root", ".", "--manifest", "x.csv"], "--manifest was given", 2),
        (["manifest", "--manifest", "nowhere.csv"], "does not exist", 2),
        (["dfeww", "--root", "."], "Did you mean 'dfew'", 2),
        (["manifest", "--manifest", "x.csv", "--out", __file__], "cannot be written", 2),
        (["manifest", "--manifest", "x.csv", "--k", "3"], "--protocol subject-kfold", 2),
        (["manifest", "--manifest", "x.csv", "--frames", "0"], "--frames 0", 2),
        (["manifest", "--manifest", "x.csv", "--reproduce", "exp-clp"], "Did you mean 'exp-clip'", 2),
    ],
)
def test_mistakes_are_told(run, arguments, words, code):
    result = run("eval", *arguments)
    assert words in result.stderr
    assert result.exit_code == code
    assert result.stdout == ""


def test_labels_that_are_not_asked_for_are_an_error_with_counts(run, crops):
    result = run("eval", "manifest", "--manifest", crops / "manifest.csv", "--labels", "awe, polite smile")
    assert result.exit_code == 2
    assert "happiness 2" in result.stderr


def test_datasets_are_listed_and_checked(run, tmp_path):
    names = [row["name"] for row in json.loads(run("datasets", "--format", "json").stdout)]
    assert {"dfew", "mafw", "rafdb", "ferplus"} <= set(names)
    table = run("datasets").stdout.splitlines()
    left, right = table[0].index("known by"), table[0].index("protocol")
    known_by = "".join("".join(line[left:right] for line in table).split())
    for layout in ("EmoLabel_DataSplit/test(single-labeled)/set_{1..5}.csv", "basic/Image/aligned/*_aligned.jpg"):
        assert layout in known_by  # broken over lines where it must be, never cut off
    for name in ("happy", "sad"):
        (tmp_path / "d" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "d" / name / f"{name}.png")
    result = run("datasets", "check", "folders", tmp_path / "d", "--manifest", tmp_path / "m.csv", "--format", "json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["labels"] == {"happy": 1, "sad": 1}
    assert len((tmp_path / "m.csv").read_text().splitlines()) == 3
    refused = run("datasets", "check", "folders", tmp_path / "d", "--manifest", tmp_path / "m.csv" / "m.csv")
    assert refused.exit_code == 2
    assert "--manifest" in refused.stderr
    incomplete = run("datasets", "check", "jaffe", tmp_path / "d")
    assert incomplete.exit_code == 2
    assert "KA.AN1.39.tiff" in incomplete.stderr


def test_help_of_eval_imports_nothing_heavy():
    code = (
        "import sys\nfrom vlfer.cli.main import app\n"
        "try:\n    app(['eval', '--help'])\nexcept SystemExit:\n    pass\n"
        "print([m for m in ('torch', 'numpy', 'cv2') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "WAR is accuracy" in " ".join(done.stdout.split())


def test_the_report_is_written_when_the_reader_of_stdout_leaves(evaluate, crops, tmp_path, monkeypatch):
    def leave(*_, **__):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("vlfer.cli.eval._print", leave)
    given = ("manifest", "--manifest", crops / "manifest.csv", "--labels", "ferplus8", "--faces", "whole")
    evaluate(*given, "--out", tmp_path / "run")
    assert json.loads((tmp_path / "run" / "report.json").read_text())["n"] == 12
