"""Images and arrays as RGB frames."""

from __future__ import annotations

import codecs
import io
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from vlfer.errors import ImageReadError, MediaReadError, ShapeError, did_you_mean
from vlfer.types import Frames, UInt8Array

ImageSource = str | Path | bytes | BinaryIO

MAX_PIXELS = 89_478_485
"""Images of more pixels are refused before they are decoded: they would take a quarter of a gigabyte and more."""


def load_image(source: ImageSource, *, max_pixels: int = MAX_PIXELS) -> Frames:
    """Read an image file: JPEG, PNG, WebP, GIF, TIFF, BMP, AVIF and whatever else Pillow knows.

    The orientation of EXIF is applied, transparency is laid over white, 16-bit and float images are scaled to their
    full range, of an animation the first frame is taken.

    Args:
        source: A path, the bytes of a file, or a binary stream.
        max_pixels: Images of more pixels are refused before they are decoded.

    Returns:
        One frame at time 0.

    Raises:
        ImageReadError: If the file is missing, empty, a folder, not an image, damaged or too large.
    """
    name, stream = _open_stream(source)
    with stream:
        try:
            image = _open_image(stream)
        except Exception as error:  # a damaged header may raise anything in a decoder
            raise _not_an_image(name, stream, error) from error
        width, height = image.size
        if width * height > max_pixels:
            raise ImageReadError(
                f"The image {name!r} is {width} x {height} pixels.",
                why=f"More than {max_pixels:,} pixels are not decoded.",
                fix="scale it down, or raise max_pixels.",
            )
        try:
            pixels = _to_rgb(image)
        except Exception as error:  # so may damaged data
            raise ImageReadError(
                f"The image {name!r} cannot be decoded: {str(error).rstrip('.') or type(error).__name__}.",
                why="It is truncated or damaged.",
                fix="copy or export it again.",
            ) from error
    return Frames(pixels=pixels[None], times_s=np.zeros(1), source=name)


def frames_from_array(array: Any, *, fps: float | None = None, source: str = "array") -> Frames:
    """Take an array as an image or a video.

    Args:
        array: (H, W) grey, (H, W, 3) RGB, (H, W, 4) RGBA laid over white, or (T, H, W, 3) RGB video; uint8, uint16
            (full range 65535) or floating point from 0 to 1.
        fps: Frames per second; needed for a video of more than one frame.
        source: Name for reports.

    Returns:
        The frames, times counted from 0.

    Raises:
        ShapeError: If shape, dtype or values are others, the array is empty, or ``fps`` is missing.
    """
    values = np.asarray(array)
    is_image = values.ndim == 2 or (values.ndim == 3 and values.shape[2] in (3, 4))
    if not (is_image or (values.ndim == 4 and values.shape[3] == 3)) or 0 in values.shape:
        raise ShapeError(
            f"The array has shape {values.shape}.",
            why="Expected (H, W), (H, W, 3), (H, W, 4) or (T, H, W, 3), none of them 0.",
        )
    pixels = _to_uint8(values)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    elif pixels.shape[-1] == 4:
        pixels = _over_white(pixels)
    if is_image:
        pixels = pixels[None]
    if fps is None and len(pixels) > 1:
        raise ShapeError(f"The array holds {len(pixels)} frames and fps is missing.", why="Frames need times.")
    if fps is not None and not (np.isfinite(fps) and fps > 0):
        raise ShapeError(f"fps is {fps}.", why="Expected a positive number.")
    times_s = np.arange(len(pixels), dtype=np.float64) / (fps or 1.0)
    return Frames(pixels=np.ascontiguousarray(pixels), times_s=times_s, source=source)


def check_file(path: Path, *, error: type[MediaReadError]) -> None:
    """Raise ``error`` unless ``path`` is a file that can be read and holds something; suggest a name that is near."""
    try:
        if path.is_dir():
            raise error(f"{str(path)!r} is a folder.", why="A single file is read here.", fix="give its files.")
        if not path.exists():
            if str(path).startswith(("http:", "https:", "rtsp:")):
                raise error(f"{str(path)!r} is an address.", why="Only files are read.", fix="download it first.")
            raise error(f"The file {str(path)!r} does not exist.", why=_near_name(path), fix="check the spelling.")
        if path.is_file() and path.stat().st_size == 0:
            raise error(f"The file {str(path)!r} is empty.", why="It holds 0 bytes.", fix="copy it again.")
    except (OSError, ValueError) as problem:  # no permission on a folder above, a name that is too long, a null byte
        if isinstance(problem, MediaReadError):
            raise
        raise error(f"The file {str(path)!r} cannot be opened: {problem}.") from problem


def read_head(path: Path, *, error: type[MediaReadError]) -> bytes:
    """Return the first bytes of a file, enough for `sniff`; raise ``error`` if it cannot be opened."""
    try:
        with path.open("rb") as file:
            return file.read(1024)
    except OSError as problem:
        raise error(f"The file {str(path)!r} cannot be opened: {problem.strerror}.") from problem


def _near_name(path: Path) -> str:
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return f"There is no folder {str(path.parent)!r}."
    return did_you_mean(path.name, names)


def _open_stream(source: ImageSource) -> tuple[str, BinaryIO]:
    if isinstance(source, bytes):
        if not source:
            raise ImageReadError("The image is empty.", why="It holds 0 bytes.")
        return "bytes", io.BytesIO(source)
    if isinstance(source, str | Path):
        path = Path(source)
        check_file(path, error=ImageReadError)
        try:
            return str(path), path.open("rb")
        except OSError as error:
            raise ImageReadError(f"The file {str(path)!r} cannot be opened: {error.strerror}.") from error
    data = source.read()  # a copy, so that the caller's stream stays open
    if not data:
        raise ImageReadError("The image stream is empty.", why="It holds 0 bytes from its position on.")
    return str(getattr(source, "name", "stream")), io.BytesIO(data)


def _open_image(stream: BinaryIO) -> Image.Image:
    """Read the header of an image, of any size.

    ``Image.open`` warns of large images, and raises without telling their size.
    """
    Image.init()
    prefix = stream.read(16)
    for format_name in Image.ID:
        factory, accept = Image.OPEN[format_name]
        accepted = accept is None or accept(prefix)
        if not accepted or isinstance(accepted, str):
            continue
        stream.seek(0)
        try:
            return factory(cast(Any, stream), "")
        except (SyntaxError, IndexError, TypeError, EOFError):  # what Pillow takes for "another format"
            continue
    raise ImageReadError("no known format")


def _not_an_image(name: str, stream: BinaryIO, error: Exception) -> ImageReadError:
    stream.seek(0)
    head = stream.read(512)
    if sniff(head) == "video":
        return ImageReadError(f"{name!r} is a video, not an image.", fix="read it as a video.")
    if sniff(head) == "image":
        return ImageReadError(
            f"The image {name!r} cannot be read: {str(error).rstrip('.')}.",
            why="Its header is damaged, or its format is not known here (HEIC is not).",
            fix="export it as JPEG or PNG.",
        )
    kind = "text" if is_text(head) else "data of no known format"
    return ImageReadError(
        f"{name!r} is not an image.", why=f"It holds {kind}.", fix="a JPEG, PNG, WebP, GIF, TIFF, BMP or AVIF file."
    )


def is_text(head: bytes) -> bool:
    """Tell whether the first bytes of a file are text in UTF-8."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # the last letter may be cut
    except UnicodeDecodeError:
        return False
    return b"\0" not in head


def sniff(head: bytes) -> str | None:
    """Tell from the first bytes of a file whether it is an "image" or a "video"; None if neither is recognised."""
    if head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"\0\0\1\0", b"8BPS")):
        return "image"
    if head[:4] == b"RIFF":
        return {b"WEBP": "image", b"AVI ": "video"}.get(head[8:12])
    if head[4:8] == b"ftyp":
        still = {b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1"}
        return "image" if head[8:12] in still else "video"
    if head[4:8] in (b"moov", b"mdat", b"wide", b"free", b"skip"):
        return "video"
    ebml, flv, asf, ogg = b"\x1a\x45\xdf\xa3", b"FLV\x01", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", b"OggS"
    if head.startswith((ebml, flv, asf, ogg, b"\0\0\1\xba", b"\0\0\1\xb3")):
        return "video"
    if len(head) > 376 and head[0] == head[188] == head[376] == 0x47:  # MPEG transport stream
        return "video"
    if head.startswith((b"P1", b"P2", b"P3", b"P4", b"P5", b"P6")) and head[2:3].isspace():
        return "image"
    return None


def _to_rgb(image: Image.Image) -> UInt8Array:
    """Decode an opened image to (H, W, 3) uint8 RGB."""
    image.load()
    turned = ImageOps.exif_transpose(image)
    if turned.mode in ("I;16", "I;16L", "I;16B", "I;16N", "I", "F"):
        grey = _scale_deep(np.asarray(turned))
        return np.repeat(grey[..., None], 3, axis=2)
    if turned.has_transparency_data:
        return _over_white(np.asarray(turned.convert("RGBA")))
    return np.array(turned.convert("RGB"))


def _scale_deep(values: NDArray[Any]) -> UInt8Array:
    """Bring grey values of more than 8 bits to 0..255, by the smallest usual full range that holds them."""
    finite = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    top = float(finite.max(initial=0.0))
    if values.dtype == np.uint16:
        full = 65535.0
    else:
        ranges = [1.0] if values.dtype.kind == "f" else []
        full = next((limit for limit in [*ranges, 255.0, 65535.0] if top <= limit), top)
    return np.asarray(np.rint(np.clip(finite / full, 0.0, 1.0) * 255), dtype=np.uint8)


def _over_white(rgba: UInt8Array) -> UInt8Array:
    alpha = rgba[..., 3:].astype(np.float32) / 255
    return np.asarray(np.rint(rgba[..., :3] * alpha + 255 * (1 - alpha)), dtype=np.uint8)


def _to_uint8(values: NDArray[Any]) -> UInt8Array:
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.uint16:
        return np.asarray(np.rint(values / 257), dtype=np.uint8)
    if values.dtype.kind == "f":
        low, high = float(values.min()), float(values.max())
        if not (low >= -1e-6 and high <= 1 + 1e-6):
            raise ShapeError(
                f"The floating-point array goes from {low:g} to {high:g}.",
                why="Expected finite values from 0 to 1.",
                fix="divide by 255, or convert to uint8.",
            )
        return np.asarray(np.rint(np.clip(values, 0, 1) * 255), dtype=np.uint8)
    raise ShapeError(f"The array has dtype {values.dtype}.", why="Expected uint8, uint16 or floating point.")
