"""`vlfer predict --explain`: why each face got its label, printed and drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlfer.cli.exits import say
from vlfer.errors import VlferError

if TYPE_CHECKING:
    from vlfer.explain import Explanation
    from vlfer.pipeline import EmotionPipeline
    from vlfer.reporting import Analysis
    from vlfer.types import Report

Reasons = tuple["Explanation | None", ...]
_SENTENCES = 3


def explain(
    pipeline: EmotionPipeline, source: Path, analysis: Analysis, *, strict: bool = False
) -> tuple[Analysis, Reasons]:
    """Explain what was found in one file; a failure is told, and the answer stays.

    Raises:
        VlferError: Only with ``strict``.
    """
    from vlfer.explain import explain_analysis

    try:
        return explain_analysis(pipeline, source, analysis)
    except VlferError as error:
        if strict:
            raise
        say(f"{source}: it could not be explained: {error.message}")
        return analysis, ()


def draw(reasons: Reasons, picture: Path, *, title: str) -> Path:
    """Draw reasons beside a picture, under its name and "-why"."""
    from vlfer.serve.plots import save_figure
    from vlfer.serve.why import plot_explanations

    path = picture.with_name(f"{picture.stem}-why{picture.suffix}")
    save_figure(plot_explanations(reasons, title=title), path)
    return path


def print_reasons(reports: Sequence[Report], *, console: Any) -> None:
    """Print under the table which sentences pulled most, one block a face."""
    from rich.markup import escape

    for report in reports:
        for prediction in report.predictions:
            why = prediction.explanation
            if not why:
                continue
            rival = f" rather than {escape(why['rival'])}" if why["rival"] else ""
            where = ", ".join(f"{name} {share:.0%}" for name, share in why.get("where", {}).items())
            head = f"{escape(report.source)}, face {prediction.track_id + 1}: why {escape(why['label'])}{rival}"
            console.print(f"\n{head}", highlight=False, soft_wrap=True)
            for row in why["pulled_for"][:_SENTENCES]:
                console.print(f"  {row['pull']:+.2f}  {escape(row['sentence'])}", highlight=False, soft_wrap=True)
            for row in why["pulled_against"][:1]:
                against = f"  {row['pull']:+.2f}  {escape(row['sentence'])} ({escape(row['label'])})"
                console.print(against, highlight=False, soft_wrap=True)
            if where:
                console.print(f"  on the face: {where}", highlight=False, soft_wrap=True)
