"""Augmentation of colour clips: one draw a clip, the same for all of its frames, so that motion stays motion."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor


def augment_clips(clips: Tensor, *, strength: float, generator: Generator) -> Tensor:
    """Mirror, rotate, scale, shift, change light and colour, and blur; each clip as a whole.

    Args:
        clips: (N, T, 3, S, S) float32 in 0..1.
        strength: 0 changes nothing, 1 is the usual range.
        generator: Source of all randomness, on the CPU.

    Returns:
        (N, T, 3, S, S) float32 in 0..1.
    """
    if strength == 0:
        return clips
    n, frames, _, size, _ = clips.shape
    flat = clips.reshape(n * frames, 3, size, size)

    def draw(low: float, high: float) -> Tensor:
        return torch.rand(n, generator=generator) * (high - low) + low

    mirror = torch.where(draw(0, 1) < 0.5, -1.0, 1.0)
    angle = draw(-1, 1) * math.radians(12) * strength
    zoom = torch.exp(draw(-0.15, 0.18) * strength)
    shift = torch.stack([draw(-0.08, 0.08), draw(-0.08, 0.08)], dim=1) * strength
    cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    theta = torch.stack(
        [torch.stack([cos * mirror, -sin, shift[:, 0]], 1), torch.stack([sin * mirror, cos, shift[:, 1]], 1)], dim=1
    ).repeat_interleave(frames, 0)
    grid = F.affine_grid(theta.to(flat.device), list(flat.shape), align_corners=False)
    flat = F.grid_sample(flat, grid, mode="bilinear", padding_mode="border", align_corners=False)

    def spread(value: Tensor) -> Tensor:
        return value.to(flat.device).repeat_interleave(frames, 0).view(-1, 1, 1, 1)

    gamma, contrast = torch.exp(draw(-0.35, 0.35) * strength), torch.exp(draw(-0.3, 0.3) * strength)
    bright, grey = draw(-0.1, 0.1) * strength, (draw(0, 1) < 0.2).float()
    flat = flat.clamp_min(1e-4) ** spread(gamma)
    mean = flat.mean(dim=(1, 2, 3), keepdim=True)
    flat = (flat - mean) * spread(contrast) + mean + spread(bright)
    luma = (flat * flat.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    flat = torch.lerp(flat, luma.expand_as(flat), spread(grey))
    soft = F.avg_pool2d(F.pad(flat, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    flat = torch.lerp(flat, soft, spread(draw(-0.8, 1.0) * strength))
    return flat.clamp(0, 1).view_as(clips)
