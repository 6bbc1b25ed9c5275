"""What answers requests: decoders, the micro-batched tower, the words, the jobs. No HTTP in here."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vlfer.config import PredictConfig, resource_dir
from vlfer.errors import DataError, SpaceError
from vlfer.explain import explain_crops
from vlfer.mie import MicroRecognizer, MicroResult
from vlfer.models.threads import sharing_cores
from vlfer.pipeline import EmotionPipeline
from vlfer.reporting import Analysis, image_predictions
from vlfer.search import Hit, SearchIndex, query_vector
from vlfer.serve.batching import BatchingEncoder, MicroBatcher
from vlfer.serve.decoders import DecoderPool, Looked
from vlfer.serve.jobs import CancelledError, Tell
from vlfer.serve.metrics import Metrics
from vlfer.serve.problems import LimitError, ServiceProblem
from vlfer.serve.settings import ServeSettings
from vlfer.serve.words import RecentBank, labels_of_request
from vlfer.types import Embedding, FloatArray, Frames, LabelSet, Prediction, Scores, UInt8Array

_MIE_FPS = 1000.0
_MOST_PIPELINES = 64
_MOST_CLIP_BYTES = 512 * 2**20


class Engine:
    """Everything behind the routes. Safe from several threads.

    Args:
        pipeline: What was loaded.
        settings: Limits.
        metrics: Where it counts.
    """

    def __init__(self, pipeline: EmotionPipeline, settings: ServeSettings, metrics: Metrics) -> None:
        if settings.torch_threads:
            import torch

            torch.set_num_threads(settings.torch_threads)
        self.pipeline = pipeline
        self.settings = settings
        self.metrics = metrics
        self.config: PredictConfig = pipeline.config
        self.space: str = pipeline.encoder.space
        self._batcher = MicroBatcher(
            self._tower, max_batch=settings.max_batch, on_batch=self._on_batch, coming=lambda: self.decoders.is_behind
        )
        self.encoder = BatchingEncoder(pipeline.encoder, self._batcher)
        self.bank = RecentBank(pipeline.encoder)
        self.decoders = DecoderPool(
            settings, self.config, crop_px=pipeline.encoder.spec.image_size, on_lost=metrics.decoders_lost.inc
        )
        self._index: SearchIndex | None = None
        self._flow: Any = None
        self._pipelines: dict[tuple[str, str], EmotionPipeline] = {}
        self._lock = threading.Lock()

    def warm_up(self) -> None:
        """Load whatever the first request would otherwise wait for."""
        size = self.pipeline.encoder.spec.image_size
        self.pipeline.score(self.encoder.encode_images(np.zeros((1, size, size, 3), np.uint8)))
        self.decoders.warm_up()

    def close(self) -> None:
        """End processes and threads."""
        self.decoders.close()
        self._batcher.close()
        if self._index is not None:
            self._index.close()

    def labels(self, spec: Any) -> LabelSet:
        """Return the labels that a request names; see `labels_of_request`."""
        return labels_of_request(spec, most=self.settings.max_labels)

    def look(self, data: bytes, *, faces: str) -> Looked:
        """Decode an image and find its faces, in a process of its own."""
        return self.decoders.look(data, faces=faces)

    def encode(self, crops: UInt8Array) -> Embedding:
        """Encode crops (N, S, S, 3), together with those of other requests."""
        return self.encoder.encode_images(crops)

    def score(self, vectors: Embedding, labels: LabelSet) -> Scores:
        """Compare vectors with labels."""
        return self._pipeline(labels).score(vectors)

    def answer_image(
        self,
        data: bytes,
        labels: LabelSet,
        *,
        faces: str,
        threshold: float | None,
        top: int | None,
        explains: bool = False,
    ) -> tuple[Looked, tuple[Prediction, ...]]:
        """Answer for an image; without a face there is no prediction.

        Args:
            data: The upload.
            labels: What is asked.
            faces: "detect", "whole" or "auto".
            threshold: Probability below which it abstains, None for the usual one.
            top: Labels listed, None for all.
            explains: Whether to say why, for as many faces as the settings allow.

        Raises:
            VlferError: If it cannot be read.
        """
        looked = self.look(data, faces=faces)
        if not looked.faces:
            return looked, ()
        scores = self.score(self.encode(looked.crops), labels)
        tie_margin = self.config.tie_margin
        predictions = image_predictions(
            looked.faces, scores, threshold=threshold, tie_margin=tie_margin, top=top, note=looked.note
        )
        if explains:
            some = predictions[: self.settings.max_explained]
            told = explain_crops(self._pipeline(labels), list(looked.crops[: len(some)]), [p.top[0][0] for p in some])
            reasons = [{} if why is None else why.as_dict() for why in told]
            explained = [replace(one, explanation=why) for one, why in zip(some, reasons, strict=True)]
            predictions = (*explained, *predictions[len(some) :])
        return looked, predictions

    def answer_video(self, file: Path, labels: LabelSet, tell: Tell, *, fps: float, top: int | None) -> Analysis:
        """Answer for a video; `tell` is told frames done and expected, and may raise `CancelledError`.

        Raises:
            VlferError: If it cannot be read, or shows no face.
        """
        chosen = {"fps": fps} | ({} if top is None else {"top": top})
        pipeline = self._build(labels, self.config.model_copy(update=chosen))
        with self.decoders.video(file, fps=fps, longest_s=self.settings.max_video_s) as clip:
            (analysis,) = pipeline.analyse(
                [clip], hook=lambda step, done, total: tell(done, total) if step == "frames" else None, on_error="raise"
            )
        return analysis

    def embed_texts(self, sentences: list[str]) -> Embedding:
        """Encode sentences.

        Raises:
            LimitError: If there are too many.
        """
        if len(sentences) > self.settings.max_sentences:
            raise LimitError(f"{len(sentences)} sentences were given.", why=f"At most {self.settings.max_sentences}.")
        return self.bank.encode(sentences)

    def take_vectors(self, vectors: FloatArray, space: str) -> Embedding:
        """Return vectors that a client has computed, scaled to unit length.

        Raises:
            SpaceError: If they are of another model.
            DataError: If they are no vectors of this model.
            LimitError: If there are too many.
        """
        if space != self.space:
            raise SpaceError(
                f"The vectors are of the space {space[:200]!r}.", why=f"This server compares in {self.space!r}.",
                fix="the same backbone and adapter on both sides; see /v1/models.",
            )  # fmt: skip
        if len(vectors) > self.settings.max_vectors:
            raise LimitError(f"{len(vectors)} vectors were given.", why=f"At most {self.settings.max_vectors}.")
        if vectors.ndim != 2 or vectors.shape[1] != self.encoder.dimension or not len(vectors):
            raise DataError(f"The vectors have shape {vectors.shape}.", why=f"Expected (N, {self.encoder.dimension}).")
        norms = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
        if not bool(np.isfinite(norms).all()) or bool((norms < 1e-6).any()):
            raise DataError("A vector is zero or not finite.", why="It has no direction.")
        return Embedding((vectors / norms).astype(np.float32), self.space)

    def search(self, words: str, *, count: int) -> list[Hit]:
        """Return the moments of the index that look most like a description.

        Raises:
            ServiceProblem: 501 if the service has no index.
        """
        if self.settings.index_dir is None:
            raise ServiceProblem(501, "This service has no index.", fix="vlfer serve --index FOLDER")
        with self._lock:
            if self._index is None:
                self._index = SearchIndex.open(self.settings.index_dir, encoder_space=self.space)
        return self._index.query(query_vector(self.bank, words), count)

    def recognize_pair(self, onset: bytes, apex: bytes, labels: LabelSet) -> MicroResult:
        """Say what moved from one image to another."""
        return self._recognizer(labels).recognize_pair(self.decoders.pixels(onset), self.decoders.pixels(apex))

    def recognize_clip(self, file: Path, labels: LabelSet) -> MicroResult:
        """Find onset and apex in a clip and say what moved.

        Raises:
            LimitError: If it is too long.
        """
        chunks, total = [], 0
        with self.decoders.video(file, fps=_MIE_FPS, longest_s=self.settings.max_clip_s) as clip:
            for chunk in clip.chunks:
                chunks.append(chunk)
                total += chunk.pixels.nbytes
                if total > _MOST_CLIP_BYTES:
                    raise LimitError("The clip is too long for one expression.", fix="cut it, or scale it down.")
        pixels = np.concatenate([chunk.pixels for chunk in chunks])
        frames = Frames(pixels, np.concatenate([chunk.times_s for chunk in chunks]), "upload")
        return self._recognizer(labels).recognize_clip(frames)

    def _recognizer(self, labels: LabelSet) -> MicroRecognizer:
        detector = self.pipeline.detector
        if detector is None:
            raise ServiceProblem(501, "This service finds no faces.", fix="vlfer serve without --faces whole")
        with self._lock:
            if self._flow is None:
                from vlfer.models.flow_encoder import load_flow_adapter

                self._flow = load_flow_adapter(resource_dir("adapters") / "mie-flow", space=self.space)
        return MicroRecognizer(detector, self._flow, self.bank, labels)

    def _pipeline(self, labels: LabelSet) -> EmotionPipeline:
        """Return a pipeline for labels; those asked last are kept, as its provenance takes a while to gather."""
        key = (labels.sha256, labels.name)
        with self._lock:
            found = self._pipelines.pop(key, None) or self._build(labels, self.config)
            self._pipelines[key] = found
            while len(self._pipelines) > _MOST_PIPELINES:
                del self._pipelines[next(iter(self._pipelines))]
        return found

    def _build(self, labels: LabelSet, config: PredictConfig) -> EmotionPipeline:
        # Shipped sentences are kept on disk between starts; what people ask is not.
        bank = self.bank if labels.name == "custom" else self.pipeline.bank
        return EmotionPipeline(self.encoder, labels=labels, bank=bank, detector=self.pipeline.detector, config=config)

    def _tower(self, crops: UInt8Array) -> FloatArray:
        """Encode crops with all cores, or with half of them while decoders need some."""
        shared = self.decoders.is_busy and not self.settings.torch_threads
        with sharing_cores() if shared else contextlib.nullcontext():
            return self.pipeline.encoder.encode_images(crops, batch_size=self.config.batch_size).vectors

    def _on_batch(self, count: int) -> None:
        self.metrics.batch.observe(count)
        self.metrics.faces.inc(count)


__all__ = ["CancelledError", "Engine"]
