"""From what a configuration names to samples: class folders, manifests, data sets, archives; bad media are skipped."""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vlfer.config import write_atomically
from vlfer.errors import ConfigError, DataError
from vlfer.evaluation.datasets import find_dataset
from vlfer.evaluation.datasets.base import IMAGE_SUFFIXES, VIDEO_SUFFIXES, class_folder_rows, is_debris
from vlfer.evaluation.manifest import Manifest, Row, load_manifest
from vlfer.evaluation.media import Crops, Recipe, read_crops
from vlfer.evaluation.protocols import training_rows
from vlfer.training.finetune_data import Samples, Skipped, clean_labels
from vlfer.types import FloatArray, IntArray, UInt8Array, fold_label

if TYPE_CHECKING:
    from vlfer.faces.detect import FaceDetector
    from vlfer.training.finetune_config import DataSection, FinetuneConfig

Hook = Callable[[str, int, int], None]
_IN_MEMORY_BYTES = 2 * 10**9
_VOTES = "votes_"
_LOOK_EVERY_S = 1.0


def read_samples(
    config: FinetuneConfig, *, image_size: int, folder: Path, hook: Hook | None = None
) -> tuple[Samples, Samples | None]:
    """Return training samples and, where there is one, the test.

    Args:
        config: Its section ``data`` says what.
        image_size: Side of the crops in pixels.
        folder: Run folder, for crops that do not fit in memory.
        hook: Told ("reading", done, total).

    Raises:
        ConfigError: If no data are named.
        DataError: If they cannot be read as what they are said to be, or captions or votes are missing.
    """
    data = config.data
    if not data.is_named:
        raise ConfigError(
            "The configuration names no data.", why="A backbone is adapted to samples.",
            fix="--set data.root=FOLDER with one folder a class, or --set data.manifest=FILE.csv",
        )  # fmt: skip
    if config.input == "flow":
        return _flow(data)
    if data.archive is not None:
        return _archive(config, image_size=image_size)
    manifest, extras = _rows(config)
    train, test = split_manifest(manifest, data)
    read = functools.partial(_read, config=config, extras=extras, image_size=image_size, hook=hook)
    samples = read(train, store=folder / "train.npy")
    return samples, None if test is None else read(test, store=folder / "test.npy")


def split_manifest(manifest: Manifest, data: DataSection) -> tuple[Manifest, Manifest | None]:
    """Return the rows to train on and the rows to test, by fold or by split.

    Raises:
        DataError: If fold or split do not exist.
    """
    train = manifest if data.fold is None else training_rows(manifest, fold=data.fold)
    if data.fold is None and manifest.splits:
        train = manifest.select(split=data.split)
    if data.test == "none":
        return train, None
    if data.fold is not None and data.test in ("auto", "fold"):
        return train, manifest.select(fold=data.fold)
    if data.test == "auto":
        return train, manifest.select(split="test") if "test" in manifest.splits and data.split != "test" else None
    return train, manifest.select(split=data.test)


def _rows(config: FinetuneConfig) -> tuple[Manifest, dict[tuple[Any, ...], dict[str, str]]]:
    """Return all rows and, by sample, further columns of a manifest."""
    data = config.data
    if data.dataset is not None:
        return find_dataset(data.dataset).read(Path(str(data.root)).expanduser()), {}
    if data.manifest is not None:
        manifest = load_manifest(data.manifest, root=data.root)
        return manifest, _extras(data.manifest, manifest)
    root = Path(str(data.root)).expanduser()
    if not root.is_dir():
        raise DataError(f"The folder {str(root)!r} does not exist.", fix="--set data.root=FOLDER")
    if config.objective.kind == "teacher":
        files = sorted(p for p in root.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and not is_debris(p))
        return Manifest(tuple(Row(str(p.absolute()), "face") for p in files), name=root.name, origin=str(root)), {}
    rows = class_folder_rows(root, suffixes=IMAGE_SUFFIXES | VIDEO_SUFFIXES)
    if not rows:
        there = sorted(p.name for p in root.iterdir())[:8]
        raise DataError(
            f"{str(root)!r} holds no class folders with images or videos.",
            why=f"It holds {', '.join(there) or 'nothing'}.",
            fix="FOLDER/happy/1.jpg, FOLDER/sad/2.jpg ...: one folder a class",
        )  # fmt: skip
    return Manifest(tuple(rows), name=root.name, origin=str(root)), {}


def _extras(path: Path, manifest: Manifest) -> dict[tuple[Any, ...], dict[str, str]]:
    """Return captions and votes by sample, from the columns that a manifest itself has no use for."""
    text = path.expanduser().read_bytes().decode("utf-8-sig", errors="replace").lstrip("\r\n")
    lines = text.splitlines()
    delimiter = max(",;\t", key=lines[0].count) if lines else ","
    reader = csv.DictReader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True)
    reader.fieldnames = [name.strip().casefold() for name in reader.fieldnames or ()]
    wanted = [n for n in reader.fieldnames if n == "caption" or n.startswith(_VOTES)]
    rows = [row for row in reader if any((cell or "").strip() for key, cell in row.items() if key)]
    if not wanted or len(rows) != len(manifest.rows):
        return {}
    return {
        row.sample: {key: (cells[key] or "").strip() for key in wanted}
        for row, cells in zip(manifest.rows, rows, strict=True)
    }


def _read(
    manifest: Manifest,
    *,
    store: Path,
    config: FinetuneConfig,
    extras: dict[tuple[Any, ...], dict[str, str]],
    image_size: int,
    hook: Hook | None,
) -> Samples:
    """Read the crops of all rows; what cannot be read is skipped and remembered."""
    from vlfer.faces.detect import build_detector

    data = config.data
    frames = data.frames if config.input == "videos" else 1
    recipe = Recipe(size=image_size, faces=data.faces, margin=data.margin, frames=frames)
    detector: FaceDetector | None = build_detector("mediapipe") if recipe.needs_detector else None
    key = hashlib.sha256(f"{manifest.sha256}{recipe.key}".encode()).hexdigest()
    shape = (len(manifest), frames, image_size, image_size, 3)
    crops = (_stored_crops if int(np.prod(shape)) > _IN_MEMORY_BYTES else _crops)(
        manifest, shape=shape, store=store, key=key,
        read=functools.partial(read_crops, recipe=recipe, detector=detector), hook=hook,
    )  # fmt: skip
    pixels, skipped = crops.pixels, tuple(Skipped(source, reason) for source, reason in crops.skipped)
    kept = [manifest.rows[i] for i in crops.kept]
    if not kept:
        raise DataError(
            f"None of the {len(manifest)} samples of {manifest.name} can be used.",
            why=f"The first: {skipped[0].source}: {skipped[0].reason}", fix="--set data.faces=whole for face crops",
        )  # fmt: skip
    classes, label, notes = clean_labels([row.label for row in kept])
    found_extras = [extras.get(row.sample, {}) for row in kept]
    votes = _votes(classes, label, found_extras, wanted=config.objective.kind == "votes")
    captions = tuple(extra.get("caption", "") for extra in found_extras)
    if config.objective.kind == "captions" and not all(captions):
        raise DataError(
            f"{sum(not c for c in captions)} of {len(kept)} samples have no caption.",
            why="objective.kind is captions.",
            fix="a manifest with the column caption",
        )  # fmt: skip
    digest = hashlib.sha256("".join([crops.sha256, *notes]).encode())
    return Samples(
        pixels=pixels[: len(kept)], lengths=np.array(crops.lengths, np.int64), votes=votes, classes=classes,
        subjects=tuple(row.subject for row in kept), sources=tuple(_source(row) for row in kept),
        captions=captions if all(captions) else (), sha256=digest.hexdigest(), skipped=skipped,
    )  # fmt: skip


def _source(row: Row) -> str:
    """Return what names a sample: its path, with the moment or the box where there is one."""
    parts = [part for part in (row.start_s, row.end_s, row.box) if part is not None]
    return row.path + (f" {json.dumps(parts)}" if parts else "")


@dataclass(frozen=True, slots=True)
class _Read:
    """Crops of the rows that could be used: (N, T, S, S, 3) with their places, lengths, and what was skipped."""

    pixels: UInt8Array
    kept: list[int]
    lengths: list[int]
    skipped: list[tuple[str, str]]
    sha256: str


def _crops(
    manifest: Manifest,
    *,
    shape: tuple[int, ...],
    store: Path,
    key: str,
    read: Callable[[Row], Crops],
    hook: Hook | None,
    room: UInt8Array | None = None,
) -> _Read:
    """Read all rows into memory, or into ``room``."""
    del store
    pixels = np.zeros(shape, np.uint8) if room is None else room
    kept: list[int] = []
    lengths: list[int] = []
    skipped: list[tuple[str, str]] = []
    digest = hashlib.sha256(key.encode())
    for place, row in enumerate(manifest.rows):
        found = read(row)
        if hook:
            hook("reading faces", place + 1, len(manifest))
        if found.status != "ok":
            skipped.append((row.path, found.message))
            continue
        count = min(len(found.pixels), shape[1])
        pixels[len(kept), :count] = found.pixels[:count]
        digest.update(found.pixels.tobytes())
        kept.append(place)
        lengths.append(count)
    return _Read(pixels[: len(kept)], kept, lengths, skipped, digest.hexdigest())


def _stored_crops(
    manifest: Manifest,
    *,
    shape: tuple[int, ...],
    store: Path,
    key: str,
    read: Callable[[Row], Crops],
    hook: Hook | None,
) -> _Read:
    """Read all rows into a file, once: a run that goes on finds it, and so do the other processes of a machine."""
    marker = store.with_suffix(".json")
    others = int(os.environ.get("RANK", "0")) > 0
    while True:
        known = json.loads(marker.read_text("utf-8")) if marker.is_file() else {}
        if known.get("key") == key and store.is_file():
            facts = {name: known[name] for name in ("kept", "lengths", "skipped", "sha256")}
            return _Read(np.load(store, mmap_mode="r")[: len(known["kept"])], **facts)
        if not others:
            break
        time.sleep(_LOOK_EVERY_S)
    store.parent.mkdir(parents=True, exist_ok=True)
    room = np.lib.format.open_memmap(store, mode="w+", dtype=np.uint8, shape=shape)
    found = _crops(manifest, shape=shape, store=store, key=key, read=read, hook=hook, room=room)
    room.flush()
    facts = {"key": key, "kept": found.kept, "lengths": found.lengths, "skipped": found.skipped, "sha256": found.sha256}
    write_atomically(marker, json.dumps(facts).encode())
    return found


def _votes(classes: Sequence[str], label: Any, extras: Sequence[dict[str, str]], *, wanted: bool) -> FloatArray:
    hard: FloatArray = np.eye(len(classes), dtype=np.float32)[label]
    if not wanted:
        return hard
    columns = {fold_label(key.removeprefix(_VOTES)): key for extra in extras for key in extra if key.startswith(_VOTES)}
    missing = [name for name in classes if fold_label(name) not in columns]
    if missing:
        raise DataError(
            f"There are no votes for {', '.join(missing)}.", why="objective.kind is votes.",
            fix="a manifest with a column votes_<label> for each label, or data.archive",
        )  # fmt: skip
    try:
        counts = np.array(
            [[float(extra.get(columns[fold_label(n)]) or 0) for n in classes] for extra in extras], np.float32
        )
    except ValueError as error:
        raise DataError(f"A vote is no number: {error}.", fix="counts or shares, 0 for none") from None
    total = counts.sum(axis=1, keepdims=True)
    return np.asarray(np.where(total > 0, counts / np.maximum(total, 1e-9), hard), np.float32)


def _archive(config: FinetuneConfig, *, image_size: int) -> tuple[Samples, Samples | None]:
    """Read grey faces with votes; the test is the part that the bundled model's training holds out by content too."""
    from vlfer.bench.finetune import face_samples
    from vlfer.training.data import load_voted_faces, split_by_content

    data, path = config.data, Path(str(config.data.archive)).expanduser()
    faces = load_voted_faces(path, classes=_archive_classes(path))
    split = split_by_content(faces.images, validation=0.06, test=0.06, seed=0)

    def part(rows: IntArray) -> Samples:
        return face_samples(faces.images[rows], faces.votes[rows], faces.classes, size=image_size)

    rows = split["train"]
    if data.per_class is not None:
        rng = np.random.default_rng(np.random.SeedSequence([config.seed, 4]))
        few = [rng.permutation(rows[faces.majority[rows] == c])[: data.per_class] for c in range(len(faces.classes))]
        rows = np.sort(np.concatenate(few))
    return part(rows), None if data.test == "none" else part(split["test"])


def _archive_classes(path: Path) -> tuple[str, ...]:
    """Return the classes of an archive that are expressions."""
    if not path.is_file():
        raise DataError(f"{str(path)!r} does not exist.", fix="--set data.archive=FILE.npz")
    with np.load(path, allow_pickle=False) as archive:
        names = [str(name) for name in archive["classes"]] if "classes" in archive.files else []
    return tuple(name for name in names if name not in ("unknown", "non-face", "NF"))


def _flow(data: DataSection) -> tuple[Samples, Samples | None]:
    """Read an archive of flow; ``data.fold`` names the subject, or the data set, that is tested."""
    from vlfer.micro.samples import load_flow_archive
    from vlfer.training.finetune_flow import flow_samples

    if data.archive is None:
        raise ConfigError("input is flow and data.archive is not given.", fix="--set data.archive=FLOW.npz")
    samples = load_flow_archive(data.archive)
    if data.fold is None:
        return flow_samples(samples), None
    tested = (samples.subject_keys == data.fold) | (samples.dataset == data.fold)
    if not tested.any() or tested.all():
        known = sorted({*samples.dataset.tolist(), *samples.subject_keys.tolist()})
        raise DataError(
            f"data.fold {data.fold!r} is no subject and no data set of the archive.",
            why=f"It has {', '.join(known[:12])}.",
        )
    test = None if data.test == "none" else flow_samples(samples.take(tested))
    return flow_samples(samples.take(~tested)), test
