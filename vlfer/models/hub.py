"""Weights from the Hugging Face hub: the cache first, and a quick clear answer where there is no network."""

from __future__ import annotations

import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import constants as hub_constants
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from vlfer.errors import BackboneError

_REACH_S = 4.0
_SMALL_FILES = ("*.json", "*.txt", "*.model")


def is_reachable(url: str, *, timeout_s: float = _REACH_S) -> bool:
    """Return whether the server of ``url`` answers at all, proxies of the environment included.

    The hub library retries for about 25 s without a network, and a broken resolver can hang beyond any time limit of a
    socket: so one request is made in a thread that is given up on.
    """
    answered = threading.Event()

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=timeout_s).close()
        except urllib.error.HTTPError:
            pass
        except (OSError, ValueError):
            return
        answered.set()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout_s + 1.0)
    return answered.is_set()


def _missing(backbone: str, cache: Path, *, cause: str, local: str) -> BackboneError:
    return BackboneError(
        f"The weights of backbone {backbone!r} are not in the cache {str(cache)!r} and cannot be downloaded.",
        why=cause,
        fix="run the same command once on a machine with network and copy its HF_HOME folder here "
        f"(HF_HOME=/copied/folder), or name a local copy: --backbone {local}, "
        "or use what needs no download: --backbone bundled",
    )


def _cache_folder(cache_dir: Path | None) -> Path:
    return Path(cache_dir) if cache_dir is not None else Path(hub_constants.HF_HUB_CACHE)


def _download(backbone: str, *, cache: Path, url: str, local: str, work: Callable[[], str]) -> Path:
    """Run a download if the server answers; every failure becomes a BackboneError that says the ways out."""
    offline = hub_constants.HF_HUB_OFFLINE or os.environ.get("TRANSFORMERS_OFFLINE", "").upper() in {"1", "TRUE", "YES"}
    if offline:
        raise _missing(backbone, cache, cause="Offline mode is on (HF_HUB_OFFLINE).", local=local)
    if not is_reachable(url):
        raise _missing(backbone, cache, cause=f"{url} does not answer.", local=local)
    try:
        return Path(work())
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "an error"
        raise _missing(
            backbone, cache, cause=f"{url} answered {status}: is the name right and public?", local=local
        ) from error
    except Exception as error:  # whatever a download library raises, the ways out are the same
        raise _missing(backbone, cache, cause=f"{type(error).__name__}: {_first_line(error)}", local=local) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0][:300]


def missing_files(folder: Path, needs: Sequence[str]) -> list[str]:
    """Return those of ``needs`` that no file of the folder matches; see ``fetch_repository`` for their form."""
    return [need for need in needs if not any(any(folder.glob(pattern)) for pattern in need.split("|"))]


def fetch_repository(
    repository: str, *, backbone: str, needs: Sequence[str], with_weights: bool = False, cache_dir: Path | None = None
) -> Path:
    """Return the local folder of a hub repository, downloading it where the cache lacks it.

    Args:
        repository: "ORG/NAME".
        backbone: Name to tell in errors.
        needs: File patterns of which each must be matched for the cached copy to count as complete. Alternatives are
            separated by ``|``.
        with_weights: Whether to download weights too: safetensors where the repository has them, else pickles.
        cache_dir: Another cache than the hub's own.

    Raises:
        BackboneError: If it is not cached and the hub cannot be reached, or refuses.
    """
    cache = _cache_folder(cache_dir)
    try:
        folder = Path(huggingface_hub.snapshot_download(repository, cache_dir=cache, local_files_only=True))
    except LocalEntryNotFoundError:
        pass
    else:
        if not missing_files(folder, needs):
            return folder

    def download() -> str:
        patterns = list(_SMALL_FILES)
        if with_weights:
            names = huggingface_hub.list_repo_files(repository)
            safe = any(name.endswith(".safetensors") and "/" not in name for name in names)
            patterns.append("*.safetensors" if safe else "pytorch_model*.bin")
        return str(huggingface_hub.snapshot_download(repository, cache_dir=cache, allow_patterns=patterns))

    return _download(backbone, cache=cache, url=hub_constants.ENDPOINT, local="hf:/path/to/folder", work=download)


def fetch_open_clip(config: Mapping[str, Any], *, backbone: str, cache_dir: Path | None = None) -> Path:
    """Return the weights file of an open_clip tag, downloading it where the cache lacks it.

    Args:
        config: What ``open_clip.get_pretrained_cfg`` returns.
        backbone: ARCH/TAG, to tell in errors.
        cache_dir: Another cache than the library's own.

    Raises:
        BackboneError: If it is not cached and cannot be downloaded.
    """
    from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME
    from open_clip.pretrained import download_pretrained

    cache = _cache_folder(cache_dir)
    repository, _, filename = str(config.get("hf_hub", "")).rpartition("/")
    if repository:
        wanted = filename or HF_WEIGHTS_NAME
        safe = HF_SAFE_WEIGHTS_NAME if wanted == HF_WEIGHTS_NAME else str(Path(wanted).with_suffix(".safetensors"))
        for candidate in dict.fromkeys((safe, wanted)):
            found = huggingface_hub.try_to_load_from_cache(repository, candidate, cache_dir=cache)
            if isinstance(found, str):
                return Path(found)
    url = hub_constants.ENDPOINT if repository else str(config.get("url", ""))
    folder = None if cache_dir is None else str(cache_dir)
    return _download(
        backbone, cache=cache, url=url, local=f"open_clip:{backbone}@/path/to/weights.safetensors",
        work=lambda: str(download_pretrained(dict(config), cache_dir=folder)),
    )  # fmt: skip
