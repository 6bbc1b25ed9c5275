"""Pixels to the tensor that a backbone was trained on: resize, scale, normalise."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transform

from vlfer.errors import ShapeError
from vlfer.models.registry import BackboneSpec, Triple
from vlfer.types import UInt8Array

Fit = Literal["pad", "crop", "squash"]
_MODES = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}


def check_pixels(pixels: UInt8Array) -> None:
    """Raise ShapeError unless ``pixels`` is (N, H, W, 3) uint8 with H, W > 0."""
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3:
        actual = f"{pixels.shape} {pixels.dtype}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise ShapeError(
            f"The crops to encode are {actual}.", why="Expected (N, S, S, 3) uint8 RGB.", fix="crop_face(frame, face)"
        )
    if 0 in pixels.shape[1:3]:
        raise ShapeError(f"The crops to encode have shape {pixels.shape}.", why="A crop holds at least one pixel.")


def prepare_pixels(pixels: UInt8Array, *, spec: BackboneSpec, fit: Fit = "pad") -> Tensor:
    """Turn crops into the input of the image tower.

    Resizing happens on uint8 with antialiasing, as Pillow does it: bicubic overshoot is cut off at 0 and 255, which
    float resizing would let through.

    Args:
        pixels: (N, H, W, 3) uint8 RGB.
        spec: Its image size, mean, std and interpolation are used.
        fit: What to do where H and W differ. ``pad`` keeps the whole face in its proportions and fills with the
            mean colour; ``crop`` cuts the centre (CLIP's preprocessing), ``squash`` stretches (SigLIP's), both for
            the reproduction of published figures. Square crops come out the same with all three.

    Returns:
        (N, 3, image_size, image_size) float32 on the CPU, in channels-last memory.

    Raises:
        ShapeError: If ``pixels`` has another shape or dtype.
    """
    check_pixels(pixels)
    # torch takes neither negative strides nor read-only arrays, which Pillow and memory maps give
    plain = np.require(pixels, requirements=["C", "W"])
    batch = torch.from_numpy(plain).permute(0, 3, 1, 2)
    size, mode = spec.image_size, _MODES[spec.interpolation]
    height, width = batch.shape[2:]
    if height != width and fit == "pad":
        batch = _pad_to_square(batch, spec=spec)
    if fit == "crop" and height != width:
        batch = transform.resize(batch, [size], interpolation=mode, antialias=True)
        batch = transform.center_crop(batch, [size, size])
    elif tuple(batch.shape[2:]) != (size, size):
        batch = transform.resize(batch, [size, size], interpolation=mode, antialias=True)
    mean = torch.tensor(spec.mean).view(1, 3, 1, 1)
    std = torch.tensor(spec.std).view(1, 3, 1, 1)
    return (batch.float().div_(255.0) - mean).div_(std).contiguous(memory_format=torch.channels_last)


def _pad_to_square(batch: Tensor, *, spec: BackboneSpec) -> Tensor:
    height, width = batch.shape[2:]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    colour = torch.tensor([round(255 * m) for m in spec.mean], dtype=torch.uint8).view(1, 3, 1, 1)
    square = colour.expand(len(batch), 3, side, side).clone(memory_format=torch.channels_last)
    square[:, :, top : top + height, left : left + width] = batch
    return square


def triple(values: Any) -> Triple:
    """Return three floats of one number or a sequence of three."""
    red, green, blue = [values] * 3 if isinstance(values, int | float) else values
    return (float(red), float(green), float(blue))
