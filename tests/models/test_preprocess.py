"""Preprocessing against that of the libraries, on a photograph of a face."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from skimage.data import astronaut
from transformers import CLIPImageProcessor, SiglipImageProcessor

from vlfer.errors import ShapeError
from vlfer.models.preprocess import prepare_pixels
from vlfer.models.registry import REGISTRY, BackboneSpec

FACE = np.ascontiguousarray(astronaut()[:240, 110:350])
LEVEL = 1 / 255


def _difference_in_levels(ours: torch.Tensor, theirs: torch.Tensor, spec: BackboneSpec) -> np.ndarray:
    std = torch.tensor(spec.std).view(1, 3, 1, 1)
    assert ours.shape == theirs.shape
    return ((ours - theirs) * std / LEVEL).abs().numpy()


@pytest.mark.parametrize("side", [240, 112, 48])
@pytest.mark.parametrize("name", ["ViT-B-32/openai", "ViT-B-16-SigLIP/webli", "MobileCLIP-S1/datacompdr"])
def test_same_as_open_clip(name: str, side: int) -> None:
    spec = REGISTRY[name]
    face = np.asarray(Image.fromarray(FACE).resize((side, side)))
    for resize_mode in ("shortest", "squash"):
        reference = image_transform_v2(
            PreprocessCfg(
                size=spec.image_size, mean=spec.mean, std=spec.std, interpolation=spec.interpolation,
                resize_mode=resize_mode,
            ),
            is_train=False,
        )(Image.fromarray(face))[None]  # fmt: skip
        difference = _difference_in_levels(prepare_pixels(face[None], spec=spec), reference, spec)
        assert difference.max() <= 2.01
        assert difference.mean() < 0.1


@pytest.mark.parametrize("fit", ["crop", "squash"])
def test_named_reproduction_of_crops_that_are_not_square(fit: str) -> None:
    spec = REGISTRY["ViT-B-32/openai"]
    tall = FACE[:, 40:200]
    mode = {"crop": "shortest", "squash": "squash"}[fit]
    reference = image_transform_v2(
        PreprocessCfg(size=224, mean=spec.mean, std=spec.std, interpolation="bicubic", resize_mode=mode), is_train=False
    )(Image.fromarray(tall))[None]
    difference = _difference_in_levels(prepare_pixels(tall[None], spec=spec, fit=fit), reference, spec)
    assert difference.mean() < 0.15


def test_same_as_transformers() -> None:
    image = Image.fromarray(FACE)
    for processor, name in (
        (CLIPImageProcessor(), "openai/clip-vit-base-patch32"),
        (SiglipImageProcessor(resample=3), "google/siglip-base-patch16-224"),
        (SiglipImageProcessor(resample=2), "google/siglip2-base-patch16-224"),
    ):
        spec = REGISTRY[name]
        theirs = processor(image, return_tensors="pt")["pixel_values"]
        difference = _difference_in_levels(prepare_pixels(FACE[None], spec=spec), theirs, spec)
        assert difference.max() <= 2.01
        assert difference.mean() < 0.1


def test_padding_keeps_the_whole_picture_in_proportion() -> None:
    spec = BackboneSpec("t", "open_clip", "t", image_size=8, mean=(0.2, 0.4, 0.6), std=(0.5, 0.5, 0.5))
    wide = np.full((1, 4, 8, 3), 255, np.uint8)
    prepared = prepare_pixels(wide, spec=spec)
    assert prepared.shape == (1, 3, 8, 8)
    filled = prepared[0, :, 2:6]
    assert torch.allclose(filled, ((1 - torch.tensor(spec.mean)) / 0.5).view(3, 1, 1).expand_as(filled))
    assert prepared[0, :, [0, 1, 6, 7]].abs().max() < 1 / 255  # mean colour becomes zero


def test_reversed_views_and_batches_of_any_size() -> None:
    spec = REGISTRY["ViT-B-32/openai"]
    flipped = FACE[None, :, ::-1]
    assert torch.equal(prepare_pixels(flipped, spec=spec), prepare_pixels(flipped.copy(), spec=spec))
    assert prepare_pixels(np.zeros((0, 64, 64, 3), np.uint8), spec=spec).shape == (0, 3, 224, 224)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((1, 8, 8, 3), np.float32),
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((1, 8, 8, 4), np.uint8),
        np.zeros((1, 0, 8, 3), np.uint8),
        [[1]],
    ],
    ids=["float", "no-batch", "rgba", "empty", "list"],
)
def test_wrong_pixels(wrong: object) -> None:
    with pytest.raises(ShapeError):
        prepare_pixels(wrong, spec=REGISTRY["ViT-B-32/openai"])  # type: ignore[arg-type]
