"""Made clips with known people in them: one portrait, recoloured, mirrored and stretched into five, on moving paths.

They measure speed and the stability of ids, not expressions: nobody in them changes face.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from importlib.resources import files
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from PIL import Image

from vlfer.types import FloatArray, UInt8Array

# Of the portrait that comes with vlfer: head and shoulders, and the face in it, xyxy px.
_CUT = (82, 0, 382, 352)
_FACE = (178, 68, 274, 182)
# Per person: turn of the hue of hair and clothes (OpenCV's 0..179), their saturation and brightness, tint of the skin
# (red, green, blue), mirrored, stretch.
_LOOKS = (
    (0, 1.0, 1.0, (1.0, 1.0, 1.0), False, 1.00),
    (95, 1.2, 0.6, (0.72, 0.62, 0.55), True, 1.06),
    (150, 1.0, 1.3, (1.08, 1.02, 1.0), False, 0.94),
    (50, 0.8, 0.9, (0.88, 0.82, 0.72), True, 1.0),
    (0, 0.1, 0.45, (0.95, 0.9, 0.92), False, 1.08),
)
_SHOTS = 3


@dataclass(frozen=True, slots=True)
class MadeClip:
    """A made video and the truth about it.

    Attributes:
        path: The file.
        boxes: (T, P, 4) float32 xyxy px of each person's face in each frame.
        seen: (T, P) bool, whether at least two thirds of a face are in front of everybody else and in the picture.
        cuts: Numbers of the frames that begin a new shot.
        fps: Frames per second.
    """

    path: Path
    boxes: FloatArray
    seen: np.ndarray[Any, np.dtype[np.bool_]]
    cuts: tuple[int, ...]
    fps: float


def make_clip(
    path: Path,
    *,
    people: int,
    seconds: float,
    fps: int = 30,
    size: tuple[int, int] = (1280, 720),
    cuts: bool = False,
    seed: int = 0,
) -> MadeClip:
    """Write an H.264 clip of people who move about, cross, and are seen again after cuts.

    People in the row cross in pairs, one in front of the other. After a cut their places, sizes, the light and the
    background are others.

    Args:
        path: An MP4 file.
        people: 1 to 5.
        seconds: Length.
        fps: Frames per second.
        size: Width and height in pixels.
        cuts: Whether there are two cuts.
        seed: Of backgrounds, places and noise.
    """
    random = np.random.default_rng(seed)
    figures = [_figure(i) for i in range(people)]
    total = round(seconds * fps)
    shots = _SHOTS if cuts else 1
    firsts = [round(total * i / shots) for i in range(shots)]
    grain = np.rint(random.normal(0, 3, (8, size[1], size[0], 1))).repeat(3, axis=3)
    lighter, darker = np.maximum(grain, 0).astype(np.uint8), np.maximum(-grain, 0).astype(np.uint8)
    boxes = np.zeros((total, people, 4), dtype=np.float32)
    seen = np.zeros((total, people), dtype=bool)
    with av.open(str(path), "w", options={"movflags": "faststart"}) as output:
        stream: Any = output.add_stream("libx264", rate=fps, options={"crf": "23", "preset": "ultrafast"})
        (stream.width, stream.height), stream.pix_fmt = size, "yuv420p"
        stream.codec_context.time_base = Fraction(1, fps)
        for number, (pixels, places) in enumerate(_frames(figures, total, firsts, size, random)):
            boxes[number] = [place.box for place in places]
            seen[number] = [place.seen for place in places]
            turn = number % len(grain)
            grainy = cv2.subtract(cv2.add(pixels, lighter[turn]), darker[turn])
            frame = av.VideoFrame.from_ndarray(np.asarray(grainy, dtype=np.uint8), format="rgb24")
            frame.pts = number
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return MadeClip(path, boxes, seen, tuple(firsts[1:]), float(fps))


@dataclass(slots=True)
class _Place:
    box: tuple[float, float, float, float]
    seen: bool


def _figure(number: int) -> tuple[UInt8Array, FloatArray]:
    """Return one person as (H, W, 4) uint8 RGBA and its face (4,) in that picture."""
    with Image.open(str(files("vlfer").joinpath("samples", "astronaut.jpg"))) as image:
        pixels = np.array(image.convert("RGB"))[_CUT[1] : _CUT[3], _CUT[0] : _CUT[2]]
    hue, saturation, brightness, tint, mirrored, stretch = _LOOKS[number]
    height, width = pixels.shape[:2]
    y, x = np.mgrid[0:height, 0:width] + np.array(_CUT[1::-1]).reshape(2, 1, 1)
    middle, half = ((_FACE[0] + _FACE[2]) / 2, 132.0), (46.0, 64.0)
    inside = np.clip((1.12 - np.hypot((x - middle[0]) / half[0], (y - middle[1]) / half[1])) / 0.2, 0, 1)[..., None]
    colours = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV).astype(np.float32)
    colours[..., 0] = (colours[..., 0] + hue) % 180
    colours[..., 1:] = np.clip(colours[..., 1:] * (saturation, brightness), 0, 255)
    dressed = cv2.cvtColor(colours.astype(np.uint8), cv2.COLOR_HSV2RGB)
    skin = np.clip(pixels * np.array(tint), 0, 255)
    pixels = np.asarray(inside * skin + (1 - inside) * dressed, dtype=np.uint8)
    face = np.array(_FACE, dtype=np.float32) - np.tile(np.array(_CUT[:2], dtype=np.float32), 2)
    if mirrored:
        pixels = pixels[:, ::-1]
        face[[0, 2]] = width - face[[2, 0]]
    pixels = cv2.resize(pixels, (round(width * stretch), height), interpolation=cv2.INTER_CUBIC)
    face[[0, 2]] *= stretch
    y, x = np.mgrid[0:height, 0 : pixels.shape[1]]
    across, down = np.abs(x / pixels.shape[1] - 0.47) / 0.47, np.abs(y / height - 0.52) / 0.5
    alpha = np.clip((1.0 - (across**3 + down**3) ** (1 / 3)) / 0.1, 0, 1)
    return np.dstack([pixels, (255 * alpha).astype(np.uint8)]), face


def _frames(
    figures: list[tuple[UInt8Array, FloatArray]],
    total: int,
    firsts: list[int],
    size: tuple[int, int],
    random: np.random.Generator,
) -> Iterator[tuple[UInt8Array, list[_Place]]]:
    people = len(figures)
    ends = [*firsts[1:], total]
    for first, end in zip(firsts, ends, strict=True):
        background = _background(size, random)
        order = random.permutation(people)
        gain, base = random.uniform(0.85, 1.12), random.uniform(0.9, 1.15)
        for number in range(first, end):
            share = (number - first) / max(1, end - first - 1)
            canvas = background.copy()
            depth = np.full((size[1], size[0]), -1, dtype=np.int8)
            rough: list[tuple[float, float, float, float]] = [(0.0, 0.0, 0.0, 0.0)] * people
            for person in range(people):  # later ones are in front
                pixels, face = figures[person]
                x, y, scale = _path(int(order[person]), people, share, number)
                rough[person] = _draw(
                    canvas, depth, pixels, face, person=person,
                    centre=(x * size[0], y * size[1]), scale=base * scale * size[1] / 720,
                )  # fmt: skip
            lit = np.asarray(cv2.convertScaleAbs(canvas, alpha=gain), dtype=np.uint8)
            yield lit, [_Place(rough[p], _is_seen(depth, rough[p], p)) for p in range(people)]


def _path(slot: int, people: int, share: float, number: int) -> tuple[float, float, float]:
    """Return where slot is (centre of the figure, shares of the picture) and its scale: neighbours swap places."""
    if people == 1:
        return 0.5 + 0.16 * math.sin(number / 40), 0.52 + 0.03 * math.sin(number / 23), 1.3
    partner = slot + 1 if slot % 2 == 0 else slot - 1
    crossing = 0.5 - 0.5 * math.cos(math.pi * min(max((share - 0.25) / 0.5, 0.0), 1.0))
    here = (slot + 0.5) / people
    there = (partner + 0.5) / people if partner < people else here + 0.06
    x = (1 - crossing) * here + crossing * there
    y = 0.5 + 0.05 * math.sin(number / 17 + slot) + (0.03 if slot % 2 else -0.03)
    return x, y, 0.86


def _draw(
    canvas: UInt8Array,
    depth: np.ndarray[Any, np.dtype[np.int8]],
    figure: UInt8Array,
    face: FloatArray,
    *,
    person: int,
    centre: tuple[float, float],
    scale: float,
) -> tuple[float, float, float, float]:
    width, height = round(figure.shape[1] * scale), round(figure.shape[0] * scale)
    sized = cv2.resize(figure, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    left, top = round(centre[0] - width / 2), round(centre[1] - height / 2)
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + width, canvas.shape[1]), min(top + height, canvas.shape[0])
    if x1 > x0 and y1 > y0:
        part = sized[y0 - top : y1 - top, x0 - left : x1 - left]
        alpha = part[..., 3:].astype(np.uint16)
        place = canvas[y0:y1, x0:x1]
        place[...] = ((part[..., :3] * alpha + place * (255 - alpha)) // 255).astype(np.uint8)
        depth[y0:y1, x0:x1][part[..., 3] > 127] = person
    moved = face * scale + np.array([left, top, left, top], dtype=np.float32)
    return (float(moved[0]), float(moved[1]), float(moved[2]), float(moved[3]))


def _is_seen(depth: np.ndarray[Any, np.dtype[np.int8]], box: tuple[float, float, float, float], person: int) -> bool:
    x0, y0, x1, y1 = (round(v) for v in box)
    area = max((x1 - x0) * (y1 - y0), 1)
    inside = depth[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)]
    return bool((inside == person).sum() > area * 2 / 3)


def _background(size: tuple[int, int], random: np.random.Generator) -> UInt8Array:
    coarse = (random.uniform(60, 190, (4, 6, 1)) + random.uniform(-30, 30, (4, 6, 3))).astype(np.float32)
    smooth = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
    fine = cv2.resize(random.normal(0, 5, (90, 160)).astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    return np.asarray(np.clip(smooth + fine[..., None], 0, 255), dtype=np.uint8)


def count_switches(
    clip: MadeClip, times_s: FloatArray | Any, boxes: list[FloatArray], ids: list[list[int]]
) -> tuple[int, int, int]:
    """Compare tracks with the truth.

    Args:
        clip: The truth.
        times_s: (T,) seconds of the frames looked at.
        boxes: Per frame, (N, 4) boxes found.
        ids: Per frame, the id of each.

    Returns:
        How often a person's id differs from the one it had before (identity switches of CLEAR MOT, Bernardin and
        Stiefelhagen, 2008), how many faces were matched, and how many were there to be seen.
    """
    last: dict[int, int] = {}
    switches = matched = there = 0
    for time_s, found, names in zip(times_s, boxes, ids, strict=True):
        number = min(round(float(time_s) * clip.fps), len(clip.boxes) - 1)
        free = list(range(len(found)))
        for person in range(clip.boxes.shape[1]):
            if not clip.seen[number, person]:
                continue
            there += 1
            truth = clip.boxes[number, person]
            centre, side = (truth[:2] + truth[2:]) / 2, float(truth[2] - truth[0])
            apart = {i: float(np.hypot(*((found[i][:2] + found[i][2:]) / 2 - centre))) / side for i in free}
            best = min(apart, key=lambda i: apart[i], default=None)
            if best is None or apart[best] > 0.5:
                continue
            free.remove(best)
            matched += 1
            switches += last.get(person, names[best]) != names[best]
            last[person] = names[best]
    return switches, matched, there
