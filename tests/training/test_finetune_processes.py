"""`torchrun` on two processes: the same adapter as one process that accumulates two batches."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

LAUNCH = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "vlfer.cli")


def tune(how: tuple[str, ...], arguments: list[str]) -> str:
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *how, "finetune", *arguments], capture_output=True, text=True, env=env, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(tmp_path: Path, tiny_backbone_name: str) -> None:
    for shade, name in ((0, "dark mood"), (190, "bright mood")):
        for i in range(8):
            noise = np.random.default_rng(shade + i).integers(0, 60, (40, 40, 3), dtype=np.uint8)
            path = tmp_path / "faces" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise + np.uint8(shade)).save(path)
    config = tmp_path / "c.yaml"
    config.write_text(
        f"name: moods\nbackbone: '{tiny_backbone_name}'\ndevice: cpu\n"
        f"data: {{root: {tmp_path / 'faces'}, faces: whole, validation: 0.3}}\n"
        "loop: {epochs: 2, steps_per_epoch: 3, batch_size: 6, learning_rate: 0.02}\n"
    )
    said = tune(LAUNCH, [str(config), "--out", str(tmp_path / "two")])
    assert said.count("Written:") == 1
    tune(("-m", "vlfer.cli"), [str(config), "--out", str(tmp_path / "one"), "--set", "loop.accumulation=2"])
    two, one = (load_file(tmp_path / run / "adapter" / "adapter_model.safetensors") for run in ("two", "one"))
    assert set(two) == set(one)
    tune(("-m", "vlfer.cli"), [str(config), "--out", str(tmp_path / "half")])
    half = load_file(tmp_path / "half" / "adapter" / "adapter_model.safetensors")

    def distance(other: dict[str, Any]) -> float:
        return math.sqrt(sum(float((other[name] - value).square().sum()) for name, value in one.items()))

    # Adam divides by the size of a gradient, so rounding shows most where it is all there is.
    assert distance(two) < 0.02 * distance(half)
