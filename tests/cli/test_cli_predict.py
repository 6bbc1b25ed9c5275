import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlfer.cli.output import CSV_COLUMNS

WORDS = "joy, grief, awe"


@pytest.fixture
def predict(run, tiny_backbone_name):
    def call(*arguments, labels=WORDS, faces="whole"):
        fixed = ["--backbone", tiny_backbone_name, "--device", "cpu", "--labels", labels, "--faces", faces]
        return run("predict", *arguments, *fixed)

    return call


def test_stdout_is_data_and_stderr_the_rest(predict, images):
    done = predict(images, "--format", "json", "--threshold", "0")
    assert done.exit_code == 0
    rows = json.loads(done.stdout)
    assert [Path(row["source"]).name for row in rows] == ["0.png", "1.png", "2.png"]
    assert set(rows[0]) == {"source", "status", "predictions", "error_type", "message", "provenance"}
    assert set(rows[0]["predictions"][0]) == {
        "start_s", "end_s", "track_id", "label", "probability", "top", "reason", "box", "note", "similarity",
        "explanation",
    }  # fmt: skip


def test_csv_has_fixed_columns_and_a_row_for_every_failure(predict, images, tmp_path):
    (tmp_path / "empty.jpg").write_bytes(b"")
    done = predict(images / "0.png", tmp_path / "empty.jpg", tmp_path / "missing.jpg", "--format", "csv")
    assert done.exit_code == 1
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert tuple(rows[0]) == CSV_COLUMNS
    assert [row["status"] for row in rows] == ["ok", "error", "error"]
    assert set(json.loads(rows[0]["top"])) == {"joy", "grief", "awe"}
    assert "missing.jpg" in rows[2]["message"]
    assert "missing.jpg" in done.stderr


def test_the_table_says_how_to_read_it(predict, images):
    done = predict(images / "0.png")
    said = " ".join(done.stdout.split())
    assert "Perceived expression, not felt emotion" in said
    assert "relative to the labels given" in said
    assert "0.png" in said


def test_markup_in_names_is_shown_and_not_obeyed(predict, tmp_path):
    path = tmp_path / "[red]x.png"
    Image.fromarray(np.zeros((48, 48, 3), np.uint8)).save(path)
    done = predict(path, labels="[bold]joy[/bold], grief", faces="whole")
    assert "[red]x.png" in done.stdout.replace("\n", "")
    assert "[bold]joy[/bold]" in done.stdout


def test_no_face_is_no_label(predict, tmp_path):
    flat = tmp_path / "wall.png"
    Image.fromarray(np.full((500, 700, 3), 128, np.uint8)).save(flat)
    done = predict(flat, faces="auto")
    assert done.exit_code == 1
    assert "no face" in done.stdout


def test_a_folder_gets_everything_and_the_configuration(predict, images, tmp_path):
    out = tmp_path / "results"
    done = predict(images, "--out", out, "--plot", out / "pictures", "--top", "2")
    assert done.exit_code == 0
    assert done.stdout == ""
    assert len(json.loads((out / "predictions.json").read_text())) == 3
    assert (out / "predictions.csv").read_text().startswith("source,status")
    config = json.loads((out / "config.json").read_text())
    assert (config["top"], config["labels"]) == (2, WORDS)
    for i in range(3):
        with Image.open(out / "pictures" / f"{i}.png") as picture:
            assert picture.width > 400


def test_the_suffix_of_a_file_is_its_format(predict, images, tmp_path):
    assert predict(images / "0.png", "--out", tmp_path / "a.json").exit_code == 0
    assert json.loads((tmp_path / "a.json").read_text())[0]["status"] == "ok"
    assert predict(images / "0.png", "--out", tmp_path / "a.csv").exit_code == 0
    assert (tmp_path / "a.csv").read_text().startswith("source,status")
    assert json.loads((tmp_path / "a.config.json").read_text())["faces"] == "whole"


def test_pictures_of_one_name_do_not_overwrite_one_another(predict, images, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "0.png").write_bytes((images / "0.png").read_bytes())
    done = predict(images / "0.png", other / "0.png", "--plot", tmp_path / "face.png")
    assert done.exit_code == 0
    assert sorted(path.name for path in tmp_path.glob("face*.png")) == ["face-0-2.png", "face-0.png"]


def test_non_latin_labels_are_warned_about_with_the_bundled_model(run, images, monkeypatch):
    from vlfer.errors import BackboneError

    def unavailable(*_, **__):
        raise BackboneError("stop here")

    monkeypatch.setattr("vlfer.pipeline.load_encoder", unavailable)
    done = run("predict", images, "--labels", "радость, печаль", "--faces", "whole")
    assert "радость" in done.stderr
    assert "English" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), 2, "No image or video is named"),
        (("x.jpg", "--labels", "ekman"), 2, "Did you mean 'ekman7'"),
        (("x.jpg", "--labels", ""), 2, "empty"),
        (("x.jpg", "--labels", "joy, Joy"), 2, "twice"),
        (("x.jpg", "--labels", "joy, " + "so " * 500 + "sad"), 2, "words"),
        (("x.jpg", "--labels", "nothing.yaml"), 2, "nothing.yaml"),
        (("x.jpg", "--backbone", "bundeld"), 2, "Did you mean 'bundled'"),
        (("x.jpg", "--top", "0"), 2, "'top' given is 0"),
        (("x.jpg", "--threshold", "2"), 2, "threshold"),
        (("x.jpg", "--plot", "face.docx"), 2, "no kind of picture"),
        (("x.jpg", "--config", "nothing.yaml"), 2, "cannot be read"),
        (("x.jpg", "--faces", "whole", "--device", "cuda:99"), 3, "cuda:99"),
    ],
)
def test_mistakes_end_with_a_message_and_a_code(run, arguments, code, words):
    done = run("predict", *arguments)
    assert done.exit_code == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_an_empty_folder_is_a_failure(predict, tmp_path):
    done = predict(tmp_path, "--format", "csv")
    assert done.exit_code == 1
    assert "holds no image or video" in done.stderr


def test_a_result_that_cannot_be_written_is_told(predict, images, tmp_path):
    (tmp_path / "file").write_text("")
    done = predict(images / "0.png", "--out", tmp_path / "file" / "results.json")
    assert done.exit_code == 3
    assert "Error" in done.stderr


def test_a_read_only_cache_is_no_obstacle(predict, images, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VLFER_CACHE", str(tmp_path / "file" / "cache"))
    assert predict(images / "0.png").exit_code == 0


def test_debug_shows_where_an_error_arose(predict, tmp_path):
    (tmp_path / "empty.jpg").write_bytes(b"")
    done = predict(tmp_path / "empty.jpg", "--debug")
    assert done.exit_code != 0
    assert "empty.jpg" in done.stderr + str(done.exception)


@pytest.mark.slow
def test_an_interrupt_keeps_what_is_done(images, tmp_path, tiny_backbone_name):
    content = (images / "0.png").read_bytes()
    for i in range(3000):
        (images / f"more-{i}.png").write_bytes(content)
    out = tmp_path / "kept.json"
    arguments = [sys.executable, "-m", "vlfer.cli", "predict", str(images), "--faces", "whole", "--labels", WORDS,
                 "--backbone", tiny_backbone_name, "--device", "cpu", "--plot", str(tmp_path / "p"),
                 "--out", str(out)]  # fmt: skip
    process = subprocess.Popen(
        arguments,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        # A shell that runs the tests in the background has them, and their children, ignore the signal.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not list((tmp_path).glob("p/*.png")) and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 130
    assert b"Interrupted" in told
    assert 0 < len(json.loads(out.read_text())) < 3000
