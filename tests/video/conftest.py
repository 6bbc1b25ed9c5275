"""Small videos made on the spot: known colours in known corners, a grey that tells the frame, any codec and times."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest

WIDTH, HEIGHT = 160, 120
RED, BLUE = (200, 30, 30), (30, 30, 200)
TICK = Fraction(1, 1000)


def picture(number: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> np.ndarray:
    """Top left red, bottom right blue, top right a grey that is twice the number of the frame."""
    width, height = size
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = RED
    pixels[height // 2 :, width // 2 :] = BLUE
    pixels[: height // 2, width // 2 :] = 2 * number
    return pixels


def write_video(
    path: Path,
    times_ms: Sequence[int],
    *,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
    noise: bool = False,
    sound: bool = False,
    size: tuple[int, int] = (WIDTH, HEIGHT),
) -> Path:
    if codec not in av.codecs_available:
        pytest.skip(f"this build of PyAV has no encoder {codec}")
    generator = np.random.default_rng(0)
    with av.open(str(path), "w", options=muxer or {}) as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        (stream.width, stream.height), stream.pix_fmt = size, "yuv420p"
        stream.time_base = stream.codec_context.time_base = TICK
        stream.codec_context.gop_size = 10
        tone = container.add_stream("aac", rate=16000, layout="mono") if sound else None
        for number, time_ms in enumerate(times_ms):
            pixels = picture(number, size)
            if noise:
                pixels = generator.integers(0, 255, pixels.shape, dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = int(time_ms), TICK
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if tone is not None:
            for start in range(0, 16000, 1024):
                chunk = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
                chunk.sample_rate, chunk.pts, chunk.time_base = 16000, start, Fraction(1, 16000)
                container.mux(tone.encode(chunk))
            container.mux(tone.encode())
    return path


def turn_video(path: Path, out: Path, clockwise_deg: int) -> Path:
    """Copy an MP4 with the display matrix of a recording that is to be turned clockwise (as phones write it)."""
    data = bytearray(path.read_bytes())
    at = data.find(b"tkhd")
    at += 8 + (20 if data[at + 4] == 0 else 32) + 16
    a, b, c, d = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[clockwise_deg]
    data[at : at + 36] = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    out.write_bytes(data)
    return out


def steady(count: int, *, step_ms: int = 40) -> list[int]:
    return [number * step_ms for number in range(count)]


def jittered(count: int, *, start_ms: int = 0) -> list[int]:
    """Times of a variable frame rate: steps from 20 to 109 ms."""
    return [start_ms + int(t) for t in np.cumsum([0] + [20 + (n * 37) % 90 for n in range(count - 1)])]


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 frames of H.264 at 25 fps."""
    return write_video(tmp_path_factory.mktemp("clips") / "steady.mp4", steady(40))


@pytest.fixture(scope="session")
def noisy_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 frames of H.264 noise, header first, so that a cut or hole falls into pictures."""
    return write_video(
        tmp_path_factory.mktemp("clips") / "noise.mp4", steady(60), noise=True, muxer={"movflags": "faststart"}
    )


@pytest.fixture(scope="session")
def studio() -> SimpleNamespace:
    """What makes videos, for tests that need special ones."""
    return SimpleNamespace(
        write=write_video, turn=turn_video, steady=steady, jittered=jittered, picture=picture, red=RED, blue=BLUE
    )
