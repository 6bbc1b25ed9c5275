"""The one form that every data set takes: rows of media, label, fold, subject.

A fold is the part in which a row is tested: with five folds, the training part of fold 2 is every row of another fold.
A split is an official division ("train", "val", "test") that is not rotated.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import hashlib
import io
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlfer.errors import DataError, PromptError, did_you_mean
from vlfer.text.labels import load_label_set
from vlfer.types import IntArray, LabelSet

_COMMON = "mafw11"
COLUMNS = ("path", "label", "fold", "subject", "start_s", "end_s", "split", "box")
_REQUIRED = ("path", "label")
_SHOWN_PROBLEMS = 10
_TABLE_ROW = re.compile(r"(\.csv)#\d+$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Row:
    """One sample.

    Attributes:
        path: Image, video, folder of frames, or ``file.csv#17`` for image 17 (from 0) of a FER2013 pixel table.
        label: The class in the data set's own word.
        fold: Name of the fold in which it is tested; empty without folds.
        subject: Who it shows; empty where unknown.
        start_s: Start within a video in seconds, or None.
        end_s: End within a video in seconds, or None.
        split: "train", "val", "test" or another official part; empty without one.
        box: xyxy in pixels of the face that the label is about, or None.
    """

    path: str
    label: str
    fold: str = ""
    subject: str = ""
    start_s: float | None = None
    end_s: float | None = None
    split: str = ""
    box: tuple[float, float, float, float] | None = None

    @property
    def sample(self) -> tuple[object, ...]:
        """What makes two rows the same sample."""
        return (self.path, self.start_s, self.end_s, self.box)

    @property
    def place(self) -> tuple[object, ...]:
        """The sample and the part of the data set that it is in."""
        return (*self.sample, self.fold, self.split)


@dataclass(frozen=True, slots=True)
class Manifest:
    """Rows of one data set, in a fixed order.

    Attributes:
        rows: At least one; no sample has two labels within one fold and split.
        name: Of the data set.
        origin: File or folder it was read from.
        notes: Remarks of the loader that belong in the report ("labels start at 0").
    """

    rows: tuple[Row, ...]
    name: str = "manifest"
    origin: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.rows:
            raise DataError(f"{self.name} from {self.origin or 'memory'} has no rows.", why="There is nothing to do.")
        labels: dict[tuple[object, ...], str] = {}
        torn = [row.path for row in self.rows if labels.setdefault(row.place, row.label) != row.label]
        if torn:
            raise DataError(
                f"{len(torn)} samples of {self.name} have two labels: {_some(torn)}.",
                why="Only one of them can be right.",
                fix="remove the wrong rows, or give start_s and end_s if they are different moments.",
            )

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def folds(self) -> tuple[str, ...]:
        """Names of the folds, sorted, numbers by value; empty without folds."""
        return tuple(sorted({row.fold for row in self.rows if row.fold}, key=_natural))

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits, sorted."""
        return tuple(sorted({row.split for row in self.rows if row.split}))

    @property
    def subjects(self) -> tuple[str, ...]:
        """Names of the subjects, sorted."""
        return tuple(sorted({row.subject for row in self.rows if row.subject}, key=_natural))

    @property
    def repeated(self) -> int:
        """Rows that say again what an earlier one says; they count as often as they occur."""
        return len(self.rows) - len({row.place for row in self.rows})

    @property
    def remarks(self) -> tuple[str, ...]:
        """The notes, and how many rows are repeated."""
        again = f"{self.repeated} rows repeat an earlier one and count again"
        return (*self.notes, again) if self.repeated else self.notes

    @property
    def label_counts(self) -> dict[str, int]:
        """Rows per label as written, most frequent first."""
        return dict(Counter(row.label for row in self.rows).most_common())

    @property
    def sha256(self) -> str:
        """Hash of every row, in order."""
        content = [[getattr(row, column) for column in COLUMNS] for row in self.rows]
        return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()

    def select(self, *, fold: str | None = None, split: str | None = None) -> Manifest:
        """Return the rows of one fold, of one split, or of both.

        Raises:
            DataError: If there is no such fold or split.
        """
        for kind, wanted, known in (("fold", fold, self.folds), ("split", split, self.splits)):
            if wanted is not None and wanted not in known:
                raise DataError(
                    f"{self.name} has no {kind} {wanted!r}.",
                    why=f"It has {', '.join(known)}." if known else f"It has no {kind}s at all.",
                    fix=did_you_mean(wanted, known),
                )
        rows = tuple(r for r in self.rows if fold in (None, r.fold) and split in (None, r.split))
        if not rows:
            raise DataError(
                f"{self.name} has no row in fold {fold!r} and split {split!r}.", why="The two are disjoint."
            )
        return Manifest(rows, name=self.name, origin=self.origin, notes=self.notes)

    def label_indices(self, labels: LabelSet) -> IntArray:
        """Return the class of each row among ``labels``, by name, alias or synonym; (N,) int64.

        Words that the user chose for the eleven common classes are found too: rows of "happiness" belong to "joyful",
        if no other of the labels means the same.

        Raises:
            DataError: If a label means none of them; the message shows the counts found.
        """
        meaning: dict[str, int] = {}
        unknown: dict[str, int] = {}
        doubled = ""
        for label, count in self.label_counts.items():
            try:
                meaning[label] = labels.index(label)
            except PromptError:
                same = _of_same_meaning(label, labels)
                if len(same) == 1:
                    meaning[label] = same.pop()
                else:
                    unknown[label] = count
                if len(same) > 1:
                    words = " and ".join(repr(labels.names[i]) for i in sorted(same))
                    doubled += f" {words} mean {label!r} alike."
        if unknown:
            raise DataError(
                f"{sum(unknown.values())} of {len(self)} rows of {self.name} carry labels that {labels.name!r} lacks: "
                f"{_counts(unknown)}.",
                why=f"Found {_counts(self.label_counts)}; {labels.name!r} holds {', '.join(labels.names)}.{doubled}",
                fix="give the label set of this data with --labels, or add the word as an alias.",
            )
        return np.array([meaning[row.label] for row in self.rows], dtype=np.int64)


def _of_same_meaning(label: str, labels: LabelSet) -> set[int]:
    """Return the places of those labels that are words for the same common class as ``label``."""
    common = load_label_set(_COMMON)
    found: set[int] = set()
    with contextlib.suppress(PromptError):
        known = common.labels[common.index(label)]
        for word in (known.name, *known.aliases, *known.synonyms):
            with contextlib.suppress(PromptError):
                found.add(labels.index(word))
    return found


def load_manifest(source: str | Path, *, root: str | Path | None = None) -> Manifest:
    """Read a manifest: CSV (comma, semicolon or tab) in UTF-8 or UTF-16 with a header.

    Columns are ``path,label`` and optionally ``fold,subject,start_s,end_s,split,box`` (box: four numbers, x0 y0 x1 y1
    in pixels, separated by spaces). Other columns are ignored and named in the notes. A relative path is resolved
    against ``root``, or else against the folder of the manifest; if nothing is there but something is in the current
    folder, against that one. A row that repeats another one is kept, see `Manifest.repeated`.

    Args:
        source: The file.
        root: Folder of the media.

    Returns:
        The rows, with absolute paths.

    Raises:
        DataError: If the file is missing, is not a table, lacks a column, or holds empty labels, wrong numbers or two
            labels of one sample. All problems are told at once, with line numbers.
    """
    path = Path(source).expanduser()
    base = Path(root).expanduser() if root is not None else path.parent
    if root is not None and not base.is_dir():
        raise DataError(
            f"The folder {str(base)!r} of the media does not exist.", fix="give an existing folder as --root"
        )
    header, lines = _read_table(path)
    places = _find_columns(path, header)
    notes: list[str] = []
    if root is None and _is_elsewhere(
        [cells[places["path"]] for _, cells in lines if len(cells) > places["path"]], base
    ):
        base = Path.cwd()
        notes.append(f"paths are relative to the current folder, {base}")
    rows: list[Row] = []
    problems: list[str] = []
    first: dict[tuple[object, ...], tuple[int, str]] = {}
    for number, cells in lines:
        try:
            row = _parse_row(cells, places, base=base.absolute(), width=len(header))
        except ValueError as error:
            problems.append(f"line {number}: {error}")
            continue
        earlier, label = first.setdefault(row.place, (number, row.label))
        if label != row.label:
            problems.append(f"line {number} labels {row.path} {row.label!r}, line {earlier} {label!r}")
        rows.append(row)
    if problems:
        raise DataError(
            f"The manifest {str(path)!r} has {len(problems)} wrong rows: {_some(problems, joiner='; ')}.",
            why="A wrong row would change the figures silently.",
            fix="correct or remove those lines.",
        )
    if not rows:
        raise DataError(f"The manifest {str(path)!r} has a header and no rows.", why="There is nothing to evaluate.")
    ignored = [name for name in header if name not in COLUMNS]
    notes += [f"columns ignored: {', '.join(ignored)}"] if ignored else []
    return Manifest(tuple(rows), name=path.stem, origin=str(path.absolute()), notes=tuple(notes))


def save_manifest(manifest: Manifest, target: str | Path) -> None:
    """Write a manifest as CSV that `load_manifest` reads back to the same rows."""
    with Path(target).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for row in manifest.rows:
            values = [getattr(row, column) for column in COLUMNS[:-1]]
            box = "" if row.box is None else " ".join(repr(v) for v in row.box)
            writer.writerow(["" if v is None else v for v in values] + [box])


def _read_table(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the folded header and the non-empty lines with their numbers."""
    try:
        content = path.read_bytes()
        text = content.decode(
            "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
        )
    except FileNotFoundError:
        near = did_you_mean(path.name, [p.name for p in path.parent.glob("*")] if path.parent.is_dir() else [])
        raise DataError(f"The manifest {str(path)!r} does not exist.", why=near, fix="check --manifest") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"The manifest {str(path)!r} cannot be read: {error}.", fix="a CSV file in UTF-8 with the header path,label"
        ) from None
    if not text.strip():
        raise DataError(f"The manifest {str(path)!r} is empty.", fix="a CSV file with the header path,label")
    delimiter = max(",;\t", key=text.lstrip().splitlines()[0].count)
    reader = csv.reader(io.StringIO(text, newline=None), delimiter=delimiter, skipinitialspace=True)
    try:
        header = next([cell.strip().casefold() for cell in cells] for cells in reader if any(cells))
        body = [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        raise DataError(
            f"The manifest {str(path)!r} is not a table: line {reader.line_num}: {error}.", fix="a CSV file in UTF-8"
        ) from None
    return header, body


def _find_columns(path: Path, header: Sequence[str]) -> dict[str, int]:
    missing = [name for name in _REQUIRED if name not in header]
    if missing:
        near = " ".join(filter(None, (did_you_mean(name, header) for name in missing)))
        if len(missing) == len(_REQUIRED) and any("." in cell or "/" in cell for cell in header):
            near = "It looks like a row: the first line names the columns."
        raise DataError(
            f"The manifest {str(path)!r} lacks the column {' and '.join(map(repr, missing))}.",
            why=f"Its header is {', '.join(header)}. {near}".strip(),
            fix="name the columns path,label[,fold][,subject][,start_s,end_s][,split][,box]",
        )
    repeated = [name for name, count in Counter(header).items() if count > 1 and name in COLUMNS]
    if repeated:
        raise DataError(f"The manifest {str(path)!r} has the column {repeated[0]!r} twice.", why="Which one counts?")
    return {name: header.index(name) for name in COLUMNS if name in header}


def _is_elsewhere(paths: Sequence[str], base: Path) -> bool:
    """Tell whether no medium is below ``base`` and one is below the current folder, as scripts often write paths."""
    if base.absolute() == Path.cwd():
        return False
    files = [_TABLE_ROW.sub(r"\1", path.strip()) for path in paths]
    relative = [file for file in files if file and not Path(file).is_absolute() and not file.startswith("~")]
    return not any(_exists(base / file) for file in relative) and any(_exists(Path(file)) for file in relative)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that is too long, a null byte
        return False


def _parse_row(cells: Sequence[str], places: dict[str, int], *, base: Path, width: int) -> Row:
    """Return one row.

    Raises:
        ValueError: In words that fit behind a line number.
    """
    if len(cells) > width:
        raise ValueError(f"{len(cells)} cells under {width} columns; quote a path that holds the separator")
    value = {name: cells[i].strip() if i < len(cells) else "" for name, i in places.items()}
    for name in _REQUIRED:
        if not value[name]:
            raise ValueError(f"the {name} is empty")
    start, end = (_seconds(name, value.get(name, "")) for name in ("start_s", "end_s"))
    if start is not None and end is not None and end <= start:
        raise ValueError(f"end_s {end:g} is not after start_s {start:g}")
    return Row(
        path=str(_locate(value["path"], base)),
        label=value["label"],
        fold=value.get("fold", ""),
        subject=value.get("subject", ""),
        start_s=start,
        end_s=end,
        split=value.get("split", ""),
        box=_box(value.get("box", "")),
    )


def _locate(path: str, base: Path) -> Path:
    """Return where a path of a manifest leads; one written on Windows has backslashes."""
    place = base / Path(path).expanduser()
    return base / path.replace("\\", "/") if "\\" in path and not _exists(place) else place


def _seconds(name: str, text: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{name} is {text!r}, not a number of seconds") from None
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{name} is {text!r}, not a time from 0 on")
    return value


def _box(text: str) -> tuple[float, float, float, float] | None:
    if not text:
        return None
    try:
        x0, y0, x1, y1 = (float(part) for part in text.split())
    except ValueError:
        raise ValueError(f"box is {text!r}, not four numbers x0 y0 x1 y1") from None
    if not (x1 > x0 and y1 > y0):
        raise ValueError(f"box {text!r} has no area")
    return x0, y0, x1, y1


def _natural(name: str) -> tuple[int, float, str]:
    """Order names: numbers by value, then words."""
    try:
        return (0, float(name), name)
    except ValueError:
        return (1, 0.0, name)


def _counts(counts: dict[str, int]) -> str:
    return _some([f"{label} {count}" for label, count in counts.items()], limit=60)


def _some(items: Iterable[str], *, limit: int = _SHOWN_PROBLEMS, joiner: str = ", ") -> str:
    listed = list(items)
    rest = f"{joiner}and {len(listed) - limit} more" if len(listed) > limit else ""
    return joiner.join(listed[:limit]) + rest
