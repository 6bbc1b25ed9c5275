"""The table of backbones against the libraries' own configs, and the grammar of names."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import open_clip
import pytest
import torch

from vlfer.errors import BackboneError
from vlfer.models.registry import LORA_TIMM_ANY, REGISTRY, BackboneSpec, backbone_names, find_backbone

OPEN_CLIP_ROWS = [row for row in REGISTRY.values() if row.library == "open_clip"]
HF_ROWS = [row for row in REGISTRY.values() if row.library == "transformers"]


@pytest.mark.parametrize("row", OPEN_CLIP_ROWS, ids=lambda row: row.name)
def test_open_clip_row_agrees_with_the_library(row: BackboneSpec) -> None:
    tag = open_clip.get_pretrained_cfg(row.source, row.tag)
    config = open_clip.get_model_config(row.source)
    assert tag["hf_hub"] or tag["url"]
    assert row.mean == pytest.approx(tag["mean"])
    assert row.std == pytest.approx(tag["std"])
    assert row.interpolation == tag["interpolation"]
    assert row.image_size == config["vision_cfg"]["image_size"]
    assert row.dimension == config["embed_dim"]


@pytest.mark.parametrize("row", REGISTRY.values(), ids=lambda row: row.name)
def test_every_row_is_complete(row: BackboneSpec) -> None:
    assert row.is_complete
    assert row.licence != "unknown"
    assert find_backbone(row.name) is row
    assert find_backbone(("open_clip:" if row.library == "open_clip" else "hf:") + row.name) is row


def _lora_hits(model: torch.nn.Module, pattern: str) -> list[tuple[str, torch.nn.Module]]:
    return [(name, module) for name, module in model.named_modules() if re.fullmatch(pattern, name)]


@pytest.mark.parametrize("row", list({row.source: row for row in OPEN_CLIP_ROWS}.values()), ids=lambda row: row.source)
def test_lora_targets_of_open_clip_rows(row: BackboneSpec) -> None:
    with torch.device("meta"):
        model = open_clip.create_model(row.source, load_weights=False, device="meta")
    hits = _lora_hits(model, row.lora_targets)
    assert len(hits) >= 12
    assert all(name.startswith("visual.") for name, _ in hits)
    assert all(isinstance(module, torch.nn.Linear | torch.nn.Conv2d) for _, module in hits)


@pytest.mark.parametrize("row", HF_ROWS[-2:] + HF_ROWS[:1], ids=lambda row: row.name)
def test_lora_targets_of_transformers_rows(row: BackboneSpec) -> None:
    from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

    with torch.device("meta"):
        model = SiglipModel(SiglipConfig()) if row.source.startswith("google/") else CLIPModel(CLIPConfig())
    hits = _lora_hits(model, row.lora_targets)
    assert len(hits) == 12 * 6
    assert all(isinstance(module, torch.nn.Linear) for _, module in hits)


def test_lora_pattern_for_any_timm_tower_finds_pointwise_convolutions() -> None:
    import timm

    trunk = timm.create_model("tf_efficientnet_lite0", num_classes=0)
    names = [f"visual.trunk.{name}" for name, _ in trunk.named_modules()]
    assert sum(bool(re.fullmatch(LORA_TIMM_ANY, name)) for name in names) > 20


def test_names_outside_the_table() -> None:
    spec = find_backbone("open_clip:RN50/cc12m")
    assert (spec.source, spec.tag, spec.origin, spec.is_complete) == ("RN50", "cc12m", "hub", False)
    assert find_backbone("hf:some/model").source == "some/model"
    assert find_backbone("bundled").origin == "bundled"
    assert find_backbone("bundled:/x/y").source == "/x/y"


def test_checkpoint_file(tmp_path: Path) -> None:
    file = tmp_path / "weights@home.pt"
    file.write_bytes(b"x")
    spec = find_backbone(f"open_clip:ViT-B-32@{file}")
    assert (spec.source, spec.tag, spec.file, spec.origin) == ("ViT-B-32", "", str(file), "file")
    assert str(tmp_path) not in spec.name  # the same weights elsewhere are the same space
    published = find_backbone(f"open_clip:ViT-B-32/openai@{file}")
    assert (published.name, published.tag, published.file) == ("ViT-B-32/openai", "openai", str(file))
    assert published.mean == REGISTRY["ViT-B-32/openai"].mean


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("bundeld", "bundled"),
        ("ViT-B-32/opnai", "ViT-B-32/openai"),
        ("", "bundled"),
        ("open_clip:", "bundled"),
        ("open_clip:ViT-B-32", "names no weights"),
        ("open_clip:ViT-B-32@/no/such/file.pt", "is not a file"),
        ("open_clip:@x", "is not a file"),
        ("hf:no-such-folder", "neither a folder"),
        ("hf:/no/such/folder", "neither a folder"),
        ("ftp:x", "unknown"),
    ],
)
def test_wrong_names_say_what_to_do(name: str, hint: str) -> None:
    with pytest.raises(BackboneError, match=re.escape(hint)):
        find_backbone(name)


def test_folders_without_a_config(tmp_path: Path) -> None:
    for name in (f"open_clip:{tmp_path}", f"hf:{tmp_path}"):
        with pytest.raises(BackboneError, match="config"):
            find_backbone(name)


def test_bundled_comes_first() -> None:
    assert backbone_names()[0] == "bundled"
    assert len(set(backbone_names())) == len(REGISTRY) + 1


def test_registry_imports_no_torch() -> None:
    code = "import sys, vlfer, vlfer.models.registry; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
