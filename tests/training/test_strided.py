from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from vlfer.models.face_tower import BRANCH_SIZE, BranchName, build_branch
from vlfer.training.strided import slice_strided_depthwise


@pytest.mark.parametrize("name", ["mobileface", "lite0"])
def test_by_slices_values_gradients_and_names_stay(name: BranchName) -> None:
    torch.manual_seed(0)
    plain = build_branch(name).double()  # batch norms over two faces magnify rounding
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm2d):  # fresh ones let next to nothing through the depths of the network
            nn.init.normal_(module.weight, 1.0, 0.1)
    sliced = copy.deepcopy(plain)
    slice_strided_depthwise(sliced)
    changed = [m for m in sliced.modules() if type(m).__name__.startswith("_Sliced")]
    assert len(changed) == 4
    pixels = torch.randn(2, 1, BRANCH_SIZE[name], BRANCH_SIZE[name], dtype=torch.float64)
    out = [network.train()(pixels) for network in (plain, sliced)]
    assert torch.allclose(out[0], out[1], atol=1e-9)
    direction = torch.randn_like(out[0])
    for values in out:
        values.backward(direction)
    for (key, one), (again, other) in zip(plain.named_parameters(), sliced.named_parameters(), strict=True):
        assert key == again
        assert one.grad is not None
        assert other.grad is not None
        assert torch.allclose(one.grad, other.grad, atol=1e-9), key


def test_other_layers_are_left_alone() -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 3, stride=2), nn.Conv2d(8, 8, 3, groups=8))
    slice_strided_depthwise(model)
    assert [type(layer) for layer in model] == [nn.Conv2d, nn.Conv2d]
