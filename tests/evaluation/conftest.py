"""An encoder that sees colours and reads names of classes, and the fake data sets."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from vlfer.types import Embedding


def load_fake() -> ModuleType:
    spec = importlib.util.spec_from_file_location("vlfer_fake_datasets", Path(__file__).with_name("fake.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FAKE = load_fake()


def _unit(colours: np.ndarray) -> np.ndarray:
    centred = colours.astype(np.float64) / 255.0 - 0.5
    padded = np.concatenate([centred, np.full((len(centred), 1), 0.05)], axis=1)
    return (padded / np.linalg.norm(padded, axis=1, keepdims=True)).astype(np.float32)


@dataclass
class ColourEncoder:
    """Embeds a picture as its mean colour and the name of class c as the colour of class c."""

    classes: Sequence[str]
    space: str = "colours/1/none"
    temperature: float = 0.1
    faces_seen: int = 0
    batches: list[int] = field(default_factory=list)

    def encode_images(self, pixels: np.ndarray, *, batch_size: int = 32) -> Embedding:
        self.faces_seen += len(pixels)
        self.batches.append(len(pixels))
        return Embedding(_unit(pixels.reshape(len(pixels), -1, 3).mean(axis=1)), self.space)

    def encode_texts(self, sentences: Sequence[str]) -> Embedding:
        rows = []
        for sentence in sentences:
            if sentence in self.classes:
                rows.append(FAKE.colour(list(self.classes).index(sentence)))
            else:
                digest = hashlib.sha256(sentence.encode()).digest()
                rows.append((digest[0], digest[1], digest[2]))
        return Embedding(_unit(np.array(rows)), self.space)

    encode = encode_texts  # it is its own text bank


@pytest.fixture
def fake() -> ModuleType:
    """The generators of fake data sets."""
    return FAKE


@pytest.fixture
def make_encoder() -> type[ColourEncoder]:
    """The class of the colour encoder."""
    return ColourEncoder
