"""What every encoder shares: batches, unit vectors, the space id and the order of sentences."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from vlfer.errors import BackboneError, EnvironmentProblem, ShapeError
from vlfer.models.preprocess import Fit, check_pixels, prepare_pixels
from vlfer.models.registry import BackboneSpec
from vlfer.types import Embedding, FloatArray, UInt8Array

if TYPE_CHECKING:
    from vlfer.models.adapter import Adapter
    from vlfer.models.label_residual import LabelResidual
    from vlfer.models.prompt_context import PromptContext
    from vlfer.models.temporal import TemporalAdapter

_log = logging.getLogger(__name__)
_HASH_DIGITS = 16
#: Crops at once on a CPU. The maps of more take over 32 MB a layer, which the C library hands back to the system each
#: time: a page fault every 4 KB, and half of the time goes there on one thread.
_MOST_ON_CPU = 16


def choose_device(name: str) -> torch.device:
    """Return the device that ``name`` means; "auto" is a GPU where there is one, else the CPU.

    Raises:
        EnvironmentProblem: If the device does not exist here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise EnvironmentProblem(
            f"The device {name!r} cannot be used.",
            why=(str(error).strip().splitlines() or [""])[0][:200],
            fix="--device cpu",
        ) from error
    if device.type == "meta":
        raise EnvironmentProblem("The device 'meta' cannot be used.", why="It computes nothing.", fix="--device cpu")
    return device


def space_id(name: str, *, weights_sha256: str, adapter_sha256: str = "none") -> str:
    """Return the id of an embedding space: backbone, weights hash, adapter hash."""
    return f"{name}/{weights_sha256[:_HASH_DIGITS]}/{adapter_sha256[:_HASH_DIGITS]}"


class TowerEncoder(ABC):
    """An image tower and a text tower behind the ``Encoder`` protocol; one subclass a library.

    Encoding is safe from several threads: towers only read, and the tokenizer, which keeps state, is behind a lock; so
    is the image tower, on which an explanation hangs hooks for a while.

    Attributes:
        model: The network, in evaluation mode.
        spec: The complete row of this backbone.
        space: Id of its embedding space.
        dimension: D.
        temperature: What cosine similarities are divided by before a softmax.
        device: Where it computes.
        adapter: What was put on it by `vlfer.models.lora.apply_adapter`, or None.
        temporal: The transformer over frames that the adapter brought, or None.
        context: Learned vectors before every sentence, or None.
        residual: Learned shifts of the labels' sentences, or None.
        map: (D, D) linear map after both towers, or None.
        image_lock: Held while images go through the tower.
    """

    #: Whether columns that hold padding in a whole batch may be cut off without changing a vector.
    cuts_padding = False

    def __init__(
        self,
        model: nn.Module,
        *,
        spec: BackboneSpec,
        weights_sha256: str,
        device: torch.device,
        adapter_sha256: str = "none",
    ) -> None:
        if not spec.is_complete:
            raise BackboneError(f"The preprocessing of backbone {spec.name!r} is unknown.")
        if spec.weights_sha256 is not None and spec.weights_sha256 != weights_sha256:
            raise BackboneError(
                f"The weights of backbone {spec.name!r} have the hash {weights_sha256[:_HASH_DIGITS]}.",
                why=f"Expected {spec.weights_sha256[:_HASH_DIGITS]}: the file is damaged or another version.",
                fix="delete the file and load it again.",
            )
        self.model = model.float().eval().requires_grad_(False)
        if device.type == "cpu":  # convolutions on a CPU run faster on channels-last memory
            self.model = self.model.to(memory_format=torch.channels_last)
        self.model = self.model.to(device)
        self.spec = spec
        self.weights_sha256 = weights_sha256
        self.space = space_id(spec.name, weights_sha256=weights_sha256, adapter_sha256=adapter_sha256)
        self.dimension = spec.dimension
        self.device = device
        self.temperature = self._learned_temperature() if spec.logit_temperature is None else spec.logit_temperature
        self._tokenizer_lock = threading.Lock()
        self.image_lock = threading.RLock()
        self.adapter: Adapter | None = None
        self.temporal: TemporalAdapter | None = None
        self.context: PromptContext | None = None
        self.residual: LabelResidual | None = None
        self.map: Tensor | None = None

    @abstractmethod
    def _forward_images(self, batch: Tensor) -> Tensor:
        """Return (N, D) vectors of (N, 3, S, S) prepared pixels."""

    @abstractmethod
    def _forward_texts(self, tokens: Tensor) -> Tensor:
        """Return (N, D) vectors of (N, L) token ids."""

    @abstractmethod
    def _tokenize(self, sentences: list[str]) -> tuple[Tensor, list[int]]:
        """Return (N, L) int64 ids and the number of tokens each sentence has before it is cut to L."""

    def _learned_temperature(self) -> float:
        scale = getattr(self.model, "logit_scale", None)
        if not isinstance(scale, Tensor) or scale.numel() != 1:
            raise BackboneError(
                f"The backbone {self.spec.name!r} has no logit scale.",
                why="Its similarities have no known temperature.",
            )
        return float(1.0 / scale.detach().double().exp().item())

    def encode_images(self, pixels: UInt8Array, *, batch_size: int = 32, fit: Fit = "pad") -> Embedding:
        """Encode face crops.

        Args:
            pixels: (N, S, S, 3) uint8 RGB, of any size S.
            batch_size: Crops that go through the tower at once, on a CPU 16 at the most; changes memory and speed, not
                the result.
            fit: What to do with crops that are not square, see ``prepare_pixels``.

        Returns:
            N unit vectors in this encoder's space.

        Raises:
            ShapeError: If ``pixels`` has another shape or dtype, or ``batch_size`` is below 1.
        """
        check_pixels(pixels)
        _check_batch_size(batch_size)
        vectors = np.empty((len(pixels), self.dimension), np.float32)
        batch_size = min(batch_size, _MOST_ON_CPU) if self.device.type == "cpu" else batch_size
        with torch.inference_mode():
            for start in range(0, len(pixels), batch_size):
                batch = prepare_pixels(pixels[start : start + batch_size], spec=self.spec, fit=fit).to(self.device)
                with self.image_lock:
                    vectors[start : start + batch_size] = _unit(self.image_features(batch))
        return Embedding(vectors, self.space)

    def encode_texts(self, sentences: Sequence[str], *, batch_size: int = 64) -> Embedding:
        """Encode sentences; what is longer than the text tower reads is cut, with one logged warning.

        Args:
            sentences: N sentences in any order; similar lengths are put together inside.
            batch_size: Sentences that go through the tower at once.

        Returns:
            N unit vectors in this encoder's space, in the order of ``sentences``.

        Raises:
            ShapeError: If ``sentences`` is one string, or ``batch_size`` is below 1.
        """
        if isinstance(sentences, str):
            raise ShapeError("One string was given to encode_texts.", why="Expected a sequence.", fix="[sentence]")
        _check_batch_size(batch_size)
        vectors = np.empty((len(sentences), self.dimension), np.float32)
        if not sentences:
            return Embedding(vectors, self.space)
        with self._tokenizer_lock:
            tokens, lengths = self._tokenize(list(sentences))
        if self.context is not None:
            tokens, lengths = self.context.insert(tokens, lengths)
        limit = tokens.shape[1]
        cut = sum(length > limit for length in lengths)
        if cut:
            _log.warning("%d of %d sentences were cut to %d tokens by %s.", cut, len(lengths), limit, self.spec.name)
        order = np.argsort(lengths, kind="stable")
        with torch.inference_mode():
            for start in range(0, len(order), batch_size):
                rows = order[start : start + batch_size]
                width = min(limit, max(lengths[i] for i in rows)) if self.cuts_padding else limit
                batch = tokens[torch.from_numpy(rows), :width].to(self.device)
                vectors[rows] = _unit(self.text_features(batch))
        return Embedding(vectors, self.space)

    def image_features(self, batch: Tensor) -> Tensor:
        """Return (N, D) vectors, not of unit length, of (N, 3, S, S) prepared pixels; gradients flow."""
        features = self._forward_images(batch)
        return features if self.map is None else features @ self.map.T

    def text_features(self, tokens: Tensor) -> Tensor:
        """Return (N, D) vectors, not of unit length, of (N, L) token ids; gradients flow."""
        features = self._forward_texts(tokens)
        if self.residual is not None:
            features = self.residual(features)
        return features if self.map is None else features @ self.map.T

    def tokenize(self, sentences: Sequence[str]) -> tuple[Tensor, list[int]]:
        """Return (N, L) int64 ids, without a learned context, and the length of each sentence before any cut."""
        with self._tokenizer_lock:
            return self._tokenize(list(sentences))


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise ShapeError(f"The batch size is {batch_size}.", why="At least one item goes through a tower at once.")


def _unit(features: Tensor) -> FloatArray:
    unit: FloatArray = nn.functional.normalize(features.float(), dim=-1).cpu().numpy()
    return unit
