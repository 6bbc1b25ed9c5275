"""The micro-expression learners that commands know by name, with every choice in one place."""

from __future__ import annotations

from vlfer.errors import ConfigError, did_you_mean
from vlfer.micro.samples import Learner
from vlfer.training.mie import EnsembleLearner, KernelLearner, NetLearner, SvmLearner
from vlfer.training.mie_augment import Augmentation

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

RECIPES: dict[str, Learner] = {
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


def build_learner(name: str) -> Learner:
    """Return the learner that a command means by ``name``.

    Raises:
        ConfigError: If there is none; the message names them.
    """
    if name not in RECIPES:
        raise ConfigError(
            f"There is no micro-expression model {name!r}.",
            why=f"There are {', '.join(RECIPES)}. {did_you_mean(name, RECIPES)}".strip(),
        )
    return RECIPES[name]
