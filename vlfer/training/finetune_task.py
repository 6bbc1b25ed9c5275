"""Faces to adapt on: the parts that learn, put on an encoder, and the batches and losses that teach them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from peft import LoraConfig
from torch import Generator, Tensor, nn
from torch.utils.checkpoint import checkpoint

from vlfer.errors import DataError
from vlfer.metrics import compute_metrics, softmax
from vlfer.models.label_residual import LabelResidual
from vlfer.models.lora import add_lora, lora_layers, lora_parameters
from vlfer.models.prompt_context import PromptContext, word_embedding
from vlfer.models.temporal import TemporalAdapter, pool_mean
from vlfer.models.tower import TowerEncoder
from vlfer.text.bank import TextBank, embed_labels
from vlfer.training.finetune_augment import augment_clips
from vlfer.training.finetune_config import FinetuneConfig
from vlfer.training.finetune_data import Samples
from vlfer.training.finetune_losses import (
    class_means,
    contrast_loss,
    intensity_loss,
    keep_loss,
    spread_frames,
    unit,
    vote_loss,
)
from vlfer.types import FloatArray, IntArray, LabelSet

_VALIDATION_BATCH = 64


class Parts(nn.Module):
    """An encoder with the parts that learn; its forward gives the loss of a batch.

    Args:
        encoder: Changed in place: LoRA layers, context and map are put on it.
        labels: C labels.
        config: What learns, and on what.
        captions: Sentences that clips are contrasted with; empty unless the objective wants them.
    """

    def __init__(
        self, encoder: TowerEncoder, labels: LabelSet, config: FinetuneConfig, *, captions: tuple[str, ...] = ()
    ) -> None:
        super().__init__()
        self.encoder, self.config = encoder, config
        train, device = config.train, encoder.device
        bank = TextBank(encoder)
        sentences, owner, weight = embed_labels(bank, labels, ensemble=config.objective.ensemble)
        mixing = np.zeros((len(labels), len(owner)), np.float32)
        mixing[owner, np.arange(len(owner))] = weight
        self.register_buffer("mixing", torch.from_numpy(mixing).to(device), persistent=False)
        self.register_buffer("sentences", torch.from_numpy(sentences.vectors).to(device), persistent=False)
        known = list(dict.fromkeys(captions))
        self.caption_ids = np.array([known.index(c) for c in captions], np.int64)
        if known:
            vectors = torch.from_numpy(bank.encode(known).vectors).to(device)
            self.register_buffer("captions", vectors, persistent=False)
        self._words = _label_sentences(labels, config)
        self.model = encoder.model
        self.lora: LoraConfig | None = None
        if train.lora is not None:
            targets = train.lora.targets or encoder.spec.lora_targets
            chosen = targets if isinstance(targets, str) else list(targets)
            self.lora = add_lora(
                self.model, targets=chosen, rank=train.lora.rank, alpha=train.lora.alpha, dropout=train.lora.dropout,
                dora=train.lora.dora,
            )  # fmt: skip
            self.model.to(device)
        self.temporal: TemporalAdapter | None = None
        if train.temporal is not None:
            t = train.temporal
            self.temporal = TemporalAdapter(
                encoder.dimension, layers=t.layers, heads=t.heads, hidden=t.hidden, dropout=t.dropout,
                max_frames=max(t.max_frames, config.data.frames),
            ).to(device)  # fmt: skip
            _tell_places_apart(self.temporal)
        self.context: PromptContext | None = None
        if train.context:
            self._add_context(train.context)
        self.residual: LabelResidual | None = None
        if train.residual:
            keys = torch.from_numpy(sentences.vectors).to(device)
            self.residual = LabelResidual.fresh(keys, torch.from_numpy(owner).to(device))
        self.map: nn.Parameter | None = None
        if train.linear_map:
            self.map = nn.Parameter(torch.eye(encoder.dimension, device=device))
        self.logit_scale = nn.Parameter(
            torch.tensor(math.log(1 / encoder.temperature), device=device), requires_grad=train.logit_scale
        )

    def _add_context(self, count: int) -> None:
        """Start the context from the words "a photo of a face showing", as CoOp starts it from a template."""
        table = word_embedding(self.model)
        tokens, lengths = self.encoder.tokenize(["a photo of a human face that is showing"])
        first = int(lengths[0] > 2)
        ids = tokens[0, first : max(first + 1, lengths[0] - 1)].repeat(math.ceil(32 / max(1, lengths[0] - 1)))[:count]
        start = table.weight[ids.to(table.weight.device)].detach().float().clone()
        self.context = PromptContext(start + torch.randn_like(start) * 0.02 * start.std()).to(self.encoder.device)
        self.context.attach(self.encoder)
        self.context.vectors.requires_grad_(True)
        self._tokens, _ = self.context.insert(*self.encoder.tokenize(self._words))

    def trainable(self) -> dict[str, nn.Parameter]:
        """Return what learns, by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def lora_tensors(self) -> dict[str, nn.Parameter]:
        """Return the tensors of all LoRA layers, by name."""
        return lora_parameters(self.model)

    def learn(self) -> None:
        """Switch dropout on in the parts that learn; the towers, with their batch norms, stay as they are."""
        self.eval()
        for _, layer in lora_layers(self.model):
            cast(Any, layer).lora_dropout.train()
        if self.temporal is not None:
            self.temporal.train()

    def class_vectors(self) -> Tensor:
        """Return (C, D) unit vectors of the labels."""
        vectors = cast(Tensor, self.sentences)
        if self.context is not None:
            vectors = unit(self.encoder.text_features(self._tokens.to(self.encoder.device)))
        if self.residual is not None:
            vectors = self.residual(vectors)
        if self.map is not None:
            vectors = vectors @ self.map.T
        return class_means(vectors, cast(Tensor, self.mixing))

    def frame_vectors(self, pixels: Tensor) -> Tensor:
        """Return (K, D) unit vectors of (K, 3, S, S) prepared pixels."""
        kept = self.config.loop.checkpoint_frames
        if kept and torch.is_grad_enabled():
            parts = [checkpoint(self.encoder.image_features, part, use_reentrant=False) for part in pixels.split(kept)]
            features = torch.cat(parts)
        else:
            features = self.encoder.image_features(pixels)
        return unit(features if self.map is None else features @ self.map.to(features.dtype).T)

    def clip_vectors(self, pixels: Tensor, mask: Tensor) -> Tensor:
        """Return (N, D) unit vectors of (N, T, 3, S, S) pixels in 0..1, or (N, T, D) frame vectors; (N, T) mask."""
        frames = pixels
        if pixels.ndim == 5:
            flat, spec = pixels[mask], self.encoder.spec
            mean, std = (flat.new_tensor(value).view(1, 3, 1, 1) for value in (spec.mean, spec.std))
            frames = spread_frames(self.frame_vectors((flat - mean) / std), mask)
        return pool_mean(frames, mask) if self.temporal is None else self.temporal(frames, mask)

    def forward(self, pixels: Tensor, mask: Tensor, votes: Tensor, caption: Tensor) -> Tensor:
        """Return the loss of one batch.

        Args:
            pixels: (N, T, 3, S, S) float32 in 0..1, or (N, T, D) frame vectors where no part of them learns.
            mask: (N, T) bool.
            votes: (N, C) float32.
            caption: (N,) int64, place of each clip's caption; ignored without captions.
        """
        objective = self.config.objective
        clips, scale = self.clip_vectors(pixels, mask), self.logit_scale.exp()
        if objective.kind == "captions":
            texts = cast(Tensor, self.captions)[caption]
            texts = unit(texts if self.map is None else texts @ self.map.T)
            loss = contrast_loss(clips, texts, scale=scale, group=caption)
        else:
            logits = scale * clips @ self.class_vectors().T
            loss = vote_loss(logits, votes, smoothing=objective.smoothing)
            if objective.kind == "intensity":
                loss = loss + objective.intensity_weight * intensity_loss(logits, votes)
        if objective.keep:
            with torch.no_grad(), self.untouched():
                before = self.clip_vectors(pixels, mask)
            loss = loss + objective.keep * keep_loss(clips, before)
        return loss

    @contextmanager
    def untouched(self) -> Iterator[None]:
        """Compute as if nothing had been learned."""
        held = self.map, self.temporal
        layers = [cast(Any, layer) for _, layer in lora_layers(self.model)]
        self.map, self.temporal = None, None
        for layer in layers:
            layer._disable_adapters = True
        try:
            yield
        finally:
            self.map, self.temporal = held
            for layer in layers:
                layer._disable_adapters = False


def _tell_places_apart(temporal: TemporalAdapter) -> None:
    """Start positions from sines (Vaswani et al., 2017) as large as the frames, or order is found late or never."""
    with torch.no_grad():
        places, width = temporal.positions.shape
        rate = places ** -(torch.arange(width) // 2 * 2 / width)
        angle = torch.arange(places)[:, None] * rate
        sines = torch.where(torch.arange(width) % 2 == 0, angle.sin(), angle.cos())
        temporal.positions[1:] = sines[1:].to(temporal.positions)


def _label_sentences(labels: LabelSet, config: FinetuneConfig) -> list[str]:
    """Return the sentences of all labels in the order in which they are mixed."""

    class _Recorder:
        sentences: tuple[str, ...] = ()

        def encode(self, sentences: Any) -> Any:
            self.sentences = tuple(sentences)

    recorder = _Recorder()
    embed_labels(cast(Any, recorder), labels, ensemble=config.objective.ensemble)
    return list(recorder.sentences)


class FaceTask:
    """Images or clips of faces, and what learns from them.

    Args:
        parts: What learns.
        train: The samples to learn from.
        validation: The samples to choose the epoch on; may be empty.
        labels: The C columns of the votes.
    """

    def __init__(self, parts: Parts, train: Samples, validation: Samples, *, labels: LabelSet) -> None:
        if parts.config.objective.kind == "captions" and len(train.captions) != len(train):
            raise DataError(
                "The training data have no captions.", why="objective.kind is captions.",
                fix="a manifest with the column caption, or objective.kind=labels",
            )  # fmt: skip
        self.module, self.train, self.validation, self.labels = parts, train, validation, labels
        config = parts.config
        # Where neither the pixels nor what reads them changes, frames are encoded once.
        self._tower_rests = config.train.lora is None and not config.train.linear_map
        self._kept: dict[str, tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def _frames(self, part: str, samples: Samples) -> tuple[Tensor, Tensor]:
        """Return (N, T, D) vectors and (N, T) mask of all frames, encoded once."""
        if part not in self._kept:
            longest, device = int(samples.lengths.max()), self.module.encoder.device
            vectors = torch.zeros(len(samples), longest, self.module.encoder.dimension)
            mask = torch.arange(longest)[None, :] < torch.from_numpy(samples.lengths)[:, None]
            spec = self.module.encoder.spec
            for row in range(len(samples)):
                pixels, _ = load_clips(samples, np.array([row]))
                flat = pixels[0].to(device)
                mean, std = (flat.new_tensor(value).view(1, 3, 1, 1) for value in (spec.mean, spec.std))
                vectors[row, : len(flat)] = self.module.frame_vectors((flat - mean) / std).cpu()
            self._kept[part] = vectors, mask
        return self._kept[part]

    def batch(self, rows: IntArray, generator: Generator) -> tuple[Tensor, ...]:
        """Return pixels or frame vectors, mask, votes and captions of some training rows, augmented."""
        device = self.module.encoder.device
        if self._tower_rests and self.module.config.loop.augment == 0:
            pixels, mask = (part[rows] for part in self._frames("train", self.train))
            pixels = pixels.to(device)
        else:
            pixels, mask = load_clips(self.train, rows)
            pixels = augment_clips(pixels.to(device), strength=self.module.config.loop.augment, generator=generator)
        ids = self.module.caption_ids
        captions = torch.from_numpy(ids[rows] if len(ids) else np.zeros(len(rows), np.int64))
        votes = torch.from_numpy(self.train.votes[rows])
        return pixels, mask.to(device), votes.to(device), captions.to(device)

    @torch.inference_mode()
    def validate(self) -> dict[str, float]:
        """Return UAR, WAR and loss on the validation part."""
        self.module.eval()
        found = []
        for start in range(0, len(self.validation), _VALIDATION_BATCH):
            rows = np.arange(start, min(start + _VALIDATION_BATCH, len(self.validation)))
            device = self.module.encoder.device
            if self._tower_rests:
                pixels, mask = (part[rows] for part in self._frames("validation", self.validation))
            else:
                pixels, mask = load_clips(self.validation, rows)
            found.append(self.module.clip_vectors(pixels.to(device), mask.to(device)).cpu())
        similarity = (torch.cat(found) @ self.module.class_vectors().cpu().T).float().numpy()
        scale = float(self.module.logit_scale.detach().exp())
        return figures_of(np.asarray(similarity * scale, np.float32), self.validation.votes, self.labels.names)


def figures_of(logits: FloatArray, votes: FloatArray, classes: tuple[str, ...]) -> dict[str, float]:
    """Return UAR, WAR and mean negative log likelihood of (N, C) logits."""
    probability = softmax(logits)
    truth = votes.argmax(axis=1).astype(np.int64)
    found = compute_metrics(
        truth, probability.argmax(axis=1).astype(np.int64), classes=classes, probability=probability
    )
    loss = float(-(votes * np.log(np.maximum(probability, 1e-9))).sum(axis=1).mean())
    return {"uar": float(found.uar or 0.0), "war": float(found.war or 0.0), "loss": loss}


def load_clips(samples: Samples, rows: IntArray) -> tuple[Tensor, Tensor]:
    """Return (N, T, 3, S, S) float32 in 0..1 and the (N, T) mask of real frames; T is that of the longest clip."""
    lengths = samples.lengths[rows]
    pixels = np.ascontiguousarray(samples.pixels[rows][:, : int(lengths.max())])
    mask = torch.arange(pixels.shape[1])[None, :] < torch.from_numpy(lengths)[:, None]
    return torch.from_numpy(pixels).permute(0, 1, 4, 2, 3).float().div(255), mask
