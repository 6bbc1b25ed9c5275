"""What the parts are asked to do, as losses over the similarity of clips and sentences."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def vote_loss(logits: Tensor, votes: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Return the cross-entropy to labels or to shares of annotators.

    Args:
        logits: (N, C).
        votes: (N, C), rows sum to 1.
        smoothing: Share that is spread over all classes.
    """
    target = votes * (1 - smoothing) + smoothing / votes.shape[1]
    return -(target * F.log_softmax(logits, dim=1)).sum(dim=1).mean()


def intensity_loss(logits: Tensor, votes: Tensor) -> Tensor:
    """Return the intensity-aware loss of GCA-IAL (Li et al., AAAI 2023): the true class against its worst rival alone.

    Weak expressions are lost to one near class; the softmax over all classes hides it.

    Args:
        logits: (N, C), C at least 2.
        votes: (N, C); the class of most votes is the true one.
    """
    truth = votes.argmax(dim=1, keepdim=True)
    own = logits.gather(1, truth)
    rival = logits.scatter(1, truth, float("-inf")).max(dim=1, keepdim=True).values
    return F.softplus(rival - own).mean()


def contrast_loss(clips: Tensor, captions: Tensor, *, scale: Tensor, group: Tensor) -> Tensor:
    """Return the symmetric contrast of clips and their captions (CLIP; EmoCLIP, Foteinopoulou and Patras, 2024).

    Args:
        clips: (N, D) unit vectors.
        captions: (N, D) unit vectors.
        scale: What similarities are multiplied by.
        group: (N,) int64, equal for equal captions: each is then right for both clips.
    """
    logits = scale * clips @ captions.T
    same = (group[:, None] == group[None, :]).to(logits.dtype)
    target = same / same.sum(dim=1, keepdim=True)
    forward = -(target * F.log_softmax(logits, dim=1)).sum(dim=1).mean()
    return (forward - (target * F.log_softmax(logits.T, dim=1)).sum(dim=1).mean()) / 2


def keep_loss(clips: Tensor, before: Tensor) -> Tensor:
    """Return how far (N, D) unit vectors have gone from where they were: 1 - cosine."""
    return (1 - (clips * before).sum(dim=1)).mean()


def unit(vectors: Tensor) -> Tensor:
    """Return vectors of length 1 along the last axis, in float32."""
    return F.normalize(vectors.float(), dim=-1)


def class_means(sentences: Tensor, mixing: Tensor) -> Tensor:
    """Return (C, D) unit means of (M, D) sentence vectors, weighted by (C, M), as `vlfer.scoring` forms them."""
    return unit(mixing @ unit(sentences))


def spread_frames(vectors: Tensor, mask: Tensor) -> Tensor:
    """Put (K, D) vectors of the True places of an (N, T) mask into (N, T, D), zeros elsewhere."""
    out = torch.zeros(*mask.shape, vectors.shape[1], dtype=vectors.dtype, device=vectors.device)
    out[mask] = vectors
    return out
