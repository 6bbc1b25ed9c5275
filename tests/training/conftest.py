"""Made faces with votes, in the layout of the real archive."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

CLASSES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """An archive of 40 smooth random pictures; the last four repeat the first four."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (40, 6, 6)).astype(np.uint8)
    images = coarse.repeat(8, axis=1).repeat(8, axis=2)
    images[36:] = images[:4]
    votes = rng.integers(0, 5, (40, 10)).astype(np.uint8)
    votes[:, 0] += 1
    path = tmp_path / "faces.npz"
    np.savez(path, images=images, votes=votes, classes=np.array([*CLASSES, "unknown", "non-face"]))
    return path
