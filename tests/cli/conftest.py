import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from vlfer.cli.main import app


@pytest.fixture
def run():
    """Run `vlfer` in this process; the result has stdout, stderr and exit_code."""
    runner = CliRunner()

    def call(*arguments):
        return runner.invoke(app, [str(argument) for argument in arguments])

    return call


@pytest.fixture
def images(tmp_path):
    """Three small pictures, to be taken whole."""
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 255, (48, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder
