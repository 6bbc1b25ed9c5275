"""`vlfer prompts check`: what is wrong with the words of a prompt file, and what to do about it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vlfer.cli.exits import SOME_FAILED
from vlfer.errors import PromptError

if TYPE_CHECKING:
    from vlfer.text.check import Finding
    from vlfer.types import LabelSet


def check(
    file: Annotated[str, typer.Argument(help="A YAML file, a shipped set, or words.", show_default=False)],
    backbone: Annotated[
        str, typer.Option(help="Whose text tower reads the sentences; none looks at the words alone.")
    ] = "bundled",
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 for warnings too.")] = False,
    form: Annotated[Literal["table", "json"], typer.Option("--format", help="How to print.")] = "table",
) -> None:
    """Find words that weaken or spoil a label set; for each, say what to do.

    Looked for: doubles, sentences too long for the text tower or for CLIP, the label's own name, age, gender, race and
    culture, feelings instead of faces, actions that FACS excludes, and sentences that read like those of another label.

    Exit codes: 0 nothing wrong (warnings at most), 1 errors found, 2 usage.
    """
    from vlfer.text.check import find
    from vlfer.text.labels import resolve_label_spec

    is_file = file.strip().lower().endswith((".yaml", ".yml"))
    try:
        labels = resolve_label_spec(file)
    except PromptError as error:
        if not is_file or not Path(file.strip()).expanduser().is_file():
            raise
        found = [find("format", "", "", file, why=f"{error.what} {error.why}".strip(), fix=error.fix or "mend it")]
        _report(file, None, found, form=form)
        raise typer.Exit(SOME_FAILED) from error
    found = _check(labels, backbone=backbone)
    _report(file, labels, found, form=form)
    if any(one.severity == "error" or strict for one in found):
        raise typer.Exit(SOME_FAILED)


def _check(labels: LabelSet, *, backbone: str) -> list[Finding]:
    from vlfer.text.check import check_words

    if backbone == "none":
        return check_words(labels)
    from open_clip.tokenizer import SimpleTokenizer

    from vlfer.config import cache_dir
    from vlfer.models.encoder import load_encoder
    from vlfer.models.openclip import token_counts
    from vlfer.text.bank import TextBank

    encoder = load_encoder(backbone, device="cpu")
    clip = SimpleTokenizer()

    def count_clip(sentences: Sequence[str]) -> tuple[list[int], int]:
        return token_counts(clip, list(sentences)), int(clip.context_length)

    def count_own(sentences: Sequence[str]) -> tuple[list[int], int]:
        tokens, lengths = encoder.tokenize(list(sentences))
        return lengths, int(tokens.shape[1])

    counters: dict[str, Any] = {"CLIP": count_clip, encoder.spec.name: count_own}
    bank = TextBank(encoder, cache_dir=cache_dir())
    return check_words(labels, counters=counters, bank=bank, temperature=encoder.temperature)


def _report(file: str, labels: LabelSet | None, found: Sequence[Finding], *, form: Literal["table", "json"]) -> None:
    errors = sum(one.severity == "error" for one in found)
    if form == "json":
        content = {
            "file": file, "labels": 0 if labels is None else len(labels), "errors": errors,
            "warnings": len(found) - errors, "findings": [one.as_dict() for one in found],
        }  # fmt: skip
        typer.echo(json.dumps(content, indent=2, ensure_ascii=False))
        return
    from rich.markup import escape

    from vlfer.cli.output import table_console

    console = table_console()
    current = None
    for one in found:
        if one.label != current:
            current = one.label
            console.print(f"\n[bold]{escape(one.label or file)}[/bold]", highlight=False)
        colour = "red" if one.severity == "error" else "yellow"
        where = f" {one.key}" if one.key else ""
        quoted = f': "{one.text}"' if one.text else ""
        console.print(
            f"  [{colour}]{one.severity}[/{colour}] {one.rule}{escape(where + quoted)}", highlight=False, soft_wrap=True
        )
        console.print(f"    {escape(one.why)}. To do: {escape(one.fix)}.", highlight=False, soft_wrap=True)
    many = "" if labels is None else f"{len(labels)} labels, "
    console.print(f"\n{escape(file)}: {many}{errors} errors, {len(found) - errors} warnings", highlight=False)
