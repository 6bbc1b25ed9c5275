"""Long videos with expressions of known place and time: one real face, pushed about, that blinks and drifts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vlfer.micro.synthetic import Push, field, units_field, warp
from vlfer.types import FloatArray, UInt8Array

EXPRESSION_UNITS: tuple[tuple[str, ...], ...] = (
    ("AU1", "AU2"), ("AU4",), ("AU9",), ("AU12",), ("AU15",), ("AU14",), ("AU17",),
)  # fmt: skip
"""The motions that made expressions consist of."""

_SYLLABLES: tuple[tuple[str, ...], ...] = (("AU26",), ("AU25",), ("AU25", "AU26"), ("AU26", "AU20"), ("AU25", "AU23"))

_BLINK = (Push(0.26, 0.30, 0.0, 1.0, 0.035), Push(0.74, 0.30, 0.0, 1.0, 0.035))


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happens in a made video.

    Attributes:
        onset_s: Start.
        apex_s: When it is strongest.
        offset_s: End.
        kind: "micro" or "macro" for an expression, "blink" or "speech" (one syllable) for a distractor.
        units: Action units of an expression or a syllable.
        amplitude: Peak displacement as a fraction of the side.
    """

    onset_s: float
    apex_s: float
    offset_s: float
    kind: Literal["micro", "macro", "blink", "speech"]
    units: tuple[str, ...]
    amplitude: float

    def level(self, time_s: float) -> float:
        """Return how much of the peak shows at a time, 0 to 1: a smooth rise, a smooth fall."""
        if not self.onset_s < time_s < self.offset_s:
            return 0.0
        rise = time_s <= self.apex_s
        share = (
            (time_s - self.onset_s) / (self.apex_s - self.onset_s)
            if rise
            else (self.offset_s - time_s) / (self.offset_s - self.apex_s)
        )
        return float(0.5 - 0.5 * np.cos(np.pi * share))


def plan_events(*, duration_s: float, seed: int, blinks: bool = True, speech: bool = False) -> tuple[Event, ...]:
    """Draw expressions, a quarter to a half of a second or longer, far enough apart to be told apart, and distractors.

    Args:
        duration_s: Length of the video.
        seed: Of everything drawn; expressions and blinks are the same with and without speech.
        blinks: Lids fall every two to five seconds.
        speech: In a quarter of the time, wherever it falls, the face talks: three to six syllables a second.
    """
    rng = np.random.default_rng(seed)
    events: list[Event] = []
    now = float(rng.uniform(1.0, 2.0))
    while now < duration_s - 4.5:
        kind: Literal["micro", "macro"] = "micro" if rng.random() < 0.5 else "macro"
        lasts = float(rng.uniform(0.25, 0.45) if kind == "micro" else rng.uniform(0.8, 2.5))
        amplitude = float(rng.uniform(0.006, 0.012) if kind == "micro" else rng.uniform(0.012, 0.03))
        units = EXPRESSION_UNITS[int(rng.integers(len(EXPRESSION_UNITS)))]
        events.append(Event(now, now + lasts * float(rng.uniform(0.4, 0.6)), now + lasts, kind, units, amplitude))
        now += lasts + float(rng.uniform(2.0, 4.0))
    if blinks:
        now = float(rng.uniform(0.5, 2.0))
        while now < duration_s - 1:
            events.append(Event(now, now + 0.12, now + 0.3, "blink", (), 0.05))
            now += float(rng.uniform(2.0, 5.0))
    if speech:
        events += _talk(duration_s, np.random.default_rng([seed, 1]))
    return tuple(sorted(events, key=lambda event: event.onset_s))


def _talk(duration_s: float, rng: np.random.Generator) -> list[Event]:
    syllables: list[Event] = []
    now = float(rng.uniform(0.5, 5.0))
    while now < duration_s - 1:
        end = min(now + float(rng.uniform(1.5, 4.0)), duration_s - 0.5)
        while now < end:
            lasts, units = float(rng.uniform(0.16, 0.34)), _SYLLABLES[int(rng.integers(len(_SYLLABLES)))]
            amplitude = float(rng.uniform(0.01, 0.035))
            events = (now, now + lasts * float(rng.uniform(0.35, 0.65)), now + lasts)
            syllables.append(Event(*events, "speech", units, amplitude))
            now += lasts + (float(rng.uniform(0.1, 0.3)) if rng.random() < 0.15 else 0.0)
        now += float(rng.uniform(5.0, 11.0))
    return syllables


def render_video(
    face: UInt8Array,
    events: tuple[Event, ...],
    *,
    duration_s: float,
    fps: float,
    seed: int,
    drift: float = 0.02,
    noise: float = 1.0,
) -> Iterator[tuple[float, UInt8Array]]:
    """Yield time and frame of a made video.

    Args:
        face: (S, S) or (S, S, 3) uint8 at rest, in the reference frame.
        events: What happens.
        duration_s: Length.
        fps: Frames a second.
        seed: Of the head's path and the noise.
        drift: How far the head wanders, as a fraction of the side.
        noise: Standard deviation of sensor noise in grey levels.

    Yields:
        (time in seconds, an image like ``face``).
    """
    rng = np.random.default_rng(seed)
    side = face.shape[0]
    full: list[FloatArray] = [_full_field(event, side) for event in events]
    period, phase = rng.uniform(3, 9, 2), rng.uniform(0, 2 * np.pi, 2)
    for index in range(round(duration_s * fps)):
        time_s = index / fps
        path = drift * side * np.sin(2 * np.pi * time_s / period + phase)
        shift = np.zeros((side, side, 2), dtype=np.float32) + path.astype(np.float32)
        for event, pushed in zip(events, full, strict=True):
            level = event.level(time_s)
            if level:
                shift += np.float32(level) * pushed
        moved = warp(face, shift)
        yield time_s, np.clip(np.rint(moved + rng.normal(0, noise, moved.shape)), 0, 255).astype(np.uint8)


def _full_field(event: Event, side: int) -> FloatArray:
    if event.kind == "blink":
        return field(_BLINK, side=side, amplitude_px=event.amplitude * side)
    return units_field(event.units, side=side, amplitude_px=event.amplitude * side)
