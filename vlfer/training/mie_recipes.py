"""The micro-expression learners that commands know by name, with every choice in one place."""

from __future__ import annotations

from pathlib import Path

from vlfer.errors import ConfigError, did_you_mean
from vlfer.micro.face_samples import FaceSamples
from vlfer.micro.samples import FlowSamples, Learner
from vlfer.training.mie import EnsembleLearner, KernelLearner, NetLearner, SvmLearner
from vlfer.training.mie_augment import Augmentation
from vlfer.training.mie_clip import ClipLearner
from vlfer.training.mie_lbp import LbpTopLearner
from vlfer.training.mie_miacnet import MiacLearner

_AUGMENTED = Augmentation()

PLAIN = NetLearner(
    "plain", "plain", "canonical", epochs=40, batch=64, rate=3e-3, decay=0.05, smoothing=0.1,
    augmentation=_AUGMENTED, mirror_test=True,
)  # fmt: skip

KERNEL = KernelLearner("kernel")
# Two grids more and a smoother kernel: a second opinion of the same kind, which costs nothing.
KERNEL_WIDE = KernelLearner(
    "kernel-wide", (("canonical", 4), ("steady", 4), ("canonical", 7), ("steady", 7)), gamma=1.0, ridge=0.2
)

RECIPES: dict[str, Learner[FlowSamples]] = {
    learner.name: learner
    for learner in (
        # The reference of the field: RBF on the published image, scikit-learn's own C.
        SvmLearner("svm", "published", grid=28, c=1.0, gamma=2.0),
        # Descriptors of the time before networks, around the rest of each clip; linear machines, as published.
        SvmLearner("mdmo", "canonical", descriptor="mdmo", kernel="linear", c=0.1),
        SvmLearner("bi-woof", "canonical", descriptor="bi-woof", kernel="linear", c=0.1),
        # The published networks on the published images, without augmentation, as their authors train them; fewer
        # epochs at a higher rate than the authors' hundreds.
        NetLearner("stst", "stst", epochs=100, batch=64, rate=2e-3, decay=0.0),
        NetLearner("rcn-a", "rcn-a", epochs=60, batch=64, rate=1e-3, decay=1e-3),
        NetLearner("off-apexnet", "off-apexnet", epochs=40, batch=64, rate=3e-4, decay=0.0),
        NetLearner("dssn", "dssn", epochs=60, batch=64, rate=1e-3, decay=1e-3),
        PLAIN,
        KERNEL,
        KERNEL_WIDE,
        EnsembleLearner("vlfer", (KERNEL, KERNEL_WIDE)),
        EnsembleLearner("vlfer-net", (KERNEL, KERNEL_WIDE, PLAIN)),
    )
}


CLIP_MODELS = ("clip", "clip-zero")
"""Flow as a picture through a backbone: fine-tuned by LoRA, and as it is."""
FACE_MODELS = ("miacnet", "lbp-top")
"""What reads faces rather than flow."""
MODELS = (*RECIPES, *CLIP_MODELS, *FACE_MODELS)


def build_learner(name: str, *, backbone: str = "bundled") -> Learner[FlowSamples]:
    """Return the learner over flow that a command means by ``name``.

    Args:
        name: One of `RECIPES` or `CLIP_MODELS`.
        backbone: What the latter look through.

    Raises:
        ConfigError: If there is none, or it reads faces; the message names them.
    """
    if name in RECIPES:
        return RECIPES[name]
    if name in CLIP_MODELS:
        return ClipLearner(name, backbone=backbone, epochs=0 if name == "clip-zero" else ClipLearner().epochs)
    if name in FACE_MODELS:
        raise ConfigError(
            f"The model {name!r} reads faces, not flow.",
            why="A flow archive holds motion between two frames; grey values cannot be had back from it.",
            fix="vlfer mie faces casme2=DIR --out FACES.npz, then --face-archive FACES.npz",
        )
    raise _unknown(name)


def build_face_learner(name: str, *, start: Path | None = None) -> Learner[FaceSamples]:
    """Return the learner over faces that a command means by ``name``.

    Args:
        name: One of `FACE_MODELS`.
        start: Folder of ``vlfer mie pretrain`` that MIACNet starts from.

    Raises:
        ConfigError: If there is none, or it reads flow; the message names them.
        DataError: If the folder holds no pre-trained MIACNet.
    """
    if name == "lbp-top":
        return LbpTopLearner()
    if name == "miacnet":
        return MiacLearner(start=str(start) if start else "")
    if name in MODELS:
        raise ConfigError(
            f"The model {name!r} reads flow, not faces.", fix=f"--flow-archive FILE.npz, or --model {FACE_MODELS[0]}"
        )
    raise _unknown(name)


def _unknown(name: str) -> ConfigError:
    return ConfigError(
        f"There is no micro-expression model {name!r}.",
        why=f"There are {', '.join(MODELS)}. {did_you_mean(name, MODELS)}".strip(),
    )
