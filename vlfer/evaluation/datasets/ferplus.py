"""FER2013 and its second annotation FER+: the same 35,887 pictures, named by their place in the table."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from vlfer.errors import DataError
from vlfer.evaluation.datasets.base import (
    IMAGE_SUFFIXES,
    bad_line,
    by_id,
    find_any,
    find_one,
    missing_part,
    open_table,
    split_folders,
    wrong_root,
)
from vlfer.evaluation.manifest import Manifest, Row

FER2013_CLASSES = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
FERPLUS_CLASSES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
_SPLITS = {"training": "train", "publictest": "val", "privatetest": "test"}
_FOLDERS = {"train": "FER2013Train", "val": "FER2013Valid", "test": "FER2013Test"}
_TABLES = ("fer2013.csv", "*/fer2013.csv", "icml_face_data.csv", "*/icml_face_data.csv")
_N_VOTE_COLUMNS = 10


def read_fer2013(root: Path) -> Manifest:
    """Read FER2013: ``fer2013.csv`` or ``icml_face_data.csv`` (emotion,pixels,Usage in any order), or class folders.

    PublicTest is "val", PrivateTest "test". The class-folder copy calls both together "test" (7,178 images).
    """
    file = find_any(root, *_TABLES)
    if file is None:
        splits = {"train": ("train",), "val": ("val", "validation"), "test": ("test",)}
        try:
            return split_folders(root, splits, dataset="FER2013", suffixes=IMAGE_SUFFIXES)
        except DataError:
            raise wrong_root(root, looked_for=("fer2013.csv", "{train,test}/<class>/*"), dataset="FER2013") from None
    ids: list[int] = []
    parts: list[str] = []
    for number, emotion, usage in _table_columns(file):
        if not emotion.isdigit():
            raise bad_line(file, number, emotion, expected="a number from 0 to 6 as emotion")
        ids.append(int(emotion))
        parts.append(_split(usage, file=file, number=number))
    names = by_id(ids, names=FER2013_CLASSES, first=0, dataset="FER2013")
    address = str(file.absolute())
    rows = tuple(
        Row(f"{address}#{i}", name, split=split) for i, (name, split) in enumerate(zip(names, parts, strict=True))
    )
    return Manifest(rows, name="FER2013", origin=str(root))


def read_ferplus(root: Path) -> Manifest:
    """Read FER+: ``fer2013new.csv`` with the votes, beside ``fer2013.csv`` or the folders of its images.

    The label is the majority of votes by the rule of the paper's code, see `majority`. Pictures without one are left
    out (3,137 of the test part stay).
    """
    file = find_one(root, "fer2013new.csv", "*/fer2013new.csv", dataset="FERPlus")
    table = find_any(root, *_TABLES)
    folders = {split: find_any(root, name, f"*/{name}", f"*/*/{name}") for split, name in _FOLDERS.items()}
    if table is None and not any(folders.values()):
        raise wrong_root(root, looked_for=("fer2013.csv", "FER2013{Train,Valid,Test}/"), dataset="FERPlus")
    rows: list[Row] = []
    dropped = 0
    with open_table(file) as stream:
        reader = csv.reader(stream)
        header = [cell.strip().casefold() for cell in next(reader, [])]
        if header[2 : 2 + len(FERPLUS_CLASSES)] != list(FERPLUS_CLASSES):
            raise DataError(
                f"The header of {str(file)!r} is {', '.join(header)}.",
                why=f"Expected Usage, Image name, {', '.join(FERPLUS_CLASSES)}, unknown, NF.",
            )
        for place, cells in enumerate(reader):
            votes = cells[2 : 2 + _N_VOTE_COLUMNS]
            if len(votes) != _N_VOTE_COLUMNS or not all(vote.strip().isdigit() for vote in votes):
                raise bad_line(file, reader.line_num, ",".join(cells), expected="ten counts of votes")
            split, winner = _split(cells[0], file=file, number=reader.line_num), majority([int(v) for v in votes])
            folder = folders[split]
            if winner is None or (table is None and (folder is None or not cells[1].strip())):
                dropped += 1
                continue
            address = (
                f"{table.absolute()}#{place}" if table is not None else str(Path(str(folder), cells[1]).absolute())
            )
            rows.append(Row(address, winner, split=split))
    if not rows:
        raise DataError(f"No picture of {str(file)!r} has a majority.", why=f"{dropped} rows were read.")
    note = f"{dropped} pictures without a majority or without an image left out"
    return Manifest(tuple(rows), name="FERPlus", origin=str(root), notes=(note, *missing_part(rows, tested="test")))


def majority(votes: Sequence[int]) -> str | None:
    """Return the class that most annotators chose, or None.

    The rule of the code that came with Barsoum et al. (github.com/microsoft/FERPlus, mode "majority"): single votes
    are taken for slips and zeroed, the winner needs more than half of what is left, and "unknown" and "NF" (no face)
    are no classes.

    Args:
        votes: Ten counts: the eight classes, unknown, no face.
    """
    kept = [vote if vote > 1 else 0 for vote in votes]
    most = max(kept)
    winner = kept.index(most)
    return FERPLUS_CLASSES[winner] if 2 * most > sum(kept) and winner < len(FERPLUS_CLASSES) else None


def _table_columns(file: Path) -> list[tuple[int, str, str]]:
    """Return line number, emotion and usage of each row of a pixel table, whose pixel cell is not parsed here."""
    with open_table(file) as stream:
        reader = csv.reader(stream)
        header = [cell.strip().casefold() for cell in next(reader, [])]
        if not {"emotion", "pixels", "usage"} <= set(header):
            raise DataError(
                f"The header of {str(file)!r} is {', '.join(header)}.", why="Expected emotion,pixels,Usage."
            )
        emotion, usage = header.index("emotion"), header.index("usage")
        rows = []
        for cells in reader:
            if len(cells) != len(header):
                raise bad_line(file, reader.line_num, ",".join(cells), expected=f"{len(header)} cells")
            rows.append((reader.line_num, cells[emotion].strip(), cells[usage].strip()))
        return rows


def _split(usage: str, *, file: Path, number: int) -> str:
    split = _SPLITS.get(usage.strip().casefold())
    if split is None:
        raise bad_line(file, number, usage, expected="Training, PublicTest or PrivateTest as usage")
    return split
