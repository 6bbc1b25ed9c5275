"""Image towers of vlfer's own, registered with timm so that open_clip builds them by name."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from timm.models import register_model
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
        num_classes: Size of the linear head; 0 returns the pooled features.
        in_chans: Channels of the input.
        drop_rate: Dropout before the head.
    """

    default_cfg: ClassVar[dict[str, Any]] = {"input_size": (3, 64, 64)}  # open_clip asks timm models for it
    num_features = _BLOCKS[-1][1]
    head_hidden_size = num_features

    def __init__(self, num_classes: int = 0, in_chans: int = 3, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_chans, 32, 3, 1, 1, bias=False)
        self.stem_norm = nn.BatchNorm2d(32, eps=1e-3)
        self.stem_act = nn.PReLU(32)
        self.blocks = nn.Sequential(*[SeparableBlock(*block) for block in _BLOCKS])
        self.dropout = nn.Dropout(drop_rate)
        self.head: nn.Module = nn.Identity()
        self.num_classes = num_classes
        self.reset_classifier(num_classes)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the linear head; 0 removes it (timm's protocol)."""
        del global_pool
        self.num_classes = num_classes
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def get_classifier(self) -> nn.Module:
        """Return the head (timm's protocol)."""
        return self.head

    def stages(self) -> list[nn.Module]:
        """Return stem and blocks in order, for freezing from the input upwards."""
        return [nn.ModuleList([self.stem, self.stem_norm, self.stem_act]), *self.blocks]

    def forward_features(self, x: Tensor) -> Tensor:
        """Map (N, C, S, S) to the last feature map (N, 1024, S / 16, S / 16)."""
        return self.blocks(self.stem_act(self.stem_norm(self.stem(x))))  # type: ignore[no-any-return]

    def forward_head(self, x: Tensor, *, pre_logits: bool = False) -> Tensor:
        """Pool a feature map to (N, 1024), then apply the head unless ``pre_logits``."""
        pooled = self.dropout(x.mean(dim=(2, 3)))
        out: Tensor = pooled if pre_logits else self.head(pooled)
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, S, S) to (N, num_classes), or (N, 1024) without a head."""
        return self.forward_head(self.forward_features(x))


@register_model
def vlfer_mobileface(pretrained: bool = False, **kwargs: Any) -> MobileFace:
    """Build a MobileFace tower by its timm name; weights come from a vlfer checkpoint, never from a hub."""
    if pretrained:
        raise ValueError("vlfer_mobileface has no timm weights; load a vlfer checkpoint.")
    for ignored in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir", "features_only", "drop_path_rate"):
        kwargs.pop(ignored, None)
    kwargs.pop("global_pool", None)
    return MobileFace(**{key: value for key, value in kwargs.items() if value is not None})


def widen_grey_stem(weight: Tensor) -> Tensor:
    """Turn stem weights for one luminance channel, (O, 1, 3, 3), into weights for RGB, (O, 3, 3, 3).

    The convolution of an RGB image then equals the one of its BT.601 luminance exactly: colour has no influence.
    """
    luma = torch.tensor([0.299, 0.587, 0.114], dtype=weight.dtype).view(1, 3, 1, 1)
    return weight * luma
