"""`vlfer mie pretrain`: MIACNet on unlabelled video."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import typer

from vlfer.cli.exits import goes_on, say

_SAY_EVERY_S = 20.0


def pretrain(
    videos: Annotated[Path, typer.Argument(help="Folder of videos of faces, searched with its subfolders.")],
    out: Annotated[Path, typer.Option(help="Run folder; the same command goes on with a stopped run.")],
    latents: Annotated[
        str, typer.Option(help="own, pixels, or the folder of an autoencoder as diffusers writes it.")
    ] = "own",
    predictor: Annotated[Literal["tiny", "small", "S", "B"], typer.Option(help="Size of the transformer.")] = "tiny",
    side: Annotated[int, typer.Option(help="Side of a face in pixels.", min=32)] = 64,
    width: Annotated[int, typer.Option(help="Filters of the encoders' first stage; 64 is ResNet18.", min=4)] = 16,
    stride: Annotated[int, typer.Option(help="Pixels for each position of the maps: 8, 16, 32.")] = 16,
    condition: Annotated[int, typer.Option(help="Length of the condition vector.", min=8)] = 128,
    epochs: Annotated[int, typer.Option(min=1)] = 80,
    batch: Annotated[int, typer.Option(help="Pairs a step.", min=2)] = 32,
    rate: Annotated[float, typer.Option(help="First learning rate.")] = 4e-4,
    autoencoder_steps: Annotated[int, typer.Option(help="Training of the autoencoder 'own'.", min=1)] = 1500,
    seed: Annotated[int, typer.Option()] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
) -> None:
    """Pre-train MIACNet by foretelling later frames of faces (MA2MI), without labels.

    The paper's sizes are --side 224 --width 64 --stride 32 --condition 512 --predictor B with the autoencoder of Stable
    Diffusion; the defaults fit a processor. The result is read by vlfer mie eval --model miacnet --start RUN.

    Exit codes: 0 done, 2 usage or no face in any video.
    """
    from vlfer.faces.detect import build_detector
    from vlfer.models.miacnet import MiacSettings
    from vlfer.models.tower import choose_device
    from vlfer.training.mie_pretrain import Pretraining, PretrainSettings
    from vlfer.training.mie_videos import prepare_videos

    settings = PretrainSettings(
        net=MiacSettings(side=side, width=width, stride=stride, condition=condition), predictor=predictor,
        latents=latents, epochs=epochs, batch=batch, rate=rate, autoencoder_steps=autoencoder_steps, seed=seed,
    )  # fmt: skip
    tell = told()
    faces, failed = prepare_videos(videos, cache=out / "faces", side=side, detector=build_detector(), tell=tell)
    for name, reason in failed:
        say(f"Left out {name}: {reason}")
    seconds = sum(len(part) and float(part[-1] - part[0]) for part in faces.times_s)
    say(f"{len(faces)} faces, {seconds:.0f} s, of {len(faces.faces)} videos")
    run = Pretraining(faces, settings, out, device=str(choose_device(device)))
    if run.step:
        say(f"Going on at step {run.step} of {run.total_steps}")
    with goes_on(out):
        card = run.run(hook=tell)
    typer.echo(json.dumps(card["losses"], indent=2))
    say(f"Wrote {out}; next: vlfer mie eval --model miacnet --start {out} --face-archive FILE.npz")


def told() -> Callable[[str, int, int], None]:
    """Return a hook that says where a run is: a line that renews itself on a terminal, else now and then one."""
    import sys

    last, began = 0.0, (0.0, 0, "")

    def tell(what: str, done: int, total: int) -> None:
        nonlocal last, began
        now, stage = time.monotonic(), what.partition(",")[0]
        if stage != began[2]:
            began = (now, done, stage)
        is_live = sys.stderr.isatty()
        if done < total and now - last < (0.2 if is_live else _SAY_EVERY_S):
            return
        last = now
        speed = (done - began[1]) / max(now - began[0], 1e-6)
        left = f", {(total - done) / speed:.0f} s left" if speed and done < total else ""
        if is_live:
            sys.stderr.write(f"\r{what}: {done} of {total}{left}    " + ("\n" if done == total else ""))
            sys.stderr.flush()
        else:
            say(f"{what}: {done} of {total}{left}")

    return tell
