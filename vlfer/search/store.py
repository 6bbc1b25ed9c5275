"""The SQLite half of an index: what was seen where, with its vector. It is the truth; FAISS is made from it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlfer.errors import DataError, SpaceError
from vlfer.types import FloatArray, IntArray

_LAYOUT = 1
_WAIT_S = 30.0
_ROWS_AT_ONCE = 20_000
_TABLES = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS sources (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE NOT NULL,
  stamp TEXT NOT NULL, note TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS moments (id INTEGER PRIMARY KEY AUTOINCREMENT, source INTEGER NOT NULL,
  start_s REAL NOT NULL, end_s REAL NOT NULL, track_id INTEGER NOT NULL, vector BLOB NOT NULL, thumbnail BLOB);
CREATE INDEX IF NOT EXISTS moments_of_source ON moments (source);
"""


@dataclass(frozen=True, slots=True)
class Moment:
    """One face over a short stretch of one source.

    Attributes:
        start_s: Start in seconds; 0 for an image.
        end_s: End in seconds; equal to ``start_s`` for an image.
        track_id: Which face of the source.
        vector: (D,) float32, unit length.
        thumbnail: A JPEG picture of the face, or None.
    """

    start_s: float
    end_s: float
    track_id: int
    vector: FloatArray
    thumbnail: bytes | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A stored moment with the name of its source."""

    source: str
    moment: Moment


class Store:
    """Sources and their moments in one file; every change is one transaction, so a kill loses a source or nothing.

    Args:
        path: The file; made if it does not exist.
        space: Id of the embedding space of all vectors.

    Raises:
        SpaceError: If the file holds vectors of another space.
        DataError: If it is no such file.
    """

    def __init__(self, path: Path, *, space: str) -> None:
        self.path = path
        try:
            self._db = sqlite3.connect(path, timeout=_WAIT_S, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.executescript(_TABLES)
            self._db.execute("INSERT OR IGNORE INTO facts VALUES ('space', ?), ('layout', ?)", (space, str(_LAYOUT)))
            facts = dict(self._db.execute("SELECT name, value FROM facts"))
        except sqlite3.Error as error:
            raise DataError(
                f"The index {str(path)!r} cannot be opened: {error}.",
                why="It is damaged, no index, or the folder cannot be written.",
                fix="delete the folder and build it again.",
            ) from error
        if facts["layout"] != str(_LAYOUT):
            raise DataError(
                f"The index {str(path)!r} has layout {facts['layout']}.", why=f"This version of vlfer reads {_LAYOUT}.",
                fix="build it again in another folder.",
            )  # fmt: skip
        if facts["space"] != space:
            raise SpaceError(
                f"The index {str(path)!r} holds vectors of {facts['space']!r}, the model makes {space!r}.",
                why="Vectors of two models are not comparable.",
                fix="the backbone it was built with, or build it again in another folder.",
            )

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def version(self) -> int:
        """Return a number that changes when another connection has changed the file."""
        return int(self._db.execute("PRAGMA data_version").fetchone()[0])

    def replace(self, name: str, moments: Sequence[Moment], *, stamp: str, note: str) -> tuple[list[int], list[int]]:
        """Put the moments of a source in place of those it had; return the ids removed and the ids added."""
        with _Transaction(self._db):
            removed = self._delete(name)
            cursor = self._db.execute("INSERT INTO sources (name, stamp, note) VALUES (?, ?, ?)", (name, stamp, note))
            source = cursor.lastrowid
            added = []
            for m in moments:
                row = (source, m.start_s, m.end_s, m.track_id, m.vector.tobytes(), m.thumbnail)
                cursor = self._db.execute(
                    "INSERT INTO moments (source, start_s, end_s, track_id, vector, thumbnail) "
                    "VALUES (?, ?, ?, ?, ?, ?)",
                    row,
                )
                added.append(int(cursor.lastrowid or 0))
        return removed, added

    def remove(self, name: str) -> list[int] | None:
        """Remove a source; return the ids of its moments, or None if it is unknown."""
        with _Transaction(self._db):
            known = self._db.execute("SELECT 1 FROM sources WHERE name = ?", (name,)).fetchone()
            return self._delete(name) if known else None

    def _delete(self, name: str) -> list[int]:
        found = self._db.execute("SELECT id FROM sources WHERE name = ?", (name,)).fetchone()
        if found is None:
            return []
        ids = [row[0] for row in self._db.execute("SELECT id FROM moments WHERE source = ?", found)]
        self._db.execute("DELETE FROM moments WHERE source = ?", found)
        self._db.execute("DELETE FROM sources WHERE id = ?", found)
        return ids

    def sources(self) -> dict[str, str]:
        """Return the name of every source with its stamp."""
        return dict(self._db.execute("SELECT name, stamp FROM sources ORDER BY name"))

    def notes(self) -> dict[str, str]:
        """Return the sources that have a note, such as why they hold no moment."""
        return dict(self._db.execute("SELECT name, note FROM sources WHERE note != '' ORDER BY name"))

    def ids(self) -> IntArray:
        """Return the ids of all moments, increasing."""
        return np.array([row[0] for row in self._db.execute("SELECT id FROM moments ORDER BY id")], np.int64)

    def vectors(self, ids: IntArray) -> Iterator[tuple[IntArray, FloatArray]]:
        """Yield ids and their vectors (n, D) float32 in portions; ids that are gone by now are left out."""
        for first in range(0, len(ids), _ROWS_AT_ONCE):
            portion = ids[first : first + _ROWS_AT_ONCE]
            rows = self._db.execute(
                "SELECT id, vector FROM moments WHERE id BETWEEN ? AND ? ORDER BY id",
                (int(portion[0]), int(portion[-1])),
            ).fetchall()
            if not rows:
                continue
            found = np.array([row[0] for row in rows], np.int64)
            matrix = np.frombuffer(b"".join(row[1] for row in rows), np.float32).reshape(len(rows), -1)
            wanted = np.isin(found, portion, assume_unique=True)
            yield found[wanted], matrix[wanted]

    def rows(self, ids: Sequence[int]) -> dict[int, Row]:
        """Return stored moments by id, without those that are gone."""
        if not ids:
            return {}
        marks = ",".join("?" * len(ids))
        found = self._db.execute(
            "SELECT m.id, s.name, m.start_s, m.end_s, m.track_id, m.vector, m.thumbnail "
            f"FROM moments m JOIN sources s ON s.id = m.source WHERE m.id IN ({marks})",
            list(ids),
        )
        return {
            number: Row(name, Moment(start_s, end_s, track_id, np.frombuffer(vector, np.float32), thumbnail))
            for number, name, start_s, end_s, track_id, vector, thumbnail in found
        }


class _Transaction:
    """Everything inside happens, or nothing."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._db.execute("COMMIT" if kind is None else "ROLLBACK")
