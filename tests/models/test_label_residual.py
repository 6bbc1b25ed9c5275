from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from vlfer.models.label_residual import LabelResidual

UNIT = 2 / math.sqrt(2)  # of the residuals of two dimensions


def keys_and_owner() -> tuple[torch.Tensor, torch.Tensor]:
    """Return four sentences of two labels in the plane: two near 0 degrees, two near 90."""
    angle = torch.deg2rad(torch.tensor([0.0, 10.0, 80.0, 90.0]))
    return torch.stack([angle.cos(), angle.sin()], dim=1), torch.tensor([0, 0, 1, 1])


def test_a_fresh_one_changes_nothing() -> None:
    residual = LabelResidual.fresh(*keys_and_owner())
    vectors = torch.tensor([[3.0, 0.0], [1.0, 1.0]])
    assert torch.allclose(residual(vectors), F.normalize(vectors, dim=1))


def test_sentences_of_a_label_move_wholly_and_others_as_far_as_they_lie_near() -> None:
    keys, owner = keys_and_owner()
    residual = LabelResidual.fresh(keys, owner)
    with torch.no_grad():
        residual.residual[0] = torch.tensor([0.0, -1.0]) / UNIT
    angle = torch.deg2rad(torch.tensor([0.0, 3.0, 45.0, 80.0, 180.0]))
    sentences = torch.stack([angle.cos(), angle.sin()], dim=1)
    moved = (residual(sentences) - sentences).norm(dim=1).tolist()
    assert moved[0] == pytest.approx(1, abs=1e-5)
    assert 0.9 < moved[1] < 1
    assert moved[2] < 0.5
    assert moved[3] == pytest.approx(math.exp(-4), abs=1e-4)  # the nearest sentence of the other label
    assert moved[4] < 1e-4


def test_a_sentence_of_two_labels_moves_with_both() -> None:
    keys = torch.eye(2)[[0, 0, 1]]
    residual = LabelResidual.fresh(keys, torch.tensor([0, 1, 1]))
    with torch.no_grad():
        residual.residual[:] = torch.tensor([[0.5, 0.0], [0.0, 0.5]]) / UNIT
    assert torch.allclose(residual(keys[:1]), torch.tensor([[1.5, 0.5]]))


def test_its_state_makes_it_again() -> None:
    residual = LabelResidual.fresh(*keys_and_owner())
    with torch.no_grad():
        residual.residual.normal_()
    again = LabelResidual.from_state(dict(residual.state_dict()))
    assert torch.equal(again(torch.eye(2)), residual(torch.eye(2)))


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("keys", torch.zeros(4, 3)),
        ("owner", torch.tensor([0, 0, 1, 2])),
        ("owner", torch.tensor([0, 1])),
        ("residual", torch.full((2, 2), float("nan"))),
        ("reach", torch.zeros(4)),
    ],
)
def test_tensors_that_do_not_fit_are_refused(name: str, tensor: torch.Tensor) -> None:
    state = dict(LabelResidual.fresh(*keys_and_owner()).state_dict()) | {name: tensor}
    with pytest.raises(ValueError, match=r"fit|belong|finite"):
        LabelResidual.from_state(state)
