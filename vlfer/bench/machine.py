"""The machine that figures were measured on."""

from __future__ import annotations

import os
import platform
from typing import Any

import torch

from vlfer.provenance import package_versions


def machine() -> dict[str, Any]:
    """Return what decides a speed, JSON-ready: platform, processors, how busy they are, versions, GPU."""
    return {
        "platform": platform.platform(), "cpus": os.cpu_count(), "torch_threads": torch.get_num_threads(),
        "load_1min": os.getloadavg()[0], "versions": package_versions(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }  # fmt: skip
