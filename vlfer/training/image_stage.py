"""First stage of the bundled backbone: each network of the image tower learns votes and the geometry of faces.

Loss: cross-entropy to the vote distribution under balanced softmax (Ren et al. 2020), so that the logits carry no
prior of the training set, plus a smooth L1 loss on mesh measurements. A step depends on (seed, step) alone, so a run
that is stopped and resumed gives the same weights as one that is not.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vlfer.errors import DataError
from vlfer.models.face_tower import BRANCH_SIZE, BranchName, Lite0, build_branch
from vlfer.models.mobileface import MobileFace
from vlfer.training.augment import augment
from vlfer.training.data import VotedFaces
from vlfer.training.geometry import mirrored
from vlfer.training.recipe import BackboneRecipe, ImageSection
from vlfer.training.run_state import append_row, optimizer_tensors, restore_optimizer
from vlfer.training.start import find_lite0, find_sface, start_from_imagenet, start_from_sface
from vlfer.training.strided import slice_strided_depthwise
from vlfer.types import FloatArray, IntArray, UInt8Array

_log = logging.getLogger(__name__)
PIXEL_MEAN, PIXEL_STD = 127.5 / 255, 128.0 / 255

Hook = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Geometry:
    """Standardised mesh measurements, (N, G) float32, and those of the mirrored faces; NaN where unknown."""

    plain: FloatArray
    mirrored: FloatArray

    @classmethod
    def standardise(cls, measured: FloatArray) -> Geometry:
        """Centre and scale each column of (N, G) measurements, clipped at three standard deviations."""
        mean, std = np.nanmean(measured, axis=0), np.nanstd(measured, axis=0)

        def scale(values: FloatArray) -> FloatArray:
            return np.asarray(np.clip((values - mean) / std, -3, 3), np.float32)

        return cls(scale(measured), scale(mirrored(measured)))


class TowerWithHeads(nn.Module):
    """A network and the two linear heads that teach it: votes and geometry."""

    def __init__(self, tower: MobileFace | Lite0, *, classes: int, measures: int, dropout: float) -> None:
        super().__init__()
        self.tower = tower
        self.dropout = nn.Dropout(dropout)
        self.votes = nn.Linear(tower.num_features, classes)
        self.geometry = nn.Linear(tower.num_features, measures)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Map (N, 1, S, S) standardised pixels to vote logits (N, C) and measurements (N, G)."""
        features = self.dropout(self.tower(pixels))
        return self.votes(features), self.geometry(features)


def build_tower(name: BranchName, section: ImageSection, *, classes: int, measures: int) -> TowerWithHeads:
    """Build a one-channel network with its starting weights and fresh heads."""
    tower = build_branch(name, drop_path_rate=section.drop_path)
    if section.start != "random":
        given = None if section.start == "packaged" else Path(section.start)
        if isinstance(tower, MobileFace):
            start_from_sface(tower, given or find_sface())
        else:
            start_from_imagenet(tower, given or find_lite0())
    return TowerWithHeads(tower, classes=classes, measures=measures, dropout=section.dropout)


def to_pixels(images: UInt8Array) -> Tensor:
    """Turn (N, S, S) uint8 into (N, 1, S, S) float32 in 0..1."""
    return torch.from_numpy(images).float().div(255)[:, None]


def standardise(pixels: Tensor) -> Tensor:
    """Shift and scale 0..1 pixels as SFace expects them."""
    return ((pixels - PIXEL_MEAN) / PIXEL_STD).contiguous(memory_format=torch.channels_last)


def resize_faces(images: list[UInt8Array] | UInt8Array, *, size: int) -> Tensor:
    """Resize grey or RGB crops of any size to (N, 1, size, size) float32 luminance in 0..1, antialiased."""
    faces = []
    for image in images:
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.ndim == 3 else image
        face = torch.from_numpy(np.ascontiguousarray(grey)).float().div(255)[None, None]
        faces.append(F.interpolate(face, (size, size), mode="bicubic", antialias=True).clamp(0, 1)[0])
    return torch.stack(faces)


def sampling_weights(majority: IntArray, *, classes: int, balance: float) -> FloatArray:
    """Return the (N,) probability to draw each face: 1 / frequency of its class to the power ``balance``."""
    counts = np.maximum(np.bincount(majority, minlength=classes), 1)
    weights = counts[majority].astype(np.float64) ** -balance
    return np.asarray(weights / weights.sum(), np.float32)


class ImageStage:
    """The training run of one network of the image tower, stepwise and resumable.

    Args:
        recipe: The configuration.
        name: Which network of ``recipe.image``.
        faces: The training part.
        geometry: Measurements of the same faces.
        folder: Where state, log and result are written.
    """

    def __init__(
        self, recipe: BackboneRecipe, name: BranchName, faces: VotedFaces, geometry: Geometry, folder: Path
    ) -> None:
        section = recipe.image[name]
        if len(faces) < section.batch_size:
            raise DataError(
                f"{len(faces)} training faces are fewer than one batch of {section.batch_size}.",
                fix=f"set image.{name}.batch_size lower.",
            )
        self.recipe, self.name, self.section, self.folder = recipe, name, section, folder
        self.faces, self.geometry = faces, geometry
        torch.manual_seed(recipe.seed)
        self.model = build_tower(name, section, classes=len(faces.classes), measures=geometry.plain.shape[1])
        self.model = self.model.to(memory_format=torch.channels_last)
        if recipe.precision == "bf16":
            slice_strided_depthwise(self.model)
        self._freeze()
        heads = [*self.model.votes.parameters(), *self.model.geometry.parameters()]
        body = [p for p in self.model.tower.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            [{"params": body, "peak": section.learning_rate}, {"params": heads, "peak": section.head_learning_rate}],
            weight_decay=section.weight_decay,
        )
        self.average = {k: v.clone() for k, v in self.model.state_dict().items()}
        self.steps_per_epoch = len(faces) // section.batch_size
        self.step = 0
        weights = sampling_weights(faces.majority, classes=len(faces.classes), balance=section.balance)
        self.weights = weights.astype(np.float64) / weights.astype(np.float64).sum()
        drawn = (faces.distribution * self.weights[:, None]).sum(axis=0)
        self.log_prior = torch.from_numpy(np.log(np.maximum(drawn, 1e-8)).astype(np.float32))
        self.pixels = to_pixels(faces.images)
        self.targets = torch.from_numpy(faces.distribution)
        self.forward: Callable[[Tensor], tuple[Tensor, Tensor]] = (
            torch.compile(self.model) if recipe.compile else self.model
        )
        if self.state_file.exists():
            self._resume()

    @property
    def state_file(self) -> Path:
        """Where the state of the run lies between epochs."""
        return self.folder / f"{self.name}.safetensors"

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.steps_per_epoch * self.section.epochs

    def _frozen(self) -> list[nn.Module]:
        return self.model.tower.stages()[: self.section.frozen_stages]

    def _freeze(self) -> None:
        for stage in self._frozen():
            for parameter in stage.parameters():
                parameter.requires_grad_(False)

    def _train_mode(self) -> None:
        self.model.train()
        for stage in self._frozen():
            stage.eval()

    def rate(self, step: int) -> float:
        """Share of the peak learning rate at ``step``: linear warm-up, then cosine to 1 %."""
        warmup = self.section.warmup_steps
        if step < warmup:
            return (step + 1) / warmup
        done = (step - warmup) / max(1, self.total_steps - warmup)
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    def batch(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return pixels (N, 1, S, S), vote targets (N, C) and geometry targets (N, G) of one step."""
        section = self.section
        seed = int(np.random.SeedSequence([self.recipe.seed, step]).generate_state(1)[0])
        rng = np.random.default_rng(seed)
        torch.manual_seed(seed)  # dropout draws from the global generator
        rows = rng.choice(len(self.faces), section.batch_size, replace=False, p=self.weights)
        generator = torch.Generator().manual_seed(seed)
        pixels, flip = augment(self.pixels[rows], size=BRANCH_SIZE[self.name], generator=generator)
        targets = self.targets[rows]
        geometry = np.where(flip.numpy()[:, None], self.geometry.mirrored[rows], self.geometry.plain[rows])
        if section.mixup and rng.random() < 0.5:
            share = float(rng.beta(section.mixup, section.mixup))
            order = torch.from_numpy(rng.permutation(len(rows)))
            pixels = share * pixels + (1 - share) * pixels[order]
            targets = share * targets + (1 - share) * targets[order]
            geometry = np.full_like(geometry, np.nan)
        return standardise(pixels), targets, torch.from_numpy(geometry)

    def loss(self, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Loss of one batch."""
        pixels, targets, geometry = batch
        with torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.precision == "bf16"):
            logits, measured = self.forward(pixels)
        votes = -(targets * F.log_softmax(logits.float() + self.log_prior, dim=1)).sum(dim=1).mean()
        known = torch.isfinite(geometry)
        difference = F.smooth_l1_loss(measured.float(), torch.nan_to_num(geometry), reduction="none")
        shape = (difference * known).sum() / known.sum().clamp_min(1)
        return votes + self.section.geometry_weight * shape

    def run(
        self, *, hook: Hook | None = None, on_epoch: Callable[[ImageStage, dict[str, Any]], None] | None = None
    ) -> None:
        """Train to the end, saving the state after every epoch.

        Raises:
            DataError: If the loss is no longer finite; the state of the last epoch is kept.
        """
        while self.step < self.total_steps:
            started, losses = time.monotonic(), []
            self._train_mode()
            for _ in range(self.steps_per_epoch):
                share = self.rate(self.step)
                for group in self.optimizer.param_groups:
                    group["lr"] = group["peak"] * share
                value = self.loss(self.batch(self.step))
                if not torch.isfinite(value):
                    raise DataError(
                        f"The loss is {value.item()} at step {self.step}.",
                        why=f"The state of the last whole epoch is kept in {self.state_file}.",
                        fix=f"lower image.{self.name}.learning_rate, or set precision to fp32, and run again.",
                    )
                self.optimizer.zero_grad(set_to_none=True)
                value.backward()
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
                self.optimizer.step()
                self._update_average()
                self.step += 1
                losses.append(float(value.detach()))
                if hook and self.step % 10 == 0:
                    hook(f"{self.name}, loss {np.mean(losses[-50:]):.3f}", self.step, self.total_steps)
            row: dict[str, Any] = {
                "epoch": self.step // self.steps_per_epoch,
                "loss": round(float(np.mean(losses)), 4),
                "seconds": round(time.monotonic() - started, 1),
            }
            if on_epoch:
                on_epoch(self, row)
            self._log(row)
            self.save()

    def _update_average(self) -> None:
        decay = min(self.section.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                if value.dtype.is_floating_point:
                    self.average[name].lerp_(value, 1 - decay)
                else:
                    self.average[name].copy_(value)

    def averaged(self) -> TowerWithHeads:
        """Return a copy of the model with the averaged weights, in evaluation mode."""
        measures = self.geometry.plain.shape[1]
        copy = TowerWithHeads(build_branch(self.name), classes=len(self.faces.classes), measures=measures, dropout=0.0)
        copy.load_state_dict(self.average)
        return copy.eval().to(memory_format=torch.channels_last)

    def save(self) -> None:
        """Write the whole state, replacing the last one only when complete."""
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.items()}
        tensors |= optimizer_tensors(self.optimizer)
        tensors = {k: v.contiguous().clone() for k, v in tensors.items()}
        partial = self.state_file.with_suffix(".partial")
        save_file(tensors, str(partial), metadata={"step": str(self.step)})
        partial.replace(self.state_file)

    def _resume(self) -> None:
        from safetensors import safe_open

        with safe_open(str(self.state_file), "pt") as file:
            self.step = int(file.metadata()["step"])
        tensors = load_file(str(self.state_file))
        self.model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
        self.average = {k[8:]: v for k, v in tensors.items() if k.startswith("average.")}
        restore_optimizer(self.optimizer, tensors)
        _log.info("resumed at step %d of %d", self.step, self.total_steps)

    def _log(self, row: dict[str, Any]) -> None:
        _log.info("%s", json.dumps(row))
        append_row(self.folder / f"{self.name}.csv", row)


@torch.inference_mode()
def vote_logits(model: TowerWithHeads, pixels: Tensor, *, batch_size: int = 128) -> FloatArray:
    """Return (N, C) logits without a prior for (N, 1, S, S) pixels in 0..1, averaged with the mirrored faces."""
    out = []
    for start in range(0, len(pixels), batch_size):
        part = standardise(pixels[start : start + batch_size])
        out.append((model(part)[0] + model(part.flip(3))[0]) / 2)
    return torch.cat(out).float().numpy()
