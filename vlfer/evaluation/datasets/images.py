"""Static expression data sets in the wild: RAF-DB, AffectNet, FERPlus, FER2013, CAER-S, SFEW, ExpW."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from vlfer.errors import DataError
from vlfer.evaluation.datasets.base import (
    IMAGE_SUFFIXES,
    Dataset,
    bad_line,
    by_id,
    find_any,
    find_one,
    missing_part,
    open_table,
    read_lines,
    split_folders,
    wrong_root,
)
from vlfer.evaluation.datasets.ferplus import read_fer2013, read_ferplus
from vlfer.evaluation.manifest import Manifest, Row

RAFDB_CLASSES = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")
RAFDB_COMPOUND = (
    "happily surprised", "happily disgusted", "sadly fearful", "sadly angry", "sadly surprised", "sadly disgusted",
    "fearfully angry", "fearfully surprised", "angrily surprised", "angrily disgusted", "disgustedly surprised",
)  # fmt: skip
AFFECTNET_CLASSES = ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt")
EXPW_CLASSES = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")


def read_rafdb(root: Path, *, kind: Literal["basic", "compound"]) -> Manifest:
    """Read RAF-DB: ``{basic,compound}/EmoLabel/list_patition_label.txt`` (so spelled), lines ``train_00001.jpg 5``.

    Aligned images (``<name>_aligned.jpg``) are preferred to the original ones. Copies sorted into
    ``{train,test}/{1..7}/`` are read too.
    """
    dataset = f"RAF-DB ({kind})"
    classes = RAFDB_CLASSES if kind == "basic" else RAFDB_COMPOUND
    stem = "EmoLabel/list_pa*tition_label.txt"
    file = find_any(root, f"{kind}/{stem}", stem, "list_pa*tition_label.txt")
    if file is None:
        return _numbered_folders(
            root, classes=classes, dataset=dataset, also=f"{kind}/EmoLabel/list_patition_label.txt", tested="test"
        )
    home = file.parent.parent if file.parent.name == "EmoLabel" else root
    images = find_one(home, "Image/aligned", "Image/original", "aligned", "original", dataset=dataset)
    ids, names = [], []
    for number, line in read_lines(file):
        parts = line.split()
        if len(parts) != 2 or not parts[1].isdigit():
            raise bad_line(file, number, line, expected="an image and a number, as in 'train_00001.jpg 5'")
        names.append(parts[0])
        ids.append(int(parts[1]))
    if not ids:
        raise DataError(f"The list {str(file)!r} is empty.", why="RAF-DB lists every image in it.")
    labels = by_id(ids, names=classes, first=1, dataset=dataset)
    aligned = images.name == "aligned"
    rows = tuple(
        Row(
            str((images / (f"{Path(name).stem}_aligned.jpg" if aligned else name)).absolute()),
            label,
            split=name.partition("_")[0],
        )
        for name, label in zip(names, labels, strict=True)
    )
    return Manifest(
        rows, name=dataset, origin=str(root), notes=(f"{images.name} images", *missing_part(rows, tested="test"))
    )


def _numbered_folders(
    root: Path, *, classes: Sequence[str], dataset: str, also: str, tested: str, first: int = 1
) -> Manifest:
    """Read ``{train,val,test}/<id>/<image>``; ids become names.

    Raises:
        DataError: If there are no such folders.
    """
    found: list[tuple[Path, str, int]] = []
    for split, folder_names in {
        "train": ("train", "train_set"),
        "val": ("val", "valid", "val_set"),
        "test": ("test",),
    }.items():
        folder = find_any(root, *folder_names, *(f"DATASET/{name}" for name in folder_names))
        if folder is not None:
            for class_folder in sorted(p for p in folder.iterdir() if p.is_dir() and p.name.isdigit()):
                images = sorted(p for p in class_folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
                found += [(image, split, int(class_folder.name)) for image in images]
    if not found:
        raise wrong_root(root, looked_for=(also, f"{{train,val,test}}/{{{first}..}}/*.jpg"), dataset=dataset)
    labels = by_id([label for _, _, label in found], names=classes, first=first, dataset=dataset)
    rows = tuple(
        Row(str(image.absolute()), label, split=split) for (image, split, _), label in zip(found, labels, strict=True)
    )
    notes = ("read from numbered class folders", *missing_part(rows, tested=tested))
    return Manifest(rows, name=dataset, origin=str(root), notes=notes)


def read_affectnet(root: Path, *, n_classes: Literal[7, 8]) -> Manifest:
    """Read AffectNet: ``{val,train}_set/images/<id>.jpg`` with ``annotations/<id>_exp.npy``, or the older CSV lists.

    The CSV lists (``validation.csv``, ``training.csv``) name images under ``Manually_Annotated_Images``; expressions
    8 to 10 (none, uncertain, no face) are left out, as everybody does, and so is contempt with 7 classes. Numbered
    class folders are read too. Results are on the validation part.
    """
    dataset = f"AffectNet-{n_classes}"
    entries = list(_affectnet_npy(root)) or list(_affectnet_csv(root))
    if not entries:
        whole = _numbered_folders(
            root, classes=AFFECTNET_CLASSES, dataset=dataset, also="val_set/annotations/<id>_exp.npy", tested="val",
            first=0,
        )  # fmt: skip
        kept = tuple(row for row in whole.rows if n_classes == 8 or row.label != "contempt")
        return Manifest(kept, name=dataset, origin=str(root), notes=whole.notes)
    wanted = [(image, split, label) for image, split, label in entries if label not in (8, 9, 10)]
    names = by_id([label for _, _, label in wanted], names=AFFECTNET_CLASSES, first=0, dataset=dataset)
    rows = tuple(
        Row(str(image.absolute()), name, split=split)
        for (image, split, _), name in zip(wanted, names, strict=True)
        if n_classes == 8 or name != "contempt"
    )
    left_out = len(entries) - len(rows)
    notes = (f"{left_out} images of other classes left out", *missing_part(rows, tested="val"))
    return Manifest(rows, name=dataset, origin=str(root), notes=notes)


def _affectnet_npy(root: Path) -> Iterator[tuple[Path, str, int]]:
    import numpy as np

    for split, folder_name in (("val", "val_set"), ("train", "train_set")):
        folder = find_any(root, folder_name, f"*/{folder_name}")
        if folder is None or not (folder / "annotations").is_dir():
            continue
        for file in sorted((folder / "annotations").glob("*_exp.npy")):
            stem = file.stem.removesuffix("_exp")
            try:
                label = int(np.load(file, allow_pickle=False).item())
            except OSError as error:
                raise DataError(f"The annotation {str(file)!r} cannot be read: {error}.") from None
            except (EOFError, ValueError):
                raise DataError(
                    f"The annotation {str(file)!r} is broken.",
                    why="Expected one number as NumPy saves it.",
                    fix="copy it again",
                ) from None
            yield folder / "images" / f"{stem}.jpg", split, label


def _affectnet_csv(root: Path) -> Iterator[tuple[Path, str, int]]:
    name = "Manually_Annotated_Images"
    images = find_any(root, name, f"*/{name}", f"*/*/{name}", "images")
    for split, name in (("val", "validation.csv"), ("train", "training.csv")):
        file = find_any(root, name, f"*/{name}")
        if file is None:
            continue
        if images is None:
            raise wrong_root(root, looked_for=("Manually_Annotated_Images",), dataset="AffectNet")
        with open_table(file) as stream:
            reader = csv.DictReader(stream)
            if not {"subDirectory_filePath", "expression"} <= set(reader.fieldnames or ()):
                raise DataError(
                    f"The list {str(file)!r} has the header {', '.join(reader.fieldnames or ())}.",
                    why="Expected the columns subDirectory_filePath and expression.",
                )
            for record in reader:
                expression = (record["expression"] or "").strip()
                if not expression.isdigit():
                    raise bad_line(file, reader.line_num, expression, expected="a number from 0 to 10 as expression")
                yield images / record["subDirectory_filePath"], split, int(expression)


def read_caer_s(root: Path) -> Manifest:
    """Read CAER-S: ``{train,test}/<class>/<image>.png``."""
    inside = find_any(root, "CAER-S") or root
    splits = {"train": ("train",), "test": ("test",)}
    return split_folders(inside, splits, dataset="CAER-S", suffixes=IMAGE_SUFFIXES)


def read_sfew(root: Path) -> Manifest:
    """Read SFEW 2.0: ``{Train,Val}/<class>/*.png``, aligned faces preferred; the test labels are not public."""
    aligned = {
        split: (f"{split}_Aligned_Faces*", f"{split}/{split}_Aligned_Faces*", split) for split in ("Train", "Val")
    }
    splits = {split.casefold(): names for split, names in aligned.items()}
    return split_folders(root, splits, dataset="SFEW", suffixes=IMAGE_SUFFIXES)


def read_expw(root: Path) -> Manifest:
    """Read ExpW: ``data/label/label.lst``, one face a line: image, face, top, left, right, bottom, confidence, class.

    Several faces may be in one image, so each row carries the box that its label is about.
    """
    file = find_one(root, "data/label/label.lst", "label/label.lst", "label.lst", dataset="ExpW")
    images = find_one(
        root, "data/image/origin", "image/origin", "data/image", "image", "origin", "images", dataset="ExpW"
    )
    entries: list[tuple[str, tuple[float, float, float, float], int]] = []
    for number, line in read_lines(file):
        parts = line.split()
        try:
            top, left, right, bottom = (float(value) for value in parts[2:6])
            label = int(parts[7])
        except (ValueError, IndexError):
            raise bad_line(file, number, line, expected="eight columns, the last a class from 0 to 6") from None
        entries.append((parts[0], (left, top, right, bottom), label))
    if not entries:
        raise DataError(f"The list {str(file)!r} is empty.", why="ExpW lists every face in it.")
    names = by_id([label for _, _, label in entries], names=EXPW_CLASSES, first=0, dataset="ExpW")
    rows = dict.fromkeys(
        Row(str((images / image).absolute()), name, box=box)
        for (image, box, _), name in zip(entries, names, strict=True)
    )
    return Manifest(tuple(rows), name="ExpW", origin=str(root))


DATASETS: Sequence[Dataset] = (
    Dataset(
        name="rafdb",
        title="RAF-DB, basic",
        labels="rafdb7",
        media="image",
        read=partial(read_rafdb, kind="basic"),
        layout=("basic/EmoLabel/list_patition_label.txt", "basic/Image/aligned/*_aligned.jpg"),
        protocol="test part",
        source="Li et al., CVPR 2017",
        verified=(
            "12,271 and 3,068: survey of static and dynamic expressions, arXiv 2408.15777; labels 1..7: public loaders"
        ),
        unverified="",
        published={"split train": 12271, "split test": 3068},
    ),
    Dataset(
        name="rafdb-compound",
        title="RAF-DB, compound",
        labels="rafdb-compound11",
        media="image",
        read=partial(read_rafdb, kind="compound"),
        layout=("compound/EmoLabel/list_patition_label.txt", "compound/Image/aligned/*_aligned.jpg"),
        protocol="test part",
        source="Li et al., CVPR 2017",
        verified="labels 1..11: public code that lists them",
        unverified="the counts 3,162 and 792",
        published={"split train": 3162, "split test": 792},
    ),
    Dataset(
        name="affectnet7",
        title="AffectNet, 7 classes",
        labels="affectnet7",
        media="image",
        read=partial(read_affectnet, n_classes=7),
        layout=("val_set/images/<id>.jpg", "val_set/annotations/<id>_exp.npy", "or validation.csv"),
        protocol="validation part",
        source="Mollahosseini et al., IEEE TAFFC 2019",
        verified=(
            "3,500 for validation: survey of static and dynamic expressions, arXiv 2408.15777; labels 0..7: the "
            "description that comes with the data, as quoted in public code"
        ),
        unverified="",
        published={"split val": 3500},
    ),
    Dataset(
        name="affectnet8",
        title="AffectNet, 8 classes",
        labels="affectnet8",
        media="image",
        read=partial(read_affectnet, n_classes=8),
        layout=("val_set/images/<id>.jpg", "val_set/annotations/<id>_exp.npy", "or validation.csv"),
        protocol="validation part",
        source="Mollahosseini et al., IEEE TAFFC 2019",
        verified=(
            "4,000 for validation: README of a public training toolbox; labels 0..7: the description that comes "
            "with the data, as quoted in public code"
        ),
        unverified="",
        published={"split val": 4000},
    ),
    Dataset(
        name="ferplus",
        title="FERPlus (FER+)",
        labels="ferplus8",
        media="image",
        read=read_ferplus,
        layout=("fer2013new.csv", "fer2013.csv, or FER2013{Train,Valid,Test}/fer0000000.png"),
        protocol="test part, majority of votes",
        source="Barsoum et al., ICMI 2016",
        verified="columns and their order: README of github.com/microsoft/FERPlus",
        unverified="3,137 test images with a majority",
        published={"split test": 3137},
    ),
    Dataset(
        name="fer2013",
        title="FER2013",
        labels="fer2013",
        media="image",
        read=read_fer2013,
        layout=("fer2013.csv", "or {train,test}/<class>/*.png"),
        protocol="PrivateTest; CLIP benchmarks take validation and test (--split val+test)",
        source="Goodfellow et al., ICONIP 2013",
        verified="28,709, 3,589 and 3,589: service.tib.eu; survey of static and dynamic expressions, arXiv 2408.15777",
        unverified="",
        published={"all": 35887, "split train": 28709},
    ),
    Dataset(
        name="caer-s",
        title="CAER-S",
        labels="ekman7",
        media="image",
        read=read_caer_s,
        layout=("{train,test}/<class>/*.png",),
        protocol="test part",
        source="Lee et al., ICCV 2019",
        verified="",
        unverified=(
            "no exact count was found: its authors say about 70,000, and a public relabelling "
            "(github.com/larrylu0426/CAERS-Annotation) keeps 47,966 and 20,868"
        ),
    ),
    Dataset(
        name="sfew",
        title="SFEW 2.0",
        labels="ekman7",
        media="image",
        read=read_sfew,
        layout=("{Train,Val}/<class>/*.png",),
        protocol="validation part",
        source="Dhall et al., ICCV Workshops 2011",
        verified="958 and 436: survey of static and dynamic expressions, arXiv 2408.15777; hyper.ai",
        unverified="how many of them have aligned faces: such copies hold fewer",
        published={"split train": 958, "split val": 436},
    ),
    Dataset(
        name="expw",
        title="ExpW",
        labels="ekman7",
        media="image",
        read=read_expw,
        layout=("data/label/label.lst", "data/image/origin/*.jpg"),
        protocol="no official split: all rows",
        source="Zhang et al., IJCV 2018",
        verified="91,793 and labels 0..6: the readme that comes with the data, as quoted in public loaders",
        unverified="",
        published={"all": 91793},
    ),
)
