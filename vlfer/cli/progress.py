"""Progress on stderr: bars with frames a second and the time left on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vlfer.cli.exits import say

if TYPE_CHECKING:
    from vlfer.pipeline import Hook

_QUIET_S = 15.0


@contextmanager
def progress(total: int) -> Iterator[tuple[Callable[[str], Any], Hook]]:
    """Yield a function that tells the stage, and a hook for `EmotionPipeline.analyse`.

    Args:
        total: Number of sources.
    """
    if not sys.stderr.isatty():
        yield (lambda stage: None), _Lines().hook
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft
    from rich.text import Text

    class Speed(ProgressColumn):
        def render(self, task: Task) -> Text:
            is_known = task.speed is not None and task.fields.get("unit")
            return Text(f"{task.speed:.0f} {task.fields['unit']}" if is_known else "")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Speed(), TimeLeft())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        files = bars.add_task("starting", total=total)
        frames = bars.add_task("frames", total=None, visible=False, unit="fps")

        def hook(step: str, done: int, of: int) -> None:
            if step == "sources":
                bars.update(files, completed=done)
                bars.reset(frames, visible=False, total=None)
            else:
                bars.update(frames, description=step, completed=done, total=of or None, visible=True)

        yield (lambda stage: bars.update(files, description=stage)), hook


class _Lines:
    """One line every quarter of a minute."""

    def __init__(self) -> None:
        self._begun: tuple[str, float, int] | None = None
        self._told_s = 0.0

    def hook(self, step: str, done: int, of: int) -> None:
        now = time.monotonic()
        if step == "sources" or self._begun is None or self._begun[0] != step or done < self._begun[2]:
            self._begun = None if step == "sources" else (step, now, done)
            self._told_s = now
            return
        if now - self._told_s < _QUIET_S:
            return
        self._told_s = now
        speed = (done - self._begun[2]) / max(now - self._begun[1], 1e-6)
        left = f", {_minutes((of - done) / speed)} left" if of > done and speed > 0 else ""
        say(f"{step}: {done}" + (f" of {of}" if of else "") + f", {speed:.0f} fps{left}")


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
