"""Spot expressions in long video: intervals with onset, apex and offset, micro and macro apart by duration.

Hand-crafted, as the strongest training-free methods of MEGC are (He et al., OF-FD): how far brows, nose wings, mouth
corners and chin are from their place of rest, measured against the nose, so that the head takes no part. Every frame
is compared with an anchor frame that is renewed twice a second; the anchors are chained. A slow baseline is taken off
and what stands out of the noise is an expression, unless it is a blink (the lids move more than the region does) or
comes with a movement of the head that is much larger. While somebody talks, which shows as a chin that goes up and down
several times a second, mouth and chin say nothing, and only brows and nose wings are looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d, median_filter
from scipy.signal import find_peaks

from vlfer.errors import ShapeError
from vlfer.micro.flow import FlowEngine, build_flow, rigid_motion
from vlfer.micro.regions import EYES, REGIONS, region_slices
from vlfer.micro.registration import face_width_px
from vlfer.types import FloatArray, TimeArray, UInt8Array

Kind = Literal["micro", "macro"]

MICRO_LONGEST_S = 0.5
SIDE_PX = 112
_CHIN = list(REGIONS).index("chin")
_OF_SPEECH = [i for i, name in enumerate(REGIONS) if "mouth" in name or name == "chin"]


@dataclass(frozen=True, slots=True)
class SpotSettings:
    """When a movement is an expression.

    Attributes:
        floor: Least excursion, as a fraction of the face's width.
        noise_times: Least excursion in standard deviations of the clip's own noise.
        shortest_s: Shorter excursions are noise.
        longest_s: Longer ones are posture or speech.
        baseline_s: Window of the running median that is taken for rest.
        edge: Share of the peak at which an expression starts and ends.
        micro_most: Micro-expressions are small: what is short and larger than this fraction of the face's width is a
            head that tilts or a hand that passes.
        head_times: An excursion smaller than the head's movement divided by this is not believed.
        syllable_s: Speech opens the mouth again within this time,
        syllables: so many times in a row.
        silence_s: Speech starts and ends this much before the first and after the last time.
    """

    floor: float = 0.002
    noise_times: float = 8.0
    shortest_s: float = 0.08
    longest_s: float = 4.0
    baseline_s: float = 9.0
    edge: float = 0.2
    micro_most: float = 0.03
    head_times: float = 20.0
    syllable_s: float = 0.6
    syllables: int = 3
    silence_s: float = 0.5


@dataclass(frozen=True, slots=True)
class Interval:
    """One expression.

    Attributes:
        onset_s: Its start in seconds.
        apex_s: When it is strongest.
        offset_s: Its end.
        kind: "micro" up to half a second, else "macro".
        region: Where it is strongest.
        strength: Excursion at the apex, as a fraction of the face's width.
    """

    onset_s: float
    apex_s: float
    offset_s: float
    kind: Kind
    region: str
    strength: float


@dataclass(frozen=True, slots=True)
class Trace:
    """How the regions moved.

    Attributes:
        times_s: (T,) float64.
        places: (T, R, 2) float32, displacement of each of the R `REGIONS` against the nose, in face widths.
        lids: (T,) float32, mean displacement of both eye regions.
        head: (T, 2) float32, displacement of the nose.
    """

    times_s: TimeArray
    places: FloatArray
    lids: FloatArray
    head: FloatArray


class MotionTracer:
    """Follow the regions of a face frame by frame; keeps some numbers of each frame and no pixels but the anchor's.

    Args:
        engine: Flow method; Farneback without it.
        anchor_s: How long one frame serves as the anchor.
    """

    def __init__(self, *, engine: FlowEngine | None = None, anchor_s: float = 0.5) -> None:
        self._compute = engine or build_flow("farneback")
        self._anchor_s = anchor_s
        self._times: list[float] = []
        self._rows: list[NDArray[Any]] = []
        self._base = np.zeros((len(REGIONS) + 3, 2))
        self._anchor: UInt8Array | None = None
        self._anchor_time = 0.0

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, time_s: float, face: UInt8Array) -> None:
        """Take the next frame: an (S, S) or (S, S, 3) uint8 face in the reference frame."""
        grey = _small_grey(face)
        row = self._base
        if self._anchor is None:
            self._anchor, self._anchor_time = grey, time_s
        else:
            row = self._base + _displacements(self._compute(self._anchor, grey))
        self._times.append(time_s)
        self._rows.append(row)
        if time_s - self._anchor_time >= self._anchor_s:
            self._anchor, self._anchor_time, self._base = grey, time_s, row

    def trace(self) -> Trace:
        """Return what was followed so far.

        Raises:
            ShapeError: If there are fewer than three frames.
        """
        if len(self._rows) < 3:
            raise ShapeError(
                f"The video has {len(self._rows)} frames with a face.", why="Three are needed to see a movement."
            )
        table = np.stack(self._rows).astype(np.float32)
        lids = np.linalg.norm(table[:, -3:-1], axis=2).mean(axis=1)
        return Trace(np.array(self._times), table[:, :-3], np.asarray(lids, dtype=np.float32), table[:, -1])


def trace_motion(faces: Iterable[tuple[float, UInt8Array]], *, engine: FlowEngine | None = None) -> Trace:
    """Follow the regions through a stream of faces, all under one transform; see `MotionTracer`.

    Args:
        faces: Pairs of time in seconds and an (S, S) or (S, S, 3) uint8 face in the reference frame.
        engine: Flow method; Farneback without it.

    Raises:
        ShapeError: If there are fewer than three frames.
    """
    tracer = MotionTracer(engine=engine)
    for time_s, face in faces:
        tracer.add(time_s, face)
    return tracer.trace()


def spot(trace: Trace, *, settings: SpotSettings | None = None) -> tuple[Interval, ...]:
    """Return the expressions of a trace, in order of time."""
    how = settings or SpotSettings()
    frame_s = float(np.median(np.diff(trace.times_s)))
    window = max(3, round(how.baseline_s / frame_s)) | 1
    size = (min(window, len(trace.times_s) | 1), 1, 1)
    rest = median_filter(trace.places, size=size, mode="nearest")
    smooth = gaussian_filter1d(trace.places - rest, max(0.5, 0.03 / frame_s), axis=0)
    excursion = np.linalg.norm(smooth, axis=2)
    noise = 1.48 * np.median(np.abs(excursion - np.median(excursion, axis=0)), axis=0)
    least = np.maximum(how.floor, np.median(excursion, axis=0) + how.noise_times * noise)
    excursion[np.flatnonzero(talking(trace, settings=how))[:, None], _OF_SPEECH] = 0.0
    share = (excursion / least).max(axis=1)
    found = []
    for first, last in _runs(share > 1):
        apex = first + int(share[first : last + 1].argmax())
        region = int((excursion[apex] / least).argmax())
        curve = excursion[:, region]
        start, end = _edges(curve, apex, how.edge)
        interval = _interval(trace, curve, region, start, apex, end)
        if _is_expression(trace, interval, curve, (start, apex, end), how):
            found.append(interval)
    return _without_overlap(found)


def talking(trace: Trace, *, settings: SpotSettings | None = None) -> NDArray[np.bool_]:
    """Return in which frames the face talks, (T,) bool: the chin goes down again and again, faster than expressions do.

    Laughter and chewing look the same.
    """
    how = settings or SpotSettings()
    frame_s = float(np.median(np.diff(trace.times_s)))
    chin = gaussian_filter1d(trace.places[:, _CHIN, 1].astype(np.float64), max(0.5, 0.03 / frame_s))
    down = trace.times_s[find_peaks(chin, prominence=how.floor)[0]]
    out = np.zeros(len(trace.times_s), dtype=bool)
    for first, last in _runs(np.diff(down) <= how.syllable_s):
        if last - first + 2 >= how.syllables:
            out |= np.abs(trace.times_s - (down[first] + down[last + 1]) / 2) <= (
                (down[last + 1] - down[first]) / 2 + how.silence_s
            )
    return out


def _small_grey(face: UInt8Array) -> UInt8Array:
    grey = face if face.ndim == 2 else cv2.cvtColor(face, cv2.COLOR_RGB2GRAY)
    if grey.shape != (SIDE_PX, SIDE_PX):
        grey = cv2.resize(grey, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA)
    return np.asarray(grey, dtype=np.uint8)


def _displacements(flow: FloatArray) -> NDArray[Any]:
    """Return means over regions and eyes against the nose, and of the nose, (R + 3, 2), in face widths."""
    head = rigid_motion(flow)
    boxes = (*REGIONS.values(), *EYES.values())
    means = [flow[region_slices(box, side=SIDE_PX)].mean(axis=(0, 1)) - head for box in boxes]
    return np.stack([*means, head]) / face_width_px(SIDE_PX)


def _runs(mask: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    for first, behind in edges.reshape(-1, 2):
        yield int(first), int(behind) - 1


def _edges(curve: NDArray[Any], apex: int, share: float) -> tuple[int, int]:
    low = curve < share * curve[apex]
    before, after = np.flatnonzero(low[:apex]), np.flatnonzero(low[apex:])
    start = int(before[-1]) if len(before) else 0
    return start, apex + int(after[0]) if len(after) else len(curve) - 1


def _interval(trace: Trace, curve: NDArray[Any], region: int, start: int, apex: int, end: int) -> Interval:
    onset, top, offset = (float(trace.times_s[i]) for i in (start, apex, end))
    kind: Kind = "micro" if offset - onset <= MICRO_LONGEST_S else "macro"
    return Interval(onset, top, offset, kind, tuple(REGIONS)[region], float(curve[apex]))


def _is_expression(
    trace: Trace, interval: Interval, curve: NDArray[Any], place: tuple[int, int, int], how: SpotSettings
) -> bool:
    start, apex, end = place
    lasts = interval.offset_s - interval.onset_s
    if not how.shortest_s <= lasts <= how.longest_s:
        return False
    if interval.kind == "micro" and interval.strength > how.micro_most:
        return False
    around = slice(max(0, start - 1), end + 2)
    lids = trace.lids[around]
    is_blink = "brow" in interval.region and float(np.ptp(lids)) > 1.5 * float(curve[apex])
    head = float(np.linalg.norm(np.ptp(trace.head[around], axis=0)))
    return not is_blink and head <= how.head_times * interval.strength


def _without_overlap(found: Sequence[Interval]) -> tuple[Interval, ...]:
    """Keep the stronger of two intervals that share time."""
    kept: list[Interval] = []
    for one in sorted(found, key=lambda interval: -interval.strength):
        if all(one.offset_s <= other.onset_s or one.onset_s >= other.offset_s for other in kept):
            kept.append(one)
    return tuple(sorted(kept, key=lambda interval: interval.onset_s))
