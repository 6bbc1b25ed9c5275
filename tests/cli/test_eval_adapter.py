"""`vlfer eval --adapter`: in a space of its own, with its temporal model and its labels."""

import csv
import json
import sqlite3

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from vlfer.models.adapter import LABELS_NAME, MAP_NAME, TEMPORAL_NAME, backbone_card, write_card
from vlfer.models.encoder import load_encoder
from vlfer.models.temporal import TemporalAdapter, save_temporal

NAMES = ("anger", "fear", "happiness")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory, tiny_backbone_name):
    """A random map and a random temporal model for the tiny backbone, with labels."""
    encoder = load_encoder(tiny_backbone_name, device="cpu")
    folder = tmp_path_factory.mktemp("adapter")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        temporal = TemporalAdapter(encoder.dimension, layers=1, max_frames=8)
        torch.nn.init.normal_(temporal.head.weight, std=0.3)
        torch.nn.init.normal_(temporal.positions, std=1.0)
        save_file({"map": torch.randn(encoder.dimension, encoder.dimension)}, folder / MAP_NAME)
    save_temporal(temporal, folder / TEMPORAL_NAME)
    words = {"name": "own", "origin": {"author": "a test"}, "labels": [{"name": name} for name in NAMES]}
    (folder / LABELS_NAME).write_text(yaml.safe_dump(words))
    write_card(folder, {"name": "random", "backbone": backbone_card(encoder)}, readme="# a test")
    return folder


@pytest.fixture
def media(tmp_path):
    """Folders of frames of ten, one and three pictures, and a picture."""
    rng = np.random.default_rng(0)
    lines = ["path,label"]
    for i, count in enumerate((10, 1, 3)):
        for t in range(count):
            (tmp_path / f"clip{i}").mkdir(exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(tmp_path / f"clip{i}" / f"{t}.png")
        lines.append(f"clip{i},{NAMES[i]}")
    Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(tmp_path / "still.png")
    (tmp_path / "m.csv").write_text("\n".join([*lines, "still.png,fear"]) + "\n")
    return tmp_path


@pytest.fixture
def evaluate(run, media, tiny_backbone_name):
    def call(*more, out="out"):
        result = run(
            "eval", "manifest", "--manifest", media / "m.csv", "--faces", "whole", "--backbone", tiny_backbone_name,
            "--device", "cpu", "--cache", media / "cache", "--out", media / out, *more,
        )  # fmt: skip
        if result.exit_code:
            return result
        lines = list(csv.DictReader((media / out / "predictions.csv").open()))
        columns = [name for name in lines[0] if name.startswith("p_")]
        probability = np.array([[float(line[name]) for name in columns] for line in lines])
        return json.loads((media / out / "report.json").read_text()), probability

    return call


def test_an_adapter_has_a_space_of_its_own_and_is_named_in_the_report(evaluate, media, adapter):
    plain, _ = evaluate("--labels", "anger,fear,happiness")
    report, _ = evaluate("--labels", "anger,fear,happiness", "--adapter", adapter)
    assert report["embeddings"] == {"from_cache": 0, "encoded": 4}
    card = json.loads((adapter / "vlfer_adapter.json").read_text())
    assert report["provenance"]["adapter_sha256"] == card["adapter_sha256"]
    assert plain["provenance"]["adapter_sha256"] is None
    assert report["provenance"]["space"] != plain["provenance"]["space"]
    assert report["provenance"]["config"]["adapter"] == str(adapter)
    again, _ = evaluate("--labels", "anger,fear,happiness", "--adapter", adapter)
    assert again["embeddings"] == {"from_cache": 4, "encoded": 0}
    with sqlite3.connect(media / "cache" / "index.sqlite") as index:
        assert index.execute("SELECT count(DISTINCT grp) FROM clips").fetchone() == (2,)


def test_clips_go_through_its_temporal_model_and_images_do_not(evaluate, media, adapter, tiny_backbone_name):
    _, temporal = evaluate("--adapter", adapter)
    _, mean = evaluate("--adapter", adapter, "--frame-pooling", "embeddings")
    assert np.abs(temporal[[0, 2]] - mean[[0, 2]]).max(axis=1).min() > 1e-3
    assert np.array_equal(temporal[[1, 3]], mean[[1, 3]])
    # The clip of three frames by hand.
    encoder = load_encoder(tiny_backbone_name, device="cpu", adapter=adapter)
    frames = np.stack([np.asarray(Image.open(media / "clip2" / f"{t}.png")) for t in range(3)])
    with torch.inference_mode():
        clip = encoder.temporal(torch.from_numpy(encoder.encode_images(frames).vectors)[None])[0].numpy()
    from vlfer.scoring import score
    from vlfer.text.bank import TextBank
    from vlfer.text.labels import load_label_set
    from vlfer.types import Embedding

    scores = score(
        Embedding(clip[None], encoder.space), load_label_set(str(adapter / LABELS_NAME)),
        TextBank(encoder, cache_dir=None), temperature=encoder.temperature,
    )  # fmt: skip
    assert temporal[2] == pytest.approx(scores.probability[0], abs=2e-4)


def test_its_labels_are_the_default_of_a_manifest(evaluate, adapter):
    report, _ = evaluate("--adapter", adapter)
    assert report["classes"] == list(NAMES)


def test_a_damaged_adapter_is_refused(evaluate, adapter, tmp_path):
    import shutil

    copy = shutil.copytree(adapter, tmp_path / "copy")
    (copy / MAP_NAME).write_bytes((copy / MAP_NAME).read_bytes()[:-1] + b"x")
    result = evaluate("--adapter", copy)
    assert result.exit_code == 3
    assert "was changed or damaged" in result.stderr


def test_a_temporal_model_that_is_not_there_is_told_before_anything_is_encoded(evaluate):
    result = evaluate("--frame-pooling", "adapter")
    assert result.exit_code == 2
    assert "No temporal adapter" in result.stderr
    assert "--frame-pooling embeddings" in result.stderr
    assert "rows done" not in result.stderr


def test_a_comparison_of_runs_names_the_adapter(evaluate, run, media, adapter):
    evaluate("--labels", "anger,fear,happiness", out="plain")
    evaluate("--labels", "anger,fear,happiness", "--adapter", adapter, out="adapted")
    given = ("eval-compare", media / "plain", media / "adapted")
    said = json.loads(run(*given, "--format", "json").stdout)
    assert (said["a"]["adapter"], said["b"]["adapter"]) == (None, str(adapter))
    assert run(*given).stdout.split().count("with") == 1
