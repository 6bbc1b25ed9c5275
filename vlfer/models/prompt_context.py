"""Learned context before every sentence: CoOp (Zhou et al., 2022), as DFER-CLIP uses it, for any text tower.

Placeholder tokens are put behind the start mark; a hook on the word embedding replaces theirs by the learned vectors.
So it works alike on open_clip's own towers, on Hugging Face towers inside open_clip, and on transformers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vlfer.errors import BackboneError

if TYPE_CHECKING:
    from vlfer.models.tower import TowerEncoder


def word_embedding(model: nn.Module) -> nn.Embedding:
    """Return the word embedding of a dual encoder's text tower: its largest table outside the image tower.

    Raises:
        BackboneError: If there is none.
    """
    tables = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) and not name.startswith(("visual.", "vision_model."))
    ]
    if not tables:
        raise BackboneError("The text tower has no word embedding.", why="Context vectors go behind it.")
    return max(tables, key=lambda table: table.num_embeddings)


class PromptContext(nn.Module):
    """K context vectors for the word embedding of a text tower.

    Args:
        vectors: (K, W) float32, W the width of the word embedding.
    """

    def __init__(self, vectors: Tensor) -> None:
        super().__init__()
        self.vectors = nn.Parameter(vectors, requires_grad=False)
        self.placeholder = 0
        self.first = 0
        self._handle: Any = None

    def attach(self, encoder: TowerEncoder) -> None:
        """Hook into the text tower of an encoder; from then on its sentences are encoded behind the context.

        Raises:
            BackboneError: If the vectors do not have the width of its word embedding.
        """
        table = word_embedding(encoder.model)
        if table.embedding_dim != self.vectors.shape[1]:
            raise BackboneError(
                f"The context vectors have {self.vectors.shape[1]} dimensions.",
                why=f"The word embedding has {table.embedding_dim}.",
            )
        tokens, _ = encoder.tokenize(["a", "face"])
        self.first = int(bool(tokens[0, 0] == tokens[1, 0]))  # SigLIP has no start mark
        self.placeholder = int(tokens[0, self.first])
        self._handle = table.register_forward_hook(self._replace)

    def detach_hook(self) -> None:
        """Take the hook off again."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def _replace(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        del module, inputs
        context = self.vectors.to(output.dtype).expand(len(output), -1, -1)
        end = self.first + len(self.vectors)
        return torch.cat([output[:, : self.first], context, output[:, end:]], dim=1)

    def insert(self, tokens: Tensor, lengths: list[int]) -> tuple[Tensor, list[int]]:
        """Put placeholders into tokens.

        Args:
            tokens: (N, L) int64.
            lengths: Tokens of each sentence before any cut.

        Returns:
            (N, L) int64 in which the words of long sentences are cut and their end mark is kept, and the lengths.
        """
        count, limit = len(self.vectors), tokens.shape[1]
        out = torch.cat([tokens[:, : self.first], tokens.new_full((len(tokens), count), self.placeholder),
                         tokens[:, self.first : limit - count]], dim=1)  # fmt: skip
        for row, length in enumerate(lengths):
            if length + count > limit:
                out[row, -1] = tokens[row, min(length, limit) - 1]
        return out, [length + count for length in lengths]
