"""Read a prompt file: YAML checked against a schema, ``from:`` resolved. ``prompts/README.md`` tells the format."""

from __future__ import annotations

import itertools
import math
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from vlfer.config import resource_dir
from vlfer.errors import PromptError, did_you_mean
from vlfer.types import Label, fold_label

MAX_WORDS = 60
"""Longest label or sentence in words: CLIP reads 77 tokens and would cut the rest without a word."""
MAX_CHARS = 500

_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_CHARS)]
_Unit = Annotated[str, StringConstraints(pattern=r"^(AU|L|R)\d{1,2}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class LabelOrder(_Strict):
    """How one data set numbers the labels of a set.

    Attributes:
        base: Number of the first name.
        names: Every name of the set once, in the order of the numbers.
        note: Where the order is used.
    """

    base: int = Field(ge=0)
    names: list[_Text]
    note: str = ""

    def name(self, number: int) -> str:
        """Return the name that ``number`` stands for.

        Raises:
            PromptError: If the number is outside the order.
        """
        if not self.base <= number < self.base + len(self.names):
            raise PromptError(
                f"The label number {number} is outside {self.base}..{self.base + len(self.names) - 1}.",
                why=f"The order is {', '.join(self.names)}, counted from {self.base}.",
            )
        return self.names[number - self.base]


class Origin(_Strict):
    """Who wrote the words of a prompt file, and how."""

    author: _Text
    written: str = ""
    instructions: str = ""
    checked: str = ""
    sources: list[str] = Field(default_factory=list)
    generated: dict[str, str] = Field(default_factory=dict)

    def text(self) -> str:
        """Return the origin as one line."""
        named = (
            ("Written by", self.author),
            ("Written", self.written),
            ("Instructions:", self.instructions),
            ("Checked:", self.checked),
            ("Sources:", "; ".join(self.sources)),
            ("Generated with", ", ".join(f"{key} {value}" for key, value in self.generated.items())),
        )
        return " ".join(f"{head} {' '.join(body.split()).rstrip('.')}." for head, body in named if body)


class LabelEntry(_Strict):
    """One label as written in the file; a key that is absent is inherited through ``from``."""

    name: _Text
    source: _Text | None = Field(default=None, alias="from")
    synonyms: list[_Text] | None = None
    aliases: list[_Text] | None = None
    action_units: list[_Unit] | None = None
    descriptors: list[_Text] | None = None
    negatives: list[_Text] | None = None
    parts: list[_Text] | None = None
    definition: _Text | None = None
    dynamics: list[_Text] | None = None
    weights: list[float] | None = None

    @field_validator("name", "synonyms", "aliases", "descriptors", "negatives", "definition", "dynamics")
    @classmethod
    def _not_too_long(cls, value: str | list[str] | None) -> str | list[str] | None:
        for text in [value] if isinstance(value, str) else value or []:
            if len(text.split()) > MAX_WORDS:
                raise ValueError(f"{text[:40]!r}... has {len(text.split())} words, more than {MAX_WORDS}")
        return value

    @model_validator(mode="after")
    def _one_weight_a_descriptor(self) -> LabelEntry:
        if self.weights is not None:
            if len(self.weights) != len(self.descriptors or []):
                raise ValueError(f"{len(self.weights)} weights for {len(self.descriptors or [])} descriptors")
            if any(not 0 <= weight < math.inf for weight in self.weights) or not any(self.weights):
                raise ValueError("weights are numbers from 0 upwards, not all 0")
        return self


class PromptFile(_Strict):
    """The content of one prompt file."""

    name: _Text
    title: str = ""
    kind: Literal["set", "library"] = "set"
    origin: Origin | None = None
    labels: list[LabelEntry] = Field(min_length=1)
    orders: dict[str, LabelOrder] = Field(default_factory=dict)

    @field_validator("origin", mode="before")
    @classmethod
    def _plain_origin(cls, value: Any) -> Any:
        return {"author": value} if isinstance(value, str) else value

    @field_validator("labels", mode="before")
    @classmethod
    def _plain_names(cls, value: Any) -> Any:
        return (
            [item if isinstance(item, dict) else {"name": item} for item in value] if isinstance(value, list) else value
        )


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice; plain YAML would keep the last one silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            if isinstance(key, str):
                seen.add(key)
        return super().construct_mapping(node, deep=deep)


def read_prompt_file(path: Path) -> PromptFile:
    """Read and check one prompt file, without resolving ``from:``.

    Args:
        path: A YAML file.

    Raises:
        PromptError: If the file is missing, unreadable, not YAML, or breaks the schema; every mistake is told at once.
    """
    content = _parse_yaml(_read_text(path), path)
    if not isinstance(content, dict):
        kind = "empty" if content is None else f"a {type(content).__name__}"
        raise PromptError(
            f"{str(path)!r} is {kind}, not a prompt file.",
            why="A prompt file is a mapping with the keys name and labels.",
            fix='name: mine\nlabels: ["awe", "polite smile"]',
        )
    try:
        file = PromptFile.model_validate(content)
    except ValidationError as error:
        raise PromptError(
            f"{str(path)!r} breaks the format of prompt files:",
            why="; ".join(_explain(problem, content) for problem in error.errors()) + ".",
            fix="compare with prompts/README.md.",
        ) from error
    _check_names(file, path)
    return file


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        near = did_you_mean(path.name, [p.name for p in path.parent.glob("*.y*ml")]) if path.parent.is_dir() else ""
        raise PromptError(f"There is no prompt file {str(path)!r}.", why=near, fix="vlfer labels") from error
    except OSError as error:
        raise PromptError(f"The prompt file {str(path)!r} cannot be read.", why=f"{error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise PromptError(
            f"{str(path)!r} is not a text file.", why="A prompt file is YAML in UTF-8.", fix="save it as UTF-8."
        ) from error
    except ValueError as error:  # a null byte in the path
        raise PromptError(f"{str(path)!r} is not the path of a file.", why=f"{error}.") from error


def _parse_yaml(text: str, path: Path) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise PromptError(
            f"{str(path)!r} is not valid YAML.",
            why=" ".join(str(error).split()),
            fix="put a sentence that holds a colon or begins with a quote in double quotes.",
        ) from error


def _explain(problem: Any, content: dict[Any, Any]) -> str:
    """Return one schema mistake with the label and the key it sits in."""
    loc = list(problem["loc"])
    model: type[BaseModel] = PromptFile
    where = ""
    if loc[0] == "labels" and len(loc) > 1:
        model = LabelEntry
        entry = content["labels"][loc[1]]
        name = entry.get("name") if isinstance(entry, dict) else None
        where = f"label {name!r}" if isinstance(name, str) else f"label {loc[1] + 1}"
        loc = loc[2:]
    elif loc[0] == "orders" and len(loc) > 1:
        model = LabelOrder
        where = f"order {loc[1]!r}"
        loc = loc[2:]
    key = "".join(f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")
    place = ", ".join(part for part in (where, f"key {key!r}" if key else "") if part)
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        known = [field.alias or name for name, field in model.model_fields.items()]
        message = f"unknown key. {did_you_mean(str(loc[-1]), known) or 'Known are ' + ', '.join(known)}".rstrip(".")
    return f"{place}: {message}"


def _check_names(file: PromptFile, path: Path) -> None:
    """Raise PromptError for a name that is empty or given twice, or an order that is no permutation of the names."""
    seen: dict[str, str] = {}
    for entry in file.labels:
        key = fold_label(entry.name)
        if not any(ch.isalpha() for ch in key):
            raise PromptError(f"{str(path)!r}: the label {entry.name!r} holds no letter.", fix="write it as a word.")
        if key in seen:
            raise PromptError(
                f"{str(path)!r}: the label {entry.name!r} is given twice.",
                why=f"Case, '-' and '_' make no difference, so it equals {seen[key]!r}.",
            )
        seen[key] = entry.name
    names = sorted(entry.name for entry in file.labels)
    for variant, order in file.orders.items():
        if sorted(order.names) != names:
            missing = sorted(set(names) - set(order.names))
            extra = sorted(set(order.names) - set(names))
            raise PromptError(
                f"{str(path)!r}: order {variant!r} is not an order of the labels.",
                why=f"Missing: {missing}; not a label: {extra}; {len(order.names)} names for {len(names)} labels.",
            )


@lru_cache(maxsize=64)
def shipped_file(name: str) -> PromptFile:
    """Return the shipped prompt file called ``name``, read once per process."""
    return read_prompt_file(resource_dir("prompts") / f"{name}.yaml")


def resolve_labels(file: PromptFile, path: Path) -> tuple[Label, ...]:
    """Return the labels of ``file`` with everything inherited through ``from:`` filled in.

    Written keys replace inherited ones, except ``aliases``, which are added. A word that is only inherited yields
    to a label of this file that is called so or claims the word itself.

    Raises:
        PromptError: If ``from`` names an unknown label or goes in a circle, a part is unknown, or two labels claim
            one alias or synonym.
    """
    inherited = [_inherited(entry, path, ()) for entry in file.labels]
    claimed: dict[str, str] = {fold_label(entry.name): entry.name for entry in file.labels}
    for words in ("aliases", "synonyms"):
        for entry in file.labels:
            for word in getattr(entry, words) or []:
                owner = claimed.setdefault(fold_label(word), entry.name)
                if owner != entry.name:
                    raise PromptError(
                        f"{str(path)!r}: label {entry.name!r}, key {words!r}: {word!r} already means {owner!r}.",
                        why="A word can mean one label of a set only.",
                        fix=f"remove {word!r} from one of the two.",
                    )
    labels = []
    for entry, base in zip(file.labels, inherited, strict=True):
        labels.append(_merge(entry, base, claimed))
    _check_parts(labels, path)
    return tuple(labels)


def _merge(entry: LabelEntry, base: Label | None, claimed: dict[str, str]) -> Label:
    def own(word: str) -> bool:
        return claimed.get(fold_label(word), entry.name) == entry.name and fold_label(word) != fold_label(entry.name)

    def pick(key: str) -> tuple[str, ...]:
        written = getattr(entry, key)
        return tuple(written) if written is not None else getattr(base, key, ())

    parts = pick("parts")
    aliases = [*(entry.aliases or []), *(base.aliases if base else ()), *([base.name] if base else [])]
    aliases += ["_".join(order) for order in itertools.permutations(parts)] if len(parts) > 1 else []
    distinct = {fold_label(word): word for word in reversed(aliases) if own(word)}
    synonyms = tuple(word for word in pick("synonyms") if own(word))
    return Label(
        name=entry.name,
        descriptors=pick("descriptors"),
        synonyms=synonyms,
        negatives=pick("negatives"),
        aliases=tuple(reversed(distinct.values())),
        action_units=pick("action_units"),
        parts=parts,
        definition=entry.definition if entry.definition is not None else getattr(base, "definition", ""),
        dynamics=pick("dynamics"),
        weights=_weights(entry, base),
    )


def _weights(entry: LabelEntry, base: Label | None) -> tuple[float, ...]:
    """Return weights with the descriptors they were measured on, and none with others."""
    if entry.weights is not None:
        return tuple(entry.weights)
    return base.weights if base is not None and entry.descriptors is None else ()


def _inherited(entry: LabelEntry, path: Path, trail: tuple[str, ...]) -> Label | None:
    """Return the label that ``entry.source`` ("file/label") names, resolved; None without a source."""
    if entry.source is None:
        return None
    spot = f"{str(path)!r}: label {entry.name!r}, key 'from': {entry.source!r}"
    if entry.source in trail:
        raise PromptError(f"{spot} goes in a circle.", why=" -> ".join((*trail, entry.source)))
    file_name, _, label_name = entry.source.partition("/")
    folder = resource_dir("prompts")
    known = sorted(p.stem for p in folder.glob("*.yaml"))
    if file_name not in known or not label_name:
        raise PromptError(
            f"{spot} is not a shipped label.",
            why=f"Write file/label; the files are {', '.join(known)}. {did_you_mean(file_name, known)}".strip(),
        )
    source = shipped_file(file_name)
    found = next((item for item in source.labels if fold_label(item.name) == fold_label(label_name)), None)
    if found is None:
        names = [item.name for item in source.labels]
        raise PromptError(
            f"{spot} is not a shipped label.",
            why=did_you_mean(label_name, names) or f"{file_name} holds {', '.join(names)}.",
        )
    return _merge(found, _inherited(found, path, (*trail, entry.source)), {})


def _check_parts(labels: list[Label], path: Path) -> None:
    basic = {fold_label(item.name) for item in shipped_file("basic").labels} if any(x.parts for x in labels) else set()
    known = basic | {fold_label(label.name) for label in labels}
    for label in labels:
        for part in label.parts:
            if fold_label(part) not in known:
                raise PromptError(
                    f"{str(path)!r}: label {label.name!r}, key 'parts': {part!r} is not a known label.",
                    why="A part is a label of the same file or of the library 'basic'.",
                )
