"""Where on a face the pixels lie that speak for a label: gradient times activation of a few layers.

On convolutions this is HiResCAM (Draelos and Carin, 2020), the form of Grad-CAM whose map is what the layer gives to
the score, summed over a coarse, a middle and a fine layer: hiding what the sum calls relevant changes more labels than
with any one of them (``vlfer bench words``). On a transformer it is taken over tokens. The attribution is captum's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from captum.attr import LayerGradientXActivation
from torch import Tensor, nn

from vlfer.errors import ShapeError
from vlfer.models.preprocess import prepare_pixels
from vlfer.models.tower import TowerEncoder
from vlfer.types import FloatArray, UInt8Array

#: The latest layer with at least so many cells a side is taken, for each.
_LEAST_SIDES = (6, 12, 24)
_BLOCK = ("block", "layer")


def relevance_map(
    encoder: TowerEncoder, pixels: UInt8Array, directions: FloatArray, *, label: int, temperature: float
) -> FloatArray:
    """Return how much each place of a face speaks for a label, against all other labels.

    Args:
        encoder: Any backbone of vlfer.
        pixels: (S, S, 3) uint8 RGB, one face as it was encoded.
        directions: (C, D) float32, what a unit image vector is multiplied with to give the similarities.
        label: Which of the C.
        temperature: What similarities are divided by.

    Returns:
        (S, S) float32 from 0 to 1, 1 being the strongest place; zeros where nothing speaks for the label.

    Raises:
        ShapeError: If the pixels are no square RGB image, or the backbone has no layer with places.
    """
    if pixels.ndim != 3 or pixels.shape[0] != pixels.shape[1] or pixels.shape[2] != 3:
        raise ShapeError(f"The face has shape {pixels.shape}.", why="Expected (S, S, 3).")
    batch = prepare_pixels(pixels[None], spec=encoder.spec).to(encoder.device)
    words = torch.from_numpy(np.ascontiguousarray(directions, np.float32)).to(encoder.device)

    others = [i for i in range(len(words)) if i != label]

    def log_odds(images: Tensor) -> Tensor:
        logits = F.normalize(encoder.image_features(images).float(), dim=-1) @ words.T / temperature
        # not the log-probability: where that is nearly 0 its gradient is too
        return logits[:, label] - logits[:, others].logsumexp(dim=1) if others else logits[:, label]

    total = torch.zeros(pixels.shape[:2])
    with encoder.image_lock:  # another thread's faces must not run through the hooks
        layers = list(_layers(encoder, batch))
        if not layers:
            raise ShapeError(f"The backbone {encoder.spec.name!r} has no layer in which places can be told apart.")
        method = LayerGradientXActivation(log_odds, layers)
        with torch.enable_grad():
            found = method.attribute(batch.clone().requires_grad_(True))
    for one in found:
        places = _places(one[0] if isinstance(one, tuple) else one)
        # the mean over places is kept, so that the maps of two networks weigh as much as they give to the score
        spread = F.interpolate(places[None, None], pixels.shape[:2], mode="bilinear", align_corners=False)[0, 0]
        total += spread * places.numel() / total.numel()
    positive = total.clamp_min(0.0)
    peak = float(positive.max())
    return np.asarray((positive / peak if peak > 0 else positive).numpy(), np.float32)


def _layers(encoder: TowerEncoder, batch: Tensor) -> Iterator[nn.Module]:
    """Yield the layers of each network of the image tower that are taken."""
    for root in _networks(encoder.model):
        seen: list[tuple[nn.Module, tuple[int, ...]]] = []
        hooks = [m.register_forward_hook(_recorder(seen)) for m in root.modules()]
        try:
            with torch.no_grad():
                encoder.image_features(batch)
        finally:
            for hook in hooks:
                hook.remove()
        tokens = [m for m, shape in seen if len(shape) == 3 and _is_block(m) and _grid(shape)]
        if tokens:
            # behind the last block a class token stands alone, and other tokens have no gradient
            yield tokens[-2] if len(tokens) > 1 else tokens[-1]
            continue
        maps = [(m, shape[2]) for m, shape in seen if len(shape) == 4 and shape[2] == shape[3] and shape[2] > 1]
        # what follows a block does not write into its output, as an activation does into that of a convolution
        blocks = [(m, side) for m, side in maps if any(True for _ in m.children())]
        chosen = [[m for m, side in blocks or maps if side >= least][-1:] for least in _LEAST_SIDES]
        flat = [own[0] for own in chosen if own] or [m for m, _ in maps[-1:]]
        yield from dict.fromkeys(flat)


def _networks(model: nn.Module) -> list[nn.Module]:
    visual = cast(Any, getattr(model, "visual", None) or getattr(model, "vision_model", model))
    branches = getattr(getattr(visual, "trunk", None), "branches", None)
    return list(branches.values()) if isinstance(branches, nn.ModuleDict) else [visual]


def _recorder(seen: list[tuple[nn.Module, tuple[int, ...]]]) -> Any:
    def record(module: nn.Module, inputs: Any, output: Any) -> None:
        first = output[0] if isinstance(output, (tuple, list)) and output else output
        if isinstance(first, Tensor):
            seen.append((module, tuple(first.shape)))

    return record


def _is_block(module: nn.Module) -> bool:
    name = type(module).__name__.lower()
    return any(word in name for word in _BLOCK) and "norm" not in name and any(True for _ in module.children())


def _grid(shape: tuple[int, ...]) -> int:
    """Return the side of the grid that tokens of one image form, with or without a class token; 0 if none."""
    count = max(shape[0], shape[1]) if 1 in shape[:2] else shape[1]
    for length in (count, count - 1):
        side = math.isqrt(max(length, 0))
        if side > 1 and side * side == length:
            return side
    return 0


def _places(found: Tensor) -> Tensor:
    """Return (h, w) contributions of one image's map (1, C, h, w) or tokens (1, L, D), (L, 1, D)."""
    found = found.detach().float().cpu()
    if found.ndim == 4:
        return found[0].sum(dim=0)
    tokens = found.squeeze(0) if found.shape[0] == 1 else found.squeeze(1)
    given = tokens.sum(dim=-1)
    side = _grid(tuple(found.shape))
    return given[len(given) - side * side :].reshape(side, side)
