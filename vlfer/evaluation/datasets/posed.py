"""Posed expression data sets, with subjects: JAFFE, CK+, KDEF; and plain class folders."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from vlfer.errors import DataError
from vlfer.evaluation.datasets.base import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    Dataset,
    by_id,
    class_folder_rows,
    find_any,
    wrong_root,
)
from vlfer.evaluation.manifest import Manifest, Row

JAFFE_CODES = {
    "AN": "anger", "DI": "disgust", "FE": "fear", "HA": "happiness", "NE": "neutral", "SA": "sadness", "SU": "surprise",
}  # fmt: skip
KDEF_CODES = {
    "AF": "fear", "AN": "anger", "DI": "disgust", "HA": "happiness", "NE": "neutral", "SA": "sadness", "SU": "surprise",
}  # fmt: skip
KDEF_ANGLES = {"S": "straight", "HL": "half-left", "HR": "half-right", "FL": "full-left", "FR": "full-right"}
CK_CLASSES = ("neutral", "anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise")


def read_jaffe(root: Path) -> Manifest:
    """Read JAFFE: files such as ``KA.AN1.39.tiff``: subject KA, anger, first picture."""
    pattern = re.compile(r"(?P<who>[A-Z]{2})\.(?P<code>[A-Z]{2})\d+\.\d+", re.IGNORECASE)
    folder = find_any(root, "jaffe", "jaffedbase", "images") or root
    rows = []
    for file in sorted(folder.iterdir()) if folder.is_dir() else []:
        match = pattern.fullmatch(file.stem)
        if match is not None and file.suffix.lower() in IMAGE_SUFFIXES:
            label = JAFFE_CODES.get(match["code"].upper())
            if label is None:
                raise DataError(
                    f"The code {match['code']!r} of {file.name} is unknown.", why=f"Known: {list(JAFFE_CODES)}."
                )
            rows.append(Row(str(file.absolute()), label, subject=match["who"].upper()))
    if not rows:
        raise wrong_root(root, looked_for=("KA.AN1.39.tiff and its like",), dataset="JAFFE")
    return Manifest(tuple(rows), name="JAFFE", origin=str(root))


def read_ckplus(root: Path) -> Manifest:
    """Read CK+: ``cohn-kanade-images/S005/001/*.png`` with ``Emotion/S005/001/*_emotion.txt``; or class folders.

    The last frame of each labelled sequence is its peak. Neutral is not among the labels. In class folders
    (``anger/S010_004_00000017.png``) every picture is a row, and its subject is the part before the underscore.
    """
    emotions = find_any(root, "Emotion", "Emotion_labels/Emotion", "Emotion_labels", "emotion")
    images = find_any(root, "cohn-kanade-images", "extended-cohn-kanade-images/cohn-kanade-images")
    if emotions is None or images is None:
        rows = class_folder_rows(
            root, suffixes=IMAGE_SUFFIXES, subject_of=lambda stem: stem.partition("_")[0]
        ) if root.is_dir() else []  # fmt: skip
        if not rows:
            looked_for = ("cohn-kanade-images/S005/001/*.png", "Emotion/S005/001/*_emotion.txt", "<class>/S005_*.png")
            raise wrong_root(root, looked_for=looked_for, dataset="CK+")
        return Manifest(tuple(rows), name="CK+", origin=str(root), notes=("read from class folders",))
    found: list[tuple[Path, str, int]] = []
    for file in sorted(emotions.glob("S*/*/*_emotion.txt")):
        subject, sequence = file.parts[-3], file.parts[-2]
        try:
            label = int(float(file.read_text(encoding="ascii").strip()))
        except (OSError, ValueError) as error:
            raise DataError(f"The label {str(file)!r} cannot be read: {error}.") from None
        frames = sorted(p for p in (images / subject / sequence).glob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        missing = images / subject / sequence / f"{file.stem.removesuffix('_emotion')}.png"
        found.append((frames[-1] if frames else missing, subject, label))
    if not found:
        raise wrong_root(root, looked_for=("Emotion/S005/001/*_emotion.txt",), dataset="CK+")
    names = by_id([label for _, _, label in found], names=CK_CLASSES, first=0, dataset="CK+")
    pairs = zip(found, names, strict=True)
    rows = [Row(str(path.absolute()), name, subject=subject) for (path, subject, _), name in pairs]
    return Manifest(tuple(rows), name="CK+", origin=str(root), notes=("peak: the last frame of each sequence",))


def read_kdef(root: Path) -> Manifest:
    """Read KDEF: ``AF01/AF01ANS.JPG``: session A, woman 01, angry, straight; the split is the angle of view."""
    pattern = re.compile(r"[AB](?P<who>[FM]\d{2})(?P<code>[A-Z]{2})(?P<angle>S|HL|HR|FL|FR)", re.IGNORECASE)
    files = [p for glob in ("*", "*/*", "*/*/*") for p in root.glob(glob) if p.suffix.lower() in IMAGE_SUFFIXES]
    rows = []
    for file in sorted(files):
        match = pattern.fullmatch(file.stem)
        label = KDEF_CODES.get(match["code"].upper()) if match else None
        if match and label:
            angle = KDEF_ANGLES[match["angle"].upper()]
            rows.append(Row(str(file.absolute()), label, subject=match["who"].upper(), split=angle))
    if not rows:
        raise wrong_root(root, looked_for=("AF01/AF01ANS.JPG and its like",), dataset="KDEF")
    return Manifest(tuple(rows), name="KDEF", origin=str(root))


def read_folders(root: Path) -> Manifest:
    """Read class folders: ``<class>/<medium>``, or ``{train,val,test}/<class>/<medium>``."""
    suffixes = IMAGE_SUFFIXES | VIDEO_SUFFIXES
    names = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
    rows: list[Row] = []
    inside = sorted(p for p in root.iterdir() if p.is_dir()) if root.is_dir() else []
    for folder in inside:
        if folder.name.casefold() in names:
            rows += class_folder_rows(folder, suffixes=suffixes, split=names[folder.name.casefold()])
    if not rows and inside:
        rows = class_folder_rows(root, suffixes=suffixes)
    if not rows:
        looked_for = ("<class>/<image or video>", "{train,val,test}/<class>/<image or video>")
        raise wrong_root(root, looked_for=looked_for, dataset="class folders")
    return Manifest(tuple(rows), name=root.name, origin=str(root))


DATASETS: Sequence[Dataset] = (
    Dataset(
        name="jaffe",
        title="JAFFE",
        labels="ekman7",
        media="image",
        read=read_jaffe,
        layout=("KA.AN1.39.tiff and its like",),
        protocol="all rows; leave one subject out for trained models",
        source="Lyons et al., FG 1998",
        verified="213: survey of static and dynamic expressions, arXiv 2408.15777",
        unverified="the codes of the file names",
        published={"all": 213},
    ),
    Dataset(
        name="ckplus",
        title="CK+",
        labels="ferplus8",
        media="image",
        read=read_ckplus,
        layout=("cohn-kanade-images/S005/001/*.png", "Emotion/S005/001/*_emotion.txt", "or <class>/S005_*.png"),
        protocol="all peak frames; subject-wise folds for trained models",
        source="Lucey et al., CVPR Workshops 2010",
        verified="327 of 593 sequences, labels 0..7: the readme that comes with the data, as quoted in public code",
        unverified="",
        published={"all": 327},
    ),
    Dataset(
        name="kdef",
        title="KDEF",
        labels="ekman7",
        media="image",
        read=read_kdef,
        layout=("AF01/AF01ANS.JPG and its like",),
        protocol="straight views (--split straight)",
        source="Lundqvist et al., Karolinska Institutet 1998",
        verified="4,900 of 70 people, 7 expressions, 5 angles, 2 sessions: kdef.se, as quoted in public code",
        unverified="the codes of the file names",
        published={"all": 4900, "split straight": 980},
    ),
    Dataset(
        name="folders",
        title="Class folders",
        labels="ekman7",
        media="image",
        read=read_folders,
        layout=("<class>/<image or video>", "or {train,val,test}/<class>/<image or video>"),
        protocol="test part, or all rows",
        source="",
        verified="",
        unverified="",
    ),
)
