"""Fixtures shared by all tests: tiny random backbones loaded by the normal path, and a synthetic face."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlfer.types import FaceClip, Frames

TINY_WORDS = (
    "a face that shows happiness and a broad smile",
    "a person who looks sad and is about to cry",
    "furious shouting with lowered brows and an open mouth",
    "a calm neutral expression with relaxed eyes and lips",
    "surprise raises the brows and drops the jaw",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run: ``gpu`` without CUDA, ``net`` unless VLFER_TEST_NET is set."""
    gpu = [item for item in items if item.get_closest_marker("gpu")]
    if gpu:
        import torch

        for item in gpu if not torch.cuda.is_available() else []:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
    for item in items:
        if item.get_closest_marker("net") and not os.environ.get("VLFER_TEST_NET"):
            item.add_marker(pytest.mark.skip(reason="VLFER_TEST_NET is not set"))


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep tests out of the user's cache."""
    folder = tmp_path_factory.mktemp("vlfer-cache")
    before = os.environ.get("VLFER_CACHE")
    os.environ["VLFER_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["VLFER_CACHE"]
    else:
        os.environ["VLFER_CACHE"] = before


def _draw_face(size: int, *, smile: float) -> np.ndarray:
    """Draw a face-like picture, (size, size, 3) uint8; ``smile`` from -1 to 1 bends the mouth."""
    y, x = np.mgrid[0:size, 0:size] / size
    image = np.full((size, size, 3), 60, np.uint8)
    image[((x - 0.5) / 0.36) ** 2 + ((y - 0.5) / 0.46) ** 2 < 1] = (214, 170, 140)
    for eye in (0.36, 0.64):
        image[((x - eye) / 0.07) ** 2 + ((y - 0.4) / 0.04) ** 2 < 1] = (40, 30, 30)
    mouth = 0.72 - smile * 3.0 * (x - 0.5) ** 2
    image[(np.abs(y - mouth) < 0.02) & (np.abs(x - 0.5) < 0.18)] = (150, 40, 50)
    return image


@pytest.fixture(scope="session")
def synthetic_frames() -> Frames:
    """Twelve frames of 96 px at 12 fps in which a drawn mouth goes from frown to smile."""
    pixels = np.stack([_draw_face(96, smile=s) for s in np.linspace(-1, 1, 12)])
    return Frames(pixels, np.arange(12) / 12.0, source="synthetic")


@pytest.fixture(scope="session")
def synthetic_clip(synthetic_frames: Frames) -> FaceClip:
    """The same twelve frames as a clip of one face."""
    return FaceClip(synthetic_frames.pixels, synthetic_frames.times_s)


def write_open_clip_folder(folder: Path, model: Any, config: dict[str, Any]) -> Path:
    """Save an open_clip model as the folder that open_clip itself reads."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    state = {key: value.contiguous().clone() for key, value in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors", metadata={"format": "pt"})
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session")
def tiny_open_clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random open_clip CLIP of 32 px and 24 dimensions with the real CLIP tokenizer."""
    import torch
    from open_clip.model import CLIP

    model_config = {
        "embed_dim": 24,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "mlp_ratio": 2.0},
        "text_cfg": {
            "context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2, "mlp_ratio": 2.0,
        },
    }  # fmt: skip
    preprocessing = {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28], "interpolation": "bicubic"}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CLIP(**model_config)
    folder = tmp_path_factory.mktemp("tiny-open-clip")
    return write_open_clip_folder(folder, model, {"model_cfg": model_config, "preprocess_cfg": preprocessing})


@pytest.fixture(scope="session")
def tiny_backbone_name(tiny_open_clip_folder: Path) -> str:
    """What to give to ``load_encoder`` or ``--backbone``."""
    return f"open_clip:{tiny_open_clip_folder}"


@pytest.fixture(scope="session")
def tiny_backbone(tiny_backbone_name: str) -> Any:
    """A tiny random encoder, for logic; its answers mean nothing."""
    from vlfer.models.encoder import load_encoder

    return load_encoder(tiny_backbone_name, device="cpu")


@pytest.fixture(scope="session")
def tiny_hf_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random transformers CLIP folder of 32 px with the real CLIP tokenizer."""
    import torch
    from open_clip.tokenizer import SimpleTokenizer
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

    words = SimpleTokenizer()
    marks = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocab = {marks.get(token, token): number for token, number in words.encoder.items()}
    tokenizer = CLIPTokenizer(vocab=vocab, merges=list(words.bpe_ranks), model_max_length=77)
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
             "projection_dim": 24}  # fmt: skip
    config = CLIPConfig(
        text_config={**small, "vocab_size": 49408, "max_position_embeddings": 77,
                     "bos_token_id": vocab["<|startoftext|>"], "eos_token_id": vocab["<|endoftext|>"]},
        vision_config={**small, "image_size": 32, "patch_size": 8},
        projection_dim=24,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = CLIPModel(config)
        _spread(model)
    folder = tmp_path_factory.mktemp("tiny-hf-clip")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, image_mean=[0.48, 0.46, 0.41],
        image_std=[0.27, 0.26, 0.28],
    ).save_pretrained(folder)  # fmt: skip
    return folder


@pytest.fixture(scope="session")
def tiny_sentencepiece(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentencepiece model trained here, with SigLIP's special ids: 0 pad, 1 end, 2 unknown."""
    import sentencepiece

    prefix = tmp_path_factory.mktemp("sentencepiece") / "spiece"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TINY_WORDS * 4), model_prefix=str(prefix), vocab_size=60, model_type="unigram",
        hard_vocab_limit=False,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
    )  # fmt: skip
    return prefix.with_suffix(".model")


@pytest.fixture(scope="session")
def tiny_siglip(tmp_path_factory: pytest.TempPathFactory, tiny_sentencepiece: Path) -> Path:
    """A random transformers SigLIP folder of 32 px with a sentencepiece tokenizer trained here."""
    import torch
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel, SiglipTokenizer

    tokenizer = SiglipTokenizer(str(tiny_sentencepiece), model_max_length=32)
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = SiglipConfig(
        text_config={**small, "vocab_size": len(tokenizer), "max_position_embeddings": 32, "projection_size": 32,
                     "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 1},
        vision_config={**small, "image_size": 32, "patch_size": 8},
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = SiglipModel(config)
        _spread(model)
    folder = tmp_path_factory.mktemp("tiny-siglip")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def _spread(model: Any) -> None:
    """Give every tensor that starts at zero or one some noise, so that a swapped or forgotten one shows."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith("logit"):
                parameter.add_(torch.randn_like(parameter) * 0.05)
