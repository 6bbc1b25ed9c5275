from __future__ import annotations

import torch

from vlfer.training.augment import augment, warp


def _faces() -> torch.Tensor:
    return torch.rand(6, 1, 48, 48, generator=torch.Generator().manual_seed(3))


def test_same_generator_same_result() -> None:
    one, flip_one = augment(_faces(), size=64, generator=torch.Generator().manual_seed(1))
    two, flip_two = augment(_faces(), size=64, generator=torch.Generator().manual_seed(1))
    assert torch.equal(one, two)
    assert torch.equal(flip_one, flip_two)
    other, _ = augment(_faces(), size=64, generator=torch.Generator().manual_seed(2))
    assert not torch.equal(one, other)
    assert one.shape == (6, 1, 64, 64)
    assert 0 <= float(one.min()) <= float(one.max()) <= 1


def test_warp_without_strength_mirrors_exactly_the_flipped_faces() -> None:
    faces, flip = _faces(), torch.tensor([True, False, True, False, False, True])
    warped = warp(faces, size=48, generator=torch.Generator().manual_seed(0), flip=flip, strength=0.0)
    expected = torch.where(flip.view(-1, 1, 1, 1), faces.flip(3), faces)
    torch.testing.assert_close(warped, expected, atol=1e-4, rtol=0)
