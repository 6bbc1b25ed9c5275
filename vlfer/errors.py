"""Errors of vlfer: one hierarchy, each message in three parts.

A message says what happened (with the actual value), why it matters or what the cause is, and the next thing to try.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class VlferError(Exception):
    """Base of every error that vlfer raises on purpose.

    Args:
        what: What happened, with the actual value.
        why: The cause or the consequence.
        fix: The next command or change to try.
    """

    def __init__(self, what: str, *, why: str = "", fix: str = "") -> None:
        self.what = what
        self.why = why
        self.fix = fix
        super().__init__(self.message)

    @property
    def message(self) -> str:
        """The full message: what, why and what to try, joined by single spaces."""
        return " ".join(part for part in (self.what, self.why, f"Try: {self.fix}" if self.fix else "") if part)

    def __str__(self) -> str:
        return self.message


class ShapeError(VlferError, ValueError):
    """An array has another shape or dtype than the type demands."""


class MediaReadError(VlferError, OSError):
    """A file or stream could not be read as an image or a video."""


class ImageReadError(MediaReadError):
    """An image file is missing, empty, damaged, too large or of an unknown format."""


class VideoReadError(MediaReadError):
    """A video file is missing, empty, damaged or holds no frame."""


class NoFaceError(VlferError, LookupError):
    """No face was found where one is needed."""


class PromptError(VlferError, ValueError):
    """A label set or a descriptor is malformed, empty, duplicated or unknown."""


class BackboneError(VlferError, RuntimeError):
    """A backbone is unknown, or its weights cannot be loaded."""


class AdapterError(VlferError, RuntimeError):
    """An adapter is damaged or was made for another backbone."""


class SpaceError(VlferError, ValueError):
    """Vectors of two different embedding spaces were about to be compared."""


class ConfigError(VlferError, ValueError):
    """A configuration holds unknown keys or invalid values."""


class DataError(VlferError, ValueError):
    """A data set, manifest or archive is not in the layout it claims."""


class EnvironmentProblem(VlferError, RuntimeError):  # noqa: N818, EnvironmentError is a name of Python's own
    """A package, a system library or a device that is needed is missing or mismatched."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``"Did you mean 'x'?"`` for the closest of ``known``, or an empty string if none is close."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"Did you mean {close[0]!r}?" if close else ""
