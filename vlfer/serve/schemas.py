"""What goes in and out over HTTP."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

READING = "Perceived expression, not felt emotion. Probabilities are relative to the labels given."
_WHY: dict[str, Any] = {
    "label": "happiness", "rival": "surprise", "lead": 6.1,
    "pulled_for": [{"label": "happiness", "sentence": "raised cheeks", "pull": 0.31, "similarity": 0.62}],
    "pulled_against": [{"label": "surprise", "sentence": "parted lips", "pull": -0.04, "similarity": 0.21}],
    "relevance": [[0.0] * 7] * 5 + [[0.1, 0.4, 0.9, 1.0, 0.9, 0.4, 0.1]] * 2,
    "where": {"brows and eyes": 0.31, "nose and cheeks": 0.3, "mouth and chin": 0.39},
}  # fmt: skip
_FACE: dict[str, Any] = {
    "face": 0, "label": "happiness", "probability": 0.97, "reason": "", "note": "", "box": [171.0, 64.2, 288.9, 203.4],
    "top": [{"label": "happiness", "probability": 0.97, "similarity": 0.61}],
    "explanation": None,
}  # fmt: skip
_MODEL: dict[str, Any] = {
    "space": "bundled/3f0c2a7b91de", "temperature": 0.07, "labels": ["happiness", "sadness"],
    "labels_sha256": "9b1c...", "reading": READING,
}  # fmt: skip

Words = Annotated[str, Field(min_length=1, max_length=500)]
LabelWords = Annotated[
    str | list[Any],
    Field(
        description='A shipped set, words separated by commas, or a list of words or of {"name", "descriptors"}.',
        examples=["ekman7", "joy, a polite smile, boredom", ["joy", {"name": "awe", "descriptors": ["jaw dropped"]}]],
    ),
]


def _example(**values: Any) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [values]})


class LabelScore(BaseModel):
    """A label with what speaks for it."""

    label: str
    probability: float = Field(description="Relative to the labels given.")
    similarity: float = Field(description="Cosine; comparable within one space only.")


class PullAnswer(BaseModel):
    """What one sentence gave."""

    label: str = Field(description="Whose sentence.")
    sentence: str
    pull: float = Field(description="Log-odds that it adds to the lead over the rival; negative: for the rival.")
    similarity: float = Field(description="Cosine of face and sentence.")


class ExplanationAnswer(BaseModel):
    """Why one face got one label rather than the next best."""

    model_config = _example(**_WHY)

    label: str = Field(description="The label explained: the best one, also where it abstains.")
    rival: str = Field(description="The next best label; empty if there is but one.")
    lead: float = Field(description="Log-odds of the label against the rival: the sum of the pulls of all sentences.")
    pulled_for: list[PullAnswer] = Field(description="Sentences of the label, the strongest first; at most 5.")
    pulled_against: list[PullAnswer] = Field(description="Sentences of either, strongest for the rival first.")
    relevance: list[list[float]] | None = Field(
        None, description="7 x 7 parts of the face crop, from above: how much each speaks for the label, 0 to 1."
    )
    where: dict[str, float] | None = Field(None, description="Share of the relevance in three bands of the face.")


class FaceAnswer(BaseModel):
    """What one face shows."""

    model_config = _example(**_FACE)

    face: int = Field(description="Counted from 0, largest first; in a video the person.")
    label: str | None = Field(description="Null where the model abstains.")
    probability: float
    reason: str = Field(description="Why it abstains.")
    note: str = Field(description="How the face was found, where that matters.")
    box: list[float] | None = Field(description="x1, y1, x2, y2 in pixels; null for vectors.")
    top: list[LabelScore]
    explanation: ExplanationAnswer | None = Field(None, description="Why; null unless `explain` was asked for.")


class Compared(BaseModel):
    """What the answer was made with."""

    space: str = Field(description="Id of model, weights and adapter.")
    temperature: float
    labels: list[str]
    labels_sha256: str
    reading: str = READING


class ImageAnswer(Compared):
    """The faces of an image."""

    model_config = _example(
        status="ok", message="", width=512, height=512, faces=[{**_FACE, "explanation": _WHY}], **_MODEL
    )

    status: Literal["ok", "no_face"]
    message: str
    width: int
    height: int
    faces: list[FaceAnswer]


class ScoreQuestion(BaseModel):
    """Vectors that a client has computed itself, and what to compare them with."""

    model_config = _example(space="bundled/3f0c2a7b91de", vectors="<base64 of N x 384 float32>", labels="ekman7")

    space: str = Field(max_length=500, description="`space` of the model that made the vectors, see /v1/models.")
    vectors: str | list[list[float]] = Field(description="N x D numbers, or base64 of little-endian float32.")
    labels: LabelWords = "ekman7"
    threshold: float | None = Field(None, ge=0, le=1, description="Abstain below this probability.")
    top: int | None = Field(None, ge=1, le=1000, description="Labels listed; null for all.")


class ScoreAnswer(Compared):
    """What the faces behind the vectors show."""

    model_config = _example(faces=[{**_FACE, "box": None}], **_MODEL)

    faces: list[FaceAnswer]


class TextQuestion(BaseModel):
    """Sentences to encode."""

    model_config = _example(sentences=["a polite smile"])

    sentences: list[Words] = Field(min_length=1)


class TextAnswer(BaseModel):
    """One unit vector a sentence."""

    model_config = _example(space="bundled/3f0c2a7b91de", vectors=[[0.01, -0.04]])

    space: str
    vectors: list[list[float]]


class SearchQuestion(BaseModel):
    """What to look for in the index."""

    model_config = _example(query="a suppressed smile", count=5, thumbnails=False)

    query: Words
    count: int = Field(12, ge=1, le=200)
    thumbnails: bool = Field(False, description="Whether to send pictures of the faces.")


class SearchHit(BaseModel):
    """A moment that was found."""

    source: str
    start_s: float
    end_s: float
    face: int
    similarity: float
    thumbnail: str | None = Field(description="Base64 of a JPEG picture.")


class SearchAnswer(BaseModel):
    """Moments, most similar first."""

    model_config = _example(
        space="bundled/3f0c2a7b91de",
        hits=[{"source": "film.mp4", "start_s": 3.5, "end_s": 5.0, "face": 0, "similarity": 0.42, "thumbnail": None}],
    )

    space: str
    hits: list[SearchHit]


class MieAnswer(BaseModel):
    """What moved in a micro-expression."""

    model_config = _example(
        label=None, probability=0.4, reason="best label 'surprise' has 0.40, below the threshold 0.50",
        top=[["surprise", 0.4]], units=[["AU1", 0.3]], onset=3, apex=9, offset=15, times_s=[0.1, 0.3, 0.5],
        strength=0.02, notes=[], picture=None, labels=["positive", "negative", "surprise"], reading=READING,
    )  # fmt: skip

    label: str | None
    probability: float
    reason: str
    top: list[tuple[str, float]]
    units: list[tuple[str, float]] = Field(description="Action units that the motion suggests, with cosine similarity.")
    onset: int
    apex: int
    offset: int | None
    times_s: list[float] | None
    strength: float = Field(description="Motion as a share of the face's width.")
    notes: list[str]
    picture: str | None = Field(description="Base64 of a PNG: arrows, direction, strain.")
    labels: list[str]
    reading: str = "Experimental. " + READING


class JobAnswer(BaseModel):
    """A video in work."""

    model_config = _example(
        id="sGgQ0Fv1i2xWk1mJ4bFZ9A", state="running", done=40, total=160, expires_in_s=None, problem=None,
        links={"self": "/v1/video/sGgQ0Fv1i2xWk1mJ4bFZ9A"},
    )  # fmt: skip

    id: str
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    done: int = Field(description="Frames looked at.")
    total: int = Field(description="Frames expected; 0 where that is not known.")
    expires_in_s: float | None = Field(description="When it will be forgotten; null while in work.")
    problem: dict[str, Any] | None = Field(description="Why it failed.")
    links: dict[str, str]


class Segment(FaceAnswer):
    """What one person shows from one moment to another."""

    start_s: float
    end_s: float


class Track(BaseModel):
    """The probabilities of one person over time."""

    face: int
    start_s: list[float]
    end_s: list[float]
    probability: list[list[float]] = Field(description="One row a slice of time, one number a label.")


class VideoAnswer(Compared):
    """The people of a video."""

    status: Literal["ok", "error"]
    message: str = Field(description="Where the video broke off, if it did.")
    segments: list[Segment]
    tracks: list[Track]


class LabelSetAnswer(BaseModel):
    """A shipped label set."""

    name: str
    origin: str
    labels: list[str]
    sha256: str


class ModelAnswer(BaseModel):
    """The model that answers."""

    model_config = _example(
        backbone="bundled", space="bundled/3f0c2a7b91de", dimension=384, image_px=96, temperature=0.07, licence="...",
        has_micro=True, has_index=False, version="0.1.0",
    )  # fmt: skip

    backbone: str
    space: str
    dimension: int
    image_px: int
    temperature: float
    licence: str
    has_micro: bool
    has_index: bool
    version: str


class State(BaseModel):
    """Whether the service is there."""

    status: str = Field(examples=["ok"])
