"""Errors on their way to the screen: three parts in a card, never a stack trace."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable
from typing import Any

from vlfer.errors import VlferError
from vlfer.serve.ui_html import problem

_log = logging.getLogger(__name__)
_PATH = re.compile(r"(?:/[^/'\"\s]+){2,}")


def unforeseen(error: BaseException) -> VlferError:
    """Return the words for an error that nobody foresaw; its type alone is told, as its text may hold a path."""
    return VlferError(
        "Something went wrong that was not foreseen.",
        why=f"The program met a {type(error).__name__}; the details are in the server's log.",
        fix="another file or other words. If it comes again, please report it.",
    )


def explain(error: Exception) -> str:
    """Return the card of an error; log it where it was not foreseen."""
    return problem(_told(error))


def spoken(error: Exception) -> str:
    """Return an error as plain text; log it where it was not foreseen."""
    return _told(error).message


def _told(error: Exception) -> VlferError:
    if isinstance(error, VlferError):
        return _without_paths(error)
    _log.error("A handler of the app failed.", exc_info=error)
    return unforeseen(error)


def guarded(*, failed: Callable[[str], Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a handler answer with a card where it raises.

    Args:
        failed: Card to what the handler returns instead of its usual answer.
    """

    def wrap(handler: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(handler)
        def run(*args: Any, **kwargs: Any) -> Any:
            try:
                return handler(*args, **kwargs)
            except Exception as error:
                return failed(explain(error))

        return run

    return wrap


def _without_paths(error: VlferError) -> VlferError:
    """Shorten the server's own paths in a message to the name of the file."""

    def short(text: str) -> str:
        return _PATH.sub(lambda match: match.group(0).rsplit("/", 1)[-1], text)

    return VlferError(short(error.what), why=short(error.why), fix=short(error.fix))
