"""Third stage of the bundled backbone: faces and texts meet in one space.

The towers are frozen; a linear map of the image features and a two-layer map of the sentence vectors are learned on
stored features, so this stage takes minutes. Six losses, most on the similarity of face and text over one temperature:

- anchors: one to many random texts of each class stand for the class; cross-entropy to the votes (as in use, where a
  class is whatever sentences its user gives);
- bank: every text of a large batch by itself, a soft InfoNCE: votes of the face times votes of the text;
- search: for a text, which faces;
- geometry: for a text with action units, the faces whose mesh shows those units;
- meaning: each text lies near the mixture of class anchors that its votes give, so that synonyms act alike;
- unseen: texts of a class that was left out get the share of the faces that a class has on average.

Class priors are taken out as in balanced softmax (Ren et al. 2020), up to the share that the recipe keeps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlfer.training.geometry import NAMES
from vlfer.training.recipe import AlignSection
from vlfer.types import FloatArray, IntArray

Hook = Callable[[str, int, int], None]

# Which measurements an action unit moves, and in which direction (FACS: Ekman, Friesen & Hager 2002).
_UNIT_GEOMETRY: dict[str, dict[str, float]] = {
    "1": {"brow_in": 1},
    "2": {"brow_out": 1, "brow_mid": 0.5},
    "4": {"brow_in": -1, "brow_gap": -0.7, "brow_mid": -0.4},
    "5": {"eye_open": 1},
    "6": {"cheek": -0.7, "eye_open": -0.4},
    "7": {"eye_open": -0.7},
    "9": {"nose_lift": -0.8, "upper_lip": -0.6},
    "10": {"upper_lip": -1, "nose_lift": -0.4},
    "12": {"corner_up": 1, "corner_out": 0.5, "mouth_width": 0.5},
    "15": {"corner_up": -1, "corner_drop": 0.5},
    "16": {"lip_low": 0.6, "chin": -0.5},
    "17": {"chin": -0.7, "lip_low": -0.3},
    "18": {"mouth_width": -1},
    "20": {"mouth_width": 0.8, "corner_up": -0.4},
    "23": {"lip_top": -0.6, "lip_low": -0.6},
    "24": {"lip_top": -0.8, "lip_low": -0.8, "mouth_open": -0.4},
    "25": {"mouth_open": 0.6},
    "26": {"mouth_open": 1, "jaw": 0.6},
    "27": {"mouth_open": 1.3, "jaw": 1},
    "28": {"lip_top": -1, "lip_low": -1},
    "43": {"eye_open": -1.2},
    "53": {"pitch": -1},
    "54": {"pitch": 1},
}


CLEARLY = 0.6
"""Share of a text's votes from which on it clearly means its class."""
_SHARE_TEMPERATURE = 0.01


@dataclass(frozen=True, slots=True)
class FaceFeatures:
    """Stored features of N faces in V views.

    Attributes:
        features: (V, N, D) float32 pooled features of the image tower.
        votes: (N, C) float32 vote shares.
        geometry: (V, N, G) float32 standardised measurements, NaN where unknown.
        sampling: (N,) float64 probability to draw a face.
        natural: (C,) float32 share of each class in the training set.
    """

    features: Tensor
    votes: Tensor
    geometry: Tensor
    sampling: FloatArray
    natural: FloatArray


@dataclass(frozen=True, slots=True)
class TextFeatures:
    """Stored sentence vectors of M texts.

    Attributes:
        features: (M, D) float32 pooled vectors of the text tower.
        votes: (M, C) float32 vote shares.
        geometry: (M, G) float32 unit vectors of expected measurements; zero rows where no unit is named.
        unseen: (M,) int64 class of a text whose class has no faces, -1 for others; None where every class has faces.
    """

    features: Tensor
    votes: Tensor
    geometry: Tensor
    unseen: Tensor | None = None


def expected_geometry(action_units: Sequence[Sequence[str]]) -> FloatArray:
    """Return (M, G) float32 unit vectors: which measurements the units of each text move, and where to."""
    columns = {name: i for i, name in enumerate(NAMES)}
    expected = np.zeros((len(action_units), len(NAMES)), np.float32)
    for row, units in enumerate(action_units):
        for unit in units:
            for measure, weight in _UNIT_GEOMETRY.get(unit, {}).items():
                for name in (measure, f"{measure}_right", f"{measure}_left"):
                    if name in columns:
                        expected[row, columns[name]] += weight
    norms = np.linalg.norm(expected, axis=1, keepdims=True)
    return np.asarray(expected / np.maximum(norms, 1e-6), np.float32)


class Aligner(nn.Module):
    """The learned maps of both sides and the logit scale, shaped as open_clip holds them.

    Args:
        image_width: Width of the image features.
        text_width: Width of the sentence vectors.
        dimension: Of the common space.
        section: Dropout and noise.
    """

    def __init__(self, *, image_width: int, text_width: int, dimension: int, section: AlignSection) -> None:
        super().__init__()
        self.section = section
        self.image = nn.Linear(image_width, dimension, bias=False)
        self.text = nn.Sequential(
            nn.Linear(text_width, text_width, bias=False), nn.GELU(), nn.Linear(text_width, dimension, bias=False)
        )
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def images(self, features: Tensor) -> Tensor:
        """Map (N, D) image features to unit vectors."""
        dropped = F.dropout(features, self.section.feature_dropout, self.training)
        return F.normalize(self.image(dropped), dim=1)

    def texts(self, features: Tensor) -> Tensor:
        """Map (M, D) sentence vectors to unit vectors."""
        if self.training and self.section.feature_noise:
            features = features + torch.randn_like(features) * features.std() * self.section.feature_noise
        features = F.dropout(features, self.section.feature_dropout, self.training)
        return F.normalize(self.text(features), dim=1)


def align(
    faces: FaceFeatures,
    texts: TextFeatures,
    section: AlignSection,
    *,
    dimension: int,
    seed: int,
    hook: Hook | None = None,
) -> Aligner:
    """Train the maps of both sides.

    Args:
        faces: Stored features of the training faces.
        texts: Stored sentence vectors of the lexicon.
        section: Weights of the losses, steps, rates.
        dimension: Of the common space.
        seed: Of order and initialisation.
        hook: Called with (message, step, total).

    Returns:
        The trained maps in evaluation mode.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    aligner = Aligner(
        image_width=faces.features.shape[2], text_width=texts.features.shape[1], dimension=dimension, section=section
    ).train()
    optimizer = torch.optim.AdamW(aligner.parameters(), lr=section.learning_rate, weight_decay=section.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, section.learning_rate, total_steps=section.steps, pct_start=0.05
    )
    correction = _prior_correction(faces, keep=section.prior)
    by_class, unvoted = _rows_by_class(texts.votes), np.flatnonzero(texts.votes.sum(dim=1).numpy() == 0)
    unseen = _rows_of_unseen(texts) if section.unseen_weight else []
    sampling = faces.sampling / faces.sampling.sum()
    for step in range(section.steps):
        rows = rng.choice(len(sampling), section.faces, p=sampling)
        view = int(rng.integers(len(faces.features)))
        chosen = np.concatenate(
            [rng.choice(pool, section.texts // len(by_class), replace=True) for pool in by_class if len(pool)]
        )
        described = np.concatenate([chosen, rng.choice(unvoted, section.texts // 8)]) if len(unvoted) else chosen
        images = aligner.images(faces.features[view, rows])
        all_sentences = aligner.texts(texts.features[described])
        sentences = all_sentences[: len(chosen)]
        scale = aligner.logit_scale.exp()
        votes, meaning = faces.votes[rows], texts.votes[chosen]
        logits = scale * images @ sentences.T
        anchors, present = _anchors(sentences, meaning, rng)
        loss = _anchor_loss(scale * images @ anchors.T, votes[:, present], correction[present])
        loss = loss + section.bank_weight * _bank_loss(logits, votes, meaning, correction)
        loss = loss + section.search_weight * _search_loss(logits, votes, meaning)
        loss = loss + section.geometry_weight * _geometry_loss(
            scale * images @ all_sentences.T,
            faces.geometry[view, rows],
            texts.geometry[described],
            texts.votes[described].sum(dim=1) == 0,
        )
        loss = loss + section.meaning_weight * _meaning_loss(sentences, meaning)
        if unseen:
            drawn = [aligner.texts(texts.features[rng.choice(pool, section.texts // len(by_class))]) for pool in unseen]
            loss = loss + section.unseen_weight * _unseen_loss(images / _SHARE_TEMPERATURE, anchors, drawn)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            aligner.logit_scale.clamp_(max=math.log(100))
        if hook and (step + 1) % 50 == 0:
            hook(f"alignment, loss {loss.item():.3f}", step + 1, section.steps)
    return aligner.eval()


def _prior_correction(faces: FaceFeatures, *, keep: float) -> Tensor:
    """Return (C,) to add to logits in training, so that what is learned keeps ``keep`` of the natural log prior."""
    drawn = (faces.votes.numpy() * (faces.sampling / faces.sampling.sum())[:, None]).sum(axis=0)
    log_drawn, log_natural = np.log(np.maximum(drawn, 1e-6)), np.log(np.maximum(faces.natural, 1e-6))
    return torch.from_numpy((log_drawn - keep * log_natural).astype(np.float32))


def _rows_by_class(votes: Tensor) -> list[IntArray]:
    majority, voted = votes.argmax(dim=1).numpy(), (votes.sum(dim=1) > 0).numpy()
    return [np.flatnonzero((majority == c) & voted) for c in range(votes.shape[1])]


def _rows_of_unseen(texts: TextFeatures) -> list[IntArray]:
    owner = np.zeros(0, np.int64) if texts.unseen is None else texts.unseen.numpy()
    return [np.flatnonzero(owner == c) for c in np.unique(owner[owner >= 0])]


def _anchors(sentences: Tensor, meaning: Tensor, rng: np.random.Generator) -> tuple[Tensor, list[int]]:
    """Return anchors of the classes, each the mean of a few random texts that clearly mean it, and which have one."""
    many = int(rng.choice([1, 2, 4, 16]))
    anchors, present = [], []
    strength, majority = meaning.max(dim=1)
    for c in range(meaning.shape[1]):
        pool = torch.nonzero((majority == c) & (strength >= CLEARLY)).flatten().numpy()
        if len(pool):
            picked = rng.choice(pool, min(many, len(pool)), replace=False)
            anchors.append(F.normalize(sentences[picked].mean(dim=0), dim=0))
            present.append(c)
    return torch.stack(anchors), present


def _anchor_loss(similar: Tensor, targets: Tensor, correction: Tensor) -> Tensor:
    """Cross-entropy of faces to the anchors of classes."""
    weight = targets.sum(dim=1)
    return -((targets * F.log_softmax(similar + correction, dim=1)).sum(dim=1) * (weight > 0)).mean()


def _unseen_loss(images: Tensor, anchors: Tensor, drawn: Sequence[Tensor]) -> Tensor:
    """By how much the share of the batch that goes to a class without faces falls short of an even one, as a log ratio.

    Every other loss only ever pushes faces away from such a class, so that it loses also where it ranks faces well; the
    known remedy, a fixed bonus when it is asked for (Chao et al., ECCV 2016), would not be part of the embeddings.

    Args:
        images: (N, D) over a temperature at which a face goes to hardly more than one class.
        anchors: (C, D) of classes with faces.
        drawn: For each class without, some of its texts (T, D).
    """
    own = torch.stack([F.normalize(part.mean(dim=0), dim=0) for part in drawn])
    shares = F.log_softmax(images @ torch.cat([anchors, own]).T, dim=1)[:, len(anchors) :].logsumexp(dim=0)
    return F.relu(math.log(len(images) / (len(anchors) + len(own))) - shares).mean()


def _bank_loss(logits: Tensor, votes: Tensor, meaning: Tensor, correction: Tensor) -> Tensor:
    """Soft InfoNCE over single texts; a class's share of a face is spread over the texts that mean it."""
    shares = meaning / meaning.sum(dim=0, keepdim=True).clamp_min(1e-6)
    targets = votes @ shares.T
    targets = targets / targets.sum(dim=1, keepdim=True).clamp_min(1e-6)
    adjusted = logits + meaning @ correction
    return -(targets * F.log_softmax(adjusted, dim=1)).sum(dim=1).mean()


def _meaning_loss(sentences: Tensor, meaning: Tensor) -> Tensor:
    """One minus the cosine of each text and the mixture of class anchors by its votes."""
    anchors = F.normalize((meaning.T @ sentences.detach()), dim=1)
    wanted = F.normalize(meaning @ anchors, dim=1)
    return (1 - (sentences * wanted).sum(dim=1))[meaning.sum(dim=1) > 0].mean()


def _search_loss(logits: Tensor, votes: Tensor, meaning: Tensor) -> Tensor:
    """For each text, cross-entropy over the faces of the batch."""
    targets = meaning @ votes.T
    mass = targets.sum(dim=1, keepdim=True)
    targets = targets / mass.clamp_min(1e-6)
    return -((targets * F.log_softmax(logits.T, dim=1)).sum(dim=1) * (mass[:, 0] > 0)).mean()


def _geometry_loss(logits: Tensor, measured: Tensor, expected: Tensor, unvoted: Tensor) -> Tensor:
    """For each text with action units, cross-entropy over the faces, by how well their mesh shows the units, and back.

    The way back, from each face to the texts, lets texts of a class left out compete for the faces that look like them;
    one of those that names no unit says that nothing moves.
    """
    known = torch.isfinite(measured).all(dim=1)
    named = (expected.abs().sum(dim=1) > 0) | unvoted
    if int(known.sum()) < 2 or not bool((expected.abs().sum(dim=1) > 0).any()):
        return logits.new_zeros(())
    agreement = expected[named] @ measured[known].T
    similar = logits[known][:, named].T
    moves = expected[named].abs().sum(dim=1) > 0
    loss = similar.new_zeros(())
    for axis, rows in ((1, moves), (0, torch.ones_like(moves))):
        targets = F.softmax(agreement[rows] * 1.5, dim=axis)
        loss = loss - (targets * F.log_softmax(similar[rows], dim=axis)).sum(dim=axis).mean()
    return loss
