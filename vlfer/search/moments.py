"""From a source to its moments, and from words to the vector they are looked up by."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from vlfer.errors import NoFaceError
from vlfer.faces.align import crop_face
from vlfer.search.store import Moment
from vlfer.segments import Timeline
from vlfer.sources import Clip, Source, open_source
from vlfer.text.bank import SentenceBank, compared_sentences, embed_labels
from vlfer.text.labels import labels_from_words
from vlfer.types import Embedding, FloatArray, Frames, UInt8Array

if TYPE_CHECKING:
    from vlfer.pipeline import EmotionPipeline, Hook
    from vlfer.reporting import Analysis

LONGEST_S = 0.5
_THUMBNAIL_PX = 144
_THUMBNAIL_MARGIN = 0.2


def find_moments(
    pipeline: EmotionPipeline, source: Source, *, thumbnails: bool = True, hook: Hook | None = None
) -> list[Moment]:
    """Find the faces of a source and describe each half second of each by one vector.

    Labels play no part: the index answers for words that nobody thought of when it was built.

    Args:
        pipeline: Its encoder, detector and settings are used.
        source: A path, an array or frames.
        thumbnails: Whether to keep a small picture of each face.
        hook: Told about the progress of a video.

    Raises:
        NoFaceError: If no face is seen.
        MediaReadError: If it cannot be read.
    """
    opened = open_source(source, fps=pipeline.config.fps)
    if isinstance(opened, Clip):
        (analysis,) = pipeline.analyse([source], hook=hook, on_error="raise")
        return moments_of_video(analysis, thumbnails=thumbnails)
    return _of_image(pipeline, opened, thumbnails=thumbnails)


def moments_of_video(analysis: Analysis, *, thumbnails: bool = True) -> list[Moment]:
    """Return the moments of a video that was analysed, whatever it was asked for; none of an image."""
    return [moment for timeline in analysis.timelines for moment in _of_face(timeline, thumbnails=thumbnails)]


def moments_of_image(embedding: Embedding, *, thumbnails: tuple[UInt8Array, ...] | None = None) -> list[Moment]:
    """Return the moments of an image from the vectors of its N faces and, if they are to be kept, their pictures."""
    pictures = [_jpeg(picture) for picture in thumbnails] if thumbnails else [None] * len(embedding)
    return [Moment(0.0, 0.0, i, embedding.vectors[i], picture) for i, picture in enumerate(pictures)]


def query_sentences(words: str) -> tuple[str, ...]:
    """Return the sentences that `query_vector` takes the mean of.

    Raises:
        PromptError: If the words are empty, hold no letter or are too long.
    """
    return compared_sentences(labels_from_words([words]).labels[0])


def query_vector(bank: SentenceBank, words: str) -> FloatArray:
    """Return the unit vector (D,) of a description: the mean of the sentences that a label with these words gets.

    Raises:
        PromptError: As for `query_sentences`.
    """
    sentences, _, weight = embed_labels(bank, labels_from_words([words]))
    mean = weight @ sentences.vectors
    unit: FloatArray = (mean / np.linalg.norm(mean)).astype(np.float32)
    return unit


def _of_image(pipeline: EmotionPipeline, frames: Frames, *, thumbnails: bool) -> list[Moment]:
    pixels = frames.pixels[0]
    faces, _ = pipeline.find(pixels, effort="thorough")
    if not faces:
        raise NoFaceError("No face was found.")
    embedding = pipeline.encode(np.stack([pipeline.crop(pixels, face) for face in faces]))
    pictures = tuple(crop_face(pixels, face, size=_THUMBNAIL_PX, margin=_THUMBNAIL_MARGIN) for face in faces)
    return moments_of_image(embedding, thumbnails=pictures if thumbnails else None)


def _of_face(timeline: Timeline, *, thumbnails: bool) -> list[Moment]:
    """Join the cells of one face to moments of at most half a second, or one cell where that is longer."""
    embedding = timeline.embedding
    if embedding is None:
        return []
    pictures = [(time_s, _jpeg(crop)) for time_s, crop in timeline.thumbnails] if thumbnails else []
    moments = []
    low = 0
    for high in range(1, len(embedding) + 1):
        fits = (
            high < len(embedding)
            and timeline.start_s[high] - timeline.end_s[high - 1] < 1e-6
            and timeline.end_s[high] - timeline.start_s[low] <= LONGEST_S + 1e-6
        )
        if fits:
            continue
        start_s, end_s = float(timeline.start_s[low]), float(timeline.end_s[high - 1])
        mean = embedding.vectors[low:high].mean(axis=0)
        vector = (mean / np.linalg.norm(mean)).astype(np.float32)
        picture = _nearest(pictures, (start_s + end_s) / 2)
        moments.append(Moment(start_s, end_s, timeline.track_id, vector, picture))
        low = high
    return moments


def _nearest(pictures: list[tuple[float, bytes]], time_s: float) -> bytes | None:
    return min(pictures, key=lambda one: abs(one[0] - time_s))[1] if pictures else None


def _jpeg(crop: UInt8Array) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(crop).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
