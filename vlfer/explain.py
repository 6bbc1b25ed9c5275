"""Why a label: which sentences pulled a face towards it, and where on the face.

The pulls of the sentences add up to the lead of the label over its rival, exactly; the map is a gradient method and an
approximation. Neither tells what a person feels, nor that the model looked for the right reasons.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vlfer.models.relevance import relevance_map
from vlfer.models.tower import TowerEncoder
from vlfer.pipeline import EmotionPipeline
from vlfer.reporting import Analysis
from vlfer.scoring import Pooling, mixing_matrix
from vlfer.sources import Source, open_source
from vlfer.text.bank import compared_sentences, embed_labels
from vlfer.types import Embedding, FloatArray, Frames, LabelSet, UInt8Array

DEFAULT_COUNT = 5
_COARSE = 7
_THIRDS = ("brows and eyes", "nose and cheeks", "mouth and chin")


@dataclass(frozen=True, slots=True)
class Pull:
    """What one sentence gives.

    Attributes:
        label: Whose sentence.
        sentence: Its words.
        pull: What it adds to the lead of the label over the rival, in log-odds; negative if it speaks for the rival.
        similarity: Cosine of face and sentence.
    """

    label: str
    sentence: str
    pull: float
    similarity: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why one face got one label rather than the next.

    Attributes:
        label: The label explained.
        rival: The next best label, "" if there is but one.
        lead: Log-odds of the label against the rival, before any correction for bias.
        pulls: Every sentence of both labels, the strongest first; they add up to ``lead``.
        relevance: (S, S) float32 from 0 to 1, where the face speaks for the label; None where not asked for.
        crop: (S, S, 3) uint8, the face that it belongs to.
    """

    label: str
    rival: str
    lead: float
    pulls: tuple[Pull, ...]
    relevance: FloatArray | None
    crop: UInt8Array

    def strongest(self, count: int = DEFAULT_COUNT) -> tuple[Pull, ...]:
        """Return the label's own sentences that pulled most towards it."""
        return tuple(pull for pull in self.pulls if pull.pull > 0 and pull.label == self.label)[:count]

    def against(self, count: int = DEFAULT_COUNT) -> tuple[Pull, ...]:
        """Return the sentences, of either label, that pulled most towards the rival."""
        return tuple(pull for pull in reversed(self.pulls) if pull.pull < 0)[:count]

    def as_dict(self, *, count: int = DEFAULT_COUNT) -> dict[str, Any]:
        """Return JSON-ready values; the map as a coarse grid, and its shares of three parts of the face."""
        content: dict[str, Any] = {
            "label": self.label, "rival": self.rival, "lead": round(self.lead, 4),
            "pulled_for": [_row(pull) for pull in self.strongest(count)],
            "pulled_against": [_row(pull) for pull in self.against(count)],
        }  # fmt: skip
        if self.relevance is not None:
            content["relevance"] = _shrunk(self.relevance)
            content["where"] = {name: round(share, 3) for name, share in face_thirds(self.relevance).items()}
        return content


def explain_face(
    crop: UInt8Array,
    *,
    encoder: TowerEncoder,
    words: tuple[Embedding, Any, FloatArray],
    sentences: Sequence[str],
    labels: LabelSet,
    temperature: float,
    pooling: Pooling = "embeddings",
    label: str | None = None,
    with_map: bool = True,
) -> Explanation:
    """Explain one face.

    Args:
        crop: (S, S, 3) uint8 RGB, as it is encoded.
        encoder: The backbone.
        words: What `embed_labels` returned.
        sentences: The M sentences in the same order.
        labels: C labels.
        temperature: What similarities are divided by.
        pooling: How the sentences of a label are averaged.
        label: Which label to explain; None takes the best.
        with_map: Whether to compute where on the face.

    Raises:
        PromptError: If ``label`` is not among the labels.
    """
    embedded, owner, weight = words
    mixing = mixing_matrix(owner, weight, labels=labels)
    if pooling == "embeddings":
        mixing = mixing / np.linalg.norm(mixing @ embedded.vectors, axis=1, keepdims=True)
    face = encoder.encode_images(crop[None])
    cosines = face.similarity(embedded)[0]
    similarity = mixing @ cosines
    chosen = int(similarity.argmax()) if label is None else labels.index(label)
    others = [i for i in np.argsort(-similarity, kind="stable") if i != chosen]
    rival = int(others[0]) if others else None
    pulls = _pulls(mixing, cosines, similarity, sentences, labels, chosen, rival, temperature)
    relevance = None
    if with_map:
        directions = mixing @ embedded.vectors
        relevance = relevance_map(encoder, crop, directions, label=chosen, temperature=temperature)
    lead = similarity[chosen] - (similarity[rival] if rival is not None else 0.0)
    name = "" if rival is None else labels.names[rival]
    return Explanation(labels.names[chosen], name, float(lead / temperature), pulls, relevance, crop)


def _pulls(
    mixing: FloatArray, cosines: FloatArray, similarity: FloatArray, sentences: Sequence[str], labels: LabelSet,
    chosen: int, rival: int | None, temperature: float,
) -> tuple[Pull, ...]:  # fmt: skip
    """Return what every sentence of both labels gives, as the distance from half-way between the two."""
    middle = (similarity[chosen] + similarity[rival]) / 2 if rival is not None else 0.0
    found = []
    for sign, c in ((1.0, chosen), *(((-1.0, rival),) if rival is not None else ())):
        shares = mixing[c] / mixing[c].sum()
        for j in np.flatnonzero(mixing[c]):
            value = sign * (mixing[c, j] * cosines[j] - shares[j] * middle) / temperature
            found.append(Pull(labels.names[c], sentences[int(j)], float(value), float(cosines[j])))
    return tuple(sorted(found, key=lambda pull: -pull.pull))


def explain_analysis(
    pipeline: EmotionPipeline, source: Source, analysis: Analysis, *, with_map: bool = True, count: int = DEFAULT_COUNT
) -> tuple[Analysis, tuple[Explanation | None, ...]]:
    """Explain every prediction of a source.

    A face of an image is found again as it was; a segment of a video is explained by the kept picture of the face that
    is nearest to the middle of the segment. An abstention explains its best label.

    Args:
        pipeline: What made the analysis.
        source: The same source.
        analysis: What it made.
        with_map: Whether to compute where on the face.
        count: Sentences listed a side.

    Returns:
        The analysis with ``explanation`` filled in each prediction, and the explanations; None for a prediction whose
        face is no longer at hand.

    Raises:
        VlferError: If the image can no longer be read.
    """
    predictions = analysis.report.predictions
    if not predictions:
        return analysis, ()
    crops = _crops_of_clip(analysis) if analysis.timelines else _crops_of_image(pipeline, source, len(predictions))
    found = explain_crops(pipeline, crops, [one.top[0][0] for one in predictions], with_map=with_map)
    explained = tuple(
        replace(prediction, explanation={} if one is None else one.as_dict(count=count))
        for prediction, one in zip(predictions, found, strict=True)
    )
    return replace(analysis, report=replace(analysis.report, predictions=explained)), found


def explain_crops(
    pipeline: EmotionPipeline, crops: Sequence[UInt8Array | None], names: Sequence[str], *, with_map: bool = True
) -> tuple[Explanation | None, ...]:
    """Explain why each face of a question got its label.

    Args:
        pipeline: What was asked, and how.
        crops: N faces (S, S, 3) uint8 RGB as they were encoded; None where there is none.
        names: The label to explain, for each of the N.
        with_map: Whether to compute where on the face.

    Raises:
        PromptError: If a name is not among the labels.
    """
    labels, config = pipeline.labels, pipeline.config
    words = embed_labels(pipeline.bank, labels, ensemble=config.ensemble)
    sentences = [
        sentence
        for label in labels.labels
        for sentence in compared_sentences(label, ensemble=config.ensemble, label_set=labels)
    ]
    encoder: Any = pipeline.encoder
    return tuple(
        None
        if crop is None
        else explain_face(
            crop, encoder=encoder, words=words, sentences=sentences, labels=labels, temperature=pipeline.temperature,
            pooling=config.pooling, label=name, with_map=with_map,
        )
        for crop, name in zip(crops, names, strict=True)
    )  # fmt: skip


def _crops_of_image(pipeline: EmotionPipeline, source: Source, count: int) -> list[UInt8Array | None]:
    opened = open_source(source, fps=pipeline.config.fps)
    if not isinstance(opened, Frames):
        return [None] * count
    pixels = opened.pixels[0]
    faces, _ = pipeline.find(pixels, effort="thorough")
    crops: list[UInt8Array | None] = [pipeline.crop(pixels, face) for face in faces]
    return crops if len(crops) == count else [None] * count


def _crops_of_clip(analysis: Analysis) -> list[UInt8Array | None]:
    by_track = {timeline.track_id: timeline.thumbnails for timeline in analysis.timelines}
    crops: list[UInt8Array | None] = []
    for prediction in analysis.report.predictions:
        middle = (prediction.start_s + prediction.end_s) / 2
        kept = by_track.get(prediction.track_id, ())
        crops.append(min(kept, key=lambda one: abs(one[0] - middle))[1] if kept else None)
    return crops


def face_thirds(relevance: FloatArray) -> dict[str, float]:
    """Return the share of the relevance in the upper, middle and lower third of a face crop; zeros if there is none."""
    rows = relevance.sum(axis=1)
    total = float(rows.sum())
    parts = np.array_split(rows, len(_THIRDS))
    return {name: float(part.sum()) / total if total > 0 else 0.0 for name, part in zip(_THIRDS, parts, strict=True)}


def _shrunk(relevance: FloatArray) -> list[list[float]]:
    blocks = [np.array_split(band, _COARSE, axis=1) for band in np.array_split(relevance, _COARSE, axis=0)]
    return [[round(float(block.mean()), 3) for block in row] for row in blocks]


def _row(pull: Pull) -> dict[str, Any]:
    return {"label": pull.label, "sentence": pull.sentence, "pull": round(pull.pull, 4),
            "similarity": round(pull.similarity, 4)}  # fmt: skip
