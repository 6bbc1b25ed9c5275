"""Dynamic expression data sets: DFEW, MAFW, FERV39k, AFEW, CAER."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from vlfer.errors import DataError
from vlfer.evaluation.datasets.base import (
    VIDEO_SUFFIXES,
    Dataset,
    bad_line,
    by_id,
    find_any,
    missing_folds,
    read_lines,
    split_folders,
    wrong_root,
)
from vlfer.evaluation.manifest import Manifest, Row

DFEW_CLASSES = ("happiness", "sadness", "neutral", "anger", "surprise", "disgust", "fear")
_N_FOLDS = 5


def read_dfew(root: Path) -> Manifest:
    """Read DFEW: ``EmoLabel_DataSplit/test(single-labeled)/set_{1..5}.csv``, or copies called ``test_set_N.csv``.

    Labels are 1..7; some public copies re-base them to 0..6. The smallest label of all lists tells which, and a note
    says so. Each clip is tested in one fold, so that the training part of a fold is the rest.
    """
    lists = _dfew_lists(root)
    locate = _dfew_locator(root)
    entries: list[tuple[str, str, int]] = []
    for fold, file in lists.items():
        for number, line in read_lines(file):
            if number == 1 and not line.rstrip().rpartition(",")[2].strip().isdigit():
                continue  # header
            name, _, label = line.partition(",")
            if not name.strip() or not label.strip().isdigit():
                raise bad_line(file, number, line, expected="video_name,label")
            entries.append((fold, Path(name.strip()).stem, int(label)))
    if not entries:
        raise DataError(f"The lists of DFEW in {str(root)!r} are empty.", why=f"Read {len(lists)} files.")
    base = min(label for _, _, label in entries)
    first = 0 if base == 0 else 1
    names = by_id([label for _, _, label in entries], names=DFEW_CLASSES, first=first, dataset="DFEW")
    rows = tuple(Row(locate(clip), name, fold=fold) for (fold, clip, _), name in zip(entries, names, strict=True))
    gaps = missing_folds(lists, expected=_N_FOLDS)
    note = f"DFEW labels read as {first}..{first + 6}" + (" (a re-based copy)" if first == 0 else " (official)")
    return Manifest(rows, name="DFEW", origin=str(root), notes=(note, *gaps))


def _dfew_lists(root: Path) -> dict[str, Path]:
    lists: dict[str, Path] = {}
    patterns = (
        "EmoLabel_DataSplit/test*single*/set_{}.csv", "test*single*/set_{}.csv", "test_set_{}.csv",
        "*/test_set_{}.csv", "EmoLabel_DataSplit/test/set_{}.csv",
    )  # fmt: skip
    if root.is_dir():
        for fold in range(1, _N_FOLDS + 1):
            file = find_any(root, *(p.format(fold) for p in patterns))
            if file is not None:
                lists[str(fold)] = file
    if not lists:
        raise wrong_root(root, looked_for=[p.format("{1..5}") for p in patterns[::2]], dataset="DFEW")
    return lists


def _dfew_locator(root: Path) -> Callable[[str], str]:
    """Return where a clip lies: a folder of frames with five digits, or a video with its plain number."""
    names = ("clip_224x224", "clip_224x224_16f", "jpg_256")
    frames = find_any(root, *(f"{above}{name}{tail}" for name in names for tail in (f"/{name}", "")
                              for above in ("Clip/", "")))  # fmt: skip
    if frames is not None:
        return lambda clip: str((frames / clip.zfill(5)).absolute())
    videos = find_any(root, "Clip/original", "original")
    if videos is None:
        raise wrong_root(
            root, looked_for=("Clip/clip_224x224", "Clip/clip_224x224_16f", "Clip/jpg_256", "Clip/original"),
            dataset="DFEW",
        )  # fmt: skip
    present = {p.stem.lstrip("0") or "0": p for p in videos.iterdir() if p.suffix.lower() in VIDEO_SUFFIXES}

    def locate(clip: str) -> str:
        plain = clip.lstrip("0") or "0"
        return str(present.get(plain, videos / f"{plain}.mp4").absolute())

    return locate


def read_mafw(root: Path, *, kind: Literal["single", "compound"]) -> Manifest:
    """Read MAFW: ``Train & Test Set/{single,compound}/{no,with}_caption/set_{1..5}/test.txt``, whatever stands before.

    no_caption lines are ``00025.mp4 anger``; with_caption lines have four tab-separated columns in GB18030, of which
    file and label are used. Labels are words: the three numberings in circulation do not matter.
    """
    rows: list[Row] = []
    folds: list[str] = []
    locate = _mafw_locator(root)
    for fold in range(1, _N_FOLDS + 1):
        captions = (f"{kind}/{c}/set_{fold}/test.txt" for c in ("no_caption", "with_caption"))
        file = find_any(root, *(f"{above}{tail}" for tail in captions for above in ("", "*/", "*/*/", "*/*/*/")))
        if file is not None:
            folds.append(str(fold))
            rows += [Row(locate(clip), label, fold=str(fold)) for clip, label, _ in read_mafw_list(file)]
    if not rows:
        looked_for = (f"Train & Test Set/{kind}/no_caption/set_{{1..5}}/test.txt", f"{kind}/with_caption/...")
        raise wrong_root(root, looked_for=looked_for, dataset=f"MAFW ({kind})")
    name = "MAFW" if kind == "single" else "MAFW compound"
    return Manifest(tuple(rows), name=name, origin=str(root), notes=missing_folds(folds, expected=_N_FOLDS))


def read_mafw_list(file: Path) -> list[tuple[str, str, str]]:
    """Return clip, label and English caption (empty without one) of each line of a MAFW list.

    Raises:
        DataError: If a line is of neither form.
    """
    entries = []
    for number, line in read_lines(file, encoding="gb18030"):  # plain ASCII lists read the same
        columns = [column.strip() for column in (line.split("\t") if "\t" in line else line.split())]
        if len(columns) < 2 or not columns[0] or not columns[1] or columns[1].isdigit():
            raise bad_line(file, number, line, expected="a file and the name of a class, as in '00025.mp4 anger'")
        entries.append((columns[0], columns[1], columns[3] if len(columns) > 3 else ""))
    return entries


def _mafw_locator(root: Path) -> Callable[[str], str]:
    videos = find_any(root, "data/clips", "clips", "data/videos", "videos")
    frames = find_any(root, "data/frames", "frames", "data/faces", "faces")
    if videos is None and frames is None:
        raise wrong_root(root, looked_for=("data/clips", "clips", "data/frames", "frames"), dataset="MAFW")
    if videos is not None:
        return lambda clip: str((videos / Path(clip).name).absolute())
    return lambda clip: str((Path(frames or root) / Path(clip).stem).absolute())


def read_ferv39k(root: Path) -> Manifest:
    """Read FERV39k: ``4_setups/All_scenes/{train,test}_All.csv``, no header, ``Action/Happy/0015 Happy``."""
    folder = find_any(
        root, "2_ClipsforFaceCrop", "1_ClipsforFaceCrop", "0_7_LabelClips", "*ClipsforFaceCrop*", "*LabelClips*"
    ) or root  # fmt: skip
    rows: list[Row] = []
    for split in ("train", "test"):
        name = f"{split}_All.csv"
        file = find_any(root, f"4_setups/All_scenes/{name}", f"*/All_scenes/{name}", f"All_scenes/{name}", name)
        if file is None:
            continue
        for number, line in read_lines(file):
            match = re.fullmatch(r"([^,]+/[^,]+/[^,]*[^\s,])[\s,]+([^\W\d]+)", line)  # scenes may hold spaces
            if match is None:
                raise bad_line(file, number, line, expected="scene/class/clip and the class")
            rows.append(Row(_clip_or_folder(folder / match[1]), match[2], split=split))
    if not any(row.split == "test" for row in rows):
        raise wrong_root(root, looked_for=("4_setups/All_scenes/test_All.csv",), dataset="FERV39k")
    return Manifest(tuple(rows), name="FERV39k", origin=str(root))


def _clip_or_folder(path: Path) -> str:
    """Return the folder of frames, or the video of that name; a missing one stays as it is and fails its row."""
    if not path.exists():
        for suffix in (".mp4", ".avi"):
            if path.with_name(path.name + suffix).is_file():
                return str(path.with_name(path.name + suffix).absolute())
    return str(path.absolute())


def read_afew(root: Path) -> Manifest:
    """Read AFEW: ``Train_AFEW/<class>/*.avi`` and ``Val_AFEW/<class>/*.avi``; the test labels are not public."""
    splits = {"train": ("Train_AFEW", "Train", "train"), "val": ("Val_AFEW", "Val", "val", "Validation")}
    return split_folders(root, splits, dataset="AFEW", suffixes=VIDEO_SUFFIXES)


def read_caer(root: Path) -> Manifest:
    """Read CAER: ``{train,validation,test}/<class>/<clip>.avi``."""
    inside = find_any(root, "CAER") or root
    splits = {"train": ("train",), "val": ("validation", "val"), "test": ("test",)}
    return split_folders(inside, splits, dataset="CAER", suffixes=VIDEO_SUFFIXES)


DATASETS: Sequence[Dataset] = (
    Dataset(
        name="dfew",
        title="DFEW",
        labels="dfew7",
        media="video",
        read=read_dfew,
        layout=("EmoLabel_DataSplit/test(single-labeled)/set_{1..5}.csv", "Clip/clip_224x224/<id>/ or alike"),
        protocol="5 folds, unweighted mean of UAR / WAR",
        source="Jiang et al., ACM MM 2020",
        verified="labels 1..7: README of github.com/jiangxingxun/DFEW, the authors' code",
        unverified="the counts of the folds",
        published={"all": 11697, "fold 1": 2341, "fold 2": 2341, "fold 3": 2340, "fold 4": 2339, "fold 5": 2336},
    ),
    Dataset(
        name="mafw",
        title="MAFW, single expressions",
        labels="mafw11",
        media="video",
        read=partial(read_mafw, kind="single"),
        layout=("Train & Test Set/single/no_caption/set_{1..5}/test.txt", "data/clips/*.mp4 or data/frames/<id>/"),
        protocol="5 folds, unweighted mean of UAR / WAR",
        source="Liu et al., ACM MM 2022",
        verified="the 11 classes: README of github.com/MAFW-database/MAFW, the authors' page",
        unverified="the count of 9,172 (10,045 clips in all)",
        published={"all": 9172},
    ),
    Dataset(
        name="mafw-compound",
        title="MAFW, compound expressions",
        labels="mafw43",
        media="video",
        read=partial(read_mafw, kind="compound"),
        layout=("Train & Test Set/compound/no_caption/set_{1..5}/test.txt", "data/clips/*.mp4 or data/frames/<id>/"),
        protocol="5 folds, unweighted mean of UAR / WAR",
        source="Liu et al., ACM MM 2022",
        verified=(
            "the 43 names: equal to those in public training code for MAFW; 11 single and 32 compound ones: "
            "README of github.com/MAFW-database/MAFW"
        ),
        unverified="the count of 8,996",
        published={"all": 8996},
    ),
    Dataset(
        name="ferv39k",
        title="FERV39k",
        labels="ekman7",
        media="video",
        read=read_ferv39k,
        layout=("4_setups/All_scenes/{train,test}_All.csv", "2_ClipsforFaceCrop/<scene>/<class>/<clip>/"),
        protocol="official test list",
        source="Wang et al., CVPR 2022",
        verified="",
        unverified="the counts; a survey (arXiv 2408.15777) gives other parts, 35,887 and 3,000",
        published={"split train": 31088, "split test": 7847},
    ),
    Dataset(
        name="afew",
        title="AFEW 8.0",
        labels="ekman7",
        media="video",
        read=read_afew,
        layout=("Train_AFEW/<class>/*.avi", "Val_AFEW/<class>/*.avi"),
        protocol="validation part",
        source="Dhall et al., IEEE MultiMedia 2012; EmotiW 2018",
        verified="773 and 383: survey of static and dynamic expressions, arXiv 2408.15777",
        unverified="",
        published={"split train": 773, "split val": 383},
    ),
    Dataset(
        name="caer",
        title="CAER",
        labels="ekman7",
        media="video",
        read=read_caer,
        layout=("{train,validation,test}/<class>/<clip>.avi",),
        protocol="test part",
        source="Lee et al., ICCV 2019",
        verified="9,240 for training and 2,640 for testing: survey of static and dynamic expressions, arXiv 2408.15777",
        unverified="13,201 in all",
        published={"all": 13201, "split train": 9240, "split test": 2640},
    ),
)
