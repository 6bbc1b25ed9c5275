"""Routes that answer at once: images, vectors, texts, micro-expressions, search, what there is."""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from typing import Annotated, Any, Literal, TypeVar, cast

import numpy as np
from fastapi import APIRouter, File, Form, Path, Request, UploadFile

from vlfer.errors import DataError
from vlfer.mie import MicroResult
from vlfer.reporting import image_predictions
from vlfer.search import Hit
from vlfer.serve.engine import Engine
from vlfer.serve.problems import ServiceProblem, responses
from vlfer.serve.schemas import (
    ExplanationAnswer,
    FaceAnswer,
    ImageAnswer,
    LabelScore,
    LabelSetAnswer,
    MieAnswer,
    ModelAnswer,
    ScoreAnswer,
    ScoreQuestion,
    SearchAnswer,
    SearchHit,
    SearchQuestion,
    TextAnswer,
    TextQuestion,
)
from vlfer.text.labels import load_label_set, shipped_sets
from vlfer.types import Face, FloatArray, LabelSet, Prediction

T = TypeVar("T")
router = APIRouter(prefix="/v1")

Labels = Annotated[
    str,
    Form(
        max_length=100_000,
        description='A shipped set, words separated by commas, or a JSON list of words or of {"name", "descriptors"}.',
        examples=["ekman7", "joy, a polite smile, boredom"],
    ),
]
Threshold = Annotated[float | None, Form(ge=0, le=1, description="Abstain below this probability.")]
Top = Annotated[int | None, Form(ge=1, le=1000, description="Labels listed; all by default.")]
_THREADS = 96
_threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="vlfer-request")


def service_of(request: Request) -> Any:
    """Return the `Service` that a request came to."""
    return request.app.state.service


def engine_of(request: Request) -> Engine:
    """Return what answers; a 503 problem while it is being loaded."""
    return cast(Engine, service_of(request).engine)


async def in_thread(work: Callable[[], T]) -> T:
    """Run blocking work beside the event loop."""
    return await asyncio.get_running_loop().run_in_executor(_threads, work)


@router.post("/image", tags=["faces"], responses=responses(408, 415))
async def image(
    request: Request,
    file: Annotated[UploadFile, File(description="JPEG, PNG, WebP, GIF, TIFF, BMP, AVIF.")],
    labels: Labels = "ekman7",
    faces: Annotated[
        Literal["auto", "detect", "whole"],
        Form(description="Find faces; take the image as one face; or find, and fall back to whole on plain crops."),
    ] = "auto",
    threshold: Threshold = None,
    top: Top = None,
    explain: Annotated[
        bool,
        Form(
            description="Whether to say of each face which sentences pulled, and where on the face. Takes several "
            "times as long; the 8 largest faces are explained, or as many as the operator allows.",
            examples=[True],
        ),
    ] = False,
) -> ImageAnswer:
    """Tell which expression each face of an image shows and, if asked, why."""
    engine = engine_of(request)
    chosen = await in_thread(partial(engine.labels, labels))
    data = await file.read()
    looked, predictions = await in_thread(
        partial(engine.answer_image, data, chosen, faces=faces, threshold=threshold, top=top, explains=explain)
    )
    return ImageAnswer(
        status="ok" if predictions else "no_face", message="" if predictions else "No face was found.",
        width=looked.width, height=looked.height, faces=[face_answer(one) for one in predictions],
        **compared(engine, chosen),
    )  # fmt: skip


@router.post("/score", tags=["faces"], responses=responses(409))
async def score(request: Request, question: ScoreQuestion) -> ScoreAnswer:
    """Compare vectors that a device has computed itself with labels: 384 numbers a face instead of a picture."""
    engine = engine_of(request)

    def work() -> tuple[LabelSet, tuple[Prediction, ...]]:
        chosen = engine.labels(question.labels)
        vectors = engine.take_vectors(_vectors(question.vectors, engine.encoder.dimension), question.space)
        nowhere = Face(box=np.zeros(4, np.float32), score=1.0)
        return chosen, image_predictions(
            [nowhere] * len(vectors), engine.score(vectors, chosen), threshold=question.threshold,
            tie_margin=engine.config.tie_margin, top=question.top,
        )  # fmt: skip

    chosen, predictions = await in_thread(work)
    faces = [face_answer(one).model_copy(update={"box": None}) for one in predictions]
    return ScoreAnswer(faces=faces, **compared(engine, chosen))


@router.post("/text", tags=["words"])
async def text(request: Request, question: TextQuestion) -> TextAnswer:
    """Encode sentences into the space of the faces."""
    engine = engine_of(request)
    found = await in_thread(partial(engine.embed_texts, question.sentences))
    return TextAnswer(space=found.space, vectors=found.vectors.tolist())


@router.post("/mie", tags=["faces"], responses=responses(408, 415, 501))
async def mie(
    request: Request,
    clip: Annotated[UploadFile | None, File(description="A clip of one expression.")] = None,
    onset: Annotated[UploadFile | None, File(description="Or an image of the face at rest...")] = None,
    apex: Annotated[UploadFile | None, File(description="... and one of the expression.")] = None,
    labels: Labels = "micro3",
    picture: Annotated[bool, Form(description="Whether to send the motion picture.")] = False,
) -> MieAnswer:
    """Say what a micro-expression shows, from a clip or from an onset and an apex image. Experimental."""
    engine = engine_of(request)
    chosen = await in_thread(partial(engine.labels, labels))
    if onset is not None and apex is not None and clip is None:
        pair = (await onset.read(), await apex.read())
        result = await in_thread(partial(engine.recognize_pair, *pair, chosen))
    elif clip is not None and onset is None and apex is None:
        scratch = service_of(request).scratch
        path = await in_thread(partial(scratch.keep, clip.file))
        try:
            result = await in_thread(partial(engine.recognize_clip, path, chosen))
        finally:
            path.unlink(missing_ok=True)
    else:
        raise DataError("The pictures do not fit together.", why="Expected a clip, or an onset and an apex.")
    return _mie_answer(result, chosen, picture=picture)


@router.post("/search", tags=["search"], responses=responses(409, 501))
async def search(request: Request, question: SearchQuestion) -> SearchAnswer:
    """Find the moments of the indexed videos that look most like a description."""
    engine = engine_of(request)
    hits = await in_thread(partial(engine.search, question.query, count=question.count))
    return SearchAnswer(space=engine.space, hits=[_hit(hit, thumbnail=question.thumbnails) for hit in hits])


@router.get("/labels", tags=["words"])
async def label_sets() -> list[LabelSetAnswer]:
    """List the shipped label sets."""
    return await in_thread(lambda: [_label_set(load_label_set(name)) for name in shipped_sets()])


@router.get("/labels/{name}", tags=["words"], responses=responses(404))
async def label_set(name: Annotated[str, Path(max_length=100, examples=["ekman7"])]) -> LabelSetAnswer:
    """Return one shipped label set."""
    if name not in shipped_sets():
        raise ServiceProblem(404, f"There is no label set {name!r}.", why=f"There are {', '.join(shipped_sets())}.")
    return await in_thread(lambda: _label_set(load_label_set(name)))


@router.get("/models", tags=["operations"])
async def models(request: Request) -> list[ModelAnswer]:
    """Tell which model answers; models and adapters cannot be uploaded."""
    engine = engine_of(request)
    spec = engine.encoder.spec
    return [
        ModelAnswer(
            backbone=spec.name if spec.origin in ("bundled", "hub") else spec.library, space=engine.space,
            dimension=engine.encoder.dimension, image_px=spec.image_size, temperature=engine.pipeline.temperature,
            licence=spec.licence, has_micro=spec.origin == "bundled",
            has_index=engine.settings.index_dir is not None, version=version("vlfer"),
        )
    ]  # fmt: skip


def compared(engine: Engine, labels: LabelSet) -> dict[str, Any]:
    """Return what every answer says about how it was made."""
    return {
        "space": engine.space, "temperature": engine.pipeline.temperature, "labels": list(labels.names),
        "labels_sha256": labels.sha256,
    }  # fmt: skip


def face_answer(prediction: Prediction) -> FaceAnswer:
    """Return a prediction as it is sent."""
    top = [
        LabelScore(label=name, probability=probability, similarity=similarity)
        for (name, probability), similarity in zip(prediction.top, prediction.similarity, strict=True)
    ]
    return FaceAnswer(
        face=prediction.track_id, label=prediction.label, probability=prediction.probability,
        reason=prediction.reason, note=prediction.note, top=top,
        box=None if prediction.box is None else [round(side, 2) for side in prediction.box],
        explanation=ExplanationAnswer.model_validate(prediction.explanation) if prediction.explanation else None,
    )  # fmt: skip


def _vectors(given: str | list[list[float]], dimension: int) -> FloatArray:
    try:
        if isinstance(given, str):
            raw = base64.b64decode(given, validate=True)
            return np.frombuffer(raw, "<f4").reshape(-1, dimension).astype(np.float32)
        return np.array(given, np.float32)
    except (ValueError, binascii.Error, OverflowError) as error:
        raise DataError(
            "The vectors cannot be read.", why=f"Expected rows of {dimension} numbers, or base64 of as many float32."
        ) from error  # fmt: skip


def _mie_answer(result: MicroResult, labels: LabelSet, *, picture: bool) -> MieAnswer:
    moments = result.moments
    return MieAnswer(
        label=result.label, probability=result.probability, reason=result.reason, top=list(result.top),
        units=list(result.units), onset=moments.onset, apex=moments.apex, offset=moments.offset,
        times_s=None if moments.times_s is None else list(moments.times_s), strength=result.strength,
        notes=list(result.notes), picture=_png(result) if picture else None, labels=list(labels.names),
    )  # fmt: skip


def _png(result: MicroResult) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(result.picture).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _hit(hit: Hit, *, thumbnail: bool) -> SearchHit:
    picture = base64.b64encode(hit.thumbnail).decode() if thumbnail and hit.thumbnail is not None else None
    return SearchHit(
        source=hit.source, start_s=hit.start_s, end_s=hit.end_s, face=hit.track_id, similarity=hit.similarity,
        thumbnail=picture,
    )  # fmt: skip


def _label_set(found: LabelSet) -> LabelSetAnswer:
    return LabelSetAnswer(name=found.name, origin=found.origin, labels=list(found.names), sha256=found.sha256)
