"""Corrections that need faces without labels: the bias of words, and the temperature for a number of labels.

Some words lie near every face of a space ("neutral"), others near none ("schadenfreude"). What a label gets from faces
in general says nothing about this face, so it is taken off. Any label set can be corrected so, as long as some faces
of the kind that will be met are at hand: ``vlfer prompts reference``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from vlfer.config import PredictConfig, write_atomically
from vlfer.errors import ConfigError, DataError, SpaceError
from vlfer.scoring import Pooling, score_sentences
from vlfer.text.bank import SentenceBank, embed_labels
from vlfer.types import Embedding, FloatArray, IntArray, LabelSet

Correction = Literal["none", "mean", "prior"]
TemperatureBy = Literal["fixed", "count"]

MOST_REFERENCE_FACES = 1024
FEWEST_REFERENCE_FACES = 16
_LEAST_PROBABILITY = 1e-6
#: The label count that a backbone's temperature was fitted with, and the power by which it falls with more labels.
FITTED_LABELS = 8
COUNT_POWER = -0.01


def label_bias(
    reference: Embedding,
    sentences: Embedding,
    owner: IntArray,
    weight: FloatArray,
    *,
    labels: LabelSet,
    temperature: float,
    pooling: Pooling = "embeddings",
    correction: Correction = "mean",
    strength: float = 0.5,
) -> FloatArray | None:
    """Return what each label gets from faces in general, to be given to the scorer as ``prior``.

    ``mean`` is the mean similarity of the label, over the temperature: the shift that gives every label the same mean.
    ``prior`` is the log of its mean probability (Menon et al., 2021, logit adjustment; for CLIP, Allingham et al.,
    2023): the shift that takes away the model's preference among just these labels.

    Args:
        reference: M faces without labels.
        sentences: See `score_sentences`.
        owner: See `score_sentences`.
        weight: See `score_sentences`.
        labels: C labels.
        temperature: What similarities are divided by.
        pooling: See `score_sentences`.
        correction: Which.
        strength: 1 takes it off in full, 0 leaves it.

    Returns:
        (C,) float32 with mean 0, or None for no correction.

    Raises:
        SpaceError: If the faces live in another space.
        ConfigError: If ``strength`` is outside 0..2.
    """
    if not 0.0 <= strength <= 2.0:
        raise ConfigError(f"The correction strength is {strength}.", why="0 is none and 1 all of it.", fix="0 to 2")
    if correction == "none" or strength == 0.0:
        return None
    scores = score_sentences(
        reference, sentences, owner, weight, labels=labels, temperature=temperature, pooling=pooling
    )
    if correction == "mean":
        bias = scores.similarity.astype(np.float64).mean(axis=0) / temperature
    else:
        bias = np.log(np.maximum(scores.probability.astype(np.float64).mean(axis=0), _LEAST_PROBABILITY))
    return np.asarray(strength * (bias - bias.mean()), np.float32)


def config_bias(
    config: PredictConfig, bank: SentenceBank, labels: LabelSet, *, temperature: float
) -> FloatArray | None:
    """Return the `label_bias` that a configuration asks for.

    Raises:
        ConfigError: If a correction is asked for without reference faces.
        DataError: If they cannot be read.
        SpaceError: If they live in another space than the bank.
    """
    if config.correction == "none":
        return None
    if config.reference is None:
        raise ConfigError(
            f"The correction {config.correction!r} has no reference faces.",
            why="It takes off what labels get from faces in general.",
            fix="vlfer prompts reference FACES --out faces.safetensors, then reference: faces.safetensors",
        )
    sentences, owner, weight = embed_labels(bank, labels, ensemble=config.ensemble)
    reference = load_reference(config.reference, space=sentences.space)
    return label_bias(
        reference, sentences, owner, weight, labels=labels, temperature=temperature, pooling=config.pooling,
        correction=config.correction, strength=config.correction_strength,
    )  # fmt: skip


def temperature_for(temperature: float, n_labels: int, *, by: TemperatureBy = "fixed") -> float:
    """Return the temperature for a number of labels.

    A temperature is fitted with one number of labels. Among more of them the probability of the best is spread over
    words that mean nearly the same; ``count`` sharpens by a power that was fitted on held-out faces. Among fewer labels
    the best temperature hardly changes.

    Args:
        temperature: Of the backbone.
        n_labels: C.
        by: "fixed" leaves it as it is.
    """
    if by == "fixed" or n_labels <= FITTED_LABELS:
        return temperature
    return float(temperature * (n_labels / FITTED_LABELS) ** COUNT_POWER)


def thin_faces(faces: Embedding, *, most: int = MOST_REFERENCE_FACES, seed: int = 0) -> Embedding:
    """Return at most ``most`` of the faces, drawn at random.

    Raises:
        DataError: If there are too few to say anything of faces in general.
    """
    if len(faces) < FEWEST_REFERENCE_FACES:
        raise DataError(
            f"{len(faces)} faces are too few to tell what labels get from faces in general.",
            why=f"At least {FEWEST_REFERENCE_FACES} are needed; some hundreds are better.",
        )
    rows = np.sort(np.random.default_rng(seed).permutation(len(faces))[:most])
    return Embedding(np.ascontiguousarray(faces.vectors[rows]), faces.space)


def save_reference(faces: Embedding, path: Path) -> None:
    """Write vectors of faces without labels; no pixel is kept."""
    write_atomically(path, save({"vectors": faces.vectors}, metadata={"space": faces.space, "kind": "reference"}))


def load_reference(path: str | Path, *, space: str) -> Embedding:
    """Read what `save_reference` wrote.

    Args:
        path: The file.
        space: Id of the space that is asked for.

    Raises:
        DataError: If the file is missing or no such file.
        SpaceError: If its vectors live in another space.
    """
    file = Path(path).expanduser()
    try:
        with safe_open(file, framework="numpy") as opened:
            notes = opened.metadata() or {}
            vectors: FloatArray = opened.get_tensor("vectors")
        faces = Embedding(vectors, str(notes["space"]))
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise DataError(
            f"{str(path)!r} holds no reference faces.",
            why=(str(error).splitlines() or [""])[0][:200],
            fix="vlfer prompts reference FACES --out FILE",
        ) from error
    if faces.space != space:
        raise SpaceError(
            f"The reference faces of {str(path)!r} live in the space {faces.space!r}.",
            why=f"The backbone's is {space!r}.",
            fix="vlfer prompts reference FACES --out FILE, with the backbone in use",
        )
    return faces
