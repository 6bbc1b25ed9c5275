"""LBP-TOP with a linear support vector machine: the first baseline of the field, over frames rather than flow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from sklearn.svm import LinearSVC

from vlfer.errors import DataError
from vlfer.micro.face_samples import FaceSamples
from vlfer.micro.lbp_top import lbp_top
from vlfer.micro.samples import FlowClassifier
from vlfer.types import FloatArray, UInt8Array

_FEWEST = 5


@dataclass(frozen=True, slots=True)
class LbpTopLearner:
    """LBP-TOP of the whole clip, onset to offset, and a linear support vector machine, one class against the others.

    Attributes:
        name: Name in reports.
        blocks: Blocks a side.
        radius_px: Radius in the picture.
        radius_frames: Radius in time.
        c: Penalty.
    """

    name: str = "lbp-top"
    blocks: int = 5
    radius_px: float = 1.0
    radius_frames: float = 2.0
    c: float = 1.0

    @property
    def settings(self) -> Mapping[str, Any]:
        """See `Learner.settings`."""
        return asdict(self)

    def fit(self, samples: FaceSamples, *, seed: int) -> Iterator[FlowClassifier]:
        """Train once. See `Learner.fit`.

        Raises:
            DataError: If the archive holds no frames between onset and offset.
            ShapeError: If there are too few frames for the radius in time.
        """
        present = np.unique(samples.label)
        n_classes = len(samples.classes)
        x = self._features(samples.faces)
        if len(present) < 2:
            yield lambda faces: np.eye(n_classes, dtype=np.float32)[np.repeat(present, len(faces))]
            return
        machine = LinearSVC(C=self.c, class_weight="balanced", random_state=seed, max_iter=5000).fit(x, samples.label)

        def classify(faces: UInt8Array) -> FloatArray:
            decision = np.asarray(machine.decision_function(self._features(faces)), np.float64)
            if len(present) == 2:
                decision = np.stack([-decision, decision], axis=1)
            full = np.full((len(faces), n_classes), -np.inf)
            full[:, present] = decision - decision.max(axis=1, keepdims=True)
            weight = np.exp(full)
            return np.asarray(weight / weight.sum(axis=1, keepdims=True), dtype=np.float32)

        yield classify

    def _features(self, faces: UInt8Array) -> FloatArray:
        frames = faces[:, 2:]
        if frames.shape[1] < _FEWEST:
            raise DataError(
                f"The archive holds {frames.shape[1]} frames of each clip.",
                why="LBP-TOP describes how grey values change over time.", fix="vlfer mie faces ... --frames 10",
            )  # fmt: skip
        grey = (frames @ np.array([0.299, 0.587, 0.114], np.float32)).round().astype(np.uint8)
        return np.stack([
            lbp_top(clip, blocks=self.blocks, radius_px=self.radius_px, radius_frames=self.radius_frames)
            for clip in grey
        ])  # fmt: skip
