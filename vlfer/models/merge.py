"""A backbone and its LoRA as one model folder, in the form that the backbone itself was loaded from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from vlfer.config import write_atomically
from vlfer.errors import BackboneError
from vlfer.models.adapter import Adapter
from vlfer.models.encoder import load_encoder
from vlfer.models.registry import find_backbone
from vlfer.models.tower import TowerEncoder
from vlfer.models.weights import sha256_of_file


def write_merged(adapter: Adapter, folder: Path, *, backbone: str) -> str:
    """Write the merged model and return what to give as ``--backbone``.

    Args:
        adapter: LoRA only.
        folder: Created where missing.
        backbone: The name that it was made for.

    Raises:
        AdapterError: If the adapter does not fit.
        BackboneError: If the backbone is of a form that cannot be written.
        OSError: If a file cannot be written.
    """
    spec = find_backbone(backbone)
    encoder = load_encoder(backbone, device="cpu", adapter=adapter.folder)
    folder.mkdir(parents=True, exist_ok=True)
    if spec.origin == "bundled":
        return _bundled(encoder, Path(spec.source) if spec.source else None, folder)
    if spec.library == "transformers":
        cast(Any, encoder.model).save_pretrained(folder)
        _copy_others(Path(spec.source), folder)
        return f"hf:{folder}"
    if spec.origin != "folder":
        raise BackboneError(
            f"The backbone {backbone!r} is no folder here.", why="Its configuration cannot be copied.",
            fix="load it with --adapter; it is merged there too",
        )  # fmt: skip
    state = {key: value.contiguous().clone() for key, value in encoder.model.state_dict().items()}
    write_atomically(folder / "open_clip_model.safetensors", save(state, metadata={"format": "pt"}))
    _copy_others(Path(spec.source), folder)
    return f"open_clip:{folder}"


def _bundled(encoder: TowerEncoder, source: Path | None, folder: Path) -> str:
    """Write the form of `vlfer.models.bundled`, in which batch norms are not yet folded into the layers before them."""
    from vlfer.models.bundled import BUNDLED_DIR, CARD_NAME, CONFIG_NAME, WEIGHTS_NAME, load_bundled, read_card

    home = source or BUNDLED_DIR
    stored = load_file(home / WEIGHTS_NAME)
    plain, merged = load_bundled(home).model.state_dict(), encoder.model.state_dict()
    for key, value in stored.items():
        if key in merged and not torch.equal(plain[key], merged[key].cpu()):
            stored[key] = _unfolded(value.float(), plain[key], merged[key].cpu())
    write_atomically(folder / CONFIG_NAME, (home / CONFIG_NAME).read_bytes())
    content = {key: value.contiguous().clone() for key, value in stored.items()}
    write_atomically(folder / WEIGHTS_NAME, save(content, metadata={"format": "pt"}))
    card = read_card(home) | {
        "weights_sha256": sha256_of_file(folder / WEIGHTS_NAME), "temperature": encoder.temperature,
        "merged_adapter_sha256": encoder.adapter.sha256 if encoder.adapter else None,
    }  # fmt: skip
    write_atomically(folder / CARD_NAME, json.dumps(card, indent=2, ensure_ascii=False).encode())
    return f"bundled:{folder}"


def _unfolded(stored: Tensor, plain: Tensor, merged: Tensor) -> Tensor:
    """Return stored weights plus the update of folded ones; folding multiplies each output channel by one number."""
    rows = stored.flatten(1)
    factor = (plain.flatten(1) * rows).sum(dim=1) / (rows * rows).sum(dim=1).clamp_min(1e-20)
    safe = torch.where(factor.abs() < 1e-12, torch.full_like(factor, float("inf")), factor)
    return stored + (merged - plain) / safe.view(-1, *[1] * (stored.ndim - 1))


def _copy_others(source: Path, folder: Path) -> None:
    """Copy what is no weights: configuration, tokenizer, preprocessing."""
    if not source.is_dir():
        return
    for path in source.iterdir():
        if path.is_file() and path.suffix in (".json", ".txt", ".model") and not (folder / path.name).exists():
            shutil.copyfile(path, folder / path.name)
