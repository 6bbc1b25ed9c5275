"""``vlfer finetune`` from samples to an adapter folder."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from vlfer.errors import BackboneError, DataError
from vlfer.models.adapter import Adapter, load_adapter
from vlfer.models.encoder import load_encoder
from vlfer.models.tower import choose_device
from vlfer.scoring import score
from vlfer.text.bank import TextBank
from vlfer.text.labels import labels_from_words, resolve_label_spec
from vlfer.training.finetune import Finetuning, Hook, build_accelerator
from vlfer.training.finetune_config import FinetuneConfig
from vlfer.training.finetune_data import (
    Samples,
    at_most,
    check_classes,
    check_leakage,
    inner_split,
    relabelled,
    shrunk,
)
from vlfer.training.finetune_result import describe, encode_samples, save_adapter
from vlfer.training.finetune_task import FaceTask, Parts
from vlfer.types import LabelSet

ADAPTER_FOLDER = "adapter"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run gave.

    Attributes:
        adapter: The folder, verified.
        figures: "validation" and "test", each "before" and "after"; see `vlfer.training.finetune_result.figures`.
        skipped: Samples that could not be used.
    """

    adapter: Adapter
    figures: dict[str, Any]
    skipped: int


def prepare_samples(
    config: FinetuneConfig, train: Samples, test: Samples | None
) -> tuple[LabelSet, Samples, Samples, Samples | None, str]:
    """Check samples and bring them to the labels of the configuration.

    Returns:
        The labels, training, validation and test samples, and what training and validation do not share.

    Raises:
        DataError: If the classes cannot teach, or the test leaks.
        PromptError: If the labels of the configuration are malformed.
    """
    if test is not None:
        check_leakage(train, test)
    labels = labels_from_words(train.classes) if config.labels is None else resolve_label_spec(config.labels)
    if config.objective.kind == "teacher":
        train = _taught(config, train, labels)
        test = None
    else:
        train = relabelled(train, labels)
        train = train.take(at_most(train, per_class=config.data.per_class, seed=config.seed))
        check_classes(train)
    test = None if test is None else relabelled(test, labels)
    side = config.data.shrink_px
    if side is not None:
        train, test = shrunk(train, side=side), None if test is None else shrunk(test, side=side)
    rows, held, apart = inner_split(train, share=config.data.validation, by=config.data.validate_by, seed=config.seed)
    return labels, train.take(rows), train.take(held), test, apart


def _taught(config: FinetuneConfig, samples: Samples, labels: LabelSet) -> Samples:
    """Return the samples with the votes that another backbone gives them."""
    teacher = load_encoder(str(config.objective.teacher), device=config.device)
    if samples.pixels.shape[2] < teacher.spec.image_size // 4:
        raise DataError(
            f"The crops are {samples.pixels.shape[2]} px and the teacher wants {teacher.spec.image_size}.",
            why="It would see next to nothing.",
        )
    found = score(encode_samples(teacher, samples), labels, TextBank(teacher), temperature=teacher.temperature)
    return replace(samples, votes=found.probability, classes=labels.names)


def finetune(
    config: FinetuneConfig, train: Samples, test: Samples | None, *, folder: Path, hook: Hook | None = None
) -> Outcome:
    """Adapt a backbone to samples.

    Args:
        config: How.
        train: Samples to learn from and to choose the epoch on.
        test: Samples to report on, or None.
        folder: Run folder: state, log, and ``adapter/``. The same call goes on from a state in it.
        hook: Told (message, done, total).

    Raises:
        DataError: If the samples cannot teach, the test leaks, or training diverges.
        ConfigError: If the folder belongs to another run, or targets are wrong.
        BackboneError: If the backbone cannot be loaded, or a LoRA tensor learns nothing.
        EnvironmentProblem: If memory or the disk is full.
        KeyboardInterrupt: After Ctrl-C, with the state saved.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if config.loop.threads:
        torch.set_num_threads(config.loop.threads)
    labels, train, validation, test, apart = prepare_samples(config, train, test)
    accelerator = build_accelerator(config, device=choose_device(config.device))
    torch.manual_seed(config.seed)
    encoder = load_encoder(config.backbone, device=str(accelerator.device))
    if train.pixels.shape[2] != encoder.spec.image_size:
        raise BackboneError(
            f"The crops are {train.pixels.shape[2]} px.", why=f"{encoder.spec.name} reads {encoder.spec.image_size} px."
        )
    parts = Parts(encoder, labels, config, captions=train.captions if config.objective.kind == "captions" else ())
    task = FaceTask(parts, train, validation, labels=labels)
    run = Finetuning(task, config, folder, data_sha256=train.sha256, accelerator=accelerator)
    if config.tracker != "none":
        accelerator.init_trackers("vlfer", config=json.loads(config.model_dump_json()))
    run.run(hook=hook)
    if not accelerator.is_main_process:  # the first process writes and measures
        accelerator.wait_for_everyone()
        adapter = load_adapter(folder / ADAPTER_FOLDER)
        return Outcome(adapter, adapter.card["figures"], len(train.skipped))
    facts = describe(train, validation, test, apart=apart)
    facts |= {"config": public_config(config), "course": course_of(run)}
    adapter = save_adapter(
        parts, folder / ADAPTER_FOLDER, name=config.name, labels=labels, validation=validation, test=test, facts=facts
    )
    accelerator.wait_for_everyone()
    return Outcome(adapter, adapter.card["figures"], len(train.skipped))


def public_config(config: FinetuneConfig) -> dict[str, Any]:
    """Return the configuration without the places of this machine, JSON-ready."""
    content: dict[str, Any] = json.loads(config.model_dump_json(exclude_defaults=True))
    for key in ("root", "manifest", "archive"):
        if key in content.get("data", {}):
            content["data"][key] = Path(content["data"][key]).name
    return content


def course_of(run: Finetuning) -> dict[str, Any]:
    """Return what the card tells of the course of training, JSON-ready."""
    return {
        "epochs": run.epoch,
        "best_epoch": run.best_epoch or run.epoch,
        "updates": run.step,
        "seconds": round(sum(row["seconds"] for row in run.history), 1),
    }
