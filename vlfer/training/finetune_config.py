"""The configuration of ``vlfer finetune``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vlfer.errors import ConfigError, did_you_mean

Objective = Literal["labels", "votes", "captions", "intensity", "teacher"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSection(_Section):
    """What is trained on. One of ``root``, ``manifest``, ``dataset`` and ``archive`` names it.

    Attributes:
        root: Class folders, ``root/<label>/<image or clip>``; with ``dataset`` or ``manifest`` the folder of the media.
        manifest: CSV ``path,label[,subject][,split][,fold]`` and, where the objective wants them, ``caption`` and one
            ``votes_<label>`` a class.
        dataset: A data set known to ``vlfer datasets``.
        archive: ``.npz``; images with votes as for ``vlfer train-backbone``, or onset-apex flow as for ``vlfer mie``.
        fold: Its rows are tested and not trained on.
        split: Of the training rows, where there are splits.
        test: What is tested after training, never chosen on: a split's name, "fold", "none", or "auto": the fold, else
            the split called test where there is one.
        validation: Share of the training rows that the epoch is chosen on; 0 trains to the end.
        validate_by: "subject" keeps people apart, "content" pictures that look the same; "auto" takes subjects where
            they are known.
        per_class: At most so many training samples of a class, drawn by the seed; None takes all.
        faces: How faces are found: "whole" where media are face crops already.
        margin: Extra around a face, as a share of its side.
        frames: Frames of a clip.
        shrink_px: Crops are first reduced to this side and enlarged again, training and test alike, as a far or poor
            camera shows faces; None leaves them.
    """

    root: Path | None = None
    manifest: Path | None = None
    dataset: str | None = None
    archive: Path | None = None
    fold: str | None = None
    split: str = "train"
    test: str = "auto"
    validation: float = Field(0.2, ge=0, lt=0.9)
    validate_by: Literal["auto", "subject", "content"] = "auto"
    per_class: int | None = Field(None, ge=2)
    faces: Literal["detect", "whole", "auto"] = "auto"
    margin: float = Field(0.0, gt=-0.5, le=2.0)
    frames: int = Field(16, ge=1, le=256)
    shrink_px: int | None = Field(None, ge=4, le=512)

    @model_validator(mode="after")
    def _one_source(self) -> DataSection:
        if self.archive is not None and (self.manifest or self.dataset or self.root):
            raise ValueError("archive stands alone; take away root, manifest or dataset")
        if self.manifest and self.dataset:
            raise ValueError("manifest and dataset are both given; take one of them")
        if self.dataset and not self.root:
            raise ValueError("dataset needs root, the folder of the data set")
        return self

    @property
    def is_named(self) -> bool:
        """Whether any source is given."""
        return any((self.root, self.manifest, self.dataset, self.archive))


class LoraSection(_Section):
    """Low-rank updates of the image tower (Hu et al., 2022), by PEFT.

    Attributes:
        rank: r.
        alpha: The update counts alpha / rank.
        dropout: Before the update.
        targets: Names of layers or one regular expression for full names; None takes those of the registry.
        dora: Weight-decomposed LoRA (Liu et al., 2024).
        share: How much of the update is kept in the end: 0.5 is halfway from the untouched tower (WiSE-FT, Wortsman et
            al., 2022), where few samples have less to say and less is forgotten.
    """

    rank: int = Field(4, ge=1, le=256)
    alpha: int = Field(8, ge=1)
    dropout: float = Field(0.05, ge=0, lt=1)
    targets: str | tuple[str, ...] | None = None
    dora: bool = False
    share: float = Field(1.0, gt=0, le=1)


class TemporalSection(_Section):
    """The transformer over frames, see `vlfer.models.temporal.TemporalAdapter`."""

    layers: int = Field(1, ge=1, le=4)
    heads: int = Field(4, ge=1)
    hidden: int | None = Field(None, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    max_frames: int = Field(64, ge=1, le=512)


class TrainSection(_Section):
    """Which parts learn.

    Attributes:
        lora: Low-rank updates of the image tower; null leaves it as it is.
        temporal: A transformer over the frames of a clip; null takes their mean.
        context: Learned vectors before every sentence (CoOp, DFER-CLIP); 0 for none.
        residual: A learned shift of each label's sentences, passed on to words that lie near them (TaskRes).
        linear_map: One linear map after both towers (Exp-CLIP).
        logit_scale: Whether the temperature learns too.
    """

    lora: LoraSection | None = LoraSection()
    temporal: TemporalSection | None = None
    context: int = Field(0, ge=0, le=32)
    residual: bool = False
    linear_map: bool = False
    logit_scale: bool = False


class ObjectiveSection(_Section):
    """What is asked of the parts.

    Attributes:
        kind: "labels": cross-entropy over the similarity with the labels' sentences; "votes": the same to shares of
            annotators; "captions": symmetric contrast of clips and captions (EmoCLIP); "intensity": labels with the
            intensity-aware loss of GCA-IAL beside them; "teacher": votes that another backbone gives, on faces without
            labels.
        smoothing: Of the labels.
        intensity_weight: Of the intensity-aware loss.
        keep: Weight of staying near the untouched tower on the same pixels, so that other words keep their meaning.
        ensemble: Which sentences stand for a label.
        teacher: The other backbone.
    """

    kind: Objective = "labels"
    smoothing: float = Field(0.0, ge=0, lt=1)
    intensity_weight: float = Field(0.1, ge=0)
    keep: float = Field(0.0, ge=0)
    ensemble: Literal["name", "templates", "descriptors", "all"] = "all"
    teacher: str | None = None


class LoopSection(_Section):
    """How the parts learn.

    Attributes:
        epochs: Passes over as many samples as the training part holds.
        steps_per_epoch: Steps of a pass; None divides the samples by the batch.
        batch_size: Samples a step and process.
        accumulation: Steps whose gradients are added up before an update.
        precision: Arithmetic of the towers.
        checkpoint_frames: Images whose activations are kept at once, the others being computed twice; 0 keeps all.
        learning_rate: Peak rate of AdamW.
        weight_decay: Of AdamW.
        warmup: Share of the updates with a rising rate, before the cosine.
        clip_norm: Longest gradient.
        ema: Decay of the averaged parts that are kept; 0 keeps the last ones.
        patience: Epochs without a better validation after which training stops; 0 never stops early.
        balance: Exponent of the sampling weight 1 / frequency ** balance of a class.
        augment: Strength of the augmentation, 0 for none.
        threads: CPU threads; None leaves torch's choice.
    """

    epochs: int = Field(20, ge=1)
    steps_per_epoch: int | None = Field(None, ge=1)
    batch_size: int = Field(32, ge=1)
    accumulation: int = Field(1, ge=1)
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    checkpoint_frames: int = Field(0, ge=0)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    warmup: float = Field(0.1, ge=0, lt=1)
    clip_norm: float = Field(1.0, gt=0)
    ema: float = Field(0.9, ge=0, lt=1)
    patience: int = Field(0, ge=0)
    balance: float = Field(1.0, ge=0, le=1)
    augment: float = Field(1.0, ge=0, le=2)
    threads: int | None = Field(None, ge=1)


class FinetuneConfig(_Section):
    """Everything that decides what ``vlfer finetune`` produces.

    Attributes:
        name: Of the adapter.
        note: What people should know of it; goes into the card.
        input: "images", "videos", or "flow": onset-to-apex motion.
        backbone: What is adapted; for flow, whose text tower is spoken.
        adapter: Flow only: the flow encoder to start from.
        labels: Shipped set, YAML file or words; None takes the labels of the data as words.
        device: Where it is trained.
        seed: Of everything random.
        tracker: Also log to this tool, if it is installed.
    """

    name: str = Field("adapter", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    note: str = ""
    input: Literal["images", "videos", "flow"] = "images"
    backbone: str = "bundled"
    adapter: str | None = None
    labels: str | None = None
    device: str = "auto"
    seed: int = Field(0, ge=0)
    data: DataSection = DataSection()
    train: TrainSection = TrainSection()
    objective: ObjectiveSection = ObjectiveSection()
    loop: LoopSection = LoopSection()
    tracker: Literal["none", "trackio", "wandb", "mlflow"] = "none"

    @model_validator(mode="after")
    def _something_learns(self) -> FinetuneConfig:
        parts = self.train
        words = parts.context or parts.residual
        if not (parts.lora or parts.temporal or words or parts.linear_map or parts.logit_scale):
            raise ValueError("nothing learns; set train.lora, temporal, context, residual or linear_map")
        if parts.context and parts.residual:
            raise ValueError("train.context and train.residual both move the labels' sentences; take one of them")
        if parts.residual and self.objective.kind == "captions":
            raise ValueError("train.residual moves labels, and captions are contrasted without any; take it away")
        if parts.temporal and self.input != "videos":
            raise ValueError(f"train.temporal reads clips, and the input is {self.input}; set input to videos")
        if self.input == "flow" and (parts.lora is None or words or parts.linear_map):
            raise ValueError("of a flow encoder only train.lora and train.logit_scale can learn")
        if self.input == "flow" and self.objective.kind not in ("labels", "intensity"):
            raise ValueError(f"flow is trained on labels, not {self.objective.kind}")
        if (self.objective.kind == "teacher") != (self.objective.teacher is not None):
            raise ValueError("objective.kind=teacher and objective.teacher go together")
        if self.objective.kind == "teacher" and self.labels is None:
            raise ValueError("a teacher needs labels: the words that it is asked about")
        return self


def load_finetune_config(path: Path, *, overrides: Sequence[str] = ()) -> FinetuneConfig:
    """Load a configuration from YAML and apply ``section.key=value`` overrides.

    Paths in it are relative to the working folder.

    Raises:
        ConfigError: If the file is missing or no mapping, or keys or values are wrong; all mistakes are told at once,
            with the near key of each unknown one.
    """
    if not path.is_file():
        known = sorted(p.name for p in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
        raise ConfigError(
            f"The configuration {str(path)!r} does not exist.", why=did_you_mean(path.name, known),
            fix="vlfer finetune configs/quick_cpu.yaml --set data.root=FOLDER",
        )  # fmt: skip
    try:
        content = yaml.safe_load(path.read_text("utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"The configuration {str(path)!r} cannot be read.", why=str(error)) from error
    if not isinstance(content, dict):
        raise ConfigError(f"{str(path)!r} holds a {type(content).__name__}.", why="Expected keys and values.")
    for override in overrides:
        _apply(content, override)
    try:
        return FinetuneConfig.model_validate(content)
    except ValidationError as error:
        raise ConfigError(
            f"{str(path)!r} has {error.error_count()} mistake{'s' if error.error_count() > 1 else ''}: "
            + "; ".join(_tell(item) for item in error.errors()) + ".",
            fix="docs/finetuning.md lists every key",
        ) from error  # fmt: skip


def _apply(content: dict[str, Any], override: str) -> None:
    key, separator, value = override.partition("=")
    if not separator or not key.strip():
        raise ConfigError(f"--set {override!r} sets nothing.", fix="--set loop.epochs=5")
    place: Any = content
    *sections, last = key.strip().split(".")
    for section in sections:
        if place.get(section) is None:
            place[section] = {}
        place = place[section]
        if not isinstance(place, dict):
            raise ConfigError(f"--set {key!r} goes through {section!r}, which is a value.")
    try:
        place[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override!r} holds no value of YAML.", why=str(error)) from error


def _tell(item: Any) -> str:
    key = ".".join(str(part) for part in item["loc"] if part not in ("str", "tuple[str, ...]"))
    if item["type"] == "extra_forbidden":
        hint = did_you_mean(key, set(known_keys())) or did_you_mean(key.rsplit(".", 1)[-1], set(known_keys()))
        return f"{key!r} is no setting. {hint}".strip().rstrip(".")
    message = str(item["msg"]).removeprefix("Value error, ")
    return f"{key}: {message}" if key else message


def known_keys(model: type[BaseModel] = FinetuneConfig, prefix: str = "") -> Iterator[str]:
    """Yield every key of the configuration with its sections."""
    for name, field in model.model_fields.items():
        yield prefix + name
        for candidate in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                yield from known_keys(candidate, f"{prefix}{name}.")
