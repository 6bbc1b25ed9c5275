"""The one way from faces and words to vectors: the Encoder protocol and the loader behind every backbone name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from vlfer.models.preprocess import Fit
from vlfer.models.registry import BackboneSpec, find_backbone
from vlfer.models.tower import TowerEncoder, choose_device
from vlfer.types import Embedding, UInt8Array


@runtime_checkable
class Encoder(Protocol):
    """A dual encoder: faces and sentences into one space.

    Attributes:
        spec: Its row, complete.
        space: Id of the embedding space; changes with weights and adapter.
        dimension: D.
        temperature: What cosine similarities are divided by before a softmax.
    """

    spec: BackboneSpec
    space: str
    dimension: int
    temperature: float

    def encode_images(self, pixels: UInt8Array, *, batch_size: int = 32, fit: Fit = "pad") -> Embedding:
        """Encode (N, S, S, 3) uint8 RGB crops into N unit vectors."""
        ...

    def encode_texts(self, sentences: Sequence[str]) -> Embedding:
        """Encode N sentences into N unit vectors."""
        ...


def load_encoder(
    name: str = "bundled", *, device: str = "auto", cache_dir: Path | None = None, adapter: str | Path | None = None
) -> TowerEncoder:
    """Load a backbone by name.

    The result is an ``Encoder``; its base class adds ``model`` and ``device`` for training.

    Args:
        name: See ``vlfer.models.registry`` for the grammar.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        cache_dir: Where downloaded weights lie, instead of the hub's own cache.
        adapter: Folder or known name of an adapter, see `vlfer.models.adapter`; merged before the encoder is returned.

    Raises:
        AdapterError: If the adapter is damaged, or was made for another backbone.
        BackboneError: If the name is unknown or its weights cannot be loaded.
        EnvironmentProblem: If the device does not exist here.
    """
    if adapter is not None:
        from vlfer.models.adapter import load_adapter

        verified = load_adapter(adapter)  # before the backbone, which takes longer
        encoder = load_encoder(name, device=device, cache_dir=cache_dir)
        from vlfer.models.lora import apply_adapter

        apply_adapter(encoder, verified)
        return encoder
    spec = find_backbone(name)
    target = choose_device(device)
    # Each library takes seconds to import: only the one that is asked for.
    if spec.origin == "bundled":
        from vlfer.models.bundled import load_bundled

        return load_bundled(Path(spec.source) if spec.source else None, device=target)
    if spec.library == "open_clip":
        from vlfer.models.openclip import load_open_clip

        return load_open_clip(spec, device=target, cache_dir=cache_dir)
    from vlfer.models.hf import load_transformers

    return load_transformers(spec, device=target, cache_dir=cache_dir)
