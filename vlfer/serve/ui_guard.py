"""Errors on their way to the screen: three parts in a card, never a stack trace."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

from vlfer.errors import VlferError
from vlfer.serve.ui_html import problem

_log = logging.getLogger(__name__)


def unforeseen(error: BaseException) -> VlferError:
    """Return the words for an error that nobody foresaw; its type alone is told, as its text may hold a path."""
    return VlferError(
        "Something went wrong that was not foreseen.",
        why=f"The program met a {type(error).__name__}; the details are in the server's log.",
        fix="another file or other words. If it comes again, please report it.",
    )


def explain(error: Exception) -> str:
    """Return the card of an error; log it where it was not foreseen."""
    if isinstance(error, VlferError):
        return problem(_without_paths(error))
    _log.error("A handler of the app failed.", exc_info=error)
    return problem(unforeseen(error))


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
    import os
    import re

    def short(text: str) -> str:
        return re.sub(r"(?:/[^/'\"\s]+){2,}/([^/'\"\s]+)", lambda match: os.path.basename(match.group(0)), text)

    return VlferError(short(error.what), why=short(error.why), fix=short(error.fix))
