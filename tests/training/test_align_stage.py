from __future__ import annotations

import numpy as np
import torch

from vlfer.training.align_stage import FaceFeatures, TextFeatures, align, expected_geometry
from vlfer.training.geometry import NAMES
from vlfer.training.recipe import AlignSection


def test_action_units_point_at_what_they_move() -> None:
    smile, none = expected_geometry([("6", "12"), ()])
    assert smile[NAMES.index("corner_up_left")] > 0.3
    assert smile[NAMES.index("brow_gap")] == 0
    assert np.isclose(np.linalg.norm(smile), 1, atol=1e-5)
    assert not none.any()


def test_faces_find_unseen_texts_of_their_class() -> None:
    generator = torch.Generator().manual_seed(0)
    centres_image = torch.randn(8, 24, generator=generator)
    centres_text = torch.randn(8, 16, generator=generator)
    truth = torch.arange(160) % 8

    def noisy(centres: torch.Tensor) -> torch.Tensor:
        return centres[truth] + 0.3 * torch.randn(len(truth), centres.shape[1], generator=generator)

    votes = torch.nn.functional.one_hot(truth, 8).float()
    geometry = torch.full((1, 160, len(NAMES)), float("nan"))
    faces = FaceFeatures(noisy(centres_image)[None], votes, geometry, np.ones(160), np.full(8, 1 / 8, np.float32))
    texts = TextFeatures(noisy(centres_text), votes, torch.zeros(160, len(NAMES)))
    section = AlignSection(steps=150, faces=64, texts=64, views=1)
    aligner = align(faces, texts, section, dimension=12, seed=0)
    with torch.inference_mode():
        similarity = aligner.images(noisy(centres_image)) @ aligner.texts(noisy(centres_text)).T
    found = truth[similarity.argmax(dim=1)]
    assert float((found == truth).float().mean()) > 0.9
