"""`vlfer mie`: micro-expressions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vlfer.cli import mie_eval, mie_flows, mie_pretrain
from vlfer.cli.exits import say
from vlfer.errors import ConfigError

if TYPE_CHECKING:
    from vlfer.mie import MicroResult
    from vlfer.types import Frames

_LONGEST_CLIP_BYTES = 3 * 2**30

app = typer.Typer(
    help="Micro-expressions: what a face shows for less than half a second.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


app.command("flows")(mie_flows.flows)
app.command("faces")(mie_flows.faces)
app.command("eval")(mie_eval.evaluate)
app.command("pretrain")(mie_pretrain.pretrain)


@app.callback()
def _root() -> None:
    """Micro-expressions: what a face shows for less than half a second."""


@app.command()
def recognize(
    clip: Annotated[Path | None, typer.Argument(help="A clip of one expression.", show_default=False)] = None,
    onset: Annotated[str | None, typer.Option(help="The onset: an image, or with CLIP the index of a frame.")] = None,
    apex: Annotated[str | None, typer.Option(help="The apex: an image, or with CLIP the index of a frame.")] = None,
    labels: Annotated[str, typer.Option(help='A shipped set, a YAML file, or words: "surprise, disgust".')] = "micro3",
    adapter: Annotated[Path | None, typer.Option(help="Folder of a flow adapter. [the shipped one]")] = None,
    backbone: Annotated[str, typer.Option(help="Whose text tower reads the labels.")] = "bundled",
    flow: Annotated[
        Literal["farneback", "dis", "tvl1", "deepflow"], typer.Option(help="farneback is fast, tvl1 exact.")
    ] = "farneback",
    threshold: Annotated[float | None, typer.Option(help="Abstain below this probability.")] = None,
    magnify: Annotated[
        float, typer.Option(min=1.0, help="Magnify motion so many times before it is measured, as 5; 1 for not.")
    ] = 1.0,
    plot: Annotated[Path | None, typer.Option(help="Write the motion picture to this file.")] = None,
    form: Annotated[Literal["table", "json"], typer.Option("--format", help="How to print.")] = "table",
) -> None:
    """Say what a micro-expression shows, from a clip, or from an onset and an apex image.

    EXPERIMENTAL. Recognising micro-expressions is unsolved: on people they have not seen, the best honest methods are
    right for three laboratory clips in four, among three classes. It abstains where the motion is within noise. Never
    use it to judge a person.
    """
    from vlfer.faces.detect import build_detector
    from vlfer.mie import MicroRecognizer
    from vlfer.text.labels import resolve_label_spec

    pair = _pair_of_images(clip, onset, apex)
    label_set = resolve_label_spec(labels)
    bank, loaded = _adapter(adapter, backbone)
    recognizer = MicroRecognizer(build_detector(), loaded, bank, label_set, flow, threshold, magnify)
    if pair is not None:
        from vlfer.video.read import load_image

        result = recognizer.recognize_pair(*(load_image(path).pixels[0] for path in pair))
    else:
        first, second = _frame_index("onset", onset), _frame_index("apex", apex)
        result = recognizer.recognize_clip(_whole_clip(clip), onset=first, apex=second)
    if plot is not None:
        from PIL import Image

        Image.fromarray(result.picture).save(plot)
        say(f"Wrote {plot}")
    _print_result(result, form)


@app.command("spot")
def spot_command(
    video: Annotated[Path, typer.Argument(help="A video of one face, of any length.")],
    out: Annotated[Path | None, typer.Option(help="Write the intervals to this CSV file.")] = None,
    form: Annotated[Literal["table", "json"], typer.Option("--format", help="How to print.")] = "table",
) -> None:
    """Find micro- and macro-expressions in a long video: when, where on the face, how strong.

    It measures motion and knows no emotions. Speech moves the mouth as expressions do: expect false alarms there.
    """
    import csv
    import dataclasses

    from vlfer.faces.detect import build_detector
    from vlfer.mie import spot_video
    from vlfer.video.read import read_video

    spotted = spot_video(read_video(str(video)), detector=build_detector())
    rows = [dataclasses.asdict(interval) for interval in spotted.intervals]
    if out is not None:
        with out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ("onset_s", "apex_s", "offset_s", "kind", "region", "strength"))
            writer.writeheader()
            writer.writerows(rows)
        say(f"Wrote {out}")
    for note in spotted.notes:
        say(f"Note: {note}")
    if form == "json":
        typer.echo(json.dumps({"intervals": rows, "seconds_seen": spotted.seconds_seen}, indent=2))
        return
    for one in spotted.intervals:
        span = f"{one.onset_s:9.3f} - {one.offset_s:9.3f} s  apex {one.apex_s:9.3f} s"
        typer.echo(f"{span}  {one.kind}  {one.region}  {one.strength:.2%} of the face's width")
    typer.echo(f"{len(rows)} expressions in {spotted.seconds_seen:.1f} s with a face")


@app.command()
def train(
    flow_archive: Annotated[Path, typer.Option(help="Flow samples, .npz, as for eval; also au and emotion_raw.")],
    out: Annotated[Path, typer.Option(help="Folder of the adapter.")],
    backbone: Annotated[str, typer.Option(help="Whose text tower it is aligned with.")] = "bundled",
    epochs: Annotated[int, typer.Option(min=1)] = 60,
    seed: Annotated[int, typer.Option()] = 0,
) -> None:
    """Train the flow encoder on an archive and made motions, and write it as an adapter."""
    import dataclasses

    from vlfer.micro.samples import load_annotations, load_flow_archive
    from vlfer.micro.words import parse_units
    from vlfer.models.encoder import load_encoder
    from vlfer.models.flow_encoder import save_flow_adapter
    from vlfer.text.bank import TextBank
    from vlfer.training.mie_align import AlignSettings, train_flow_encoder, truths_of

    samples = load_flow_archive(flow_archive)
    emotions, units = load_annotations(flow_archive, n=len(samples))
    truths = [
        tuple(dict.fromkeys([*truths_of(samples.classes[label], ()), *truths_of(emotion, parse_units(unit))]))
        for label, emotion, unit in zip(samples.label, emotions, units, strict=True)
    ]
    encoder = load_encoder(backbone)
    settings = AlignSettings(epochs=epochs, seed=seed)

    def tell(epoch: int, total: int, loss: float) -> None:
        if epoch % 10 == 0 or epoch == total:
            say(f"epoch {epoch} of {total}: loss {loss:.3f}")

    trained = train_flow_encoder(samples, truths, bank=TextBank(encoder), settings=settings, progress=tell)
    facts = {
        "settings": dataclasses.asdict(settings), "data_sha256": samples.sha256, "clips": len(samples),
        "subjects": len(set(samples.subject_keys.tolist())), "data_sets": sorted(set(samples.dataset.tolist())),
    }  # fmt: skip
    save_flow_adapter(
        trained, out, space=encoder.space, temperature=settings.temperature, input_kind=settings.input, facts=facts
    )
    say(f"Wrote {out}")


def _pair_of_images(clip: Path | None, onset: str | None, apex: str | None) -> tuple[str, str] | None:
    if clip is not None:
        return None
    if onset is None or apex is None:
        raise ConfigError(
            "No clip is named, nor both an onset and an apex.",
            fix="vlfer mie recognize CLIP, or vlfer mie recognize --onset A.png --apex B.png",
        )
    return onset, apex


def _frame_index(name: str, given: str | None) -> int | None:
    if given is None:
        return None
    if not given.isdigit():
        raise ConfigError(f"--{name} {given!r} is no index of a frame.", why="With a clip it counts frames from 0.")
    return int(given)


def _whole_clip(path: Path | None) -> Frames:
    import numpy as np

    from vlfer.errors import DataError
    from vlfer.types import Frames
    from vlfer.video.read import read_video

    chunks, total = [], 0
    for chunk in read_video(str(path)):
        chunks.append(chunk)
        total += chunk.pixels.nbytes
        if total > _LONGEST_CLIP_BYTES:
            raise DataError(
                f"{str(path)!r} is too long for one expression.", why=f"It has more than {len(chunks) * 32} frames.",
                fix="vlfer mie spot, which finds expressions in long video",
            )  # fmt: skip
    pixels = np.concatenate([chunk.pixels for chunk in chunks])
    return Frames(pixels, np.concatenate([chunk.times_s for chunk in chunks]), str(path))


def _adapter(folder: Path | None, backbone: str) -> tuple[Any, Any]:
    from vlfer.config import cache_dir, resource_dir
    from vlfer.models.encoder import load_encoder
    from vlfer.models.flow_encoder import load_flow_adapter
    from vlfer.text.bank import TextBank

    encoder = load_encoder(backbone)
    place = folder or resource_dir("adapters") / "mie-flow"
    return TextBank(encoder, cache_dir=cache_dir()), load_flow_adapter(place, space=encoder.space)


def _print_result(result: MicroResult, form: str) -> None:
    import dataclasses

    if form == "json":
        content = {k: v for k, v in dataclasses.asdict(result).items() if k != "picture"}
        typer.echo(json.dumps(content, indent=2))
        return
    moments = result.moments
    if moments.times_s:
        starts = ", ".join(f"{n} {t:.3f} s" for n, t in zip(("onset", "apex", "offset"), moments.times_s, strict=True))
        typer.echo(starts)
    typer.echo(f"motion {result.strength:.2%} of the face's width")
    typer.echo(f"expression {result.label or 'no clear label'}" + (f" ({result.reason})" if result.reason else ""))
    for name, probability in result.top:
        typer.echo(f"  {name} {probability:.0%}")
    if result.units:
        typer.echo("suggested units " + ", ".join(f"{unit} {cosine:.2f}" for unit, cosine in result.units))
    for note in result.notes:
        say(f"Note: {note}")
