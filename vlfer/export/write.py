"""One call for all files of a video."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from vlfer.errors import ConfigError, did_you_mean
from vlfer.reporting import Analysis

Kind = Literal["frames", "parquet", "segments", "srt", "vtt", "elan", "summary", "video"]
KINDS: tuple[Kind, ...] = get_args(Kind)
DEFAULT_KINDS: tuple[Kind, ...] = ("frames", "segments", "srt", "summary")


def check_kinds(names: Sequence[str], *, extra: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the kinds asked for; "all" stands for every one.

    Args:
        names: As typed.
        extra: Kinds that the caller writes itself.

    Raises:
        ConfigError: If one is unknown.
    """
    known = (*KINDS, *extra)
    if "all" in names:
        return known
    for name in names:
        if name not in known:
            raise ConfigError(
                f"There is no output {name!r}.",
                why=f"Known are all, {', '.join(known)}. {did_you_mean(name, known)}".strip(),
                fix="--write frames,srt,video",
            )
    return tuple(dict.fromkeys(names))


def write_video_results(
    analysis: Analysis,
    source: Path,
    stem: Path,
    *,
    kinds: Sequence[str],
    start_s: float = 0.0,
    end_s: float | None = None,
    threshold: float | None = None,
    tie_margin: float = 0.05,
    on_frames: Callable[[int], None] | None = None,
) -> list[Path]:
    """Write what was found in a video.

    Args:
        analysis: With timelines.
        source: The video.
        stem: Where, without suffix: ``results/film`` gives ``results/film.frames.csv`` and so on.
        kinds: Of `KINDS`; others are passed over.
        start_s: As analysed.
        end_s: As analysed.
        threshold: As decided with.
        tie_margin: As decided with.
        on_frames: Told how many frames of the annotated video are written.

    Returns:
        The files.

    Raises:
        EnvironmentProblem: If a library is missing.
        VlferError: If the video cannot be read again.
        OSError: If a file cannot be written.
    """
    from vlfer.export import film, subtitles, summary, tables

    predictions, timelines = analysis.report.predictions, analysis.timelines
    deciding: dict[str, Any] = {"threshold": threshold, "tie_margin": tie_margin}
    window: dict[str, Any] = {"start_s": start_s, "end_s": end_s}
    made: dict[str, list[tuple[str, Callable[[Path], object]]]] = {
        "frames": [("frames.csv", lambda path: tables.write_frames_csv(timelines, path))],
        "parquet": [("frames.parquet", lambda path: tables.write_frames_parquet(timelines, path))],
        "segments": [
            ("segments.csv", lambda path: tables.write_segments_csv(predictions, path)),
            ("segments.json", lambda path: tables.write_segments_json(predictions, path)),
        ],
        "srt": [("srt", lambda path: subtitles.write_srt(predictions, path))],
        "vtt": [("vtt", lambda path: subtitles.write_vtt(predictions, path))],
        "elan": [("eaf", lambda path: subtitles.write_elan(predictions, path, media=source))],
        "summary": [("summary.json", lambda path: summary.write_summary(analysis, path))],
        "video": [
            (
                "annotated.mp4",
                lambda path: film.write_annotated(source, timelines, path, on_frames=on_frames, **window, **deciding),
            )
        ],
    }  # fmt: skip
    written = []
    for kind in kinds:
        for suffix, write in made.get(kind, []):
            path = stem.with_name(f"{stem.name}.{suffix}")
            write(path)
            written.append(path)
    return written
