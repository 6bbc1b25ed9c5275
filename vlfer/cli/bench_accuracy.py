"""`vlfer bench accuracy`: how well backbones read faces, beside peers and under other words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from vlfer.cli.exits import say
from vlfer.errors import ConfigError

_FIGURES = ("war", "uar", "ece", "brier", "nll", "spearman")


def bench_accuracy(
    data: Annotated[
        list[str], typer.Option(help="NAME=FILE or NAME@LABELS=FILE: an archive or a manifest. May repeat.")
    ],
    backbone: Annotated[list[str] | None, typer.Option(help="See: vlfer backbones list. May repeat.")] = None,
    part: Annotated[
        Literal["validation", "test", "held-out"],
        typer.Option(help="Of an archive that a backbone was trained on, which faces it has held out."),
    ] = "validation",
    words: Annotated[
        list[str] | None, typer.Option(help="Rename classes by a table class, kind, text, or by 'heldout'. May repeat.")
    ] = None,
    only_unmet: Annotated[
        bool, typer.Option("--unmet", help="Of --words, only texts that the lexicon, so the training, does not hold.")
    ] = False,
    draws: Annotated[int, typer.Option(help="Random choices of words.", min=1)] = 100,
    show_texts: Annotated[bool, typer.Option(help="List every text of --words with its own loss.")] = False,
    ensemble: Annotated[
        Literal["name", "templates", "descriptors", "all"], typer.Option(help="Sentences that stand for a label.")
    ] = "all",
    peers: Annotated[str, typer.Option(help="Networks of other packages: names by commas, or all.")] = "",
    leave_out: Annotated[
        str, typer.Option(help="Folders of models that were trained without a class, such as 'runs/without-*/model'.")
    ] = "",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
    bootstrap: Annotated[int, typer.Option(help="Bootstrap samples.", min=50)] = 1000,
    out: Annotated[Path | None, typer.Option(help="Also write the figures to this JSON file.")] = None,
    form: Annotated[Literal["table", "json"], typer.Option("--format", help="How to print.")] = "table",
) -> None:
    """Measure backbones, and peers beside them, on sets of face crops.

    Training faces are never scored: the card of a backbone tells which faces of its archive it has held out.

    With --leave-out only the recall of the class that each model was trained without is measured.
    """
    from vlfer.bench.faces import parse_address

    addresses = [parse_address(text) for text in data]
    doubled = [a.name for i, a in enumerate(addresses) if a.name in {b.name for b in addresses[:i]}]
    if doubled:
        raise ConfigError(f"Two sets are called {doubled[0]!r}.", fix="--data another-name=FILE")
    report: Mapping[str, Any]
    if leave_out:
        from vlfer.bench.leave_out import find_models, leave_out_report

        report = leave_out_report(find_models(leave_out), addresses, ensemble=ensemble, say=say)
    else:
        from vlfer.bench.peers.environment import find_peers
        from vlfer.bench.report import accuracy_report
        from vlfer.bench.words import load_texts, unmet

        texts = [load_texts(source) for source in words or ()]

        report = accuracy_report(
            backbone or ["bundled"], addresses, part=part, ensemble=ensemble, draws=draws, show_texts=show_texts,
            words=[unmet(each) for each in texts] if only_unmet else texts,
            peers=find_peers([name.strip() for name in peers.split(",") if name.strip()]),
            device=device, samples=bootstrap, say=say,
        )  # fmt: skip
    text = json.dumps(report, indent=2, ensure_ascii=False)
    if out is not None:
        from vlfer.config import write_atomically

        write_atomically(out, f"{text}\n".encode())
        say(f"Written: {out}")
    if form == "json":
        typer.echo(text)
    elif leave_out:
        print_leave_out(report)
    else:
        print_accuracy(report)


def print_accuracy(report: Mapping[str, Any]) -> None:
    """Print the figures, the recalls and the words as tables."""
    from rich.table import Table

    from vlfer.cli.output import table_console

    console = table_console()
    for about in report["sets"]:
        console.print(
            f"{about['name']}: {about['n']} faces ({about['part']}), labels {about['labels']}", highlight=False
        )
        rows = [row for row in report["results"] if row["set"] == about["name"]]
        table = Table("backbone", box=None, pad_edge=False, header_style="bold")
        for name in ("WAR %", "95 %", "UAR %", "95 %", "ECE", "Brier", "NLL", "Spearman"):
            table.add_column(name, justify="right")
        for row in rows:
            table.add_row(row["backbone"], *_figures(row))
        console.print(table)
        recall = Table("recall %", box=None, pad_edge=False, header_style="bold")
        names = [name for name, n in about["per_class"].items() if n]
        for name in names:
            recall.add_column(f"{name} ({about['per_class'][name]})", justify="right")
        for row in rows:
            recall.add_row(row["backbone"], *(f"{100 * row['recall'][name]:.0f}" for name in names))
        console.print(recall)
    if report["words"]:
        console.print(_words_table(report["words"]))
    for note in report["notes"]:
        console.print(note, highlight=False)


def _figures(row: Mapping[str, Any]) -> list[str]:
    cells = []
    for name in _FIGURES:
        value, ends = row[name], row["interval"].get(name)
        if name in ("war", "uar"):
            cells += [f"{100 * value:.1f}", f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f}"]
        else:
            cells.append("-" if value is None else f"{value:.3f}" if name != "spearman" else f"{value:.2f}")
    return cells


def _words_table(reports: Sequence[Mapping[str, Any]]) -> Any:
    from rich.table import Table

    table = Table("renamed by", "backbone", "set", box=None, pad_edge=False, header_style="bold")
    for name in ("WAR %", "middle 90 %", "UAR %", "lost (label set)", "lost (names)", "nearest class right %"):
        table.add_column(name, justify="right")
    for report in reports:
        for kind in [
            key for key, value in report.items() if isinstance(value, dict) and "war_middle_90_percent" in value
        ]:
            one = report[kind]
            low, high = one["war_middle_90_percent"]
            table.add_row(
                f"{Path(report['source']).name}: {kind}s", report["backbone"], report["set"], f"{100 * one['war']:.1f}",
                f"{100 * low:.0f} to {100 * high:.0f}", f"{100 * one['uar']:.1f}",
                f"{one['loss_against_label_set']:.1f}", f"{one['loss_against_class_names']:.1f}",
                f"{100 * one['nearest_class']['right']:.0f}",
            )  # fmt: skip
    return table


def print_leave_out(report: Mapping[str, Any]) -> None:
    """Print the recall of each class by the model that never saw it."""
    from rich.table import Table

    from vlfer.cli.output import table_console

    table = Table("left out", "set", box=None, pad_edge=False, header_style="bold")
    for name in ("faces", "recall %", "95 %", "chance %", "predicted %", "WAR % of all", "UAR % of all"):
        table.add_column(name, justify="right")
    for row in report["rows"]:
        low, high = row.get("interval", (None, None))
        table.add_row(
            row["class"], row["set"], str(row["n"]), f"{100 * row['recall']:.1f}" if "recall" in row else "-",
            "-" if low is None else f"{100 * low:.0f} to {100 * high:.0f}", f"{100 * row['chance']:.1f}",
            f"{100 * row['predicted_share']:.1f}", f"{100 * row['war']:.1f}", f"{100 * row['uar']:.1f}",
        )  # fmt: skip
    console = table_console()
    console.print(table)
    for name, value in report["mean_recall"].items():
        console.print(f"{name}: mean recall of classes never seen {100 * value:.1f} %", highlight=False)
