"""What every run keeps between its epochs: the optimizer among the tensors of a state, and a log that grows."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_PREFIX = "optimizer."


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the state of an optimizer as tensors named ``optimizer.<parameter>.<part>``."""
    state = optimizer.state_dict()["state"]
    return {f"{_PREFIX}{i}.{k}": torch.as_tensor(v) for i, parts in state.items() for k, v in parts.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put an optimizer back into the state that `optimizer_tensors` told; tensors of other names are passed over."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith(_PREFIX):
            _, i, name = key.split(".", 2)
            state.setdefault(int(i), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Append a row to a CSV file, which gets its header with the first."""
    fresh = not path.exists()
    with path.open("a", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(row))
        if fresh:
            writer.writeheader()
        writer.writerow(row)
