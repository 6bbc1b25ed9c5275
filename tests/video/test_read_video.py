from __future__ import annotations

import logging
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from PIL import Image

from vlfer.errors import ConfigError, VideoReadError
from vlfer.types import Frames
from vlfer.video import read
from vlfer.video.read import probe_video, read_video

CODECS = [
    ("libx264", "mp4", {}),
    ("libx264", "mkv", {}),
    ("libvpx-vp9", "webm", {"deadline": "realtime", "cpu-used": "8"}),
    ("libsvtav1", "mp4", {"preset": "12"}),
    ("libsvtav1", "webm", {"preset": "12"}),
]


def whole(path: Path, **options: object) -> Frames:
    chunks = list(read_video(path, **options))
    return Frames(
        np.concatenate([chunk.pixels for chunk in chunks]), np.concatenate([chunk.times_s for chunk in chunks])
    )


def refuse_decord(*_: object) -> None:
    raise read._DecordError("switched off by the test")


def refuse_pyav(*_: object, **__: object) -> None:
    raise AssertionError("PyAV was asked for frames that decord should read")


@pytest.mark.parametrize(("codec", "suffix", "options"), CODECS)
@pytest.mark.parametrize("start_ms", [0, 700])
def test_readers_agree_on_frames_and_exact_times(
    codec: str,
    suffix: str,
    options: dict[str, str],
    start_ms: int,
    tmp_path: Path,
    studio: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times_ms = studio.jittered(30, start_ms=start_ms)
    path = studio.write(tmp_path / f"clip.{suffix}", times_ms, codec=codec, options=options)
    with monkeypatch.context() as patch:
        patch.setattr(read, "_read_pyav", refuse_pyav)
        by_decord = whole(path, chunk=7)
    with monkeypatch.context() as patch:
        patch.setattr(read, "_read_decord", refuse_decord)
        by_pyav = whole(path, chunk=11)
    np.testing.assert_array_equal(by_decord.pixels, by_pyav.pixels)
    np.testing.assert_allclose(by_decord.times_s, by_pyav.times_s, atol=1e-9)
    np.testing.assert_allclose(by_decord.times_s, (np.array(times_ms) - start_ms) / 1000, atol=1e-6)
    assert len(by_decord) == 30
    wanted = np.stack([studio.picture(number) for number in range(30)])
    assert np.abs(by_decord.pixels.astype(int) - wanted).mean() < 6  # RGB, upright, in order


def test_sound_that_begins_earlier_sets_the_clock(tmp_path: Path, studio: SimpleNamespace) -> None:
    path = studio.write(tmp_path / "late.mp4", studio.steady(10), sound=True)
    assert whole(path).times_s[0] == pytest.approx(0.0, abs=0.08)
    late = studio.write(tmp_path / "later.mp4", [t + 500 for t in studio.steady(10)], sound=True)
    assert whole(late).times_s[0] == pytest.approx(0.5, abs=0.08)


def test_probe(clip: Path) -> None:
    info = probe_video(clip)
    assert (info.width, info.height, info.frame_count, info.codec) == (160, 120, 40, "h264")
    assert info.fps == pytest.approx(25)
    assert info.duration_s == pytest.approx(1.6)
    assert info.source == str(clip)


@pytest.mark.parametrize("reader", ["_read_decord", "_read_pyav"])
@pytest.mark.parametrize(
    ("stride", "start_s", "end_s"), [(1, 0, None), (3, 0, None), (1, 0.4, 0.8), (4, 0.41, 1.39), (100, 1.0, None)]
)
def test_chunks_strides_and_intervals_are_slices_of_the_whole(
    reader: str, stride: int, start_s: float, end_s: float | None, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = whole(clip, chunk=100)
    inside = (everything.times_s >= start_s) & (everything.times_s < (end_s or 99))
    expected = everything.pixels[inside][::stride]
    if reader == "_read_pyav":
        monkeypatch.setattr(read, "_read_decord", refuse_decord)
    for chunk in (1, 5, 64):
        chunks = list(read_video(clip, chunk=chunk, stride=stride, start_s=start_s, end_s=end_s))
        assert all(len(part) == chunk for part in chunks[:-1])
        assert 1 <= len(chunks[-1]) <= chunk
        np.testing.assert_array_equal(np.concatenate([part.pixels for part in chunks]), expected)
        np.testing.assert_allclose(
            np.concatenate([part.times_s for part in chunks]), everything.times_s[inside][::stride], atol=1e-9
        )


def test_chunks_of_large_frames_are_bounded(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "_MAX_CHUNK_BYTES", 5 * 160 * 120 * 3)
    assert [len(chunk) for chunk in read_video(clip, chunk=32)] == [5] * 8


@pytest.mark.parametrize("reader", ["_read_decord", "_read_pyav"])
@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_is_applied(
    degrees: int, reader: str, clip: Path, tmp_path: Path, studio: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reader == "_read_pyav":
        monkeypatch.setattr(read, "_read_decord", refuse_decord)
    else:
        monkeypatch.setattr(read, "_read_pyav", refuse_pyav)
    turned = whole(studio.turn(clip, tmp_path / "turned.mp4", degrees))
    expected = np.rot90(whole(clip).pixels, -degrees // 90, axes=(1, 2))
    np.testing.assert_array_equal(turned.pixels, expected)
    info = probe_video(tmp_path / "turned.mp4")
    assert (info.height, info.width) == expected.shape[1:3]
    corner = {90: (4, -4), 180: (-4, -4), 270: (-4, 4)}[degrees]  # where the red top left goes, clockwise
    assert np.abs(turned.pixels[0][corner].astype(int) - studio.red).max() < 12


@pytest.mark.parametrize("width", [48, 66, 96, 102])
def test_widths_that_decord_fails_on_fall_back(width: int, tmp_path: Path, studio: SimpleNamespace) -> None:
    frames = whole(studio.write(tmp_path / "narrow.mp4", studio.steady(5), size=(width, 64)))
    assert frames.pixels.shape == (5, 64, width, 3)
    assert np.abs(frames.pixels[4].astype(int) - studio.picture(4, (width, 64))).mean() < 8


def test_an_edit_list_cuts_frames(tmp_path: Path, studio: SimpleNamespace, caplog: pytest.LogCaptureFixture) -> None:
    path = studio.write(tmp_path / "cut.mp4", studio.steady(60))
    data = bytearray(path.read_bytes())
    at = data.find(b"elst") + 4
    version, count, duration, start, rate = struct.unpack(">IIIiI", data[at : at + 20])
    assert (version, count) == (0, 1)
    ticks = int(1 / probe_video(path).time_base)
    data[at : at + 20] = struct.pack(">IIIiI", version, count, duration - 1000, start + ticks, rate)
    path.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        frames = whole(path)
    assert len(frames) == 35
    assert frames.times_s[0] == pytest.approx(0)
    assert np.abs(frames.pixels[0].astype(int) - studio.picture(25)).mean() < 6
    assert not caplog.records


def test_a_transport_stream_falls_back(tmp_path: Path, studio: SimpleNamespace) -> None:
    path = studio.write(tmp_path / "clip.ts", studio.steady(30))
    frames = whole(path)
    np.testing.assert_allclose(frames.times_s, np.arange(30) * 0.04, atol=1e-6)
    assert probe_video(path).fps == pytest.approx(25, rel=0.2)


def test_an_animated_gif_is_a_video(tmp_path: Path) -> None:
    colours = [(255, 0, 0), (0, 0, 255), (255, 255, 255)]
    frames = [Image.new("RGB", (16, 12), colour) for colour in colours]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=[100, 300, 200])
    seen = whole(tmp_path / "a.gif")
    assert [tuple(pixel) for pixel in seen.pixels[:, 5, 5]] == colours
    np.testing.assert_allclose(seen.times_s, [0, 0.1, 0.4], atol=0.011)


def test_a_truncated_file_gives_what_there_is_and_says_so(
    noisy_clip: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = noisy_clip.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) * 6 // 10])
    with caplog.at_level(logging.WARNING):
        frames = whole(tmp_path / "cut.mp4")
    assert probe_video(tmp_path / "cut.mp4").frame_count == 60
    assert 25 < len(frames) < 40
    assert "of 60 frames could be read" in caplog.text
    np.testing.assert_array_equal(frames.pixels[:25], whole(noisy_clip).pixels[:25])


@pytest.mark.parametrize("stride", [1, 3])
def test_a_hole_in_the_middle_is_passed_over(
    stride: int, noisy_clip: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = bytearray(noisy_clip.read_bytes())
    hole = len(data) // 10
    data[len(data) // 2 : len(data) // 2 + hole] = bytes(hole)
    (tmp_path / "hole.mp4").write_bytes(data)
    intact = whole(noisy_clip)
    with caplog.at_level(logging.WARNING):
        frames = whole(tmp_path / "hole.mp4", chunk=4, stride=stride)
    assert bool((np.diff(frames.times_s) > 0).all())
    assert len(intact) // stride * 0.7 < len(frames) < len(intact) / stride
    assert frames.times_s[-1] > 2.2
    before = 20 // stride
    np.testing.assert_array_equal(frames.pixels[:before], intact.pixels[::stride][:before])
    assert "could be read" in caplog.text


def test_an_intact_file_is_read_without_a_warning(clip: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert len(whole(clip)) == 40
    assert not caplog.records


def test_files_that_are_no_video(clip: Path, tmp_path: Path) -> None:
    cases = {
        "empty.mp4": (b"", "is empty"),
        "text.mp4": ("Überhaupt kein Video.\n" * 50, "holds text"),
        "list.m3u8": ("#EXTM3U\n" + str(clip), "holds text"),
        "header.mp4": (clip.read_bytes()[:200], "cannot be read as a video"),
        "noise.mp4": (np.random.default_rng(0).bytes(5000), "cannot be read as a video"),
        "photo.mp4": (b"\x89PNG\r\n\x1a\n" + bytes(99), "is an image"),
    }
    for name, (content, message) in cases.items():
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        for ask in (probe_video, read_video):  # at the call, not at the first frame
            with pytest.raises(VideoReadError, match=message) as caught:
                ask(path)
            assert name in str(caught.value)
    with pytest.raises(VideoReadError, match=r"does not exist.*Did you mean 'text\.mp4'"):
        read_video(tmp_path / "tex.mp4")
    with pytest.raises(VideoReadError, match="is a folder"):
        read_video(tmp_path)


def test_sound_only_and_no_frames(tmp_path: Path, clip: Path) -> None:
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        tone = container.add_stream("aac", rate=16000, layout="mono")
        chunk = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        chunk.sample_rate = 16000
        container.mux(tone.encode(chunk))
        container.mux(tone.encode())
    with pytest.raises(VideoReadError, match="sound only"):
        read_video(tmp_path / "sound.mp4")
    data = bytearray(clip.read_bytes())
    start, end = data.find(b"mdat") + 4, data.find(b"moov") - 4
    data[start:end] = bytes(end - start)
    (tmp_path / "zeros.mp4").write_bytes(data)
    with pytest.raises(VideoReadError, match="no frame"):
        read_video(tmp_path / "zeros.mp4")


def test_huge_frames_are_refused_before_decoding(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "MAX_PIXELS", 160 * 120 - 1)
    with pytest.raises(VideoReadError, match="160 x 120 pixels"):
        read_video(clip)


def test_an_interval_without_frames(clip: Path) -> None:
    with pytest.raises(VideoReadError, match=r"no frame between 5 s.*lasts 1\.60 s"):
        list(read_video(clip, start_s=5))


@pytest.mark.parametrize("options", [{"chunk": 0}, {"stride": 0}, {"start_s": -1}, {"start_s": 2, "end_s": 1}])
def test_settings_out_of_range(options: dict[str, float], clip: Path) -> None:
    with pytest.raises(ConfigError, match="Expected"):
        read_video(clip, **options)


def test_torch_works_when_it_is_imported_after_decord() -> None:
    code = """
from vlfer.video.read import _import_decord
_import_decord()
import torch
a = torch.randn(256, 256)
assert torch.isfinite(a @ a).all()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_threads_that_import_decord_at_once_all_get_the_whole_module() -> None:
    code = """
from concurrent.futures import ThreadPoolExecutor
from vlfer.video.read import _import_decord
with ThreadPoolExecutor(8) as pool:
    for module in pool.map(lambda _: _import_decord(), range(8)):
        module.logging.set_level(module.logging.QUIET)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
