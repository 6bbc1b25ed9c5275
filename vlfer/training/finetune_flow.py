"""Onset-to-apex motion: LoRA of a flow encoder, so that a shipped one learns the words and the camera at hand."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Generator, Tensor, nn

from vlfer.errors import ConfigError, DataError
from vlfer.micro.canonical import Input, flow_input
from vlfer.micro.samples import FlowSamples
from vlfer.models.adapter import Adapter, find_adapter, load_adapter
from vlfer.models.encoder import load_encoder
from vlfer.models.flow_encoder import FlowAdapter, FlowEncoder, load_flow_adapter, save_flow_adapter
from vlfer.models.lora import add_lora, lora_parameters, merge_lora
from vlfer.models.tower import choose_device
from vlfer.text.bank import TextBank, embed_labels
from vlfer.text.labels import labels_from_words, resolve_label_spec
from vlfer.training.finetune import Finetuning, Hook, build_accelerator
from vlfer.training.finetune_config import FinetuneConfig
from vlfer.training.finetune_data import Samples, check_classes, check_leakage, inner_split, relabelled
from vlfer.training.finetune_losses import class_means, intensity_loss, vote_loss
from vlfer.training.finetune_result import describe, figures
from vlfer.training.finetune_run import ADAPTER_FOLDER, Outcome, course_of, public_config
from vlfer.training.finetune_task import figures_of
from vlfer.training.mie_augment import Augmentation
from vlfer.training.mie_augment import augment as augment_flow
from vlfer.types import LabelSet

_WITHIN = ("net.",)
_TARGETS = r"net\.body\.(0|4|8)|net\.head\.2"
_SHIPPED = "mie-flow"


def flow_samples(samples: FlowSamples) -> Samples:
    """Return flow as samples of one frame each; a subject is a person of one data set."""
    votes = np.eye(len(samples.classes), dtype=np.float32)[samples.label]
    people = samples.subject_keys.tolist()
    return Samples(
        pixels=samples.flow[:, None], lengths=np.ones(len(samples), np.int64), votes=votes, classes=samples.classes,
        subjects=tuple(people), sources=tuple(f"{p}/{c}" for p, c in zip(people, samples.clip.tolist(), strict=True)),
        sha256=samples.sha256,
    )  # fmt: skip


class FlowParts(nn.Module):
    """A flow encoder under LoRA and its labels; its forward gives the loss of a batch."""

    def __init__(self, encoder: FlowEncoder, classes: Tensor, config: FinetuneConfig, *, temperature: float) -> None:
        super().__init__()
        section = config.train.lora
        if section is None:
            raise ConfigError("A flow encoder learns by LoRA.", fix="train.lora.rank=4")
        self.encoder, self.config = encoder, config
        targets = section.targets or _TARGETS
        add_lora(
            encoder, targets=targets if isinstance(targets, str) else list(targets), rank=section.rank,
            alpha=section.alpha, dropout=section.dropout, dora=section.dora, within=_WITHIN,
        )  # fmt: skip
        self.register_buffer("classes", classes, persistent=False)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / temperature)), requires_grad=config.train.logit_scale)

    def trainable(self) -> dict[str, nn.Parameter]:
        """Return what learns, by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def lora_tensors(self) -> dict[str, nn.Parameter]:
        """Return the tensors of all LoRA layers, by name."""
        return lora_parameters(self.encoder)

    def learn(self) -> None:
        """Switch dropout on; batch norms stay as they are."""
        self.eval()
        for module in self.encoder.modules():
            if isinstance(module, (nn.Dropout, nn.Dropout2d)):
                module.train()

    def forward(self, flow: Tensor, votes: Tensor) -> Tensor:
        """Return the loss of (N, 3, 28, 28) flow and (N, C) votes."""
        objective = self.config.objective
        logits = self.logit_scale.exp() * self.encoder(flow) @ cast(Tensor, self.classes).T
        loss = vote_loss(logits, votes, smoothing=objective.smoothing)
        if objective.kind == "intensity":
            loss = loss + objective.intensity_weight * intensity_loss(logits, votes)
        return loss


@dataclass(frozen=True, slots=True)
class FlowTask:
    """Flow to learn from."""

    module: FlowParts
    train: Samples
    validation: Samples
    input: Input
    device: torch.device

    def batch(self, rows: Any, generator: Generator) -> tuple[Tensor, ...]:
        """Return augmented flow and votes of some training rows."""
        flow, votes = self._flow(self.train, rows), torch.from_numpy(self.train.votes[rows])
        if self.module.config.loop.augment:
            flow, votes = augment_flow(flow, votes, Augmentation(mixup=0.0), generator=generator)
        return flow.to(self.device), votes.to(self.device)

    @torch.inference_mode()
    def validate(self) -> dict[str, float]:
        """Return UAR, WAR and loss on the validation part."""
        self.module.eval()
        flow = self._flow(self.validation, np.arange(len(self.validation))).to(self.device)
        logits = self.module.logit_scale.exp() * self.module.encoder(flow) @ cast(Tensor, self.module.classes).T
        return figures_of(logits.cpu().numpy(), self.validation.votes, self.validation.classes)

    def _flow(self, samples: Samples, rows: Any) -> Tensor:
        prepared = flow_input(np.asarray(samples.pixels[rows][:, 0]), kind=self.input)
        return torch.from_numpy(np.ascontiguousarray(prepared.transpose(0, 3, 1, 2)))


def finetune_flow(
    config: FinetuneConfig, train: Samples, test: Samples | None, *, folder: Path, hook: Hook | None = None
) -> Outcome:
    """Adapt a flow encoder to samples; the result is a flow adapter with LoRA merged, for ``vlfer mie recognize``.

    Args:
        config: How.
        train: What `flow_samples` gave.
        test: Other people, or None.
        folder: Run folder.
        hook: Told (message, done, total).

    Raises:
        DataError: If the samples cannot teach, or people of the test were trained on.
        AdapterError: If the starting adapter is damaged or speaks another text space.
        ConfigError: If the folder belongs to another run, or targets are wrong.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if test is not None:
        check_leakage(train, test)
    labels = labels_from_words(train.classes) if config.labels is None else resolve_label_spec(config.labels)
    train, test = relabelled(train, labels), None if test is None else relabelled(test, labels)
    check_classes(train)
    rows, held, apart = inner_split(train, share=config.data.validation, by=config.data.validate_by, seed=config.seed)
    if apart == "pictures":
        raise DataError("Flow without subjects cannot be split.", why="Clips of one person look alike.")
    accelerator = build_accelerator(config, device=choose_device(config.device))
    bank = TextBank(load_encoder(config.backbone, device="cpu"))
    start = load_flow_adapter(find_adapter(config.adapter or _SHIPPED), space=bank.space)
    torch.manual_seed(config.seed)
    parts = FlowParts(start.encoder, _class_vectors(bank, labels, config), config, temperature=start.temperature)
    parts.to(accelerator.device)
    kind = cast(Input, start.input)
    task = FlowTask(parts, train.take(rows), train.take(held), kind, accelerator.device)
    run = Finetuning(task, config, folder, data_sha256=train.sha256, accelerator=accelerator)
    run.run(hook=hook)
    temperature = float(1 / parts.logit_scale.detach().exp())
    merged = FlowEncoder(start.encoder.dimension, width=start.encoder.width)
    merge_lora(parts.encoder)
    merged.load_state_dict({key: value.cpu() for key, value in parts.encoder.state_dict().items()})
    fresh = load_flow_adapter(find_adapter(config.adapter or _SHIPPED), space=bank.space)
    after = FlowAdapter(merged.eval(), bank.space, temperature, start.input, {})
    told: dict[str, Any] = {}
    for part, samples in (("validation", task.validation), ("test", test)):
        if samples is not None and len(samples):
            both = {"before": fresh, "after": after}
            told[part] = {when: _measure(one, samples, parts, labels) for when, one in both.items()}
    facts = describe(task.train, task.validation, test, apart=apart) | {
        "name": config.name, "started_from": fresh.card["weights_sha256"], "figures": told,
        "clips": len(task.train), "subjects": len(set(task.train.subjects)),
        "data_sets": sorted({s.split("/")[0] for s in task.train.subjects}),
        "label_set": {"labels": list(labels.names), "sha256": labels.sha256},
        "config": public_config(config), "course": course_of(run),
    }  # fmt: skip
    target = folder / ADAPTER_FOLDER
    save_flow_adapter(
        merged, target, space=bank.space, temperature=temperature, input_kind=start.input,
        facts=json.loads(json.dumps(facts)),
    )  # fmt: skip
    adapter: Adapter = load_adapter(target)
    return Outcome(adapter, told, 0)


def _class_vectors(bank: TextBank, labels: LabelSet, config: FinetuneConfig) -> Tensor:
    sentences, owner, weight = embed_labels(bank, labels, ensemble=config.objective.ensemble)
    mixing = torch.zeros(len(labels), len(owner))
    mixing[torch.from_numpy(owner), torch.arange(len(owner))] = torch.from_numpy(weight)
    return class_means(torch.from_numpy(sentences.vectors), mixing)


def _measure(adapter: FlowAdapter, samples: Samples, parts: FlowParts, labels: LabelSet) -> dict[str, Any]:
    vectors = adapter.encode(flow_input(np.asarray(samples.pixels[:, 0]), kind=cast(Input, adapter.input))).vectors
    similarity = vectors @ cast(Tensor, parts.classes).cpu().numpy().T
    return figures(similarity.astype(np.float32), adapter.temperature, samples, labels.names)
