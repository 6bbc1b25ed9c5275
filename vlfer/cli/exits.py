"""Exit codes, and how an error becomes a message and a code."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from vlfer.errors import (
    AdapterError,
    BackboneError,
    ConfigError,
    DataError,
    EnvironmentProblem,
    PromptError,
    VlferError,
)

DONE = 0
SOME_FAILED = 1
USAGE = 2
ENVIRONMENT = 3
INTERRUPTED = 130


def exit_code(error: BaseException) -> int:
    """Return the exit code that an error stands for."""
    if isinstance(error, (PromptError, ConfigError, DataError)):
        return USAGE
    if isinstance(error, (EnvironmentProblem, BackboneError, AdapterError, ImportError)):
        return ENVIRONMENT
    return SOME_FAILED if isinstance(error, VlferError) else ENVIRONMENT


def say(message: str) -> None:
    """Write one line for a human: stderr, so that stdout stays data."""
    typer.echo(message, err=True)


@contextmanager
def goes_on(kept: Path | None = None) -> Iterator[None]:
    """Say after Ctrl-C that nothing is lost, around work that keeps what it did, in the cache unless told where."""
    try:
        yield
    except KeyboardInterrupt:
        say(f"Stopped; what was done is kept{f' in {kept}' if kept else ''}. The same command goes on from there.")
        raise


class ReportingGroup(TyperGroup):
    """A group of commands that ends with a message and a code instead of a traceback where the cause is known."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; turn vlfer's own errors, missing libraries and Ctrl-C into exits."""
        try:
            return super().invoke(ctx)
        except VlferError as error:
            say(f"Error: {error.message}")
            raise typer.Exit(exit_code(error)) from error
        except ImportError as error:
            say(f"Error: A library cannot be loaded: {error}. Try: vlfer doctor")
            raise typer.Exit(ENVIRONMENT) from error
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader of stdout left, as in `vlfer ... | head`
                raise
            say(f"Error: {error}.")
            raise typer.Exit(ENVIRONMENT) from error
        except KeyboardInterrupt as error:
            say("Interrupted.")
            raise typer.Exit(INTERRUPTED) from error
