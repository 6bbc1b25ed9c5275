"""Tiny fake data sets in the official layouts, with real decodable media of a few pixels.

Every picture of class c is one flat colour, so that an encoder that looks at the mean colour can tell the classes.
"""

from __future__ import annotations

import colorsys
import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from vlfer.evaluation.datasets.clips import DFEW_CLASSES
from vlfer.evaluation.datasets.ferplus import FER2013_CLASSES, FERPLUS_CLASSES
from vlfer.evaluation.datasets.images import AFFECTNET_CLASSES, RAFDB_CLASSES, RAFDB_COMPOUND
from vlfer.evaluation.datasets.posed import JAFFE_CODES, KDEF_ANGLES, KDEF_CODES

CAPITALS = ("Angry", "Disgust", "Fear", "Happy", "Neutral", "Sad", "Surprise")
MAFW_CLASSES = (
    "anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise", "contempt", "anxiety", "helplessness",
    "disappointment",
)  # fmt: skip
MAFW_COMPOUND = ("anger_anxiety", "surprise_happiness", "sadness_anxiety_helplessness")


def colour(index: int, n: int = 12) -> tuple[int, int, int]:
    """Return the colour of class ``index``."""
    red, green, blue = colorsys.hsv_to_rgb(index / n, 0.9, 0.9)
    return int(255 * red), int(255 * green), int(255 * blue)


def picture(path: Path, index: int, *, mark: int = 0, size: int = 24) -> Path:
    """Write a picture of class ``index``; ``mark`` makes its content its own."""
    pixels = np.full((size, size, 3), colour(index), np.uint8)
    pixels[0, 0] = (mark // 256 % 256, mark % 256, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def video(path: Path, index: int, *, n_frames: int = 6, size: int = 32) -> Path:
    """Write an H.264 video (FFV1 for .avi) of class ``index``; its length makes its content its own."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1" if path.suffix == ".avi" else "libx264", rate=10)
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        frame = np.full((size, size, 3), colour(index), np.uint8)
        for _ in range(n_frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def frame_folder(path: Path, index: int, *, n_frames: int = 3, mark: int = 0) -> Path:
    """Write a folder of frames of class ``index``."""
    for i in range(n_frames):
        picture(path / f"{i + 1}.jpg", index, mark=100 * mark + i)
    return path


def _text(path: Path, lines: Sequence[str], *, end: str = "\n", encoding: str = "utf-8") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((end.join(lines) + end).encode(encoding))


def dfew(root: Path, *, base: int = 1, media: str = "frames", renamed: bool = False, n: int = 14) -> Path:
    """Fake DFEW: ``n`` clips over five folds."""
    folds: dict[int, list[str]] = {k: ["video_name,label"] for k in range(1, 6)}
    for i in range(n):
        c = i % 7
        folds[i % 5 + 1].append(f"{i + 1},{c + base}")
        if media == "frames":
            frame_folder(root / "Clip" / "clip_224x224" / f"{i + 1:05d}", c, mark=i)
        else:
            video(root / "Clip" / "original" / f"{i + 1}.mp4", c, n_frames=4 + i)
    for k, lines in folds.items():
        official = root / "EmoLabel_DataSplit" / "test(single-labeled)" / f"set_{k}.csv"
        _text(root / f"test_set_{k}.csv" if renamed else official, lines)
    return root


def mafw(root: Path, *, kind: str = "single", captions: bool = False, prefix: str = "Train & Test Set") -> Path:
    """Fake MAFW with CRLF lists, or caption lists in GB18030."""
    names = MAFW_CLASSES if kind == "single" else MAFW_COMPOUND
    folds: dict[int, list[str]] = {k: [] for k in range(1, 6)}
    for i, name in enumerate([*names, *names[:3]]):
        clip = f"{i + 1:05d}.mp4"
        line = f"{clip}\t{name}\t一个人皱着眉头\tA person frowns." if captions else f"{clip} {name}"
        folds[i % 5 + 1].append(line)
        video(root / "data" / "clips" / clip, i % len(names), n_frames=3 + i)
    folder = root / prefix / kind / ("with_caption" if captions else "no_caption")
    for k, lines in folds.items():
        _text(folder / f"set_{k}" / "test.txt", lines, end="\r\n", encoding="gb18030" if captions else "utf-8")
        _text(folder / f"set_{k}" / "train.txt", ["00001.mp4 anger"], end="\r\n")
    return root


def ferv39k(root: Path) -> Path:
    """Fake FERV39k with frame folders."""
    lists: dict[str, list[str]] = {"train": [], "test": []}
    for i, name in enumerate([*CAPITALS, *CAPITALS]):
        split = "train" if i % 2 else "test"
        clip = f"{('Action', 'Daily')[i % 2]}/{name}/{i + 1:04d}"
        lists[split].append(f"{clip} {name}")
        frame_folder(root / "2_ClipsforFaceCrop" / clip, DFEW_CLASSES.index(_canonical(name)), mark=i)
    for split, lines in lists.items():
        _text(root / "4_setups" / "All_scenes" / f"{split}_All.csv", lines)
    return root


def _canonical(name: str) -> str:
    return {"Angry": "anger", "Happy": "happiness", "Sad": "sadness"}.get(name, name.lower())


def class_folders(root: Path, folders: Sequence[str], *, names: Sequence[str] = CAPITALS, suffix: str = ".png") -> Path:
    """Fake ``<folder>/<class>/<medium>``."""
    for j, folder in enumerate(folders):
        for i, name in enumerate(names):
            path = root / folder / name / f"{i:03d}{suffix}"
            index = DFEW_CLASSES.index(_canonical(name)) if _canonical(name) in DFEW_CLASSES else i
            video(path, index, n_frames=3 + i + j) if suffix == ".avi" else picture(path, index, mark=10 * j + i)
    return root


def afew(root: Path) -> Path:
    """Fake AFEW."""
    return class_folders(root, ("Train_AFEW", "Val_AFEW"), suffix=".avi")


def caer(root: Path) -> Path:
    """Fake CAER."""
    return class_folders(root, ("train", "validation", "test"), suffix=".avi")


def caer_s(root: Path) -> Path:
    """Fake CAER-S."""
    return class_folders(root, ("CAER-S/train", "CAER-S/test"))


def sfew(root: Path) -> Path:
    """Fake SFEW."""
    return class_folders(root, ("Train", "Val"))


def rafdb(root: Path, *, kind: str = "basic") -> Path:
    """Fake RAF-DB."""
    lines = []
    names = RAFDB_CLASSES if kind == "basic" else RAFDB_COMPOUND
    for i in range(2 * len(names)):
        name = f"{'train' if i < len(names) else 'test'}_{i:05d}"
        lines.append(f"{name}.jpg {i % len(names) + 1}")
        picture(root / kind / "Image" / "aligned" / f"{name}_aligned.jpg", i % len(names), mark=i)
    _text(root / kind / "EmoLabel" / "list_patition_label.txt", lines)
    return root


def affectnet(root: Path) -> Path:
    """Fake AffectNet as released with .npy annotations; one image has no expression."""
    for i, label in enumerate([*range(8), 8]):
        picture(root / "val_set" / "images" / f"{i}.jpg", label, mark=i)
        (root / "val_set" / "annotations").mkdir(exist_ok=True)
        np.save(root / "val_set" / "annotations" / f"{i}_exp.npy", np.array(str(label)))
    return root


def affectnet_csv(root: Path) -> Path:
    """Fake AffectNet as released with CSV lists."""
    lines = ["subDirectory_filePath,face_x,face_y,expression,valence,arousal"]
    for i, label in enumerate([*range(len(AFFECTNET_CLASSES)), 10]):
        picture(root / "Manually_Annotated_Images" / "1" / f"{i}.jpg", label, mark=i)
        lines.append(f"1/{i}.jpg,1,2,{label},0.1,0.2")
    _text(root / "validation.csv", lines)
    return root


_USAGES = ("Training", "PublicTest", "PrivateTest")


def fer2013(root: Path, *, n: int = 21) -> Path:
    """Fake FER2013: a pixel table of grey pictures, class c at grey 30 c + 10."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / "fer2013.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["emotion", "pixels", "Usage"])
        for i in range(n):
            c = i % len(FER2013_CLASSES)
            writer.writerow([c, " ".join([str(30 * c + 10)] * (48 * 48 - 1) + [str(i)]), _USAGES[i // 7 % 3]])
    return root


def ferplus(root: Path, *, images: str = "table") -> Path:
    """Fake FER+: 16 pictures with clear votes, one split vote, one without a face."""
    if images == "table":
        fer2013(root, n=18)
    lines = ["Usage,Image name," + ",".join(FERPLUS_CLASSES) + ",unknown,NF"]
    for i in range(18):
        votes = [0] * 10
        if i < 16:
            votes[i % 8], votes[(i + 1) % 8] = 8, 1
        elif i == 16:
            votes[0], votes[1] = 5, 5
        else:
            votes[9] = 10
        usage = _USAGES[2 if i >= 8 else 0]
        lines.append(f"{usage},fer{i:07d}.png," + ",".join(map(str, votes)))
        if images != "table":
            picture(root / f"FER2013{'Test' if i >= 8 else 'Train'}" / f"fer{i:07d}.png", i % 8, mark=i)
    _text(root / "fer2013new.csv", lines)
    return root


def jaffe(root: Path) -> Path:
    """Fake JAFFE: two subjects."""
    for j, who in enumerate(("KA", "KL")):
        for i, code in enumerate(JAFFE_CODES):
            picture(root / f"{who}.{code}1.{39 + i}.tiff", DFEW_CLASSES.index(JAFFE_CODES[code]), mark=10 * j + i)
    return root


def ckplus(root: Path) -> Path:
    """Fake CK+: eight sequences of which one has no label."""
    for i, label in enumerate([1, 2, 3, 4, 5, 6, 7, None]):
        who = f"S{i // 2 + 5:03d}"
        for t in range(3):
            name = f"{who}_{i + 1:03d}_{t + 1:08d}"
            picture(root / "cohn-kanade-images" / who / f"{i + 1:03d}" / f"{name}.png", label or 0, mark=10 * i + t)
        if label is not None:
            _text(root / "Emotion" / who / f"{i + 1:03d}" / f"{name}_emotion.txt", [f"   {label:.7e}"])
    return root


def kdef(root: Path) -> Path:
    """Fake KDEF: two people, every expression and angle."""
    for j, who in enumerate(("AF01", "AM02")):
        for i, code in enumerate(KDEF_CODES):
            for a, angle in enumerate(KDEF_ANGLES):
                picture(
                    root / who / f"{who}{code}{angle}.JPG",
                    DFEW_CLASSES.index(KDEF_CODES[code]),
                    mark=100 * j + 9 * i + a,
                )
    return root


def expw(root: Path) -> Path:
    """Fake ExpW: two faces in each image, left and right."""
    lines = []
    for i in range(7):
        path = root / "data" / "image" / "origin" / f"image_{i}.jpg"
        pixels = np.zeros((30, 60, 3), np.uint8)
        pixels[:, :30], pixels[:, 30:] = colour(i), colour((i + 1) % 7)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, quality=95)
        lines += [f"image_{i}.jpg 0 2 2 28 28 90.1 {i}", f"image_{i}.jpg 1 2 32 58 28 80.2 {(i + 1) % 7}"]
    _text(root / "data" / "label" / "label.lst", lines)
    return root


#: Data set name to its generator.
MAKERS: dict[str, Callable[[Path], Path]] = {
    "dfew": dfew,
    "mafw": mafw,
    "mafw-compound": lambda root: mafw(root, kind="compound"),
    "ferv39k": ferv39k,
    "afew": afew,
    "caer": caer,
    "rafdb": rafdb,
    "rafdb-compound": lambda root: rafdb(root, kind="compound"),
    "affectnet7": affectnet,
    "affectnet8": affectnet,
    "ferplus": ferplus,
    "fer2013": fer2013,
    "caer-s": caer_s,
    "sfew": sfew,
    "expw": expw,
    "jaffe": jaffe,
    "ckplus": ckplus,
    "kdef": kdef,
    "folders": lambda root: class_folders(root, ("train", "test")),
}
