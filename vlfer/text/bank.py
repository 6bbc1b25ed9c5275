"""Vectors of sentences, kept on disk so that no sentence is encoded twice, and the vectors of a label set."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import secrets
import threading
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from vlfer.config import write_atomically
from vlfer.errors import PromptError
from vlfer.text.combine import Ensemble, sentence_groups
from vlfer.text.sentences import class_sentences
from vlfer.types import Embedding, FloatArray, IntArray, Label, LabelSet

__all__ = [
    "Ensemble",
    "SentenceBank",
    "TextBank",
    "TextEncoder",
    "class_sentences",
    "compared_sentences",
    "embed_labels",
]

_log = logging.getLogger(__name__)


class TextEncoder(Protocol):
    """The half of an ``Encoder`` that a bank needs."""

    @property
    def space(self) -> str:
        """Id of the embedding space."""
        ...

    def encode_texts(self, sentences: Sequence[str]) -> Embedding:
        """Encode N sentences into N unit vectors."""
        ...


class SentenceBank(Protocol):
    """What turns sentences into vectors; ``TextBank`` is one."""

    def encode(self, sentences: Sequence[str]) -> Embedding:
        """Return one unit vector for each sentence, in order."""
        ...


class TextBank:
    """Vectors of sentences in one space, in memory and on disk.

    On disk every call that met new sentences leaves one file, written whole and then renamed, so that processes may
    share the folder. A file that is damaged or of another space is removed and its sentences are encoded again.
    Where the folder cannot be read or written the bank works from memory, after one logged warning.

    Args:
        encoder: Encodes what is not yet known.
        cache_dir: Folder that may be shared by banks of all spaces; None keeps vectors in memory only.
    """

    def __init__(self, encoder: TextEncoder, *, cache_dir: Path | None = None) -> None:
        self.encoder = encoder
        self.space = encoder.space
        digest = hashlib.sha256(self.space.encode()).hexdigest()
        self._folder = None if cache_dir is None else Path(cache_dir) / "text" / digest[:32]
        self._known: dict[str, FloatArray] = {}
        self._files_read: set[str] = set()
        self._warned = False
        self._lock = threading.RLock()

    def encode(self, sentences: Sequence[str]) -> Embedding:
        """Return the vectors of sentences, encoding only those never met before.

        Args:
            sentences: At least one; may repeat.

        Returns:
            One unit vector for each sentence, in order.

        Raises:
            PromptError: If there is no sentence.
        """
        if isinstance(sentences, str) or not sentences:
            raise PromptError(f"There is no list of sentences to encode, but {sentences!r}.")
        keys = [_key(sentence) for sentence in sentences]
        with self._lock:
            if any(key not in self._known for key in keys):
                self._read_files()
            missing = {key: s for key, s in zip(keys, sentences, strict=True) if key not in self._known}
            if missing:
                fresh = self.encoder.encode_texts(list(missing.values())).vectors
                self._known.update(zip(missing, fresh, strict=True))
                self._write_file(list(missing), fresh)
            return Embedding(np.stack([self._known[key] for key in keys]), self.space)

    def _read_files(self) -> None:
        """Take in the files that other banks left since the last look."""
        if self._folder is None:
            return
        try:
            paths = sorted(self._folder.glob("*.safetensors"))
        except OSError as error:
            self._warn(error)
            return
        for path in paths:
            if path.name in self._files_read:
                continue
            self._files_read.add(path.name)
            try:
                found = self._read_file(path)
            except OSError as error:
                self._warn(error)
                continue
            except (SafetensorError, ValueError, KeyError) as error:
                _log.warning("The text cache file %s is damaged; its sentences are encoded again: %s", path, error)
                with contextlib.suppress(OSError):
                    path.unlink()
                continue
            for key, vector in found.items():
                self._known.setdefault(key, vector)

    def _read_file(self, path: Path) -> dict[str, FloatArray]:
        with safe_open(path, framework="numpy") as file:
            notes = file.metadata() or {}
            vectors: FloatArray = file.get_tensor("vectors")
            keys = file.get_tensor("keys")
        if notes.get("space") != self.space or notes.get("sha256") != _content_hash(keys, vectors):
            raise ValueError("its content does not match its hash or its space")
        rows = Embedding(vectors, self.space).vectors
        return {bytes(key).hex(): row for key, row in zip(keys, rows, strict=True)}

    def _write_file(self, keys: Sequence[str], vectors: FloatArray) -> None:
        if self._folder is None:
            return
        raw_keys = np.frombuffer(bytes.fromhex("".join(keys)), np.uint8).reshape(len(keys), -1)
        digest = _content_hash(raw_keys, vectors)
        content = save({"keys": raw_keys, "vectors": vectors}, metadata={"space": self.space, "sha256": digest})
        # A random part keeps a healthy file apart from a damaged one that holds the same sentences.
        path = self._folder / f"{digest[:24]}-{secrets.token_hex(4)}.safetensors"
        try:
            write_atomically(path, content)
        except OSError as error:
            self._warn(error)
        else:
            self._files_read.add(path.name)

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            _log.warning("Text embeddings cannot be kept in %s (%s); going on without.", self._folder, error)
        self._warned = True


def _key(sentence: str) -> str:
    return hashlib.sha256(sentence.encode("utf-8", "surrogatepass")).hexdigest()


def _content_hash(keys: NDArray[np.uint8], vectors: FloatArray) -> str:
    return hashlib.sha256(keys.tobytes() + vectors.tobytes()).hexdigest()


def embed_labels(
    bank: SentenceBank,
    label_set: LabelSet,
    *,
    ensemble: Ensemble = "all",
    templates: str | Sequence[str] = "grammatical",
) -> tuple[Embedding, IntArray, FloatArray]:
    """Return the vectors of every sentence of every label, for the scorer to combine.

    With ``owner`` and ``weight`` both published ways are open: the weighted mean of embeddings (CLIP), and the
    weighted mean of logits (Exp-CLIP). Nothing is averaged here.

    Args:
        bank: Encodes and remembers.
        label_set: C labels.
        ensemble: Which sentences stand for a label, see `vlfer.text.combine.sentence_groups`.
        templates: See ``class_sentences``.

    Returns:
        The embedding of M sentences; owner (M,) int64, the label of each; weight (M,) float32, which sums to 1 over
        the sentences that speak for one label; cues against it have negative weights.

    Raises:
        PromptError: If ensemble or templates are unknown.
    """
    sentences: list[str] = []
    owner: list[int] = []
    weight: list[float] = []
    for position, label in enumerate(label_set.labels):
        for group in sentence_groups(label, label_set, ensemble=ensemble, templates=templates):
            sentences += group.sentences
            owner += [position] * len(group.sentences)
            weight += group.spread()
    return bank.encode(sentences), np.array(owner, np.int64), np.array(weight, np.float32)


def compared_sentences(
    label: Label,
    *,
    ensemble: Ensemble = "all",
    templates: str | Sequence[str] = "grammatical",
    label_set: LabelSet | None = None,
) -> tuple[str, ...]:
    """Return the sentences that stand for a label, in the order in which `embed_labels` gives their vectors.

    Args:
        label: The label.
        ensemble: As for `embed_labels`.
        templates: As for `embed_labels`.
        label_set: The set of the label, where the parts of a mixture are looked up.

    Raises:
        PromptError: If the ensemble or the templates are unknown.
    """
    groups = sentence_groups(label, label_set or LabelSet((label,)), ensemble=ensemble, templates=templates)
    return tuple(chain.from_iterable(group.sentences for group in groups))
