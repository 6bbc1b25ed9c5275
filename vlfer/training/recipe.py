"""The configuration of ``vlfer train-backbone``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from vlfer.errors import ConfigError, did_you_mean
from vlfer.models.face_tower import BranchName


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSection(_Section):
    """What is trained on and what is held out.

    Attributes:
        train: Archive of faces with votes (``images``, ``votes``, ``classes``).
        out_of_domain: Archive of other faces (``jpeg``, ``offset``, ``label``) to choose on, never trained on.
        validation: Share of pictures to choose on.
        test: Share of pictures to report on.
        leave_out: Classes to remove with all their votes, to measure recognition of a class named only in text; one
            name or several.
    """

    train: Path
    out_of_domain: Path | None = None
    validation: float = Field(0.06, gt=0, lt=0.5)
    test: float = Field(0.06, gt=0, lt=0.5)
    leave_out: tuple[str, ...] = ()

    @field_validator("leave_out", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value or ()


class ImageSection(_Section):
    """How one network of the image tower learns.

    Attributes:
        start: "packaged" (SFace for mobileface, ImageNet for lite0), "random", or the path of such a file.
        frozen_stages: How many stages, from the input upwards, keep their starting weights.
        epochs: Passes over as many faces as the training part holds.
        batch_size: Faces a step.
        learning_rate: Peak rate of AdamW for the tower.
        head_learning_rate: Peak rate for the heads, which start from nothing.
        weight_decay: Of AdamW.
        warmup_steps: Steps of linear warm-up before the cosine.
        ema_decay: Of the averaged weights that are kept.
        balance: Exponent of the sampling weight 1 / frequency ** balance of a majority class; 0 for none.
        geometry_weight: Weight of the mesh measurements beside the votes.
        dropout: Before the heads.
        drop_path: Stochastic depth of lite0.
        mixup: Alpha of mixup, 0 for none.
    """

    start: str = "packaged"
    frozen_stages: int = Field(3, ge=0)
    epochs: int = Field(16, ge=1)
    batch_size: int = Field(96, ge=2)
    learning_rate: float = Field(5e-4, gt=0)
    head_learning_rate: float = Field(2e-3, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    warmup_steps: int = Field(200, ge=0)
    ema_decay: float = Field(0.998, ge=0, lt=1)
    balance: float = Field(0.5, ge=0, le=1)
    geometry_weight: float = Field(0.15, ge=0)
    dropout: float = Field(0.2, ge=0, lt=1)
    drop_path: float = Field(0.1, ge=0, lt=1)
    mixup: float = Field(0.2, ge=0)


class TextSection(_Section):
    """How MiniLM learns the lexicon.

    Attributes:
        start: "packaged", or the ``text_tower.safetensors`` of another run, which then is taken as it is.
        hold_out: Whether the held-out words of the lexicon stay away from training, to measure words never met.
        lora_rank: Rank of the updates; 0 leaves MiniLM as it is.
        targets: Names of the linear layers that are updated.
        epochs: Passes over the lexicon.
        batch_size: Texts a step.
        learning_rate: Peak rate.
        weight_decay: Of AdamW.
        unit_weight: Weight of the action units beside the votes.
        dropout: Before the heads.
        tower_dropout: Inside MiniLM.
    """

    start: str = "packaged"
    hold_out: bool = True
    lora_rank: int = Field(16, ge=0)
    targets: tuple[str, ...] = ("query", "value")
    epochs: int = Field(8, ge=1)
    batch_size: int = Field(64, ge=2)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    unit_weight: float = Field(0.5, ge=0)
    dropout: float = Field(0.1, ge=0, lt=1)
    tower_dropout: float = Field(0.05, ge=0, lt=1)


class AlignSection(_Section):
    """How faces and texts are brought into one space.

    Attributes:
        views: Augmented views of each training face whose features are kept.
        steps: Steps of training.
        faces: Faces a step.
        texts: Texts a step, as many of each class.
        learning_rate: Peak rate.
        weight_decay: Of AdamW.
        prior: How much of the training set's class prior the similarities keep: 0 none, 1 all.
        bank_weight: Weight of matching faces with single texts.
        search_weight: Weight of ranking faces for a text.
        geometry_weight: Weight of ranking faces for action units by their measured geometry.
        meaning_weight: Weight of the distance of each text from the mixture of classes that its votes give.
        unseen_weight: Weight of giving each class of ``data.leave_out`` its share of the faces.
        feature_dropout: On the features of both towers.
        feature_noise: Standard deviation of noise on text features, relative to theirs.
    """

    views: int = Field(4, ge=1)
    steps: int = Field(3000, ge=1)
    faces: int = Field(256, ge=2)
    texts: int = Field(256, ge=8)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    prior: float = Field(0.35, ge=0, le=1)
    bank_weight: float = Field(0.5, ge=0)
    search_weight: float = Field(0.2, ge=0)
    geometry_weight: float = Field(0.2, ge=0)
    meaning_weight: float = Field(0.0, ge=0)
    unseen_weight: float = Field(1.0, ge=0)
    feature_dropout: float = Field(0.1, ge=0, lt=1)
    feature_noise: float = Field(0.1, ge=0)


class BackboneRecipe(_Section):
    """Everything that decides what ``vlfer train-backbone`` produces.

    Attributes:
        seed: Of initialisation, order and augmentation.
        threads: CPU threads.
        precision: "bf16" or "fp32" arithmetic in the tower.
        compile: Whether the training step is compiled first (about 1.6 times faster on a CPU).
    """

    seed: int = 0
    threads: int = Field(2, ge=1)
    precision: Literal["bf16", "fp32"] = "bf16"
    compile: bool = True
    classes: tuple[str, ...] = (
        "neutral",
        "happiness",
        "surprise",
        "sadness",
        "anger",
        "disgust",
        "fear",
        "contempt",
    )
    data: DataSection
    image: dict[BranchName, ImageSection] = Field({"mobileface": ImageSection()}, min_length=1)
    text: TextSection = TextSection()
    align: AlignSection = AlignSection()

    @model_validator(mode="after")
    def _left_out_classes_exist(self) -> Self:
        unknown = [name for name in self.data.leave_out if name not in self.classes]
        if unknown:
            raise ValueError(f"data.leave_out names {unknown[0]!r}. {did_you_mean(unknown[0], self.classes)}")
        if len(self.data.leave_out) > len(self.classes) - 2:
            raise ValueError("data.leave_out leaves fewer than two classes.")
        return self


def load_recipe(path: Path, *, overrides: Sequence[str] = ()) -> BackboneRecipe:
    """Load a recipe from YAML and apply ``section.key=value`` overrides; paths are relative to the working folder.

    Raises:
        ConfigError: If the file is missing or no mapping, or keys or values are wrong; all mistakes are told at once.
    """
    if not path.is_file():
        raise ConfigError(f"{path} does not exist.", fix="vlfer train-backbone configs/bundled.yaml")
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML.", why=str(error)) from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds {type(content).__name__}.", why="Expected keys and values.")
    for override in overrides:
        key, separator, value = override.partition("=")
        if not separator:
            raise ConfigError(f"{override!r} sets nothing.", fix="--set image.epochs=2")
        place: Any = content
        *sections, last = key.strip().split(".")
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise ConfigError(f"{key!r} goes through {section!r}, which is a value.")
        place[last] = yaml.safe_load(value)
    try:
        return BackboneRecipe.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{path} has {error.error_count()} mistakes.", why=_told(error)) from error


def _told(error: ValidationError) -> str:
    told = []
    for mistake in error.errors():
        where = ".".join(str(part) for part in mistake["loc"])
        hint = did_you_mean(where.rsplit(".", 1)[-1], _known_keys()) if mistake["type"] == "extra_forbidden" else ""
        told.append(f"{where}: {mistake['msg']}. {hint}".strip())
    return "; ".join(told)


def _known_keys() -> list[str]:
    sections = (BackboneRecipe, DataSection, ImageSection, TextSection, AlignSection)
    return [key for section in sections for key in section.model_fields]
