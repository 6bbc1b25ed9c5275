"""The loop of ``vlfer finetune``: accelerate, averaged weights, early stop, and a state to go on from after a kill.

What a step sees follows from the seed and its number alone, so a run that was stopped and resumed gives the same
weights as one that was not. The state is one safetensors file, replaced only when the new one is complete.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Generator, Tensor, nn

from vlfer.config import write_atomically
from vlfer.errors import BackboneError, ConfigError, DataError, EnvironmentProblem
from vlfer.training.finetune_config import FinetuneConfig
from vlfer.training.finetune_data import Samples, draw_weights
from vlfer.training.run_state import optimizer_tensors, restore_optimizer
from vlfer.types import IntArray

_log = logging.getLogger(__name__)
Hook = Callable[[str, int, int], None]
STATE_NAME, LOG_NAME, CONFIG_NAME = "state.safetensors", "log.csv", "config.json"


class _Module(Protocol):
    def trainable(self) -> dict[str, nn.Parameter]: ...
    def lora_tensors(self) -> dict[str, nn.Parameter]: ...
    def learn(self) -> None: ...


class Task(Protocol):
    """What is learned: `vlfer.training.finetune_task.FaceTask`, or the flow task."""

    @property
    def module(self) -> Any:
        """A `_Module` whose forward gives the loss of a batch."""
        ...

    @property
    def train(self) -> Any:
        """Training samples with ``majority`` and ``classes``."""
        ...

    @property
    def validation(self) -> Any:
        """Validation samples; may be empty."""
        ...

    def batch(self, rows: IntArray, generator: Generator) -> tuple[Tensor, ...]:
        """Return the augmented tensors of some training rows."""
        ...

    def validate(self) -> dict[str, float]:
        """Return "uar", "war" and "loss" on the validation samples."""
        ...


def build_accelerator(config: FinetuneConfig, *, device: torch.device) -> Accelerator:
    """Start accelerate for this process; `accelerate launch` gives it the others.

    Raises:
        ConfigError: If the tracker is not installed.
    """
    tracker = None if config.tracker == "none" else config.tracker
    if tracker and importlib.util.find_spec(tracker) is None:
        raise ConfigError(
            f"The tracker {tracker!r} is not installed.", fix=f"uv pip install {tracker}, or tracker: none"
        )
    if AcceleratorState._shared_state:  # a second run in this process may want another precision
        AcceleratorState._reset_state(reset_partial_state=False)
    precision = {"fp32": "no"}.get(config.loop.precision, config.loop.precision)
    return Accelerator(mixed_precision=precision, cpu=device.type == "cpu", log_with=tracker)


class Finetuning:
    """One training run, stepwise and resumable.

    Args:
        task: What is learned.
        config: How.
        folder: Where state and log are kept; it belongs to one configuration and one set of samples.
        data_sha256: Hash of the samples.
        accelerator: Of this process.
    """

    def __init__(
        self, task: Task, config: FinetuneConfig, folder: Path, *, data_sha256: str, accelerator: Accelerator
    ) -> None:
        self.task, self.config, self.loop, self.folder = task, config, config.loop, folder
        self.accelerator = accelerator
        self.parameters: dict[str, nn.Parameter] = task.module.trainable()
        self.optimizer = torch.optim.AdamW(
            list(self.parameters.values()), lr=self.loop.learning_rate, weight_decay=self.loop.weight_decay
        )
        samples: Samples = task.train
        self.weights = draw_weights(samples.majority, classes=len(samples.classes), balance=self.loop.balance)
        together = self.loop.batch_size * self.loop.accumulation * accelerator.num_processes
        self.steps_per_epoch = self.loop.steps_per_epoch or max(1, math.ceil(len(samples) / together))
        self.step = 0
        self.history: list[dict[str, float]] = []
        self.losses: list[float] = []
        self.average = self._snapshot()
        self.best = self._snapshot()
        self.best_epoch, self.best_score = 0, (-math.inf, -math.inf)
        self.touched: set[str] = set()
        self._claim(data_sha256)
        if (folder / STATE_NAME).exists():
            self._resume()

    @property
    def total_steps(self) -> int:
        """Updates of the whole run."""
        return self.steps_per_epoch * self.loop.epochs

    @property
    def epoch(self) -> int:
        """Whole epochs done."""
        return self.step // self.steps_per_epoch

    def run(self, *, hook: Hook | None = None) -> None:
        """Train until the end, or until the validation stops getting better; afterwards the parts hold the best state.

        Raises:
            DataError: If the loss or the gradient is no longer finite; the last good state is kept.
            BackboneError: If by the second update a LoRA tensor has received no gradient.
            EnvironmentProblem: If memory or the disk is full.
            KeyboardInterrupt: After Ctrl-C, once the state is saved.
        """
        model, self.optimizer = self.accelerator.prepare(self.task.module, self.optimizer)
        started = time.monotonic()
        with _told_to_stop() as stop:
            while self.step < self.total_steps and not self._is_over():
                self._update(model)
                if hook:
                    last = self.history[-1] if self.history else {}
                    told = f", validation UAR {100 * last['uar']:.1f} %" if "uar" in last else ""
                    hook(f"loss {np.mean(self.losses[-20:]):.3f}{told}", self.step, self.total_steps)
                if self.step % self.steps_per_epoch == 0:
                    self._end_epoch(time.monotonic() - started)
                    started = time.monotonic()
                if stop.is_set():
                    self.save()
                    raise KeyboardInterrupt
        if self.config.tracker != "none":
            self.accelerator.end_training()
        self._put(self.best if len(self.task.validation) else self.average)
        self._keep_share()

    def rate(self, step: int) -> float:
        """Share of the peak rate at ``step``: linear warm-up, then cosine to 1 %."""
        warmup = max(1, round(self.loop.warmup * self.total_steps))
        if step < warmup:
            return (step + 1) / warmup
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, self.total_steps - warmup)))

    def _update(self, model: nn.Module) -> None:
        """Make one update: several batches where gradients are accumulated."""
        self.task.module.learn()
        for group in self.optimizer.param_groups:
            group["lr"] = self.loop.learning_rate * self.rate(self.step)
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for part in range(self.loop.accumulation):
            with _memory(self.loop), self._synchronised(model, last=part == self.loop.accumulation - 1):
                loss = model(*self._batch(part)) / self.loop.accumulation
                self._demand_finite(float(loss.detach()), "loss")
                if loss.requires_grad:  # else nothing that learns was called, which is told below
                    self.accelerator.backward(loss)
                total += float(loss.detach())
        norm = self.accelerator.clip_grad_norm_(list(self.parameters.values()), self.loop.clip_norm)
        if self.loop.precision != "fp16":  # the scaler of fp16 skips such an update and lowers its scale
            self._demand_finite(float(cast(Tensor, norm)), "gradient")
        self._check_gradients()
        self.optimizer.step()
        self.step += 1
        self.losses.append(total)
        decay = min(self.loop.ema, (1 + self.step) / (10 + self.step)) if self.loop.ema else 0.0
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                self.average[name].lerp_(parameter.detach().float(), 1 - decay)

    def _synchronised(self, model: nn.Module, *, last: bool) -> Any:
        return _nothing() if last else self.accelerator.no_sync(model)

    def _batch(self, part: int) -> tuple[Tensor, ...]:
        """Return a batch that follows from the seed, the step and its place among the batches of an update.

        So two processes see what one process sees that accumulates twice as many batches.
        """
        number = part * self.accelerator.num_processes + self.accelerator.process_index
        place = [self.config.seed, self.step, number, 0]
        state = int(np.random.SeedSequence(place).generate_state(1)[0])
        torch.manual_seed(state)  # dropout draws from the global generator
        rng, count = np.random.default_rng(state), self.loop.batch_size
        rows = rng.choice(len(self.weights), count, replace=count > len(self.weights), p=self.weights)
        return self.task.batch(rows, torch.Generator().manual_seed(state))

    def _demand_finite(self, value: float, what: str) -> None:
        if math.isfinite(value):
            return
        kept = (
            f"The state after epoch {self.epoch} is kept in {self.folder}."
            if self.history
            else "Nothing was learned yet."
        )
        raise DataError(
            f"The {what} is {value} at update {self.step + 1}.", why=kept,
            fix=f"loop.learning_rate={self.loop.learning_rate / 4:g}, loop.precision=fp32, and another --out",
        )  # fmt: skip

    def _check_gradients(self) -> None:
        """Refuse LoRA that trains nothing; its first half starts at zero, so it takes two updates to tell."""
        if self.step > 1:
            return
        tensors = self.task.module.lora_tensors()
        self.touched |= {name for name, p in tensors.items() if p.grad is not None and bool(p.grad.abs().sum() > 0)}
        lost = sorted(set(tensors) - self.touched)
        nothing = not self.touched and bool(tensors)
        if nothing or (self.step == 1 and lost and not self.accelerator.optimizer_step_was_skipped):
            raise BackboneError(
                f"{len(lost)} of {len(tensors)} LoRA tensors received no gradient in two updates, as {lost[0]!r}.",
                why="The tower does not call that layer, as with out_proj inside nn.MultiheadAttention.",
                fix="leave train.lora.targets out, to take those of the registry",
            )

    def _end_epoch(self, seconds: float) -> None:
        row = {"epoch": float(self.epoch), "update": float(self.step), "train_loss": float(np.mean(self.losses)),
               "learning_rate": self.loop.learning_rate * self.rate(self.step - 1)}  # fmt: skip
        self.losses = []
        if len(self.task.validation):
            last = self._snapshot()
            self._put(self.average)
            found = self.task.validate()
            self._put(last)
            row |= {"loss": found["loss"], "uar": found["uar"], "war": found["war"]}
            score = (found["uar"], -found["loss"])
            if score > self.best_score:
                self.best_epoch, self.best_score = self.epoch, score
                self.best = {name: value.clone() for name, value in self.average.items()}
        row["seconds"] = round(seconds, 2)
        self.history.append(row)
        if self.config.tracker != "none":
            self.accelerator.log(row, step=self.step)
        self.save()

    def _is_over(self) -> bool:
        patience = self.loop.patience
        return bool(
            patience and len(self.task.validation) and self.best_epoch and self.epoch - self.best_epoch >= patience
        )

    def _snapshot(self) -> dict[str, Tensor]:
        return {name: p.detach().float().clone() for name, p in self.parameters.items()}

    def _put(self, state: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(state[name])

    def _keep_share(self) -> None:
        lora = self.config.train.lora
        if lora is not None and lora.share < 1:
            with torch.no_grad():
                for name, tensor in self.task.module.lora_tensors().items():
                    if ".lora_B." in name:
                        tensor.mul_(lora.share)

    def _claim(self, data_sha256: str) -> None:
        """Bind the folder to this configuration and these samples."""
        path = self.folder / CONFIG_NAME
        text = json.dumps({"data_sha256": data_sha256, **json.loads(self.config.model_dump_json())}, indent=2)
        if path.exists() and path.read_text("utf-8") != text:
            raise ConfigError(
                f"{str(self.folder)!r} holds a run of another configuration or of other data.",
                why="Its state would not fit.", fix="--out another folder, or remove this one",
            )  # fmt: skip
        write_atomically(path, text.encode())

    def save(self) -> None:
        """Write state and log; the old ones stay where the new ones cannot be written.

        Raises:
            EnvironmentProblem: If they cannot be written.
        """
        if not self.accelerator.is_main_process:
            return
        tensors = {f"last.{k}": v for k, v in self._snapshot().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.items()}
        tensors |= {f"best.{k}": v for k, v in self.best.items()}
        tensors |= optimizer_tensors(getattr(self.optimizer, "optimizer", self.optimizer))
        metadata = {
            "step": str(self.step), "history": json.dumps(self.history), "losses": json.dumps(self.losses),
            "best": json.dumps([self.best_epoch, *self.best_score]), "touched": json.dumps(sorted(self.touched)),
        }  # fmt: skip
        content = save({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, metadata=metadata)
        try:
            write_atomically(self.folder / STATE_NAME, content)
            write_atomically(self.folder / LOG_NAME, _csv(self.history).encode())
        except OSError as error:
            raise EnvironmentProblem(
                f"The state of epoch {self.epoch} cannot be written to {str(self.folder)!r}: {error}.",
                why="The one before is intact.",
                fix="free some space and run the same command again: it goes on from there",
            ) from error

    def _resume(self) -> None:
        path = self.folder / STATE_NAME
        try:
            with safe_open(str(path), "pt") as file:
                notes = file.metadata()
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, no mapping
            device = next(iter(self.parameters.values())).device

            def part(prefix: str) -> dict[str, Tensor]:
                return {name: tensors[f"{prefix}.{name}"].to(device) for name in self.parameters}

            self._put(part("last"))
            self.average, self.best = part("average"), part("best")
            self.step, self.history = int(notes["step"]), json.loads(notes["history"])
            self.losses, self.touched = json.loads(notes["losses"]), set(json.loads(notes["touched"]))
            epoch, uar, loss = json.loads(notes["best"])
            self.best_epoch, self.best_score = epoch, (uar, loss)
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            raise DataError(
                f"The state {str(path)!r} cannot be read: {error}.", fix="remove it to start anew"
            ) from error
        restore_optimizer(self.optimizer, tensors)
        _log.info("resumed at update %d of %d", self.step, self.total_steps)


def _csv(history: list[dict[str, float]]) -> str:
    stream = io.StringIO()
    if history:
        writer = csv.DictWriter(stream, fieldnames=list(history[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
    return stream.getvalue()


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def _memory(loop: Any) -> Iterator[None]:
    """Say what to set where memory runs out."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        text = str(error).lower()
        if not isinstance(error, (torch.OutOfMemoryError, MemoryError)) and "memory" not in text:
            raise
        half = max(1, loop.batch_size // 2)
        raise EnvironmentProblem(
            f"Memory ran out with loop.batch_size={loop.batch_size} and loop.accumulation={loop.accumulation}.",
            why="An update of the same size fits in smaller parts.",
            fix=f"--set loop.batch_size={half} --set loop.accumulation={loop.accumulation * 2}"
            + ("" if loop.checkpoint_frames else " --set loop.checkpoint_frames=16"),
        ) from error


@contextmanager
def _told_to_stop() -> Iterator[threading.Event]:
    """Turn Ctrl-C and a polite kill into an event, so that a run ends between two updates; a second one at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number: int, frame: Any) -> None:
        del frame
        if stop.is_set() or number not in before:
            raise KeyboardInterrupt
        stop.set()

    before: dict[int, Any] = {}
    for each in (signal.SIGINT, signal.SIGTERM):
        before[int(each)] = signal.signal(each, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
