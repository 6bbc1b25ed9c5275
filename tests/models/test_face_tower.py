from __future__ import annotations

import pytest
import timm
import torch

from vlfer.models.face_tower import BRANCH_SIZE, FaceTower, at_size, timm_name

BOTH = ("mobileface", "lite0")


@pytest.fixture(scope="module")
def tower() -> FaceTower:
    torch.manual_seed(0)
    built: FaceTower = timm.create_model(timm_name(BOTH)).eval()
    return built


@torch.inference_mode()
def test_features_are_those_of_the_networks_side_by_side(tower: FaceTower) -> None:
    grey = torch.randn(2, 1, 96, 96)
    features = tower(grey.expand(2, 3, 96, 96))
    assert features.shape == (2, tower.num_features)
    first = tower.branches["mobileface"](at_size(grey, BRANCH_SIZE["mobileface"]))
    second = tower.branches["lite0"](grey)
    torch.testing.assert_close(features, torch.cat([first, second], dim=1), atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_colour_has_no_influence_beyond_luminance(tower: FaceTower) -> None:
    pixels = torch.rand(2, 3, 96, 96)
    luminance = (pixels * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    torch.testing.assert_close(tower(pixels), tower(luminance.expand_as(pixels)), atol=1e-4, rtol=1e-4)


def test_one_network_alone_looks_at_its_own_size() -> None:
    assert timm.create_model(timm_name(("mobileface",))).image_size == BRANCH_SIZE["mobileface"]


def test_there_is_no_classifier(tower: FaceTower) -> None:
    tower.reset_classifier(0)
    with pytest.raises(ValueError, match="features"):
        tower.reset_classifier(7)
    with pytest.raises(ValueError, match="checkpoint"):
        timm.create_model(timm_name(BOTH), pretrained=True)
