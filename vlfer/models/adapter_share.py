"""Adapters as one file, to and from colleagues and the hub. Imports no torch; nothing that is read is a pickle."""

from __future__ import annotations

import io
import re
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from vlfer.config import write_atomically
from vlfer.errors import AdapterError, EnvironmentProblem
from vlfer.models.adapter import (
    CARD_NAME,
    KNOWN_FILES,
    Adapter,
    adapters_home,
    find_adapter,
    list_adapters,
    load_adapter,
)

_LARGEST_BYTES = 2 * 10**9
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_STAMP = (1980, 1, 1, 0, 0, 0)


def pack_adapter(name: str | Path, target: Path) -> Path:
    """Write a verified adapter as a zip file; the same folder gives the same bytes.

    Args:
        name: Folder or known name.
        target: The file, or a folder to put ``NAME.zip`` into.

    Raises:
        AdapterError: If the adapter is damaged, or ``target`` has another suffix than .zip.
        OSError: If the file cannot be written.
    """
    adapter = load_adapter(name)
    path = target / f"{adapter.folder.name}.zip" if target.is_dir() else target
    if path.suffix.lower() != ".zip":
        raise AdapterError(f"{str(path)!r} does not end in .zip.", fix=f"--out {path.with_suffix('.zip')}")
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in KNOWN_FILES:
            if (adapter.folder / file).is_file():
                entry = zipfile.ZipInfo(f"{adapter.folder.name}/{file}", date_time=_STAMP)
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, (adapter.folder / file).read_bytes())
    write_atomically(path, content.getvalue())
    return path


def pull_adapter(source: str, *, replace: bool = False) -> Adapter:
    """Take an adapter into the user's own: a packed file, a folder, or a repository of the hub.

    Args:
        source: Path, or ORG/NAME of the hub.
        replace: Overwrite one of the same name.

    Raises:
        AdapterError: If it is damaged, holds other files than an adapter has, or is there already.
        EnvironmentProblem: If the hub cannot be reached.
    """
    path = Path(source).expanduser()
    with tempfile.TemporaryDirectory(prefix="vlfer-adapter-") as name:
        if path.is_file():
            folder = _unpack(path, Path(name))
        elif path.is_dir():
            folder = path
        elif _HUB_NAME.fullmatch(source):
            folder = _download(source, Path(name))
        else:
            raise AdapterError(f"{source!r} is no file, no folder and no name of the hub.", fix="ORG/NAME, or a path")
        load_adapter(folder)
        target = adapters_home() / folder.name
        if target.exists() and not replace:
            raise AdapterError(f"There is an adapter {folder.name!r} already.", fix="--replace, or remove it first")
        return _install(folder, target)


def _install(folder: Path, target: Path) -> Adapter:
    """Copy the files of an adapter beside their place, then move them there at once."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".new-") as name:
        fresh = Path(name) / target.name
        fresh.mkdir()
        for file in KNOWN_FILES:
            if (folder / file).is_file():
                shutil.copyfile(folder / file, fresh / file)
        load_adapter(fresh)
        if target.exists():
            target.rename(Path(name) / "old")
        fresh.rename(target)
    return load_adapter(target)


def _unpack(path: Path, room: Path) -> Path:
    """Unpack a file that `pack_adapter` wrote; anything else in it is refused."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            if sum(entry.file_size for entry in entries) > _LARGEST_BYTES:
                raise AdapterError(f"{str(path)!r} would unpack to more than {_LARGEST_BYTES // 10**9} GB.")
            parts = [entry.filename.split("/") for entry in entries]
            strange = [
                e.filename for e, p in zip(entries, parts, strict=True) if len(p) != 2 or p[1] not in KNOWN_FILES
            ]
            names = {p[0] for p in parts}
            if strange or len(names) != 1 or not re.fullmatch(r"[A-Za-z0-9][\w.-]*", next(iter(names), "")):
                raise AdapterError(
                    f"{str(path)!r} is no packed adapter: it holds {(strange or sorted(names) or ['nothing'])[0]!r}.",
                    why="One folder with the files of an adapter is expected; nothing was unpacked.",
                )
            folder = room / names.pop()
            folder.mkdir()
            for entry, part in zip(entries, parts, strict=True):
                (folder / part[1]).write_bytes(archive.read(entry))
    except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
        if isinstance(error, AdapterError):
            raise
        raise AdapterError(f"{str(path)!r} cannot be unpacked: {error}.", fix="pack or copy it again") from error
    return folder


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise EnvironmentProblem("huggingface-hub is not installed.", fix="uv pip install huggingface-hub") from error
    return huggingface_hub


def _download(name: str, room: Path) -> Path:
    folder = room / name.split("/")[1]
    try:
        _hub().snapshot_download(name, local_dir=str(folder), allow_patterns=list(KNOWN_FILES))
    except EnvironmentProblem:
        raise
    except Exception as error:  # the hub raises a dozen kinds, some of them of the library below it
        raise EnvironmentProblem(
            f"The adapter {name!r} cannot be fetched from the hub.", why=_first_line(error),
            fix="check the name and the network, or hf auth login for a private one; a packed file needs neither",
        ) from error  # fmt: skip
    if not (folder / CARD_NAME).is_file():
        raise AdapterError(f"The repository {name!r} holds no adapter of vlfer.", why=f"It has no {CARD_NAME}.")
    return folder


def push_adapter(name: str | Path, repository: str, *, private: bool = True) -> str:
    """Upload a verified adapter to the hub and return its address.

    Raises:
        AdapterError: If it is damaged, or the repository's name is malformed.
        EnvironmentProblem: If the hub cannot be reached, or does not let us.
    """
    adapter = load_adapter(name)
    if not _HUB_NAME.fullmatch(repository):
        raise AdapterError(f"{repository!r} is no name of the hub.", why="It has the form ORG/NAME.")
    hub = _hub()
    try:
        hub.create_repo(repository, private=private, exist_ok=True)
        found = hub.upload_folder(
            repo_id=repository, folder_path=str(adapter.folder), allow_patterns=list(KNOWN_FILES),
            commit_message=f"vlfer adapter {adapter.name}",
        )  # fmt: skip
    except Exception as error:  # as above
        raise EnvironmentProblem(
            f"The adapter {adapter.name!r} cannot be pushed to {repository!r}.", why=_first_line(error),
            fix="hf auth login with a token that may write, and check the network; or vlfer adapters pack",
        ) from error  # fmt: skip
    return str(found)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"


def remove_adapter(name: str) -> Path:
    """Delete one of the user's own adapters; those that come with vlfer and folders elsewhere are left alone.

    Raises:
        AdapterError: If it is none of them.
    """
    folder = adapters_home() / name
    if "/" in name or not (folder / CARD_NAME).is_file():
        find_adapter(name)
        where = "comes with vlfer" if name in list_adapters() else "lies in a folder of your own"
        raise AdapterError(f"The adapter {name!r} {where}.", why=f"Only those in {adapters_home()} are removed.")
    shutil.rmtree(folder)
    return folder
