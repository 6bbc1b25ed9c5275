"""Few-shot without training: a cache of stored embeddings beside the words (Tip-Adapter, Zhang et al., ECCV 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from vlfer.config import write_atomically
from vlfer.errors import AdapterError, ShapeError
from vlfer.metrics import softmax
from vlfer.types import Embedding, FloatArray

_ALPHAS, _BETAS = (0.0, 0.3, 1.0, 3.0, 10.0, 30.0), (1.0, 3.0, 5.5, 10.0, 20.0)


@dataclass(frozen=True, slots=True)
class CacheAdapter:
    """Labelled embeddings that vote for what lies near them.

    Attributes:
        keys: N unit vectors in one space.
        votes: (N, C) float32, rows sum to 1.
        alpha: Weight of the votes beside the logits of the words.
        beta: How fast a vote fades with distance.
    """

    keys: Embedding
    votes: FloatArray
    alpha: float = 1.0
    beta: float = 5.5

    def __post_init__(self) -> None:
        if self.votes.ndim != 2 or len(self.votes) != len(self.keys):
            raise ShapeError(f"{len(self.keys)} keys have votes of shape {self.votes.shape}.", why="Expected (N, C).")

    def logits(self, images: Embedding, similarity: FloatArray, *, temperature: float) -> FloatArray:
        """Return (M, C) logits: similarity with the words over the temperature, and the votes of the cache.

        Votes are averaged within a class, so that a class with more samples is not favoured.

        Args:
            images: M vectors in the space of the cache.
            similarity: (M, C) cosine similarities with the words.
            temperature: Of the space.

        Raises:
            SpaceError: If the images live in another space.
        """
        near = np.exp(-self.beta * (1.0 - images.similarity(self.keys)))
        shares = self.votes / np.maximum(self.votes.sum(axis=0, keepdims=True), 1e-9)
        votes = near @ shares
        scale = np.maximum(votes.max(axis=1, keepdims=True), 1e-12)  # far from all keys only the order says anything
        return np.asarray(similarity / temperature + self.alpha * votes / scale, np.float32)

    def tuned(
        self, images: Embedding, similarity: FloatArray, truth: FloatArray, *, temperature: float
    ) -> CacheAdapter:
        """Return the cache with alpha and beta of least loss on samples that are not in it.

        Args:
            images: M vectors.
            similarity: (M, C).
            truth: (M, C) votes.
            temperature: Of the space.
        """

        def loss(alpha: float, beta: float) -> float:
            trial = CacheAdapter(self.keys, self.votes, alpha, beta)
            probability = softmax(trial.logits(images, similarity, temperature=temperature))
            return float(-(truth * np.log(np.maximum(probability, 1e-9))).sum(axis=1).mean())

        _, alpha, beta = min((loss(a, b), a, b) for a in _ALPHAS for b in _BETAS)
        return CacheAdapter(self.keys, self.votes, alpha, beta)

    def save(self, path: Path) -> None:
        """Write it as one safetensors file.

        Raises:
            OSError: If it cannot be written.
        """
        notes = {"space": self.keys.space, "alpha": repr(self.alpha), "beta": repr(self.beta)}
        write_atomically(path, save({"keys": self.keys.vectors, "votes": self.votes}, metadata=notes))

    @classmethod
    def load(cls, path: Path) -> CacheAdapter:
        """Read what `save` wrote.

        Raises:
            AdapterError: If it is missing or damaged.
        """
        try:
            with safe_open(str(path), "numpy") as file:
                notes = file.metadata()
                keys, votes = file.get_tensor("keys"), file.get_tensor("votes")
            return cls(Embedding(keys, notes["space"]), votes, float(notes["alpha"]), float(notes["beta"]))
        except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
            raise AdapterError(f"The cache {str(path)!r} cannot be read: {error}.", fix="build it again") from error
