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


def test_texts_of_a_class_lie_close_where_the_meaning_counts() -> None:
    generator = torch.Generator().manual_seed(1)
    truth = torch.arange(160) % 8
    votes = torch.nn.functional.one_hot(truth, 8).float()
    centres = torch.randn(8, 16, generator=generator)
    written = centres[truth] + 0.8 * torch.randn(160, 16, generator=generator)
    geometry = torch.full((1, 160, len(NAMES)), float("nan"))
    faces = FaceFeatures(
        torch.randn(1, 160, 24, generator=generator), votes, geometry, np.ones(160), np.full(8, 1 / 8, np.float32)
    )
    texts = TextFeatures(written, votes, torch.zeros(160, len(NAMES)))

    def spread(weight: float) -> float:
        section = AlignSection(steps=150, faces=64, texts=160, views=1, feature_dropout=0, meaning_weight=weight)
        vectors = align(faces, texts, section, dimension=12, seed=0).texts(written).detach()
        return float(np.mean([(1 - vectors[truth == c] @ vectors[truth == c].T).mean() for c in range(8)]))

    assert spread(20.0) < 0.8 * spread(0.0)


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


def test_a_class_without_any_vote_is_found_by_its_geometry() -> None:
    generator = torch.Generator().manual_seed(2)
    truth = torch.arange(320) % 8
    shape = torch.nn.functional.normalize(torch.randn(8, len(NAMES), generator=generator), dim=1)
    measured = 3 * shape[truth] + torch.randn(320, len(NAMES), generator=generator)
    look = measured @ torch.randn(len(NAMES), 48, generator=generator)  # what a network sees of the geometry
    written = torch.randn(8, 24, generator=generator)[truth] + 0.2 * torch.randn(320, 24, generator=generator)
    votes = torch.nn.functional.one_hot(truth, 8).float()
    shown = truth != 5
    text_votes = votes * (truth != 5)[:, None]
    faces = FaceFeatures(
        look[shown][None], votes[shown], measured[shown][None], np.ones(int(shown.sum())), np.full(8, 1 / 8, np.float32)
    )
    texts = TextFeatures(written, text_votes, shape[truth])

    def recall(weight: float) -> float:
        section = AlignSection(steps=250, faces=64, texts=64, views=1, search_weight=0, geometry_weight=weight)
        aligner = align(faces, texts, section, dimension=16, seed=0)
        with torch.inference_mode():
            anchors = torch.stack([aligner.texts(written)[truth == c].mean(dim=0) for c in range(8)])
            return float(((aligner.images(look[~shown]) @ anchors.T).argmax(dim=1) == 5).float().mean())

    assert recall(0.0) < 0.3
    assert recall(5.0) > 0.5


def test_a_class_without_faces_gets_a_share_of_them() -> None:
    generator = torch.Generator().manual_seed(3)
    truth = torch.arange(320) % 8
    seen = truth != 5
    centres = torch.randn(8, 24, generator=generator)
    centres[5] = centres[4] + 0.7 * torch.randn(24, generator=generator)  # looks like a class with faces
    look = centres[truth] + 0.4 * torch.randn(320, 24, generator=generator)
    words = torch.randn(8, 16, generator=generator)
    words[5] = words[4] + 0.7 * torch.randn(16, generator=generator)
    written = words[truth] + 0.2 * torch.randn(320, 16, generator=generator)
    votes = torch.nn.functional.one_hot(truth, 8).float()
    nothing = torch.zeros(320, len(NAMES))
    faces = FaceFeatures(
        look[seen][None], votes[seen], nothing[seen][None], np.ones(280), np.full(8, 1 / 8, np.float32)
    )
    texts = TextFeatures(written, votes * seen[:, None], nothing, torch.where(seen, torch.full_like(truth, -1), truth))

    def share(weight: float) -> float:
        section = AlignSection(steps=250, faces=64, texts=64, views=1, geometry_weight=0, unseen_weight=weight)
        aligner = align(faces, texts, section, dimension=16, seed=0)
        with torch.inference_mode():
            anchors = torch.stack([aligner.texts(written)[truth == c].mean(dim=0) for c in range(8)])
            return float(((aligner.images(look) @ anchors.T).argmax(dim=1) == 5).float().mean())

    assert share(0.0) < 0.02
    assert 0.06 < share(1.0) < 0.3
