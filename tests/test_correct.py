"""Corrections from faces without labels, and the temperature for a number of labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vlfer.config import load_config
from vlfer.correct import (
    FITTED_LABELS,
    config_bias,
    label_bias,
    load_reference,
    save_reference,
    temperature_for,
    thin_faces,
)
from vlfer.errors import ConfigError, DataError, SpaceError
from vlfer.scoring import score_sentences
from vlfer.text.bank import TextBank
from vlfer.types import Embedding, Label, LabelSet

LABELS = LabelSet((Label("a"), Label("b"), Label("c")))
OWNER = np.arange(3)
WEIGHT = np.ones(3, np.float32)


def unit(rows: np.ndarray, space: str = "s") -> Embedding:
    return Embedding((rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), space)


@pytest.fixture
def faces() -> Embedding:
    """Faces that all lie near the first sentence, whatever else they show."""
    rng = np.random.default_rng(0)
    return unit(np.array([2.0, 0, 0, 0]) + rng.normal(size=(200, 4)))


SENTENCES = unit(np.eye(4)[:3])


@pytest.mark.parametrize("correction", ["mean", "prior"])
def test_a_label_that_every_face_favours_loses_its_lead(faces: Embedding, correction: str) -> None:
    options = {"labels": LABELS, "temperature": 0.2}
    bias = label_bias(faces, SENTENCES, OWNER, WEIGHT, correction=correction, strength=1.0, **options)  # type: ignore[arg-type]
    assert bias is not None
    assert bias.argmax() == 0
    assert bias.mean() == pytest.approx(0.0, abs=1e-5)
    plain = score_sentences(faces, SENTENCES, OWNER, WEIGHT, **options)  # type: ignore[arg-type]
    fair = score_sentences(faces, SENTENCES, OWNER, WEIGHT, prior=bias, **options)  # type: ignore[arg-type]
    assert (plain.probability.argmax(axis=1) == 0).mean() > 0.8
    assert 0.2 < (fair.probability.argmax(axis=1) == 0).mean() < 0.75
    np.testing.assert_array_equal(plain.similarity, fair.similarity)


def test_mean_correction_gives_every_label_the_same_mean(faces: Embedding) -> None:
    bias = label_bias(
        faces, SENTENCES, OWNER, WEIGHT, labels=LABELS, temperature=0.2, correction="mean", strength=1.0
    )  # fmt: skip
    logits = faces.similarity(SENTENCES) / 0.2 - bias
    np.testing.assert_allclose(logits.mean(axis=0), logits.mean(), atol=1e-3)


def test_strength_scales_and_zero_or_none_is_nothing(faces: Embedding) -> None:
    def bias(strength: float, correction: str = "mean") -> np.ndarray | None:
        return label_bias(
            faces, SENTENCES, OWNER, WEIGHT, labels=LABELS, temperature=0.2, strength=strength,
            correction=correction,  # type: ignore[arg-type]
        )  # fmt: skip

    whole, half = bias(1.0), bias(0.5)
    assert whole is not None
    assert half is not None
    np.testing.assert_allclose(whole, 2 * half, rtol=1e-5)
    assert bias(0.0) is None
    assert bias(1.0, "none") is None
    with pytest.raises(ConfigError, match="strength is 3"):
        bias(3.0)


def test_temperature_falls_only_beyond_the_labels_it_was_fitted_with() -> None:
    assert temperature_for(0.05, 500) == 0.05
    assert temperature_for(0.05, FITTED_LABELS, by="count") == 0.05
    assert temperature_for(0.05, 2, by="count") == 0.05
    values = [temperature_for(0.05, n, by="count") for n in (9, 16, 64, 500)]
    assert values == sorted(values, reverse=True)
    assert 0.01 < values[-1] < values[0] < 0.05


def test_reference_faces_survive_the_disk_and_belong_to_one_space(faces: Embedding, tmp_path: Path) -> None:
    path = tmp_path / "faces.safetensors"
    thin = thin_faces(faces, most=50, seed=1)
    assert len(thin) == 50
    save_reference(thin, path)
    np.testing.assert_array_equal(load_reference(path, space="s").vectors, thin.vectors)
    with pytest.raises(SpaceError, match=r"live in the space 's'.*'other'"):
        load_reference(path, space="other")
    with pytest.raises(DataError, match="15 faces are too few"):
        thin_faces(Embedding(faces.vectors[:15], "s"))


@pytest.mark.parametrize("content", [None, b"", b"not safetensors", b"\x08\0\0\0\0\0\0\0{}      "])
def test_a_damaged_reference_is_told(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "faces.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"holds no reference faces.*vlfer prompts reference"):
        load_reference(path, space="s")


def test_the_pipeline_takes_the_bias_off(tiny_backbone_name: str, tiny_backbone: object, tmp_path: Path) -> None:
    from vlfer.pipeline import load_pipeline

    rng = np.random.default_rng(0)
    crops = rng.integers(0, 255, (40, 32, 32, 3), dtype=np.uint8)
    path = tmp_path / "faces.safetensors"
    save_reference(tiny_backbone.encode_images(crops), path)  # type: ignore[attr-defined]
    common = {"labels": "ekman7", "faces": "whole", "device": "cpu", "top": 7}
    plain = load_pipeline(tiny_backbone_name, **common)  # type: ignore[arg-type]
    fair = load_pipeline(tiny_backbone_name, correction="prior", correction_strength=1.0, reference=str(path), **common)  # type: ignore[arg-type]
    means = []
    for pipeline in (plain, fair):
        reports = pipeline.predict(list(crops))
        means.append(np.mean([[dict(r.predictions[0].top)[n] for n in pipeline.labels.names] for r in reports], axis=0))
    assert np.ptp(means[1]) < np.ptp(means[0])
    with pytest.raises(ConfigError, match="'prior' has no reference faces"):
        load_pipeline(tiny_backbone_name, correction="prior", **common)  # type: ignore[arg-type]


def test_without_a_correction_nothing_is_read(tiny_backbone: object) -> None:
    config = load_config(overrides={"reference": "missing.safetensors"}, environment={})
    bank = TextBank(tiny_backbone)  # type: ignore[arg-type]
    assert config_bias(config, bank, LABELS, temperature=0.1) is None
