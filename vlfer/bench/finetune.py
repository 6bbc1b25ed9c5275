"""What fine-tuning gives: few samples of classes that a backbone was never shown, and the order of frames."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlfer.bench.measurement import Measurement
from vlfer.errors import DataError
from vlfer.metrics import confusion_matrix, recalls
from vlfer.models.encoder import load_encoder
from vlfer.models.tower import TowerEncoder
from vlfer.scoring import score
from vlfer.text.bank import TextBank
from vlfer.text.labels import labels_from_words, load_label_set
from vlfer.training.cache_adapter import CacheAdapter
from vlfer.training.data import VotedFaces, content_groups, load_voted_faces, split_by_content
from vlfer.training.finetune_config import FinetuneConfig
from vlfer.training.finetune_data import Samples
from vlfer.training.finetune_result import encode_samples
from vlfer.training.finetune_run import ADAPTER_FOLDER, finetune
from vlfer.types import Embedding, FloatArray, IntArray, LabelSet, UInt8Array

Say = Callable[[str], None]
ORDER_LABELS = ("an expression that appears", "an expression that fades")
_PARTS = {
    "new": "new classes", "old": "old classes, all labels", "old_alone": "old classes, their own labels",
    "new_at_old": "new classes, where the old ones keep what they have zero-shot",
}  # fmt: skip
_ORDER_NOTE = """Reads whether an expression comes or goes, which the mean of frames cannot tell. Trained and tested on
made clips of 8 to 16 frames: a neutral face of FER2013 passes into an expressive face of another person, or back (a
subject is such a pair). It has not been measured on filmed onsets and offsets."""
_NEW_TESTED = 400  # faces of each new class; FER+ holds thousands, which would take hours and say no more
_PART = 0.06  # of the pictures to choose on and to report on, as in the bundled model's recipe


def face_samples(images: UInt8Array, votes: FloatArray, classes: tuple[str, ...], *, size: int) -> Samples:
    """Return (N, S, S) grey faces as samples of ``size`` px, resized as whole faces are in use."""
    from vlfer.faces.align import crop_face
    from vlfer.faces.find import whole_face

    crops = np.empty((len(images), 1, size, size, 3), np.uint8)
    for i, image in enumerate(images):
        rgb = np.repeat(image[..., None], 3, axis=2)
        crops[i, 0] = crop_face(rgb, whole_face(rgb), size=size)
    digests = tuple(hashlib.sha256(image.tobytes()).hexdigest() for image in images)
    return Samples(
        pixels=crops, lengths=np.ones(len(images), np.int64),
        votes=(votes / votes.sum(axis=1, keepdims=True)).astype(np.float32), classes=classes,
        subjects=("",) * len(images), sources=digests, sha256=hashlib.sha256("".join(digests).encode()).hexdigest(),
    )  # fmt: skip


def bench_new_classes(
    archive: Path,
    *,
    config: FinetuneConfig,
    new: Sequence[str],
    shots: int = 16,
    seeds: int = 5,
    labels: str = "ferplus8",
    say: Say = lambda _: None,
) -> tuple[list[Measurement], dict[str, Any]]:
    """Measure LoRA against zero-shot, linear probe and cache adapter with a few samples a class.

    The label set is one, of old and new classes together, and each gives as many samples. Old classes are tested on the
    part of the archive that no training saw. New ones, of which the backbone saw nothing, are tested on up to 400 faces
    each that share no picture with the few samples.

    Args:
        archive: Faces with votes.
        config: Of the LoRA runs; its backbone was trained without the votes of ``new``.
        new: The classes that are new to the backbone.
        shots: Samples a class.
        seeds: Draws of the samples.
        labels: Label set; its order is kept.
        say: Told what is going on.

    Returns:
        Measurements with the bars of the figures, and all figures by method.

    Raises:
        DataError: If the archive lacks a class or has too few samples of one.
    """
    words = load_label_set(labels)
    faces = load_voted_faces(archive, classes=words.names)
    fresh = [words.index(name) for name in new]
    split = split_by_content(faces.images, validation=_PART, test=_PART, seed=0)
    groups = content_groups(faces.images)
    encoder = load_encoder(config.backbone, device=config.device)
    size = encoder.spec.image_size
    found: dict[str, list[dict[str, float]]] = {}
    sizes: tuple[float, float] = (0.0, 0.0)
    draws = [
        draw_shots(faces, split["train"], split["test"], groups, new=fresh, shots=shots, seed=seed)
        for seed in range(seeds)
    ]
    used = np.unique(np.concatenate([rows for draw in draws for rows in draw]))
    samples = face_samples(faces.images[used], faces.votes[used], words.names, size=size)
    untouched, bank = encode_samples(encoder, samples), TextBank(encoder)
    for seed, draw in enumerate(draws):
        places = [np.searchsorted(used, rows) for rows in draw]
        train, test = (samples.take(rows) for rows in places)
        keys, queries = (Embedding(untouched.vectors[rows], untouched.space) for rows in places)
        logits = {
            "zero-shot": score(queries, words, bank, temperature=1.0).similarity,
            "linear probe": linear_probe(keys, train.majority, queries, n_classes=len(words)),
            "cache adapter": _cache(encoder, words, keys, train, queries),
        }
        logits["LoRA"], sizes = _lora(config.model_copy(update={"seed": seed, "labels": labels}), words, train, test)
        floor = new_and_old(logits["zero-shot"], test.majority, fresh=fresh)["old"]
        for method, values in logits.items():
            row = new_and_old(values, test.majority, fresh=fresh)
            row["new_at_old"] = new_at_old(values, test.majority, fresh=fresh, floor=floor)
            found.setdefault(method, []).append(row)
        say(f"seed {seed}: " + ", ".join(f"{m} new {100 * r[-1]['new']:.1f}" for m, r in found.items()))
    summary = {method: _mean_and_spread(rows) for method, rows in found.items()}
    about = {"new": list(new), "shots": shots, "seeds": seeds, "tested": [len(tested) for _, tested in draws]}
    return _against_bars(summary, *sizes), {"methods": summary, **about, "rows": found}


def _lora(
    config: FinetuneConfig, words: LabelSet, train: Samples, test: Samples
) -> tuple[FloatArray, tuple[float, float]]:
    """Return (N, C) similarities after training, the trainable share of the tower and the bytes of the adapter."""
    with tempfile.TemporaryDirectory(prefix="vlfer-bench-") as name:
        card = finetune(config, train, None, folder=Path(name)).adapter.card
        folder = Path(name) / ADAPTER_FOLDER
        tuned = load_encoder(config.backbone, device=config.device, adapter=folder)
        similarity = score(encode_samples(tuned, test), words, TextBank(tuned), temperature=1.0).similarity
        size = sum(file.stat().st_size for file in folder.iterdir())
    return similarity, (card["trainable"]["parameters"] / card["trainable"]["image_tower"], float(size))


def _against_bars(
    summary: Mapping[str, Mapping[str, tuple[float, float]]], share: float, size: float
) -> list[Measurement]:
    zero, lora = summary["zero-shot"], summary["LoRA"]
    gained, gained_at = (100 * (lora[part][0] - zero[part][0]) for part in ("new", "new_at_old"))
    lost, lost_alone = (100 * (zero[part][0] - lora[part][0]) for part in ("old", "old_alone"))
    rows = [
        Measurement(f"{method}, {_PARTS[part]}", 100 * mean, "% UAR", note=f"spread {100 * spread:.1f}")
        for method, parts in summary.items()
        for part, (mean, spread) in parts.items()
    ]
    return [
        *rows,
        Measurement("LoRA over zero-shot on new classes", gained, "points", bar=10, at_least=True),
        Measurement("the same, where old classes keep what they have", gained_at, "points", bar=10, at_least=True),
        Measurement("lost on old classes, asked with all labels", lost, "points", bar=1),
        Measurement("lost on old classes, asked with their own labels", lost_alone, "points", bar=1),
        Measurement("trainable parameters", 100 * share, "% of the tower", bar=3),
        Measurement("adapter", size / 1e6, "MB", bar=3),
    ]


def draw_shots(
    faces: VotedFaces,
    train: IntArray,
    test: IntArray,
    groups: IntArray,
    *,
    new: Sequence[int],
    shots: int,
    seed: int,
) -> tuple[IntArray, IntArray]:
    """Return the rows of the few samples, and those that are tested.

    Raises:
        DataError: If a class has fewer samples than are wanted.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, 16]))
    drawn: list[IntArray] = []
    for c, name in enumerate(faces.classes):
        pool = train[faces.majority[train] == c]
        if len(pool) < shots:
            raise DataError(f"{name} has {len(pool)} samples to draw {shots} from.", fix="--shots")
        drawn.append(rng.choice(pool, shots, replace=False))
    chosen = np.sort(np.concatenate(drawn))
    apart = ~np.isin(groups, groups[chosen])
    of_new = [np.flatnonzero((faces.majority == c) & apart) for c in new]
    of_new = [rng.choice(rows, min(len(rows), _NEW_TESTED), replace=False) for rows in of_new]
    of_old = test[~np.isin(faces.majority[test], new)]
    return chosen, np.sort(np.concatenate([*of_new, of_old]))


def linear_probe(keys: Embedding, label: IntArray, images: Embedding, *, n_classes: int) -> FloatArray:
    """Return (M, C) log-probabilities of a logistic regression on frozen embeddings."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=10.0, max_iter=2000, class_weight="balanced").fit(keys.vectors, label)
    out = np.full((len(images), n_classes), -30.0, np.float32)
    out[:, model.classes_] = model.predict_log_proba(images.vectors)
    return out


def _cache(encoder: TowerEncoder, labels: LabelSet, keys: Embedding, train: Samples, images: Embedding) -> FloatArray:
    """Return (M, C) logits of a cache whose two numbers were chosen on half of the few samples."""
    bank, temperature = TextBank(encoder), encoder.temperature
    votes = np.eye(len(labels), dtype=np.float32)[train.majority]
    half = np.arange(len(keys)) % 2 == 0
    held = Embedding(keys.vectors[~half], keys.space)
    similarity = score(held, labels, bank, temperature=temperature).similarity
    small = CacheAdapter(Embedding(keys.vectors[half], keys.space), votes[half])
    tuned = small.tuned(held, similarity, votes[~half], temperature=temperature)
    whole = CacheAdapter(keys, votes, tuned.alpha, tuned.beta)
    words = score(images, labels, bank, temperature=temperature).similarity
    return whole.logits(images, words, temperature=temperature)


def new_and_old(logits: NDArray[np.floating[Any]], truth: IntArray, *, fresh: Sequence[int]) -> dict[str, float]:
    """Return mean recalls: of new and old classes among all, and of the old ones among themselves.

    Args:
        logits: (N, C).
        truth: (N,) int64.
        fresh: Columns of the new classes.
    """
    n_classes = logits.shape[1]
    old = [c for c in range(n_classes) if c not in set(fresh)]
    of_all = recalls(confusion_matrix(truth, logits.argmax(axis=1).astype(np.int64), n_classes=n_classes))
    masked = logits.copy()
    masked[:, list(fresh)] = -np.inf
    rows = np.isin(truth, old)
    alone = recalls(confusion_matrix(truth[rows], masked[rows].argmax(axis=1).astype(np.int64), n_classes=n_classes))
    return {
        "new": float(np.nanmean(of_all[list(fresh)])),
        "old": float(np.nanmean(of_all[old])),
        "old_alone": float(np.nanmean(alone[old])),
    }


def new_at_old(logits: FloatArray, truth: IntArray, *, fresh: Sequence[int], floor: float) -> float:
    """Return the mean recall of the new classes if one number is added to their logits, as large as old ones bear.

    Methods lie at different places between new and old; this compares them at one place.

    Args:
        logits: (N, C).
        truth: (N,) int64.
        fresh: Columns of the new classes.
        floor: Least mean recall of the old classes, 0 to 1.

    Returns:
        0 to 1; 0 if no number leaves the old classes as much.
    """
    old = [c for c in range(logits.shape[1]) if c not in set(fresh)]
    gaps = logits[:, old].max(axis=1) - logits[:, list(fresh)].max(axis=1)
    best = 0.0
    for bonus in np.quantile(gaps, np.linspace(0, 1, 201)):
        moved = logits.astype(np.float64)
        moved[:, list(fresh)] += bonus
        row = new_and_old(moved, truth, fresh=fresh)
        if row["old"] >= floor:
            best = max(best, row["new"])
    return best


def _mean_and_spread(rows: Sequence[dict[str, float]]) -> dict[str, tuple[float, float]]:
    return {
        key: (float(np.mean([r[key] for r in rows])), float(np.std([r[key] for r in rows], ddof=min(1, len(rows) - 1))))
        for key in rows[0]
    }


def order_samples(faces: VotedFaces, rows: IntArray, *, count: int, frames: int, size: int, seed: int) -> Samples:
    """Make clips in which an expression appears or fades: a neutral face passes into an expressive one, or back.

    Both directions are made of each pair of faces, so only the order of frames tells them apart.

    Args:
        faces: With the class "neutral".
        rows: What may be used.
        count: Pairs.
        frames: Of the longest clip; the shortest has half as many.
        size: Side in pixels.
        seed: Of the draw.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, frames]))
    majority, neutral = faces.majority[rows], faces.classes.index("neutral")
    strong = faces.distribution[rows].max(axis=1) > 0.7
    calm, moved = rows[(majority == neutral) & strong], rows[(majority != neutral) & strong]
    first, last = rng.choice(calm, count), rng.choice(moved, count)
    used, place = np.unique(np.concatenate([first, last]), return_inverse=True)
    crops = (
        face_samples(faces.images[used], faces.votes[used], faces.classes, size=size).pixels[:, 0].astype(np.float32)
    )
    pixels = np.zeros((2 * count, frames, size, size, 3), np.uint8)
    lengths = rng.integers(max(2, frames // 2), frames + 1, count)
    for i, length in enumerate(lengths.tolist()):
        middle, speed = rng.uniform(0.25, 0.75), rng.uniform(6, 18)
        share = 1 / (1 + np.exp(-speed * (np.linspace(0, 1, length) - middle)))
        share = share[:, None, None, None].astype(np.float32)
        clip = crops[place[i]] * (1 - share) + crops[place[count + i]] * share
        light = 1 + rng.normal(0, 0.03, (length, 1, 1, 1)).astype(np.float32)
        clip = np.clip(clip * light, 0, 255).round().astype(np.uint8)
        pixels[2 * i, :length], pixels[2 * i + 1, :length] = clip, clip[::-1]
    label = np.arange(2 * count) % 2
    names = tuple(f"{first[i // 2]}-{last[i // 2]}-{i % 2}-{i}-{seed}" for i in range(2 * count))
    return Samples(
        pixels=pixels, lengths=lengths.repeat(2).astype(np.int64), votes=np.eye(2, dtype=np.float32)[label],
        classes=ORDER_LABELS, subjects=tuple(name.rsplit("-", 3)[0] for name in names), sources=names,
        sha256=hashlib.sha256(pixels.tobytes()).hexdigest(),
    )  # fmt: skip


def bench_order(
    archive: Path,
    *,
    config: FinetuneConfig,
    pairs: int = 120,
    save: Path | None = None,
    say: Say = lambda _: None,
) -> tuple[list[Measurement], dict[str, Any]]:
    """Measure a temporal transformer against the mean of frames on made onsets and offsets, held out by content.

    Args:
        archive: Faces with votes.
        config: Of the run; videos with a temporal transformer.
        pairs: Pairs of faces to train on; half as many are tested.
        save: Also keep the adapter in this folder.
        say: Told what is going on.
    """
    faces = load_voted_faces(archive, classes=load_label_set("ferplus8").names)
    split = split_by_content(faces.images, validation=_PART, test=_PART, seed=0)
    encoder = load_encoder(config.backbone, device=config.device)
    size, frames = encoder.spec.image_size, config.data.frames
    make = {"frames": frames, "size": size, "seed": config.seed}
    train = order_samples(faces, split["train"], count=pairs, **make)
    held = order_samples(faces, split["test"], count=max(2, pairs // 2), **make)
    say(f"{len(train)} made clips to learn from, {len(held)} to test on")
    config = config.model_copy(update={"note": _ORDER_NOTE})
    with tempfile.TemporaryDirectory(prefix="vlfer-bench-") as name:
        labels = labels_from_words(ORDER_LABELS)
        outcome = finetune(config, replace(train, classes=labels.names), held, folder=Path(name))
        if save is not None:
            shutil.copytree(Path(name) / ADAPTER_FOLDER, save, dirs_exist_ok=True)
    both = outcome.figures["test"]
    pooled, read = 100 * both["before"]["uar"], 100 * both["after"]["uar"]
    rows = [
        Measurement("mean of frames", pooled, "% UAR"),
        Measurement("temporal transformer", read, "% UAR"),
        Measurement("transformer over mean", read - pooled, "points", bar=30, at_least=True),
    ]
    return rows, {"figures": outcome.figures}
