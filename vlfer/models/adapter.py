"""Adapters: small folders that change a backbone, and how they prove that they fit it. Imports no torch.

A folder holds, as far as the adapter has them:

- ``adapter_config.json``, ``adapter_model.safetensors``: LoRA of the image tower, as PEFT writes it
- ``temporal.safetensors``: a `vlfer.models.temporal.TemporalAdapter`
- ``prompt.safetensors``: learned context vectors before every sentence (CoOp, DFER-CLIP)
- ``residual.safetensors``: learned shifts of the labels' sentences (TaskRes)
- ``map.safetensors``: one linear map after both towers (Exp-CLIP)
- ``labels.yaml``: the words it was trained with, a prompt file
- ``vlfer_adapter.json``: what it was made for, hashes of the files above, how it was trained, figures
- ``README.md``: the model card, for people

No file is a pickle. The folder of the flow encoder (`vlfer.models.flow_encoder`) has ``flow.safetensors`` instead and a
card of its own form.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import platformdirs

from vlfer.config import PredictConfig, resource_dir, write_atomically
from vlfer.errors import AdapterError, EnvironmentProblem, did_you_mean
from vlfer.models.registry import BackboneSpec

FORMAT = "vlfer-adapter-1"
CARD_NAME, README_NAME, LABELS_NAME = "vlfer_adapter.json", "README.md", "labels.yaml"
LORA_CONFIG, LORA_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
TEMPORAL_NAME, PROMPT_NAME = "temporal.safetensors", "prompt.safetensors"
RESIDUAL_NAME, MAP_NAME = "residual.safetensors", "map.safetensors"
FLOW_NAME, FLOW_KIND = "flow.safetensors", "mie-flow"
#: What can change a vector, in the order in which it is hashed.
PARTS = (LORA_CONFIG, LORA_WEIGHTS, TEMPORAL_NAME, PROMPT_NAME, RESIDUAL_NAME, MAP_NAME)
KNOWN_FILES = (*PARTS, LABELS_NAME, FLOW_NAME, CARD_NAME, README_NAME)
_WANTED = ("backbone", "files", "adapter_sha256", "card_sha256")
_DIGITS = 16


class _Encoder(Protocol):
    @property
    def spec(self) -> BackboneSpec: ...

    @property
    def weights_sha256(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Adapter:
    """A folder whose files have the hashes that its card names.

    Attributes:
        folder: Where it lies.
        card: Content of ``vlfer_adapter.json``.
        sha256: Hash of everything in it that can change a vector.
    """

    folder: Path
    card: Mapping[str, Any]
    sha256: str

    @property
    def name(self) -> str:
        """What people call it."""
        return str(self.card.get("name") or self.folder.name)

    @property
    def kind(self) -> str:
        """Its parts in words: "lora", "temporal", "lora+temporal", "mie-flow"."""
        if self.card.get("kind") == FLOW_KIND:
            return FLOW_KIND
        named = {
            LORA_WEIGHTS: "lora", TEMPORAL_NAME: "temporal", PROMPT_NAME: "prompt", RESIDUAL_NAME: "residual",
            MAP_NAME: "map",
        }  # fmt: skip
        return "+".join(word for file, word in named.items() if self.has(file)) or "empty"

    @property
    def labels_file(self) -> Path | None:
        """The prompt file of its labels, or None."""
        return self.folder / LABELS_NAME if self.has(LABELS_NAME) else None

    def has(self, file: str) -> bool:
        """Tell whether the card names a file."""
        return file in self.card.get("files", {})


def adapters_home() -> Path:
    """Return the folder of the user's own adapters: ``$VLFER_ADAPTERS``, else in the user's data folder."""
    chosen = os.environ.get("VLFER_ADAPTERS", "").strip()
    return (
        Path(chosen).expanduser() if chosen else Path(platformdirs.user_data_dir("vlfer", appauthor=False)) / "adapters"
    )


def list_adapters() -> dict[str, Path]:
    """Return the adapters known by name: those that come with vlfer, and the user's own, which win."""
    found: dict[str, Path] = {}
    for home in _homes():
        if home.is_dir():
            found |= {path.name: path for path in sorted(home.iterdir()) if (path / CARD_NAME).is_file()}
    return found


def _homes() -> Iterator[Path]:
    with contextlib.suppress(EnvironmentProblem):  # a wheel without shipped adapters
        yield resource_dir("adapters")
    yield adapters_home()


def find_adapter(name: str | Path) -> Path:
    """Return the folder that a path or the name of a known adapter means.

    Raises:
        AdapterError: If it is neither.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    known = list_adapters()
    if str(name) in known:
        return known[str(name)]
    if path.is_file():
        raise AdapterError(
            f"{str(name)!r} is a file.",
            why="An adapter is a folder.",
            fix=f"vlfer adapters pull {name}, if it is packed",
        )
    raise AdapterError(
        f"There is no adapter {str(name)!r}.",
        why=f"{did_you_mean(str(name), known)} Known: {', '.join(known) or 'none'}.".strip(),
        fix="vlfer adapters list, or the path of an adapter folder",
    )


def load_adapter(name: str | Path) -> Adapter:
    """Read an adapter folder and verify every file against the card, and the card against itself.

    Args:
        name: Path of the folder, or the name of a known adapter.

    Raises:
        AdapterError: If there is none, a file is missing or was changed, or its form is unknown.
    """
    folder = find_adapter(name)
    card = _read_card(folder)
    if card.get("kind") == FLOW_KIND:
        return _flow_adapter(folder, card)
    if card.get("format") != FORMAT or any(key not in card for key in _WANTED):
        raise AdapterError(
            f"The adapter {str(folder)!r} has the form {card.get('format')!r}.",
            why=f"This version reads {FORMAT!r}.",
            fix="pip install --upgrade vlfer, or train the adapter again",
        )
    for file, wanted in card["files"].items():
        if file not in KNOWN_FILES:
            raise AdapterError(
                f"The adapter {str(folder)!r} names the file {file!r}.", why="It is none that vlfer reads."
            )
        _check_file(folder, file, wanted)
    stray = sorted(name for name in PARTS if name not in card["files"] and (folder / name).exists())
    if stray:
        raise AdapterError(f"The adapter {str(folder)!r} holds {stray[0]}.", why="Its card does not know of it.")
    actual = parts_sha256(card["files"])
    for key, found in (("adapter_sha256", actual), ("card_sha256", card_sha256(card))):
        if found != card[key]:
            raise AdapterError(
                f"The card of the adapter {str(folder)!r} gives the hash {found[:_DIGITS]}.",
                why=f"It says {str(card[key])[:_DIGITS]}: {CARD_NAME} was changed after training.",
                fix="copy the folder again from where it came",
            )
    return Adapter(folder, card, actual)


def with_adapter_labels(config: PredictConfig) -> PredictConfig:
    """Return settings in which the labels are those of the adapter, where there is one and no labels were asked for.

    Raises:
        AdapterError: If the adapter is not there, or damaged.
    """
    if config.adapter is None or "labels" in config.model_fields_set:
        return config
    file = load_adapter(config.adapter).labels_file
    return config if file is None else config.model_copy(update={"labels": str(file)})


def _read_card(folder: Path) -> dict[str, Any]:
    try:
        card = json.loads((folder / CARD_NAME).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise AdapterError(
            f"{str(folder)!r} is no adapter of vlfer.",
            why=f"Its {CARD_NAME} cannot be read: {error}.",
            fix="vlfer adapters list",
        ) from error
    if not isinstance(card, dict) or not isinstance(card.get("files", {}), dict):
        raise AdapterError(
            f"{str(folder)!r} is no adapter of vlfer.", why=f"Its {CARD_NAME} is no object of that form."
        )
    return card


def _check_file(folder: Path, file: str, wanted: str) -> None:
    try:
        actual = hashlib.sha256((folder / file).read_bytes()).hexdigest()
    except OSError as error:
        raise AdapterError(f"The adapter {str(folder)!r} lacks {file}.", why=str(error), fix="copy it again") from error
    if actual != wanted:
        raise AdapterError(
            f"The file {file} of the adapter {str(folder)!r} has the hash {actual[:_DIGITS]}.",
            why=f"The card says {str(wanted)[:_DIGITS]}: the file was changed or damaged.",
            fix="copy the folder again from where it came",
        )


def _flow_adapter(folder: Path, card: dict[str, Any]) -> Adapter:
    wanted = str(card.get("weights_sha256"))
    _check_file(folder, FLOW_NAME, wanted)
    return Adapter(folder, card, wanted)


def parts_sha256(files: Mapping[str, str]) -> str:
    """Return one hash of the files that can change a vector, from their own hashes."""
    content = [[name, files[name]] for name in PARTS if name in files]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def card_sha256(card: Mapping[str, Any]) -> str:
    """Return the hash of a card without its own hash."""
    content = {key: value for key, value in card.items() if key != "card_sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def preprocessing_of(spec: BackboneSpec) -> dict[str, Any]:
    """Return how a backbone prepares pixels, JSON-ready."""
    return {
        "image_size": spec.image_size,
        "mean": [round(value, 6) for value in spec.mean],
        "std": [round(value, 6) for value in spec.std],
        "interpolation": spec.interpolation,
    }


def preprocessing_sha256(preprocessing: Mapping[str, Any]) -> str:
    """Return the hash of what `preprocessing_of` gave."""
    return hashlib.sha256(json.dumps(dict(preprocessing), sort_keys=True).encode()).hexdigest()


def backbone_card(encoder: _Encoder) -> dict[str, Any]:
    """Return the part of a card that says which backbone an adapter is for."""
    preprocessing = preprocessing_of(encoder.spec)
    return {
        "name": encoder.spec.name,
        "weights_sha256": encoder.weights_sha256,
        "dimension": encoder.spec.dimension,
        "preprocessing": preprocessing,
        "preprocessing_sha256": preprocessing_sha256(preprocessing),
    }


def check_fits(adapter: Adapter, encoder: _Encoder) -> None:
    """Refuse an adapter that was made for another backbone or another preprocessing.

    Raises:
        AdapterError: Naming both hashes.
    """
    if adapter.kind == FLOW_KIND:
        raise AdapterError(
            f"The adapter {adapter.name!r} reads onset-to-apex motion, not faces.",
            fix=f"vlfer mie recognize --adapter {adapter.folder}",
        )
    made_for, given = adapter.card["backbone"], backbone_card(encoder)
    if made_for["weights_sha256"] != given["weights_sha256"]:
        same_name = made_for["name"] == given["name"]
        other = "the version of it that the adapter was made for" if same_name else f"--backbone {made_for['name']}"
        raise AdapterError(
            f"The adapter {adapter.name!r} was made for the backbone {made_for['name']!r} with the weights hash "
            f"{made_for['weights_sha256'][:_DIGITS]}; the backbone at hand is {given['name']!r} with "
            f"{given['weights_sha256'][:_DIGITS]}.",
            why="On other weights its updates mean nothing.",
            fix=f"{other}, or train the adapter again with vlfer finetune",
        )
    if made_for["preprocessing_sha256"] != given["preprocessing_sha256"]:
        differing = [
            f"{key} {made_for['preprocessing'].get(key)} and not {value}"
            for key, value in given["preprocessing"].items()
            if made_for["preprocessing"].get(key) != value
        ]
        raise AdapterError(
            f"The adapter {adapter.name!r} was made with the preprocessing "
            f"{made_for['preprocessing_sha256'][:_DIGITS]}; the backbone at hand has "
            f"{given['preprocessing_sha256'][:_DIGITS]}.",
            why=f"It saw {', '.join(differing) or 'other pixels'}.",
            fix="train the adapter again with vlfer finetune",
        )


def write_card(folder: Path, card: Mapping[str, Any], *, readme: str) -> Adapter:
    """Finish an adapter folder whose other files are written: hash them, write card and README, and verify.

    Args:
        folder: With the files of the adapter.
        card: ``backbone`` and anything else that is JSON-ready.
        readme: The model card for people.

    Raises:
        OSError: If a file cannot be written.
        AdapterError: If the folder holds nothing that adapts.
    """
    names = [name for name in (*PARTS, LABELS_NAME) if (folder / name).is_file()]
    if not set(names) & set(PARTS):
        raise AdapterError(f"{str(folder)!r} holds nothing that adapts a backbone.")
    files = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    full = {
        "format": FORMAT,
        **json.loads(json.dumps(dict(card))),
        "files": files,
        "adapter_sha256": parts_sha256(files),
    }
    full["card_sha256"] = card_sha256(full)
    write_atomically(folder / README_NAME, readme.encode())
    write_atomically(folder / CARD_NAME, (json.dumps(full, indent=2, ensure_ascii=False) + "\n").encode())
    return load_adapter(folder)
