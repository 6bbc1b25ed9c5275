import json

import av
import numpy as np
import pytest
import skimage.data


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """A portrait that stands still for a second, at 12 fps."""
    path = tmp_path_factory.mktemp("film") / "portrait.mp4"
    portrait = np.ascontiguousarray(skimage.data.astronaut()[:320, 60:420])
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=12, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 360, 320, "yuv420p"
        for _ in range(12):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(portrait, format="rgb24")))
        container.mux(stream.encode())
    return path


def test_a_played_file_is_watched_line_by_line(run, film, tiny_backbone_name):
    done = run("watch", film, "--view", "lines", "--backbone", tiny_backbone_name, "--labels", "joy, grief")
    assert done.exit_code == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert rows
    assert rows[-1]["faces"][0]["face"] == 1
    assert set(rows[-1]["faces"][0]["top"]) == {"joy", "grief"}
    assert "frames seen" in done.stderr
    assert "latency" in done.stderr
    assert "not felt emotion" in done.stderr


def test_the_terminal_shows_bars(run, film, tiny_backbone_name):
    done = run("watch", film, "--view", "terminal", "--backbone", tiny_backbone_name, "--labels", "joy, grief")
    assert done.exit_code == 0, done.stderr
    for words in ("face 1", "fps", "latency", "dropped", "joy"):
        assert words in done.stdout


def test_the_browser_is_told_where(run, film, tiny_backbone_name):
    done = run("watch", film, "--view", "browser", "--port", "0", "--backbone", tiny_backbone_name, "--seconds", "0.2",
               "--labels", "joy, grief")  # fmt: skip
    assert done.exit_code == 0, done.stderr
    assert "http://127.0.0.1:" in done.stderr


@pytest.mark.parametrize(("source", "words"), [("nothing.mp4", "no live source"), ("77", "no webcam 77")])
def test_what_cannot_be_watched_is_told(run, source, words, tiny_backbone_name):
    done = run("watch", source, "--view", "lines", "--backbone", tiny_backbone_name)
    assert done.exit_code == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
