"""What happens behind the app's buttons: look once, then answer for any labels. No Gradio and no HTML in here."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vlfer.errors import ConfigError, NoFaceError, PromptError, VideoReadError, VlferError
from vlfer.faces.detect import FaceDetector
from vlfer.pipeline import EmotionPipeline, Hook
from vlfer.reporting import Analysis, image_predictions
from vlfer.scoring import default_threshold, score
from vlfer.sources import Clip, open_source
from vlfer.stream import EmbeddedStream
from vlfer.text.bank import compared_sentences, embed_labels
from vlfer.types import Embedding, Face, FloatArray, Frames, LabelSet, Prediction, UInt8Array
from vlfer.video.read import load_image, media_kind, probe_video


@dataclass(frozen=True, slots=True)
class Limits:
    """How much the app takes on.

    Attributes:
        labels: Most labels in one question.
        faces: Most faces of one image that are answered for.
        video_s: Longest video in seconds.
        upload_mb: Largest upload in megabytes.
    """

    labels: int = 120
    faces: int = 40
    video_s: float = 900.0
    upload_mb: int = 200


@dataclass(frozen=True, slots=True, eq=False)
class Photo:
    """An image that was looked at; its faces can be compared with any labels from here on.

    Attributes:
        pixels: (H, W, 3) uint8 RGB.
        faces: N faces, largest first.
        crops: N crops (S, S, 3) uint8 RGB.
        embedding: N vectors.
        note: How the faces were found.
    """

    pixels: UInt8Array
    faces: tuple[Face, ...]
    crops: tuple[UInt8Array, ...]
    embedding: Embedding
    note: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Film:
    """A video that was watched; its faces can be compared with any labels from here on."""

    clip: Clip
    stream: EmbeddedStream


@dataclass(frozen=True, slots=True)
class SentenceScore:
    """One sentence behind a label and how a face agrees with it.

    Attributes:
        text: The sentence, word for word.
        similarity: Cosine of the face with it, or None where there is no single face to compare.
    """

    text: str
    similarity: float | None = None


Sentences = tuple[tuple[str, tuple[SentenceScore, ...]], ...]
"""For each label, in order: its name and the sentences that stand for it."""


@dataclass(frozen=True, slots=True)
class PhotoAnswer:
    """What the faces of a photo show.

    Attributes:
        predictions: One per face, all labels listed.
        sentences: One per face.
        threshold: Probability below which it abstains.
    """

    predictions: tuple[Prediction, ...]
    sentences: tuple[Sentences, ...]
    threshold: float


class Engine:
    """One pipeline, asked in many words.

    Args:
        pipeline: Finds, encodes and scores.
        limits: How much one request may be.
    """

    def __init__(self, pipeline: EmotionPipeline, *, limits: Limits | None = None) -> None:
        self.pipeline = pipeline
        self.limits = limits or Limits()
        self._stops: dict[str, threading.Event] = {}

    def look(self, source: str | UInt8Array) -> Photo:
        """Find and encode the faces of an image.

        Args:
            source: A path, or pixels (H, W, 3) uint8 RGB.

        Raises:
            ImageReadError: If it is no image.
            NoFaceError: If it shows no face.
        """
        pixels = load_image(source).pixels[0] if isinstance(source, str) else source
        faces, note = self.pipeline.find(pixels, effort="thorough")
        if not faces:
            raise NoFaceError(
                "No face was found in this picture.",
                why="It may be small, turned away, covered or drawn.",
                fix="a picture in which the face is larger and seen from the front.",
            )
        if len(faces) > self.limits.faces:
            note = f"{len(faces)} faces were found; the {self.limits.faces} largest are answered for"
            faces = faces[: self.limits.faces]
        crops = tuple(self.pipeline.crop(pixels, face) for face in faces)
        return Photo(pixels, tuple(faces), crops, self.pipeline.encode(np.stack(crops)), note)

    def tell(self, photo: Photo, labels: LabelSet) -> PhotoAnswer:
        """Compare the faces of a photo with labels.

        Raises:
            PromptError: If there are too many labels.
        """
        self.check(labels)
        pipeline, config = self.pipeline, self.pipeline.config
        scores = score(
            photo.embedding, labels, pipeline.bank,
            temperature=pipeline.temperature, ensemble=config.ensemble, pooling=config.pooling,
        )  # fmt: skip
        deciding: Any = {"threshold": config.threshold, "tie_margin": config.tie_margin}
        predictions = image_predictions(photo.faces, scores, note=photo.note, **deciding)
        return PhotoAnswer(predictions, self._sentence_scores(photo.embedding, labels), self.threshold(labels))

    def detector(self) -> FaceDetector:
        """Return the face detector.

        Raises:
            ConfigError: If the app was started without one.
        """
        if self.pipeline.detector is None:
            raise ConfigError("There is no face detector.", why="The app takes images whole.", fix="vlfer app")
        return self.pipeline.detector

    def watch(self, path: str, *, hook: Hook | None = None, session: str = "") -> Film:
        """Find, follow and encode the faces of a video.

        Args:
            path: A file, or an animated image.
            hook: Told ("frames", done, total).
            session: Name under which `stop` ends it early; what was seen by then is kept.

        Raises:
            VideoReadError: If it is no video, too long, or stopped before its first frame.
        """
        if media_kind(path) == "image":
            raise VideoReadError("This file is an image.", why="A video is needed here.", fix="the Photo tab.")
        info = probe_video(path)
        if info.duration_s > self.limits.video_s:
            raise VideoReadError(
                f"The video lasts {info.duration_s / 60:.0f} minutes.",
                why=f"This app watches {self.limits.video_s / 60:.0f} minutes at most.",
                fix="a shorter part, or on your own machine: vlfer predict film.mp4",
            )
        clip = open_source(path, fps=self.pipeline.config.fps)
        if isinstance(clip, Frames):
            raise VideoReadError("This file holds one picture.", why="A video is needed here.", fix="the Photo tab.")
        stop = threading.Event()
        self._stops[session] = stop
        try:
            watched = replace(clip, chunks=_until(_limited(clip.chunks, self.limits.video_s), stop))
            stream = self.pipeline.watch(watched, hook=hook)
        finally:
            if self._stops.get(session) is stop:
                del self._stops[session]
        return Film(replace(clip, chunks=()), stream)

    def stop(self, session: str) -> None:
        """End what `watch` does for a session."""
        if session in self._stops:
            self._stops[session].set()

    def tell_film(self, film: Film, labels: LabelSet) -> Analysis:
        """Compare the faces of a video with labels.

        Raises:
            PromptError: If there are too many labels.
            NoFaceError: If no frame shows a face.
        """
        return self.asking(labels).tell(film.clip, film.stream)

    def asking(self, labels: LabelSet) -> EmotionPipeline:
        """Return the pipeline for other labels; it shares everything that was loaded.

        Raises:
            PromptError: If there are too many labels.
        """
        self.check(labels)
        own = self.pipeline
        config = own.config.model_copy(update={"labels": labels.name, "top": len(labels)})
        return EmotionPipeline(own.encoder, labels=labels, bank=own.bank, detector=own.detector, config=config)

    def sentences(self, labels: LabelSet) -> Sentences:
        """Return the sentences that stand for each label."""
        ensemble = self.pipeline.config.ensemble
        return tuple(
            (
                label.name,
                tuple(SentenceScore(s) for s in compared_sentences(label, ensemble=ensemble, label_set=labels)),
            )
            for label in labels.labels
        )

    def threshold(self, labels: LabelSet) -> float:
        """Return the probability below which it abstains."""
        chosen = self.pipeline.config.threshold
        return default_threshold(len(labels)) if chosen is None else chosen

    def check(self, labels: LabelSet) -> None:
        """Raise PromptError if there are more labels than the app compares at once."""
        if len(labels) > self.limits.labels:
            raise PromptError(
                f"{len(labels):,} labels were given.",
                why=f"This app compares {self.limits.labels} at most.",
                fix="fewer words, or on your own machine: vlfer predict --labels words.yaml",
            )

    def _sentence_scores(self, faces: Embedding, labels: LabelSet) -> tuple[Sentences, ...]:
        embedded, owner, _ = embed_labels(self.pipeline.bank, labels, ensemble=self.pipeline.config.ensemble)
        similarity = faces.similarity(embedded)
        plain = self.sentences(labels)
        return tuple(_with_scores(plain, owner, row) for row in similarity)


def _with_scores(plain: Sentences, owner: Any, row: FloatArray) -> Sentences:
    values = [row[owner == i].tolist() for i in range(len(plain))]
    return tuple(
        (name, tuple(SentenceScore(one.text, float(value)) for one, value in zip(group, own, strict=True)))
        for (name, group), own in zip(plain, values, strict=True)
    )


def _until(chunks: Iterable[Frames], stop: threading.Event) -> Iterator[Frames]:
    for chunk in chunks:
        if stop.is_set():
            raise VlferError("Stopped.", why="You asked for it.", fix="start again to see the rest.")
        yield chunk


def _limited(chunks: Iterable[Frames], longest_s: float) -> Iterator[Frames]:
    """End a stream whose header told too short a length, or none."""
    for chunk in chunks:
        if float(chunk.times_s[0]) > longest_s:
            raise VideoReadError(f"The video goes on beyond {longest_s / 60:.0f} minutes.", why="The rest is left out.")
        yield chunk


def mean_probability(predictions: Sequence[Prediction]) -> dict[str, float]:
    """Return the probability of each label, averaged over segments by their length."""
    seconds: dict[str, float] = {}
    total = 0.0
    for one in predictions:
        length = max(one.end_s - one.start_s, 1e-6)
        total += length
        for name, probability in one.top:
            seconds[name] = seconds.get(name, 0.0) + probability * length
    return dict(sorted(((n, v / total) for n, v in seconds.items()), key=lambda pair: -pair[1]))
