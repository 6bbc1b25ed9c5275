"""One measured number, and the peak of a process's own memory."""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

_EVERY_S = 0.01


@dataclass(frozen=True, slots=True)
class Measurement:
    """One measured number.

    Attributes:
        name: What was measured, on how much.
        value: The number; None where this machine cannot tell.
        unit: Of the number.
        bar: What it is held against, or None.
        at_least: Whether the bar is a lower one.
        note: How it was measured.
    """

    name: str
    value: float | None
    unit: str
    bar: float | None = None
    at_least: bool = False
    note: str = ""

    @property
    def is_met(self) -> bool | None:
        """Whether the bar is met; None without a bar or a number."""
        if self.bar is None or self.value is None:
            return None
        return self.value >= self.bar if self.at_least else self.value <= self.bar

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {**asdict(self), "is_met": self.is_met}


class PeakMemory:
    """Watch the memory that belongs to this process alone, without mapped files, which the system takes back at will.

    Attributes:
        grown_mb: Peak over the level at the start, in MB of 10^6 bytes; None where the system does not tell.
        peak_mb: The peak itself, 0 where the system does not tell.
    """

    def __init__(self) -> None:
        self.grown_mb: float | None = None
        self.peak_mb = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._start = self._peak = _own_bytes()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self._start is not None and self._peak is not None:
            self.grown_mb = (self._peak - self._start) / 1e6
            self.peak_mb = self._peak / 1e6

    def _watch(self) -> None:
        while not self._stop.wait(_EVERY_S):
            now = _own_bytes()
            if now is not None and self._peak is not None:
                self._peak = max(self._peak, now)


def _own_bytes() -> int | None:
    """Return the anonymous resident memory of this process; Linux only."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:")), None)
