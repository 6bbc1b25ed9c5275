"""The CLIP route: flow as a picture, through any backbone, scored with text; with LoRA as in ``vlfer finetune``.

A backbone has seen no flow, so without training its answers mean little; LoRA teaches its image tower to read the
pictures, while the labels stay words.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from vlfer.micro import canonical
from vlfer.micro.pictures import colour_wheel
from vlfer.micro.samples import FlowClassifier, FlowSamples
from vlfer.models.encoder import Encoder, load_encoder
from vlfer.scoring import score
from vlfer.text.bank import TextBank
from vlfer.text.labels import labels_from_words
from vlfer.training.finetune_config import DataSection, FinetuneConfig, LoopSection, ObjectiveSection
from vlfer.training.finetune_data import Samples
from vlfer.training.finetune_run import finetune
from vlfer.types import FloatArray, LabelSet, UInt8Array

Picture = Literal["wheel", "published", "tiles"]
_FULL = 0.6
_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class ClipLearner:
    """Flow as a picture through a backbone.

    Attributes:
        name: Name in reports.
        backbone: Any that ``vlfer`` loads.
        picture: "wheel" draws direction as hue and length as saturation, "published" takes u, v and strain as red,
            green and blue, "tiles" lays u, v, strain and length side by side in grey; "auto" takes tiles for the
            bundled backbone, which sees no colour, and the wheel for others.
        epochs: Of LoRA; 0 asks the backbone as it is.
        batch: Pictures a step.
        rate: Peak learning rate.
    """

    name: str = "clip"
    backbone: str = "bundled"
    picture: Picture | Literal["auto"] = "auto"
    epochs: int = 6
    batch: int = 32
    rate: float = 2e-3

    @property
    def settings(self) -> Mapping[str, Any]:
        """See `Learner.settings`."""
        return asdict(self)

    def fit(self, samples: FlowSamples, *, seed: int) -> Iterator[FlowClassifier]:
        """Fine-tune by a fixed schedule, on every clip and its mirror image. See `Learner.fit`."""
        labels, encoder = labels_from_words(samples.classes), load_encoder(self.backbone)
        if not self.epochs:
            yield self._answers(encoder, labels)
            return
        with tempfile.TemporaryDirectory(prefix="vlfer-mie-") as folder:
            outcome = finetune(self._config(seed), self._samples(samples, encoder), None, folder=Path(folder))
            yield self._answers(load_encoder(self.backbone, adapter=outcome.adapter.folder), labels)

    def _pictures(self, images: UInt8Array, encoder: Encoder, *, mirror: bool) -> UInt8Array:
        spec = encoder.spec
        own: Picture = "tiles" if spec.origin == "bundled" else "wheel"
        kind = own if self.picture == "auto" else self.picture
        return flow_pictures(images, kind=kind, size=spec.image_size, mirror=mirror)

    def _config(self, seed: int) -> FinetuneConfig:
        return FinetuneConfig(
            name="mie-clip", backbone=self.backbone, seed=seed, data=DataSection(validation=0.0),
            objective=ObjectiveSection(smoothing=0.1),
            # A mirrored picture of flow is no flow of a mirrored face: the samples bring their mirror images along.
            loop=LoopSection(epochs=self.epochs, batch_size=self.batch, learning_rate=self.rate, augment=0.0),
        )  # fmt: skip

    def _samples(self, samples: FlowSamples, encoder: Encoder) -> Samples:
        pixels = np.concatenate([self._pictures(samples.flow, encoder, mirror=mirror) for mirror in _SIDES])
        votes = np.eye(len(samples.classes), dtype=np.float32)[np.tile(samples.label, 2)]
        people = samples.subject_keys.tolist()
        names = [f"{p}/{c}" for p, c in zip(people, samples.clip.tolist(), strict=True)]
        return Samples(
            pixels=pixels[:, None], lengths=np.ones(len(pixels), np.int64), votes=votes, classes=samples.classes,
            subjects=tuple(people * 2), sources=(*names, *(f"{name} mirrored" for name in names)),
            sha256=samples.sha256,
        )  # fmt: skip

    def _answers(self, encoder: Encoder, labels: LabelSet) -> FlowClassifier:
        bank = TextBank(encoder)

        def classify(images: UInt8Array) -> FloatArray:
            parts = []
            for start in range(0, len(images), _AT_ONCE):
                some, sides = images[start : start + _AT_ONCE], []
                for mirror in _SIDES:
                    vectors = encoder.encode_images(self._pictures(some, encoder, mirror=mirror))
                    sides.append(score(vectors, labels, bank, temperature=encoder.temperature).probability)
                parts.append((sides[0] + sides[1]) / 2)
            empty = np.zeros((0, len(labels)), np.float32)
            return np.asarray(np.concatenate(parts) if parts else empty, dtype=np.float32)

        return classify


_SIDES = (False, True)


def flow_pictures(images: UInt8Array, *, kind: Picture, size: int, mirror: bool = False) -> UInt8Array:
    """Return flow as pictures, (N, size, size, 3) uint8 RGB.

    Args:
        images: (N, 28, 28, 3) uint8 published flow images.
        kind: "wheel" and "tiles" show flow around rest, the spread of every clip alike, "published" the images as they
            are; see `ClipLearner`.
        size: Side of the pictures.
        mirror: Of the mirrored face.
    """
    if kind == "published":
        small = images[:, :, ::-1].copy() if mirror else images
        if mirror:
            small[..., 0] = 255 - small[..., 0]
    else:
        flow = canonical.unit_spread(canonical.centre(images))
        flow, images = (canonical.mirror(flow), images[:, :, ::-1]) if mirror else (flow, images)
        small = np.stack([colour_wheel(one, full=_FULL) for one in flow]) if kind == "wheel" else _tiles(flow, images)
    large = [cv2.resize(one, (size, size), interpolation=cv2.INTER_CUBIC) for one in small]
    return np.asarray(np.stack(large), dtype=np.uint8)


def _tiles(flow: FloatArray, images: UInt8Array) -> UInt8Array:
    """Return u, v over strain, length, (N, 56, 56, 3) uint8, for flow (N, 28, 28, 2) around rest."""
    u, v = np.clip(0.5 + flow / (2 * _FULL), 0, 1).transpose(3, 0, 1, 2)
    strain = canonical.strain_channel(images)[..., 0]
    length = np.clip(np.hypot(flow[..., 0], flow[..., 1]) / _FULL, 0, 1)
    tiled = np.concatenate([np.concatenate([u, v], axis=2), np.concatenate([strain, length], axis=2)], axis=1)
    return np.asarray((255 * tiled[..., None]).round().repeat(3, axis=-1), dtype=np.uint8)
