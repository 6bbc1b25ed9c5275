"""The store of frame embeddings: what went through a tower once never does again.

A folder holds ``index.sqlite`` and ``shards/*.npy``, float32 (N, D), opened memory-mapped. A clip is found under its
*group* (hash of embedding space and `Recipe`) and its *item* (hash of the file's content, times and box). So a renamed
or moved file is still known, and a changed one is not.

A shard is written beside its place, flushed to disk and renamed; only then does one transaction enter its clips in the
index. Whoever is killed at any point leaves at most a shard that nobody refers to. Two runs may share the folder: each
writes shards of its own, and the first to enter a clip wins.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import sqlite3
import stat
import uuid
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlfer.errors import EnvironmentProblem, MediaReadError
from vlfer.evaluation.manifest import Row
from vlfer.evaluation.media import Recipe, frame_files, media_file
from vlfer.types import FloatArray

_SCHEMA = """
CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, state TEXT NOT NULL, sha256 TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS groups (grp TEXT PRIMARY KEY, about TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS clips (
    grp TEXT NOT NULL, item TEXT NOT NULL, shard TEXT NOT NULL, start INTEGER NOT NULL, frames INTEGER NOT NULL,
    status TEXT NOT NULL, message TEXT NOT NULL, PRIMARY KEY (grp, item)) WITHOUT ROWID;
"""
_BUSY_S = 60.0
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_READ_BYTES = 1 << 20
_ASKED_AT_ONCE = 500  # SQLite takes 999 and more
_MOST_OPEN_SHARDS = 128  # each holds a file descriptor


@dataclass(frozen=True, slots=True)
class Clip:
    """Where the frame embeddings of one clip lie.

    Attributes:
        shard: Name of the shard file; empty for a clip without embeddings.
        start: First row in the shard.
        frames: Number of rows.
        status: "ok" or "no_face".
        message: Note on the faces, or why there are none.
    """

    shard: str
    start: int
    frames: int
    status: str = "ok"
    message: str = ""


def group_id(space: str, recipe: Recipe) -> str:
    """Return the name under which embeddings of one space and one way of reading are kept."""
    return hashlib.sha256(f"{space}\n{recipe.key}".encode()).hexdigest()


class EmbeddingStore:
    """Frame embeddings on disk, shared by runs.

    Args:
        folder: Made where it does not exist.

    Raises:
        EnvironmentProblem: If the folder cannot be written, its disk is full, or the index is damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._shards: OrderedDict[str, FloatArray] = OrderedDict()
        try:
            (self.folder / "shards").mkdir(parents=True, exist_ok=True)
            with closing(self._connect()) as index, index:
                index.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise self._problem(error) from error

    def content_ids(self, rows: Sequence[Row]) -> list[str | None]:
        """Return the item id of each row, or None where its medium is missing or unreadable.

        Contents are hashed once and then known by size and time of last change.

        Raises:
            EnvironmentProblem: If the index cannot be written.
        """
        files = [media_file(row) for row in rows]
        try:
            with closing(self._connect()) as index:
                paths = [str(file.absolute()) for file in dict.fromkeys(files)]
                found = _look_up(index, "SELECT path, state, sha256 FROM files WHERE path IN", paths)
                known = {path: (state, sha) for path, state, sha in found}
                hashes: dict[Path, str | None] = {}
                fresh: list[tuple[str, str, str]] = []
                for file in sorted(set(files), key=str):  # folder after folder, as they lie on the disk
                    hashes[file] = _content_hash(file, known=known, fresh=fresh)
                    if len(fresh) >= 500:
                        self._remember(index, fresh)
                self._remember(index, fresh)
        except sqlite3.Error as error:
            raise self._problem(error) from error
        return [_item_id(row, file, hashes[file]) for row, file in zip(rows, files, strict=True)]

    def find(self, group: str, items: Iterable[str]) -> dict[str, Clip]:
        """Return the clips of a group that are stored, and whose shard is whole.

        Raises:
            EnvironmentProblem: If the index or a shard cannot be read.
        """
        columns = "item, shard, start, frames, status, message"
        try:
            with closing(self._connect()) as index:
                rows = _look_up(index, f"SELECT {columns} FROM clips WHERE grp = ? AND item IN", items, group)
        except sqlite3.Error as error:
            raise self._problem(error) from error
        clips = {item: Clip(*place) for item, *place in rows}
        return {item: clip for item, clip in clips.items() if self._is_whole(clip)}

    def add(self, group: str, clips: Sequence[tuple[str, FloatArray, str, str]], *, about: str = "") -> None:
        """Store clips for good: when this returns they survive a power cut.

        Args:
            group: See `group_id`.
            clips: Item id, (T, D) float32 unit vectors (T is 0 unless the status is "ok"), status and message.
            about: What the group is, for people who look into the folder.

        Raises:
            EnvironmentProblem: If the disk is full or cannot be written; what was stored before stays intact.
        """
        if not clips:
            return
        arrays = [vectors for _, vectors, _, _ in clips if len(vectors)]
        shard = self._write_shard(np.concatenate(arrays)) if arrays else ""
        places = []
        start = 0
        for item, vectors, status, message in clips:
            places.append((group, item, shard if len(vectors) else "", start, len(vectors), status, message))
            start += len(vectors)
        try:
            with closing(self._connect()) as index, index:
                index.execute("INSERT OR IGNORE INTO groups VALUES (?, ?)", (group, about))
                self._forget_broken(index, group, [item for item, *_ in clips])
                index.executemany("INSERT OR IGNORE INTO clips VALUES (?, ?, ?, ?, ?, ?, ?)", places)
        except sqlite3.Error as error:
            raise self._problem(error) from error

    def vectors(self, clip: Clip) -> FloatArray:
        """Return the (T, D) float32 embeddings of one clip, a view into a memory-mapped shard.

        Raises:
            EnvironmentProblem: If the shard has disappeared since `find`.
        """
        shard = self._open(clip.shard)
        if shard is None or clip.start + clip.frames > len(shard):
            raise EnvironmentProblem(
                f"The shard {clip.shard} of {self.folder} has disappeared.", fix="run again: it is made anew."
            )
        return shard[clip.start : clip.start + clip.frames]

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.folder / "index.sqlite", timeout=_BUSY_S)

    def _remember(self, index: sqlite3.Connection, fresh: list[tuple[str, str, str]]) -> None:
        with index:
            index.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", fresh)
        fresh.clear()

    def _forget_broken(self, index: sqlite3.Connection, group: str, items: Sequence[str]) -> None:
        """Drop entries whose shard is damaged, so that INSERT OR IGNORE does not keep them."""
        for item in items:
            found = index.execute(
                "SELECT shard, start, frames, status, message FROM clips WHERE grp = ? AND item = ?", (group, item)
            ).fetchone()
            if found is not None and not self._is_whole(Clip(*found)):
                index.execute("DELETE FROM clips WHERE grp = ? AND item = ?", (group, item))

    def _write_shard(self, vectors: FloatArray) -> str:
        name = f"{uuid.uuid4().hex}.npy"
        final = self.folder / "shards" / name
        partial = final.with_suffix(".partial")
        try:
            content = io.BytesIO()
            np.save(content, np.ascontiguousarray(vectors, dtype=np.float32))
            with partial.open("wb") as file:
                file.write(content.getbuffer())  # into a file of its own NumPy would not tell a full disk from others
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, final)
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise self._problem(error) from error
        return name

    def _open(self, name: str) -> FloatArray | None:
        """Return a shard, or None if it is gone or damaged."""
        if name not in self._shards:
            try:
                self._shards[name] = np.load(self.folder / "shards" / name, mmap_mode="r")
            except FileNotFoundError:
                return None
            except OSError as error:  # too many open files and the like: the shard itself may be sound
                raise self._problem(error) from error
            except (ValueError, EOFError):  # cut short by a failing disk
                return None
            if len(self._shards) > _MOST_OPEN_SHARDS:
                self._shards.popitem(last=False)
        self._shards.move_to_end(name)
        return self._shards[name]

    def _is_whole(self, clip: Clip) -> bool:
        if not clip.frames:
            return True
        shard = self._open(clip.shard)
        return shard is not None and clip.start + clip.frames <= len(shard)

    def _problem(self, error: Exception) -> EnvironmentProblem:
        full = getattr(error, "errno", None) in _FULL or "disk is full" in str(error)
        return EnvironmentProblem(
            f"The embedding cache {str(self.folder)!r} cannot be used: {error}.",
            why="The disk is full; what was stored before is intact." if full else "What was stored before is intact.",
            fix="free some space and run again, it goes on where it stopped; or name another folder with --cache"
            if full
            else "a folder that can be written, with --cache",
        )


def _look_up(index: sqlite3.Connection, question: str, keys: Iterable[str], *given: str) -> list[tuple[Any, ...]]:
    """Return what a question ending in IN finds for the keys: a store of millions is never read as a whole."""
    wanted = list(dict.fromkeys(keys))
    found: list[tuple[Any, ...]] = []
    for start in range(0, len(wanted), _ASKED_AT_ONCE):
        part = wanted[start : start + _ASKED_AT_ONCE]
        found += index.execute(f"{question} ({','.join('?' * len(part))})", (*given, *part)).fetchall()
    return found


def _content_hash(file: Path, *, known: dict[str, tuple[str, str]], fresh: list[tuple[str, str, str]]) -> str | None:
    """Return the SHA-256 of a file or a folder of frames; new ones are appended to ``fresh``."""
    try:
        whole = file.stat()
        is_folder = stat.S_ISDIR(whole.st_mode)
        members = frame_files(file) if is_folder else [file]
        stats = [(m.name, s.st_size, s.st_mtime_ns) for m in members for s in (m.stat() if is_folder else whole,)]
        state = hashlib.sha256(json.dumps(stats).encode()).hexdigest()
        path = str(file.absolute())
        if path in known and known[path][0] == state:
            return known[path][1]
        digest = hashlib.sha256()
        for member, (name, size, _) in zip(members, stats, strict=True):
            if is_folder:
                digest.update(f"{name}\0{size}\0".encode())
            with member.open("rb") as stream:
                while block := stream.read(_READ_BYTES):
                    digest.update(block)
    except (OSError, MediaReadError):
        return None
    fresh.append((path, state, digest.hexdigest()))
    return digest.hexdigest()


def _item_id(row: Row, file: Path, content: str | None) -> str | None:
    if content is None:
        return None
    member = row.path[len(str(file)) :]  # "#17" of a pixel table
    return hashlib.sha256(json.dumps([content, member, row.start_s, row.end_s, row.box]).encode()).hexdigest()
