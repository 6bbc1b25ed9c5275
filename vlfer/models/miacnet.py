"""MIACNet: what moved between two frames of a face, as one vector (Li, Zhao et al., arXiv 2405.16451).

Two independent ResNet18 encoders. The action encoder reads the difference of the frames, the position encoder the first
frame; its map tells at each position which part of a face lies there.

What the paper leaves open, and what was chosen here:

- fusion: at each position both maps are concatenated, mixed by one hidden layer, and the mean over the positions is
  mapped to the condition vector. The difference alone does not say which part of the face it lies on; the mean makes
  the vector free of the place in the picture.
- resolution: the paper's networks are ResNet18 of width 64; width, side and stride are free, so that the same thing
  trains on one processor core.
- in pre-training the position map is detached before fusion, so that the position losses alone form it ("trained
  independently" in the paper's Table 4); fine-tuning trains everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vlfer.errors import ConfigError


@dataclass(frozen=True, slots=True)
class MiacSettings:
    """Sizes of a MIACNet.

    Attributes:
        side: Side of a face in pixels.
        width: Filters of the first stage of both encoders; 64 makes them ResNet18.
        stride: Pixels of the face for each position of the maps: 8, 16 or 32.
        condition: D of the condition vector.
    """

    side: int = 64
    width: int = 16
    stride: int = 16
    condition: int = 128

    def __post_init__(self) -> None:
        if self.stride not in (8, 16, 32) or self.side % self.stride or self.side < 2 * self.stride:
            raise ConfigError(
                f"A side of {self.side} px with a stride of {self.stride} is not possible.",
                why="The stride is 8, 16 or 32, and the side a multiple of it, at least twice as long.",
                fix="a side of 64 with a stride of 16",
            )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al., CVPR 2016)."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C', H', W')."""
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + self.downsample(x))


class ResNet18(nn.Module):
    """The convolutions of ResNet18 with a free width and stride.

    Names of parameters are those of torchvision, so its weights load at width 64.

    Args:
        width: Filters of the first stage; the last has eight times as many.
        stride: Pixels for each position of the map: 32 as published; 16 and 8 keep the last stages from shrinking it.
    """

    def __init__(self, *, width: int, stride: int) -> None:
        super().__init__()
        self.channels = 8 * width
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        steps = (1, 2, 2 if stride > 8 else 1, 2 if stride > 16 else 1)
        widths = (width, width, 2 * width, 4 * width, 8 * width)
        for i, ((inputs, outputs), step) in enumerate(zip(pairwise(widths), steps, strict=True), start=1):
            stage = nn.Sequential(BasicBlock(inputs, outputs, stride=step), BasicBlock(outputs, outputs, stride=1))
            self.add_module(f"layer{i}", stage)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 3, S, S) to (N, 8 width, S / stride, S / stride)."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, stride=2, padding=1)
        for i in range(1, 5):
            x = self.get_submodule(f"layer{i}")(x)
        return x


class Miacnet(nn.Module):
    """Two encoders and their fusion; see the module."""

    def __init__(self, settings: MiacSettings) -> None:
        super().__init__()
        self.settings = settings
        self.action = ResNet18(width=settings.width, stride=settings.stride)
        self.position = ResNet18(width=settings.width, stride=settings.stride)
        self.mix = nn.Linear(self.action.channels + self.position.channels, settings.condition)
        self.out = nn.Linear(settings.condition, settings.condition)

    def positions(self, faces: Tensor) -> Tensor:
        """Return the unit vectors of all positions, (N, C, H, W), of faces (N, 3, S, S) in -1..1."""
        return F.normalize(self.position(faces), dim=1)

    def forward(self, first: Tensor, second: Tensor, *, detach_positions: bool = False) -> Tensor:
        """Return the condition vector (N, D) of two frames (N, 3, S, S) in -1..1."""
        if first.shape != second.shape or first.shape[1:] != (3, self.settings.side, self.settings.side):
            raise ConfigError(
                f"The frames are {tuple(first.shape)} and {tuple(second.shape)}.",
                why=f"Expected (N, 3, {self.settings.side}, {self.settings.side}) twice.",
            )
        places = self.positions(first)
        return self.fuse(second - first, places.detach() if detach_positions else places)

    def fuse(self, difference: Tensor, places: Tensor) -> Tensor:
        """Return the condition vector (N, D) of a difference (N, 3, S, S) and a position map (N, C, H, W)."""
        both = torch.cat([self.action(difference), places], dim=1).flatten(2).transpose(1, 2)
        out: Tensor = self.out(F.gelu(self.mix(both)).mean(dim=1))
        return out


class MiacClassifier(nn.Module):
    """MIACNet and one linear layer on the condition vector that starts at zero: every class is as likely at first."""

    def __init__(self, net: Miacnet, n_classes: int) -> None:
        super().__init__()
        self.net = net
        self.head = nn.Linear(net.settings.condition, n_classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, onset: Tensor, apex: Tensor) -> Tensor:
        """Return logits (N, C) of onset and apex, (N, 3, S, S) in -1..1."""
        out: Tensor = self.head(self.net(onset, apex))
        return out
