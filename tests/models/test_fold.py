from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from vlfer.models import face_tower
from vlfer.models.fold import fold_batch_norms

assert face_tower  # registers the towers with timm


@pytest.mark.parametrize("name", ["vlfer_face_mobileface_lite0", "test_efficientnet"])
@torch.inference_mode()
def test_a_folded_network_computes_the_same_without_batch_norms(name: str) -> None:
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=0).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            module.weight.uniform_(0.5, 2)
            module.bias.normal_()
    pixels = torch.rand(2, 3, 96, 96)
    expected = network(pixels)
    names = {name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)}
    folded = fold_batch_norms(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert {name for name, module in folded.named_modules() if isinstance(module, nn.Conv2d)} == names
    torch.testing.assert_close(folded(pixels), expected, atol=1e-3 * float(expected.abs().max()), rtol=1e-3)
