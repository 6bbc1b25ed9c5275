"""Adapters: what they change, what they refuse, and that a merged one is the unmerged one."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from vlfer.errors import AdapterError, ConfigError
from vlfer.models.adapter import (
    CARD_NAME,
    LORA_CONFIG,
    LORA_WEIGHTS,
    MAP_NAME,
    PROMPT_NAME,
    RESIDUAL_NAME,
    TEMPORAL_NAME,
    backbone_card,
    card_sha256,
    list_adapters,
    load_adapter,
    write_card,
)
from vlfer.models.encoder import load_encoder
from vlfer.models.label_residual import LabelResidual
from vlfer.models.lora import (
    add_lora,
    load_lora,
    lora_config_json,
    lora_layers,
    lora_parameters,
    lora_state,
    merge_lora,
)
from vlfer.models.prompt_context import word_embedding
from vlfer.models.temporal import TemporalAdapter, save_temporal

SENTENCES = ["awe", "a person who is about to cry", "joy"]


@pytest.fixture(params=["open_clip", "clip", "siglip"])
def backbone_name(request: pytest.FixtureRequest) -> str:
    if request.param == "open_clip":
        return str(request.getfixturevalue("tiny_backbone_name"))
    return f"hf:{request.getfixturevalue('tiny_hf_clip' if request.param == 'clip' else 'tiny_siglip')}"


def make_adapter(folder: Path, backbone: str, *, dora: bool = False, targets: str | None = None) -> Path:
    """Write a LoRA adapter with random, not small, updates."""
    encoder = load_encoder(backbone, device="cpu")
    config = add_lora(
        encoder.model, targets=targets or encoder.spec.lora_targets, rank=4, alpha=8, dropout=0.1, dora=dora
    )
    with torch.no_grad():
        generator = torch.Generator().manual_seed(7)
        for name, parameter in lora_parameters(encoder.model).items():
            if "magnitude" not in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(lora_state(encoder.model), folder / LORA_WEIGHTS, metadata={"format": "pt"})
    (folder / LORA_CONFIG).write_text(lora_config_json(config, backbone=encoder.spec.name))
    write_card(folder, {"name": folder.name, "backbone": backbone_card(encoder)}, readme="# a test")
    return folder


def faces(count: int = 6, side: int = 32) -> Any:
    return np.random.default_rng(0).integers(0, 255, (count, side, side, 3), dtype=np.uint8)


@pytest.mark.parametrize("dora", [False, True])
def test_merged_equals_unmerged(tmp_path: Path, backbone_name: str, dora: bool) -> None:
    folder = make_adapter(tmp_path / "a", backbone_name, dora=dora)
    plain, served = load_encoder(backbone_name, device="cpu"), load_encoder(backbone_name, device="cpu", adapter=folder)
    unmerged = load_encoder(backbone_name, device="cpu")
    load_lora(unmerged.model, load_adapter(folder))
    unmerged.model.eval()
    assert list(lora_layers(unmerged.model))
    assert not list(lora_layers(served.model))
    pixels = faces()
    before, after = plain.encode_images(pixels).vectors, served.encode_images(pixels).vectors
    assert np.abs(after - before).max() > 1e-3
    assert np.abs(after - unmerged.encode_images(pixels).vectors).max() < 1e-5
    assert np.array_equal(plain.encode_texts(SENTENCES).vectors, served.encode_texts(SENTENCES).vectors)


def test_attention_of_open_clip_merges_too(tmp_path: Path, tiny_backbone_name: str) -> None:
    targets = r"visual\.transformer\.resblocks\.\d+\.attn"
    folder = make_adapter(tmp_path / "a", tiny_backbone_name, targets=targets)
    served, unmerged = (load_encoder(tiny_backbone_name, device="cpu") for _ in range(2))
    load_lora(unmerged.model, load_adapter(folder))
    unmerged.model.eval()
    plain = served.encode_images(faces()).vectors
    served = load_encoder(tiny_backbone_name, device="cpu", adapter=folder)
    after = served.encode_images(faces()).vectors
    assert np.abs(after - plain).max() > 1e-3
    assert np.abs(after - unmerged.encode_images(faces()).vectors).max() < 1e-5
    merge_lora(unmerged.model)
    assert np.abs(after - unmerged.encode_images(faces()).vectors).max() < 1e-5


def test_the_space_is_its_own_and_names_the_adapter(tmp_path: Path, tiny_backbone_name: str) -> None:
    folder = make_adapter(tmp_path / "a", tiny_backbone_name)
    plain = load_encoder(tiny_backbone_name, device="cpu")
    served = load_encoder(tiny_backbone_name, device="cpu", adapter=folder)
    assert load_adapter(folder).sha256[:16] in served.space
    assert served.space != plain.space


def test_four_threads_agree_with_one(tmp_path: Path, backbone_name: str) -> None:
    folder = make_adapter(tmp_path / "a", backbone_name)
    served = load_encoder(backbone_name, device="cpu", adapter=folder)
    pixels = faces(4)
    alone = served.encode_images(pixels).vectors
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: served.encode_images(pixels).vectors, range(16)):
            assert np.abs(found - alone).max() < 1e-6


def test_another_backbone_is_refused_with_both_hashes(
    tmp_path: Path, tiny_backbone_name: str, tiny_hf_clip: Path
) -> None:
    folder = make_adapter(tmp_path / "a", tiny_backbone_name)
    own = load_encoder(tiny_backbone_name, device="cpu").weights_sha256[:16]
    other = load_encoder(f"hf:{tiny_hf_clip}", device="cpu").weights_sha256[:16]
    with pytest.raises(AdapterError) as caught:
        load_encoder(f"hf:{tiny_hf_clip}", device="cpu", adapter=folder)
    assert own in str(caught.value)
    assert other in str(caught.value)


def test_other_preprocessing_is_refused_and_named(tmp_path: Path, tiny_backbone_name: str) -> None:
    folder = make_adapter(tmp_path / "a", tiny_backbone_name)
    card = json.loads((folder / CARD_NAME).read_text())
    card["backbone"]["preprocessing"]["interpolation"] = "bilinear"
    card["backbone"]["preprocessing_sha256"] = "0" * 64
    card["card_sha256"] = card_sha256(card)
    (folder / CARD_NAME).write_text(json.dumps(card))
    with pytest.raises(AdapterError, match="bilinear and not bicubic") as caught:
        load_encoder(tiny_backbone_name, device="cpu", adapter=folder)
    assert "0" * 16 in str(caught.value)


@pytest.mark.parametrize("file", [LORA_WEIGHTS, LORA_CONFIG])
def test_a_changed_file_is_refused_with_both_hashes(tmp_path: Path, tiny_backbone_name: str, file: str) -> None:
    folder = make_adapter(tmp_path / "a", tiny_backbone_name)
    wanted = json.loads((folder / CARD_NAME).read_text())["files"][file][:16]
    content = bytearray((folder / file).read_bytes())
    content[-2] ^= 1
    (folder / file).write_bytes(bytes(content))
    with pytest.raises(AdapterError, match="was changed or damaged") as caught:
        load_adapter(folder)
    assert wanted in str(caught.value)


@pytest.mark.parametrize("change", ["figures", "backbone", "files"])
def test_a_changed_card_is_refused(tmp_path: Path, tiny_backbone_name: str, change: str) -> None:
    folder = make_adapter(tmp_path / "a", tiny_backbone_name)
    card = json.loads((folder / CARD_NAME).read_text())
    if change == "files":
        del card["files"][LORA_CONFIG]
    elif change == "backbone":
        card["backbone"]["weights_sha256"] = "1" * 64
    else:
        card["figures"] = {"uar": 1.0}
    (folder / CARD_NAME).write_text(json.dumps(card))
    with pytest.raises(AdapterError):
        load_adapter(folder)


def test_a_stray_part_and_a_missing_one_are_refused(tmp_path: Path, tiny_backbone_name: str) -> None:
    folder = make_adapter(tmp_path / "a", tiny_backbone_name)
    save_temporal(TemporalAdapter(24), folder / TEMPORAL_NAME)
    with pytest.raises(AdapterError, match="does not know of it"):
        load_adapter(folder)
    (folder / TEMPORAL_NAME).unlink()
    (folder / LORA_WEIGHTS).unlink()
    with pytest.raises(AdapterError, match="lacks adapter_model"):
        load_adapter(folder)


def test_one_for_another_version_of_the_backbone_is_not_told_to_take_the_same_name(
    tmp_path: Path, tiny_backbone_name: str
) -> None:
    folder, encoder = make_adapter(tmp_path / "a", tiny_backbone_name), load_encoder(tiny_backbone_name, device="cpu")
    write_card(folder, {"backbone": backbone_card(encoder) | {"weights_sha256": "1" * 64}}, readme="")
    with pytest.raises(AdapterError, match="the version of it that the adapter was made for") as caught:
        load_encoder(tiny_backbone_name, device="cpu", adapter=folder)
    assert "--backbone" not in str(caught.value)


def test_an_unknown_name_suggests_the_near_one() -> None:
    assert "mie-flow" in list_adapters()
    with pytest.raises(AdapterError, match="Did you mean 'mie-flow'"):
        load_adapter("mie-flwo")


def test_a_flow_adapter_is_no_face_adapter(tiny_backbone_name: str) -> None:
    with pytest.raises(AdapterError, match="vlfer mie recognize"):
        load_encoder(tiny_backbone_name, device="cpu", adapter="mie-flow")


def test_targets_outside_the_image_tower_are_refused(tiny_backbone_name: str) -> None:
    encoder = load_encoder(tiny_backbone_name, device="cpu")
    with pytest.raises(ConfigError, match="outside the image tower"):
        add_lora(encoder.model, targets=r".*\.mlp\.c_fc", rank=2, alpha=4)
    with pytest.raises(ConfigError, match="c_fc"):
        add_lora(encoder.model, targets=["qkv"], rank=2, alpha=4)
    with pytest.raises(ConfigError, match="regular expression"):
        add_lora(encoder.model, targets="visual(", rank=2, alpha=4)


def test_context_map_and_temporal_are_served(tmp_path: Path, backbone_name: str) -> None:
    plain = load_encoder(backbone_name, device="cpu")
    width, generator = word_embedding(plain.model).embedding_dim, torch.Generator().manual_seed(1)
    folder = tmp_path / "a"
    folder.mkdir()
    save_file({"context": torch.randn(4, width, generator=generator)}, folder / PROMPT_NAME)
    matrix = torch.randn(plain.dimension, plain.dimension, generator=generator)
    save_file({"map": matrix}, folder / MAP_NAME)
    save_temporal(TemporalAdapter(plain.dimension), folder / TEMPORAL_NAME)
    write_card(folder, {"backbone": backbone_card(plain), "temperature": 0.2}, readme="")
    served = load_encoder(backbone_name, device="cpu", adapter=folder)
    assert served.temperature == 0.2
    assert served.temporal is not None
    mapped = plain.encode_images(faces()).vectors @ matrix.numpy().T
    mapped /= np.linalg.norm(mapped, axis=1, keepdims=True)
    assert np.abs(served.encode_images(faces()).vectors - mapped).max() < 1e-5
    texts = served.encode_texts(SENTENCES).vectors
    alone = np.concatenate([served.encode_texts([sentence]).vectors for sentence in SENTENCES])
    assert np.abs(texts - alone).max() < 1e-5
    without = plain.encode_texts(SENTENCES).vectors @ matrix.numpy().T
    assert np.abs(texts - without / np.linalg.norm(without, axis=1, keepdims=True)).max() > 1e-3
    assert len(served.encode_texts(["very " * 200 + "long"]).vectors) == 1


def test_a_residual_moves_its_label_and_is_refused_where_it_does_not_fit(
    tmp_path: Path, tiny_backbone_name: str
) -> None:
    plain = load_encoder(tiny_backbone_name, device="cpu")
    before = plain.encode_texts(SENTENCES).vectors
    residual = LabelResidual.fresh(torch.from_numpy(before[:2]), torch.tensor([0, 1]))
    with torch.no_grad():
        residual.residual[0] = torch.from_numpy(before[1] - before[0]) * plain.dimension**0.5 / 2
    folder = tmp_path / "a"
    folder.mkdir()
    save_file(residual.state_dict(), folder / RESIDUAL_NAME)
    card = {"backbone": backbone_card(plain)}
    assert write_card(folder, card, readme="").kind == "residual"
    after = load_encoder(tiny_backbone_name, device="cpu", adapter=folder).encode_texts(SENTENCES).vectors
    assert np.abs(after[0] - before[1]).max() < 1e-5
    assert np.abs(after[1] - before[1]).max() < 0.03
    save_file(LabelResidual.fresh(torch.eye(3), torch.arange(3)).state_dict(), folder / RESIDUAL_NAME)
    write_card(folder, card, readme="")
    with pytest.raises(AdapterError, match="moves 3 dimensions"):
        load_encoder(tiny_backbone_name, device="cpu", adapter=folder)


def test_a_damaged_tensor_that_matches_its_hash_is_refused(tmp_path: Path, tiny_backbone_name: str) -> None:
    folder = make_adapter(tmp_path / "a", tiny_backbone_name)
    state = load_file(folder / LORA_WEIGHTS)
    state.pop(next(iter(state)))
    save_file(state, folder / LORA_WEIGHTS)
    encoder = load_encoder(tiny_backbone_name, device="cpu")
    write_card(folder, {"backbone": backbone_card(encoder)}, readme="")
    with pytest.raises(AdapterError, match="does not fit the backbone"):
        load_encoder(tiny_backbone_name, device="cpu", adapter=folder)


def test_the_bundled_tower_takes_lora_on_its_convolutions(tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "a", "bundled")
    plain, served = load_encoder(device="cpu"), load_encoder(device="cpu", adapter=folder)
    unmerged = load_encoder(device="cpu")
    load_lora(unmerged.model, load_adapter(folder))
    unmerged.model.eval()
    pixels = faces(3, 64)
    after = served.encode_images(pixels).vectors
    assert np.abs(after - plain.encode_images(pixels).vectors).max() > 1e-3
    assert np.abs(after - unmerged.encode_images(pixels).vectors).max() < 1e-5


@pytest.mark.parametrize("name", ["onset-offset", "small-faces"])
def test_shipped_adapters_fit_the_bundled_backbone(name: str) -> None:
    served = load_encoder(device="cpu", adapter=name)
    assert served.adapter is not None
    assert served.adapter.labels_file is not None
    assert (served.temporal is not None) == (name == "onset-offset")
    assert served.encode_images(faces(2)).space == served.space
