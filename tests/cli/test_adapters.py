"""`vlfer adapters`: list, show, verify, merge, pack, pull, push, remove."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from vlfer.models.adapter import CARD_NAME, LORA_CONFIG, LORA_WEIGHTS, README_NAME, backbone_card, write_card
from vlfer.models.encoder import load_encoder
from vlfer.models.lora import add_lora, lora_config_json, lora_parameters, lora_state


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    monkeypatch.setenv("VLFER_ADAPTERS", str(folder))
    return folder


def make(folder: Path, backbone: str) -> Path:
    encoder = load_encoder(backbone, device="cpu")
    config = add_lora(encoder.model, targets=encoder.spec.lora_targets, rank=2, alpha=4)
    with torch.no_grad():
        for parameter in lora_parameters(encoder.model).values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    folder.mkdir(parents=True)
    save_file(lora_state(encoder.model), folder / LORA_WEIGHTS)
    (folder / LORA_CONFIG).write_text(lora_config_json(config, backbone="x"))
    write_card(folder, {"name": folder.name, "backbone": backbone_card(encoder)}, readme="# my card\n")
    return folder


@pytest.fixture
def adapter(tmp_path: Path, tiny_backbone_name: str) -> Path:
    return make(tmp_path / "work" / "mine", tiny_backbone_name)


def test_pack_and_pull_make_a_known_adapter(run: Any, adapter: Path, tmp_path: Path, home: Path) -> None:
    packed = tmp_path / "mine.zip"
    assert run("adapters", "pack", adapter, "--out", packed).exit_code == 0
    first = packed.read_bytes()
    run("adapters", "pack", adapter, "--out", packed)
    assert packed.read_bytes() == first
    assert {n.split("/")[1] for n in zipfile.ZipFile(packed).namelist()} == {
        CARD_NAME, README_NAME, LORA_CONFIG, LORA_WEIGHTS,
    }  # fmt: skip
    assert run("adapters", "pull", packed).exit_code == 0
    assert (home / "mine" / LORA_WEIGHTS).is_file()
    again = run("adapters", "pull", packed)
    assert again.exit_code != 0
    assert "already" in again.stderr
    assert run("adapters", "pull", packed, "--replace").exit_code == 0
    rows = json.loads(run("adapters", "list", "--format", "json").stdout)
    assert {row["name"]: row["kind"] for row in rows}["mine"] == "lora"
    assert "my card" in run("adapters", "show", "mine").stdout
    assert run("adapters", "remove", "mine", "--yes").exit_code == 0
    assert not (home / "mine").exists()


def test_verify_says_what_was_changed_and_what_fits(
    run: Any, adapter: Path, tiny_backbone_name: str, tiny_hf_clip: Path
) -> None:
    fits = run("adapters", "verify", adapter, "--backbone", tiny_backbone_name)
    assert fits.exit_code == 0
    assert "fits" in fits.stderr
    other = run("adapters", "verify", adapter, "--backbone", f"hf:{tiny_hf_clip}")
    assert other.exit_code != 0
    assert "was made for the backbone" in other.stderr
    (adapter / LORA_WEIGHTS).write_bytes((adapter / LORA_WEIGHTS).read_bytes() + b"\0")
    changed = run("adapters", "verify", adapter)
    assert changed.exit_code != 0
    assert "was changed or damaged" in changed.stderr


@pytest.mark.parametrize("entry", ["mine/../../evil.py", "mine/evil.pkl", "evil", "../mine/README.md"])
def test_a_strange_archive_is_not_unpacked(run: Any, tmp_path: Path, home: Path, entry: str) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"mine/{CARD_NAME}", "{}")
        archive.writestr(entry, "x")
    result = run("adapters", "pull", path)
    assert result.exit_code != 0
    assert "nothing was unpacked" in result.stderr
    assert not home.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.zip"]


def test_a_file_that_is_no_archive_is_told(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(b"no zip")
    assert "cannot be unpacked" in run("adapters", "pull", path).stderr


def test_shipped_adapters_are_not_removed(run: Any) -> None:
    result = run("adapters", "remove", "mie-flow", "--yes")
    assert result.exit_code != 0
    assert "comes with vlfer" in result.stderr


def test_the_hub_is_told_when_it_cannot_be_reached(run: Any, adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    monkeypatch.setattr(huggingface_hub, "create_repo", refuse)
    for command in (("pull", "someone/face"), ("push", adapter, "someone/face")):
        result = run("adapters", *command)
        assert result.exit_code == 3
        assert "Name or service not known" in result.stderr
        assert "Try:" in result.stderr
    assert "ORG/NAME" in run("adapters", "push", adapter, "no-slash").stderr


def test_pull_from_the_hub_verifies(run: Any, adapter: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    import huggingface_hub

    def fetch(name: str, *, local_dir: str, allow_patterns: list[str]) -> None:
        assert name == "someone/face"
        assert LORA_WEIGHTS in allow_patterns
        assert not any(p.endswith((".bin", ".pkl", "*")) for p in allow_patterns)
        shutil.copytree(adapter, local_dir)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert run("adapters", "pull", "someone/face").exit_code == 0
    assert (home / "face" / LORA_WEIGHTS).is_file()


@pytest.mark.parametrize("kind", ["open_clip", "hf", "bundled"])
def test_a_merged_model_is_the_adapted_one(
    run: Any, tmp_path: Path, kind: str, tiny_backbone_name: str, tiny_hf_clip: Path
) -> None:
    backbone = {"open_clip": tiny_backbone_name, "hf": f"hf:{tiny_hf_clip}", "bundled": "bundled"}[kind]
    adapter = make(tmp_path / "a", backbone)
    result = run("adapters", "merge", adapter, "--out", tmp_path / "merged", "--backbone", backbone)
    assert result.exit_code == 0, result.stderr
    pixels = np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), dtype=np.uint8)
    adapted = load_encoder(backbone, device="cpu", adapter=adapter).encode_images(pixels).vectors
    merged = load_encoder(result.stdout.strip(), device="cpu").encode_images(pixels).vectors
    plain = load_encoder(backbone, device="cpu").encode_images(pixels).vectors
    assert np.abs(adapted - merged).max() < 2e-5
    assert np.abs(plain - merged).max() > 1e-4
