"""Which files are meant, and which of them are images and which videos."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from PIL import Image

from vlfer.errors import MediaReadError
from vlfer.video.images import check_file, read_head, sniff

MediaKind = Literal["image", "video"]

# fmt: off
IMAGE_SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".avif", ".ppm", ".pgm",
    ".pnm", ".jp2", ".ico", ".tga",
})
VIDEO_SUFFIXES = frozenset({
    ".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".wmv", ".flv", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".3gp",
    ".ogv", ".vob", ".mxf",
})
# fmt: on


def media_kind(path: str | Path) -> MediaKind:
    """Tell whether a file is an image or a video: by its first bytes, then by its suffix; animated GIFs are videos.

    Raises:
        MediaReadError: If the file is missing, or neither its content nor its suffix is known.
    """
    path = Path(path)
    if path.is_dir():
        raise MediaReadError(
            f"The folder {str(path)!r} holds no image or video.",
            why=f"Looked for {', '.join(sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES))}.",
            fix="give another folder.",
        )
    check_file(path, error=MediaReadError)
    head = read_head(path, error=MediaReadError)
    kind = sniff(head)
    if kind == "image":
        return "video" if head.startswith(b"GIF8") and _is_animated(path) else "image"
    if kind == "video" or path.suffix.lower() in VIDEO_SUFFIXES:
        return "video"
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return "image"
    raise MediaReadError(f"The file {str(path)!r} is neither an image nor a video.", why="Its content is not known.")


def expand_paths(inputs: Sequence[str | Path]) -> list[Path]:
    """Turn files, folders and patterns into files.

    Args:
        inputs: Files are kept as they are; folders stand for all images and videos below them, sorted; patterns such
            as ``clips/*.mp4`` for what they match, sorted.

    Returns:
        Paths without repetition. What is missing, matches nothing or holds nothing stays in the list, so that each
        becomes an error of its own when it is read.
    """
    paths: list[Path] = []
    for entry in inputs:
        path = Path(entry).expanduser()
        if not path.exists() and glob.has_magic(str(path)):
            matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
            paths += [file for match in matches for file in _files_of(match)] or [path]
        else:
            paths += _files_of(path)
    return list(dict.fromkeys(paths))


def _files_of(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    known = IMAGE_SUFFIXES | VIDEO_SUFFIXES
    files = [
        file
        for file in path.rglob("*")
        if file.suffix.lower() in known and not file.name.startswith(".") and file.is_file()
    ]
    return sorted(files) or [path]


def _is_animated(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            return bool(getattr(image, "is_animated", False))
    except Exception:  # damaged: reading it as an image tells how
        return False
