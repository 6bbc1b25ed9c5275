"""What pre-training is worth: few labels with and without it, on made data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vlfer.bench.measurement import Measurement
from vlfer.bench.mie_made import CLASSES, made_pairs, made_videos
from vlfer.models.miacnet import MiacSettings
from vlfer.training.mie_miacnet import MiacLearner
from vlfer.training.mie_pretrain import Hook, Pretraining, PretrainSettings
from vlfer.types import UInt8Array

SIDE_PX = 32
_TEST_SEED = 1000


@dataclass(frozen=True, slots=True)
class FewLabels:
    """How pre-training is measured.

    Attributes:
        pretrain: How it pre-trains.
        learner: How it fine-tunes, and trains from scratch.
        videos: Made videos without labels.
        seconds: Length of each.
        tests: Made pairs a class that are tested.
    """

    pretrain: PretrainSettings
    learner: MiacLearner
    videos: int = 24
    seconds: float = 10.0
    tests: int = 30


def default_few_labels(*, epochs: int) -> FewLabels:
    """Return sizes that one processor core can train."""
    net = MiacSettings(side=SIDE_PX, width=8, stride=8, condition=64)
    # At 32 px the compact autoencoder blurs what moves by half a pixel, so the pixels themselves are foretold.
    pretrain = PretrainSettings(net=net, latents="pixels", patch=4, epochs=epochs, rate=1.5e-3)
    return FewLabels(pretrain, MiacLearner(net=net, epochs=100, rate=2e-3))


def bench_few_labels(
    faces: Sequence[UInt8Array],
    how: FewLabels,
    *,
    shots: Sequence[int],
    seeds: int,
    folder: Path,
    hook: Hook | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> list[Measurement]:
    """Compare fine-tuning after pre-training with training from scratch.

    The last face is for testing if there are several: neither pre-training nor fine-tuning sees it. With one face, the
    looks that are tested are others than those that were trained on.

    Args:
        faces: (S, S, 3) uint8 each, at rest in the reference frame.
        how: Sizes.
        shots: Labelled pairs a class.
        seeds: Draws of the labelled pairs and starts of the training.
        folder: Of the pre-training run; one that is done is not run again.
        hook: Told of the progress of pre-training.
        tell: Told each result.

    Returns:
        Per number of shots: accuracy from scratch, after pre-training, and their difference over the seeds.
    """
    seen, unseen = (faces[:-1], faces[-1:]) if len(faces) > 1 else (faces, faces)
    videos = made_videos(seen, count=how.videos, duration_s=how.seconds, seed=0)
    folder.mkdir(parents=True, exist_ok=True)
    card = Pretraining(videos, how.pretrain, folder).run(hook=hook)
    test = made_pairs(unseen, per_class=how.tests, seed=_TEST_SEED)
    found = [
        Measurement(
            "reconstruction after pre-training, 'nothing moves' being 1", card["losses"].get("reconstruction"), "",
            bar=1.0, note=f"{sum(map(len, videos.faces))} frames",
        )
    ]  # fmt: skip
    for count in shots:
        right: dict[str, list[float]] = {"scratch": [], "pre-trained": []}
        for seed in range(seeds):
            train = made_pairs(seen, per_class=count, seed=seed)
            for name, start in (("scratch", ""), ("pre-trained", str(folder))):
                *_, classify = replace(how.learner, start=start).fit(train, seed=seed)
                share = 100 * float((classify(test.faces).argmax(axis=1) == test.label).mean())
                right[name].append(share)
                tell(f"{count} a class, seed {seed}, {name}: {share:.1f} %")
        gains = np.subtract(right["pre-trained"], right["scratch"])
        title = f"{count} pairs a class, {len(CLASSES)} classes"
        for name, values in right.items():
            found.append(Measurement(f"{title}: {name}", float(np.mean(values)), "%", note=_spread(values)))
        gain = Measurement(f"{title}: gain", float(gains.mean()), "points", 0.0, at_least=True, note=_spread(gains))
        found.append(gain)
    return found


def _spread(values: Sequence[float] | np.ndarray[tuple[int], np.dtype[np.float64]]) -> str:
    return f"± {np.std(values, ddof=1):.1f} over {len(values)} seeds" if len(values) > 1 else "one seed"
