"""What a backbone costs: milliseconds a face, bytes, parameters, seconds to load.

Every number of threads is measured in a process of its own: what PyTorch and OpenMP set up once they keep.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vlfer.bench.peers.environment import Peer, run_peer
from vlfer.errors import EnvironmentProblem

BATCHES = (1, 32)
SIDE_PX = 160
_RUN_S = 1800
_WORKER = "from vlfer.bench.speed import worker; worker()"


def speed_report(
    backbones: Sequence[str],
    *,
    threads: Sequence[int] = (2, 1),
    peers: Sequence[Peer] = (),
    seconds: float = 3.0,
    say: Callable[[str], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """Measure backbones and peers on the CPU; one row each, JSON-ready.

    A face is a crop of 160 px in memory, so resizing it to the network's input counts and decoding does not.

    Args:
        backbones: Names.
        threads: Numbers of CPU threads.
        peers: Networks from the package index.
        seconds: How long each batch size is repeated.
        say: Told what is going on.

    Raises:
        EnvironmentProblem: If a backbone or peer cannot be run.
    """
    rows = []
    for name in backbones:
        row: dict[str, Any] = {"backbone": name, "kind": "backbone", "ms_per_face": {}}
        for count in threads:
            say(f"{name}, {count} threads")
            told = _in_process(name, threads=count, seconds=seconds)
            row["ms_per_face"][str(count)] = told.pop("ms_per_face")
            row |= {key: value for key, value in told.items() if key not in row}
        rows.append(row)
    crops = list(_crops(64))
    for peer in peers:
        row = {"backbone": peer.name, "kind": "peer", "ms_per_face": {}}
        for count in threads:
            say(f"{peer.name}, {count} threads")
            _, _, facts = run_peer(peer, crops, threads=count, say=say)
            row["ms_per_face"][str(count)] = facts.pop("ms_per_face")
            row |= {key: value for key, value in facts.items() if key not in row}
        rows.append(row)
    return rows


def worker() -> None:
    """Measure one backbone in this process and write JSON to stdout; arguments: name, threads, seconds."""
    name, threads, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    import time

    import torch

    torch.set_num_threads(threads)
    from vlfer.models.encoder import load_encoder

    began = time.perf_counter()
    encoder = load_encoder(name, device="cpu")
    encoder.encode_images(_crops(1))
    load_s = time.perf_counter() - began
    told = {
        "load_s": load_s,
        "image_size_px": encoder.spec.image_size,
        **_size(name, encoder.model),
        "ms_per_face": {str(size): ms_per_face(encoder.encode_images, size=size, seconds=seconds) for size in BATCHES},
        "ms_per_text": ms_per_face(
            lambda crops: encoder.encode_texts(["a face that shows relief, after a scare"] * len(crops)),
            size=1, seconds=min(1.0, seconds),
        ),
    }  # fmt: skip
    sys.stdout.write(json.dumps(told))


def ms_per_face(encode: Callable[[Any], Any], *, size: int, seconds: float) -> float:
    """Return the median milliseconds a face in batches of ``size``, after three batches that are not counted."""
    import time

    crops = _crops(size)
    for _ in range(3):
        encode(crops)
    times: list[float] = []
    until = time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < until:
        began = time.perf_counter()
        encode(crops)
        times.append(time.perf_counter() - began)
    return 1000 * float(np.median(times)) / size


def _size(name: str, model: Any) -> dict[str, Any]:
    """Return parameters of the image side and of all, and the bytes that the backbone's own files take."""
    from vlfer.models.bundled import BUNDLED_DIR, text_folder
    from vlfer.models.registry import find_backbone

    spec = find_backbone(name)
    vision = next((getattr(model, part) for part in ("visual", "vision_model") if hasattr(model, part)), None)
    found: dict[str, Any] = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "image_parameters": None if vision is None else sum(p.numel() for p in vision.parameters()),
        "weights_bytes": None,
        "shared_bytes": 0,
    }
    folder = Path(spec.source).expanduser() if spec.source else BUNDLED_DIR
    if spec.origin == "bundled" or folder.is_dir():
        files = [*folder.glob("*.safetensors"), *folder.glob("*.bin"), *folder.glob("*.pt")]
        found["weights_bytes"] = sum(path.stat().st_size for path in files)
    if spec.origin == "bundled":
        found["shared_bytes"] = sum(p.stat().st_size for p in text_folder().glob("*.safetensors"))
    if spec.origin == "file" and spec.file is not None:
        found["weights_bytes"] = Path(spec.file).stat().st_size
    return found


def _crops(n: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, (n, SIDE_PX, SIDE_PX, 3), dtype=np.uint8)


def _in_process(name: str, *, threads: int, seconds: float) -> dict[str, Any]:
    environment = {**os.environ, **{f"{lib}_NUM_THREADS": str(threads) for lib in ("OMP", "MKL", "OPENBLAS")}}
    command = [sys.executable, "-c", _WORKER, name, str(threads), str(seconds)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_RUN_S, check=False, env=environment
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise EnvironmentProblem(f"{name} took longer than {_RUN_S} s to be measured.") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise EnvironmentProblem(f"{name} cannot be measured: {last[:400]}", fix="vlfer backbones list")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
