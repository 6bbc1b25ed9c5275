"""Fine-tuning of MIACNet on onset and apex, as a learner for the leave-one-subject-out harness.

As Li, Zhao et al. (arXiv 2405.16451) do it: one linear layer on the condition vector, zero at first, all parameters
learn; AdamW, 80 epochs, random crop, mirror and rotation. They may have chosen an epoch; here it is the last. The rate
falls along a cosine, and classes weigh by the inverse square root of their number, which the paper does not state.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vlfer.errors import DataError
from vlfer.micro.face_samples import FaceSamples
from vlfer.micro.samples import FlowClassifier
from vlfer.models.miacnet import MiacClassifier, Miacnet, MiacSettings
from vlfer.training.mie import class_weights, demand_finite
from vlfer.training.mie_position import moved, random_movement
from vlfer.training.mie_pretrain import load_miacnet
from vlfer.training.mie_videos import to_unit
from vlfer.types import FloatArray, UInt8Array

_AT_ONCE = 128


@dataclass(frozen=True, slots=True)
class MiacLearner:
    """MIACNet from a pre-training run, or from scratch.

    Attributes:
        name: Name in reports.
        start: Folder of ``vlfer mie pretrain``; empty starts from scratch.
        net: Sizes from scratch; a pre-trained network has its own.
        epochs: Passes over the samples.
        batch: Samples a step.
        rate: First learning rate.
        decay: Weight decay.
        turn_deg: Largest random rotation.
        shift: Largest random shift as a share of the side: a crop at a random place.
    """

    name: str = "miacnet"
    start: str = ""
    net: MiacSettings = field(default_factory=MiacSettings)
    epochs: int = 80
    batch: int = 16
    rate: float = 4e-4
    decay: float = 0.1
    turn_deg: float = 8.0
    shift: float = 0.05

    @property
    def settings(self) -> Mapping[str, Any]:
        """See `Learner.settings`; a start counts by its weights, not by its place."""
        weights = load_miacnet(self.start)[1]["weights_sha256"] if self.start else ""
        return {**asdict(self), "start": weights}

    def fit(self, samples: FaceSamples, *, seed: int) -> Iterator[FlowClassifier]:
        """Train and yield after each epoch. See `Learner.fit`.

        Raises:
            DataError: If faces are smaller than the network's, or the loss is no longer finite.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = load_miacnet(self.start)[0] if self.start else Miacnet(self.net)
            model = MiacClassifier(net, len(samples.classes))
        onset, apex = frames_for(samples.faces, net.settings.side)
        label = torch.from_numpy(samples.label)
        weights = torch.from_numpy(class_weights(samples.label, n_classes=len(samples.classes), weighting="sqrt"))
        optimizer = torch.optim.AdamW(model.parameters(), lr=self.rate, weight_decay=self.decay)
        steps = self.epochs * math.ceil(len(label) / self.batch)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        generator = torch.Generator().manual_seed(seed)
        for epoch in range(self.epochs):
            model.train()
            for rows in torch.randperm(len(label), generator=generator).split(self.batch):
                if len(rows) > 1:  # batch norm needs two
                    loss = torch.nn.functional.cross_entropy(
                        model(*self._changed(onset[rows], apex[rows], generator)), label[rows], weight=weights
                    )
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward()
                    optimizer.step()
                schedule.step()
            demand_finite(loss, name=self.name, epoch=epoch + 1)
            yield MiacAnswers(model)

    def _changed(self, onset: Tensor, apex: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        both = torch.cat([onset, apex], dim=1)
        flip = (torch.rand(len(both), generator=generator) < 0.5)[:, None, None, None]
        theta = random_movement(len(both), generator=generator, turn_deg=self.turn_deg, shift=self.shift)
        both = moved(torch.where(flip, both.flip(3), both), theta)
        return both[:, :3], both[:, 3:]


class MiacAnswers:
    """Answers with the model as it stands when asked; the mean over a pair and its mirror image."""

    def __init__(self, model: MiacClassifier) -> None:
        self._model = model

    @torch.inference_mode()
    def __call__(self, faces: UInt8Array) -> FloatArray:
        """Return probabilities (N, C) of faces (N, 2 + T, S, S, 3)."""
        self._model.eval()
        onset, apex = frames_for(faces, self._model.net.settings.side)
        parts = []
        for start in range(0, len(faces), _AT_ONCE):
            one, two = onset[start : start + _AT_ONCE], apex[start : start + _AT_ONCE]
            parts.append((self._model(one, two).softmax(1) + self._model(one.flip(3), two.flip(3)).softmax(1)) / 2)
        answer = torch.cat(parts) if parts else torch.zeros(0, self._model.head.out_features)
        return np.asarray(answer.numpy(), dtype=np.float32)


def frames_for(faces: UInt8Array, side: int) -> tuple[Tensor, Tensor]:
    """Return onset and apex, (N, 3, side, side) in -1..1 twice, of faces (N, 2 + T, S, S, 3).

    Raises:
        DataError: If the faces are smaller than the side.
    """
    if faces.shape[2] < side:
        raise DataError(
            f"The faces have {faces.shape[2]} px, the network reads {side} px.", why="Magnified faces show no more.",
            fix=f"vlfer mie faces ... --side {side}",
        )  # fmt: skip
    both = [torch.from_numpy(to_unit(faces[:, i])) for i in (0, 1)]
    if faces.shape[2] != side:
        both = [torch.nn.functional.interpolate(x, (side, side), mode="area") for x in both]
    return both[0], both[1]
