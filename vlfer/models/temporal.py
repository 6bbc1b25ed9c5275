"""From vectors of frames to the vector of a clip: poolers that need no training, and a transformer that reads order.

All take the frame embeddings of any backbone, (N, T, D) with a mask, and return (N, D) unit vectors of the same space.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from vlfer.config import write_atomically
from vlfer.errors import AdapterError, ConfigError, ShapeError

Pooler = Literal["mean", "attention", "topk", "ema"]

FORMAT = "vlfer-temporal-1"
MOST_LAYERS = 4
_CONFIG_KEY, _FORMAT_KEY = "config", "format"


def check_clip(vectors: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mask of a batch of clips as (N, T) bool, True for frames that count.

    Args:
        vectors: (N, T, D) floating.
        mask: (N, T) bool, or None where all frames count.

    Raises:
        ShapeError: If a shape is wrong, or a clip has no frame that counts.
    """
    if vectors.ndim != 3 or not vectors.is_floating_point() or vectors.shape[1] == 0:
        raise ShapeError(f"The clips are {tuple(vectors.shape)} {vectors.dtype}.", why="Expected (N, T, D) floats.")
    if mask is None:
        return torch.ones(vectors.shape[:2], dtype=torch.bool, device=vectors.device)
    if mask.shape != vectors.shape[:2] or mask.dtype != torch.bool:
        raise ShapeError(
            f"The mask is {tuple(mask.shape)} {mask.dtype}.", why=f"Expected {tuple(vectors.shape[:2])} bool."
        )
    if not bool(mask.any(dim=1).all()):
        raise ShapeError("A clip has no frame that counts.", why="Its row of the mask is all False.")
    return mask


def pool_mean(vectors: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the unit mean of each clip's frames, (N, D).

    Args:
        vectors: (N, T, D) float32.
        mask: (N, T) bool or None.

    Raises:
        ShapeError: As in `check_clip`.
    """
    return _unit(_mean(vectors, check_clip(vectors, mask)))


def pool_attention(vectors: Tensor, mask: Tensor | None = None, *, temperature: float = 0.1) -> Tensor:
    """Return the unit mean of each clip's frames, those near to the clip's mean weighing more, (N, D).

    The parameter-free similarity weighting of video retrieval with CLIP (Bain et al., 2022, "A CLIP-Hitchhiker's Guide
    to Long Video Retrieval"), with the mean frame in place of the query: blurred and turned frames lose weight.

    Args:
        vectors: (N, T, D) float32.
        mask: (N, T) bool or None.
        temperature: Small weighs the most typical frames only, large is the mean.

    Raises:
        ConfigError: If ``temperature`` is not positive.
        ShapeError: As in `check_clip`.
    """
    if not temperature > 0:
        raise ConfigError(f"The temperature is {temperature}.", why="Similarities are divided by it.", fix="0.1")
    mask = check_clip(vectors, mask)
    similarity = (vectors @ _unit(_mean(vectors, mask))[:, :, None]).squeeze(-1)
    weight = (similarity / temperature).masked_fill(~mask, float("-inf")).softmax(dim=1)
    return _unit((_covered(vectors, mask) * weight[:, :, None]).sum(dim=1))


def pool_topk(vectors: Tensor, mask: Tensor | None = None, *, salience: Tensor | None = None, k: int = 4) -> Tensor:
    """Return the unit mean of the ``k`` most salient frames of each clip, (N, D): an expression lives in its peak.

    Args:
        vectors: (N, T, D) float32.
        mask: (N, T) bool or None.
        salience: (N, T) float32, how much each frame matters, such as the probability of its best label; None takes
            the distance from the clip's mean.
        k: Frames; a clip with fewer takes all it has.

    Raises:
        ConfigError: If ``k`` is below 1.
        ShapeError: If ``salience`` is not (N, T), or as in `check_clip`.
    """
    if k < 1:
        raise ConfigError(f"k is {k}.", why="At least one frame is averaged.", fix="4")
    mask = check_clip(vectors, mask)
    if salience is None:
        salience = 1.0 - (vectors @ _unit(_mean(vectors, mask))[:, :, None]).squeeze(-1)
    if salience.shape != mask.shape:
        raise ShapeError(f"The salience is {tuple(salience.shape)}.", why=f"Expected {tuple(mask.shape)}.")
    order = salience.masked_fill(~mask, float("-inf")).topk(min(k, mask.shape[1]), dim=1).indices
    chosen = torch.zeros_like(mask).scatter_(1, order, True) & mask
    return _unit(_mean(vectors, chosen))


def pool_ema(
    vectors: Tensor, mask: Tensor | None = None, *, times_s: Tensor | None = None, half_life_s: float = 0.4
) -> Tensor:
    """Return the unit exponentially weighted mean of each clip's frames as of its last frame, (N, D).

    What `vlfer.models.temporal.pool_ema` gives for the frames so far is what a live display shows.

    Args:
        vectors: (N, T, D) float32.
        mask: (N, T) bool or None.
        times_s: (N, T) float seconds; None takes frames of 25 a second.
        half_life_s: After this long a frame weighs half.

    Raises:
        ConfigError: If ``half_life_s`` is not positive.
        ShapeError: If ``times_s`` is not (N, T), or as in `check_clip`.
    """
    if not half_life_s > 0:
        raise ConfigError(f"The half-life is {half_life_s} s.", why="Old frames fade with it.", fix="0.4")
    mask = check_clip(vectors, mask)
    if times_s is None:
        times_s = (mask.cumsum(dim=1) - 1).float() / 25.0
    if times_s.shape != mask.shape:
        raise ShapeError(f"times_s is {tuple(times_s.shape)}.", why=f"Expected {tuple(mask.shape)}.")
    last = times_s.masked_fill(~mask, float("-inf")).max(dim=1, keepdim=True).values
    age = (last - times_s).masked_fill(~mask, float("inf"))
    weight = torch.exp2(-age / half_life_s).to(vectors.dtype)
    total = weight.sum(dim=1, keepdim=True)
    return _unit((_covered(vectors, mask) * (weight / total)[:, :, None]).sum(dim=1))


class TemporalAdapter(nn.Module):
    """A transformer over frame embeddings: CLS token, positions, and a residual to the mean that starts at zero.

    Untrained it equals `pool_mean` exactly, bit for bit. Positions count the frames that are not masked, so padding may
    lie anywhere. The shape is that of DFER-CLIP (Zhao and Patras, 2023) with pre-normalisation, the residual to the
    mean that of a zero-initialised adapter (Houlsby et al., 2019).

    Args:
        dimension: D of the frame embeddings.
        layers: Transformer layers, 1 to 4.
        heads: Attention heads; D is a multiple of it.
        max_frames: Frames of the longest clip.
        hidden: Width of the feed-forward layers; None is 2 * D.
        dropout: In training only.

    Raises:
        ConfigError: If a number is out of range.
    """

    def __init__(
        self,
        dimension: int,
        *,
        layers: int = 2,
        heads: int = 4,
        max_frames: int = 64,
        hidden: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        hidden = 2 * dimension if hidden is None else hidden
        if min(dimension, heads, max_frames, hidden) < 1 or dimension % heads:
            raise ConfigError(
                f"A temporal adapter of dimension {dimension}, {heads} heads, {max_frames} frames, hidden {hidden}.",
                why="All are at least 1 and the dimension is a multiple of the heads.",
                fix="heads=4",
            )
        if not 1 <= layers <= MOST_LAYERS:
            raise ConfigError(f"A temporal adapter of {layers} layers.", why=f"Expected 1 to {MOST_LAYERS}.")
        self.config: dict[str, Any] = {
            "dimension": dimension, "layers": layers, "heads": heads, "max_frames": max_frames, "hidden": hidden,
            "dropout": dropout,
        }  # fmt: skip
        self.cls = nn.Parameter(torch.zeros(dimension))
        self.positions = nn.Parameter(torch.zeros(max_frames + 1, dimension))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                dimension, heads, hidden, dropout, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(dimension)
        self.head = nn.Linear(dimension, dimension)
        nn.init.normal_(self.cls, std=0.02)
        nn.init.normal_(self.positions, std=0.02)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @property
    def dimension(self) -> int:
        """D of the vectors it reads and returns."""
        return int(self.config["dimension"])

    @property
    def max_frames(self) -> int:
        """Frames of the longest clip it reads."""
        return int(self.config["max_frames"])

    def forward(self, vectors: Tensor, mask: Tensor | None = None) -> Tensor:
        """Read clips.

        Args:
            vectors: (N, T, D) float32 unit frame embeddings in order of time.
            mask: (N, T) bool, True for frames that count; None where all do.

        Returns:
            (N, D) unit vectors.

        Raises:
            ShapeError: If a shape is wrong, a clip is empty, or longer than ``max_frames``.
        """
        mask = check_clip(vectors, mask)
        if vectors.shape[2] != self.dimension:
            raise ShapeError(f"The frames have {vectors.shape[2]} dimensions.", why=f"Expected {self.dimension}.")
        count = mask.cumsum(dim=1)
        longest = int(count[:, -1].max()) if len(mask) else 0
        if longest > self.max_frames:
            raise ShapeError(
                f"A clip has {longest} frames.", why=f"The adapter reads {self.max_frames}.", fix="sample fewer frames."
            )
        mean = _mean(vectors, mask)
        # Unit vectors have entries of about 1 / sqrt(D): brought to the scale that layers are initialised for.
        frames = _covered(vectors, mask) * self.dimension**0.5 + self.positions[count * mask]
        cls = (self.cls + self.positions[0]).expand(len(vectors), 1, -1)
        hidden = torch.cat([cls, frames], dim=1)
        ignored = torch.cat([mask.new_zeros(len(mask), 1), ~mask], dim=1)
        for block in self.blocks:
            hidden = block(hidden, src_key_padding_mask=ignored)
        return _unit(mean + self.head(self.norm(hidden[:, 0])))


def save_temporal(adapter: TemporalAdapter, path: str | Path) -> Path:
    """Write an adapter as safetensors with its configuration in the metadata.

    Raises:
        AdapterError: If a weight is NaN or infinite.
        OSError: If the file cannot be written.
    """
    path = Path(path)
    state = {key: value.detach().cpu().float().contiguous().clone() for key, value in adapter.state_dict().items()}
    for key, value in state.items():
        if not bool(torch.isfinite(value).all()):
            raise AdapterError(f"The temporal weight {key!r} is not finite.", why="Training diverged.")
    metadata = {_FORMAT_KEY: FORMAT, _CONFIG_KEY: json.dumps(adapter.config, sort_keys=True)}
    write_atomically(path, save(state, metadata=metadata))
    return path


def load_temporal(path: str | Path) -> TemporalAdapter:
    """Read what `save_temporal` wrote; in evaluation mode, on the CPU.

    Raises:
        AdapterError: If the file is missing, damaged, or no temporal adapter.
    """
    path = Path(path)
    fix = "copy or train the adapter again."
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, no mapping
        if metadata.get(_FORMAT_KEY) != FORMAT:
            raise ValueError(f"its format is {metadata.get(_FORMAT_KEY)!r}, expected {FORMAT!r}")
        config = dict(json.loads(metadata[_CONFIG_KEY]))
        dimension = int(config.pop("dimension"))
        adapter = TemporalAdapter(dimension, **config)
        adapter.load_state_dict(state)
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise AdapterError(f"The temporal adapter {str(path)!r} cannot be loaded.", why=reason, fix=fix) from error
    return adapter.eval()


def _covered(vectors: Tensor, mask: Tensor) -> Tensor:
    """Return the clips with zeros where nothing counts: padding may hold anything, NaN too."""
    return torch.where(mask[:, :, None], vectors, vectors.new_zeros(()))


def _mean(vectors: Tensor, mask: Tensor) -> Tensor:
    return _covered(vectors, mask).sum(dim=1) / mask.sum(dim=1, keepdim=True)


def _unit(vectors: Tensor) -> Tensor:
    return nn.functional.normalize(vectors, dim=-1)
