"""Promises that every encoder keeps, whatever library is behind it."""

from __future__ import annotations

import logging
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vlfer.errors import BackboneError, EnvironmentProblem, ShapeError
from vlfer.models.encoder import Encoder, load_encoder
from vlfer.models.tower import choose_device, space_id
from vlfer.types import Frames

SENTENCES = ["awe", "a person who is about to cry, with trembling lips and wet eyes", "joy", "a broad, polite smile"]


@pytest.fixture(scope="module")
def hf_clip(tiny_hf_clip: Path) -> Any:
    return load_encoder(f"hf:{tiny_hf_clip}", device="cpu")


@pytest.fixture(scope="module")
def siglip(tiny_siglip: Path) -> Any:
    return load_encoder(f"hf:{tiny_siglip}", device="cpu")


@pytest.fixture(params=["tiny_backbone", "hf_clip", "siglip"])
def encoder(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def test_protocol_and_unit_vectors(encoder: Any, synthetic_frames: Frames) -> None:
    assert isinstance(encoder, Encoder)
    images, texts = encoder.encode_images(synthetic_frames.pixels), encoder.encode_texts(SENTENCES)
    assert images.vectors.shape == (12, encoder.dimension)
    assert texts.vectors.shape == (4, encoder.dimension)
    assert images.vectors.dtype == texts.vectors.dtype == np.float32
    assert images.space == texts.space == encoder.space
    assert np.abs(np.linalg.norm(images.vectors, axis=1) - 1).max() < 1e-5
    assert images.similarity(texts).shape == (12, 4)
    assert np.ptp(images.vectors, axis=0).max() > 1e-3  # other faces, other vectors
    assert np.ptp(texts.vectors, axis=0).max() > 1e-3


def test_batches_and_order_change_nothing(encoder: Any, synthetic_frames: Frames) -> None:
    pixels = synthetic_frames.pixels
    whole = encoder.encode_images(pixels, batch_size=12).vectors
    assert np.allclose(encoder.encode_images(pixels, batch_size=5).vectors, whole, atol=1e-5)
    assert np.allclose(encoder.encode_images(pixels[::-1]).vectors, whole[::-1], atol=1e-5)
    one_by_one = np.concatenate([encoder.encode_texts([s]).vectors for s in SENTENCES])
    together = encoder.encode_texts(SENTENCES, batch_size=3).vectors
    assert np.allclose(together, one_by_one, atol=1e-5)


def test_nothing_in_nothing_out(encoder: Any) -> None:
    assert encoder.encode_images(np.zeros((0, 9, 9, 3), np.uint8)).vectors.shape == (0, encoder.dimension)
    assert encoder.encode_texts([]).vectors.shape == (0, encoder.dimension)


def test_temperature_is_the_learned_one(encoder: Any) -> None:
    scale = float(encoder.model.logit_scale.detach().item())
    assert encoder.temperature == pytest.approx(math.exp(-scale), rel=1e-5)


def test_threads_agree_with_serial(encoder: Any, synthetic_frames: Frames) -> None:
    jobs = [(synthetic_frames.pixels[i : i + 3], [f"{s} {i}" for s in SENTENCES]) for i in range(10)] * 3
    serial = [(encoder.encode_images(p).vectors, encoder.encode_texts(s).vectors) for p, s in jobs]
    with ThreadPoolExecutor(4) as pool:
        parallel = list(pool.map(lambda job: (encoder.encode_images(job[0]), encoder.encode_texts(job[1])), jobs))
    for (images, texts), (image, text) in zip(serial, parallel, strict=True):
        assert np.allclose(image.vectors, images, atol=1e-5)
        assert np.allclose(text.vectors, texts, atol=1e-5)


def test_long_sentence_is_cut_with_a_warning(encoder: Any, caplog: pytest.LogCaptureFixture) -> None:
    long = " ".join(["smile"] * 500)
    with caplog.at_level(logging.WARNING, "vlfer"):
        encoder.encode_texts(["awe"])
        assert not caplog.records
        vectors = encoder.encode_texts([long, "awe"]).vectors
    assert "1 of 2 sentences were cut" in caplog.text
    assert np.isfinite(vectors).all()


def test_words_in_other_scripts(encoder: Any) -> None:
    vectors = encoder.encode_texts(["喜び", "радость", "😀", ""]).vectors
    assert np.isfinite(vectors).all()


def test_wrong_input(encoder: Any) -> None:
    with pytest.raises(ShapeError, match="uint8"):
        encoder.encode_images(np.zeros((2, 8, 8, 3), np.float32))
    with pytest.raises(ShapeError, match="string"):
        encoder.encode_texts("awe")
    with pytest.raises(ShapeError, match="batch size"):
        encoder.encode_texts(["awe"], batch_size=0)


def test_space_names_weights_and_adapter(tiny_backbone: Any, hf_clip: Any, siglip: Any) -> None:
    assert len({tiny_backbone.space, hf_clip.space, siglip.space}) == 3
    assert tiny_backbone.space == f"open_clip:folder/{tiny_backbone.weights_sha256[:16]}/none"
    assert space_id("a", weights_sha256="0" * 64) != space_id("a", weights_sha256="0" * 64, adapter_sha256="1" * 64)


def test_space_changes_with_one_weight(tiny_hf_clip: Path, tmp_path: Path, hf_clip: Any) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    copy = tmp_path / "copy"
    shutil.copytree(tiny_hf_clip, copy)
    assert load_encoder(f"hf:{copy}", device="cpu").space == hf_clip.space  # the place of the files is no part of it
    state = load_file(copy / "model.safetensors")
    state["visual_projection.weight"][0, 0] += 1.0
    save_file(state, copy / "model.safetensors", metadata={"format": "pt"})
    assert load_encoder(f"hf:{copy}", device="cpu").space != hf_clip.space


def test_spec_is_complete_and_from_the_folder(encoder: Any) -> None:
    assert encoder.spec.is_complete
    assert encoder.spec.image_size == 32
    assert encoder.spec.dimension == encoder.dimension


def test_preprocessing_comes_with_the_weights(hf_clip: Any, siglip: Any) -> None:
    assert hf_clip.spec.mean == (0.48, 0.46, 0.41)
    assert hf_clip.spec.interpolation == "bicubic"
    assert siglip.spec.mean == (0.5, 0.5, 0.5)


def test_siglip_reads_through_sentencepiece(siglip: Any, tiny_sentencepiece: Path) -> None:
    import sentencepiece

    tokens, lengths = siglip._tokenize(["A face that SHOWS happiness!"])
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tiny_sentencepiece))
    expected = [*pieces.encode("a face that shows happiness"), pieces.eos_id()]
    assert lengths == [len(expected)]
    assert tokens[0, : len(expected)].tolist() == expected
    assert tokens.shape == (1, 32)  # padded to the full length, as it was trained
    assert set(tokens[0, len(expected) :].tolist()) == {siglip._tokenizer.pad_token_id}
    assert pieces.unk_id() not in tokens[0].tolist()
    upper, lower = siglip.encode_texts(["JOY", "joy"]).vectors
    assert np.array_equal(upper, lower)


def test_clip_padding_changes_no_vector(hf_clip: Any) -> None:
    tokens, lengths = hf_clip._tokenize(SENTENCES)
    with torch.inference_mode():
        full = torch.nn.functional.normalize(hf_clip._forward_texts(tokens), dim=-1).numpy()
    assert max(lengths) < tokens.shape[1]
    assert np.allclose(hf_clip.encode_texts(SENTENCES).vectors, full, atol=1e-5)


def test_two_libraries_tokenize_alike(hf_clip: Any, tiny_backbone: Any) -> None:
    ours, lengths = hf_clip._tokenize(SENTENCES)
    theirs, other_lengths = tiny_backbone._tokenize(SENTENCES)
    assert lengths == other_lengths
    for row, other, length in zip(ours, theirs, lengths, strict=True):
        assert row[:length].tolist() == other[:length].tolist()


def test_devices() -> None:
    assert choose_device("cpu").type == "cpu"
    for name in ("toaster", "meta", "cuda:99"):
        with pytest.raises(EnvironmentProblem, match="cannot be used"):
            choose_device(name)


@pytest.mark.gpu
def test_gpu_agrees_with_cpu(tiny_backbone_name: str, tiny_backbone: Any, synthetic_frames: Frames) -> None:
    gpu = load_encoder(tiny_backbone_name, device="cuda")
    assert gpu.space == tiny_backbone.space
    ours, theirs = gpu.encode_images(synthetic_frames.pixels), tiny_backbone.encode_images(synthetic_frames.pixels)
    assert np.allclose(ours.vectors, theirs.vectors, atol=1e-3)
    assert np.allclose(gpu.encode_texts(SENTENCES).vectors, tiny_backbone.encode_texts(SENTENCES).vectors, atol=1e-3)


def test_wrong_expected_hash(tiny_backbone: Any) -> None:
    from dataclasses import replace

    from vlfer.models.openclip import OpenClipEncoder

    with pytest.raises(BackboneError, match="damaged or another version"):
        OpenClipEncoder(
            tiny_backbone.model, tokenizer=tiny_backbone._tokenizer, weights_sha256="1" * 64,
            spec=replace(tiny_backbone.spec, weights_sha256="0" * 64), device=torch.device("cpu"),
        )  # fmt: skip
