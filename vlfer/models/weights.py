"""Hashes of weights files: what makes two embedding spaces the same or different."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable
from pathlib import Path

from vlfer.config import cache_dir, write_atomically


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal.

    The result is remembered under path, size and time of change, because hashing a gigabyte takes seconds. Where the
    cache cannot be written the file is simply hashed again next time.
    """
    stat = path.stat()
    identity = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ino}"
    note = cache_dir() / "hashes" / hashlib.sha256(identity.encode()).hexdigest()[:32]
    with contextlib.suppress(OSError, UnicodeDecodeError):
        known = note.read_text("ascii")
        if len(known) == 64:
            return known
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    with contextlib.suppress(OSError):
        write_atomically(note, digest.encode("ascii"))
    return digest


def sha256_of_files(paths: Iterable[Path]) -> str:
    """Return one hash of several files, independent of their order and place."""
    hashes = sorted(sha256_of_file(path) for path in paths)
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
