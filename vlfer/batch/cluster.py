"""Joining a Ray cluster, or starting one on this machine."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from typing import Any

from vlfer.errors import EnvironmentProblem

_KNOCK_S = 10.0


def import_ray() -> Any:
    """Return the library, quiet and without usage statistics.

    Raises:
        EnvironmentProblem: If it is not installed.
    """
    # The variables are read when the library is imported. A researcher's file names are nobody else's business.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    # Ray runs its workers at niceness 15; on a busy machine they would hardly run beside what they replace.
    os.environ.setdefault("RAY_worker_niceness", "0")
    # Under "uv run" Ray would build each worker's environment anew from the working folder, and fail on its options.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise EnvironmentProblem(
            "Ray is not installed.", why="--engine ray needs it.", fix='uv sync --extra ray, or pip install "ray[data]"'
        ) from error
    return ray


@contextlib.contextmanager
def connection(address: str | None = None) -> Iterator[Any]:
    """Join a cluster, or start one on this machine; yield the library. What was there before stays connected.

    Args:
        address: Of a running cluster, or None to start one.

    Raises:
        EnvironmentProblem: If Ray is not installed or the cluster cannot be reached.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    try:
        _knock(address)
        ray.init(
            address=address or "local", include_dashboard=False if address is None else None, log_to_driver=False,
            logging_level="ERROR",
        )  # fmt: skip
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise EnvironmentProblem(
            f"The Ray cluster {address or 'on this machine'!r} cannot be reached: {error}",
            fix="ray status on its head node; or leave --address out to use this machine alone",
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _knock(address: str | None) -> None:
    """Raise OSError if nobody listens at HOST:PORT; Ray itself would try for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_KNOCK_S).close()
