"""`vlfer` in this process, and archives of noise in the layouts that are measured."""

import io

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from vlfer.cli.main import app
from vlfer.text.lexicon import VOTE_CLASSES


@pytest.fixture
def run():
    """Run `vlfer` in this process; the result has stdout, stderr and exit_code."""
    runner = CliRunner()
    return lambda *arguments: runner.invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="session")
def votes_file(tmp_path_factory):
    """64 noise images with ten votes each; the majority runs through the eight classes."""
    rng, n = np.random.default_rng(0), 64
    votes = np.zeros((n, 10), np.uint8)
    votes[np.arange(n), np.arange(n) % 8] = rng.integers(5, 11, n)
    votes[np.arange(n), (np.arange(n) + 3) % 8] = (10 - votes.max(axis=1)) // 2
    votes[np.arange(n), (np.arange(n) + 5) % 8] = 10 - votes.sum(axis=1)
    path = tmp_path_factory.mktemp("faces") / "votes.npz"
    images = rng.integers(0, 256, (n, 48, 48), dtype=np.uint8)
    np.savez(path, images=images, votes=votes, classes=np.array([*VOTE_CLASSES, "unknown", "non-face"]))
    return path


@pytest.fixture(scope="session")
def jpeg_file(tmp_path_factory):
    """Four colour JPEGs of two sizes with one label each."""
    rng, parts = np.random.default_rng(1), []
    for i in range(4):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (40 + 8 * (i % 2), 40, 3), dtype=np.uint8)).save(buffer, "JPEG")
        parts.append(buffer.getvalue())
    path = tmp_path_factory.mktemp("faces") / "jpegs.npz"
    np.savez(
        path, jpeg=np.frombuffer(b"".join(parts), np.uint8), offset=np.cumsum([0, *map(len, parts)]),
        label=np.array(["happiness", "sadness", "fear", "happiness"]),
    )  # fmt: skip
    return path
