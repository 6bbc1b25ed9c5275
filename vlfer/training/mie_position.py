"""What teaches the position encoder of MIACNet, without labels: the three position losses of MA2MI.

Li, Zhao et al., arXiv 2405.16451. Chosen here where the paper leaves room: positions are unit vectors, so that all
three are on one scale and weigh alike; two faces are matched one to one by the assignment of largest total similarity;
the random change is a rotation and a shift, and positions that it brings in from outside the picture do not count.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from vlfer.models.miacnet import Miacnet

_TURN_DEG, _SHIFT = 15.0, 0.1


class PositionLosses(NamedTuple):
    """The three losses.

    Attributes:
        divergence: Mean cosine similarity between different positions of one face.
        consistency: 1 minus the mean cosine similarity of matched positions of two faces.
        equivariance: Mean distance between the map of the moved face and the moved map of the face.
    """

    divergence: Tensor
    consistency: Tensor
    equivariance: Tensor

    @property
    def total(self) -> Tensor:
        """Their sum."""
        return self.divergence + self.consistency + self.equivariance


def position_losses(net: Miacnet, faces: Tensor, places: Tensor, *, generator: torch.Generator) -> PositionLosses:
    """Return the position losses of a batch.

    Args:
        net: Whose position encoder learns.
        faces: (N, 3, S, S) in -1..1, at least two.
        places: (N, C, H, W) unit vectors, ``net.positions(faces)``.
        generator: Of the random movement.
    """
    theta = random_movement(len(faces), generator=generator).to(faces.device)
    return PositionLosses(
        divergence=divergence(places),
        consistency=consistency(places, places.roll(1, dims=0)),
        equivariance=equivariance(net.positions(moved(faces, theta)), places, theta),
    )


def divergence(places: Tensor) -> Tensor:
    """Return the mean cosine similarity between different positions of the same map."""
    flat = places.flatten(2)
    count = flat.shape[2]
    similarity = flat.transpose(1, 2) @ flat
    return (similarity.sum(dim=(1, 2)) - similarity.diagonal(dim1=1, dim2=2).sum(dim=1)).mean() / (count * (count - 1))


def consistency(places: Tensor, others: Tensor) -> Tensor:
    """Return 1 minus the mean cosine similarity of positions of two maps that are matched one to one."""
    similarity = places.flatten(2).transpose(1, 2) @ others.flatten(2)
    matched = [linear_sum_assignment(one, maximize=True)[1] for one in similarity.detach().cpu().numpy()]
    index = torch.stack([torch.from_numpy(one) for one in matched]).to(similarity.device)
    return 1 - similarity.gather(2, index[:, :, None]).mean()


def equivariance(of_moved: Tensor, places: Tensor, theta: Tensor) -> Tensor:
    """Return the mean distance between the map of moved faces and the moved map, where both see the face."""
    inside = moved(torch.ones_like(places[:, :1]), theta)[:, 0] > 0.99
    away = ((of_moved - moved(places, theta)).square().sum(dim=1) + 1e-8).sqrt()
    return (away * inside).sum() / inside.sum().clamp_min(1)


def random_movement(
    n: int, *, generator: torch.Generator, turn_deg: float = _TURN_DEG, shift: float = _SHIFT
) -> Tensor:
    """Draw rotations up to ``turn_deg`` and shifts up to ``shift`` of the side, (N, 2, 3) for `moved`."""
    angle = math.radians(turn_deg) * (2 * torch.rand(n, generator=generator) - 1)
    step = 2 * shift * (2 * torch.rand(n, 2, generator=generator) - 1)
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([torch.stack([cos, -sin, step[:, 0]], 1), torch.stack([sin, cos, step[:, 1]], 1)], 1)


def moved(maps: Tensor, theta: Tensor) -> Tensor:
    """Return maps (N, C, H, W) under movements (N, 2, 3); what comes from outside is 0."""
    grid = F.affine_grid(theta, list(maps.shape), align_corners=False)
    return F.grid_sample(maps, grid, align_corners=False)
