"""From one row of a manifest to the face crops that its label is judged by. A row never raises: it becomes a record."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from vlfer.errors import DataError, ImageReadError, MediaReadError, NoFaceError, VideoReadError
from vlfer.evaluation.manifest import Manifest, Row
from vlfer.faces.align import crop_face
from vlfer.faces.detect import Effort, FaceDetector
from vlfer.faces.find import FaceMode, find_faces
from vlfer.types import Face, Frames, IntArray, UInt8Array
from vlfer.video.pick import count_frames, pick_frames
from vlfer.video.read import load_image, media_kind, probe_video
from vlfer.video.sample import dfer_clip_ticks, uniform

Sampling = Literal["uniform", "dfer-clip", "exp-clip", "all"]
Fit = Literal["face", "squash", "center"]
Status = Literal["ok", "no_face", "error"]

FRAME_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
_TABLE_ADDRESS = re.compile(r"^(?P<file>.+\.csv)#(?P<row>\d+)$", re.IGNORECASE)
_TABLE_SIDE_PX = 48
_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything before the image tower that can change an embedding.

    Attributes:
        size: Side of a crop in pixels.
        faces: "whole" takes each frame as one face, "detect" looks for faces, "auto" decides per frame.
        sampling: Which frames of a clip; see `sample_indices`.
        frames: How many frames of a clip.
        fit: "face" cuts out the face. The others take the whole frame and ignore ``faces``: "squash" stretches it to
            a square (Pillow bilinear, the loaders of DFER-CLIP and Exp-CLIP), "center" scales its shorter side and
            cuts the middle (Pillow bicubic, CLIP's own preprocessing).
        margin: Extra around a face as a fraction of the crop.
        align: Whether to level the eyes.
        detector: Name of the detector.
    """

    size: int
    faces: FaceMode = "auto"
    sampling: Sampling = "uniform"
    frames: int = 16
    fit: Fit = "face"
    margin: float = 0.0
    align: bool = True
    detector: str = "mediapipe"

    @property
    def needs_detector(self) -> bool:
        """Whether faces are looked for."""
        return self.fit == "face" and self.faces != "whole"

    @property
    def key(self) -> str:
        """Hash of every field."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Crops:
    """What came of one row.

    Attributes:
        status: "ok", "no_face" or "error".
        pixels: (T, S, S, 3) uint8 RGB; empty unless "ok".
        error_type: Class of the error.
        message: Its message.
        note: How the faces were found.
    """

    status: Status
    pixels: UInt8Array
    error_type: str = ""
    message: str = ""
    note: str = ""


def sample_indices(n_frames: int, *, sampling: Sampling, count: int) -> IntArray:
    """Choose frames of a clip.

    ``dfer-clip`` and ``exp-clip`` are the test loaders of github.com/zengqunzhao/DFER-CLIP and .../Exp-CLIP, see
    `vlfer.video.sample.dfer_clip_ticks`; Exp-CLIP's shows frame 0 throughout already where ``n_frames == count``.
    ``uniform`` spreads evenly from the first to the last frame and repeats none; ``all`` takes every frame.

    Args:
        n_frames: Frames of the clip.
        sampling: Which rule.
        count: Frames wanted; ignored by ``all``.

    Returns:
        (T,) int64 indices, ascending.

    Raises:
        VideoReadError: If there is no frame.
    """
    if n_frames < 1:
        raise VideoReadError("The clip has no frame.", why="There is nothing to choose from.")
    if sampling == "all":
        return np.arange(n_frames, dtype=np.int64)
    if sampling == "uniform":
        return uniform(n_frames, count=min(count, n_frames))
    if sampling == "exp-clip" and n_frames <= count:
        return np.zeros(count, dtype=np.int64)
    return dfer_clip_ticks(n_frames, count=count)


def read_crops(row: Row, *, recipe: Recipe, detector: FaceDetector | None) -> Crops:
    """Read the sampled frames of one row and cut out its face; pure, and never raising for a bad row.

    In each frame the largest face counts. Frames without a face are left out; a row without any is "no_face".

    Args:
        row: The sample.
        recipe: How to read it.
        detector: Used where ``recipe.needs_detector``.

    Returns:
        Crops, or a record of what went wrong.
    """
    nothing = np.zeros((0, recipe.size, recipe.size, 3), dtype=np.uint8)
    try:
        frames = read_frames(row, sampling=recipe.sampling, count=recipe.frames)
        crops, note = _cut_faces(frames, row=row, recipe=recipe, detector=detector)
    except NoFaceError as error:
        return Crops("no_face", nothing, "NoFaceError", str(error))
    except Exception as error:  # a record for each row: one bad file must not end a run of 10,000
        return Crops("error", nothing, type(error).__name__, str(error) or repr(error))
    return Crops("ok", crops, note=note)


def read_frames(row: Row, *, sampling: Sampling, count: int) -> Frames:
    """Read the sampled frames of an image, a video, a folder of frames or a row of a pixel table.

    Raises:
        MediaReadError: If the medium is missing or cannot be decoded.
        DataError: If a time interval is given for something that has no time.
    """
    table = _TABLE_ADDRESS.match(row.path)
    if table:
        _refuse_interval(row)
        return Frames(_table_image(Path(table["file"]), int(table["row"]))[None], np.zeros(1), row.path)
    path = Path(row.path)
    if not path.exists():
        raise MediaReadError(f"{row.path} does not exist.", fix="check --root and the paths of the data set.")
    if path.is_dir():
        _refuse_interval(row)
        files = frame_files(path)
        if not files:
            raise VideoReadError(f"The folder {row.path} holds no image.", why="A clip is a folder of frames.")
        return _stack([load_image(files[i]) for i in sample_indices(len(files), sampling=sampling, count=count)])
    if media_kind(path) == "image":
        _refuse_interval(row)
        return load_image(path)
    return _read_clip(path, row=row, sampling=sampling, count=count)


def frame_files(folder: Path) -> list[Path]:
    """Return the images of a folder, frame 2 before frame 10."""
    files = [p for p in folder.iterdir() if p.suffix.lower() in FRAME_SUFFIXES and not p.name.startswith(".")]
    return sorted(files, key=lambda p: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", p.name)])


def check_media(manifest: Manifest) -> None:
    """Refuse a manifest of which no medium exists: its root is wrong, and every figure would be zero.

    Raises:
        DataError: The message says what was looked for and what is there instead.
    """
    files = dict.fromkeys(media_file(row) for row in manifest.rows)
    if any(_exists(file) for file in files):
        return
    first = next(iter(files))
    above = next((folder for folder in first.parents if _exists(folder)), Path("/"))
    there = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in above.iterdir())[:_SHOWN]
    raise DataError(
        f"None of the {len(files)} media of {manifest.name} exists.",
        why=f"Looked for {first} and so on; {above} holds {', '.join(there) or 'nothing'}.",
        fix="the folder that the paths start from, as --root",
    )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that is too long, a null byte
        return False


def fit_whole(pixels: UInt8Array, *, size: int, fit: Fit) -> UInt8Array:
    """Bring a whole image (H, W, 3) to (size, size, 3) as published preprocessing does; see `Recipe.fit`."""
    from PIL import Image

    image = Image.fromarray(pixels)
    if fit == "squash":
        return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR), dtype=np.uint8)
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized.crop((left, top, left + size, top + size)), dtype=np.uint8)


def media_file(row: Row) -> Path:
    """Return the file or folder on disk that a row lies in."""
    table = _TABLE_ADDRESS.match(row.path) if "#" in row.path else None
    return Path(table["file"]) if table else Path(row.path)


def _cut_faces(frames: Frames, *, row: Row, recipe: Recipe, detector: FaceDetector | None) -> tuple[UInt8Array, str]:
    """Return (T, S, S, 3) crops and a note.

    Raises:
        NoFaceError: If no frame shows a face.
    """
    crops: list[UInt8Array] = []
    note = ""
    for pixels in frames.pixels:
        if row.box is not None:
            _check_box(row, pixels)
            given = Face(np.array(row.box, dtype=np.float32), 1.0)
            crops.append(crop_face(pixels, given, size=recipe.size, margin=recipe.margin, align=False))
        elif recipe.fit != "face":
            crops.append(fit_whole(pixels, size=recipe.size, fit=recipe.fit))
        else:
            effort: Effort = "thorough" if len(frames) == 1 else "fast"
            faces, said = find_faces(pixels, detector=detector, mode=recipe.faces, effort=effort)
            note = note or said
            if faces:
                largest = max(faces, key=_area)
                crops.append(crop_face(pixels, largest, size=recipe.size, margin=recipe.margin, align=recipe.align))
    if not crops:
        raise NoFaceError(f"No face in {row.path}.", why=f"{len(frames)} frames were searched.", fix="--faces whole")
    return np.stack(crops), note


def _check_box(row: Row, pixels: UInt8Array) -> None:
    """Refuse a box beside the image: its crop would be the repeated edge, and be given a label like any face.

    Raises:
        DataError: If box and image share no pixel.
    """
    height, width = pixels.shape[:2]
    x0, y0, x1, y1 = row.box or (0.0, 0.0, float(width), float(height))
    if x0 >= width or y0 >= height or x1 <= 0 or y1 <= 0:
        raise DataError(
            f"The box {x0:g} {y0:g} {x1:g} {y1:g} lies outside {row.path}.",
            why=f"The image is {width} x {height} px, and a box is x0 y0 x1 y1.",
            fix="correct the box, or leave it out.",
        )


def _area(face: Face) -> float:
    x0, y0, x1, y1 = face.box
    return float((x1 - x0) * (y1 - y0))


def _read_clip(path: Path, *, row: Row, sampling: Sampling, count: int) -> Frames:
    """Read sampled frames of a video in one pass where its header tells the number of frames, in two where not."""
    info = probe_video(path)
    start, end = row.start_s or 0.0, row.end_s
    whole = row.start_s is None and end is None
    if whole and sampling != "all" and info.frame_count:
        found = pick_frames(info, sample_indices(info.frame_count, sampling=sampling, count=count))
        if found is not None:
            return found
    actual = count_frames(info, start_s=start, end_s=end)
    if not actual:
        until = "its end" if end is None else f"{end:g} s"
        raise VideoReadError(
            f"The video {str(path)!r} has no frame between {start:g} s and {until}.",
            why=f"It lasts {info.duration_s:.2f} s.", fix="an interval inside.",
        )  # fmt: skip
    found = pick_frames(info, sample_indices(actual, sampling=sampling, count=count), start_s=start, end_s=end)
    if found is None:
        raise VideoReadError(f"{path} gave fewer frames on the second reading than on the first ({actual}).")
    return found


def _stack(images: list[Frames]) -> Frames:
    """Put single images into one clip.

    Raises:
        ImageReadError: If they differ in size.
    """
    sizes = {image.pixels.shape[1:3] for image in images}
    if len(sizes) > 1:
        raise ImageReadError(
            f"The frames of {Path(images[0].source).parent} have different sizes: {sorted(sizes)[:4]}.",
            why="They are not frames of one clip.",
        )
    times = np.arange(len(images), dtype=np.float64)
    return Frames(np.concatenate([image.pixels for image in images]), times, images[0].source)


def _refuse_interval(row: Row) -> None:
    if row.start_s is not None or row.end_s is not None:
        raise DataError(f"{row.path} has a start or end time and is no video.", fix="leave start_s and end_s empty")


@functools.lru_cache(maxsize=4)
def table_lines(file: Path) -> tuple[int, ...]:
    """Return the byte offset of each line after the header of a pixel table, with the end of the file behind them."""
    offsets = []
    with file.open("rb") as stream:
        stream.readline()
        offsets.append(stream.tell())
        for line in stream:
            offsets.append(offsets[-1] + len(line))
    return tuple(offsets)


def _table_image(file: Path, number: int) -> UInt8Array:
    """Return image ``number`` of a FER2013 pixel table: the cell with 48 * 48 grey values, as (48, 48, 3)."""
    try:
        offsets = table_lines(file)
        if number >= len(offsets) - 1:
            raise ImageReadError(f"{file} has {len(offsets) - 1} images and none with number {number}.")
        with file.open("rb") as stream:
            stream.seek(offsets[number])
            line = stream.readline().decode("ascii", errors="replace")
    except OSError as error:
        if isinstance(error, ImageReadError):
            raise
        raise ImageReadError(f"{file} cannot be read: {error}.") from None
    cell = max(line.strip().split(","), key=len).strip('"')
    try:
        values = np.array(cell.split(), dtype=np.int64)
    except ValueError:
        values = np.zeros(0, dtype=np.int64)
    if len(values) != _TABLE_SIDE_PX**2 or values.min() < 0 or values.max() > 255:
        raise ImageReadError(f"Row {number} of {file} does not hold {_TABLE_SIDE_PX}x{_TABLE_SIDE_PX} grey values.")
    grey = values.astype(np.uint8).reshape(_TABLE_SIDE_PX, _TABLE_SIDE_PX)
    return np.repeat(grey[:, :, None], 3, axis=2)
