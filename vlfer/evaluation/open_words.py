"""Free words against free words: what was said of a face and what is true of it, compared by an emotion wheel."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vlfer.errors import DataError
from vlfer.evaluation.embed import EmbeddingStore
from vlfer.evaluation.encode import Encoded, Engine, Failure, ImageEncoder, Progress, encode_rows
from vlfer.evaluation.manifest import Manifest
from vlfer.evaluation.media import Recipe
from vlfer.evaluation.run import EvalConfig, Words, choose_pool, score_clips
from vlfer.evaluation.wheel import OpenVocabularyFigures, open_vocabulary_f
from vlfer.faces.detect import FaceDetector
from vlfer.types import FloatArray, LabelSet


@dataclass(frozen=True, slots=True)
class OpenEvaluation:
    """Words said of every row.

    Attributes:
        manifest: The rows.
        truth: The words that are true of each.
        said: The words said of each, most probable first; none of a failed row.
        figures: Their agreement.
        encoded: Where embeddings came from, and failures.
    """

    manifest: Manifest
    truth: tuple[tuple[str, ...], ...]
    said: tuple[tuple[str, ...], ...]
    figures: OpenVocabularyFigures
    encoded: Encoded

    @property
    def failed(self) -> int:
        """Rows without an answer; they count with precision and recall 0."""
        return sum(isinstance(place, Failure) for place in self.encoded.places)

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-ready values; figures are fractions."""
        rows = zip(self.manifest.rows, self.encoded.places, strict=True)
        return {
            "dataset": self.manifest.name,
            "unit": "fraction",
            "f1": self.figures.f1,
            "precision": self.figures.precision,
            "recall": self.figures.recall,
            "n": self.figures.n,
            "failed": self.failed,
            "unknown_words": list(self.figures.unknown),
            "embeddings": {"from_cache": self.encoded.from_cache, "encoded": self.encoded.encoded},
            "notes": list(self.manifest.remarks),
            "manifest_sha256": self.manifest.sha256,
            "failed_rows": [
                {"path": row.path, "status": place.status, "error_type": place.error_type, "message": place.message}
                for row, place in rows
                if isinstance(place, Failure)
            ],
        }

    def predictions_csv(self) -> str:
        """Return one line a row: true words and words said, joined by "|"."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(["path", "label", "prediction"])
        for row, truth, said in zip(self.manifest.rows, self.truth, self.said, strict=True):
            writer.writerow([row.path, "|".join(truth), "|".join(said)])
        return buffer.getvalue()


def split_words(label: str) -> tuple[str, ...]:
    """Return the words of a cell that joins several by "|", ";" or "/"."""
    return tuple(word.strip() for word in re.split(r"[|;/]", label) if word.strip())


def choose_words(
    probability: FloatArray, names: Sequence[str], *, most: int = 3, share: float = 0.5
) -> list[tuple[str, ...]]:
    """Return the words to say of each row: the best one, and those that come near to it.

    Args:
        probability: (N, C) float32.
        names: C words.
        most: Words of a row at most.
        share: Least probability of a further word, as a share of the best one's.
    """
    order = np.argsort(-probability, axis=1, kind="stable")[:, :most]
    chosen = []
    for row, best in zip(probability, order, strict=True):
        chosen.append(tuple(names[i] for i in best if row[i] >= share * row[best[0]]))
    return chosen


def evaluate_open(
    manifest: Manifest,
    *,
    labels: LabelSet,
    words: Words,
    encoder: ImageEncoder,
    recipe: Recipe,
    store: EmbeddingStore,
    config: EvalConfig,
    temperature: float,
    most: int = 3,
    build_detector: Callable[[], FaceDetector] | None = None,
    engine: Engine | None = None,
    progress: Progress | None = None,
) -> OpenEvaluation:
    """Say words of every row and compare them with those that are true of it, see `vlfer.evaluation.wheel`.

    Args:
        manifest: Rows; their labels are free words, see `split_words`.
        labels: The words that may be said.
        words: Their sentences.
        encoder: The image tower.
        recipe: How rows become crops.
        store: Keeps frame embeddings.
        config: Batch size and pooling.
        temperature: What similarities are divided by.
        most: Words of a row at most.
        build_detector: Makes a face detector.
        engine: Who decodes and encodes.
        progress: Told (step, done, total).

    Raises:
        DataError: If a row has no word.
        EnvironmentProblem: If the store cannot be written.
    """
    truth = tuple(split_words(row.label) for row in manifest.rows)
    empty = [row.path for row, meant in zip(manifest.rows, truth, strict=True) if not meant]
    if empty:
        raise DataError(f"{len(empty)} rows of {manifest.name} have no word: {empty[0]}.", why="Recall is undefined.")
    encoded = encode_rows(
        manifest.rows, encoder=encoder, recipe=recipe, store=store, build_detector=build_detector, engine=engine,
        batch_size=config.batch_size, progress=progress,
    )  # fmt: skip
    probability = score_clips(
        encoded.places, store=store, space=encoder.space, labels=labels, words=words, temperature=temperature,
        average_probabilities=config.frame_pooling == "probabilities", pooling=config.pooling,
        pool=choose_pool(config.frame_pooling, encoder),
    )  # fmt: skip
    chosen = choose_words(probability, labels.names, most=most)
    pairs = zip(chosen, encoded.places, strict=True)
    said = tuple(() if isinstance(place, Failure) else one for one, place in pairs)
    return OpenEvaluation(manifest, truth, said, open_vocabulary_f(truth, said), encoded)
