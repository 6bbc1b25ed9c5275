"""`vlfer prompts reference` and `vlfer prompts weigh`, with a tiny random backbone."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from vlfer.text.labels import load_label_set


def test_reference_faces_are_kept_and_used(run, tiny_backbone_name, tmp_path):
    folder = tmp_path / "faces"
    folder.mkdir()
    for i in range(20):
        pixels = np.random.default_rng(i).integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    (folder / "broken.png").write_bytes(b"nothing")
    out = tmp_path / "faces.safetensors"
    result = run("prompts", "reference", folder, "--out", out, "--faces", "whole", "--backbone", tiny_backbone_name)
    assert result.exit_code == 0, result.stderr
    assert "20 of 20 faces, 1 files skipped" in result.stderr
    settings = tmp_path / "settings.yaml"
    settings.write_text(f"correction: prior\nreference: {out}\nbackbone: {tiny_backbone_name}\nfaces: whole\n")
    answer = run("predict", folder / "1.png", "--config", settings, "--format", "json")
    assert answer.exit_code == 0, answer.stderr
    assert json.loads(answer.stdout)[0]["provenance"]["config"]["correction"] == "prior"
    settings.write_text(settings.read_text().replace(str(out), "gone.safetensors"))
    assert "gone.safetensors" in run("predict", folder / "1.png", "--config", settings).stderr


def test_too_few_faces_are_told(run, images, tiny_backbone_name, tmp_path):
    out = tmp_path / "f.safetensors"
    result = run("prompts", "reference", images, "--out", out, "--faces", "whole", "--backbone", tiny_backbone_name)
    assert result.exit_code == 2
    assert "3 faces are too few" in result.stderr
    assert not out.exists()


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "faces.npz"
    rng = np.random.default_rng(0)
    votes = np.zeros((30, 3), np.uint8)
    votes[np.arange(30), np.arange(30) % 3] = 10
    images = rng.integers(0, 255, (30, 32, 32), dtype=np.uint8)
    np.savez(path, images=images, votes=votes, classes=np.array(["happiness", "sadness", "unknown"]))
    return path


def test_weights_are_written_beside_every_descriptor(run, archive, tiny_backbone_name, tmp_path):
    out = tmp_path / "weighted.yaml"
    result = run("prompts", "weigh", "ekman7", "--data", archive, "--out", out, "--backbone", tiny_backbone_name)
    assert result.exit_code == 0, result.stderr
    labels = load_label_set(out)
    assert labels.names == load_label_set("ekman7").names
    assert "20 faces of faces.npz" in labels.origin
    for label, plain in zip(labels.labels, load_label_set("ekman7").labels, strict=True):
        assert label.descriptors == plain.descriptors
        assert len(label.weights) == len(label.descriptors)
    own = [labels.labels[labels.index(name)].weights for name in ("happy", "sad")]
    assert len({weight for weights in own for weight in weights}) >= 3
    assert set(labels.labels[labels.index("fear")].weights) == {1.0}  # no face of it: left alone


def test_a_missing_archive_is_told(run, tmp_path):
    result = run("prompts", "weigh", "ekman7", "--data", tmp_path / "no.npz", "--out", tmp_path / "x.yaml")
    assert result.exit_code == 2
    assert "does not exist" in result.stderr
