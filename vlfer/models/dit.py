"""A transformer that foretells the latents of a later frame from those of an earlier one and a condition vector.

The blocks are those of DiT (Peebles and Xie, ICCV 2023): the condition sets shift, scale and gate of every layer, and
all gates start at zero. There is no diffusion in it: MA2MI states no noise schedule, and its loss is the L1 distance to
the later latents, so the network maps one to the other in one step. What it gives is the difference between them, which
starts at zero: frames shortly after one another are nearly the same.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vlfer.errors import ConfigError

DitSize = Literal["tiny", "small", "S", "B"]


class _Shape(NamedTuple):
    depth: int
    width: int
    heads: int


DIT_SIZES: dict[DitSize, _Shape] = {
    "tiny": _Shape(2, 64, 2),
    "small": _Shape(4, 128, 4),
    "S": _Shape(12, 384, 6),
    "B": _Shape(12, 768, 12),
}
"""S and B are those of the paper; the others fit a processor."""


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))
        self.modulate = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulate(F.silu(condition))[:, None].chunk(6, dim=-1)
        x = x + gate1 * self._attend(self.norm1(x) * (1 + scale1) + shift1)
        return x + gate2 * self.mlp(self.norm2(x) * (1 + scale2) + shift2)  # type: ignore[no-any-return]

    def _attend(self, x: Tensor) -> Tensor:
        n, tokens, width = x.shape
        q, k, v = self.qkv(x).view(n, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        out: Tensor = self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, tokens, width))
        return out


class FuturePredictor(nn.Module):
    """Latents of a frame and a condition vector to the latents of a later frame.

    Args:
        size: Key of `DIT_SIZES`.
        channels: Channels of the latents.
        side: Side of the latents.
        patch: Side of a token in latents.
        condition: D of the condition vector.

    Raises:
        ConfigError: If there is no such size, or the patch does not divide the side.
    """

    places: Tensor

    def __init__(self, size: DitSize, *, channels: int, side: int, patch: int, condition: int) -> None:
        super().__init__()
        if size not in DIT_SIZES:
            raise ConfigError(f"There is no size {size!r}.", why=f"There are {', '.join(DIT_SIZES)}.")
        if side % patch:
            raise ConfigError(f"Latents of {side} have no patches of {patch}.", why="Patches are of equal size.")
        depth, width, heads = DIT_SIZES[size]
        self.patch, self.side, self.channels = patch, side, channels
        self.enter = nn.Linear(channels * patch**2, width)
        self.register_buffer("places", sine_positions(side // patch, width=width), persistent=False)
        self.condition = nn.Linear(condition, width)
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.modulate = nn.Linear(width, 2 * width)
        self.leave = nn.Linear(width, channels * patch**2)
        for layer in (self.modulate, self.leave):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, latents: Tensor, condition: Tensor) -> Tensor:
        """Return the later latents (N, C, H, W) of latents (N, C, H, W) and conditions (N, D)."""
        state = self.condition(condition)
        x = self.enter(F.unfold(latents, self.patch, stride=self.patch).transpose(1, 2)) + self.places
        for block in self.blocks:
            x = block(x, state)
        shift, scale = self.modulate(F.silu(state))[:, None].chunk(2, dim=-1)
        change = self.leave(self.norm(x) * (1 + scale) + shift).transpose(1, 2)
        return latents + F.fold(change, (self.side, self.side), self.patch, stride=self.patch)


def sine_positions(side: int, *, width: int) -> Tensor:
    """Return sines and cosines of row and column of each position, (side * side, width); width is a multiple of 4."""
    rate = torch.exp(torch.arange(width // 4) * (-math.log(10_000) / (width // 4)))
    angle = torch.arange(side)[:, None] * rate
    one = torch.cat([angle.sin(), angle.cos()], dim=1)
    rows, columns = one[:, None].expand(side, side, -1), one[None].expand(side, side, -1)
    return torch.cat([rows, columns], dim=2).reshape(side * side, width)
