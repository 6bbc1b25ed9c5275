"""MobileFaceNet, the small network of face recognition that one half of the bundled image tower starts from."""

from __future__ import annotations

from torch import Tensor, nn

# (channels in, channels out, stride) of the depthwise-separable blocks of SFace's MobileFaceNet.
_BLOCKS = (
    (32, 64, 1),
    (64, 128, 2),
    (128, 128, 1),
    (128, 256, 2),
    (256, 256, 1),
    (256, 512, 2),
    *[(512, 512, 1)] * 5,
    (512, 1024, 2),
    (1024, 1024, 1),
)


class SeparableBlock(nn.Module):
    """Depthwise 3x3 then pointwise convolution, each with batch norm and PReLU."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels_in, channels_in, 3, stride, 1, groups=channels_in, bias=False)
        self.norm1 = nn.BatchNorm2d(channels_in, eps=1e-3)
        self.act1 = nn.PReLU(channels_in)
        self.pointwise = nn.Conv2d(channels_in, channels_out, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out, eps=1e-3)
        self.act2 = nn.PReLU(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, H, W) to (N, C_out, H / stride, W / stride)."""
        x = self.act1(self.norm1(self.depthwise(x)))
        out: Tensor = self.act2(self.norm2(self.pointwise(x)))
        return out


class MobileFace(nn.Module):
    """MobileFaceNet as in SFace (OpenCV Zoo), with average pooling in place of its identity head.

    The stem has stride 1, so a 64 px face keeps an 8 x 8 map until the last two blocks.
    Sources: Chen et al. 2018 (MobileFaceNets); Zhong et al. 2021 (SFace).

    Args:
        in_chans: Channels of the input.
    """

    num_features = _BLOCKS[-1][1]

    def __init__(self, *, in_chans: int = 1) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_chans, 32, 3, 1, 1, bias=False)
        self.stem_norm = nn.BatchNorm2d(32, eps=1e-3)
        self.stem_act = nn.PReLU(32)
        self.blocks = nn.Sequential(*[SeparableBlock(*block) for block in _BLOCKS])

    def stages(self) -> list[nn.Module]:
        """Return stem and blocks in order, for freezing from the input upwards."""
        return [nn.ModuleList([self.stem, self.stem_norm, self.stem_act]), *self.blocks]

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, S, S) to (N, 1024), the mean of the last S / 16 x S / 16 map."""
        features: Tensor = self.blocks(self.stem_act(self.stem_norm(self.stem(x))))
        return features.mean(dim=(2, 3))
