"""A class that was never shown: models trained without it, which know it by its words alone."""

from __future__ import annotations

import glob
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vlfer.bench.accuracy import encode_faces, war_uar_of, wilson
from vlfer.bench.faces import Address, FaceSet, class_rows, load_faces
from vlfer.bench.words import prototypes
from vlfer.config import cache_dir
from vlfer.errors import DataError
from vlfer.models.bundled import CARD_NAME, load_bundled, read_card
from vlfer.text.bank import Ensemble, TextBank


def find_models(pattern: str) -> dict[str, Path]:
    """Return the models of a folder pattern by the class that each was trained without; of two, by both.

    Args:
        pattern: Such as ``runs/without-*/model``.

    Raises:
        DataError: If no folder fits, one was trained with every class, or two were trained without the same one.
    """
    folders = sorted(Path(found) for found in glob.glob(str(Path(pattern).expanduser())))
    folders = [folder for folder in folders if (folder / CARD_NAME).is_file()]
    if not folders:
        raise DataError(
            f"No model folder fits {pattern!r}.", fix="vlfer train-backbone CONFIG --set data.leave_out=fear"
        )
    models: dict[str, Path] = {}
    for folder in folders:
        names = left_out(folder)
        if not names:
            raise DataError(f"{folder} was trained with every class.", fix="a pattern of models with data.leave_out")
        for name in names:
            if name in models:
                raise DataError(
                    f"{folder} and {models[name]} were both trained without {name}.", fix="a narrower pattern"
                )
            models[name] = folder
    return models


def left_out(folder: Path) -> tuple[str, ...]:
    """Return the classes that the model of ``folder`` was trained without, as its card says."""
    found = read_card(folder).get("recipe", {}).get("data", {}).get("leave_out") or ()
    return (found,) if isinstance(found, str) else tuple(found)


def leave_out_report(
    models: Mapping[str, Path],
    addresses: Sequence[Address],
    *,
    ensemble: Ensemble = "all",
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Return the recall of each class by the model that never saw it, among all classes of the label set.

    From the archive a model was trained on, every face of the class left out is scored: none of them was seen. Other
    classes are scored on the part held out.

    Args:
        models: Folders by the class left out, see `find_models`.
        addresses: Sets of faces.
        ensemble: Sentences that stand for a label.
        say: Told what is going on.

    Raises:
        DataError: If a set cannot be loaded.
        BackboneError: If a model cannot be loaded.
    """
    rows: list[dict[str, Any]] = []
    for name, folder in models.items():
        encoder = load_bundled(folder)
        bank = TextBank(encoder, cache_dir=cache_dir())
        for address in addresses:
            held_out = load_faces(address, cards=[read_card(folder)], part="held-out")
            if name not in held_out.labels.names:
                continue
            unseen = _unseen(address, held_out, name)
            say(f"Without {name}: {len(unseen)} faces of it in {address.name}")
            vectors = prototypes(bank, held_out.labels, ensemble=ensemble)
            column = held_out.labels.index(name)
            war, uar, confusion = war_uar_of(encode_faces(encoder, held_out).vectors @ vectors.T, held_out.truth)
            row: dict[str, Any] = {
                "class": name, "set": address.name, "folder": str(folder), "n": len(unseen),
                "chance": round(1 / len(held_out.labels), 4), "war": round(war, 4), "uar": round(uar, 4),
                "predicted_share": round(float(confusion[:, column].sum() / confusion.sum()), 4),
            }  # fmt: skip
            if len(unseen):
                predicted = (encode_faces(encoder, unseen).vectors @ vectors.T).argmax(axis=1)
                hits = int((predicted == column).sum())
                counts = np.bincount(predicted, minlength=len(held_out.labels))
                row |= {
                    "recall": round(hits / len(unseen), 4), "interval": wilson(hits, len(unseen)),
                    "sent_to": {n: int(k) for n, k in zip(held_out.labels.names, counts, strict=True) if k},
                }  # fmt: skip
            rows.append(row)
    return {"rows": rows, "mean_recall": _means(rows)}


def _unseen(address: Address, held_out: FaceSet, name: str) -> FaceSet:
    if held_out.has_votes:
        return class_rows(address, name)
    return held_out.take(np.flatnonzero(held_out.truth == held_out.labels.index(name)))


def _means(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the mean recall over classes, for each set."""
    sets = dict.fromkeys(str(row["set"]) for row in rows)
    return {
        name: round(float(np.mean([row["recall"] for row in rows if row["set"] == name and "recall" in row])), 4)
        for name in sets
        if any(row["set"] == name and "recall" in row for row in rows)
    }
