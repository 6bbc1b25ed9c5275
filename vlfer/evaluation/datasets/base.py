"""What a data set is to vlfer, and the tools that every loader shares."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TextIO

from vlfer.errors import DataError
from vlfer.evaluation.manifest import Manifest, Row

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg"})
_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Dataset:
    """One data set.

    Attributes:
        name: What the command line takes.
        title: What people call it.
        labels: Its shipped label set, or words separated by commas.
        media: What a row is.
        read: Root folder to manifest.
        layout: Files and folders it is known by, for help and errors.
        published: Rows by "all", "split NAME" or "fold NAME", as its authors state them.
        protocol: How figures on it are stated.
        source: Paper.
        verified: What of the above was found again in a second, public source, and in which.
        unverified: What rests on one source only, or on none.
    """

    name: str
    title: str
    labels: str
    media: Literal["image", "video"]
    read: Callable[[Path], Manifest]
    layout: tuple[str, ...]
    protocol: str
    source: str
    verified: str
    unverified: str
    published: Mapping[str, int] = field(default_factory=dict)


def find_one(root: Path, *patterns: str, dataset: str) -> Path:
    """Return the first path under ``root`` that fits a pattern, patterns in order of preference.

    Raises:
        DataError: If none fits; the message says what was looked for and what is there.
    """
    found = find_any(root, *patterns)
    if found is None:
        raise wrong_root(root, looked_for=patterns, dataset=dataset)
    return found


def find_any(root: Path, *patterns: str) -> Path | None:
    """Return the first path under ``root`` that fits a pattern, or None; capitals make no difference."""
    for pattern in patterns:
        matches = sorted(root.glob(_any_case(pattern)))
        if matches:
            return matches[0]
    return None


def _any_case(pattern: str) -> str:
    return "".join(f"[{ch.lower()}{ch.upper()}]" if ch.isalpha() else ch for ch in pattern)


def wrong_root(root: Path, *, looked_for: Iterable[str], dataset: str) -> DataError:
    """Return the error for a folder that is not the root of a data set."""
    wanted = ", ".join(looked_for)
    if not root.is_dir():
        return DataError(
            f"The root {str(root)!r} of {dataset} is not a folder.", why=f"In it was looked for {wanted}.", fix="--root"
        )
    there = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in root.iterdir())
    shown = ", ".join(there[:_SHOWN]) + (f" and {len(there) - _SHOWN} more" if len(there) > _SHOWN else "")
    return DataError(
        f"{str(root)!r} does not look like {dataset}.",
        why=f"Looked for {wanted}; found {shown or 'an empty folder'}.",
        fix=f"give the folder that holds them as --root; vlfer datasets shows the layout of {dataset}",
    )


def read_lines(file: Path, *, encoding: str = "utf-8-sig") -> list[tuple[int, str]]:
    """Return the non-empty lines of a list file with their numbers, stripped; any kind of line end.

    Raises:
        DataError: If it cannot be read in that encoding.
    """
    try:
        text = file.read_bytes().decode(encoding)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The list {str(file)!r} cannot be read as {encoding}: {error}.") from None
    return [(n, line.strip()) for n, line in enumerate(text.splitlines(), start=1) if line.strip()]


@contextmanager
def open_table(file: Path) -> Iterator[TextIO]:
    """Open a CSV list, to be read row by row: some are too large to be held.

    Raises:
        DataError: If what is read of it is no UTF-8, or no table.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            yield stream
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"The list {str(file)!r} cannot be read: {error}.", fix="save it as CSV in UTF-8") from None


def bad_line(file: Path, number: int, line: str, *, expected: str) -> DataError:
    """Return the error for a line of a list file that is not of its form."""
    return DataError(f"Line {number} of {str(file)!r} is {line[:80]!r}.", why=f"Expected {expected}.")


def by_id(ids: Sequence[int], *, names: Sequence[str], first: int, dataset: str) -> list[str]:
    """Return the class names of numeric labels.

    Raises:
        DataError: If an id has no name; the message shows the counts found.
    """
    counts = Counter(ids)
    unknown = [i for i in counts if not first <= i < first + len(names)]
    if unknown:
        found = ", ".join(f"{i}: {counts[i]}" for i in sorted(counts))
        raise DataError(
            f"{dataset} holds the labels {sorted(unknown)}.",
            why=f"Its {len(names)} classes are numbered {first}..{first + len(names) - 1}; counts found: {found}.",
            fix="check that the list belongs to this data set and this set of classes.",
        )
    return [names[i - first] for i in ids]


def class_folder_rows(
    folder: Path, *, suffixes: frozenset[str], split: str = "", subject_of: Callable[[str], str] | None = None
) -> list[Row]:
    """Return a row for each medium in ``folder/<class>/``; a folder of frames inside a class folder is one clip."""
    rows = []
    for class_folder in sorted(p for p in folder.iterdir() if p.is_dir() and not is_debris(p)):
        for entry in sorted(p for p in class_folder.iterdir() if not is_debris(p)):
            is_clip = entry.is_dir() and any(f.suffix.lower() in IMAGE_SUFFIXES for f in entry.iterdir())
            if entry.suffix.lower() in suffixes or is_clip:
                subject = subject_of(entry.stem) if subject_of else ""
                rows.append(Row(str(entry.absolute()), class_folder.name, split=split, subject=subject))
    return rows


def is_debris(path: Path) -> bool:
    """Tell whether a file or folder was left by a file manager or an archiver and is no part of a data set."""
    return path.name.startswith(".") or path.name == "__MACOSX"


def missing_folds(found: Iterable[str], *, expected: int) -> tuple[str, ...]:
    """Return a note where lists of some folds are not there: their mean would not be that of the paper."""
    lacking = sorted({str(k) for k in range(1, expected + 1)} - set(found))
    return (f"the lists of fold {', '.join(lacking)} are missing: figures are over the others",) if lacking else ()


def missing_part(rows: Iterable[Row], *, tested: str) -> tuple[str, ...]:
    """Return a note where the official part that papers test on is not there: other rows would be tested."""
    found = sorted({row.split for row in rows})
    if tested in found:
        return ()
    return (f"there is no part {tested!r}, only {', '.join(found)}: figures are not those of the papers' protocol",)


def split_folders(
    root: Path,
    splits: Mapping[str, Sequence[str]],
    *,
    dataset: str,
    suffixes: frozenset[str],
    subject_of: Callable[[str], str] | None = None,
) -> Manifest:
    """Read ``root/<split>/<class>/<medium>``.

    Args:
        root: The data set.
        splits: Name of the split to the folder names it goes by, in order of preference; "a/b" is b within a. The
            last one is the part that papers test on.
        dataset: Name, for errors.
        suffixes: Of the media.
        subject_of: File stem to subject.

    Raises:
        DataError: If no split folder is there, or all are empty.
    """
    rows: list[Row] = []
    looked_for = [f"{names[0]}/<class>/" for names in splits.values()]
    for split, names in splits.items():
        folder = find_any(root, *(f"{name}/" for name in names))
        if folder is not None:
            rows += class_folder_rows(folder, suffixes=suffixes, split=split, subject_of=subject_of)
    if not rows:
        raise wrong_root(root, looked_for=looked_for, dataset=dataset)
    return Manifest(tuple(rows), name=dataset, origin=str(root), notes=missing_part(rows, tested=list(splits)[-1]))
