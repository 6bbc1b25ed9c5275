"""Updates of low rank, stored as two thin matrices instead of one large one (LoRA, Hu et al. 2021)."""

from __future__ import annotations

import torch
from torch import Tensor

UP, DOWN = ".up", ".down"
_NEGLIGIBLE = 1e-4


def factorise(update: Tensor) -> tuple[Tensor, Tensor] | None:
    """Write an update as ``up @ down``, or return None where that would not be smaller.

    Args:
        update: (M, N) float32, the difference of a matrix and the one it started from. Singular values below 1e-4 of
            the largest, which half precision would lose anyway, count as none.

    Returns:
        ``up`` (M, R) and ``down`` (R, N), of about the same scale so that both survive half precision; or None.
    """
    left, values, right = torch.linalg.svd(update.float(), full_matrices=False)
    rank = int((values > _NEGLIGIBLE * values[0]).sum())
    rows, columns = update.shape
    if rank == 0 or rank * (rows + columns) >= rows * columns:
        return None
    root = values[:rank].sqrt()
    return (left[:, :rank] * root).contiguous(), (root[:, None] * right[:rank]).contiguous()


def restore(state: dict[str, Tensor], start: dict[str, Tensor]) -> dict[str, Tensor]:
    """Replace each pair of factors in ``state`` by the matrix it updates.

    Args:
        state: Tensors by name; a pair is ``NAME.up`` and ``NAME.down``.
        start: What the updates are added to, by name.

    Raises:
        RuntimeError: If a factor has no partner, nothing to update, or another shape.
    """
    whole = {key: value for key, value in state.items() if not key.endswith((UP, DOWN))}
    names = {key.removesuffix(UP).removesuffix(DOWN) for key in state if key.endswith((UP, DOWN))}
    for name in sorted(names):
        up, down = state.get(name + UP), state.get(name + DOWN)
        if up is None or down is None or name not in start or name in whole:
            raise RuntimeError(f"the update of {name!r} is incomplete, or there is nothing to update")
        whole[name] = start[name] + up @ down
    return whole
