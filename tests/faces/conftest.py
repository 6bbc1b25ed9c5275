"""One detector for all tests, and public pictures with and without a face."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.data

from vlfer.faces.detect import FaceDetector, build_detector


@pytest.fixture(scope="session")
def detector() -> FaceDetector:
    return build_detector()


@pytest.fixture(scope="session")
def portrait() -> np.ndarray:
    """A NASA portrait, (512, 512, 3); its face is about 92 x 107 px at (226, 124)."""
    return np.ascontiguousarray(skimage.data.astronaut())


@pytest.fixture(scope="session")
def cat() -> np.ndarray:
    return np.ascontiguousarray(skimage.data.chelsea())


@pytest.fixture(scope="session")
def cup() -> np.ndarray:
    return np.ascontiguousarray(skimage.data.coffee())
