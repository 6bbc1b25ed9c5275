"""vlfer tells which expression a face shows, in the words its user chooses.

The public names load on first use, so that ``import vlfer`` stays quick and imports no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlfer.errors import VlferError
    from vlfer.models.encoder import Encoder, load_encoder
    from vlfer.pipeline import EmotionPipeline, load_pipeline
    from vlfer.text.bank import TextBank
    from vlfer.text.labels import load_label_set, parse_labels
    from vlfer.types import LabelSet, Prediction, Report, Scores

__version__ = "0.1.0"

_HOMES = {
    "EmotionPipeline": "vlfer.pipeline",
    "Encoder": "vlfer.models.encoder",
    "LabelSet": "vlfer.types",
    "Prediction": "vlfer.types",
    "Report": "vlfer.types",
    "Scores": "vlfer.types",
    "TextBank": "vlfer.text.bank",
    "VlferError": "vlfer.errors",
    "load_encoder": "vlfer.models.encoder",
    "load_label_set": "vlfer.text.labels",
    "load_pipeline": "vlfer.pipeline",
    "parse_labels": "vlfer.text.labels",
}

__all__ = [
    "EmotionPipeline",
    "Encoder",
    "LabelSet",
    "Prediction",
    "Report",
    "Scores",
    "TextBank",
    "VlferError",
    "load_encoder",
    "load_label_set",
    "load_pipeline",
    "parse_labels",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'vlfer' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
