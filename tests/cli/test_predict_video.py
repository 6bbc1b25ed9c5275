import json

import av
import numpy as np
import pytest

WORDS = "joy, grief, awe"


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Two seconds of a drawn square crop, to be taken whole."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for t in range(20):
            pixels = np.full((64, 64, 3), 40 + 8 * t, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture
def predict(run, tiny_backbone_name):
    def call(*arguments):
        return run(
            "predict", *arguments, "--labels", WORDS, "--backbone", tiny_backbone_name, "--faces", "whole",
            "--device", "cpu",
        )  # fmt: skip

    return call


def test_a_folder_gets_the_files_of_a_video(predict, film, tmp_path):
    out = tmp_path / "results"
    done = predict(film, "--out", out)
    assert done.exit_code == 0, done.stderr
    names = {path.name for path in out.iterdir()}
    assert names == {
        "predictions.json", "predictions.csv", "config.json", "film.frames.csv", "film.segments.csv",
        "film.segments.json", "film.srt", "film.summary.json", "film.timeline.png",
    }  # fmt: skip
    assert json.loads((out / "film.summary.json").read_text())["frames_looked_at"] > 10


def test_files_are_chosen_and_a_part_is_looked_at(predict, film, tmp_path):
    out = tmp_path / "results"
    done = predict(film, "--out", out, "--write", "elan,vtt,video", "--start", "0.5", "--end", "1.5", "--fps", "10")
    assert done.exit_code == 0, done.stderr
    names = {path.name for path in out.glob("film*")}
    assert names == {"film.eaf", "film.vtt", "film.annotated.mp4"}
    with av.open(str(out / "film.annotated.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 10


def test_videos_of_one_name_do_not_overwrite_one_another(predict, film, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "film.mp4").write_bytes(film.read_bytes())
    predict(film, other / "film.mp4", "--out", tmp_path / "results", "--write", "srt")
    assert {path.name for path in (tmp_path / "results").glob("*.srt")} == {"film.srt", "film-2.srt"}


def test_a_file_that_cannot_be_written_is_told_and_the_others_are(predict, film, tmp_path):
    out = tmp_path / "results"
    (out / "film.srt").mkdir(parents=True)
    done = predict(film, "--out", out, "--write", "srt,vtt")
    assert done.exit_code == 1
    assert "srt could not be written" in done.stderr
    assert (out / "film.vtt").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--write", "srt"), "--out results/"),
        (("--out", "results", "--write", "str"), "Did you mean 'srt'"),
        (("--start", "5", "--end", "2"), "Expected start < end"),
        (("--temporal", "median"), "median"),
    ],
)
def test_mistakes_are_told(predict, film, arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = predict(film, *arguments)
    assert done.exit_code != 0
    assert words in done.stderr + done.stdout
