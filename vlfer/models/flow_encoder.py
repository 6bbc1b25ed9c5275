"""The flow encoder: onset-to-apex motion into the space of a text tower, so that any words can be asked of it.

It is shipped and exchanged as an adapter folder: ``flow.safetensors`` and ``vlfer_adapter.json``, which names the text
space that it was aligned with. Vectors of two spaces never meet, so another text tower is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from vlfer.config import write_atomically
from vlfer.errors import AdapterError, ShapeError
from vlfer.models.mie_nets import PlainNet
from vlfer.types import Embedding, FloatArray

KIND = "mie-flow"
WEIGHTS_NAME, CARD_NAME, README_NAME = "flow.safetensors", "vlfer_adapter.json", "README.md"
_RETRAIN = "vlfer mie train --flow-archive FILE --out FOLDER"


class FlowEncoder(nn.Module):
    """Three convolutions over 28x28 flow that keep the place, and a linear map to the text space.

    Args:
        dimension: D of the text space.
        width: Filters of the first layer.
    """

    def __init__(self, dimension: int, *, width: int = 24) -> None:
        super().__init__()
        self.dimension, self.width = dimension, width
        self.net = PlainNet(dimension, width=width)

    def forward(self, flow: Tensor) -> Tensor:
        """Return unit vectors (N, D) of flow (N, 3, 28, 28)."""
        return nn.functional.normalize(self.net(flow), dim=1)


@dataclass(frozen=True, slots=True)
class FlowAdapter:
    """A trained flow encoder with what belongs to it.

    Attributes:
        encoder: The network, in evaluation mode.
        space: Id of the text space that it speaks.
        temperature: What similarities are divided by before a softmax.
        input: How flow images are read: a value of ``vlfer.micro.canonical.Input``.
        card: Everything in ``vlfer_adapter.json``.
    """

    encoder: FlowEncoder
    space: str
    temperature: float
    input: str
    card: Mapping[str, Any]

    @torch.inference_mode()
    def encode(self, flow: FloatArray) -> Embedding:
        """Encode prepared flow.

        Args:
            flow: (N, 28, 28, 3) float32, as ``flow_input`` gives it.

        Raises:
            ShapeError: If it has another shape.
        """
        if flow.ndim != 4 or flow.shape[1:] != (28, 28, 3) or flow.dtype != np.float32:
            raise ShapeError(f"The flow is {flow.shape} {flow.dtype}.", why="Expected (N, 28, 28, 3) float32.")
        x = torch.from_numpy(np.ascontiguousarray(flow.transpose(0, 3, 1, 2)))
        mirror = torch.cat([-x[:, :1], x[:, 1:]], dim=1).flip(-1)
        both = nn.functional.normalize(self.encoder(x) + self.encoder(mirror), dim=1)
        return Embedding(both.numpy().astype(np.float32), self.space)


def save_flow_adapter(
    encoder: FlowEncoder, folder: Path, *, space: str, temperature: float, input_kind: str, facts: Mapping[str, Any]
) -> None:
    """Write an adapter folder.

    Args:
        encoder: The trained network.
        folder: Created if need be.
        space: Id of the text space.
        temperature: Of the softmax over labels.
        input_kind: How flow images are read.
        facts: Training data, figures, versions: anything JSON-ready that the card tells.

    Raises:
        OSError: If a file cannot be written.
    """
    weights = save({name: tensor.contiguous() for name, tensor in encoder.state_dict().items()})
    card = {
        "kind": KIND,
        "text_space": space,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "dimension": encoder.dimension,
        "width": encoder.width,
        "input": input_kind,
        "temperature": temperature,
        **facts,
    }
    write_atomically(folder / WEIGHTS_NAME, weights)
    write_atomically(folder / README_NAME, _readme(card).encode())
    write_atomically(folder / CARD_NAME, (json.dumps(card, indent=2) + "\n").encode())


def _readme(card: Mapping[str, Any]) -> str:
    sets = ", ".join(card.get("data_sets", ())) or "see vlfer_adapter.json"
    return f"""# Flow adapter

Maps onset-to-apex motion of a face (28x28: u, v, strain) into the text space `{card["text_space"]}`, so that any words
can be asked of a micro-expression: `vlfer mie recognize`. {card["width"]} filters, {card["dimension"]} dimensions.

- Trained on {card.get("clips", "?")} clips of {card.get("subjects", "?")} people ({sets}) and as many made motions of
  known action units, by the fixed schedule in `vlfer_adapter.json`. No figure is claimed for it: `vlfer mie eval`
  measures methods, and this adapter has seen every clip there was.
- Experimental. It reads perceived motion, not felt emotion. Laboratory clips of mostly young adults; it has not been
  measured on other people. Do not use it to judge anyone, nor on people without their consent.
- Research use, as the data sets behind it demand.
"""


def load_flow_adapter(folder: str | Path, *, space: str) -> FlowAdapter:
    """Load an adapter folder for a text space.

    Raises:
        AdapterError: If the folder is incomplete, was tampered with or was made for another text space.
    """
    folder = Path(folder)
    try:
        card = json.loads((folder / CARD_NAME).read_text(encoding="utf-8"))
        weights = (folder / WEIGHTS_NAME).read_bytes()
    except (OSError, ValueError) as error:
        raise AdapterError(f"{str(folder)!r} is no adapter: {error}.", fix=_RETRAIN) from error
    wanted = {"kind", "text_space", "weights_sha256", "dimension", "width", "input", "temperature"}
    missing = sorted(wanted - set(card)) if isinstance(card, dict) else sorted(wanted)
    if missing or card["kind"] != KIND:
        raise AdapterError(f"{str(folder)!r} is no flow adapter.", why=f"Its card lacks {', '.join(missing) or KIND}.")
    actual = hashlib.sha256(weights).hexdigest()
    if actual != card["weights_sha256"]:
        raise AdapterError(
            f"The weights in {str(folder)!r} have the hash {actual[:16]}.",
            why=f"The card says {str(card['weights_sha256'])[:16]}: the file was changed or damaged.", fix=_RETRAIN,
        )  # fmt: skip
    if card["text_space"] != space:
        raise AdapterError(
            f"The adapter {str(folder)!r} speaks the text space {card['text_space']!r}.",
            why=f"The backbone at hand has {space!r}; vectors of two spaces cannot be compared.", fix=_RETRAIN,
        )  # fmt: skip
    encoder = FlowEncoder(int(card["dimension"]), width=int(card["width"]))
    try:
        encoder.load_state_dict(load(weights))
    except (SafetensorError, RuntimeError) as error:
        raise AdapterError(f"The weights in {str(folder)!r} do not fit: {error}.", fix=_RETRAIN) from error
    return FlowAdapter(encoder.eval(), space, float(card["temperature"]), str(card["input"]), card)
