"""`vlfer bench words`: what words do to recognition, on held-out faces with votes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from vlfer.cli.exits import say
from vlfer.errors import ConfigError, did_you_mean

Rows = Sequence[Mapping[str, Any]]
PARTS: dict[str, str] = {
    "wordings": "Ways of standing for a class",
    "paraphrases": "Spread over 50 random paraphrases",
    "synonyms": "Classes named by the held-out words of the lexicon, 50 draws",
    "mixtures": "Mixtures against split votes (AUC)",
    "languages": "Class names in other languages",
    "classes": "Each class by its words",
    "shades": "More and less of one expression, ranked within a class",
    "bias": "What labels get from faces in general, taken off",
    "temperature": "Temperature by number of labels",
    "abstention": "Abstention",
    "relevance": "Whether relevance maps point at what is used",
}
UNSEEN = "Classes that a model was never shown, by their words alone"


def bench_words(
    data: Annotated[Path, typer.Option(help="Archive of faces with votes: images, votes, classes.")],
    backbone: Annotated[str, typer.Option(help="See: vlfer backbones list.")] = "bundled",
    sets: Annotated[
        str, typer.Option(help="Further sets of the eight classes, joined by commas: shipped names or YAML files.")
    ] = "graded8",
    parts: Annotated[str, typer.Option(help="What to measure.")] = ",".join(PARTS),
    leave_out: Annotated[
        str, typer.Option(help="Also: models that were trained without a class, such as 'runs/without-*/model'.")
    ] = "",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of all draws.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Also write the numbers to this JSON file.")] = None,
    form: Annotated[Literal["table", "json"], typer.Option("--format", help="How to print.")] = "table",
) -> None:
    """Measure wordings, paraphrases, synonyms, mixtures, languages, corrections and explanations.

    Faces are split by content as in training; choices are made on the validation part, figures are of the test part
    unless a column says otherwise. Figures in percent, but AUC, Spearman and temperatures.
    """
    wanted = [part.strip() for part in parts.split(",") if part.strip()]
    for part in wanted:
        if part not in PARTS:
            raise ConfigError(f"There is no part {part!r}.", why=did_you_mean(part, PARTS), fix=", ".join(PARTS))
    from vlfer.text.labels import load_label_set
    from vlfer.text.lexicon import VOTE_CLASSES

    others = [load_label_set(spec.strip()) for spec in sets.split(",") if spec.strip()]
    for labels in others:
        if labels.names != VOTE_CLASSES:
            raise ConfigError(
                f"The set {labels.name!r} has the labels {', '.join(labels.names)}.",
                why=f"Compared are sets of {', '.join(VOTE_CLASSES)}, in this order.",
            )
    from vlfer.bench import corrections
    from vlfer.bench.shades import shade_rows
    from vlfer.bench.why import relevance_rows
    from vlfer.bench.wording import Wordings, load_held_out
    from vlfer.calibration import default_temperature
    from vlfer.config import cache_dir
    from vlfer.models.encoder import load_encoder
    from vlfer.text.bank import TextBank

    encoder = load_encoder(backbone, device=device)
    say("Encoding the held-out faces")
    held_out = load_held_out(data, encoder)
    bank = TextBank(encoder, cache_dir=cache_dir())
    bench = Wordings(
        bank, temperature=default_temperature(encoder, ensemble="all"), parts=held_out, seed=seed,
        temperature_of=lambda ensemble: default_temperature(encoder, ensemble=ensemble),
    )  # fmt: skip
    measure: dict[str, Callable[[], Rows]] = {
        "wordings": lambda: bench.wordings(others),
        "paraphrases": bench.paraphrases,
        "synonyms": bench.synonyms,
        "mixtures": bench.mixtures,
        "languages": bench.languages,
        "classes": bench.classes,
        "shades": lambda: shade_rows(bench),
        "bias": lambda: corrections.bias_rows(bench),
        "temperature": lambda: corrections.temperature_rows(bench),
        "abstention": lambda: corrections.abstention_rows(bench),
        "relevance": lambda: relevance_rows(encoder, bank, bench.test, bench.labels, seed=seed),
    }
    found: dict[str, Rows] = {}
    for part in wanted:
        say(PARTS[part])
        found[part] = measure[part]()
    if leave_out:
        say(UNSEEN)
        found["unseen"] = _unseen(leave_out, data)
    _report(found, about={
        "bench": "words", "space": encoder.space, "seed": seed, "faces": {k: len(v.votes) for k, v in held_out.items()},
    }, out=out, form=form)  # fmt: skip


def _unseen(pattern: str, data: Path) -> Rows:
    """Return the recall of each class by the model that never saw it, among all eight."""
    from vlfer.bench.faces import DEFAULT_LABELS, Address
    from vlfer.bench.leave_out import find_models, leave_out_report

    report = leave_out_report(find_models(pattern), [Address(data.stem, DEFAULT_LABELS, data.expanduser())], say=say)
    return [
        {
            "class": row["class"], "faces": row["n"], "recall": 100 * row["recall"] if "recall" in row else None,
            "chance": 100 * row["chance"], "answered so among all": 100 * row["predicted_share"],
            "war of all eight": 100 * row["war"], "uar of all eight": 100 * row["uar"],
        }
        for row in report["rows"]
    ]  # fmt: skip


def _report(found: Mapping[str, Rows], *, about: dict[str, Any], out: Path | None, form: str) -> None:
    plain = {part: [{k: _plain(v) for k, v in row.items()} for row in rows] for part, rows in found.items()}
    text = json.dumps({**about, "parts": plain}, indent=1, ensure_ascii=False)
    if out is not None:
        from vlfer.config import write_atomically

        write_atomically(out, f"{text}\n".encode())
        say(f"Written: {out}")
    if form == "json":
        typer.echo(text)
        return
    typer.echo(f"{about['space']}, {about['faces']['validation']} validation and {about['faces']['test']} test faces")
    for part, rows in found.items():
        typer.echo(f"\n### {PARTS.get(part, UNSEEN)}\n")
        keys: tuple[str, ...] = ()
        for row in rows:
            if tuple(row) != keys:
                if keys:
                    typer.echo("")
                keys = tuple(row)
                typer.echo("| " + " | ".join(keys) + " |")
                typer.echo("|" + "---|" * len(keys))
            typer.echo("| " + " | ".join(_cell(value) for value in row.values()) + " |")


def _plain(value: Any) -> Any:
    return round(float(value), 4) if isinstance(value, float) or hasattr(value, "dtype") else value


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float) or hasattr(value, "dtype"):
        number = float(value)
        return f"{number:.1f}" if abs(number) >= 2 else f"{number:.2f}"
    return str(value)
