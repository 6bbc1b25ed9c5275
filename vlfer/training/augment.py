"""Augmentation of grey face crops in batches: geometry, light, sharpness, noise, occlusion.

The training faces are grey and 48 px wide; the product meets sharp colour photographs, blur, compression, other crops
and rotations. Each function maps (N, 1, S, S) float32 in 0..1 to the same shape and draws from the given generator.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor


def _uniform(n: int, low: float, high: float, generator: Generator) -> Tensor:
    return torch.rand(n, generator=generator) * (high - low) + low


def _chance(n: int, probability: float, generator: Generator) -> Tensor:
    return torch.rand(n, generator=generator) < probability


def warp(images: Tensor, *, size: int, generator: Generator, flip: Tensor, strength: float = 1.0) -> Tensor:
    """Rotate, scale, stretch, shift and mirror, and resample to ``size``.

    Args:
        images: (N, 1, H, W) float32.
        size: Side of the result in pixels.
        generator: Source of randomness.
        flip: (N,) bool, which faces are mirrored.
        strength: 0 resizes only, 1 is the training range.
    """
    n = len(images)
    wild = torch.where(_chance(n, 0.15, generator), 2.5, 1.0)
    angle = torch.randn(n, generator=generator).clamp(-2, 2) * math.radians(8) * wild * strength
    zoom = torch.exp(_uniform(n, -0.30, 0.22, generator) * strength)  # < 1 shows more than the crop, > 1 less
    stretch = torch.exp(_uniform(n, -0.10, 0.10, generator) * strength)
    shift = torch.randn(n, 2, generator=generator).clamp(-2, 2) * 0.06 * strength
    shear = _uniform(n, -0.08, 0.08, generator) * strength
    cos, sin = torch.cos(angle), torch.sin(angle)
    mirror = torch.where(flip, -1.0, 1.0)
    x_scale, y_scale = mirror / (zoom * stretch), stretch / zoom
    theta = torch.stack(
        [
            torch.stack([cos * x_scale, (shear - sin) * y_scale, shift[:, 0]], dim=1),
            torch.stack([sin * x_scale, cos * y_scale, shift[:, 1]], dim=1),
        ],
        dim=1,
    )
    grid = F.affine_grid(theta, [n, 1, size, size], align_corners=False)
    outside = "border" if bool(_chance(1, 0.7, generator)) else "zeros"
    return F.grid_sample(images, grid, mode="bicubic", padding_mode=outside, align_corners=False).clamp(0, 1)


def relight(images: Tensor, *, generator: Generator) -> Tensor:
    """Change gamma, contrast, brightness and the direction of the light."""
    n, _, size, _ = images.shape
    gamma = torch.exp(_uniform(n, -0.45, 0.45, generator)).view(n, 1, 1, 1)
    contrast = _uniform(n, 0.55, 1.35, generator).view(n, 1, 1, 1)
    brightness = _uniform(n, -0.15, 0.15, generator).view(n, 1, 1, 1)
    ramp = torch.linspace(-1, 1, size)
    direction = torch.randn(n, 2, generator=generator) * 0.12 * _chance(n, 0.4, generator).float()[:, None]
    light = direction[:, 0, None, None] * ramp[None, None, :] + direction[:, 1, None, None] * ramp[None, :, None]
    bright = images.clamp_min(1e-4) ** gamma
    mean = bright.mean(dim=(1, 2, 3), keepdim=True)
    return ((bright - mean) * contrast + mean + brightness + light[:, None]).clamp(0, 1)


def _gaussian(images: Tensor, sigma: float) -> Tensor:
    radius = max(1, math.ceil(2.5 * sigma))
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    padded = F.pad(images, (radius,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))


def refocus(images: Tensor, *, generator: Generator) -> Tensor:
    """Blur some faces, sharpen others (unsharp masking stands for cameras sharper than the training set)."""
    sigma = float(_uniform(1, 0.5, 1.4, generator))
    soft = _gaussian(images, sigma)
    amount = _uniform(len(images), -1.0, 1.6, generator)
    amount = torch.where(_chance(len(images), 0.5, generator), torch.zeros_like(amount), amount).view(-1, 1, 1, 1)
    return (images + amount * (images - soft)).clamp(0, 1)


def degrade(images: Tensor, *, generator: Generator) -> Tensor:
    """Add sensor noise, 8 x 8 block quantisation like strong JPEG, and loss of resolution to some faces."""
    n, _, size, _ = images.shape
    noise = torch.randn(images.shape, generator=generator) * _uniform(n, 0.0, 0.06, generator).view(n, 1, 1, 1)
    images = images + noise * _chance(n, 0.35, generator).float().view(n, 1, 1, 1)
    small = int(torch.randint(size * 3 // 8, size * 7 // 8, (1,), generator=generator))
    coarse = F.interpolate(images, (small, small), mode="bilinear", antialias=True)
    coarse = F.interpolate(coarse, (size, size), mode="bicubic")
    pick = _chance(n, 0.2, generator).view(n, 1, 1, 1)
    images = torch.where(pick, coarse, images)
    block = F.avg_pool2d(images, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
    loss = _uniform(n, 0.0, 0.5, generator).view(n, 1, 1, 1) * _chance(n, 0.12, generator).float().view(n, 1, 1, 1)
    return (images * (1 - loss) + block * loss).clamp(0, 1)


def occlude(images: Tensor, *, generator: Generator, probability: float = 0.35) -> Tensor:
    """Cover a random rectangle of some faces with grey or noise (random erasing, Zhong et al. 2017)."""
    n, _, size, _ = images.shape
    out = images.clone()
    for i in torch.nonzero(_chance(n, probability, generator)).flatten().tolist():
        height, width = torch.randint(size // 8, size // 2, (2,), generator=generator).tolist()
        top = int(torch.randint(0, size - height, (1,), generator=generator))
        left = int(torch.randint(0, size - width, (1,), generator=generator))
        fill = torch.rand(1, generator=generator)
        if bool(_chance(1, 0.3, generator)):
            fill = torch.rand(height, width, generator=generator)
        out[i, 0, top : top + height, left : left + width] = fill
    return out


def augment(images: Tensor, *, size: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Apply every augmentation to a batch.

    Args:
        images: (N, 1, H, W) float32 in 0..1.
        size: Side of the result.
        generator: Source of all randomness, so that a step can be repeated exactly.

    Returns:
        (N, 1, size, size) float32 in 0..1, and (N,) bool: which faces were mirrored.
    """
    flip = _chance(len(images), 0.5, generator)
    images = warp(images, size=size, generator=generator, flip=flip)
    images = relight(images, generator=generator)
    images = refocus(images, generator=generator)
    images = degrade(images, generator=generator)
    return occlude(images, generator=generator), flip
