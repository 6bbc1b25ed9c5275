"""One evaluation: manifest to embeddings to probabilities to figures."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, cast

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from vlfer.cells import Pool
from vlfer.errors import ConfigError, PromptError
from vlfer.evaluation.embed import Clip, EmbeddingStore
from vlfer.evaluation.encode import Encoded, Engine, Failure, ImageEncoder, Progress, encode_rows
from vlfer.evaluation.manifest import Manifest
from vlfer.evaluation.media import Fit, Recipe, Sampling
from vlfer.evaluation.protocols import Plan, mean_of_folds
from vlfer.evaluation.protocols import Protocol as TestProtocol
from vlfer.evaluation.significance import bootstrap_intervals
from vlfer.faces.detect import FaceDetector
from vlfer.metrics import FAILED, Metrics, compute_metrics
from vlfer.scoring import Pooling, score_sentences
from vlfer.text.bank import Ensemble, embed_labels
from vlfer.types import Embedding, FloatArray, IntArray, LabelSet

if TYPE_CHECKING:  # importing it loads torch, before a mistyped option would be told
    from vlfer.models.encoder import Encoder

FramePooling = Literal["auto", "embeddings", "probabilities", "attention", "topk", "adapter"]
_CHUNK_ROWS = 256


class EvalConfig(BaseModel):
    """Settings of an evaluation; the resolved one is written beside every result."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str = Field("manifest", description="Name of a data set, or manifest.")
    root: str | None = Field(None, description="Folder of the data set, or of the media of a manifest.")
    manifest: str | None = Field(None, description="CSV file where the data set is manifest.")
    labels: str | None = Field(None, description="Shipped set, YAML file or words; None takes the data set's own.")
    backbone: str = Field("bundled", description="See `vlfer backbones list`.")
    adapter: str | None = Field(None, description="Folder or name of an adapter.")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps.")
    faces: Literal["detect", "whole", "auto"] = Field("auto", description="How faces are found.")
    detector: Literal["mediapipe", "yunet"] = Field("mediapipe", description="What finds them.")
    detector_file: str | None = Field(None, description="Model file of YuNet.")
    margin: float = Field(0.0, gt=-0.5, le=2.0, description="Extra around a face, as a share of its side.")
    fit: Fit = Field("face", description="squash stretches whole frames, as research code does.")
    sampling: Sampling = Field("uniform", description="Which frames of a clip.")
    frames: int = Field(16, ge=1, le=4096, description="Frames of a clip.")
    frame_pooling: FramePooling = Field(
        "auto",
        description="Frames to a clip: mean of embeddings or probabilities, or a temporal model; auto takes that of "
        "the adapter where it has one, else the mean of embeddings.",
    )
    ensemble: Ensemble = Field("all", description="Sentences per label.")
    pooling: Literal["embeddings", "logits"] = Field("embeddings", description="How sentences are averaged.")
    temperature: float | None = Field(None, gt=0.0, description="None takes that of the backbone for these sentences.")
    reproduce: str | None = Field(None, description="Preset of a published evaluation.")
    protocol: TestProtocol = Field("auto", description="Which rows are tested together.")
    fold: str = Field("all", description="One fold, or all.")
    split: str = Field("auto", description="One split, all, or auto.")
    k: int = Field(5, ge=2, description="Folds of subject-kfold.")
    seed: int = Field(0, ge=0, description="Of bootstrap and folds.")
    bootstrap: int = Field(2000, ge=100, le=100_000, description="Bootstrap samples.")
    batch_size: int = Field(32, ge=1, le=4096, description="Faces through the tower at once.")
    workers: int = Field(2, ge=1, le=256, description="Decoding threads or processes of the local engine.")
    decoders: Literal["threads", "processes"] = Field("threads", description="Processes survive a decoder's crash.")
    engine: Literal["local", "ray"] = Field("local", description="One machine, or a Ray cluster.")
    address: str | None = Field(None, description="Of a running Ray cluster; None starts one here.")

    def recipe(self, image_size: int) -> Recipe:
        """Return how rows become crops of ``image_size`` pixels."""
        return Recipe(
            size=image_size, faces=self.faces, sampling=self.sampling, frames=self.frames, fit=self.fit,
            margin=self.margin, detector=self.detector,
        )  # fmt: skip


class SentenceBank(Protocol):
    """What turns sentences into vectors; `vlfer.text.bank.TextBank` is one."""

    def encode(self, sentences: Sequence[str]) -> Embedding:
        """Return (N, D) unit vectors of N sentences."""
        ...


@dataclass(frozen=True, slots=True)
class Words:
    """Embedded sentences of C labels.

    Attributes:
        sentences: M vectors.
        owner: (M,) int64, which label each stands for.
        weight: (M,) float32, weight within its label.
    """

    sentences: Embedding
    owner: IntArray
    weight: FloatArray


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything a report is made of.

    Attributes:
        plan: Rows tested and how they are summed up.
        labels: The declared classes.
        truth: (N,) int64.
        prediction: (N,) int64, `FAILED` for a failed row.
        probability: (N, C) float32, zeros in failed rows.
        encoded: Where embeddings came from, and failures.
        pooled: Figures over all rows.
        folds: Figures of each fold, by name.
        headline: war, uar, uf1, auc, ece, coverage: the mean over folds, or the pooled ones; see `Plan.aggregate`.
        intervals: 95 % bootstrap intervals of the pooled WAR, UAR and UF1.
        score_s: Seconds from stored embeddings to figures.
        total_s: Seconds of the whole evaluation.
    """

    plan: Plan
    labels: LabelSet
    truth: IntArray
    prediction: IntArray
    probability: FloatArray
    encoded: Encoded
    pooled: Metrics
    folds: dict[str, Metrics]
    headline: dict[str, float | None]
    intervals: dict[str, tuple[float, float]]
    score_s: float
    total_s: float

    @property
    def failures(self) -> dict[str, int]:
        """Failed rows by type of error."""
        return dict(Counter(place.error_type for place in self.encoded.places if isinstance(place, Failure)))


def evaluate(
    plan: Plan,
    *,
    labels: LabelSet,
    words: Words,
    encoder: ImageEncoder,
    recipe: Recipe,
    store: EmbeddingStore,
    config: EvalConfig,
    temperature: float,
    build_detector: Callable[[], FaceDetector] | None = None,
    build_encoder: Callable[[], ImageEncoder] | None = None,
    engine: Engine | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Predict every row with the label of the highest probability and measure.

    There is no abstention here: benchmarks force a choice. A row that cannot be read or shows no face is an error of
    its class and counted in ``failed``.

    Args:
        plan: Rows to test.
        labels: The declared classes.
        words: Their sentences, see `embed_words`.
        encoder: The image tower.
        recipe: How rows become crops.
        store: Keeps frame embeddings.
        config: Batch size, pooling, bootstrap.
        temperature: What similarities are divided by.
        build_detector: Makes a face detector.
        build_encoder: Makes the image tower on another machine, see `encode_rows`.
        engine: Who decodes and encodes; None does it here, one row after the other.
        progress: Told (step, done, total).

    Raises:
        DataError: If a row's label is not among ``labels``.
        ConfigError: If the temporal model of an adapter is wanted and there is none.
        EnvironmentProblem: If the store cannot be written.
    """
    began = time.monotonic()
    truth = plan.manifest.label_indices(labels)  # before hours of encoding, not after
    pool = choose_pool(config.frame_pooling, encoder)
    encoded = encode_rows(
        plan.manifest.rows, encoder=encoder, recipe=recipe, store=store, build_detector=build_detector,
        build_encoder=build_encoder, engine=engine, batch_size=config.batch_size, progress=progress,
    )  # fmt: skip
    scored_from = time.monotonic()
    probability = score_clips(
        encoded.places, store=store, space=encoder.space, labels=labels, words=words, temperature=temperature,
        average_probabilities=config.frame_pooling == "probabilities", pooling=config.pooling,
        pool=pool,
    )  # fmt: skip
    answered = np.array([isinstance(place, Clip) for place in encoded.places], dtype=bool)
    prediction = np.where(answered, probability.argmax(axis=1), FAILED).astype(np.int64)
    names = labels.names
    pooled = compute_metrics(truth, prediction, classes=names, probability=probability)
    folds = {
        name: compute_metrics(truth[rows], prediction[rows], classes=names, probability=probability[rows])
        for name, rows in plan.parts.items()
    }
    headline = mean_of_folds([pooled] if plan.aggregate == "pooled" else list(folds.values()))
    intervals = bootstrap_intervals(pooled.confusion, samples=config.bootstrap, seed=config.seed)
    now = time.monotonic()
    return Evaluation(
        plan=plan, labels=labels, truth=truth, prediction=prediction, probability=probability, encoded=encoded,
        pooled=pooled, folds=folds, headline=headline, intervals=intervals,
        score_s=now - scored_from, total_s=now - began,
    )  # fmt: skip


def score_clips(
    places: Sequence[Clip | Failure],
    *,
    store: EmbeddingStore,
    space: str,
    labels: LabelSet,
    words: Words,
    temperature: float,
    average_probabilities: bool = False,
    pool: Pool | None = None,
    pooling: Pooling = "embeddings",
) -> FloatArray:
    """Score stored clips; touches no pixel, and holds the vectors of a few hundred clips at a time.

    Args:
        places: One a row.
        store: Where the vectors lie.
        space: Id of their space.
        labels: C labels.
        words: Their sentences.
        temperature: What similarities are divided by.
        average_probabilities: The probabilities of a clip are the mean of those of its frames, instead of those of
            one vector made from its frames'.
        pool: Makes that vector, see `choose_pool`.
        pooling: How the sentences of a label are averaged, see `vlfer.scoring.score_sentences`.

    Returns:
        (N, C) float32 probabilities; zeros for a failure.
    """
    probability = np.zeros((len(places), len(labels)), dtype=np.float32)
    rows = [i for i, place in enumerate(places) if isinstance(place, Clip)]
    for start in range(0, len(rows), _CHUNK_ROWS):
        chunk = rows[start : start + _CHUNK_ROWS]
        frames = [store.vectors(place) for i in chunk if isinstance(place := places[i], Clip)]
        vectors = np.concatenate(frames) if average_probabilities else clip_vectors(frames, pool=pool)
        scores = score_sentences(
            Embedding(vectors, space), words.sentences, words.owner, words.weight,
            labels=labels, temperature=temperature, pooling=pooling,
        )  # fmt: skip
        if not average_probabilities:
            probability[chunk] = scores.probability
        else:
            lengths = np.array([len(clip) for clip in frames])
            starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
            probability[chunk] = np.add.reduceat(scores.probability, starts, axis=0) / lengths[:, None]
    return probability


def embed_words(
    labels: LabelSet, *, bank: SentenceBank, ensemble: Ensemble, sentences: Sequence[Sequence[str]] | None = None
) -> Words:
    """Embed the sentences that stand for each label.

    Args:
        labels: C labels.
        bank: Encoder of sentences.
        ensemble: Which sentences of the label set, where ``sentences`` is None.
        sentences: For each label, the sentences to take instead, equally weighted.

    Raises:
        PromptError: If ``sentences`` does not give each label at least one.
    """
    if sentences is None:
        vectors, owner, weight = embed_labels(bank, labels, ensemble=ensemble)
        return Words(vectors, owner, weight)
    if len(sentences) != len(labels) or not all(sentences):
        raise PromptError(f"{len(sentences)} lists of sentences for {len(labels)} labels.", why="Each needs its own.")
    flat = [sentence for own in sentences for sentence in own]
    owner = np.repeat(np.arange(len(labels), dtype=np.int64), [len(own) for own in sentences])
    return Words(bank.encode(flat), owner, np.ones(len(flat), dtype=np.float32))


def describe_rows(manifest: Manifest) -> str:
    """Return the size of a manifest in words: rows, labels, folds, subjects."""
    parts = [f"{len(manifest)} rows", f"{len(manifest.label_counts)} labels"]
    parts += [f"{len(manifest.folds)} folds"] if manifest.folds else []
    parts += [f"{len(manifest.subjects)} subjects"] if manifest.subjects else []
    return ", ".join(parts)


def choose_pool(name: FramePooling, encoder: ImageEncoder) -> Pool | None:
    """Return the temporal model that turns the frames of a clip into one vector; None stands for their mean.

    Raises:
        ConfigError: If the adapter's is wanted and there is none.
    """
    if name in ("embeddings", "probabilities") or (name == "auto" and getattr(encoder, "temporal", None) is None):
        return None
    if name == "adapter" and getattr(encoder, "temporal", None) is None:
        raise ConfigError(
            "--frame-pooling adapter was asked for.",
            why="No temporal adapter is loaded.",
            fix="--adapter FOLDER, or --frame-pooling embeddings",
        )
    from vlfer.clips import build_pool

    return build_pool("adapter" if name == "auto" else name, cast("Encoder", encoder))


def clip_vectors(clips: Sequence[FloatArray], *, pool: Pool | None = None) -> FloatArray:
    """Return one unit vector a clip, (N, D); an image is its own vector, whatever the pool.

    Args:
        clips: (T, D) float32 unit vectors of each clip's frames.
        pool: See `choose_pool`.
    """
    vectors = np.stack([mean_direction(clip) for clip in clips])
    several = [i for i, clip in enumerate(clips) if len(clip) > 1]
    if pool is None or not several:
        return vectors
    lengths = np.array([len(clips[i]) for i in several])
    mask = np.arange(lengths.max())[None, :] < lengths[:, None]
    padded = np.zeros((*mask.shape, vectors.shape[1]), dtype=np.float32)
    padded[mask] = np.concatenate([clips[i] for i in several])
    vectors[several] = pool(padded, mask, np.zeros(mask.shape, dtype=np.float32))
    return vectors


def mean_direction(vectors: FloatArray) -> FloatArray:
    """Return the renormalised mean (D,) of unit vectors (T, D)."""
    mean = np.asarray(vectors).mean(axis=0)
    norm = float(np.linalg.norm(mean))
    if norm < 1e-6:  # frames that cancel out point nowhere: the first frame stands for the clip
        return np.array(vectors[0])
    direction: FloatArray = (mean / norm).astype(np.float32)
    return direction
