"""Data sets as downloaded to `Manifest`: a table of loaders, and a check of a copy against the published counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from vlfer.errors import DataError, did_you_mean
from vlfer.evaluation.datasets import clips, images, posed
from vlfer.evaluation.datasets.base import Dataset
from vlfer.evaluation.manifest import Manifest
from vlfer.evaluation.media import media_file

__all__ = ["DATASETS", "Check", "Dataset", "check_dataset", "find_dataset", "load_dataset"]

DATASETS: dict[str, Dataset] = {row.name: row for row in (*clips.DATASETS, *images.DATASETS, *posed.DATASETS)}


@dataclass(frozen=True, slots=True)
class Check:
    """A copy of a data set against what its authors state.

    Attributes:
        dataset: What was compared with, and how well that is known.
        manifest: What was read.
        counts: Part to published and found number of rows.
        labels: Rows per label.
        missing: Media that are listed and not there.
    """

    dataset: Dataset
    manifest: Manifest
    counts: dict[str, tuple[int, int]]
    labels: dict[str, int]
    missing: tuple[str, ...]

    @property
    def is_complete(self) -> bool:
        """Whether every count agrees and nothing is missing."""
        return not self.missing and all(published == found for published, found in self.counts.values())


def find_dataset(name: str) -> Dataset:
    """Return a data set by name; case, "-", "_" and spaces make no difference, and "+" is "plus".

    Raises:
        DataError: If there is none.
    """
    keys = {_plain(key): row for key, row in DATASETS.items()}
    found = keys.get(_plain(name))
    if found is None:
        raise DataError(
            f"There is no data set called {name!r}.",
            why=f"{did_you_mean(name.casefold(), DATASETS)} Known: {', '.join(DATASETS)}.".strip(),
            fix="vlfer datasets; for your own data: vlfer eval manifest --manifest FILE",
        )
    return found


def load_dataset(name: str, root: str | Path) -> Manifest:
    """Read a data set as downloaded.

    Args:
        name: See `DATASETS`.
        root: Its folder.

    Raises:
        DataError: If there is no such data set, the folder is not one, or a list in it is malformed.
    """
    return find_dataset(name).read(Path(root).expanduser())


def check_dataset(name: str, root: str | Path) -> Check:
    """Compare a copy with the published counts and look for missing media.

    Raises:
        DataError: As `load_dataset`.
    """
    dataset = find_dataset(name)
    manifest = dataset.read(Path(root).expanduser())
    splits = Counter(f"split {row.split}" for row in manifest.rows)
    folds = Counter(f"fold {row.fold}" for row in manifest.rows)
    found = {"all": len(manifest), **splits, **folds}
    files = dict.fromkeys(media_file(row) for row in manifest.rows)
    return Check(
        dataset=dataset,
        manifest=manifest,
        counts={part: (count, found.get(part, 0)) for part, count in dataset.published.items()},
        labels=manifest.label_counts,
        missing=tuple(str(file) for file in files if not file.exists()),
    )


def _plain(name: str) -> str:
    return "".join(ch for ch in name.casefold().replace("+", "plus") if ch.isalnum())
