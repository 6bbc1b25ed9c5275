"""What an evaluation costs: scoring again, encoding, Ray, and how time and memory grow with the number of clips."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from vlfer.batch.local import LocalEngine
from vlfer.bench.measurement import Measurement, PeakMemory
from vlfer.calibration import default_temperature
from vlfer.evaluation.embed import EmbeddingStore, group_id
from vlfer.evaluation.encode import Engine, encode_rows
from vlfer.evaluation.manifest import Manifest, Row
from vlfer.evaluation.media import Recipe
from vlfer.evaluation.protocols import plan_test
from vlfer.evaluation.run import EvalConfig, Words, embed_words, evaluate
from vlfer.models.encoder import Encoder
from vlfer.text.bank import TextBank
from vlfer.text.labels import load_label_set
from vlfer.types import FloatArray, LabelSet

FRAMES = 16
LABELS = "mafw11"
_ADDED_AT_ONCE = 500
_TOWER_S = 3.0
_PARTS = 3
_NOT_TO_BE_CALLED = "Every clip is stored; nothing may go through a tower."


def bench_scoring(encoder: Encoder, *, sizes: Sequence[int], folder: Path) -> list[Measurement]:
    """Score made-up stored clips of 16 frames with a set of 11 classes that was never asked for.

    Files are real, of a few bytes each, so that looking at them counts. Each size runs in a process of its own.

    Args:
        encoder: Its text tower and the number of its dimensions are used.
        sizes: Numbers of clips.
        folder: For the files.
    """
    labels = load_label_set(LABELS)
    began = time.perf_counter()
    words = embed_words(labels, bank=TextBank(encoder, cache_dir=None), ensemble="all")
    words_s = time.perf_counter() - began
    found: list[Measurement] = [Measurement(f"embed the {len(words.owner)} sentences of {LABELS}", words_s, "s")]
    context = multiprocessing.get_context("spawn")  # a process that starts small, so that its peak is its own
    for size in sizes:
        with ProcessPoolExecutor(1, context) as pool:
            seconds, grown_mb = pool.submit(
                score_made_up, size, folder / str(size), space=encoder.space, dimension=encoder.dimension,
                labels=labels, words=words, temperature=default_temperature(encoder, ensemble="all"),
            ).result()  # fmt: skip
        bar = 5.0 if size == 10_000 else None
        name = f"score {size} stored clips of {FRAMES} frames"
        total = seconds + words_s
        found += [
            Measurement(name, total, "s", bar=bar, note="words, file look-up, scores, figures, bootstrap"),
            Measurement(f"{name}, each", 1000 * seconds / size, "ms"),
            Measurement(f"{name}, memory grown", grown_mb, "MB", note="without mapped shards"),
        ]
    return found


def score_made_up(
    size: int, folder: Path, *, space: str, dimension: int, labels: LabelSet, words: Words, temperature: float
) -> tuple[float, float | None]:
    """Store made-up vectors for ``size`` small files, then evaluate them; return seconds and MB that memory grew by."""
    media = folder / "media"
    media.mkdir(parents=True)
    rows = []
    for i in range(size):
        path = media / f"{i}.mp4"
        path.write_text(str(i))
        rows.append(Row(str(path), labels.names[i % len(labels)], fold=str(i % 5 + 1)))
    recipe = Recipe(size=32, faces="whole", frames=FRAMES)
    store = EmbeddingStore(folder / "cache")
    items = store.content_ids(rows)
    for start in range(0, size, _ADDED_AT_ONCE):
        part = [item for item in items[start : start + _ADDED_AT_ONCE] if item]
        vectors = _unit_vectors(len(part) * FRAMES, dimension, seed=start).reshape(len(part), FRAMES, dimension)
        store.add(group_id(space, recipe), [(item, one, "ok", "") for item, one in zip(part, vectors, strict=True)])
    with PeakMemory() as memory:
        began = time.perf_counter()
        result = evaluate(
            plan_test(Manifest(tuple(rows))), labels=labels, words=words, encoder=_Nobody(space), recipe=recipe,
            store=EmbeddingStore(folder / "cache"), config=EvalConfig(), temperature=temperature,
        )  # fmt: skip
        seconds = time.perf_counter() - began
    if result.encoded.from_cache != size:
        raise RuntimeError(f"{size - result.encoded.from_cache} of {size} clips were not found in the store.")
    return seconds, memory.grown_mb


def bench_encoding(encoder: Encoder, *, images: int, clips: int, workers: int, folder: Path) -> list[Measurement]:
    """Compare the way from files to stored vectors with the tower alone at batch 32.

    Files are encoded in parts, and the tower alone is timed before, between and after them: a processor's clock and its
    other work drift within a minute by more than what is measured. The share of processor time that the tower has is
    given too; other programs hardly change it.

    Args:
        encoder: The tower.
        images: Number of JPEG files of the tower's own size.
        clips: Number of H.264 files of 16 frames of that size.
        workers: Decoding threads.
        folder: For the files.
    """
    size = encoder.spec.image_size
    found: list[Measurement] = []
    for kind, count, frames, write in (("images", images, 1, write_image), ("clips", clips, FRAMES, write_clip)):
        rows = [Row(str(write(folder / kind, i, size=size)), "x") for i in range(count)]
        timings, seconds, worked = [tower_rate(encoder)], 0.0, 0.0
        for part in range(min(_PARTS, count)):
            began = time.process_time()
            taken, _ = _timed(
                encoder, rows[part::_PARTS], engine=LocalEngine(workers=workers), folder=folder / f"cache-{kind}"
            )
            seconds, worked = seconds + taken, worked + time.process_time() - began
            timings.append(tower_rate(encoder))
        alone, work = zip(*timings, strict=True)
        rate, tower = count * frames / seconds, float(np.mean(alone))
        found += [
            Measurement(f"tower alone, batch 32, beside {kind}", tower, "faces/s",
                        note=f"{min(alone):.0f} to {max(alone):.0f} in {len(alone)} timings before, between and after"),
            Measurement(f"{count} {kind}, files to stored vectors", rate, "faces/s"),
            Measurement(f"{kind}, share of the tower alone", rate / tower, "", bar=0.9, at_least=True,
                        note=f"{workers} decoding threads beside the tower"),
            Measurement(f"{kind}, the tower's share of processor time", float(np.mean(work)) * count * frames / worked,
                        ""),
        ]  # fmt: skip
    return found


def bench_ray(
    encoder: Encoder, *, build_encoder: Callable[[], Any], clips: int, workers: int, folder: Path
) -> list[Measurement]:
    """Compare Ray on this machine alone with the local engine on the same clips.

    Args:
        encoder: The tower, as loaded here.
        build_encoder: Loads it in an actor.
        clips: Number of H.264 files of 16 frames.
        workers: Decoding threads of the local engine.
        folder: For the files.

    Raises:
        EnvironmentProblem: If Ray is not installed.
    """
    from vlfer.batch.cluster import connection
    from vlfer.batch.ray import RayEngine

    rows = [Row(str(write_clip(folder / "ray", i, size=encoder.spec.image_size)), "x") for i in range(clips)]
    local_s, _ = _timed(encoder, rows, engine=LocalEngine(workers=workers), folder=folder / "cache-local")
    began = time.perf_counter()
    with connection():
        start_s = time.perf_counter() - began
        ray_s, first_s = _timed(
            encoder, rows, engine=RayEngine(gpus=False), folder=folder / "cache-ray", build_encoder=build_encoder
        )
    name = f"{clips} clips of {FRAMES} frames"
    return [
        Measurement(f"{name}, local engine", local_s, "s"),
        Measurement("start of Ray on this machine", start_s, "s"),
        Measurement(f"{name}, Ray", ray_s, "s", note="from the first actor asked for to the last vector stored"),
        Measurement("of it until the first block", first_s, "s", note="actors start and load the backbone"),
        Measurement("overhead of Ray", ray_s / local_s - 1, "", bar=0.15),
    ]


def tower_rate(encoder: Encoder, *, batch_size: int = 32) -> tuple[float, float]:
    """Return faces a second through the tower alone, pixels being in memory, and processor seconds a face."""
    size = encoder.spec.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (4 * batch_size, size, size, 3), dtype=np.uint8)
    encoder.encode_images(pixels, batch_size=batch_size)  # the first call is slower
    faces, worked, began = 0, time.process_time(), time.perf_counter()
    while (passed := time.perf_counter() - began) < _TOWER_S:
        encoder.encode_images(pixels, batch_size=batch_size)
        faces += len(pixels)
    return faces / passed, (time.process_time() - worked) / faces


def write_image(folder: Path, index: int, *, size: int) -> Path:
    """Write a JPEG of smooth random content."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{index}.jpg"
    Image.fromarray(_picture(index, size)).save(path, quality=90)
    return path


def write_clip(folder: Path, index: int, *, size: int) -> Path:
    """Write an H.264 clip of 16 frames of smooth random content that moves."""
    import av

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{index}.mp4"
    side = size + size % 2
    picture = _picture(index, side)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width = stream.height = side
        stream.pix_fmt = "yuv420p"
        for t in range(FRAMES):
            moved = np.ascontiguousarray(np.roll(picture, t, axis=1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(moved, format="rgb24")))
        container.mux(stream.encode())
    return path


class _Nobody:
    """Stands where a tower must not be needed."""

    def __init__(self, space: str) -> None:
        self.space = space

    def encode_images(self, pixels: Any, *, batch_size: int = 32) -> Any:
        raise RuntimeError(_NOT_TO_BE_CALLED)


def _timed(
    encoder: Encoder, rows: Sequence[Row], *, engine: Engine, folder: Path,
    build_encoder: Callable[[], Any] | None = None,
) -> tuple[float, float]:  # fmt: skip
    """Return seconds until every row is stored, and until the first block came."""
    first = 0.0
    began = time.perf_counter()

    def watched(blocks: Sequence[Sequence[Row]], steps: Any) -> Iterator[tuple[int, Any]]:
        nonlocal first
        for count, result in enumerate(engine(blocks, steps)):
            if count == 0:
                first = time.perf_counter() - began
            yield result

    recipe = Recipe(size=encoder.spec.image_size, faces="whole", frames=FRAMES)
    result = encode_rows(
        rows, encoder=encoder, recipe=recipe, store=EmbeddingStore(folder), engine=watched, build_encoder=build_encoder
    )
    seconds = time.perf_counter() - began
    failed = [place for place in result.places if not hasattr(place, "shard")]
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(rows)} files could not be read: {failed[0]}")
    return seconds, first


def _picture(index: int, size: int) -> Any:
    coarse = np.random.default_rng(index).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    from PIL import Image

    return np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))


def _unit_vectors(n: int, dimension: int, *, seed: int) -> FloatArray:
    vectors = np.random.default_rng(seed).standard_normal((n, dimension), dtype=np.float32)
    unit: FloatArray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit
