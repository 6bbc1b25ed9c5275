"""Which frames to look at: pure functions from a number of frames, or their times, to indices."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vlfer.errors import ConfigError
from vlfer.types import IntArray, TimeArray

ShortClip = Literal["last", "first"]


def _need(name: str, value: float, *, least: float) -> None:
    if not value >= least:
        raise ConfigError(f"{name} is {value}.", why=f"Expected at least {least:g}.")


def every_kth(n_frames: int, *, k: int, start: int = 0) -> IntArray:
    """Return every ``k``-th index from ``start`` on, (T,) int64.

    Raises:
        ConfigError: If ``n_frames`` or ``start`` is negative or ``k`` less than 1.
    """
    _need("n_frames", n_frames, least=0)
    _need("k", k, least=1)
    _need("start", start, least=0)
    return np.arange(start, n_frames, k, dtype=np.int64)


def at_fps(times_s: TimeArray, *, fps: float) -> IntArray:
    """Return the frame nearest to each tick of a clock of ``fps``, from the first frame's time to the last's.

    Works on variable frame rate. Where the source is slower than the clock, a frame is returned more than once, so
    that the result is evenly spaced in time.

    Args:
        times_s: (N,) float64 seconds, increasing.
        fps: Ticks per second.

    Returns:
        (T,) int64, not decreasing; empty for no frame.

    Raises:
        ConfigError: If ``fps`` is not a positive number or the times do not increase.
    """
    if not (np.isfinite(fps) and fps > 0):
        raise ConfigError(f"fps is {fps}.", why="Expected a positive number.")
    if len(times_s) == 0:
        return np.zeros(0, dtype=np.int64)
    if not bool((np.diff(times_s) > 0).all()):
        raise ConfigError("Frame times do not increase.", why="Ticks are looked up among increasing times.")
    # The tiny extra keeps the last frame when rounding puts its tick just behind it.
    count = int(np.floor((times_s[-1] - times_s[0]) * fps + 1e-6)) + 1
    ticks = times_s[0] + np.arange(count) / fps
    after = np.clip(np.searchsorted(times_s, ticks), 1, max(1, len(times_s) - 1))
    if len(times_s) == 1:
        return np.zeros(count, dtype=np.int64)
    nearer_before = ticks - times_s[after - 1] <= times_s[after] - ticks
    return np.asarray(after - nearer_before, dtype=np.int64)


def uniform(n_frames: int, *, count: int) -> IntArray:
    """Return ``count`` indices evenly spread over the clip, first and last frame included.

    Returns:
        (count,) int64, not decreasing; a clip shorter than ``count`` repeats frames. One frame is the middle one.

    Raises:
        ConfigError: If ``n_frames`` or ``count`` is less than 1.
    """
    return np.asarray(np.rint(tim_positions(n_frames, count=count)), dtype=np.int64)


def dfer_clip_ticks(n_frames: int, *, count: int = 16, short: ShortClip = "last") -> IntArray:
    """Return the test frames of the published video results: index i is ``int(tick / 2 + tick * i)``, tick N / count.

    The sampling of TSN (Wang et al., 2016), used by DFER-CLIP (Zhao and Patras, 2023) and Exp-CLIP (Zhao et al., 2024).

    Args:
        n_frames: Length N of the clip.
        count: Frames to return.
        short: What a clip of fewer than ``count`` frames becomes: "last" is all of it, then its last frame repeated
            (DFER-CLIP); "first" is its first frame ``count`` times (Exp-CLIP).

    Returns:
        (count,) int64, not decreasing.

    Raises:
        ConfigError: If ``n_frames`` or ``count`` is less than 1, or ``short`` is unknown.
    """
    _need("n_frames", n_frames, least=1)
    _need("count", count, least=1)
    if short not in ("last", "first"):
        raise ConfigError(f"short is {short!r}.", why='Expected "last" or "first".')
    numbers = np.arange(count)
    if n_frames < count:
        chosen = np.minimum(numbers, n_frames - 1) if short == "last" else np.zeros(count)
        return np.asarray(chosen, dtype=np.int64)
    tick = n_frames / count
    return np.asarray(np.floor(tick / 2 + tick * numbers), dtype=np.int64)


def segments_random(n_frames: int, *, segments: int, per_segment: int = 1, seed: int) -> IntArray:
    """Return ``per_segment`` random frames of each of ``segments`` equal parts, in order (training, DFER-CLIP).

    Args:
        n_frames: Length of the clip.
        segments: Number of parts U.
        per_segment: Frames V per part, without repetition where the part is long enough.
        seed: The same seed gives the same frames.

    Returns:
        (U * V,) int64, not decreasing.

    Raises:
        ConfigError: If a number is less than 1 or ``seed`` is negative.
    """
    _need("n_frames", n_frames, least=1)
    _need("segments", segments, least=1)
    _need("per_segment", per_segment, least=1)
    _need("seed", seed, least=0)
    generator = np.random.default_rng(seed)
    chosen = []
    for part in range(segments):
        first = part * n_frames // segments
        behind = max(first + 1, (part + 1) * n_frames // segments)
        repeat = behind - first < per_segment
        chosen.append(np.sort(generator.choice(np.arange(first, behind), size=per_segment, replace=repeat)))
    return np.asarray(np.concatenate(chosen), dtype=np.int64)


def tim_positions(n_frames: int, *, count: int) -> NDArray[np.float64]:
    """Return ``count`` positions between frames for resampling a clip to a fixed length by linear interpolation.

    The temporal interpolation of micro-expression work (TIM, Pfister et al., 2011) with a straight line between
    neighbouring frames in place of its path-graph embedding.

    Returns:
        (count,) float64 from 0 to ``n_frames - 1``, evenly spaced; the middle for ``count`` 1.

    Raises:
        ConfigError: If ``n_frames`` or ``count`` is less than 1.
    """
    _need("n_frames", n_frames, least=1)
    _need("count", count, least=1)
    if count == 1:
        return np.array([(n_frames - 1) / 2])
    return np.linspace(0.0, n_frames - 1, count)


def where_it_changes(change: NDArray[np.float32], *, count: int, evenness: float = 0.3) -> IntArray:
    """Return ``count`` indices, more of them where the face changes: equal shares of the change lie between them.

    The idea of Freq-HD (Tao et al., 2023), which looks for the clip with the most high-frequency change, and of
    adaptive frame rates for expressions (Savchenko, 2023), in its simplest form: positions are quantiles of the
    cumulated change.

    Args:
        change: (N,) float32, how much each frame differs from the one before, such as the distance of their vectors;
            the first value has no meaning.
        count: Frames to return.
        evenness: Share of the frames that is spread evenly over time, so that a still stretch is not left out; 1 is
            `dfer_clip_ticks`, up to rounding.

    Returns:
        (count,) int64, not decreasing; a clip shorter than ``count`` repeats frames.

    Raises:
        ConfigError: If there is no frame, ``count`` is less than 1, ``evenness`` is outside 0..1, or a change is
            negative or not finite.
    """
    _need("n_frames", len(change), least=1)
    _need("count", count, least=1)
    if not 0.0 <= evenness <= 1.0:
        raise ConfigError(f"evenness is {evenness}.", why="It is a share.", fix="0.3")
    steps = np.asarray(change, dtype=np.float64).copy()
    steps[0] = 0.0
    if not bool(np.isfinite(steps).all()) or bool((steps < 0).any()):
        raise ConfigError("The change of a frame is negative or not finite.", why="It is a distance.")
    total = steps.sum()
    density = np.full(len(steps), 1.0 / len(steps))
    if total > 0:
        density = evenness * density + (1 - evenness) * steps / total
    reached = np.cumsum(density)
    wanted = (np.arange(count) + 0.5) / count * reached[-1]
    return np.asarray(np.minimum(np.searchsorted(reached, wanted, side="right"), len(steps) - 1), dtype=np.int64)
