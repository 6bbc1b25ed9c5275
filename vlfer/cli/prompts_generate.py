"""`vlfer prompts generate`: descriptors for any labels from a language model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlfer.cli.exits import SOME_FAILED, say
from vlfer.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vlfer.text.generate import Outcome
    from vlfer.text.llm import ChatModel
    from vlfer.types import LabelSet


def generate(
    labels: Annotated[str, typer.Option(help='A shipped set, a YAML file, or words: "awe, polite smile".')],
    llm: Annotated[str, typer.Option(help="With --url a model of that endpoint; else a folder or hub name.")],
    out: Annotated[Path, typer.Option(help="The YAML file to write.")],
    url: Annotated[
        str | None, typer.Option(help="An OpenAI-compatible endpoint: vLLM, Ollama, llama.cpp, hosted.")
    ] = None,
    key_env: Annotated[str, typer.Option(help="Environment variable that holds the key.")] = "OPENAI_API_KEY",
    seed: Annotated[int, typer.Option(help="Of sampling.")] = 0,
    temperature: Annotated[float, typer.Option(help="Of sampling.", min=0.0, max=2.0)] = 0.7,
    tries: Annotated[int, typer.Option(help="Requests per label, until an answer passes.", min=1)] = 3,
    workers: Annotated[int, typer.Option(help="Labels asked for at once.", min=1, max=64)] = 1,
    max_tokens: Annotated[int, typer.Option(help="Longest answer.", min=64)] = 2048,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for one answer.", min=1.0)] = 180.0,
    device: Annotated[str, typer.Option(help="Of a local model: auto, cpu, cuda.")] = "auto",
    partial: Annotated[bool, typer.Option("--partial", help="Write labels that failed as bare names.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the file.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Ask again for what was answered before.")] = False,
) -> None:
    """Write descriptors with a language model: visible facial action, in three intensities, over time, with negatives.

    Every answer is checked and asked for again where it fails. Answers are kept, so that the same command goes on where
    it stopped. The file says which model wrote it, with which instructions, when, and with which seed. Then:
    vlfer prompts check FILE, and vlfer prompts compare.

    Exit codes: 0 done, 1 some labels failed, 2 usage, 3 the model cannot be reached.
    """
    from vlfer.text.labels import resolve_label_spec

    if out.suffix.lower() not in (".yaml", ".yml"):
        raise ConfigError(f"--out {out} is no YAML file.", fix="--out mine.yaml")
    if out.exists() and not force:
        raise ConfigError(f"--out {out} exists.", why="It may hold your own words.", fix="--force, or another name")
    label_set = resolve_label_spec(labels)

    from vlfer.config import cache_dir
    from vlfer.text.generate import GenerationSettings
    from vlfer.text.generate import generate as ask

    settings = GenerationSettings(
        seed=seed, temperature=temperature, tries=tries, max_tokens=max_tokens, workers=workers if url else 1
    )
    model = _model(llm, url=url, key_env=key_env, timeout_s=timeout, device=device)
    outcomes = ask(
        model, label_set.names, near=_near(label_set), settings=settings,
        cache_dir=None if fresh else cache_dir(), hook=lambda label, done, of: say(f"{done} of {of}: {label}"),
    )  # fmt: skip
    failed = [one for one in outcomes if one.answer is None]
    for one in failed:
        say(f"{one.label!r} failed {one.tries} times, last by {one.problem}")
    if failed and not partial:
        say(
            f"Nothing is written: {len(failed)} of {len(outcomes)} labels failed; the others are kept. "
            "Try: the same command again, --tries 6, a larger model, or --partial."
        )
        raise typer.Exit(SOME_FAILED)
    _write(outcomes, label_set, model=model, settings={"seed": seed, "temperature": temperature}, out=out)
    if failed:
        raise typer.Exit(SOME_FAILED)


def _model(llm: str, *, url: str | None, key_env: str, timeout_s: float, device: str) -> ChatModel:
    from vlfer.text.llm import EndpointModel, LocalModel

    if url is None:
        if llm.startswith(("http://", "https://")):
            raise ConfigError(f"--llm {llm} is a URL.", fix=f"--url {llm} --llm NAME_OF_THE_MODEL")
        return LocalModel(llm, device=device)
    return EndpointModel(llm, url=url, key=os.environ.get(key_env, ""), timeout_s=timeout_s)


def _near(label_set: LabelSet) -> Sequence[Sequence[str]]:
    """Return what each label is told from; among many labels the text tower finds the near ones."""
    from vlfer.text.generate import MOST_NEAR, near_labels

    names = label_set.names
    if len(names) <= MOST_NEAR + 1:
        return near_labels(names)
    from vlfer.config import cache_dir
    from vlfer.models.encoder import load_encoder
    from vlfer.text.bank import TextBank

    bank = TextBank(load_encoder("bundled", device="cpu"), cache_dir=cache_dir())
    return near_labels(names, bank.encode(names))


def _write(
    outcomes: Sequence[Outcome], label_set: LabelSet, *, model: ChatModel, settings: dict[str, Any], out: Path
) -> None:
    import datetime
    from importlib.metadata import version

    from vlfer.config import write_atomically
    from vlfer.text.generate import build_prompt_file, render_prompt_file
    from vlfer.text.instructions import instructions_sha256

    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    provenance = {
        **model.provenance(), "instructions_sha256": instructions_sha256(), **settings, "date": today,
        "vlfer": version("vlfer"),
    }  # fmt: skip
    file = build_prompt_file(outcomes, name=out.stem, provenance=provenance, written=today, base=label_set)
    write_atomically(out, render_prompt_file(file).encode())
    again = sum(one.tries > 1 for one in outcomes)
    kept = sum(one.tries == 0 for one in outcomes)
    say(f"Written: {out} ({len(outcomes)} labels, {kept} kept from before, {again} asked for more than once)")
    say(f"Next: vlfer prompts check {out}")
