"""Where vlfer finds its own files, where it keeps what it may lose, and what a prediction can be told.

Settings are filled from defaults, a YAML file, the environment and flags, in that order.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import platformdirs
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vlfer.errors import ConfigError, EnvironmentProblem, did_you_mean

ENVIRONMENT_PREFIX = "VLFER_"
# Variables with the prefix that are no settings of a prediction.
OTHER_VARIABLES = frozenset({"VLFER_CACHE", "VLFER_ADAPTERS", "VLFER_API_KEYS"})


def cache_dir() -> Path:
    """Return the folder for things that can be computed again: ``$VLFER_CACHE``, else the user's cache folder.

    It may not exist yet, and may not be writable. Downloaded backbones lie in the hub's own cache (``$HF_HOME``).
    """
    chosen = os.environ.get("VLFER_CACHE", "").strip()
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("vlfer", appauthor=False))


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that other processes see whole or not at all.

    Raises:
        OSError: If the folder or the file cannot be written; no partial file is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".tmp-{secrets.token_hex(8)}"
    try:
        with temporary.open("xb") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def resource_dir(name: str) -> Path:
    """Return the folder of shipped files called ``name``: beside the package in a checkout, inside it in a wheel.

    Args:
        name: "prompts", "adapters" or "configs".

    Raises:
        EnvironmentProblem: If the installation lacks the folder.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / name, package.parent / name):
        if folder.is_dir():
            return folder
    raise EnvironmentProblem(
        f"The folder {name!r} of vlfer is missing.",
        why=f"It was looked for in {package} and {package.parent}.",
        fix="reinstall vlfer.",
    )


class PredictConfig(BaseModel):
    """Settings of a prediction; the resolved one is kept with every result."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    labels: str = Field("ekman7", description="Shipped set, YAML file, or words separated by commas.")
    backbone: str = Field("bundled", description="See `vlfer backbones list`.")
    adapter: str | None = Field(None, description="Folder or name of an adapter; see `vlfer adapters list`.")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps.")
    faces: Literal["detect", "whole", "auto"] = Field("auto", description="How faces are found.")
    detector: Literal["mediapipe", "yunet"] = Field("mediapipe", description="What finds them.")
    detector_file: str | None = Field(None, description="Model file of YuNet.")
    margin: float = Field(0.0, gt=-0.5, le=2.0, description="Extra around a face, as a share of its side.")
    ensemble: Literal["name", "templates", "descriptors", "all", "dynamics", "definitions", "contrast", "parts"] = (
        Field("all", description="Sentences per label.")
    )
    pooling: Literal["embeddings", "logits"] = Field("embeddings", description="How sentences are averaged.")
    temperature: float | None = Field(None, gt=0.0, description="None takes that of the backbone.")
    temperature_by: Literal["fixed", "count"] = Field("fixed", description="Whether it falls beyond eight labels.")
    correction: Literal["none", "mean", "prior"] = Field("none", description="What is taken off each label.")
    correction_strength: float = Field(0.5, ge=0.0, le=2.0, description="How much of it, 1 being all.")
    reference: str | None = Field(None, description="Faces without labels, by `vlfer prompts reference`.")
    threshold: float | None = Field(None, ge=0.0, le=1.0, description="Least probability; None is 2 / (C + 1).")
    tie_margin: float = Field(0.05, ge=0.0, le=1.0, description="Least lead of the best label, relative.")
    top: int = Field(5, ge=1, description="Labels listed per face.")
    fps: float = Field(8.0, gt=0.0, le=1000.0, description="Frames looked at per second of video.")
    window_s: float = Field(1.0, gt=0.0, description="Length of the sliding mean over a video.")
    hop_s: float = Field(0.25, gt=0.0, description="Shortest segment of a video.")
    temporal: Literal["mean", "attention", "topk", "ema", "adapter"] | None = Field(
        None, description="What makes one vector of a window; None is the adapter's, else the mean."
    )
    start_s: float = Field(0.0, ge=0.0, description="Of a video, from this time on.")
    end_s: float | None = Field(None, gt=0.0, description="Of a video, up to this time.")
    detect_every_s: float = Field(0.34, ge=0.0, description="Time between two searches for faces in a video.")
    batch_size: int = Field(32, ge=1, le=4096, description="Faces through the tower at once.")


def load_config(
    file: str | Path | None = None,
    *,
    overrides: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> PredictConfig:
    """Resolve the settings: defaults < file < ``VLFER_*`` < overrides.

    Args:
        file: YAML mapping of settings, or None.
        overrides: Settings by name; a None value is left out.
        environment: Variables to read; None takes those of the process.

    Raises:
        ConfigError: If the file cannot be read, or settings are unknown or out of range; all are told at once.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    layers = (
        (f"in {file}", _read_yaml(Path(file)) if file is not None else {}),
        ("in the environment", _from_environment(os.environ if environment is None else environment)),
        ("given", {key: value for key, value in (overrides or {}).items() if value is not None}),
    )
    for origin, layer in layers:
        values |= layer
        origins |= dict.fromkeys(layer, origin)
    try:
        config = PredictConfig.model_validate(values)
    except ValidationError as error:
        mistakes = [_say(item, origins) for item in error.errors()]
        raise ConfigError(
            "; ".join(mistakes) + ".",
            why=f"{len(mistakes)} of the settings cannot be used." if len(mistakes) > 1 else "",
            fix="vlfer predict --help",
        ) from error
    if config.window_s < config.hop_s:
        raise ConfigError(
            f"window_s is {config.window_s} and hop_s {config.hop_s}.",
            why="The window must be at least one hop long.",
            fix="raise window_s or lower hop_s.",
        )
    if config.end_s is not None and config.end_s <= config.start_s:
        raise ConfigError(f"The interval is {config.start_s:g} s to {config.end_s:g} s.", why="Expected start < end.")
    return config


def _from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the settings among the variables; a variable with our prefix that is none is a mistake too."""
    return {
        name.removeprefix(ENVIRONMENT_PREFIX).lower(): value
        for name, value in environment.items()
        if name.startswith(ENVIRONMENT_PREFIX) and name not in OTHER_VARIABLES
    }


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"The configuration {str(path)!r} cannot be read.", why=str(error)) from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(
            f"The configuration {str(path)!r} holds a {type(content).__name__}.", why="Expected a mapping."
        )
    return {str(key): value for key, value in content.items()}


def _say(item: Any, origins: Mapping[str, str]) -> str:
    """Put one of pydantic's complaints into words."""
    name = str(item["loc"][0]) if item["loc"] else "the configuration"
    origin = origins.get(name, "")
    if item["type"] == "extra_forbidden":
        hint = did_you_mean(name, PredictConfig.model_fields)
        return f"{name!r} {origin} is no setting" + (f" ({hint.removesuffix('?')}?)" if hint else "")
    message = str(item["msg"])
    return f"{name!r} {origin} is {item['input']!r}: {message[:1].lower()}{message[1:]}"
