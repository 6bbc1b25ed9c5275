"""What `vlfer predict` writes for a video beside the table of segments, and how an interrupted run goes on."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from vlfer.cli.exits import say
from vlfer.errors import ConfigError, VlferError

if TYPE_CHECKING:
    from vlfer.config import PredictConfig
    from vlfer.pipeline import Hook
    from vlfer.reporting import Analysis

TIMELINE = "timeline"
DEFAULT = "frames,segments,srt,summary,timeline"
RESUME_DIR = ".vlfer-resume"


class VideoFiles:
    """The files of each video of a run.

    Args:
        folder: Where they go; None writes none.
        kinds: As typed, separated by commas; None takes the default.
        settings: Of the run.

    Raises:
        ConfigError: If a kind is unknown, or there is nowhere to write to.
    """

    def __init__(self, folder: Path | None, kinds: str | None, *, settings: PredictConfig) -> None:
        from vlfer.export.write import check_kinds

        names = [name.strip() for name in (DEFAULT if kinds is None else kinds).split(",") if name.strip()]
        self.kinds = check_kinds(names, extra=(TIMELINE,))
        if kinds is not None and folder is None:
            raise ConfigError("--write was given without a folder.", why="Files need a place.", fix="--out results/")
        self.folder = folder
        self.settings = settings
        self._stems: set[Path] = set()

    @property
    def journal_dir(self) -> Path | None:
        """Where a run that breaks off keeps what it had."""
        return None if self.folder is None else self.folder / RESUME_DIR

    def forget(self) -> None:
        """Remove what was kept for a broken run."""
        if self.journal_dir is not None:
            shutil.rmtree(self.journal_dir, ignore_errors=True)

    def write(self, source: Path, analysis: Analysis, *, hook: Hook | None = None) -> bool:
        """Write the files of a video; tell of each kind that failed, and return whether all went well."""
        if self.folder is None or not analysis.timelines:
            return True
        from vlfer.export.write import write_video_results

        stem = self._stem(self.folder, source)
        written: list[Path] = []
        is_good = True
        for kind in self.kinds:
            try:
                if kind == TIMELINE:
                    written.append(self._draw(analysis, stem))
                    continue
                written += write_video_results(
                    analysis, source, stem, kinds=[kind], start_s=self.settings.start_s, end_s=self._end_s(analysis),
                    threshold=self.settings.threshold, tie_margin=self.settings.tie_margin,
                    on_frames=None if hook is None else lambda done: hook("drawing", done, 0),
                )  # fmt: skip
            except (VlferError, OSError) as error:
                is_good = False
                say(f"{source}: {kind} could not be written: {error}")
        if analysis.n_replayed:
            say(f"{source}: went on after {analysis.n_replayed} frames of an earlier run")
        if written:
            say(f"{source}: written {', '.join(path.name for path in written)} in {self.folder}")
        return is_good

    def _end_s(self, analysis: Analysis) -> float | None:
        return analysis.last_s + 1e-3 if analysis.was_interrupted else self.settings.end_s

    def _draw(self, analysis: Analysis, stem: Path) -> Path:
        from vlfer.serve.plots import plot_timeline, save_figure

        path = stem.with_name(f"{stem.name}.{TIMELINE}.png")
        title = Path(analysis.report.source).name
        figure = plot_timeline(analysis.timelines, analysis.report.predictions, title=title, cuts_s=analysis.cuts_s)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_figure(figure, path)
        return path

    def _stem(self, folder: Path, source: Path) -> Path:
        wanted = stem = folder / source.stem
        number = 1
        while stem in self._stems:
            number += 1
            stem = wanted.with_name(f"{wanted.name}-{number}")
        self._stems.add(stem)
        return stem
