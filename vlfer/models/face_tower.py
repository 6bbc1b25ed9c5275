"""The image tower of the bundled backbone: one or two small networks look at one face, their features side by side.

A network that starts from face identity (MobileFaceNet) and one that starts from ImageNet (EfficientNet-lite0) err on
different faces, so two small ones read a face better than one of twice the size that is trained on the same pictures.
Registered with timm, so that open_clip builds the tower by its name.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar, Literal, Protocol, cast

import timm
import torch
import torch.nn.functional as F
from timm.models import register_model
from torch import Tensor, nn

from vlfer.models.mobileface import MobileFace
from vlfer.models.threads import one_thread_each

BranchName = Literal["mobileface", "lite0"]
#: Side in pixels at which each network looks at the face.
BRANCH_SIZE: dict[BranchName, int] = {"mobileface": 64, "lite0": 96}
_LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601


class Branch(Protocol):
    """A network from (N, 1, S, S) standardised luminance to (N, num_features)."""

    num_features: int

    def stages(self) -> list[nn.Module]:
        """Return its parts in order, for freezing from the input upwards."""
        ...


class Lite0(nn.Module):
    """EfficientNet-lite0 on one channel, pooled (Tan and Le, 2019; lite: no squeeze-excitation, ReLU6).

    Args:
        drop_path_rate: Stochastic depth in training.
    """

    num_features = 1280

    def __init__(self, *, drop_path_rate: float = 0.0) -> None:
        super().__init__()
        self.net = timm.create_model(
            "tf_efficientnet_lite0", in_chans=1, num_classes=0, drop_path_rate=drop_path_rate, pretrained=False
        )

    def stages(self) -> list[nn.Module]:
        """Return stem, seven groups of blocks, and the last convolution."""
        net = cast(Any, self.net)
        return [nn.ModuleList([net.conv_stem, net.bn1]), *net.blocks, nn.ModuleList([net.conv_head, net.bn2])]

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 1, S, S) to (N, 1280)."""
        out: Tensor = self.net(x)
        return out


def build_branch(name: BranchName, *, drop_path_rate: float = 0.0) -> MobileFace | Lite0:
    """Build one network at random; ``drop_path_rate`` is for training and means nothing to MobileFace."""
    return MobileFace(in_chans=1) if name == "mobileface" else Lite0(drop_path_rate=drop_path_rate)


class FaceTower(nn.Module):
    """Networks side by side on the luminance of one face; colour has no influence by construction.

    Args:
        branches: Which networks, in the order of their features.
    """

    default_cfg: ClassVar[dict[str, Any]] = {"input_size": (3, 96, 96)}  # open_clip asks timm models for it

    def __init__(self, branches: tuple[BranchName, ...]) -> None:
        super().__init__()
        self.branches = nn.ModuleDict({name: build_branch(name) for name in branches})
        self.num_features = sum(cast(Branch, branch).num_features for branch in self.branches.values())
        self.head_hidden_size = self.num_features
        self.image_size = max(BRANCH_SIZE[name] for name in branches)
        self.luminance: Tensor
        self.register_buffer("luminance", torch.tensor(_LUMINANCE).view(1, 3, 1, 1), persistent=False)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Accept that there is no classifier (timm's protocol).

        Raises:
            ValueError: If one is asked for.
        """
        del global_pool
        if num_classes:
            raise ValueError("FaceTower returns features; a classifier goes behind it.")

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 3, S, S) standardised RGB, S = ``image_size``, to (N, num_features)."""
        return self.features_of_grey((x * self.luminance).sum(dim=1, keepdim=True))

    def features_of_grey(self, grey: Tensor) -> Tensor:
        """Map (N, 1, S, S) standardised luminance to (N, num_features)."""
        steps = [partial(branch, at_size(grey, BRANCH_SIZE[name])) for name, branch in self._named()]
        # One face is too little work for a network on two cores; with more, each network fills them by itself.
        beside = len(grey) == 1 and grey.device.type == "cpu" and torch.is_inference_mode_enabled()
        return torch.cat(one_thread_each(steps) if beside else [step() for step in steps], dim=1)

    def _named(self) -> list[tuple[BranchName, nn.Module]]:
        return [(cast(BranchName, name), branch) for name, branch in self.branches.items()]


def at_size(grey: Tensor, size: int) -> Tensor:
    """Resize (N, 1, S, S) to (N, 1, size, size), antialiased."""
    if grey.shape[-1] == size:
        return grey
    return F.interpolate(grey, (size, size), mode="bilinear", antialias=True, align_corners=False)


def timm_name(branches: tuple[BranchName, ...]) -> str:
    """Return the name by which timm, and so open_clip, builds the tower of these branches."""
    return "vlfer_face_" + ("_".join(branches))


def _build(pretrained: bool, branches: tuple[BranchName, ...]) -> FaceTower:
    if pretrained:
        raise ValueError("This tower has no timm weights; load a vlfer checkpoint.")
    return FaceTower(branches)


@register_model
def vlfer_face_mobileface(pretrained: bool = False, **_: Any) -> FaceTower:
    """Build the tower of MobileFaceNet alone by its timm name."""
    return _build(pretrained, ("mobileface",))


@register_model
def vlfer_face_lite0(pretrained: bool = False, **_: Any) -> FaceTower:
    """Build the tower of EfficientNet-lite0 alone by its timm name."""
    return _build(pretrained, ("lite0",))


@register_model
def vlfer_face_mobileface_lite0(pretrained: bool = False, **_: Any) -> FaceTower:
    """Build the tower of both networks by its timm name."""
    return _build(pretrained, ("mobileface", "lite0"))
