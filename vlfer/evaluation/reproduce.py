"""Presets that repeat published evaluations: their frames, their preprocessing, their words.

A preset repeats how a number was measured. The number itself needs the weights it was measured with.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from vlfer.errors import ConfigError, PromptError, did_you_mean
from vlfer.evaluation.run import EvalConfig
from vlfer.types import LabelSet

if TYPE_CHECKING:  # importing it would load torch before a mistyped option is told
    from vlfer.models.encoder import Encoder

_NAMES = (
    "happiness", "sadness", "neutral", "anger", "surprise", "disgust", "fear", "contempt", "anxiety", "helplessness",
    "disappointment",
)  # fmt: skip

# Exp-CLIP: Zhao et al., "Enhancing Zero-Shot Facial Expression Recognition by LLM Knowledge Transfer", WACV 2025;
# wording of models/Text.py in github.com/zengqunzhao/Exp-CLIP, full stops included.
_PHOTO = "a photo of a face with an expression of {}."
_CROPPED = "a cropped photo emphasizing a face expressing {}."
_FIVE = (
    "an expression of {}.", _PHOTO, "a photo radiating {} in a person.", "a photo showing someone immersed in {}.",
    "a photo capturing {} within an individual.",
)  # fmt: skip
_FIVE_OF_SADNESS = (_FIVE[0], _CROPPED, "a photo exuding {} in a person.", *_FIVE[3:])
_LAST_OF_TEN = {
    "happiness": "happiness", "sadness": "sadness", "neutral": "neutral expression", "anger": "angry expression",
    "surprise": "surprised expression", "disgust": "disgusted expression", "fear": "fearful expression",
    "contempt": "contemptuous expression", "anxiety": "anxious expression", "helplessness": "helpless expression",
    "disappointment": "disappointed expression",
}  # fmt: skip

# DFER-CLIP: Zhao and Patras, "Prompting Visual-Language Models for Dynamic Facial Expression Recognition", BMVC 2023;
# the descriptors of its paper, as in github.com/zengqunzhao/DFER-CLIP.
_DFER_CLIP = {
    "happiness": "a smiling mouth, raised cheeks, wrinkled eyes, and arched eyebrows.",
    "sadness": "tears, a downward turned mouth, drooping upper eyelids, and a wrinkled forehead.",
    "neutral": "relaxed facial muscles, a straight mouth, a smooth forehead, and unremarkable eyebrows.",
    "anger": "furrowed eyebrows, narrow eyes, tightened lips, and flared nostrils.",
    "surprise": "widened eyes, an open mouth, raised eyebrows, and a frozen expression.",
    "disgust": "a wrinkled nose, lowered eyebrows, a tightened mouth, and narrow eyes.",
    "fear": "raised eyebrows, parted lips, a furrowed brow, and a retracted chin.",
    "contempt": "one side of its mouth raised, one eyebrow lower and one raised, narrowed eyes, and a raised chin.",
    "anxiety": "a tensed forehead, tightly pressed lips, pupil dilation, and tensed facial muscles.",
    "helplessness": "drooping eyebrows, a downward gaze, a downturned mouth, and lacking expression.",
    "disappointment": "a downturned mouth, lowered eyebrows, narrowed eyes, and a sighing face.",
}

# The FER2013 templates of Radford et al., 2021, as github.com/LAION-AI/CLIP_benchmark uses them.
_CLIP_TEMPLATES = (
    "a photo of a {} looking face.", "a photo of a face showing the emotion: {}.", "a photo of a face looking {}.",
    "a face that looks {}.", "they look {}.", "look at how {} they are.",
)  # fmt: skip
_CLIP_WORDS = {
    "anger": "angry", "disgust": "disgusted", "fear": "fearful", "happiness": "happy", "neutral": "neutral",
    "sadness": "sad", "surprise": "surprised",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Preset:
    """How one published evaluation was done.

    Attributes:
        name: What ``--reproduce`` takes.
        settings: Fields of `EvalConfig` that it fixes.
        sentences: Class to its sentences.
        raw_pixels: Whether pixels are only divided by 255, without the backbone's mean and standard deviation.
        note: What still differs, for the report.
    """

    name: str
    settings: Mapping[str, Any]
    sentences: Mapping[str, tuple[str, ...]]
    raw_pixels: bool
    note: str

    def sentences_of(self, labels: LabelSet) -> tuple[tuple[str, ...], ...]:
        """Return the sentences of each label, in the order of ``labels``.

        Raises:
            PromptError: If the published code has no sentence for a label.
        """
        own: dict[int, tuple[str, ...]] = {}
        for word, sentences in self.sentences.items():
            try:
                own.setdefault(labels.index(word), sentences)
            except PromptError:
                continue  # classes that this data set does not have
        missing = [name for i, name in enumerate(labels.names) if i not in own]
        if missing:
            raise PromptError(
                f"--reproduce {self.name} has no sentences for {', '.join(missing)}.",
                why=f"It was published for {', '.join(self.sentences)}.",
                fix="--labels with these classes, or no --reproduce",
            )
        return tuple(own[i] for i in range(len(labels)))


def _fill(templates: tuple[str, ...], name: str) -> tuple[str, ...]:
    return tuple(template.format(name) for template in templates)


def _five(name: str) -> tuple[str, ...]:
    return _fill(_FIVE_OF_SADNESS if name == "sadness" else _FIVE, name)


def _ten(name: str) -> tuple[str, ...]:
    further = (
        "a photo of a face exuding {}." if name == "happiness" else "a photo of a face displaying {}.",
        "a photo of a person embodying {}.",
        "a good photo capturing someone's {} state." if name == "neutral" else "a good photo capturing someone's {}.",
        _PHOTO if name == "sadness" else _CROPPED,
    )
    return (*_five(name), *_fill(further, name), f"a clean photo showcasing a person's {_LAST_OF_TEN[name]}.")


_RESEARCH = {"faces": "whole", "fit": "squash", "frames": 16, "frame_pooling": "embeddings"}
_UNIT = "Frame vectors are averaged as unit vectors; the published code averages them before normalising."


def _exp_clip(variant: str, sentences: Mapping[str, tuple[str, ...]]) -> Preset:
    return Preset(
        name="exp-clip" if variant == "five" else f"exp-clip-{variant}",
        settings={**_RESEARCH, "sampling": "exp-clip", "pooling": "logits"},
        sentences=sentences,
        raw_pixels=True,
        note=f"Exp-CLIP test loader, prompts {variant!r}: squashed to a square, divided by 255 without mean and "
        f"standard deviation; clips of 16 frames or fewer show frame 0 only. {_UNIT}",
    )


_ALL = (
    _exp_clip("five", {name: _five(name) for name in _NAMES}),
    _exp_clip("ten", {name: _ten(name) for name in _NAMES}),
    _exp_clip("name", {name: (f"{name}.",) for name in _NAMES}),
    _exp_clip("expression", {name: _fill(_FIVE[:1], name) for name in _NAMES}),
    _exp_clip("photo", {name: _fill((_PHOTO,), name) for name in _NAMES}),
    Preset(
        name="dfer-clip",
        settings={**_RESEARCH, "sampling": "dfer-clip", "pooling": "embeddings"},
        sentences={name: (text,) for name, text in _DFER_CLIP.items()},
        raw_pixels=True,
        note="DFER-CLIP test loader and descriptors, zero-shot. Its published figures come from a trained temporal "
        f"transformer and learned context. {_UNIT}",
    ),
    Preset(
        name="clip-benchmark",
        settings={"faces": "whole", "fit": "center", "pooling": "embeddings", "split": "val+test"},
        sentences={name: _fill(_CLIP_TEMPLATES, word) for name, word in _CLIP_WORDS.items()},
        raw_pixels=False,
        note="CLIP_benchmark: FER2013 validation and test images, CLIP's templates and preprocessing.",
    ),
)

PRESETS: dict[str, Preset] = {preset.name: preset for preset in _ALL}


def find_preset(name: str) -> Preset:
    """Return a preset by name.

    Raises:
        ConfigError: If there is none.
    """
    if name not in PRESETS:
        raise ConfigError(
            f"There is nothing to reproduce called {name!r}.",
            why=f"{did_you_mean(name, PRESETS)} Known: {', '.join(PRESETS)}.".strip(),
        )
    return PRESETS[name]


def resolve_config(given: Mapping[str, Any]) -> EvalConfig:
    """Fill settings from defaults, the preset of ``reproduce`` and what was given.

    Args:
        given: Fields of `EvalConfig`; None stands for not given.

    Raises:
        ConfigError: If a setting contradicts the preset.
    """
    chosen = {key: value for key, value in given.items() if value is not None}
    fixed: Mapping[str, Any] = {}
    if "reproduce" in chosen:
        preset = find_preset(str(chosen["reproduce"]))
        fixed = preset.settings
        against = [f"{k} {chosen[k]!r} (published: {v!r})" for k, v in fixed.items() if chosen.get(k, v) != v]
        against += ["ensemble (its sentences are fixed)"] if "ensemble" in chosen else []
        if against:
            raise ConfigError(
                f"--reproduce {preset.name} contradicts {', '.join(against)}.", fix="leave one of them out."
            )
    return EvalConfig.model_validate({**chosen, **fixed})


def raw_pixel_encoder(encoder: Encoder) -> Encoder:
    """Return the encoder with pixels only divided by 255, in a space of its own; the weights are shared."""
    changed = copy.copy(encoder)
    changed.spec = replace(encoder.spec, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    changed.space = f"{encoder.space}/pixels-0-1"
    return changed
