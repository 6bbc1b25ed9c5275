"""MA2MI: pre-training of MIACNet on unlabelled video (Li, Zhao et al., arXiv 2405.16451).

Two frames of a face, a short random time apart; MIACNet makes a condition vector of them; a transformer is to foretell
the latents of the later frame from those of the earlier and that vector. What the earlier frame does not tell has to
come through the vector: the motion. Loss: L1 distance of the latents plus the three position losses.

Chosen here where the paper leaves room:

- the time between the frames is uniform from 1/30 to 0.3 s, about as long as onset to apex of a micro-expression lasts;
- the losses weigh alike, with the L1 distance divided by that of "nothing moves" on the first batches, so that it
  starts near 1 whatever the latents;
- an epoch draws one pair for every eighth frame, at least ten batches; the rate falls by the same factor every epoch,
  to a hundredth of what it was at the end;
- both frames are mirrored together at random, and moved together by a small rotation and shift, shown in other light;
- without another autoencoder a compact one is trained on the same frames first, then frozen;
- no epoch is chosen: the weights after the last are the result.

A step depends on (seed, step) alone, so a run that is stopped and goes on gives the same weights as one that is not.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from vlfer.config import write_atomically
from vlfer.errors import ConfigError, DataError
from vlfer.models.autoencoder import CompactAutoencoder, PixelCodec, load_diffusers_encoder
from vlfer.models.dit import DitSize, FuturePredictor
from vlfer.models.miacnet import Miacnet, MiacSettings
from vlfer.training.mie_position import moved, position_losses, random_movement
from vlfer.training.mie_videos import FaceVideos, Pairs, to_unit
from vlfer.training.run_state import append_row, optimizer_tensors, restore_optimizer

_log = logging.getLogger(__name__)

KIND = "miacnet"
WEIGHTS_NAME, CARD_NAME = "miacnet.safetensors", "miacnet.json"
_STATE_NAME, _LOG_NAME, _AUTOENCODER_NAME = "state.safetensors", "log.csv", "autoencoder.safetensors"
_FRAMES_A_PAIR, _FEWEST_BATCHES, _SCALE_BATCHES = 8, 10, 8

Hook = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class PretrainSettings:
    """How MIACNet is pre-trained.

    Attributes:
        net: Sizes of MIACNet.
        predictor: Size of the transformer.
        latents: "own" for the compact autoencoder, "pixels" for none, or the folder of a diffusers autoencoder.
        patch: Side of a token of the transformer in latents; 0 makes eight tokens a side, or one of each latent.
        epochs: Passes.
        batch: Pairs a step.
        rate: First learning rate.
        last: Share of it that is left at the end.
        decay: Weight decay.
        shortest_s: Least time between the frames.
        longest_s: Most.
        autoencoder_steps: Steps of the compact autoencoder.
        seed: Of everything random.
    """

    net: MiacSettings = field(default_factory=MiacSettings)
    predictor: DitSize = "tiny"
    latents: str = "own"
    patch: int = 0
    epochs: int = 80
    batch: int = 32
    rate: float = 4e-4
    last: float = 0.01
    decay: float = 0.01
    shortest_s: float = 1 / 30
    longest_s: float = 0.3
    autoencoder_steps: int = 1500
    seed: int = 0


class Pretraining(nn.Module):
    """One run, step by step; it goes on where it was if its folder holds a state.

    Args:
        videos: Faces.
        settings: How.
        folder: Where state, log and result are written.
        device: Where it trains.

    Raises:
        ConfigError: If sizes do not fit one another, or the folder belongs to another run.
        DataError: If there are no pairs, or the state is damaged.
    """

    def __init__(self, videos: FaceVideos, settings: PretrainSettings, folder: Path, *, device: str = "cpu") -> None:
        super().__init__()
        self.settings, self.folder, self.device = settings, folder, torch.device(device)
        self.pairs = videos.pairs(shortest_s=settings.shortest_s, longest_s=settings.longest_s)
        self.data_sha256 = videos.sha256
        self._demand_own_folder()
        torch.manual_seed(settings.seed)
        self.codec = self._codec()
        self.net = Miacnet(settings.net)
        side = settings.net.side // self.codec.factor
        self.predictor = FuturePredictor(
            settings.predictor, channels=self.codec.channels, side=side, patch=settings.patch or max(1, side // 8),
            condition=settings.net.condition,
        )  # fmt: skip
        self.to(self.device)
        learns = [*self.net.parameters(), *self.predictor.parameters()]
        self.optimizer = torch.optim.AdamW(learns, lr=settings.rate, weight_decay=settings.decay)
        self.steps_per_epoch = max(_FEWEST_BATCHES, len(videos) // _FRAMES_A_PAIR // settings.batch)
        self.step, self.scale = 0, 0.0
        if (folder / _STATE_NAME).is_file():
            self._resume()

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.settings.epochs * self.steps_per_epoch

    def run(self, *, hook: Hook | None = None) -> dict[str, Any]:
        """Train to the end, keeping the state after every epoch, and return the card of the result.

        Raises:
            DataError: If the loss is no longer finite; the state of the last epoch is kept.
        """
        if not (self.folder / _AUTOENCODER_NAME).is_file() and isinstance(self.codec, CompactAutoencoder):
            train_autoencoder(self.codec, self.pairs, self.settings, hook=hook)
            save_file(self.codec.state_dict(), str(self.folder / _AUTOENCODER_NAME))
        self.codec.requires_grad_(False).eval()
        if not self.scale:
            with torch.no_grad():
                away = [self._distance(self._batch(-1 - i)) for i in range(_SCALE_BATCHES)]
            self.scale = float(torch.stack(away).mean())
        row: dict[str, Any] = {}
        while self.step < self.total_steps:
            row = self._epoch(hook)
            append_row(self.folder / _LOG_NAME, row)
            self._save()
        return self._write(row)

    def losses(self, batch: tuple[Tensor, Tensor], *, generator: torch.Generator) -> dict[str, Tensor]:
        """Return every loss of a batch of two frames (N, 3, S, S) in -1..1."""
        first, second = batch
        with torch.no_grad():
            before, after = self.codec.encode(first), self.codec.encode(second)
        places = self.net.positions(first)
        condition = self.net.fuse(second - first, places.detach())
        reconstruction = F.l1_loss(self.predictor(before, condition), after) / self.scale
        position = position_losses(self.net, first, places, generator=generator)
        return {"reconstruction": reconstruction, **position._asdict(), "total": reconstruction + position.total}

    def _epoch(self, hook: Hook | None) -> dict[str, Any]:
        started = time.monotonic()
        sums: dict[str, float] = {}
        self.train()
        self.codec.eval()
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.rate * self.settings.last ** (self.step / self.total_steps)
        for _ in range(self.steps_per_epoch):
            generator = torch.Generator().manual_seed(self._seed(self.step))
            losses = self.losses(self._batch(self.step), generator=generator)
            if not bool(torch.isfinite(losses["total"])):
                raise DataError(
                    f"The loss is {float(losses['total'].detach())} at step {self.step}.",
                    why=f"The state of the last whole epoch is kept in {str(self.folder)!r}.", fix="a lower --rate",
                )  # fmt: skip
            self.optimizer.zero_grad(set_to_none=True)
            losses["total"].backward()
            nn.utils.clip_grad_norm_(self.parameters(), 1.0)
            self.optimizer.step()
            self.step += 1
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach()) / self.steps_per_epoch
            if hook:
                now = float(losses["reconstruction"].detach())
                hook(f"pre-training, reconstruction {now:.3f}", self.step, self.total_steps)
        epoch = self.step // self.steps_per_epoch
        rounded = {name: round(value, 4) for name, value in sums.items()}
        return {"epoch": epoch, **rounded, "seconds": round(time.monotonic() - started, 1)}

    def _codec(self) -> Any:
        kind = self.settings.latents
        if kind == "pixels":
            return PixelCodec()
        if kind != "own":
            return load_diffusers_encoder(kind)
        codec = CompactAutoencoder()
        if (self.folder / _AUTOENCODER_NAME).is_file():
            codec.load_state_dict(load_file(str(self.folder / _AUTOENCODER_NAME)))
        return codec

    def _seed(self, step: int) -> int:
        return int(np.random.SeedSequence([self.settings.seed, step + 2**20]).generate_state(1)[0])

    def _batch(self, step: int) -> tuple[Tensor, Tensor]:
        first, second = draw_pairs(self.pairs, self.settings.batch, seed=self._seed(step))
        return first.to(self.device), second.to(self.device)

    def _distance(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.l1_loss(self.codec.encode(batch[0]), self.codec.encode(batch[1]))

    def _identity(self) -> dict[str, Any]:
        settings = {k: v for k, v in asdict(self.settings).items() if k != "epochs"}
        return {"settings": settings, "epochs": self.settings.epochs, "data_sha256": self.data_sha256}

    def _demand_own_folder(self) -> None:
        """Refuse a folder in which another run is under way."""
        file = self.folder / "run.json"
        mine = json.loads(json.dumps(self._identity()))
        if file.is_file():
            theirs = json.loads(file.read_text())
            other = [key for key in mine if theirs.get(key) != mine[key]]
            if other:
                raise ConfigError(
                    f"{str(self.folder)!r} holds a run with other {' and '.join(other)}.",
                    why="It cannot be gone on with.", fix="another --out, or the settings in its run.json",
                )  # fmt: skip
        write_atomically(file, (json.dumps(mine, indent=2) + "\n").encode())

    def _save(self) -> None:
        tensors = {f"net.{k}": v for k, v in self.net.state_dict().items()}
        tensors |= {f"predictor.{k}": v for k, v in self.predictor.state_dict().items()}
        tensors |= optimizer_tensors(self.optimizer)
        partial = self.folder / f"{_STATE_NAME}.partial"
        meta = {"step": str(self.step), "scale": repr(self.scale)}
        save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, str(partial), metadata=meta)
        partial.replace(self.folder / _STATE_NAME)

    def _resume(self) -> None:
        file = self.folder / _STATE_NAME
        try:
            with safe_open(str(file), "pt") as opened:
                meta = opened.metadata()
            tensors = load_file(str(file))
            self.net.load_state_dict({k[4:]: v for k, v in tensors.items() if k.startswith("net.")})
            self.predictor.load_state_dict({k[10:]: v for k, v in tensors.items() if k.startswith("predictor.")})
        except (OSError, SafetensorError, RuntimeError) as error:
            raise DataError(f"The state {str(file)!r} is damaged: {error}.", fix="remove it, to start anew") from error
        restore_optimizer(self.optimizer, tensors)
        self.step, self.scale = int(meta["step"]), float(meta["scale"])
        _log.info("went on at step %d of %d", self.step, self.total_steps)

    def _write(self, row: dict[str, Any]) -> dict[str, Any]:
        facts = {**self._identity(), "losses": {k: v for k, v in row.items() if k not in ("epoch", "seconds")}}
        return save_miacnet(self.net, self.folder, facts=facts)


def draw_pairs(pairs: Pairs, count: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Draw changed pairs, (N, 3, S, S) float32 in -1..1 twice: mirrored, moved and lit alike in both frames."""
    rng = np.random.default_rng(seed)
    first, second = (torch.from_numpy(to_unit(frames)) for frames in pairs.draw(count, rng=rng))
    generator = torch.Generator().manual_seed(seed)
    both = torch.cat([first, second], dim=1)
    both = torch.where((torch.rand(count, generator=generator) < 0.5)[:, None, None, None], both.flip(3), both)
    theta = random_movement(count, generator=generator, turn_deg=8, shift=0.04)
    both = moved(both, theta)
    light = 1 + 0.15 * torch.randn(count, 1, 1, 1, generator=generator)
    level = 0.1 * torch.randn(count, 1, 1, 1, generator=generator)
    both = (both * light + level).clamp(-1, 1)
    return both[:, :3], both[:, 3:]


def train_autoencoder(
    codec: CompactAutoencoder, pairs: Pairs, settings: PretrainSettings, *, hook: Hook | None = None
) -> None:
    """Teach the compact autoencoder to give faces back (L1), then scale its latents."""
    device = next(codec.parameters()).device
    optimizer = torch.optim.AdamW(codec.parameters(), lr=2e-3, weight_decay=0.0)
    steps = settings.autoencoder_steps
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        seed = int(np.random.SeedSequence([settings.seed, step, 1]).generate_state(1)[0])
        faces = draw_pairs(pairs, settings.batch, seed=seed)[0].to(device)
        loss = F.l1_loss(codec(faces), faces)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if hook:
            hook(f"autoencoder, error {float(loss.detach()) * 127.5:.1f} grey levels", step + 1, steps)
    codec.standardise(draw_pairs(pairs, 4 * settings.batch, seed=settings.seed)[0].to(device))


def save_miacnet(net: Miacnet, folder: Path, *, facts: dict[str, Any]) -> dict[str, Any]:
    """Write weights and card of a MIACNet, and return the card."""
    weights = save({name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()})
    digest = hashlib.sha256(weights).hexdigest()
    card = {"kind": KIND, "net": asdict(net.settings), "weights_sha256": digest, **facts}
    write_atomically(folder / WEIGHTS_NAME, weights)
    write_atomically(folder / CARD_NAME, (json.dumps(card, indent=2) + "\n").encode())
    return card


def load_miacnet(folder: str | Path) -> tuple[Miacnet, dict[str, Any]]:
    """Load a pre-trained MIACNet and its card.

    Raises:
        DataError: If the folder holds none, or its weights are not those of the card.
    """
    folder = Path(folder)
    fix = "vlfer mie pretrain VIDEOS --out FOLDER"
    try:
        card = json.loads((folder / CARD_NAME).read_text(encoding="utf-8"))
        weights = (folder / WEIGHTS_NAME).read_bytes()
    except (OSError, ValueError) as error:
        raise DataError(f"{str(folder)!r} holds no pre-trained MIACNet: {error}.", fix=fix) from error
    if card.get("kind") != KIND or hashlib.sha256(weights).hexdigest() != card.get("weights_sha256"):
        raise DataError(
            f"The weights in {str(folder)!r} are not those of its card.", why="A file was changed.", fix=fix
        )
    net = Miacnet(MiacSettings(**card["net"]))
    net.load_state_dict(load_file(str(folder / WEIGHTS_NAME)))
    return net, card
