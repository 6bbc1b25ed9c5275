"""From rows to stored frame embeddings: what an engine has to run, and what becomes of its answers.

The rows that the store lacks are cut into blocks before anything is read, by the order of the rows and the kind of
their media alone. One block is decoded and goes through the tower as one, whoever does it: a thread here, an actor on
another machine, a second actor after the first one was lost. So the batches are the same everywhere, and so are their
bytes.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from vlfer.errors import EnvironmentProblem
from vlfer.evaluation.embed import Clip, EmbeddingStore, group_id
from vlfer.evaluation.manifest import Row
from vlfer.evaluation.media import FRAME_SUFFIXES, Crops, Recipe, media_file, read_crops
from vlfer.faces.detect import FaceDetector
from vlfer.types import Embedding, FloatArray, UInt8Array

Progress = Callable[[str, int, int], None]
"""Called as (step, done, total)."""

_STORE_EVERY_S = 10.0
_STORE_EVERY_FACES = 4096
_BATCHES_A_BLOCK = 4
_FRAMES_OF_AN_UNCUT_CLIP = 256  # a guess that only sets how many clips share a block


class ImageEncoder(Protocol):
    """What is needed of an encoder here."""

    space: str

    def encode_images(self, pixels: UInt8Array, *, batch_size: int = 32) -> Embedding:
        """Encode (N, S, S, 3) uint8 RGB crops into N unit vectors."""
        ...


@dataclass(frozen=True, slots=True)
class Failure:
    """A row without an embedding.

    Attributes:
        status: "no_face" or "error".
        error_type: Class of the error.
        message: Its message.
    """

    status: str
    error_type: str
    message: str


@dataclass(frozen=True, slots=True)
class BlockVectors:
    """What came of the rows of one block.

    Attributes:
        vectors: One (T, D) float32 array a row, (0, 0) where there is none.
        records: (status, error type, message) of each row; of a row that is "ok" the message tells how its faces were
            found.
        tower_s: Seconds in the tower.
    """

    vectors: tuple[FloatArray, ...]
    records: tuple[tuple[str, str, str], ...]
    tower_s: float


@dataclass(frozen=True, slots=True)
class Steps:
    """The work on one block as plain functions; can be pickled if the two factories can.

    Attributes:
        recipe: How rows become crops.
        space: Id of the embedding space that is wanted.
        build_encoder: Makes an image tower where it is called.
        build_detector: Makes a face detector; needed where ``recipe.needs_detector``.
        batch_size: Crops that go through the tower at once.
    """

    recipe: Recipe
    space: str
    build_encoder: Callable[[], ImageEncoder]
    build_detector: Callable[[], FaceDetector] | None = None
    batch_size: int = 32

    @property
    def build_reader(self) -> Callable[[], Callable[[Row], Crops]]:
        """Makes what decodes one row; detectors keep state, so one is made for each thread or process."""
        return functools.partial(_make_reader, self.recipe, self.build_detector)

    @property
    def build_tower(self) -> Callable[[], Callable[[Sequence[Crops]], BlockVectors]]:
        """Makes what encodes the crops of one block; raises EnvironmentProblem if it would be of another space."""
        return functools.partial(_make_tower, self.build_encoder, space=self.space, batch_size=self.batch_size)

    def lost(self, row: Row, reason: str) -> Crops:
        """Return the record of a row whose decoding ends the process that does it."""
        nothing = np.zeros((0, self.recipe.size, self.recipe.size, 3), dtype=np.uint8)
        why = f"Decoding {row.path} ended its process ({reason}); the file is probably damaged."
        return Crops("error", nothing, "VideoReadError", why)


Engine = Callable[[Sequence[Sequence[Row]], Steps], Iterator[tuple[int, BlockVectors]]]
"""Runs `Steps` over blocks; yields (index of the block, result) once for each, in any order."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """Where the embeddings of every row are.

    Attributes:
        places: One a row, in order.
        from_cache: Rows that were stored before.
        encoded: Rows that went through the tower now.
        read_s: Seconds that passed in the engine outside of any tower.
        tower_s: Seconds in the tower; with several towers, their sum.
    """

    places: tuple[Clip | Failure, ...]
    from_cache: int
    encoded: int
    read_s: float
    tower_s: float


def encode_rows(
    rows: Sequence[Row],
    *,
    encoder: ImageEncoder,
    recipe: Recipe,
    store: EmbeddingStore,
    build_detector: Callable[[], FaceDetector] | None = None,
    build_encoder: Callable[[], ImageEncoder] | None = None,
    engine: Engine | None = None,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> Encoded:
    """Embed the frames of every row, taking what the store has and storing the rest.

    Errors other than "no face" are not stored: a missing file may be there next time.

    Args:
        rows: Samples; the same content twice is encoded once.
        encoder: The image tower.
        recipe: How rows become crops.
        store: Read first, then written every few seconds and when interrupted.
        build_detector: Makes one detector a thread; needed where ``recipe.needs_detector``.
        build_encoder: Makes the tower on another machine; None hands ``encoder`` itself over.
        engine: Who does it; None decodes and encodes here, one row after the other.
        batch_size: Crops that go through the tower at once.
        progress: Told of "hash" and "encode".

    Raises:
        EnvironmentProblem: If the store cannot be written, or the engine has lost its machines.
    """
    tell = progress or (lambda step, done, total: None)
    tell("hash", 0, len(rows))
    items = store.content_ids(rows)
    tell("hash", len(rows), len(rows))
    group = group_id(encoder.space, recipe)
    known = store.find(group, [item for item in items if item])
    todo: dict[str, Row] = {}
    failures: dict[int, Failure] = {}
    for i, (row, item) in enumerate(zip(rows, items, strict=True)):
        if item is None:
            record = read_crops(row, recipe=recipe, detector=None)
            failures[i] = Failure("error", record.error_type or "MediaReadError", record.message or "unreadable")
        elif item not in known:
            todo.setdefault(item, row)
    steps = Steps(recipe, encoder.space, build_encoder or (lambda: encoder), build_detector, batch_size)
    session = _Session(store, group=group, about=f"{encoder.space} | {recipe}")
    began = time.monotonic()
    if todo:
        session.run(todo, steps=steps, engine=engine or in_line, tell=tell)
    passed_s = time.monotonic() - began
    known.update(store.find(group, todo) if todo else {})
    places: list[Clip | Failure] = []
    for i, item in enumerate(items):
        place = failures.get(i) or session.failures.get(item or "") or known.get(item or "")
        if place is None:
            place = Failure("error", "EnvironmentProblem", "The embedding was stored and cannot be read back.")
        if isinstance(place, Clip) and place.status != "ok":
            place = Failure(place.status, "NoFaceError", place.message)
        places.append(place)
    reused = sum(1 for item in items if item and item not in todo)
    return Encoded(tuple(places), reused, len(todo), max(0.0, passed_s - session.tower_s), session.tower_s)


def split_blocks(rows: Sequence[Row], *, recipe: Recipe, batch_size: int) -> list[list[Row]]:
    """Cut rows into blocks of about four batches of crops: 128 images or 8 clips of 16 frames at batch size 32."""
    blocks: list[list[Row]] = []
    left = 0
    for row in rows:
        if left <= 0:
            blocks.append([])
            left = _BATCHES_A_BLOCK * batch_size
        blocks[-1].append(row)
        left -= _likely_frames(row, recipe)
    return blocks


def encode_block(crops: Sequence[Crops], *, encoder: ImageEncoder, batch_size: int) -> BlockVectors:
    """Encode the crops of several rows in batches that reach over their borders."""
    began = time.monotonic()
    found = [one for one in crops if one.status == "ok"]
    vectors = [np.zeros((0, 0), np.float32)] * len(crops)
    if found:
        pixels = np.concatenate([one.pixels for one in found])
        encoded = encoder.encode_images(pixels, batch_size=batch_size).vectors
        start = 0
        for i, one in enumerate(crops):
            if one.status == "ok":
                vectors[i] = encoded[start : start + len(one.pixels)]
                start += len(one.pixels)
    records = tuple((one.status, one.error_type, one.note if one.status == "ok" else one.message) for one in crops)
    return BlockVectors(tuple(vectors), records, time.monotonic() - began)


def in_line(blocks: Sequence[Sequence[Row]], steps: Steps) -> Iterator[tuple[int, BlockVectors]]:
    """Decode and encode here, one row after the other: the plainest engine."""
    read, tower = steps.build_reader(), steps.build_tower()
    for i, block in enumerate(blocks):
        yield i, tower([read(row) for row in block])


class _Session:
    """Collects what an engine gives to shards that are worth a file."""

    def __init__(self, store: EmbeddingStore, *, group: str, about: str) -> None:
        self.failures: dict[str, Failure] = {}
        self.tower_s = 0.0
        self._store = store
        self._group = group
        self._about = about
        self._done: list[tuple[str, FloatArray, str, str]] = []
        self._saved_at = time.monotonic()

    def run(self, todo: dict[str, Row], *, steps: Steps, engine: Engine, tell: Progress) -> None:
        """Encode and store; what is encoded is stored also when something interrupts."""
        blocks = split_blocks(list(todo.values()), recipe=steps.recipe, batch_size=steps.batch_size)
        items = iter(todo)
        items_of = [[next(items) for _ in block] for block in blocks]
        done = 0
        try:
            for index, result in engine(blocks, steps):
                self._take(items_of[index], result)
                done += len(items_of[index])
                tell("encode", done, len(todo))
        finally:
            self._save()

    def _take(self, items: Sequence[str], result: BlockVectors) -> None:
        self.tower_s += result.tower_s
        for item, vectors, (status, error_type, message) in zip(items, result.vectors, result.records, strict=True):
            if status == "error":
                self.failures[item] = Failure(status, error_type, message)
            else:
                self._done.append((item, vectors, status, message))
        faces = sum(len(vectors) for _, vectors, _, _ in self._done)
        if faces >= _STORE_EVERY_FACES or time.monotonic() - self._saved_at > _STORE_EVERY_S:
            self._save()

    def _save(self) -> None:
        done, self._done = self._done, []
        self._store.add(self._group, done, about=self._about)
        self._saved_at = time.monotonic()


def _make_reader(recipe: Recipe, build_detector: Callable[[], FaceDetector] | None) -> Callable[[Row], Crops]:
    detector = build_detector() if recipe.needs_detector and build_detector is not None else None
    return functools.partial(read_crops, recipe=recipe, detector=detector)


def _make_tower(
    build_encoder: Callable[[], ImageEncoder], *, space: str, batch_size: int
) -> Callable[[Sequence[Crops]], BlockVectors]:
    encoder = build_encoder()
    if encoder.space != space:
        raise EnvironmentProblem(
            f"The backbone loaded for encoding has the space {encoder.space!r} instead of {space!r}.",
            why="Its weights differ from those of the machine that started the run.",
            fix="put the same weights on every node.",
        )
    return functools.partial(encode_block, encoder=encoder, batch_size=batch_size)


def _likely_frames(row: Row, recipe: Recipe) -> int:
    file = media_file(row)
    if file.suffix.lower() in FRAME_SUFFIXES or str(file) != row.path:  # an image, or one row of a pixel table
        return 1
    return _FRAMES_OF_AN_UNCUT_CLIP if recipe.sampling == "all" else recipe.frames
