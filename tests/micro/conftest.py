"""Made flow samples: two classes of motion that can be told apart, several people, two data sets."""

from __future__ import annotations

import numpy as np
import pytest

from vlfer.micro.samples import SIDE, FlowSamples


def made_samples(*, people: int = 6, clips: int = 6, seed: int = 0, classes: int = 3) -> FlowSamples:
    """Clips in which brows rise, mouth corners move apart or brows lower; the same names in two data sets."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[0:SIDE, 0:SIDE] / (SIDE - 1)
    brow = np.exp(-(((rows - 0.2) / 0.1) ** 2))
    mouth = np.exp(-(((rows - 0.75) / 0.12) ** 2)) * (cols - 0.5) * 2
    motions = ((0 * brow, brow), (mouth, -np.abs(mouth)), (0 * brow, -brow))
    flow, label, dataset, subject, clip = [], [], [], [], []
    for person in range(people):
        for i in range(clips):
            kind = i % classes
            parts = [part + 0.15 * rng.standard_normal(part.shape) for part in motions[kind]]
            strain = np.hypot(*np.gradient(parts[1]))
            image = np.stack([*parts, strain], axis=-1)
            low, high = image.min(axis=(0, 1)), image.max(axis=(0, 1))
            flow.append(np.round((image - low) / (high - low) * 255))
            label.append(kind)
            dataset.append("one" if person % 2 else "two")
            subject.append(f"sub{person // 2:02d}")
            clip.append(f"clip{i}")
    return FlowSamples(
        flow=np.array(flow, dtype=np.uint8),
        label=np.array(label, dtype=np.int64),
        dataset=np.array(dataset),
        subject=np.array(subject),
        clip=np.array(clip),
        classes=("negative", "positive", "surprise")[:classes],
    )


@pytest.fixture(scope="session")
def samples() -> FlowSamples:
    return made_samples()
