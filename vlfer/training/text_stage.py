"""Second stage of the bundled backbone: MiniLM learns what words mean for a face.

MiniLM judges emotion words weakly (antonyms lie close, "calm" falls to anger). Low-rank updates (LoRA, Hu et al. 2021)
of its layers are trained on the lexicon: each text predicts the votes that a face so described would get and the
action units it shows. The heads are thrown away; the pooled sentence vectors stay.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from vlfer.text.lexicon import Lexicon
from vlfer.text.sentences import class_sentences
from vlfer.training.recipe import TextSection
from vlfer.types import FloatArray, Label

Hook = Callable[[str, int, int], None]


class TextWithHeads(nn.Module):
    """A MiniLM text tower with one head for the votes and one for the action units."""

    def __init__(self, transformer: nn.Module, *, width: int, classes: int, units: int, dropout: float) -> None:
        super().__init__()
        self.transformer = transformer
        self.dropout = nn.Dropout(dropout)
        self.votes = nn.Linear(width, classes)
        self.units = nn.Linear(width, units)

    def pool(self, tokens: dict[str, Tensor]) -> Tensor:
        """Return the mean over the tokens of each text, (N, D)."""
        hidden = self.transformer(**tokens).last_hidden_state
        mask = tokens["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        return cast(Tensor, (hidden * mask).sum(dim=1) / mask.sum(dim=1))

    def forward(self, tokens: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return vote logits (N, C) and action-unit logits (N, U)."""
        pooled = self.dropout(self.pool(tokens))
        return self.votes(pooled), self.units(pooled)


def unit_names(lexicon: Lexicon, *, at_least: int = 15) -> tuple[str, ...]:
    """Return the action units that occur often enough to be learned, in numeric order."""
    counts: dict[str, int] = {}
    for units in lexicon.action_units:
        for unit in units:
            counts[unit] = counts.get(unit, 0) + 1
    return tuple(sorted((unit for unit, count in counts.items() if count >= at_least), key=int))


def unit_matrix(lexicon: Lexicon, names: Sequence[str]) -> FloatArray:
    """Return (N, U) float32: 1 where a text shows the unit, 0 where not, NaN for texts without any unit named."""
    matrix = np.full((len(lexicon), len(names)), np.nan, np.float32)
    for i, units in enumerate(lexicon.action_units):
        if units:
            matrix[i] = [float(name in units) for name in names]
    return matrix


def in_template(text: str, kind: str, *, rng: random.Random, probability: float = 0.5) -> str:
    """Put a word or phrase into one of the sentences used for labels; actions and captions are sentences already."""
    if kind in ("action", "caption", "definition") or rng.random() > probability:
        return text
    return rng.choice(class_sentences(Label(text), templates="grammatical"))


def adapt_text_tower(
    transformer: nn.Module,
    tokenizer: Any,
    lexicon: Lexicon,
    section: TextSection,
    *,
    seed: int,
    precision: Literal["bf16", "fp32"] = "fp32",
    hook: Hook | None = None,
) -> nn.Module:
    """Train low-rank updates of ``transformer`` on the lexicon and merge them into its weights.

    Args:
        transformer: A BERT-like model with ``last_hidden_state``; changed in place.
        tokenizer: Its Hugging Face tokenizer.
        lexicon: What to learn from.
        section: Rank, epochs, rates.
        seed: Of order, templates and initialisation.
        precision: Of the arithmetic in the tower.
        hook: Called with (message, step, total).

    Returns:
        ``transformer`` with merged weights, in evaluation mode.
    """
    torch.manual_seed(seed)
    rng = random.Random(seed)
    names = unit_names(lexicon)
    votes, units = torch.from_numpy(lexicon.votes), torch.from_numpy(unit_matrix(lexicon, names))
    config = LoraConfig(r=section.lora_rank, lora_alpha=2 * section.lora_rank, target_modules=list(section.targets))
    for module in transformer.modules():
        if isinstance(module, nn.Dropout):
            module.p = section.tower_dropout
    for parameter in transformer.parameters():
        parameter.requires_grad_(False)
    inject_adapter_in_model(config, transformer)
    width = int(cast(Any, transformer).config.hidden_size)
    model = TextWithHeads(
        transformer, width=width, classes=votes.shape[1], units=len(names), dropout=section.dropout
    ).train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=section.learning_rate, weight_decay=section.weight_decay)
    steps = len(batches_by_length([0] * len(lexicon), section.batch_size, rng=rng)) * section.epochs
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, section.learning_rate, total_steps=steps, pct_start=0.08)
    step = 0
    for _ in range(section.epochs):
        sentences = [in_template(t, kind, rng=rng) for t, kind in zip(lexicon.texts, lexicon.kinds, strict=True)]
        for rows in batches_by_length([len(s) for s in sentences], section.batch_size, rng=rng):
            texts = [sentences[i] for i in rows]
            tokens = dict(tokenizer(texts, padding=True, truncation=True, max_length=64, return_tensors="pt"))
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                vote_logits, unit_logits = model(tokens)
            loss = -(votes[rows] * F.log_softmax(vote_logits.float(), dim=1)).sum(dim=1).mean()
            known = torch.isfinite(units[rows])
            if bool(known.any()):
                errors = F.binary_cross_entropy_with_logits(
                    unit_logits.float(), torch.nan_to_num(units[rows]), reduction="none"
                )
                loss = loss + section.unit_weight * (errors * known).sum() / known.sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            step += 1
            if hook and step % 20 == 0:
                hook(f"text tower, loss {loss.item():.3f}", step, steps)
    return merge_lora(transformer).eval()


def batches_by_length(lengths: Sequence[int], batch_size: int, *, rng: random.Random) -> list[list[int]]:
    """Shuffle rows into full batches of texts of similar length, which need little padding.

    Args:
        lengths: Length of each text.
        batch_size: Rows a batch; what does not fill one is left out.
        rng: Of the order.
    """
    order = list(range(len(lengths)))
    rng.shuffle(order)
    pool = batch_size * 32
    batches = []
    for start in range(0, len(order), pool):
        near = sorted(order[start : start + pool], key=lambda i: lengths[i])
        batches += [near[i : i + batch_size] for i in range(0, len(near) - batch_size + 1, batch_size)]
    rng.shuffle(batches)
    return batches


def merge_lora(module: nn.Module) -> nn.Module:
    """Fold every LoRA update into the layer it updates and remove PEFT's wrappers."""
    for name, child in list(module.named_children()):
        if isinstance(child, LoraLayer):
            cast(Any, child).merge()
            setattr(module, name, child.get_base_layer())
        else:
            merge_lora(child)
    return module


@torch.inference_mode()
def pool_texts(transformer: nn.Module, tokenizer: Any, texts: Sequence[str], *, batch_size: int = 128) -> Tensor:
    """Return the mean-pooled vectors (N, D) of texts, before any projection."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    out: list[Tensor] = [torch.empty(0)] * len(texts)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        tokens = tokenizer([texts[i] for i in rows], padding=True, truncation=True, max_length=64, return_tensors="pt")
        hidden = transformer(**tokens).last_hidden_state
        mask = tokens["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        for i, vector in zip(rows, (hidden * mask).sum(dim=1) / mask.sum(dim=1), strict=True):
            out[i] = vector
    return torch.stack(out)
