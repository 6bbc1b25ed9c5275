import json
import sys
from types import SimpleNamespace

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


class FakeTk:
    """Stands in for a display: keeps the pictures, and closes the window after some."""

    def __init__(self, closes_after):
        self.closes_after = closes_after
        self.pictures = []
        self.handlers = {}
        self.is_destroyed = False

    def module(self):
        def picture(*, master, data, format):
            self.pictures.append((format, data))
            return data

        label = SimpleNamespace(pack=lambda: None, configure=lambda **_: None)
        return SimpleNamespace(
            Tk=lambda **_: self, TclError=RuntimeError, PhotoImage=picture, Label=lambda *_, **__: label
        )

    def title(self, _):
        pass

    def protocol(self, name, handler):
        self.handlers[name] = handler

    def bind(self, key, handler):
        self.handlers[key] = handler

    def update(self):
        if len(self.pictures) == self.closes_after:
            self.handlers["WM_DELETE_WINDOW"]()

    def destroy(self):
        self.is_destroyed = True


def test_a_window_shows_the_picture_and_closing_it_ends_the_watch(run, film, tiny_backbone_name, monkeypatch):
    tk = FakeTk(closes_after=2)
    monkeypatch.setitem(sys.modules, "tkinter", tk.module())
    done = run("watch", film, "--view", "window", "--backbone", tiny_backbone_name, "--labels", "joy, grief")
    assert done.exit_code == 0, done.stderr
    assert len(tk.pictures) == 2
    kind, data = tk.pictures[-1]
    assert kind == "PPM"
    assert data.startswith(b"P6 360 320 255\n")
    assert len(data) == len(b"P6 360 320 255\n") + 360 * 320 * 3
    assert tk.is_destroyed
    assert "2 frames seen" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is always a display")
def test_without_a_display_a_window_is_refused_with_the_ways_out(run, film, tiny_backbone_name, monkeypatch):
    pytest.importorskip("tkinter")
    monkeypatch.delenv("DISPLAY", raising=False)
    done = run("watch", film, "--view", "window", "--backbone", tiny_backbone_name)
    assert done.exit_code == 3
    for words in ("No window can be opened", "--view browser", "--view terminal"):
        assert words in done.stderr


def test_without_tk_a_window_is_refused(run, film, tiny_backbone_name, monkeypatch):
    monkeypatch.setitem(sys.modules, "tkinter", None)
    done = run("watch", film, "--view", "window", "--backbone", tiny_backbone_name)
    assert done.exit_code == 3
    assert "without Tk" in done.stderr
