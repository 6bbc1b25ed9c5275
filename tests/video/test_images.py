from __future__ import annotations

import contextlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vlfer.errors import ImageReadError, ShapeError
from vlfer.video.read import frames_from_array, load_image

RAMP = np.linspace(0, 255, 64, dtype=np.uint8).reshape(8, 8)
COLOURS = np.stack([RAMP, RAMP[::-1], RAMP.T], axis=2)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True})])
def test_lossless_formats_give_the_pixels(kind: str, options: dict[str, object]) -> None:
    frames = load_image(encoded(Image.fromarray(COLOURS), kind, **options))
    assert frames.pixels.shape == (1, 8, 8, 3)
    np.testing.assert_array_equal(frames.pixels[0], COLOURS)
    assert frames.times_s.tolist() == [0.0]


def test_jpeg_from_path_text_bytes_and_stream_agree(tmp_path: Path) -> None:
    path = tmp_path / "ramp.jpg"
    path.write_bytes(encoded(Image.fromarray(COLOURS), "JPEG", quality=95))
    expected = load_image(path).pixels
    assert np.abs(expected[0].astype(int) - COLOURS).mean() < 15
    for source in (str(path), path.read_bytes(), io.BytesIO(path.read_bytes())):
        np.testing.assert_array_equal(load_image(source).pixels, expected)
    assert load_image(path).source == str(path)


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (6, 4), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert load_image(data).pixels[0, 0, 0].tolist() == [255, 0, 0]


def test_grey_palette_and_bilevel() -> None:
    grey = load_image(encoded(Image.fromarray(RAMP), "PNG")).pixels[0]
    np.testing.assert_array_equal(grey, np.repeat(RAMP[..., None], 3, axis=2))
    palette = Image.fromarray(COLOURS).quantize(64, dither=Image.Dither.NONE)
    np.testing.assert_array_equal(load_image(encoded(palette, "PNG")).pixels[0], np.asarray(palette.convert("RGB")))
    assert set(np.unique(load_image(encoded(Image.fromarray(RAMP > 99), "PNG")).pixels)) == {0, 255}


def test_transparency_lies_over_white() -> None:
    rgba = np.dstack([COLOURS, np.full((8, 8), 255, np.uint8)])
    rgba[0, 0, 3], rgba[1, 1] = 0, (0, 0, 0, 128)
    pixels = load_image(encoded(Image.fromarray(rgba), "PNG")).pixels[0]
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[1, 1].tolist() == [127, 127, 127]
    np.testing.assert_array_equal(pixels[2:], COLOURS[2:])
    keyed = Image.fromarray(RAMP)
    assert load_image(encoded(keyed, "PNG", transparency=0)).pixels[0, 0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_keeps_its_range(kind: str) -> None:
    deep = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    pixels = load_image(encoded(Image.fromarray(deep), kind)).pixels[0, ..., 0]
    np.testing.assert_array_equal(pixels, np.rint(deep / 257).astype(np.uint8))


def test_sixteen_bit_colour_png() -> None:
    deep = (COLOURS.astype(np.uint16) * 257).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in deep)

    def part(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(rows)) + part(b"IEND", b"")
    np.testing.assert_array_equal(load_image(data).pixels[0], COLOURS)


def test_float_tiff_from_zero_to_one() -> None:
    data = encoded(Image.fromarray((RAMP / 255).astype(np.float32)), "TIFF")
    np.testing.assert_array_equal(load_image(data).pixels[0, ..., 0], RAMP)


def test_cmyk_jpeg_is_rgb() -> None:
    red = Image.new("RGB", (16, 16), (255, 0, 0)).convert("CMYK")
    pixel = load_image(encoded(red, "JPEG", quality=95)).pixels[0, 8, 8].astype(int)
    assert np.abs(pixel - (254, 0, 0)).max() < 12


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    upright = np.zeros((24, 16, 3), np.uint8)
    upright[:8, :8] = (255, 0, 0)
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a),
        7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(np.ascontiguousarray(undo(upright))), "PNG", exif=exif)
    np.testing.assert_array_equal(load_image(data).pixels[0], upright)


def bomb(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    part = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    return b"\x89PNG\r\n\x1a\n" + part + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("side", [10_000, 20_000])
def test_a_huge_image_is_refused_before_decoding(side: int) -> None:
    with pytest.raises(ImageReadError, match=f"{side} x {side} pixels") as caught:
        load_image(bomb(side, side))
    assert "max_pixels" in caught.value.fix


def test_max_pixels_is_a_setting() -> None:
    data = encoded(Image.fromarray(COLOURS), "PNG")
    assert len(load_image(data, max_pixels=64)) == 1
    with pytest.raises(ImageReadError, match="8 x 8"):
        load_image(data, max_pixels=63)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_truncated_files_are_errors(kind: str, share: float, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    path = tmp_path / "cut.bin"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ImageReadError, match=r"cut\.bin"):
        load_image(path)


@given(st.binary(max_size=300))
def test_any_bytes_give_an_image_or_our_error(data: bytes) -> None:
    for head in (b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\x10\0\0\0WEBP", b"II*\0", b"BM"):
        with contextlib.suppress(ImageReadError):  # any other error fails
            assert load_image(head + data).pixels.ndim == 4


def test_missing_empty_folder_text_and_video(tmp_path: Path) -> None:
    (tmp_path / "portrait.jpg").write_bytes(encoded(Image.fromarray(COLOURS), "JPEG"))
    with pytest.raises(ImageReadError, match=r"does not exist.*Did you mean 'portrait\.jpg'"):
        load_image(tmp_path / "portait.jpg")
    with pytest.raises(ImageReadError, match="no folder"):
        load_image(tmp_path / "nowhere" / "portrait.jpg")
    (tmp_path / "empty.png").touch()
    with pytest.raises(ImageReadError, match="is empty"):
        load_image(tmp_path / "empty.png")
    with pytest.raises(ImageReadError, match="is a folder"):
        load_image(tmp_path)
    (tmp_path / "notes.jpg").write_text("Grüße, these are notes.")
    with pytest.raises(ImageReadError, match="holds text"):
        load_image(tmp_path / "notes.jpg")
    (tmp_path / "clip.jpg").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(64))
    with pytest.raises(ImageReadError, match="is a video"):
        load_image(tmp_path / "clip.jpg")
    with pytest.raises(ImageReadError, match="download it first"):
        load_image("https://example.org/face.jpg")
    for source in (b"", io.BytesIO()):
        with pytest.raises(ImageReadError, match="empty"):
            load_image(source)
    with pytest.raises(ImageReadError):
        load_image("a" * 5000)
    with pytest.raises(ImageReadError):
        load_image("a\0b.jpg")


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (RAMP, np.repeat(RAMP[..., None], 3, axis=2)),
        (COLOURS, COLOURS),
        (COLOURS.astype(np.uint16) * 257, COLOURS),
        (COLOURS / 255.0, COLOURS),
        ((COLOURS / 255.0).astype(np.float32), COLOURS),
        (np.dstack([COLOURS, np.full((8, 8), 255, np.uint8)]), COLOURS),
        (np.dstack([COLOURS, np.zeros((8, 8), np.uint8)]), np.full((8, 8, 3), 255, np.uint8)),
    ],
)
def test_arrays_as_images(array: np.ndarray, expected: np.ndarray) -> None:
    frames = frames_from_array(array)
    np.testing.assert_array_equal(frames.pixels, expected[None])
    assert frames.times_s.tolist() == [0.0]


def test_arrays_as_videos() -> None:
    frames = frames_from_array(np.stack([COLOURS] * 5), fps=20, source="mine")
    assert len(frames) == 5
    assert frames.source == "mine"
    np.testing.assert_allclose(frames.times_s, np.arange(5) / 20)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 8, 8), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
        np.zeros((2, 8, 8, 4), np.uint8),
        np.zeros(5, np.uint8),
        np.zeros((8, 8, 3), np.int64),
        np.zeros((8, 8, 3), bool),
        np.full((8, 8, 3), 255.0),
        np.full((8, 8, 3), np.nan),
        np.full((8, 8, 3), -0.5),
        "face",
    ],
)
def test_other_arrays_are_refused(array: object) -> None:
    with pytest.raises(ShapeError, match="Expected"):
        frames_from_array(array)


@pytest.mark.parametrize("fps", [None, 0, -5, float("nan")])
def test_a_video_array_needs_a_frame_rate(fps: float | None) -> None:
    with pytest.raises(ShapeError, match="fps"):
        frames_from_array(np.zeros((2, 4, 4, 3), np.uint8), fps=fps)
