"""Random changes to flow images that leave the expression what it is.

Flow is (N, 3, 28, 28) float32: u and v around rest in units of their spread, and strain in 0..1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# Rows and columns of the eyes in the published images, whose faces are aligned: blinks and glances happen here.
_EYE_ROWS = slice(5, 12)
_EYE_COLUMNS = (slice(3, 12), slice(16, 25))


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How strongly samples are changed; all zero changes nothing.

    Attributes:
        mirror: Share of samples that are mirrored, u negated.
        turn_deg: Standard deviation of the rotation.
        zoom: Standard deviation of the logarithm of the size.
        shift: Standard deviation of the translation, in positions of the 28x28 grid.
        gain: Standard deviation of the logarithm of each channel's scale: min-max scaling lost it.
        offset: Standard deviation of the rest level of u and v: it is only estimated.
        noise: Standard deviation of added noise.
        eyes: Share of samples whose eye region comes from another sample, as blinks and glances come with any class.
        mixup: Parameter of the Beta distribution for mixing two samples and their labels (Zhang et al., ICLR 2018).
    """

    mirror: float = 0.5
    turn_deg: float = 4.0
    zoom: float = 0.05
    shift: float = 0.8
    gain: float = 0.15
    offset: float = 0.05
    noise: float = 0.02
    eyes: float = 0.0
    mixup: float = 0.4


NONE = Augmentation(0, 0, 0, 0, 0, 0, 0, 0, 0)


def augment(flow: Tensor, target: Tensor, how: Augmentation, *, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return changed flow (N, 3, H, W) and its target distribution (N, C)."""
    n = len(flow)
    if how.mirror:
        flow = torch.where((_uniform(n, generator) < how.mirror)[:, None, None, None], mirrored(flow), flow)
    if how.turn_deg or how.zoom or how.shift:
        flow = _moved(flow, how, generator)
    if how.eyes:
        flow = _other_eyes(flow, how.eyes, generator)
    if how.gain:
        flow = flow * torch.exp(how.gain * torch.randn(n, flow.shape[1], 1, 1, generator=generator))
    if how.offset:
        flow = torch.cat([flow[:, :2] + how.offset * torch.randn(n, 2, 1, 1, generator=generator), flow[:, 2:]], dim=1)
    if how.noise:
        flow = flow + how.noise * torch.randn(flow.shape, generator=generator)
    if how.mixup:
        flow, target = _mixed(flow, target, how.mixup, generator)
    return flow, target


def mirrored(flow: Tensor) -> Tensor:
    """Return the flow of the mirrored face, (N, 3, H, W): columns swapped, u negated."""
    flipped = flow.flip(-1)
    return torch.cat([-flipped[:, :1], flipped[:, 1:]], dim=1)


def _uniform(n: int, generator: torch.Generator) -> Tensor:
    return torch.rand(n, generator=generator)


def _moved(flow: Tensor, how: Augmentation, generator: torch.Generator) -> Tensor:
    n, side = len(flow), flow.shape[-1]
    angle = math.radians(how.turn_deg) * torch.randn(n, generator=generator)
    size = torch.exp(how.zoom * torch.randn(n, generator=generator))
    shift = how.shift * 2 / side * torch.randn(n, 2, generator=generator)
    cos, sin = torch.cos(angle) * size, torch.sin(angle) * size
    matrix = torch.stack([torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)], 1)
    grid = torch.nn.functional.affine_grid(matrix, list(flow.shape), align_corners=False)
    return torch.nn.functional.grid_sample(flow, grid, padding_mode="border", align_corners=False)


def _other_eyes(flow: Tensor, share: float, generator: torch.Generator) -> Tensor:
    other = flow[torch.randperm(len(flow), generator=generator)]
    chosen = (_uniform(len(flow), generator) < share)[:, None, None, None]
    mask = torch.zeros(flow.shape[-2:])
    for columns in _EYE_COLUMNS:
        mask[_EYE_ROWS, columns] = 1
    return torch.where(chosen & (mask > 0), other, flow)


def _mixed(flow: Tensor, target: Tensor, alpha: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    # A Beta(alpha, alpha) variate is a ratio of two Gamma variates, which torch draws from the generator.
    draws = torch._standard_gamma(torch.full((2, len(flow)), alpha), generator=generator) + 1e-8
    keep = draws[0] / draws.sum(dim=0)
    keep = torch.maximum(keep, 1 - keep)
    order = torch.randperm(len(flow), generator=generator)
    mixed = keep[:, None, None, None] * flow + (1 - keep)[:, None, None, None] * flow[order]
    return mixed, keep[:, None] * target + (1 - keep)[:, None] * target[order]
