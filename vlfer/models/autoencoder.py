"""Autoencoders that turn faces into latents: a compact one that is trained here, one from diffusers, or plain pixels.

MA2MI foretells latents rather than pixels. Only the encoding half of a diffusers model is built: latents are never
turned back. The compact one has a decoder, as it is trained by it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from vlfer.errors import ConfigError, DataError

_WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors")


class FaceCodec(Protocol):
    """What turns faces into latents.

    Attributes:
        channels: C of the latents.
        factor: Pixels for each latent along a side.
    """

    channels: int
    factor: int

    def encode(self, faces: Tensor) -> Tensor:
        """Return latents (N, C, S / factor, S / factor) of faces (N, 3, S, S) in -1..1."""
        ...


class PixelCodec(nn.Module):
    """No autoencoder: the pixels themselves, the variant that the paper found slightly worse."""

    channels, factor = 3, 1

    def encode(self, faces: Tensor) -> Tensor:
        """See `FaceCodec.encode`."""
        return faces


class CompactAutoencoder(nn.Module):
    """A small convolutional autoencoder with a latent for every 4x4 pixels.

    Latents are scaled to zero mean and unit spread by what `standardise` found.

    Args:
        width: Filters of the first layer.
        channels: C of the latents.
    """

    factor = 4
    mean: Tensor
    spread: Tensor

    def __init__(self, *, width: int = 24, channels: int = 8) -> None:
        super().__init__()
        self.channels = channels
        self.down = nn.Sequential(
            nn.Conv2d(3, width, 4, stride=2, padding=1), nn.SiLU(),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1), nn.SiLU(),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1), nn.SiLU(), nn.Conv2d(2 * width, channels, 1),
        )  # fmt: skip
        self.up = nn.Sequential(
            nn.Conv2d(channels, 2 * width, 3, padding=1), nn.SiLU(), nn.Conv2d(2 * width, 2 * width, 3, padding=1),
            nn.SiLU(), nn.Conv2d(2 * width, 3 * self.factor**2, 1), nn.PixelShuffle(self.factor),
        )  # fmt: skip
        self.register_buffer("mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("spread", torch.ones(1, channels, 1, 1))

    def forward(self, faces: Tensor) -> Tensor:
        """Return the faces (N, 3, S, S) as they come back."""
        out: Tensor = self.up(self.down(faces))
        return out

    def encode(self, faces: Tensor) -> Tensor:
        """See `FaceCodec.encode`."""
        latents: Tensor = (self.down(faces) - self.mean) / self.spread
        return latents

    @torch.no_grad()
    def standardise(self, faces: Tensor) -> None:
        """Take mean and spread of the latents of some faces (N, 3, S, S)."""
        latents = self.down(faces)
        self.mean.copy_(latents.mean(dim=(0, 2, 3), keepdim=True))
        self.spread.copy_(latents.std(dim=(0, 2, 3), keepdim=True).clamp_min(1e-4))


class _Resnet(nn.Module):
    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, inputs, eps=1e-6)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, outputs, eps=1e-6)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        if inputs != outputs:
            self.conv_shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))
        short = self.conv_shortcut(x) if hasattr(self, "conv_shortcut") else x
        return out + short  # type: ignore[no-any-return]


class _Attention(nn.Module):
    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, channels) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        flat = self.group_norm(x).flatten(2).transpose(1, 2)
        out = F.scaled_dot_product_attention(self.to_q(flat), self.to_k(flat), self.to_v(flat))
        return x + self.to_out[0](out).transpose(1, 2).reshape(x.shape)  # type: ignore[no-any-return]


class _Downsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return out


class DiffusersEncoder(nn.Module):
    """The encoder of an AutoencoderKL of diffusers: Stable Diffusion 1 to 3, SDXL, FLUX and their kin.

    Names of parameters are those of diffusers.

    Args:
        config: The content of its ``config.json``.

    Raises:
        ConfigError: If it is another kind of autoencoder.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        kind = config.get("_class_name", "AutoencoderKL")
        blocks = set(config.get("down_block_types", ["DownEncoderBlock2D"]))
        if kind != "AutoencoderKL" or blocks != {"DownEncoderBlock2D"}:
            raise ConfigError(
                f"The autoencoder is a {kind} of {', '.join(sorted(blocks))}.",
                why="An AutoencoderKL of DownEncoderBlock2D can be read.", fix="--latents own",
            )  # fmt: skip
        widths = list(config.get("block_out_channels", [64]))
        groups, layers = int(config.get("norm_num_groups", 32)), int(config.get("layers_per_block", 1))
        self.channels, self.factor = int(config.get("latent_channels", 4)), 2 ** (len(widths) - 1)
        self.scale = float(config.get("scaling_factor") or 0.18215)
        self.shift = float(config.get("shift_factor") or 0.0)
        encoder: Any = nn.Module()
        encoder.conv_in = nn.Conv2d(int(config.get("in_channels", 3)), widths[0], 3, padding=1)
        encoder.down_blocks = nn.ModuleList()
        for i, width in enumerate(widths):
            block: Any = nn.Module()
            before = widths[max(0, i - 1)]
            block.resnets = nn.ModuleList(_Resnet(before if j == 0 else width, width, groups) for j in range(layers))
            if i < len(widths) - 1:
                block.downsamplers = nn.ModuleList([_Downsample(width)])
            encoder.down_blocks.append(block)
        last = widths[-1]
        encoder.mid_block = nn.Module()
        encoder.mid_block.resnets = nn.ModuleList(_Resnet(last, last, groups) for _ in range(2))
        if config.get("mid_block_add_attention", True):
            encoder.mid_block.attentions = nn.ModuleList([_Attention(last, groups)])
        encoder.conv_norm_out = nn.GroupNorm(groups, last, eps=1e-6)
        encoder.conv_out = nn.Conv2d(last, 2 * self.channels, 3, padding=1)
        self.encoder = encoder
        if config.get("use_quant_conv", True):
            self.quant_conv = nn.Conv2d(2 * self.channels, 2 * self.channels, 1)

    def encode(self, faces: Tensor) -> Tensor:
        """Return the mean of the latents, shifted and scaled as the configuration says. See `FaceCodec.encode`."""
        x = self.encoder.conv_in(faces)
        for block in self.encoder.down_blocks:
            for layer in block.resnets:
                x = layer(x)
            if hasattr(block, "downsamplers"):
                x = block.downsamplers[0](x)
        middle = self.encoder.mid_block
        x = middle.resnets[0](x)
        if hasattr(middle, "attentions"):
            x = middle.attentions[0](x)
        x = middle.resnets[1](x)
        x = self.encoder.conv_out(F.silu(self.encoder.conv_norm_out(x)))
        if hasattr(self, "quant_conv"):
            x = self.quant_conv(x)
        mean: Tensor = x[:, : self.channels]
        return (mean - self.shift) * self.scale


def load_diffusers_encoder(folder: str | Path) -> DiffusersEncoder:
    """Load the encoder of a diffusers autoencoder from its folder, or from the folder of a whole pipeline.

    Args:
        folder: With ``config.json`` and ``diffusion_pytorch_model.safetensors``, or with a subfolder ``vae`` of these.

    Raises:
        ConfigError: If it is another kind of autoencoder.
        DataError: If files are missing, damaged, do not fit, or the weights are pickled.
    """
    place = Path(folder)
    place = place / "vae" if (place / "vae" / "config.json").is_file() else place
    weights = next((place / name for name in _WEIGHTS if (place / name).is_file()), None)
    if not (place / "config.json").is_file() or weights is None:
        pickled = sorted(file.name for file in place.glob("*.bin"))
        raise DataError(
            f"{str(place)!r} holds no autoencoder.",
            why=f"{pickled[0]} is pickled, which can run code." if pickled else
            f"Wanted are config.json and {_WEIGHTS[0]}.",
            fix="save_pretrained(FOLDER) of diffusers writes both",
        )  # fmt: skip
    try:
        config = json.loads((place / "config.json").read_text(encoding="utf-8"))
        model = DiffusersEncoder(config)
        tensors = {_new_name(k): v.float() for k, v in load_file(str(weights)).items() if not k.startswith(_UNUSED)}
        old_attention = {k: v[:, :, 0, 0] for k, v in tensors.items() if "attentions" in k and v.ndim == 4}
        model.load_state_dict(tensors | old_attention)
    except (OSError, ValueError, SafetensorError, RuntimeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise DataError(f"The autoencoder in {str(place)!r} could not be read.", why=f"{error}") from error
    return model.eval()


_UNUSED = ("decoder.", "post_quant_conv.")
_OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def _new_name(name: str) -> str:
    """Return the present name of a parameter: checkpoints of old call the projections of attention otherwise."""
    for old, new in _OLD.items():
        name = name.replace(f"attentions.0.{old}.", f"attentions.0.{new}.")
    return name
