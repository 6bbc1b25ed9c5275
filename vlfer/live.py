"""What the faces of a live source show now: one frame in, smoothed scores out."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from vlfer.clips import ClipTools
from vlfer.errors import ConfigError
from vlfer.faces.appearance import appearance
from vlfer.faces.follow import FaceFollower
from vlfer.faces.track import FaceLinker
from vlfer.models.threads import sharing_cores
from vlfer.scoring import decide
from vlfer.types import Embedding, FloatArray, UInt8Array

DEFAULT_HALF_LIFE_S = 0.4
_FORGET_S = 30.0


@dataclass(frozen=True, slots=True)
class LiveFace:
    """One face of the present frame.

    Attributes:
        track_id: Which person, from 0.
        box: (4,) float32 xyxy px.
        label: None where it is unclear.
        probability: Of the best label.
        top: All labels with probabilities, best first.
        vector: (D,) float32, smoothed over time.
    """

    track_id: int
    box: FloatArray
    label: str | None
    probability: float
    top: tuple[tuple[str, float], ...]
    vector: FloatArray


class LiveWatcher:
    """Look at frame after frame; each person's vectors fade exponentially, so that the scores neither flicker nor lag.

    Args:
        tools: Of a pipeline, see `EmotionPipeline.clip_tools`.
        half_life_s: After this long a frame weighs half.

    Raises:
        ConfigError: If ``half_life_s`` is not positive.
    """

    def __init__(self, tools: ClipTools, *, half_life_s: float = DEFAULT_HALF_LIFE_S) -> None:
        if not half_life_s > 0:
            raise ConfigError(f"The half-life is {half_life_s} s.", why="Old frames fade with it.", fix="0.4")
        self._tools = tools
        self._half_life_s = half_life_s
        self._follower = FaceFollower(tools.find, follower=tools.follower, every_s=tools.config.detect_every_s)
        self._linker = FaceLinker(max_gap_frames=45, keep_faces=False)
        self._number = 0
        self._memory: dict[int, tuple[float, FloatArray, float]] = {}

    def look(self, pixels: UInt8Array, time_s: float) -> list[LiveFace]:
        """Return the faces of the next frame; ``time_s`` increases.

        Raises:
            VlferError: Whatever finding or scoring raises.
        """
        tools = self._tools
        found = self._follower.update(pixels, time_s)
        faces = found.faces
        looks = np.stack([appearance(pixels, face) for face in faces]) if faces else None
        ids = self._linker.update(faces, self._number, looks=looks, is_cut=found.is_cut)
        self._number += 1
        self._memory = {k: v for k, v in self._memory.items() if time_s - v[0] < _FORGET_S}
        if not faces:
            return []
        with sharing_cores():  # a thread reads the source meanwhile
            encoded = tools.encode(np.stack([tools.crop(pixels, face) for face in faces]))
        vectors = [self._faded(i, v, time_s) for i, v in zip(ids, encoded.vectors, strict=True)]
        scores = tools.score(Embedding(np.stack(vectors), encoded.space))
        config, names = tools.config, scores.labels.names
        decisions = decide(scores, threshold=config.threshold, tie_margin=config.tie_margin)
        shown = []
        for row, (face, track_id, (label, _)) in enumerate(zip(faces, ids, decisions, strict=True)):
            order = np.argsort(-scores.probability[row], kind="stable")
            top = tuple((names[i], float(scores.probability[row, i])) for i in order)
            shown.append(LiveFace(track_id, face.box, label, top[0][1], top, vectors[row]))
        return sorted(shown, key=lambda face: face.track_id)

    def _faded(self, track_id: int, vector: FloatArray, time_s: float) -> FloatArray:
        """Return the unit mean of a person's vectors, each half as heavy after a half-life."""
        last_s, total, weight = self._memory.get(track_id, (time_s, np.zeros_like(vector), 0.0))
        fade = 0.5 ** ((time_s - last_s) / self._half_life_s)
        total = np.asarray(fade * total + vector, dtype=np.float32)
        self._memory[track_id] = (time_s, total, fade * weight + 1.0)
        norm = float(np.linalg.norm(total))
        return vector if norm < 1e-6 else np.asarray(total / norm, dtype=np.float32)


@dataclass(slots=True)
class Pace:
    """How fast it goes: frames a second and latency over the last seconds, and over all.

    Attributes:
        latencies_s: From a frame in hand to its scores, all of them.
    """

    clock: Callable[[], float] = time.perf_counter
    latencies_s: list[float] = field(default_factory=list)
    _recent: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=60))

    def add(self, arrived_s: float) -> None:
        """Note that the frame that arrived then is done now."""
        now = self.clock()
        self.latencies_s.append(now - arrived_s)
        self._recent.append((now, now - arrived_s))

    @property
    def fps(self) -> float:
        """Frames a second of late; 0 before the second frame."""
        if len(self._recent) < 2:
            return 0.0
        return (len(self._recent) - 1) / max(self._recent[-1][0] - self._recent[0][0], 1e-9)

    @property
    def latency_s(self) -> float:
        """Median latency of late; 0 before the first frame."""
        return float(np.median([latency for _, latency in self._recent])) if self._recent else 0.0
