"""Learned residuals on the vectors of labels: TaskRes (Yu et al., CVPR 2023), passed on to words that lie near them.

Sentences of a label move to where its faces are, which low-rank updates of the image tower alone do not reach with few
samples. A sentence that is none of a label's moves with it as far as it lies near one that is, so that synonyms come
along and words of another meaning stay.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_FALLOFF = 4.0  # at the nearest sentence of another label exp(-4) = 2 % of a residual is left
_STRIDE = 2.0  # an optimizer moves each number by its rate; those of a unit vector are small
_LEAST_REACH = 1e-3  # two labels may share a sentence


class LabelResidual(nn.Module):
    """One residual a label, added to the unit vectors of its sentences and of those near them.

    Args:
        keys: (M, D) unit vectors of the sentences of all labels.
        owner: (M,) int64, the label of each.
        residual: (C, D), one a label, in units of 2 / sqrt(D).
        reach: (M,) cosine distance of each sentence to the nearest one of another label.
    """

    keys: Tensor
    owner: Tensor
    reach: Tensor

    def __init__(self, keys: Tensor, owner: Tensor, residual: Tensor, reach: Tensor) -> None:
        super().__init__()
        self.register_buffer("keys", keys)
        self.register_buffer("owner", owner)
        self.register_buffer("reach", reach)
        self.residual = nn.Parameter(residual)

    @classmethod
    def fresh(cls, keys: Tensor, owner: Tensor) -> LabelResidual:
        """Return residuals of zero for (M, D) sentences, at least one of each label."""
        distance = (1 - keys @ keys.T).masked_fill(owner[:, None] == owner[None, :], float("inf"))
        reach = distance.min(dim=1).values.clamp(_LEAST_REACH, 2.0)
        return cls(keys, owner, keys.new_zeros(int(owner.max()) + 1, keys.shape[1]), reach)

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> LabelResidual:
        """Return what `state_dict` told.

        Raises:
            KeyError: If a tensor is missing.
            ValueError: If tensors do not fit each other or are not finite.
        """
        keys, residual, reach = (state[name].float() for name in ("keys", "residual", "reach"))
        owner = state["owner"].long()
        fits = keys.ndim == 2 and residual.ndim == 2 and keys.shape[1] == residual.shape[1]
        if not fits or owner.shape != (len(keys),) or reach.shape != owner.shape:
            raise ValueError(f"keys {tuple(keys.shape)} and residuals {tuple(residual.shape)} do not fit each other")
        if not len(keys) or int(owner.min()) < 0 or int(owner.max()) >= len(residual):
            raise ValueError(f"its sentences belong to other labels than its {len(residual)}")
        if not all(bool(torch.isfinite(part).all()) for part in (keys, residual, reach)) or float(reach.min()) <= 0:
            raise ValueError("its numbers are not finite")
        return cls(keys, owner, residual, reach)

    def forward(self, vectors: Tensor) -> Tensor:
        """Map (N, D) vectors of any length to unit vectors plus the residuals of the labels that they lie near."""
        vectors = F.normalize(vectors.float(), dim=-1)
        nearness = torch.exp(-_FALLOFF * (1 - vectors @ self.keys.T).clamp_min(0) / self.reach)
        of_label = nearness.new_zeros(len(vectors), len(self.residual))
        of_label = of_label.scatter_reduce(1, self.owner.expand(len(vectors), -1), nearness, "amax")
        out: Tensor = vectors + of_label @ self.residual * (_STRIDE / vectors.shape[1] ** 0.5)
        return out
