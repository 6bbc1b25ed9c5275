"""What happens behind the app's buttons: look once, then answer for any labels. No Gradio and no HTML in here."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vlfer.errors import ConfigError, NoFaceError, PromptError, VlferError
from vlfer.explain import Explanation, explain_crops
from vlfer.faces.detect import FaceDetector
from vlfer.pipeline import EmotionPipeline, Hook
from vlfer.reporting import Analysis, image_predictions
from vlfer.scoring import default_threshold
from vlfer.serve.decoders import DecoderPool
from vlfer.serve.ui_uploads import Limits, Uploads
from vlfer.sources import Clip
from vlfer.stream import EmbeddedStream
from vlfer.text.bank import compared_sentences, embed_labels
from vlfer.types import Embedding, Face, FloatArray, Frames, LabelSet, Prediction, UInt8Array

__all__ = ["Engine", "Film", "Limits", "Photo", "PhotoAnswer", "SentenceScore", "Sentences", "mean_probability"]

_MOST_ASKED = 16


@dataclass(frozen=True, slots=True, eq=False)
class Photo:
    """An image that was looked at; its faces can be compared with any labels from here on.

    Attributes:
        view: (h, w, 3) uint8 RGB, scaled down for the screen.
        width: Of the picture in pixels, in which the boxes are.
        height: Of the picture in pixels.
        faces: N faces, largest first.
        crops: N crops (S, S, 3) uint8 RGB.
        embedding: N vectors.
        note: How the faces were found.
    """

    view: UInt8Array
    width: int
    height: int
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
        pipeline: Encodes and scores.
        limits: How much one request may be.
        pool: Gives the decoding processes of a service that runs beside the app; None starts some.
    """

    def __init__(
        self,
        pipeline: EmotionPipeline,
        *,
        limits: Limits | None = None,
        pool: Callable[[], DecoderPool] | None = None,
    ) -> None:
        self.pipeline = pipeline
        self.limits = limits or Limits()
        crop_px = pipeline.encoder.spec.image_size
        self.uploads = Uploads(pipeline.config, crop_px=crop_px, limits=self.limits, pool=pool)
        self._stops: dict[str, threading.Event] = {}
        self._asked: OrderedDict[tuple[str, str], EmotionPipeline] = OrderedDict()
        self._lock = threading.Lock()

    def look(self, path: str) -> Photo:
        """Find and encode the faces of an image.

        Raises:
            VlferError: If it is no image, too large, or takes too long.
            NoFaceError: If it shows no face.
        """
        looked = self.uploads.look(path)
        if not looked.faces:
            raise NoFaceError(
                "No face was found in this picture.",
                why="It may be small, turned away, covered or drawn.",
                fix="a picture in which the face is larger and seen from the front.",
            )
        most, note = self.limits.faces, looked.note
        if len(looked.faces) > most:
            note = f"{len(looked.faces)} faces were found; the {most} largest are answered for"
        crops = looked.crops[:most]
        return Photo(
            looked.view, looked.width, looked.height, looked.faces[:most], tuple(crops), self.pipeline.encode(crops),
            note,
        )  # fmt: skip

    def tell(self, photo: Photo, labels: LabelSet) -> PhotoAnswer:
        """Compare the faces of a photo with labels.

        Raises:
            PromptError: If there are too many labels.
        """
        scores = self.asking(labels).score(photo.embedding)
        config = self.pipeline.config
        deciding: Any = {"threshold": config.threshold, "tie_margin": config.tie_margin}
        predictions = image_predictions(photo.faces, scores, note=photo.note, **deciding)
        return PhotoAnswer(predictions, self._sentence_scores(photo.embedding, labels), self.threshold(labels))

    def explain(self, photo: Photo, answer: PhotoAnswer, labels: LabelSet) -> tuple[Explanation, ...]:
        """Say why the largest faces of a photo got their labels."""
        crops = photo.crops[: self.limits.explained]
        names = [prediction.top[0][0] for prediction in answer.predictions[: len(crops)]]
        found = explain_crops(self.asking(labels), crops, names)
        return tuple(one for one in found if one is not None)

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
            VlferError: If it is no video, too long, or stopped before its first frame.
        """
        stop = threading.Event()
        with self.uploads.video(path) as clip:
            self._stops[session] = stop
            try:
                stream = self.pipeline.watch(replace(clip, chunks=_until(clip.chunks, stop)), hook=hook)
            finally:
                if self._stops.get(session) is stop:
                    del self._stops[session]
        return Film(replace(clip, source=path, chunks=()), stream)

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
        """Return the pipeline for other labels; it shares everything that was loaded, and the last ones are kept.

        Raises:
            PromptError: If there are too many labels.
        """
        self.check(labels)
        own, key = self.pipeline, (labels.sha256, labels.name)
        with self._lock:
            found = self._asked.pop(key, None)
        if found is None:
            config = own.config.model_copy(update={"labels": labels.name, "top": len(labels)})
            found = EmotionPipeline(own.encoder, labels=labels, bank=own.bank, detector=own.detector, config=config)
        with self._lock:
            self._asked[key] = found
            while len(self._asked) > _MOST_ASKED:
                self._asked.popitem(last=False)
        return found

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
