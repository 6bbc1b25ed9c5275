"""LoRA of image towers by PEFT: inject, store, merge; and putting a whole adapter on an encoder.

Adapters are merged into the weights before anything is served: an unmerged one costs time, and on
``nn.MultiheadAttention`` is not safe from several threads.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vlfer.errors import AdapterError, ConfigError
from vlfer.models.adapter import (
    LORA_CONFIG,
    LORA_WEIGHTS,
    MAP_NAME,
    PROMPT_NAME,
    RESIDUAL_NAME,
    TEMPORAL_NAME,
    Adapter,
    check_fits,
)
from vlfer.models.label_residual import LabelResidual
from vlfer.models.prompt_context import PromptContext
from vlfer.models.temporal import load_temporal
from vlfer.models.tower import space_id

if TYPE_CHECKING:
    from vlfer.models.tower import TowerEncoder

#: What the names of layers of an image tower begin with, in open_clip and in transformers.
IMAGE_TOWERS = ("visual.", "vision_model.")
_PREFIX = "base_model.model."
_CAN = (nn.Linear, nn.Conv2d, nn.MultiheadAttention)


def matching_layers(
    model: nn.Module, targets: str | Sequence[str], *, within: tuple[str, ...] = IMAGE_TOWERS
) -> list[str]:
    """Return the names of the layers that LoRA would update.

    Args:
        model: The whole dual encoder.
        targets: A regular expression for full names, or names that a layer's name ends with.
        within: What the names of layers that may change begin with.

    Raises:
        ConfigError: If it matches nothing, something that LoRA cannot update, or the text tower, whose stored vectors
            would go stale.
    """
    try:
        names = [name for name, _ in model.named_modules() if _fits(name, targets)]
    except re.error as error:
        raise ConfigError(f"train.lora.targets is no regular expression: {error}.") from error
    modules = dict(model.named_modules())
    if not names:
        known = sorted(
            {name.rsplit(".", 1)[-1] for name, m in modules.items() if isinstance(m, _CAN) and name.startswith(within)}
        )
        raise ConfigError(
            f"train.lora.targets {targets!r} matches no layer.",
            why=f"The image tower has layers called {', '.join(known[:20])}.",
            fix="leave it out: the registry knows the targets of each backbone",
        )
    text = [name for name in names if not name.startswith(within)]
    if text:
        raise ConfigError(
            f"train.lora.targets matches {len(text)} layers outside the image tower, the first {text[0]!r}.",
            why="Texts would move too, and every stored text vector with them.",
            fix=r"start the expression with visual\. (open_clip) or vision_model\. (transformers)",
        )
    wrong = [name for name in names if not isinstance(modules[name], _CAN)]
    if wrong:
        raise ConfigError(
            f"train.lora.targets matches {wrong[0]!r}, a {type(modules[wrong[0]]).__name__}.",
            why="LoRA updates linear layers, convolutions and attention.",
        )
    return names


def _fits(name: str, targets: str | Sequence[str]) -> bool:
    if isinstance(targets, str):
        return re.fullmatch(targets, name) is not None
    return any(name == target or name.endswith(f".{target}") for target in targets)


def add_lora(
    model: nn.Module,
    *,
    targets: str | Sequence[str],
    rank: int,
    alpha: float,
    dropout: float = 0.0,
    dora: bool = False,
    within: tuple[str, ...] = IMAGE_TOWERS,
) -> LoraConfig:
    """Put fresh LoRA layers into a model; only they are trainable afterwards.

    Args:
        model: The whole dual encoder, changed in place.
        targets: See `matching_layers`.
        rank: r.
        alpha: The update counts alpha / rank.
        dropout: Before the update, in training.
        dora: Split weights into length and direction (Liu et al., 2024).
        within: See `matching_layers`.

    Raises:
        ConfigError: If the targets are wrong, or DoRA does not apply to them.
    """
    names = matching_layers(model, targets, within=within)
    modules = dict(model.named_modules())
    if dora and any(isinstance(modules[name], nn.MultiheadAttention) for name in names):
        raise ConfigError("train.lora.dora does not apply to nn.MultiheadAttention.", fix="train.lora.dora=false")
    grouped = [n for n in names if isinstance(modules[n], nn.Conv2d) and rank % cast(nn.Conv2d, modules[n]).groups]
    if grouped:
        raise ConfigError(
            f"The convolution {grouped[0]!r} has {cast(nn.Conv2d, modules[grouped[0]]).groups} groups.",
            why=f"A LoRA rank of {rank} cannot be divided among them.",
            fix="leave grouped convolutions out of train.lora.targets",
        )
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    chosen = targets if isinstance(targets, str) else list(targets)
    config = LoraConfig(r=rank, lora_alpha=int(alpha), lora_dropout=dropout, target_modules=chosen, use_dora=dora)
    inject_adapter_in_model(config, model)
    return config


def lora_layers(model: nn.Module) -> Iterator[tuple[str, LoraLayer]]:
    """Yield the LoRA layers of a model with their names."""
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            yield name, module


def lora_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the trainable tensors of all LoRA layers by name."""
    return {name: p for name, p in model.named_parameters() if ".lora_" in name}


def lora_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the LoRA tensors as PEFT names them in ``adapter_model.safetensors``."""
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {f"{_PREFIX}{key}": value.detach().cpu().contiguous().clone() for key, value in state.items()}


def lora_config_json(config: LoraConfig, *, backbone: str) -> str:
    """Return the text of ``adapter_config.json``."""
    content = {key: sorted(v) if isinstance(v, set) else v for key, v in cast(Any, config).to_dict().items()}
    content |= {"base_model_name_or_path": backbone, "inference_mode": True}
    return json.dumps(content, indent=2, sort_keys=True, default=str)


def load_lora(model: nn.Module, adapter: Adapter) -> None:
    """Put the LoRA of an adapter into a model, unmerged.

    Raises:
        AdapterError: If its tensors do not fit the model.
    """
    try:
        config = LoraConfig.from_pretrained(str(adapter.folder))
        state = load_file(adapter.folder / LORA_WEIGHTS)
        inject_adapter_in_model(config, model)
        own = {key.removeprefix(_PREFIX): value for key, value in state.items()}
        expected = get_peft_model_state_dict(model, save_embedding_layers=False)
        if own.keys() != expected.keys():
            strange = sorted(own.keys() ^ expected.keys())
            raise ValueError(f"{len(strange)} tensors do not match, the first {strange[0]!r}")
        set_peft_model_state_dict(model, own)
    except (SafetensorError, ValueError, TypeError, KeyError, RuntimeError, OSError) as error:
        reason = (str(error).strip().splitlines() or [""])[0][:300]
        raise AdapterError(
            f"The LoRA of the adapter {adapter.name!r} does not fit the backbone.",
            why=f"{type(error).__name__}: {reason}",
            fix="copy the folder again, or train it again with vlfer finetune",
        ) from error


def merge_lora(module: nn.Module) -> nn.Module:
    """Fold every LoRA update into the layer it updates and remove PEFT's wrappers, in place."""
    for name, child in list(module.named_children()):
        if not isinstance(child, LoraLayer):
            merge_lora(child)
            continue
        layer = cast(Any, child)
        if hasattr(layer, "unload_and_optionally_merge_module"):  # attention keeps its output projection wrapped
            base = layer.unload_and_optionally_merge_module(merge=True, safe_merge=False, adapter_names=None)
        else:
            layer.merge()
            base = layer.get_base_layer()
        setattr(module, name, base)
    if hasattr(module, "peft_config"):
        del module.peft_config
    return module


def apply_adapter(encoder: TowerEncoder, adapter: Adapter) -> None:
    """Put an adapter on an encoder: LoRA merged, its other parts set, a space of its own.

    Args:
        encoder: As loaded; changed in place.
        adapter: Verified by `vlfer.models.adapter.load_adapter`.

    Raises:
        AdapterError: If it was made for another backbone or preprocessing, or its tensors do not fit.
    """
    check_fits(adapter, encoder)
    if adapter.has(LORA_CONFIG):
        load_lora(encoder.model, adapter)
        merge_lora(encoder.model)
        encoder.model.eval().requires_grad_(False).to(encoder.device)
    if adapter.has(TEMPORAL_NAME):
        temporal = load_temporal(adapter.folder / TEMPORAL_NAME)
        if temporal.dimension != encoder.dimension:
            raise AdapterError(
                f"The temporal transformer of {adapter.name!r} reads {temporal.dimension} dimensions.",
                why=f"The backbone gives {encoder.dimension}.",
            )
        encoder.temporal = temporal.to(encoder.device).requires_grad_(False)
    if adapter.has(PROMPT_NAME):
        encoder.context = PromptContext(_matrix(adapter, PROMPT_NAME, "context").to(encoder.device))
        encoder.context.attach(encoder)
    if adapter.has(RESIDUAL_NAME):
        encoder.residual = _residual(adapter, dimension=encoder.dimension).to(encoder.device).requires_grad_(False)
    if adapter.has(MAP_NAME):
        encoder.map = _matrix(adapter, MAP_NAME, "map").to(encoder.device)
    temperature = adapter.card.get("temperature")
    if temperature is not None:
        encoder.temperature = float(temperature)
    encoder.adapter = adapter
    encoder.space = space_id(encoder.spec.name, weights_sha256=encoder.weights_sha256, adapter_sha256=adapter.sha256)


def _matrix(adapter: Adapter, file: str, key: str) -> Tensor:
    with _damage_told(adapter, file):
        tensor = load_file(adapter.folder / file)[key].float()
        if tensor.ndim != 2 or not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{key} is {tuple(tensor.shape)} or not finite")
    return tensor


def _residual(adapter: Adapter, *, dimension: int) -> LabelResidual:
    with _damage_told(adapter, RESIDUAL_NAME):
        residual = LabelResidual.from_state(load_file(adapter.folder / RESIDUAL_NAME))
        if residual.keys.shape[1] != dimension:
            raise ValueError(f"it moves {residual.keys.shape[1]} dimensions and the backbone gives {dimension}")
    return residual


@contextmanager
def _damage_told(adapter: Adapter, file: str) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise AdapterError(f"The file {file} of the adapter {adapter.name!r} is damaged: {error}.") from error
