"""The same random weights in open_clip and in transformers give the same embeddings."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from open_clip.model import CLIP, CustomTextCLIP
from safetensors.torch import load_file, save_file
from skimage.data import astronaut
from timm.models import register_model
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from vlfer.models.encoder import load_encoder

FACE = astronaut()[:240, 110:350]
CROPS = np.stack([FACE, FACE[:, ::-1], np.clip(FACE.astype(int) + 40, 0, 255).astype(np.uint8)])
SENTENCES = ["happiness", "a person who looks sad and is about to cry", "furious shouting", "calm"]
State = dict[str, Tensor]


@register_model
def vlfer_test_siglip(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """A SigLIP image tower of 32 px, as timm builds it."""
    return VisionTransformer(
        img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, mlp_ratio=2, class_token=False,
        global_pool="map", num_classes=kwargs.get("num_classes", 0), act_layer="gelu_tanh",
    )  # fmt: skip


def _qkv(state: State, prefix: str, kind: str) -> Tensor:
    return torch.cat([state[f"{prefix}.{part}_proj.{kind}"] for part in "qkv"])


def _blocks(state: State, source: str, target: str, *, names: dict[str, str]) -> State:
    """Convert two transformer layers; ``names`` says how the target library calls their parts."""
    out: State = {}
    for layer in range(2):
        here, there = f"{source}.{layer}", f"{target}.{layer}"
        for kind in ("weight", "bias"):
            out[f"{there}.{names['qkv']}{kind}"] = _qkv(state, f"{here}.self_attn", kind)
            for old in ("self_attn.out_proj", "layer_norm1", "layer_norm2", "mlp.fc1", "mlp.fc2"):
                out[f"{there}.{names[old]}.{kind}"] = state[f"{here}.{old}.{kind}"]
    return out


OPEN_CLIP_NAMES = {
    "qkv": "attn.in_proj_", "self_attn.out_proj": "attn.out_proj", "layer_norm1": "ln_1", "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
}  # fmt: skip
TIMM_NAMES = {
    "qkv": "attn.qkv.", "self_attn.out_proj": "attn.proj", "layer_norm1": "norm1", "layer_norm2": "norm2",
    "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2",
}  # fmt: skip


def clip_to_open_clip(state: State) -> State:
    """Rename the weights of a transformers CLIP."""
    vision, text = "vision_model", "text_model"
    out = {
        "logit_scale": state["logit_scale"],
        "visual.class_embedding": state[f"{vision}.embeddings.class_embedding"],
        "visual.conv1.weight": state[f"{vision}.embeddings.patch_embedding.weight"],
        "visual.positional_embedding": state[f"{vision}.embeddings.position_embedding.weight"],
        "visual.proj": state["visual_projection.weight"].T,
        "token_embedding.weight": state[f"{text}.embeddings.token_embedding.weight"],
        "positional_embedding": state[f"{text}.embeddings.position_embedding.weight"],
        "text_projection": state["text_projection.weight"].T,
    }
    for kind in ("weight", "bias"):
        out[f"visual.ln_pre.{kind}"] = state[f"{vision}.pre_layrnorm.{kind}"]
        out[f"visual.ln_post.{kind}"] = state[f"{vision}.post_layernorm.{kind}"]
        out[f"ln_final.{kind}"] = state[f"{text}.final_layer_norm.{kind}"]
    out |= _blocks(state, f"{vision}.encoder.layers", "visual.transformer.resblocks", names=OPEN_CLIP_NAMES)
    out |= _blocks(state, f"{text}.encoder.layers", "transformer.resblocks", names=OPEN_CLIP_NAMES)
    return out


def siglip_to_open_clip(state: State) -> State:
    """Rename the weights of a transformers SigLIP to open_clip's timm image tower and own text tower."""
    vision, text, pool = "vision_model", "text_model", "visual.trunk.attn_pool"
    head = f"{vision}.head"
    out = {
        "logit_scale": state["logit_scale"].squeeze(),
        "logit_bias": state["logit_bias"].squeeze(),
        "visual.trunk.pos_embed": state[f"{vision}.embeddings.position_embedding.weight"][None],
        f"{pool}.latent": state[f"{head}.probe"],
        "text.token_embedding.weight": state[f"{text}.embeddings.token_embedding.weight"],
        "text.positional_embedding": state[f"{text}.embeddings.position_embedding.weight"],
    }
    for kind in ("weight", "bias"):
        inputs = state[f"{head}.attention.in_proj_{kind}"]
        out[f"{pool}.q.{kind}"], out[f"{pool}.kv.{kind}"] = inputs[:32], inputs[32:]
        out[f"{pool}.proj.{kind}"] = state[f"{head}.attention.out_proj.{kind}"]
        out[f"{pool}.norm.{kind}"] = state[f"{head}.layernorm.{kind}"]
        out[f"{pool}.mlp.fc1.{kind}"] = state[f"{head}.mlp.fc1.{kind}"]
        out[f"{pool}.mlp.fc2.{kind}"] = state[f"{head}.mlp.fc2.{kind}"]
        out[f"visual.trunk.patch_embed.proj.{kind}"] = state[f"{vision}.embeddings.patch_embedding.{kind}"]
        out[f"visual.trunk.norm.{kind}"] = state[f"{vision}.post_layernorm.{kind}"]
        out[f"text.ln_final.{kind}"] = state[f"{text}.final_layer_norm.{kind}"]
        out[f"text.text_projection.{kind}"] = state[f"{text}.head.{kind}"]
    out |= _blocks(state, f"{vision}.encoder.layers", "visual.trunk.blocks", names=TIMM_NAMES)
    out |= _blocks(state, f"{text}.encoder.layers", "text.transformer.resblocks", names=OPEN_CLIP_NAMES)
    return out


def _save(folder: Path, model: torch.nn.Module, state: State, config: dict[str, Any]) -> Path:
    model.load_state_dict(state, strict=True)
    folder.mkdir()
    save_file({k: v.contiguous().clone() for k, v in state.items()}, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def clip_twin(tiny_hf_clip: Path, tmp_path: Path) -> Callable[[bool], Path]:
    """Write the open_clip twin of the tiny transformers CLIP, with either activation."""

    def write(quick_gelu: bool) -> Path:
        tower = {"layers": 2, "width": 32, "mlp_ratio": 2.0}
        model = {
            "embed_dim": 24,
            "quick_gelu": quick_gelu,
            "vision_cfg": {**tower, "image_size": 32, "head_width": 16, "patch_size": 8},
            "text_cfg": {**tower, "context_length": 77, "vocab_size": 49408, "heads": 2},
        }
        config = {
            "model_cfg": model,
            "preprocess_cfg": {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28], "interpolation": "bicubic"},
        }
        state = clip_to_open_clip(load_file(tiny_hf_clip / "model.safetensors"))
        return _save(tmp_path / f"twin-{quick_gelu}", CLIP(**model), state, config)

    return write


def _gap(one: Any, other: Any) -> tuple[float, float]:
    images = np.abs(one.encode_images(CROPS).vectors - other.encode_images(CROPS).vectors).max()
    texts = np.abs(one.encode_texts(SENTENCES).vectors - other.encode_texts(SENTENCES).vectors).max()
    return float(images), float(texts)


def test_clip(tiny_hf_clip: Path, clip_twin: Callable[[bool], Path]) -> None:
    theirs = load_encoder(f"hf:{tiny_hf_clip}", device="cpu")
    ours = load_encoder(f"open_clip:{clip_twin(True)}", device="cpu")
    images, texts = _gap(theirs, ours)
    assert images < 1e-4
    assert texts < 1e-4
    assert ours.temperature == pytest.approx(theirs.temperature)
    assert ours.space != theirs.space


def test_clip_with_the_other_activation_differs(tiny_hf_clip: Path, clip_twin: Callable[[bool], Path]) -> None:
    theirs = load_encoder(f"hf:{tiny_hf_clip}", device="cpu")
    images, texts = _gap(theirs, load_encoder(f"open_clip:{clip_twin(False)}", device="cpu"))
    assert images > 1e-4
    assert texts > 1e-4


def test_siglip(tiny_siglip: Path, tmp_path: Path) -> None:
    theirs = load_encoder(f"hf:{tiny_siglip}", device="cpu")
    model = {
        "embed_dim": 32,
        "init_logit_bias": -10,
        "vision_cfg": {"image_size": 32, "timm_model_name": "vlfer_test_siglip", "timm_pool": "map",
                       "timm_proj": "none"},
        "text_cfg": {
            "context_length": 32, "vocab_size": len(theirs._tokenizer), "width": 32, "heads": 2, "layers": 2,
            "mlp_ratio": 2.0, "no_causal_mask": True, "proj_bias": True, "pool_type": "last",
            "norm_kwargs": {"eps": 1e-6}, "act_kwargs": {"approximate": "tanh"}, "hf_tokenizer_name": "beside",
            "tokenizer_kwargs": {"clean": "canonicalize"},
        },
    }  # fmt: skip
    state = siglip_to_open_clip(load_file(tiny_siglip / "model.safetensors"))
    half = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": theirs.spec.interpolation, "resize_mode": "squash"}
    config = {"model_cfg": {**model, "custom_text": True}, "preprocess_cfg": half}
    folder = _save(tmp_path / "twin", CustomTextCLIP(**model), state, config)
    for file in (*tiny_siglip.glob("tokenizer*"), *tiny_siglip.glob("*.model"), tiny_siglip / "config.json"):
        shutil.copy(file, folder)
    ours = load_encoder(f"open_clip:{folder}", device="cpu")
    images, texts = _gap(theirs, ours)
    assert images < 1e-4
    assert texts < 1e-4
    assert ours.temperature == pytest.approx(theirs.temperature)


def test_open_clip_itself_gives_the_same_vectors(tiny_backbone: Any, tiny_open_clip_folder: Path) -> None:
    """What the library's own three lines give is what the encoder gives."""
    from PIL import Image

    name = f"local-dir:{tiny_open_clip_folder}"
    model, _, preprocess = open_clip.create_model_and_transforms(name)
    model.eval()
    batch = torch.stack([preprocess(Image.fromarray(crop)) for crop in CROPS])
    with torch.no_grad():
        images = model.encode_image(batch, normalize=True).numpy()
        texts = model.encode_text(open_clip.get_tokenizer(name)(SENTENCES), normalize=True).numpy()
    assert np.abs(tiny_backbone.encode_texts(SENTENCES).vectors - texts).max() < 1e-5
    assert np.abs(tiny_backbone.encode_images(CROPS).vectors - images).max() < 2e-2  # Pillow rounds a little otherwise
    assert (tiny_backbone.encode_images(CROPS).vectors * images).sum(axis=1).min() > 0.9999
