"""Depthwise convolutions with stride, whose gradients in bfloat16 are slow on a CPU.

A convolution with stride 2 gives every second value of the one with stride 1. Taking it that way costs four times the
multiplications of a layer that has hardly any, and saves a gradient that takes 3 to 13 times as long (torch 2.15,
bfloat16, two cores, 96 faces of MobileFaceNet's layers); whole steps of both networks take 1.6 times as long without.
In float32 it is the other way round.
"""

from __future__ import annotations

import torch.nn.functional as F
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import pad_same
from torch import Tensor, nn


class _Sliced(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        if not x.requires_grad:
            return super().forward(x)
        return _every(self, F.conv2d(x, self.weight, self.bias, 1, self.padding, self.dilation, self.groups))


class _SlicedSame(Conv2dSame):
    def forward(self, x: Tensor) -> Tensor:
        if not x.requires_grad:
            out: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
            return out
        x = pad_same(x, list(self.kernel_size), list(self.stride), list(self.dilation))
        return _every(self, F.conv2d(x, self.weight, self.bias, 1, 0, self.dilation, self.groups))


def _every(layer: nn.Conv2d, x: Tensor) -> Tensor:
    down, across = (int(step) for step in layer.stride)
    return x[:, :, ::down, ::across]


def slice_strided_depthwise(model: nn.Module) -> None:
    """Let the strided depthwise convolutions of a model work by slices, with the same result up to rounding."""
    for module in model.modules():
        if not isinstance(module, nn.Conv2d) or module.groups == 1 or max(module.stride) == 1:
            continue
        if type(module) is nn.Conv2d:
            module.__class__ = _Sliced
        elif type(module) is Conv2dSame:
            module.__class__ = _SlicedSame
