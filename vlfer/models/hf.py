"""Backbones built by transformers: CLIP, SigLIP and SigLIP 2 of fixed resolution, by hub name or local folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from safetensors import SafetensorError
from torch import Tensor, nn

from vlfer.errors import BackboneError
from vlfer.models import hub
from vlfer.models.preprocess import triple
from vlfer.models.registry import LORA_TRANSFORMERS, BackboneSpec, Interpolation
from vlfer.models.tower import TowerEncoder
from vlfer.models.weights import sha256_of_files

_NEEDS = ("config.json", "preprocessor_config.json|processor_config.json", "*.safetensors|pytorch_model*.bin",
          "tokenizer.json|spiece.model|tokenizer.model|vocab.json")  # fmt: skip
_CLASSES: dict[str, Any] = {"clip": transformers.CLIPModel, "siglip": transformers.SiglipModel}
_PILLOW: dict[int, Interpolation] = {2: "bilinear", 3: "bicubic"}


class TransformersEncoder(TowerEncoder):
    """A transformers CLIP or SigLIP model with its tokenizer."""

    def __init__(
        self,
        model: nn.Module,
        *,
        tokenizer: Any,
        spec: BackboneSpec,
        weights_sha256: str,
        device: torch.device,
        adapter_sha256: str = "none",
    ) -> None:
        super().__init__(model, spec=spec, weights_sha256=weights_sha256, device=device, adapter_sha256=adapter_sha256)
        config = cast(Any, model).config
        self._tokenizer = tokenizer
        self._limit = int(config.text_config.max_position_embeddings)
        # SigLIP was trained on lower-case text padded to the full length and reads its last position; CLIP reads the
        # end mark behind a causal mask, so that padding after it is never seen.
        self._is_siglip = config.model_type == "siglip"
        self.cuts_padding = not self._is_siglip

    def _forward_images(self, batch: Tensor) -> Tensor:
        return _pooled(self.model.get_image_features(pixel_values=batch))  # type: ignore[operator]

    def _forward_texts(self, tokens: Tensor) -> Tensor:
        return _pooled(self.model.get_text_features(input_ids=tokens))  # type: ignore[operator]

    def _tokenize(self, sentences: list[str]) -> tuple[Tensor, list[int]]:
        if self._is_siglip:
            sentences = [sentence.lower() for sentence in sentences]
        free = self._tokenizer(sentences, truncation=False, padding=False, verbose=False)["input_ids"]
        tokens = self._tokenizer(
            sentences, padding="max_length", truncation=True, max_length=self._limit, padding_side="right",
            return_tensors="pt",
        )["input_ids"]  # fmt: skip
        return cast(Tensor, tokens), [len(row) for row in free]


def _pooled(output: Any) -> Tensor:
    return cast(Tensor, output if isinstance(output, Tensor) else output.pooler_output)


def load_transformers(
    spec: BackboneSpec, *, device: torch.device, cache_dir: Path | None = None
) -> TransformersEncoder:
    """Load a transformers backbone by hub name or folder.

    Raises:
        BackboneError: If the files are missing and cannot be downloaded, are damaged, or hold another kind of model.
    """
    folder = Path(spec.source)
    if spec.origin == "hub":
        folder = hub.fetch_repository(
            spec.source, backbone=spec.name, needs=_NEEDS, with_weights=True, cache_dir=cache_dir
        )
    lost = hub.missing_files(folder, _NEEDS)
    if lost:  # without its files transformers would build a tokenizer of no words, and say nothing
        raise BackboneError(
            f"The folder {str(folder)!r} of backbone {spec.name!r} lacks {lost[0].replace('|', ' or ')}.",
            why="A model folder holds config, weights, image preprocessing and tokenizer.",
            fix="download the model again, or --backbone bundled",
        )
    weights = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    try:
        model = _load_model(spec, folder)
        processor = transformers.AutoImageProcessor.from_pretrained(folder, local_files_only=True)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, SafetensorError) as error:
        if isinstance(error, BackboneError):
            raise
        reason = (str(error).strip().splitlines() or [""])[0][:300]
        raise BackboneError(
            f"The backbone {spec.name!r} cannot be loaded from {str(folder)!r}.",
            why=f"{type(error).__name__}: {reason}",
            fix="download the model again, or --backbone bundled",
        ) from error
    return TransformersEncoder(
        model, tokenizer=tokenizer, spec=_completed(spec, model, processor),
        weights_sha256=sha256_of_files(weights), device=device,
    )  # fmt: skip


def _load_model(spec: BackboneSpec, folder: Path) -> nn.Module:
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    kind = _CLASSES.get(config.model_type)
    if kind is None:
        raise BackboneError(
            f"The backbone {spec.name!r} is a {config.model_type!r} model.",
            why="Supported are CLIP, SigLIP, and SigLIP 2 of a fixed resolution (not NaFlex).",
            fix="--backbone google/siglip2-base-patch16-224",
        )
    with loads_quietly():
        model, info = kind.from_pretrained(folder, local_files_only=True, dtype=torch.float32, output_loading_info=True)
    missing = sorted(info["missing_keys"])
    if missing:
        raise BackboneError(
            f"The weights of backbone {spec.name!r} lack {len(missing)} tensors, the first {missing[0]!r}.",
            why="They would be random.",
            fix="download the model again.",
        )
    return cast(nn.Module, model)


@contextlib.contextmanager
def loads_quietly() -> Iterator[None]:
    """Keep the library's bars and reports off stderr while weights load, and leave its settings as they were."""
    logs = transformers.utils.logging
    had_bars, verbosity = logs.is_progress_bar_enabled(), logs.get_verbosity()
    logs.disable_progress_bar()
    logs.set_verbosity_error()
    try:
        yield
    finally:
        logs.set_verbosity(verbosity)
        if had_bars:
            logs.enable_progress_bar()


def _completed(spec: BackboneSpec, model: nn.Module, processor: Any) -> BackboneSpec:
    """Fill a row with the preprocessing that lies beside the weights."""
    config = cast(Any, model).config
    size = int(config.vision_config.image_size)
    interpolation = _PILLOW.get(int(processor.resample))
    if interpolation is None:
        raise BackboneError(
            f"The backbone {spec.name!r} resizes by Pillow's filter {int(processor.resample)}.",
            why="Supported are bilinear (2) and bicubic (3).",
        )
    dimension = int(getattr(config, "projection_dim", 0)) if config.model_type == "clip" else 0
    return replace(
        spec,
        image_size=size,
        mean=triple(processor.image_mean if processor.do_normalize else 0.0),
        std=triple(processor.image_std if processor.do_normalize else 1.0),
        interpolation=interpolation,
        dimension=dimension or int(config.vision_config.hidden_size),
        lora_targets=spec.lora_targets or LORA_TRANSFORMERS,
    )
