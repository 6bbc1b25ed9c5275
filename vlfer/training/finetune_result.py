"""From trained parts to an adapter folder: files, figures before and after, and a card that tells how it was made."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import save

from vlfer.config import write_atomically
from vlfer.metrics import compute_metrics, fit_temperature
from vlfer.models.adapter import (
    LABELS_NAME,
    LORA_CONFIG,
    LORA_WEIGHTS,
    MAP_NAME,
    PROMPT_NAME,
    RESIDUAL_NAME,
    TEMPORAL_NAME,
    Adapter,
    backbone_card,
    write_card,
)
from vlfer.models.encoder import load_encoder
from vlfer.models.lora import lora_config_json, lora_state
from vlfer.models.temporal import pool_mean, save_temporal
from vlfer.models.tower import TowerEncoder
from vlfer.provenance import package_versions
from vlfer.scoring import score
from vlfer.text.bank import TextBank
from vlfer.training.finetune_data import Samples
from vlfer.training.finetune_losses import spread_frames
from vlfer.training.finetune_task import Parts, load_clips
from vlfer.types import Embedding, FloatArray, LabelSet

_FEWEST_ERRORS = 8  # with fewer of them on the validation part the best temperature is anybody's guess
_SHOWN_SKIPPED = 20
_BATCH = 64


def encode_samples(encoder: TowerEncoder, samples: Samples, *, plain_mean: bool = False) -> Embedding:
    """Return one vector a sample, as in use: frames encoded, then read by the temporal transformer or averaged.

    Args:
        encoder: With or without an adapter.
        samples: N images or clips.
        plain_mean: Average also where the encoder has a temporal transformer.
    """
    vectors = []
    for start in range(0, len(samples), _BATCH):
        rows = np.arange(start, min(start + _BATCH, len(samples)))
        _, mask = load_clips(samples, rows)
        pixels = np.ascontiguousarray(samples.pixels[rows][:, : mask.shape[1]])[mask.numpy()]
        frames = spread_frames(torch.from_numpy(encoder.encode_images(pixels).vectors), mask)
        reads_time = encoder.temporal is not None and not plain_mean
        with torch.inference_mode():
            if reads_time and encoder.temporal is not None:
                clips = encoder.temporal(frames.to(encoder.device), mask.to(encoder.device)).cpu()
            else:
                clips = pool_mean(frames, mask)
        vectors.append(clips.numpy())
    return Embedding(np.concatenate(vectors).astype(np.float32), encoder.space)


def measure(
    encoder: TowerEncoder, samples: Samples, labels: LabelSet, *, ensemble: Any = "all", plain_mean: bool = False
) -> tuple[dict[str, Any], FloatArray]:
    """Return figures of an encoder on samples, JSON-ready, and the (N, C) similarities behind them."""
    found = score(
        encode_samples(encoder, samples, plain_mean=plain_mean), labels, TextBank(encoder),
        temperature=encoder.temperature, ensemble=ensemble,
    )  # fmt: skip
    return figures(found.similarity, encoder.temperature, samples, labels.names), found.similarity


def figures(similarity: FloatArray, temperature: float, samples: Samples, classes: Sequence[str]) -> dict[str, Any]:
    """Return n, WAR, UAR, UF1, ECE, recalls and confusion of (N, C) similarities, JSON-ready and rounded."""
    from vlfer.metrics import softmax

    probability = softmax(similarity / temperature)
    found = compute_metrics(
        samples.majority, probability.argmax(axis=1).astype(np.int64), classes=list(classes), probability=probability
    )

    def rounded(value: float | None) -> float | None:
        return None if value is None else round(float(value), 4)

    return {
        "n": found.n, "war": rounded(found.war), "uar": rounded(found.uar), "uf1": rounded(found.uf1),
        "ece": rounded(found.ece), "recall": {c.name: rounded(c.recall) for c in found.per_class},
        "confusion": found.confusion[:, :-1].tolist(),
    }  # fmt: skip


def save_adapter(
    parts: Parts,
    folder: Path,
    *,
    name: str,
    labels: LabelSet,
    validation: Samples,
    test: Samples | None,
    facts: Mapping[str, Any],
) -> Adapter:
    """Write the adapter folder, load it as anyone would, measure before and after, and write its card.

    Args:
        parts: Trained.
        folder: Created where missing; files in it are replaced.
        name: Of the adapter.
        labels: What it was trained with.
        validation: What the epoch was chosen on; may be empty.
        test: What nothing was chosen on, or None.
        facts: Data description, configuration, course of training: JSON-ready.

    Raises:
        OSError: If a file cannot be written.
        AdapterError: If what was written does not load.
    """
    encoder, config = parts.encoder, parts.config
    folder.mkdir(parents=True, exist_ok=True)
    _write_parts(parts, folder)
    write_atomically(folder / LABELS_NAME, labels_yaml(labels, name=name).encode())
    temperature = float(1 / parts.logit_scale.detach().exp())
    backbone = backbone_card(encoder)
    card = {"name": name, "input": config.input, "backbone": backbone, "temperature": temperature}
    write_card(folder, card, readme="")
    ensemble = config.objective.ensemble
    before, after = load_encoder(config.backbone, device=str(encoder.device)), None
    after = load_encoder(config.backbone, device=str(encoder.device), adapter=folder)
    told: dict[str, Any] = {}
    for part, samples in (("validation", validation), ("test", test)):
        if samples is None or not len(samples):
            continue
        first, _ = measure(before, samples, labels, ensemble=ensemble)
        then, similarity = measure(after, samples, labels, ensemble=ensemble)
        errors = int((similarity.argmax(axis=1) != samples.majority).sum())
        if part == "validation" and not config.train.logit_scale and errors >= _FEWEST_ERRORS:
            after.temperature = temperature = fit_temperature(similarity, samples.majority)
            then = figures(similarity, temperature, samples, labels.names)
        told[part] = {"before": first, "after": then}
    trained = {key: int(p.numel()) for key, p in parts.trainable().items()}
    tower = sum(p.numel() for key, p in before.model.named_parameters() if key.startswith(("visual.", "vision_model.")))
    full = card | {
        "temperature": temperature,
        "label_set": {"name": labels.name, "labels": list(labels.names), "sha256": labels.sha256},
        "figures": told,
        "trainable": {
            "parameters": sum(trained.values()),
            "lora": sum(count for key, count in trained.items() if ".lora_" in key),
            "image_tower": tower,
        },
        "versions": package_versions(),
        "reading": "perceived expression, not felt emotion; probabilities are relative to the labels given",
        **facts,
    }
    return write_card(folder, full, readme=readme(full))


def _write_parts(parts: Parts, folder: Path) -> None:
    for stale in (LORA_CONFIG, LORA_WEIGHTS, TEMPORAL_NAME, PROMPT_NAME, RESIDUAL_NAME, MAP_NAME):
        (folder / stale).unlink(missing_ok=True)
    if parts.lora is not None:
        write_atomically(folder / LORA_WEIGHTS, save(lora_state(parts.model), metadata={"format": "pt"}))
        text = lora_config_json(parts.lora, backbone=parts.encoder.spec.name)
        write_atomically(folder / LORA_CONFIG, f"{text}\n".encode())
    if parts.temporal is not None:
        save_temporal(parts.temporal, folder / TEMPORAL_NAME)
    if parts.context is not None:
        context = parts.context.vectors.detach().cpu().float().contiguous().clone()
        write_atomically(folder / PROMPT_NAME, save({"context": context}))
    if parts.residual is not None:
        state = {key: value.detach().cpu().contiguous().clone() for key, value in parts.residual.state_dict().items()}
        write_atomically(folder / RESIDUAL_NAME, save(state))
    if parts.map is not None:
        write_atomically(folder / MAP_NAME, save({"map": parts.map.detach().cpu().float().contiguous().clone()}))


def labels_yaml(labels: LabelSet, *, name: str) -> str:
    """Return a prompt file with everything that changes a result."""
    rows = []
    for label in labels.labels:
        row: dict[str, Any] = {"name": label.name}
        for key in ("synonyms", "aliases", "action_units", "descriptors", "negatives", "dynamics", "weights"):
            if getattr(label, key):
                row[key] = list(getattr(label, key))
        if label.definition:
            row["definition"] = label.definition
        if label.parts and set(label.parts) <= set(labels.names):
            row["parts"] = list(label.parts)
        rows.append(row)
    content = {"name": name, "origin": {"author": labels.origin[:400]}, "labels": rows}
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)


def describe(train: Samples, validation: Samples, test: Samples | None, *, apart: str) -> dict[str, Any]:
    """Return what the card tells of the data, JSON-ready."""

    def part(samples: Samples | None) -> dict[str, Any]:
        if samples is None or not len(samples):
            return {"n": 0}
        return {"n": len(samples), "classes": samples.counts, "subjects": len({s for s in samples.subjects if s})}

    return {
        "data": {
            "train": part(train), "validation": part(validation), "test": part(test), "kept_apart_by": apart,
            "skipped": len(train.skipped),
            "skipped_first": [[s.source, s.reason] for s in train.skipped[:_SHOWN_SKIPPED]],
        },
        "data_sha256": train.sha256,
    }  # fmt: skip


def readme(card: Mapping[str, Any]) -> str:
    """Return the model card for people."""
    backbone, data, names = card["backbone"], card["data"], card["label_set"]["labels"]
    learned, tower = card["trainable"]["parameters"], card["trainable"]["image_tower"]
    medium = "film.mp4" if card["input"] == "videos" else "photo.jpg"
    lines = [
        "---", "library_name: vlfer", f"base_model: {backbone['name']}", "tags: [facial-expression-recognition]",
        "---", "", f"# {card['name']}", "",
        f"Adapts the backbone `{backbone['name']}` (weights `{backbone['weights_sha256'][:16]}`) to {card['input']} of",
        f"{len(names)} expressions: {', '.join(names)}.", "",
        *([" ".join(card["config"]["note"].split()), ""] if card["config"].get("note") else []),
        "It reads the perceived expression, not the felt emotion. Do not use it on people without their consent, nor",
        "to judge anyone.", "", "```bash", f"vlfer predict {medium} --adapter {card['name']}", "```", "",
        "## Figures", "",
    ]  # fmt: skip
    if card["figures"]:
        lines += ["| part | n | | WAR | UAR | UF1 | ECE |", "|---|---|---|---|---|---|---|"]
    for part, both in card["figures"].items():
        told = f"{part} (the epoch was chosen on it)" if part == "validation" else part
        for when in ("before", "after"):
            cells = " | ".join(_percent(both[when][key]) for key in ("war", "uar", "uf1", "ece"))
            lines.append(f"| {told} | {both[when]['n']} | {when} | {cells} |")
    if not card["figures"]:
        lines.append("None: nothing was held out.")
    for part, both in card["figures"].items():
        lines += ["", f"Recall and confusion on {part}, after (rows: truth; in brackets the recall before):", ""]
        lines += ["| | recall | " + " | ".join(names) + " |", "|---" * (len(names) + 2) + "|"]
        for i, name in enumerate(names):
            counts = " | ".join(str(c) for c in both["after"]["confusion"][i])
            recall = f"{_percent(both['after']['recall'][name])} ({_percent(both['before']['recall'][name])})"
            lines.append(f"| {name} | {recall} | {counts} |")
    lines += ["", "## How it was trained", "", f"Trainable: {learned:,} parameters, {100 * learned / tower:.2f} % of "
              f"the image tower's {tower:,}.", ""]  # fmt: skip
    for part in ("train", "validation", "test"):
        if data[part]["n"]:
            counts = ", ".join(f"{name} {count}" for name, count in data[part]["classes"].items() if count)
            people = f", {data[part]['subjects']} subjects" if data[part]["subjects"] else ""
            lines.append(f"- {part}: {data[part]['n']} samples{people}: {counts}")
    lines += [
        f"- training and validation share no {data['kept_apart_by']}; {data['skipped']} samples could not be read",
        f"- data hash `{card['data_sha256'][:16]}`, label set hash `{card['label_set']['sha256'][:16]}`", "",
        "```json", json.dumps(card["config"], indent=1), "```", "",
        f"Epoch {card['course']['best_epoch']} of {card['course']['epochs']} was kept; {card['course']['updates']} "
        f"updates in {card['course']['seconds']:.0f} s. All hashes are in `vlfer_adapter.json`.", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
