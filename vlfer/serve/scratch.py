"""A private folder for uploads that a decoder must find on disk."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import BinaryIO

_PREFIX = "vlfer-serve-"
_PORTION = 2**20


class Scratch:
    """A folder that only this user can enter. Names in it are made here; none comes from a request.

    What a process that was killed has left behind is removed by the next one.
    """

    def __init__(self) -> None:
        _remove_orphans(Path(tempfile.gettempdir()))
        self.folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))

    def keep(self, upload: BinaryIO) -> Path:
        """Copy an upload into the folder; return the file, which the caller deletes."""
        path = self.folder / secrets.token_hex(16)
        try:
            with path.open("xb") as file:
                shutil.copyfileobj(upload, file, _PORTION)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return path

    def close(self) -> None:
        """Delete everything."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _remove_orphans(folder: Path) -> None:
    with contextlib.suppress(OSError):
        for path in folder.glob(f"{_PREFIX}*"):
            found = re.match(rf"{_PREFIX}(\d+)-", path.name)
            if found and path.stat().st_uid == os.getuid() and not _is_alive(int(found.group(1))):
                shutil.rmtree(path, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
