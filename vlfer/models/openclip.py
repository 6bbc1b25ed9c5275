"""Backbones built by open_clip: a tag, a local checkpoint or a folder."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import open_clip
import torch
from open_clip.model import set_model_preprocess_cfg
from open_clip.tokenizer import HFTokenizer
from safetensors import SafetensorError
from torch import Tensor, nn

from vlfer.errors import BackboneError, did_you_mean
from vlfer.models import hub
from vlfer.models.preprocess import triple
from vlfer.models.registry import (
    LORA_OPEN_CLIP_VIT,
    LORA_TIMM_ANY,
    BackboneSpec,
    Interpolation,
)
from vlfer.models.tower import TowerEncoder
from vlfer.models.weights import sha256_of_file

_log = logging.getLogger(__name__)
_LOAD_ERRORS = (RuntimeError, OSError, ValueError, KeyError, TypeError, AttributeError, EOFError,
                pickle.UnpicklingError, SafetensorError)  # fmt: skip
_TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json|spiece.model|tokenizer.model|vocab.json|vocab.txt")


class OpenClipEncoder(TowerEncoder):
    """An open_clip model with its tokenizer."""

    def __init__(
        self,
        model: nn.Module,
        *,
        tokenizer: Callable[..., Tensor],
        spec: BackboneSpec,
        weights_sha256: str,
        device: torch.device,
        adapter_sha256: str = "none",
    ) -> None:
        super().__init__(model, spec=spec, weights_sha256=weights_sha256, device=device, adapter_sha256=adapter_sha256)
        self._tokenizer = tokenizer
        # A Hugging Face text tower masks padding; open_clip's own towers need the full length.
        self.cuts_padding = isinstance(getattr(model, "text", None), open_clip.hf_model.HFTextEncoder)

    def _forward_images(self, batch: Tensor) -> Tensor:
        return cast(Tensor, self.model.encode_image(batch))  # type: ignore[operator]

    def _forward_texts(self, tokens: Tensor) -> Tensor:
        return cast(Tensor, self.model.encode_text(tokens))  # type: ignore[operator]

    def _tokenize(self, sentences: list[str]) -> tuple[Tensor, list[int]]:
        return self._tokenizer(sentences), token_counts(self._tokenizer, sentences)


def token_counts(tokenizer: Any, sentences: list[str]) -> list[int]:
    """Return how many tokens each sentence has before any cut, start and end marks included."""
    cleaned = [tokenizer.clean_fn(sentence) for sentence in sentences]
    if isinstance(tokenizer, HFTokenizer):
        ids = tokenizer.tokenizer(cleaned, truncation=False, padding=False, verbose=False)["input_ids"]
        return [len(row) for row in ids]
    return [len(tokenizer.encode(sentence)) + 2 for sentence in cleaned]


def load_open_clip(spec: BackboneSpec, *, device: torch.device, cache_dir: Path | None = None) -> OpenClipEncoder:
    """Load an open_clip backbone by tag, file or folder.

    Raises:
        BackboneError: If architecture or tag is unknown, the weights are missing and cannot be downloaded, or the file
            does not fit the architecture.
    """
    if spec.origin == "folder":
        return _load_folder(spec, device=device)
    known = open_clip.list_models()
    if spec.source not in known:
        raise BackboneError(
            f"The open_clip architecture {spec.source!r} is unknown.",
            why=did_you_mean(spec.source, known) or f"open_clip has {len(known)} architectures.",
            fix='python -c "import open_clip; print(open_clip.list_models())"',
        )
    settings = _tag_settings(spec) if spec.tag else _shared_settings(spec.source)
    if spec.origin == "file":
        weights = Path(spec.file)
    else:
        weights = hub.fetch_open_clip(settings, backbone=spec.name, cache_dir=cache_dir)
    architecture = open_clip.get_model_config(spec.source)
    overrides = _local_text_tower(architecture, spec=spec, cache_dir=cache_dir)
    # open_clip only warns where a tag was trained with another activation than the architecture names; forcing it
    # gives the numbers that were published.
    quick_gelu = bool(settings.get("quick_gelu", False))
    model = _built(
        spec, weights,
        lambda: open_clip.create_model(
            spec.source, pretrained=str(weights), force_quick_gelu=quick_gelu,
            force_preprocess_cfg=_preprocess_of(settings), **overrides,
        ),
    )  # fmt: skip
    tokenizer = _tokenizer(architecture, spec=spec, cache_dir=cache_dir)
    return OpenClipEncoder(
        model, tokenizer=tokenizer, spec=completed(spec, model), weights_sha256=sha256_of_file(weights), device=device
    )


def _load_folder(spec: BackboneSpec, *, device: torch.device) -> OpenClipEncoder:
    folder = Path(spec.source)
    weights = open_clip.factory._find_checkpoint_in_dir(folder)
    if weights is None:
        raise BackboneError(f"The folder {spec.source!r} holds no weights.", why="open_clip would start it at random.")
    if read_config(folder)["model_cfg"]["text_cfg"].get("hf_tokenizer_name") and hub.missing_files(
        folder, _TOKENIZER_FILES[-1:]
    ):
        raise BackboneError(f"The folder {spec.source!r} holds no tokenizer.", why="Its config says it needs one.")
    name = f"local-dir:{folder}"
    model = _built(spec, Path(weights), lambda: open_clip.create_model(name, require_pretrained=True))
    tokenizer = _built(spec, folder, lambda: open_clip.get_tokenizer(name))
    return OpenClipEncoder(
        model, tokenizer=tokenizer, spec=completed(spec, model), weights_sha256=sha256_of_file(Path(weights)),
        device=device,
    )  # fmt: skip


def _built(spec: BackboneSpec, path: Path, build: Callable[[], Any]) -> Any:
    """Run a loader of open_clip; its many exceptions become one."""
    try:
        return build()
    except _LOAD_ERRORS as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise BackboneError(
            f"The backbone {spec.name!r} cannot be loaded from {str(path)!r}.",
            why=f"{type(error).__name__}: {reason}",
            fix="check that file and architecture belong together, or --backbone bundled",
        ) from error


def _tag_settings(spec: BackboneSpec) -> Mapping[str, Any]:
    settings: dict[str, Any] = open_clip.get_pretrained_cfg(spec.source, spec.tag)
    if not settings:
        tags = open_clip.list_pretrained_tags_by_model(spec.source)
        raise BackboneError(
            f"The open_clip architecture {spec.source!r} has no weights called {spec.tag!r}.",
            why=f"{did_you_mean(spec.tag, tags)} Known: {', '.join(tags)}.".strip(),
            fix=f"--backbone open_clip:{spec.source}/{tags[0]}" if tags else "--backbone bundled",
        )
    return settings


def _shared_settings(architecture: str) -> Mapping[str, Any]:
    """Return the preprocessing that all published weights of an architecture share, or nothing where they differ.

    open_clip itself would take CLIP's mean and std for a local file of any architecture. The activation is left to
    the architecture, with a warning where some of its published weights want the other one.
    """
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    published = {tag: open_clip.get_pretrained_cfg(architecture, tag) for tag in tags}
    other = [tag for tag, settings in published.items() if settings.get("quick_gelu")]
    if other and not open_clip.get_model_config(architecture).get("quick_gelu"):
        _log.warning(
            "If the file holds the weights %s, name it open_clip:%s/%s@FILE: they need another activation.",
            " or ".join(other), architecture, other[0],
        )  # fmt: skip
    seen = [_preprocess_of(settings) for settings in published.values()]
    return seen[0] if seen and all(settings == seen[0] for settings in seen) else {}


def _preprocess_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: settings[key] for key in ("mean", "std", "interpolation", "resize_mode") if key in settings}


def _local_text_tower(architecture: Mapping[str, Any], *, spec: BackboneSpec, cache_dir: Path | None) -> dict[str, Any]:
    """Point a Hugging Face text tower at a local copy of its config, so that building it asks no server."""
    text = dict(architecture["text_cfg"])
    name = text.get("hf_model_name")
    if not name or Path(name).is_dir():
        return {}
    folder = hub.fetch_repository(name, backbone=spec.name, needs=("config.json",), cache_dir=cache_dir)
    return {"text_cfg": {**text, "hf_model_name": str(folder), "hf_model_pretrained": False}}


def _tokenizer(architecture: Mapping[str, Any], *, spec: BackboneSpec, cache_dir: Path | None) -> Any:
    text = architecture["text_cfg"]
    name = text.get("hf_tokenizer_name")
    if not name:
        return open_clip.get_tokenizer(spec.source)
    folder = Path(name)
    if not folder.is_dir():
        folder = hub.fetch_repository(name, backbone=spec.name, needs=_TOKENIZER_FILES, cache_dir=cache_dir)
    return hf_tokenizer(text, folder=folder)


def hf_tokenizer(text_config: Mapping[str, Any], *, folder: Path) -> HFTokenizer:
    """Build the tokenizer of an open_clip text config from a local folder."""
    return HFTokenizer(
        str(folder),
        context_length=text_config.get("context_length", open_clip.tokenizer.DEFAULT_CONTEXT_LENGTH),
        tokenizer_mode=text_config.get("tokenizer_mode"),
        **(text_config.get("tokenizer_kwargs") or {}),
    )


def completed(spec: BackboneSpec, model: nn.Module) -> BackboneSpec:
    """Fill a row with the preprocessing and dimension that a built open_clip model carries.

    Raises:
        BackboneError: If the model wants pixels that are not square, or another interpolation than vlfer knows.
    """
    visual = cast(Any, model.visual)
    settings = visual.preprocess_cfg
    size, interpolation = settings["size"], settings["interpolation"]
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) != 1 or interpolation not in ("bilinear", "bicubic"):
        raise BackboneError(
            f"The backbone {spec.name!r} wants pixels of size {size} by {interpolation} interpolation.",
            why="Only square input, bilinear or bicubic, is supported.",
        )
    is_timm = isinstance(visual, open_clip.timm_model.TimmModel)
    return replace(
        spec,
        image_size=sides.pop(),
        mean=triple(settings["mean"]),
        std=triple(settings["std"]),
        interpolation=cast(Interpolation, interpolation),
        dimension=spec.dimension or embedding_dimension(model),
        lora_targets=spec.lora_targets or (LORA_TIMM_ANY if is_timm else LORA_OPEN_CLIP_VIT),
    )


def embedding_dimension(model: nn.Module) -> int:
    """Return D of an open_clip model, measured with one blank image."""
    visual = cast(Any, model.visual)
    size = visual.image_size
    height, width = (size, size) if isinstance(size, int) else size
    was_training = model.training
    with torch.inference_mode():
        features = model.eval().encode_image(torch.zeros(1, 3, height, width))  # type: ignore[operator]
    model.train(was_training)
    return int(features.shape[-1])


def read_config(folder: Path) -> dict[str, Any]:
    """Read ``open_clip_config.json``.

    Raises:
        BackboneError: If it is missing or is not the JSON that open_clip writes.
    """
    path = folder / "open_clip_config.json"
    try:
        config = json.loads(path.read_text("utf-8"))
        keys = config["model_cfg"].keys() & {"embed_dim", "vision_cfg", "text_cfg"}
        if len(keys) < 3 or not isinstance(config["preprocess_cfg"], dict):
            raise KeyError("embed_dim, vision_cfg or text_cfg")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise BackboneError(f"The model config {str(path)!r} cannot be read.", why=reason) from error
    return cast(dict[str, Any], config)


def set_preprocessing(model: nn.Module, settings: Mapping[str, Any]) -> None:
    """Store preprocessing on a model the way open_clip does."""
    set_model_preprocess_cfg(model, dict(settings))
