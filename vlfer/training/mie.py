"""Learners for onset-to-apex flow: kernel machines, networks, and ensembles of both; each with a fixed schedule.

A learner never chooses an epoch. What it yields after the last one is the result; see `vlfer.micro.samples.Learner`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.svm import SVC
from torch import Tensor, nn

from vlfer.errors import DataError
from vlfer.micro import canonical
from vlfer.micro.canonical import Input, flow_input
from vlfer.micro.handcrafted import describe
from vlfer.micro.samples import FlowClassifier, FlowSamples, Learner
from vlfer.models.mie_nets import NETWORKS
from vlfer.training.mie_augment import NONE, Augmentation, augment, mirrored
from vlfer.types import FloatArray, IntArray, UInt8Array

Weighting = Literal["none", "sqrt", "full"]


def class_weights(label: IntArray, *, n_classes: int, weighting: Weighting) -> FloatArray:
    """Return one weight a class, (C,) float32, mean 1 over the samples; 0 for a class without a sample."""
    count = np.bincount(label, minlength=n_classes).astype(np.float64)
    power = {"none": 0.0, "sqrt": 0.5, "full": 1.0}[weighting]
    weight = np.where(count > 0, np.maximum(count, 1) ** -power, 0.0)
    return np.asarray(weight * len(label) / (weight * count).sum(), dtype=np.float32)


def demand_finite(loss: Tensor, *, name: str, epoch: int) -> None:
    """Refuse to go on with a loss that is no number.

    Raises:
        DataError: If it is not finite.
    """
    if not bool(torch.isfinite(loss)):
        raise DataError(f"The loss of {name!r} became {float(loss.detach())} in epoch {epoch}.")


@dataclass(frozen=True, slots=True)
class SvmLearner:
    """Support vector machine over flow averaged on a grid, or over a handcrafted descriptor of it.

    Attributes:
        name: Name in reports.
        input: How the published image is read.
        grid: Positions a side after averaging; must divide 28.
        c: Penalty.
        gamma: Kernel width in units of 1 / (mean squared distance of the training samples).
        descriptor: What the flow is described by, see `vlfer.micro.handcrafted`; "grid" averages it.
        kernel: Of the machine; with "linear" features are scaled to unit spread on the training samples.
        mirror: Also train on mirrored samples, and average the decisions on both sides.
    """

    name: str = "svm"
    input: Input = "published"
    grid: int = 28
    c: float = 1.0
    gamma: float = 2.0
    mirror: bool = False
    descriptor: Literal["grid", "mdmo", "bi-woof"] = "grid"
    kernel: Literal["rbf", "linear"] = "rbf"

    @property
    def settings(self) -> Mapping[str, Any]:
        """See `Learner.settings`."""
        return asdict(self)

    def fit(self, samples: FlowSamples, *, seed: int) -> Iterator[FlowClassifier]:
        """Train once; the seed has no influence. See `Learner.fit`."""
        present = np.unique(samples.label)
        n_classes = len(samples.classes)
        if len(present) < 2:
            yield lambda images: _only(present, n_classes, len(images))
            return
        x, other = self._features(samples.flow)
        x = np.concatenate([x, other]) if self.mirror else x
        rest, spread = np.zeros_like(x[0]), np.ones_like(x[0])
        if self.kernel == "linear":
            rest, spread = x.mean(axis=0), x.std(axis=0) + np.float32(1e-6)
        x = (x - rest) / spread
        y = np.concatenate([samples.label] * 2) if self.mirror else samples.label
        # Twice the total variance is the mean squared distance of two samples.
        machine = SVC(
            C=self.c,
            kernel=self.kernel,
            gamma=self.gamma / (2 * float(x.var(axis=0).sum()) + 1e-12),
            class_weight="balanced",
            decision_function_shape="ovr",
        ).fit(x, y)

        def classify(images: UInt8Array) -> FloatArray:
            if not len(images):
                return np.zeros((0, n_classes), np.float32)
            one, two = ((side - rest) / spread for side in self._features(images))
            decision = _per_class(machine.decision_function(one), len(present))
            if self.mirror:
                decision = (decision + _per_class(machine.decision_function(two), len(present))) / 2
            full = np.full((len(images), n_classes), -np.inf)
            full[:, present] = 2 * decision
            return _softmax(full)

        yield classify

    def _features(self, images: UInt8Array) -> tuple[FloatArray, FloatArray]:
        flow = flow_input(images, kind=self.input)
        sides = (flow, canonical.mirror(flow))
        if self.descriptor != "grid":
            one, two = (describe(side, kind=self.descriptor) for side in sides)
        else:
            one, two = (canonical.coarse(side, grid=self.grid).reshape(len(images), -1) for side in sides)
        return one, two


@dataclass(frozen=True, slots=True)
class KernelLearner:
    """Kernel ridge classification (least-squares SVM, Suykens and Vandewalle, 1999) over several views of the flow.

    The kernel is the mean of one RBF kernel a view, so that clips are alike if they are in the views' majority.
    Training is one linear system, without a seed or an epoch to choose.

    Attributes:
        name: Name in reports.
        views: Pairs of an input and a grid that flow is averaged on.
        gamma: Kernel width in units of 1 / (mean squared distance of the training samples).
        ridge: Regularisation.
        balance: Weight of a sample is its class's frequency to the minus this power.
        sharpness: Factor from decision to logit.
    """

    name: str = "kernel"
    views: tuple[tuple[Input, int], ...] = (("canonical", 7), ("steady", 7))
    gamma: float = 2.0
    ridge: float = 0.3
    balance: float = 0.5
    sharpness: float = 3.0

    @property
    def settings(self) -> Mapping[str, Any]:
        """See `Learner.settings`."""
        return asdict(self)

    def fit(self, samples: FlowSamples, *, seed: int) -> Iterator[FlowClassifier]:
        """Train once, on every clip and its mirror image; the seed has no influence. See `Learner.fit`."""
        n_classes = len(samples.classes)
        trained = [np.concatenate(pair) for pair in self._features(samples.flow)]
        # Twice the total variance is the mean squared distance of two samples.
        widths = [self.gamma / (2 * float(x.var(axis=0).sum()) + 1e-12) for x in trained]
        label = np.concatenate([samples.label] * 2)
        count = np.maximum(np.bincount(label, minlength=n_classes), 1)
        weight = (count.mean() / count)[label] ** self.balance
        target = 2 * np.eye(n_classes)[label] - 1
        base = weight @ target / weight.sum()
        kernel = np.mean([_rbf(x, x, g) for x, g in zip(trained, widths, strict=True)], axis=0)
        alpha = np.linalg.solve(kernel + np.diag(self.ridge / weight), target - base)

        def classify(images: UInt8Array) -> FloatArray:
            decision = np.zeros((len(images), n_classes))
            for pair, x, g in zip(self._features(images), trained, widths, strict=True):
                for side in pair:
                    decision += _rbf(side, x, g) @ alpha / (2 * len(widths))
            return _softmax(self.sharpness * (decision + base))

        yield classify

    def _features(self, images: UInt8Array) -> list[tuple[FloatArray, FloatArray]]:
        """Return for each view the clips and their mirror images, (N, grid * grid * 3) each."""
        read = {kind: flow_input(images, kind=kind) for kind in {kind for kind, _ in self.views}}
        out = []
        for kind, grid in self.views:
            sides = (canonical.coarse(flow, grid=grid) for flow in (read[kind], canonical.mirror(read[kind])))
            one, two = (side.reshape(len(images), -1) for side in sides)
            out.append((one, two))
        return out


@dataclass(frozen=True, slots=True)
class NetLearner:
    """A small network trained by AdamW over a fixed number of epochs with a cosine schedule.

    Attributes:
        name: Name in reports.
        network: Key of `NETWORKS`.
        input: How the published image is read.
        epochs: Passes over the samples.
        batch: Samples a step.
        rate: Peak learning rate.
        decay: Weight decay.
        smoothing: Label smoothing.
        weighting: Class weights in the loss.
        augmentation: Random changes to each sample.
        mirror_test: Average the answers for a sample and its mirror image.
    """

    name: str
    network: str
    input: Input = "published"
    epochs: int = 60
    batch: int = 64
    rate: float = 1e-3
    decay: float = 1e-2
    smoothing: float = 0.0
    weighting: Weighting = "sqrt"
    augmentation: Augmentation = NONE
    mirror_test: bool = False

    @property
    def settings(self) -> Mapping[str, Any]:
        """See `Learner.settings`."""
        return asdict(self)

    def fit(self, samples: FlowSamples, *, seed: int) -> Iterator[FlowClassifier]:
        """Train and yield after each epoch. See `Learner.fit`."""
        n_classes = len(samples.classes)
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = NETWORKS[self.network](n_classes)
        optimizer = torch.optim.AdamW(net.parameters(), lr=self.rate, weight_decay=self.decay)
        flow = _to_tensor(flow_input(samples.flow, kind=self.input))
        target = torch.nn.functional.one_hot(torch.from_numpy(samples.label), n_classes).float()
        weights = torch.from_numpy(class_weights(samples.label, n_classes=n_classes, weighting=self.weighting))
        steps = self.epochs * math.ceil(len(flow) / self.batch)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=self.rate, total_steps=steps, pct_start=0.15)
        for epoch in range(self.epochs):
            net.train()
            # Dropout draws from torch's global generator, which belongs to the caller.
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed * 100_003 + epoch)
                for rows in torch.randperm(len(flow), generator=generator).split(self.batch):
                    if len(rows) < 2:  # batch norm needs two
                        schedule.step()
                        continue
                    x, y = augment(flow[rows], target[rows], self.augmentation, generator=generator)
                    loss = self._loss(net(x), y, weights)
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward()
                    optimizer.step()
                    schedule.step()
            demand_finite(loss, name=self.name, epoch=epoch + 1)
            yield _NetClassifier(net, self.input, mirror=self.mirror_test)

    def _loss(self, logits: Tensor, target: Tensor, weights: Tensor) -> Tensor:
        smooth = target * (1 - self.smoothing) + self.smoothing / target.shape[1]
        return -((smooth * weights) * logits.log_softmax(dim=1)).sum(dim=1).mean()


class _NetClassifier:
    """Answers with the network as it stands when asked."""

    def __init__(self, net: nn.Module, kind: Input, *, mirror: bool) -> None:
        self._net = net
        self._kind: Input = kind
        self._mirror = mirror

    @torch.inference_mode()
    def __call__(self, images: UInt8Array) -> FloatArray:
        self._net.eval()
        flow = _to_tensor(flow_input(images, kind=self._kind))
        probability = self._net(flow).softmax(dim=1)
        if self._mirror:
            probability = (probability + self._net(mirrored(flow)).softmax(dim=1)) / 2
        answer: FloatArray = probability.numpy().astype(np.float32)
        return answer


@dataclass(frozen=True, slots=True)
class EnsembleLearner:
    """The weighted geometric mean of several learners' probabilities; each member trains with a seed of its own.

    Attributes:
        name: Name in reports.
        members: The learners.
        weights: One weight a member; empty weighs them alike.
    """

    name: str
    members: tuple[Learner[FlowSamples], ...]
    weights: tuple[float, ...] = field(default=())

    def __post_init__(self) -> None:
        if not self.members or (self.weights and len(self.weights) != len(self.members)):
            raise DataError(f"{len(self.weights)} weights were given for {len(self.members)} members.")

    @property
    def settings(self) -> Mapping[str, Any]:
        """See `Learner.settings`."""
        return {"members": [dict(member.settings) for member in self.members], "weights": list(self.weights)}

    def fit(self, samples: FlowSamples, *, seed: int) -> Iterator[FlowClassifier]:
        """Train every member to its end, then yield once: they differ in epochs. See `Learner.fit`."""
        classifiers = [
            _last(member.fit(samples, seed=seed * 1000 + i), member.name) for i, member in enumerate(self.members)
        ]
        weights = self.weights or (1.0,) * len(classifiers)

        def classify(images: UInt8Array) -> FloatArray:
            logs = [w * np.log(c(images) + 1e-6) for c, w in zip(classifiers, weights, strict=True)]
            return _softmax(np.sum(logs, axis=0) / sum(weights))

        yield classify


def _last(epochs: Iterator[FlowClassifier], name: str) -> FlowClassifier:
    classify = next(iter(deque(epochs, maxlen=1)), None)
    if classify is None:
        raise DataError(f"The learner {name!r} ran for no epoch.")
    return classify


def _only(present: IntArray, n_classes: int, n: int) -> FloatArray:
    answer = np.zeros((n, n_classes), np.float32)
    answer[:, present] = 1
    return answer


def _per_class(decision: Any, n_present: int) -> Any:
    """Return (N, C) decisions; for two classes the library gives one number a sample."""
    return np.stack([-decision, decision], axis=1) / 2 if n_present == 2 else decision


def _rbf(a: FloatArray, b: FloatArray, gamma: float) -> NDArray[np.float64]:
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    square = (a64**2).sum(axis=1)[:, None] + (b64**2).sum(axis=1) - 2 * a64 @ b64.T
    return np.asarray(np.exp(-gamma * np.maximum(square, 0)))


def _softmax(logits: Any) -> FloatArray:
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)


def _to_tensor(flow: FloatArray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(flow.transpose(0, 3, 1, 2)))
