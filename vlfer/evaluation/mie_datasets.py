"""Micro-expression data sets as downloaded: CASME II, SAMM, SMIC-HS, MMEW, CAS(ME)^3, and folders of one's own.

Each loader reads the official coding sheet and finds the frames of each clip. Onset, apex and offset are the numbers
that stand in the names of the frames, as the sheets count. A clip whose apex is not coded keeps None: it is looked for
when the flow is computed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlfer.errors import DataError, did_you_mean
from vlfer.evaluation.datasets.base import IMAGE_SUFFIXES, find_any, is_debris, wrong_root
from vlfer.evaluation.sheets import find_table, plain, read_rows
from vlfer.types import UInt8Array
from vlfer.video.paths import VIDEO_SUFFIXES

_COLUMNS = {
    "subject": ("subject", "subjects", "sub"),
    "clip": ("filename", "clip", "video"),
    "onset": ("onsetframe", "onset"),
    "apex?": ("apexframe", "apex"),
    "offset?": ("offsetframe", "offset"),
    "units?": ("actionunits", "aus", "au"),
    "emotion": ("estimatedemotion", "emotion", "expression"),
}
_SAME = {
    "happy": "happiness", "sad": "sadness", "angry": "anger", "other": "others", "surprised": "surprise", "ne":
    "negative", "po": "positive", "sur": "surprise",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class MicroClip:
    """One coded expression.

    Attributes:
        dataset: "casme2", "samm", "smic", "mmew", "casme3" or "clips".
        subject: Who; unique within the data set.
        clip: Unique within the subject.
        frames: Number of a frame to its file, in order; all frames of the folder. Pixels, (H, W, 3) uint8 RGB, where a
            video was decoded.
        onset: Number of the first visible frame.
        apex: Number of the strongest frame, or None where it is not coded.
        offset: Number of the last frame.
        emotion: As coded, in lower case; "happy" and its like as nouns.
        units: Action units as coded; may be empty.
        problem: Why it cannot be used; empty for a sound clip.
        video: The clip as one file, whose frames are decoded when they are needed.
    """

    dataset: str
    subject: str
    clip: str
    frames: Mapping[int, Path | UInt8Array]
    onset: int
    apex: int | None
    offset: int
    emotion: str
    units: str = ""
    problem: str = ""
    video: Path | None = None


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where a data set keeps what.

    Attributes:
        sheets: Patterns of its coding sheet.
        homes: Patterns of the folder of frames.
        folder: Home, subject and clip to patterns of the clip's folder.
        subject: Subject as coded to its name.
    """

    sheets: Sequence[str]
    homes: Sequence[str]
    folder: Callable[[str, str], Sequence[str]]
    subject: Callable[[str], str]


def _numbered(form: str) -> Callable[[str], str]:
    def name(coded: str) -> str:
        digits = re.sub(r"\D", "", coded)
        return form.format(int(digits)) if digits and plain(coded) in (digits, f"sub{digits}", f"s{digits}") else coded

    return name


_LAYOUTS: dict[str, _Layout] = {
    "casme2": _Layout(
        ("CASME2-coding*.xlsx", "CASME2-coding*.csv", "*/CASME2-coding*.xlsx", "*/CASME2-coding*.csv"),
        ("Cropped", "CASME2_RAW_selected", "CASME2-RAW", "*/Cropped", "*/CASME2_RAW_selected", "."),
        lambda subject, clip: (f"{subject}/{clip}",),
        _numbered("sub{:02d}"),
    ),
    "samm": _Layout(
        ("SAMM_Micro_FACS_Codes*.xlsx", "SAMM_Micro*.csv", "*/SAMM_Micro*.xlsx", "SAMM*.xlsx"),
        ("SAMM", "frames", "."),
        lambda subject, clip: (f"{subject}/{clip}", clip),
        _numbered("{:03d}"),
    ),
    "mmew": _Layout(
        ("MMEW_Micro_Exp.xlsx", "MMEW_Micro*.xlsx", "MMEW_Micro*.csv", "*/MMEW_Micro*.xlsx"),
        ("Micro_Expression", "*/Micro_Expression", "."),
        lambda subject, clip: (clip, f"*/{clip}"),
        _numbered("S{:02d}"),
    ),
    "casme3": _Layout(
        ("cas(me)3_part_A_ME*.xlsx", "cas*part_A_ME*.xlsx", "cas*part_A_ME*.csv", "*/cas*part_A_ME*.xlsx"),
        ("part_A", "part_A/data", "data", "."),
        lambda subject, clip: (f"{subject}/{clip}/color", f"{subject}/{clip}"),
        str,
    ),
}

MIE_DATASETS = (*_LAYOUTS, "smic", "clips")

_NEGATIVE = ("negative", "disgust", "repression", "anger", "contempt", "fear", "sadness")
_THREE = {
    **dict.fromkeys(_NEGATIVE, "negative"),
    "positive": "positive",
    "happiness": "positive",
    "surprise": "surprise",
}
_CASME2 = {"negative": ("disgust", "repression"), "positive": ("happiness",), "surprise": ("surprise",)}


def classes_of(protocol: str, dataset: str, classes: Sequence[str]) -> dict[str, str]:
    """Return emotion to class, for the emotions that a protocol counts; others are left out.

    Args:
        protocol: See `vlfer.evaluation.mie_report.PROTOCOLS`.
        dataset: One of `MIE_DATASETS`.
        classes: The classes of the protocol.
    """
    if "positive" not in classes:
        return {name: name for name in classes}
    three = {e: c for c, group in _CASME2.items() for e in group} if dataset == "casme2" else dict(_THREE)
    return three | ({"others": "others"} if "others" in classes else {})


def load_clips(name: str, root: str | Path) -> list[MicroClip]:
    """Read a data set as downloaded; a clip whose frames are missing comes with its problem.

    Raises:
        DataError: If there is no such data set, the folder is not one, or its sheet is malformed.
    """
    home = Path(root).expanduser()
    if plain(name) == "smic":
        return _load_smic(home)
    if plain(name) == "clips":
        return _load_folders(home)
    if plain(name) not in _LAYOUTS:
        raise DataError(
            f"There is no micro-expression data set {name!r}.",
            why=f"{did_you_mean(plain(name), MIE_DATASETS)} There are {', '.join(MIE_DATASETS)}.".strip(),
        )
    layout = _LAYOUTS[plain(name)]
    sheet = find_any(home, *layout.sheets)
    if sheet is None:
        raise wrong_root(home, looked_for=layout.sheets[:2], dataset=name)
    homes = [place for pattern in layout.homes if (place := home if pattern == "." else find_any(home, pattern))]
    clips = [
        _coded_clip(record, number, layout=layout, homes=homes, dataset=plain(name), sheet=sheet)
        for number, record in find_table(read_rows(sheet), _COLUMNS, path=sheet)
    ]
    if not clips:
        raise DataError(f"The table {str(sheet)!r} codes no clip.", why="It has a header only.")
    return clips


def _coded_clip(
    record: Mapping[str, str], number: int, *, layout: _Layout, homes: Sequence[Path], dataset: str, sheet: Path
) -> MicroClip:
    subject, clip = layout.subject(record["subject"]), record["clip"]
    emotion = record["emotion"].casefold()
    onset, apex, offset = (_frame_number(record[key]) for key in ("onset", "apex", "offset"))
    if not subject or not clip or onset is None:
        raise DataError(
            f"Row {number} of {str(sheet)!r} has the subject {record['subject']!r}, the clip {clip!r} and the onset "
            f"{record['onset']!r}.",
            why="Each clip needs all three.",
        )
    folder = next((found for place in homes if (found := find_any(place, *layout.folder(subject, clip)))), None)
    frames = numbered_frames(folder) if folder is not None else {}
    last = offset if offset is not None else max(frames, default=onset)
    made = MicroClip(
        dataset, subject, clip, frames, onset, apex, last, _SAME.get(emotion, emotion), record["units"].replace("/", "")
    )
    problem = _problem(made, f"{subject}/{clip}")
    return made if not problem else MicroClip(
        dataset, subject, clip, frames, onset, apex, last, made.emotion, made.units, problem
    )  # fmt: skip


def _problem(clip: MicroClip, place: str) -> str:
    if not clip.frames:
        return f"no frames were found for {place}"
    if clip.apex is not None and not clip.onset < clip.apex:
        return f"its apex {clip.apex} is not after its onset {clip.onset}"
    missing = [n for n in (clip.onset, clip.apex) if n is not None and n not in clip.frames]
    if missing:
        return f"frame {missing[0]} is not among {min(clip.frames)}..{max(clip.frames)} of {place}"
    return "" if clip.onset < clip.offset else f"its offset {clip.offset} is not after its onset {clip.onset}"


def _frame_number(text: str) -> int | None:
    """Return the number of a frame; None for an empty cell, "/" or a word, as sheets mark what was not coded."""
    return int(float(text)) if re.fullmatch(r"\d+(\.\d+)?", text) and float(text) > 0 else None


def numbered_frames(folder: Path) -> dict[int, Path]:
    """Return the frames of a folder by the number at the end of their names, in order."""
    found = {}
    for file in folder.iterdir():
        match = re.search(r"(\d+)$", file.stem)
        if match and file.suffix.lower() in IMAGE_SUFFIXES and not is_debris(file):
            found[int(match[1])] = file
    return dict(sorted(found.items()))


def _load_smic(root: Path) -> list[MicroClip]:
    """Read SMIC-HS: ``HS/sNN/micro/{negative,positive,surprise}/<clip>/*``; its onset is the first frame, no apex."""
    home = find_any(root, "HS", "*/HS", "*/*/HS") or root
    clips = []
    folders = [p for p in home.glob("[sS]*/micro/*/*") if p.is_dir() and not is_debris(p)] if home.is_dir() else []
    for folder in sorted(folders):
        frames = numbered_frames(folder)
        subject = _numbered("s{:02d}")(folder.parts[-4])
        emotion = folder.parent.name.casefold()
        numbers = list(frames) or [0]
        clips.append(
            MicroClip(
                "smic", subject, folder.name, frames, numbers[0], None, numbers[-1], _SAME.get(emotion, emotion),
                problem="" if len(frames) > 1 else f"no frames were found for {subject}/{folder.name}",
            )
        )  # fmt: skip
    if not clips:
        raise wrong_root(root, looked_for=("HS/s01/micro/{negative,positive,surprise}/<clip>/",), dataset="SMIC-HS")
    return clips


def _load_folders(root: Path) -> list[MicroClip]:
    """Read ``SUBJECT/EMOTION/CLIP``, each a folder of frames or a video from onset to offset; the apex is not known."""
    clips = []
    for place in sorted(root.glob("*/*/*")):
        is_video = place.suffix.lower() in VIDEO_SUFFIXES
        if is_debris(place) or not (is_video or place.is_dir()):
            continue
        frames = {} if is_video else numbered_frames(place)
        numbers = list(frames) or [0]
        emotion = place.parent.name.casefold()
        clips.append(
            MicroClip(
                "clips", place.parts[-3], place.stem, frames, numbers[0], None, numbers[-1],
                _SAME.get(emotion, emotion),
                problem="" if is_video or len(frames) > 1 else f"no frames were found for {place.name}",
                video=place if is_video else None,
            )
        )  # fmt: skip
    if not clips:
        raise wrong_root(root, looked_for=("SUBJECT/EMOTION/CLIP.mp4", "SUBJECT/EMOTION/CLIP/1.png"), dataset="clips")
    return clips
