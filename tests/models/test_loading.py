"""Finding and loading weights: the hub's cache, no network, tags, files, and damaged files."""

from __future__ import annotations

import json
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from huggingface_hub import constants as hub_constants

from vlfer.errors import BackboneError
from vlfer.models import hf, hub, openclip, weights
from vlfer.models.encoder import load_encoder
from vlfer.models.registry import find_backbone

CLOSED = "http://127.0.0.1:9"  # nothing listens on the discard port


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Point the hub at a port where nobody answers, and its cache at an empty folder."""
    monkeypatch.setattr(hub_constants, "ENDPOINT", CLOSED)
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub_constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def _put_in_cache(cache: Path, repository: str, files: list[Path], names: list[str] | None = None) -> None:
    """Lay files out as the hub library does."""
    root = cache / f"models--{repository.replace('/', '--')}"
    snapshot = root / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("0" * 40)
    for file, name in zip(files, names or [f.name for f in files], strict=True):
        shutil.copy(file, snapshot / name)


@pytest.mark.parametrize("name", ["ViT-B-32/openai", "openai/clip-vit-base-patch32", "hf:no/such-model"])
def test_no_network_is_told_within_seconds(name: str, no_hub: Path) -> None:
    spec = find_backbone(name)
    load = openclip.load_open_clip if spec.library == "open_clip" else hf.load_transformers
    start = time.monotonic()  # the libraries are imported by now: only the network is timed
    with pytest.raises(BackboneError) as caught:
        load(spec, device=torch.device("cpu"))
    assert time.monotonic() - start < 10
    message = str(caught.value)
    local = "open_clip:ViT-B-32/openai@/" if spec.library == "open_clip" else "hf:/path"
    for part in (name.removeprefix("hf:"), str(no_hub), CLOSED, "HF_HOME", local, "--backbone bundled"):
        assert part in message


def test_offline_mode_asks_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "is_reachable", lambda *_, **__: pytest.fail("a server was asked"))
    with pytest.raises(BackboneError, match="Offline mode"):
        load_encoder("ViT-B-32/openai", device="cpu")


def test_a_resolver_that_hangs_is_given_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def hang(*_: Any, **__: Any) -> None:
        over.wait(30)
        raise OSError("name resolution failed")

    monkeypatch.setattr(hub.urllib.request, "urlopen", hang)
    start = time.monotonic()
    assert not hub.is_reachable("https://example.org", timeout_s=0.1)
    assert time.monotonic() - start < 10
    over.set()


def test_failed_download_says_the_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> str:
        raise OSError("No space left on device")

    monkeypatch.setattr(hub, "is_reachable", lambda *_, **__: True)
    monkeypatch.setattr(hub.huggingface_hub, "list_repo_files", refuse)
    with pytest.raises(BackboneError, match=r"No space left.*HF_HOME"):
        load_encoder("openai/clip-vit-base-patch32", device="cpu")


def test_transformers_model_from_the_hub_cache(no_hub: Path, tiny_hf_clip: Path) -> None:
    _put_in_cache(no_hub, "some/model", list(tiny_hf_clip.iterdir()))
    encoder = load_encoder("hf:some/model", device="cpu")
    assert encoder.space.startswith("some/model/")
    assert encoder.spec.image_size == 32


def test_incomplete_hub_cache_is_not_used(no_hub: Path, tiny_hf_clip: Path) -> None:
    _put_in_cache(no_hub, "some/model", [tiny_hf_clip / "config.json"])
    with pytest.raises(BackboneError, match="cannot be downloaded"):
        load_encoder("hf:some/model", device="cpu")


@pytest.fixture
def tiny_architecture(monkeypatch: pytest.MonkeyPatch, tiny_open_clip_folder: Path) -> Path:
    """Register the tiny architecture with open_clip, without quick_gelu, and a tag that was trained with it."""
    config = json.loads((tiny_open_clip_folder / "open_clip_config.json").read_text())["model_cfg"]
    del config["quick_gelu"]
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "vlfer-tiny", config)
    tag = {"hf_hub": "some/tiny/", "url": "", "mean": (0.48, 0.46, 0.41), "std": (0.27, 0.26, 0.28),
           "interpolation": "bicubic", "resize_mode": "shortest", "quick_gelu": True}  # fmt: skip
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "vlfer-tiny", {"made": tag})
    return tiny_open_clip_folder / "open_clip_model.safetensors"


def test_open_clip_tag_from_the_hub_cache(no_hub: Path, tiny_architecture: Path, tiny_backbone: Any) -> None:
    _put_in_cache(no_hub, "some/tiny", [tiny_architecture])
    encoder = load_encoder("open_clip:vlfer-tiny/made", device="cpu")
    assert encoder.weights_sha256 == tiny_backbone.weights_sha256
    # the tag says quick_gelu, the architecture does not: open_clip would only warn and compute something else
    texts = ["awe", "about to cry"]
    expected = tiny_backbone.encode_texts(texts).vectors
    assert np.allclose(encoder.encode_texts(texts).vectors, expected, atol=1e-5)
    by_hand = load_encoder(f"open_clip:vlfer-tiny/made@{tiny_architecture}", device="cpu")
    assert np.allclose(by_hand.encode_texts(texts).vectors, expected, atol=1e-5)
    assert by_hand.space == encoder.space


def test_plain_file_warns_of_the_other_activation(
    tiny_architecture: Path, tiny_backbone: Any, caplog: pytest.LogCaptureFixture
) -> None:
    plain = load_encoder(f"open_clip:vlfer-tiny@{tiny_architecture}", device="cpu")
    assert "vlfer-tiny/made@FILE" in caplog.text
    assert not np.allclose(plain.encode_texts(["awe"]).vectors, tiny_backbone.encode_texts(["awe"]).vectors, atol=1e-5)


def test_open_clip_checkpoint_file(tiny_architecture: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    encoder = load_encoder(f"open_clip:vlfer-tiny@{tiny_architecture}", device="cpu")
    assert encoder.spec.mean == (0.48, 0.46, 0.41)  # of the only published weights, not CLIP's
    pickled = tmp_path / "epoch.pt"
    torch.save({"state_dict": {f"module.{k}": v for k, v in load_file(tiny_architecture).items()}}, pickled)
    again = load_encoder(f"open_clip:vlfer-tiny@{pickled}", device="cpu")
    assert np.allclose(again.encode_texts(["awe"]).vectors, encoder.encode_texts(["awe"]).vectors, atol=1e-6)
    assert again.space != encoder.space


@pytest.mark.parametrize("damage", ["text", "truncated", "empty", "other"])
def test_damaged_or_foreign_checkpoint(tiny_architecture: Path, tmp_path: Path, damage: str) -> None:
    file = tmp_path / "weights.safetensors"
    whole = tiny_architecture.read_bytes()
    if damage == "other":
        file = tmp_path / "weights.pt"
        torch.save({"fc.weight": torch.zeros(3)}, file)
    else:
        file.write_bytes({"text": b"not weights", "truncated": whole[: len(whole) // 2], "empty": b""}[damage])
    with pytest.raises(BackboneError, match="cannot be loaded"):
        load_encoder(f"open_clip:vlfer-tiny@{file}", device="cpu")


def test_pickled_code_is_not_run(tiny_architecture: Path, tmp_path: Path) -> None:
    import os
    import pickle

    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "owned"),)

    file = tmp_path / "evil.pt"
    file.write_bytes(pickle.dumps(Evil(), protocol=2))
    with pytest.raises(BackboneError):
        load_encoder(f"open_clip:vlfer-tiny@{file}", device="cpu")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("name", "hint"),
    [("open_clip:ViT-B-23/openai", "ViT-B-32"), ("open_clip:ViT-B-32/opnai", "Did you mean 'openai'")],
)
def test_unknown_architecture_or_tag(name: str, hint: str) -> None:
    with pytest.raises(BackboneError, match=hint):
        load_encoder(name, device="cpu")


def test_open_clip_folder_without_weights(tiny_open_clip_folder: Path, tmp_path: Path) -> None:
    shutil.copy(tiny_open_clip_folder / "open_clip_config.json", tmp_path)
    with pytest.raises(BackboneError, match="no weights"):
        load_encoder(f"open_clip:{tmp_path}", device="cpu")


@pytest.mark.parametrize("lost", ["model.safetensors", "preprocessor_config.json", "tokenizer.json"])
def test_transformers_folder_that_lacks_a_file(tiny_hf_clip: Path, tmp_path: Path, lost: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_hf_clip, copy)
    for file in copy.glob(lost.split(".")[0] + "*"):
        file.unlink()
    with pytest.raises(BackboneError):
        load_encoder(f"hf:{copy}", device="cpu")


def test_open_clip_folder_that_lacks_its_tokenizer(tiny_open_clip_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_open_clip_folder, copy)
    config = json.loads((copy / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = "some/tokenizer"
    (copy / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(BackboneError, match="no tokenizer"):
        load_encoder(f"open_clip:{copy}", device="cpu")


def test_transformers_folder_that_lacks_a_tensor(tiny_hf_clip: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    copy = tmp_path / "copy"
    shutil.copytree(tiny_hf_clip, copy)
    state = load_file(copy / "model.safetensors")
    del state["visual_projection.weight"]
    save_file(state, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BackboneError, match="visual_projection"):
        load_encoder(f"hf:{copy}", device="cpu")


def test_other_kinds_of_transformers_models(tmp_path: Path) -> None:
    from transformers import BertConfig

    BertConfig().save_pretrained(tmp_path)
    for name in ("model.safetensors", "preprocessor_config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(BackboneError, match=r"'bert'.*SigLIP"):
        load_encoder(f"hf:{tmp_path}", device="cpu")


def test_hash_follows_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    monkeypatch.setenv("VLFER_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "w"
    file.write_bytes(b"one")
    for _ in range(2):
        assert weights.sha256_of_file(file) == hashlib.sha256(b"one").hexdigest()
    assert len(list((tmp_path / "cache" / "hashes").iterdir())) == 1
    file.write_bytes(b"three")
    assert weights.sha256_of_file(file) == hashlib.sha256(b"three").hexdigest()


def test_hash_without_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    (tmp_path / "blocked").write_text("a file where a folder should be")
    monkeypatch.setenv("VLFER_CACHE", str(tmp_path / "blocked" / "cache"))
    file = tmp_path / "w"
    file.write_bytes(b"one")
    assert weights.sha256_of_file(file) == hashlib.sha256(b"one").hexdigest()


def test_hash_of_several_files(tmp_path: Path) -> None:
    one, two = tmp_path / "a", tmp_path / "b"
    one.write_bytes(b"1")
    two.write_bytes(b"2")
    assert weights.sha256_of_files([one, two]) == weights.sha256_of_files([two, one])
    assert weights.sha256_of_files([one]) == weights.sha256_of_file(one) != weights.sha256_of_files([one, two])
