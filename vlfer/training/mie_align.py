"""Train the flow encoder against text: real clips by their labels and units, made motions by the units that made them.

Loss: each flow is to be near all sentences that are true of it and far from the others of the bank, a softmax over
sentences with the target spread evenly over the true ones (many positives, as Khosla et al., NeurIPS 2020). Real clips
are few and know few words; made motions know every unit. Half of each batch is made.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlfer.errors import DataError
from vlfer.micro.canonical import Input, flow_input
from vlfer.micro.flow import optical_strain
from vlfer.micro.samples import SIDE, FlowSamples
from vlfer.micro.synthetic import units_field
from vlfer.micro.words import EMOTION_BY_UNITS, EMOTION_SENTENCES, UNIT_SENTENCES
from vlfer.models.flow_encoder import FlowEncoder
from vlfer.training.mie_augment import Augmentation, augment
from vlfer.types import Embedding, UInt8Array

_log = logging.getLogger(__name__)


class SentenceBank(Protocol):
    """What encodes sentences."""

    def encode(self, sentences: Sequence[str]) -> Embedding:
        """Encode N sentences into N unit vectors."""
        ...


@dataclass(frozen=True, slots=True)
class AlignSettings:
    """How the flow encoder is trained.

    Attributes:
        epochs: Passes over the real clips.
        batch: Real clips a step; as many made ones join them.
        rate: Peak learning rate.
        decay: Weight decay.
        temperature: Of the softmax over sentences.
        input: How flow images are read.
        width: Filters of the first layer.
        seed: Of everything random.
    """

    epochs: int = 60
    batch: int = 48
    rate: float = 3e-3
    decay: float = 0.05
    temperature: float = 0.07
    input: Input = "canonical"
    width: int = 24
    seed: int = 0


def truths_of(emotion: str, units: Sequence[str]) -> tuple[str, ...]:
    """Return the sentences that are true of a clip with this emotion ("" for unknown) and these action units."""
    words = EMOTION_SENTENCES.get(emotion, ())
    return tuple(dict.fromkeys([*words, *(sentence for unit in units for sentence in UNIT_SENTENCES[unit])]))


def made_motion(rng: np.random.Generator) -> tuple[UInt8Array, tuple[str, ...]]:
    """Make one published flow image of random units, (28, 28, 3) uint8, and the sentences that are true of it."""
    emotions = list(EMOTION_BY_UNITS)
    if rng.random() < 0.6:
        emotion = emotions[rng.integers(len(emotions))]
        units = EMOTION_BY_UNITS[emotion][rng.integers(len(EMOTION_BY_UNITS[emotion]))]
    else:
        emotion, units = "", tuple(rng.choice(list(UNIT_SENTENCES), size=rng.integers(1, 3), replace=False))
    flow: NDArray[Any] = sum(
        (units_field([unit], side=SIDE, amplitude_px=float(rng.uniform(0.5, 1.2))) for unit in units),
        np.zeros((SIDE, SIDE, 2), np.float32),
    )
    half = rng.random()
    if half < 0.3:  # many micro-expressions show on one side of the face only
        ramp = 1 / (1 + np.exp(np.linspace(-8, 8, SIDE, dtype=np.float32)))
        flow = flow * (ramp if half < 0.15 else ramp[::-1])[None, :, None]
    shift, turn = rng.normal(0, 0.15, 2), rng.normal(0, 0.3, (2, 2))
    y, x = np.mgrid[0:SIDE, 0:SIDE] / (SIDE - 1) - 0.5
    flow = flow + shift + np.stack([x, y], axis=-1) @ turn
    flow = flow + 0.25 * cv2.GaussianBlur(rng.normal(size=(SIDE, SIDE, 2)), (0, 0), 1.5)
    stack = np.concatenate([flow, optical_strain(flow.astype(np.float32))[..., None]], axis=-1)
    low, high = stack.min(axis=(0, 1)), stack.max(axis=(0, 1))
    return np.round((stack - low) / (high - low) * 255).astype(np.uint8), truths_of(emotion, units)


def train_flow_encoder(
    samples: FlowSamples,
    truths: Sequence[tuple[str, ...]],
    *,
    bank: SentenceBank,
    settings: AlignSettings,
    progress: Callable[[int, int, float], None] | None = None,
) -> FlowEncoder:
    """Train a flow encoder by a fixed schedule.

    Args:
        samples: N clips.
        truths: For each clip the sentences that are true of it; at least one.
        bank: The text tower.
        settings: How.
        progress: Told the epoch, their number and the loss.

    Raises:
        DataError: If a clip has no sentence, or the loss is no longer finite.
    """
    if len(truths) != len(samples) or not all(truths):
        raise DataError(f"{len(truths)} truths for {len(samples)} clips, or an empty one.", why="Each needs words.")
    rng = np.random.default_rng(settings.seed)
    made = [made_motion(rng) for _ in range(max(256, 4 * len(samples)))]
    every = [*truths, *(true for _, true in made)]
    sentences = tuple(dict.fromkeys(sentence for true in every for sentence in true))
    place = {sentence: i for i, sentence in enumerate(sentences)}
    words = bank.encode(sentences)
    target = torch.zeros(len(every), len(sentences))
    for row, true in enumerate(every):
        target[row, [place[sentence] for sentence in true]] = 1 / len(true)
    images = np.concatenate([samples.flow, np.stack([image for image, _ in made])])
    flow = torch.from_numpy(np.ascontiguousarray(flow_input(images, kind=settings.input).transpose(0, 3, 1, 2)))
    encoder = _fit(flow, target, torch.from_numpy(words.vectors), n_real=len(samples), settings=settings, tell=progress)
    return encoder.eval()


def _fit(
    flow: Tensor,
    target: Tensor,
    words: Tensor,
    *,
    n_real: int,
    settings: AlignSettings,
    tell: Callable[[int, int, float], None] | None,
) -> FlowEncoder:
    generator = torch.Generator().manual_seed(settings.seed)
    steps = math.ceil(n_real / settings.batch)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        encoder = FlowEncoder(words.shape[1], width=settings.width)
        optimizer = torch.optim.AdamW(encoder.parameters(), lr=settings.rate, weight_decay=settings.decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=settings.rate, total_steps=settings.epochs * steps, pct_start=0.15
        )
        how = Augmentation(mixup=0.0)
        for epoch in range(settings.epochs):
            encoder.train()
            total = 0.0
            for rows in torch.randperm(n_real, generator=generator).split(settings.batch):
                extra = n_real + torch.randint(len(flow) - n_real, (len(rows),), generator=generator)
                both = torch.cat([rows, extra])
                x, y = augment(flow[both], target[both], how, generator=generator)
                loss = -(y * (encoder(x) @ words.T / settings.temperature).log_softmax(dim=1)).sum(dim=1).mean()
                if not bool(torch.isfinite(loss)):
                    raise DataError(f"The loss became {float(loss.detach())} in epoch {epoch + 1}.", fix="a lower rate")
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                schedule.step()
                total += float(loss.detach())
            if tell:
                tell(epoch + 1, settings.epochs, total / steps)
    return encoder
