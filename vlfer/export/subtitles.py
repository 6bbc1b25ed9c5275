"""Segments as subtitles (SRT, WebVTT) and as tiers that ELAN opens."""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

from vlfer.config import write_atomically
from vlfer.types import Prediction

_LEAST_S = 0.04
# What XML 1.0 does not hold, not even escaped.
_NO_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def cues(predictions: Sequence[Prediction]) -> list[tuple[float, float, list[str]]]:
    """Return what is on screen when: stretches of time without overlap, each with one line a face.

    Abstentions are left out. Faces are numbered from 1 and ordered, and named only where there are several.
    """
    told = [p for p in predictions if p.label is not None and p.end_s - p.start_s >= _LEAST_S]
    several = len({p.track_id for p in predictions}) > 1
    edges = sorted({edge for p in told for edge in (p.start_s, p.end_s)})
    found: list[tuple[float, float, list[str]]] = []
    for start_s, end_s in pairwise(edges):
        middle_s = (start_s + end_s) / 2
        here = sorted((p for p in told if p.start_s <= middle_s < p.end_s), key=lambda p: p.track_id)
        lines = [
            (f"face {p.track_id + 1}: " if several else "") + f"{_one_line(p.label)} ({p.probability:.0%})"
            for p in here
        ]
        if not lines or end_s - start_s < _LEAST_S:
            continue
        if found and found[-1][2] == lines and abs(found[-1][1] - start_s) < 1e-6:
            found[-1] = (found[-1][0], end_s, lines)
        else:
            found.append((start_s, end_s, lines))
    return found


def write_srt(predictions: Sequence[Prediction], path: Path) -> None:
    """Write SubRip subtitles.

    Raises:
        OSError: If the file cannot be written.
    """
    blocks = [
        f"{number}\n{_clock(start_s, ',')} --> {_clock(end_s, ',')}\n" + "\n".join(lines) + "\n"
        for number, (start_s, end_s, lines) in enumerate(cues(predictions), start=1)
    ]
    write_atomically(path, "\n".join(blocks).encode("utf-8"))


def write_vtt(predictions: Sequence[Prediction], path: Path) -> None:
    """Write WebVTT subtitles, as browsers show them.

    Raises:
        OSError: If the file cannot be written.
    """
    blocks = ["WEBVTT\n"]
    for start_s, end_s, lines in cues(predictions):
        text = "\n".join(line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") for line in lines)
        blocks.append(f"{_clock(start_s, '.')} --> {_clock(end_s, '.')}\n{text}\n")
    write_atomically(path, "\n".join(blocks).encode("utf-8"))


def write_elan(predictions: Sequence[Prediction], path: Path, *, media: Path) -> None:
    """Write an ELAN document (EAF 3.0, Max Planck Institute for Psycholinguistics): one tier a face.

    Abstentions are annotations of the text "unclear".

    Args:
        predictions: The segments.
        path: Where.
        media: The video, which the document refers to.

    Raises:
        OSError: If the file cannot be written.
    """
    root = ElementTree.Element(
        "ANNOTATION_DOCUMENT",
        {
            "AUTHOR": "vlfer", "DATE": datetime.now().astimezone().isoformat(timespec="seconds"), "FORMAT": "3.0",
            "VERSION": "3.0", "xmlns:xsi": "http://www.w3.org/2001/XMLSchema-instance",
            "xsi:noNamespaceSchemaLocation": "http://www.mpi.nl/tools/elan/EAFv3.0.xsd",
        },
    )  # fmt: skip
    header = ElementTree.SubElement(root, "HEADER", {"MEDIA_FILE": "", "TIME_UNITS": "milliseconds"})
    kind = mimetypes.guess_type(media.name)[0] or "video/mp4"
    where = {"MEDIA_URL": media.resolve().as_uri(), "RELATIVE_MEDIA_URL": f"./{media.name}", "MIME_TYPE": kind}
    ElementTree.SubElement(header, "MEDIA_DESCRIPTOR", where)
    last_id = ElementTree.SubElement(header, "PROPERTY", {"NAME": "lastUsedAnnotationId"})
    last_id.text = str(len(predictions))
    order = ElementTree.SubElement(root, "TIME_ORDER")
    # Each annotation has time slots of its own: what shares one is moved together in ELAN.
    placed = [one for track_id in sorted({p.track_id for p in predictions}) for one in _placed(predictions, track_id)]
    edges = sorted((edge, number, side) for number, (_, *ends) in enumerate(placed) for side, edge in enumerate(ends))
    slots = {(number, side): f"ts{count}" for count, (_, number, side) in enumerate(edges, start=1)}
    for edge, number, side in edges:
        ElementTree.SubElement(order, "TIME_SLOT", {"TIME_SLOT_ID": slots[number, side], "TIME_VALUE": str(edge)})
    tiers: dict[int, ElementTree.Element] = {}
    for number, (p, _, _) in enumerate(placed):
        if p.track_id not in tiers:
            attributes = {"LINGUISTIC_TYPE_REF": "default-lt", "TIER_ID": f"face {p.track_id + 1}"}
            tiers[p.track_id] = ElementTree.SubElement(root, "TIER", attributes)
        annotation = ElementTree.SubElement(
            ElementTree.SubElement(tiers[p.track_id], "ANNOTATION"), "ALIGNABLE_ANNOTATION",
            {
                "ANNOTATION_ID": f"a{number + 1}", "TIME_SLOT_REF1": slots[number, 0],
                "TIME_SLOT_REF2": slots[number, 1],
            },
        )  # fmt: skip
        ElementTree.SubElement(annotation, "ANNOTATION_VALUE").text = _NO_XML.sub("", _one_line(p.label or "unclear"))
    settings = {"GRAPHIC_REFERENCES": "false", "LINGUISTIC_TYPE_ID": "default-lt", "TIME_ALIGNABLE": "true"}
    ElementTree.SubElement(root, "LINGUISTIC_TYPE", settings)
    ElementTree.indent(root)
    write_atomically(path, ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


def _placed(predictions: Sequence[Prediction], track_id: int) -> list[tuple[Prediction, int, int]]:
    """Return the segments of one face with their edges in milliseconds, in order, none empty, none over another."""
    found: list[tuple[Prediction, int, int]] = []
    for p in sorted((p for p in predictions if p.track_id == track_id), key=lambda p: p.start_s):
        start = max(0, round(1000 * p.start_s), found[-1][2] if found else 0)
        found.append((p, start, max(round(1000 * p.end_s), start + 1)))
    return found


def _clock(time_s: float, mark: str) -> str:
    total = max(0, round(1000 * time_s))
    seconds, milliseconds = divmod(total, 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{mark}{milliseconds:03d}"


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())
