"""What micro-expressions cost, and how well they are spotted, on made data: time of an answer, speed, F1, folds."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from vlfer.bench.measurement import Measurement
from vlfer.bench.mie_made import portrait
from vlfer.evaluation.mie_loso import run_loso
from vlfer.evaluation.mie_spotting import Kind, score_videos
from vlfer.faces.detect import FaceDetector
from vlfer.micro.flow import FlowMethod
from vlfer.micro.long_video import plan_events, render_video
from vlfer.micro.registration import reference_transform, warp_to_reference
from vlfer.micro.samples import SIDE, FlowSamples
from vlfer.micro.spotting import SIDE_PX, spot, trace_motion
from vlfer.micro.synthetic import units_field, warp
from vlfer.mie import MicroRecognizer, spot_video
from vlfer.training.mie_align import made_motion
from vlfer.training.mie_recipes import build_learner
from vlfer.types import FloatArray, UInt8Array
from vlfer.video.read import read_video

_BAR_MS: dict[FlowMethod, float] = {"farneback": 60.0, "tvl1": 600.0}
_RUNS: dict[FlowMethod, int] = {"farneback": 20, "tvl1": 5}
_FIRST_SEED = 100
_KINDS: tuple[Kind, Kind] = ("macro", "micro")


def bench_pair(build: Callable[[FlowMethod], MicroRecognizer]) -> list[Measurement]:
    """Measure the time from an onset and an apex image to an answer: two faces found, flow, words, picture.

    Args:
        build: Gives a recogniser for a flow method.
    """
    found = []
    for method, runs in _RUNS.items():
        recognizer = build(method)
        onset, apex = made_pair(detector=recognizer.detector, units=("AU12",), amplitude=0.01)
        recognizer.recognize_pair(onset, apex)  # models and the labels' embeddings are loaded
        times = []
        for _ in range(runs):
            begun = time.perf_counter()
            result = recognizer.recognize_pair(onset, apex)
            times.append(1000 * (time.perf_counter() - begun))
        name = f"onset and apex to answer, {method}"
        size = f"{onset.shape[1]}x{onset.shape[0]}, motion {result.strength:.2%}"
        found.append(Measurement(name, float(np.median(times)), "ms", bar=_BAR_MS[method], note=size))
        found.append(Measurement(f"{name} (95 %)", float(np.percentile(times, 95)), "ms"))
    return found


def bench_spotting_speed(folder: Path, *, detector: FaceDetector, seconds: float) -> list[Measurement]:
    """Measure how fast a 200 fps video of 640x480 is decoded and spotted in."""
    path = folder / "fast.mp4"
    count = write_fast_video(path, detector=detector, seconds=seconds)
    begun = time.perf_counter()
    decoded = sum(len(chunk) for chunk in read_video(str(path)))
    decode_s = time.perf_counter() - begun
    begun = time.perf_counter()
    spotted = spot_video(read_video(str(path)), detector=detector)
    took_s = time.perf_counter() - begun
    note = f"{count} frames, {len(spotted.intervals)} expressions"
    return [
        Measurement("spotting, 200 fps 640x480", count / took_s, "fps", bar=60.0, at_least=True, note=note),
        Measurement("of it decoding alone", decoded / decode_s, "fps"),
    ]


def bench_spotting(
    face: UInt8Array, *, videos: int, duration_s: float = 24.0, fps: float = 30.0, speech: bool = False
) -> list[Measurement]:
    """Measure F1 at IoU 0.5 on made long videos with blinks, drift of the head and noise, pooled over videos.

    Args:
        face: (S, S) uint8 grey at rest, in the reference frame.
        videos: How many; none has a seed that the settings were fixed on.
        duration_s: Length of each.
        fps: Frames a second.
        speech: Let the face talk for about a quarter of the time, also while it shows an expression.
    """
    spotted: list[dict[Kind, list[tuple[float, float]]]] = []
    truth: list[dict[Kind, list[tuple[float, float]]]] = []
    for seed in range(_FIRST_SEED, _FIRST_SEED + videos):
        events = plan_events(duration_s=duration_s, seed=seed, speech=speech)
        found = spot(trace_motion(render_video(face, events, duration_s=duration_s, fps=fps, seed=seed)))
        spotted.append({kind: [(i.onset_s, i.offset_s) for i in found if i.kind == kind] for kind in _KINDS})
        truth.append({kind: [(e.onset_s, e.offset_s) for e in events if e.kind == kind] for kind in _KINDS})
    scores = score_videos(spotted, truth)
    whole = scores["all"]
    counts = f"{whole.hits} hits, {whole.false_alarms} false alarms, {whole.misses} misses"
    name = "spotting F1 beside speech" if speech else "spotting F1"
    return [
        Measurement(f"{name}, {videos} made videos", whole.f1, "", bar=0.6, at_least=True, note=counts),
        *(Measurement(f"{name}, {kind}", scores[kind].f1, "") for kind in _KINDS),
    ]


def bench_loso(model: str, *, clips: int = 442, people: int = 68) -> list[Measurement]:
    """Measure the time of one full leave-one-subject-out run as large as MEGC 2019, on made flow."""
    rng = np.random.default_rng(0)
    flow = np.stack([made_motion(rng)[0] for _ in range(clips)])
    samples = FlowSamples(
        flow=flow, label=rng.integers(0, 3, clips), dataset=np.full(clips, "made"),
        subject=(np.arange(clips) % people).astype(str), clip=np.arange(clips).astype(str),
        classes=("negative", "positive", "surprise"),
    )  # fmt: skip
    workers = os.cpu_count() or 1
    begun = time.perf_counter()
    run_loso(samples, learner=build_learner(model), workers=workers)
    minutes = (time.perf_counter() - begun) / 60
    note = f"{clips} made clips of {SIDE}x{SIDE}, {workers} processes"
    return [Measurement(f"one LOSO of {people} subjects, {model}", minutes, "min", bar=30.0, note=note)]


def resting_grey(*, detector: FaceDetector) -> UInt8Array:
    """Return the bundled portrait in the reference frame of spotting, (S, S) uint8 grey."""
    pixels = portrait()
    crop = warp_to_reference(pixels, reference_transform(_mesh(pixels, detector), side=SIDE_PX), side=SIDE_PX)
    return np.asarray(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), dtype=np.uint8)


def made_pair(*, detector: FaceDetector, units: tuple[str, ...], amplitude: float) -> tuple[UInt8Array, UInt8Array]:
    """Return the bundled portrait at rest and with units pushed, a peak of ``amplitude`` of the reference's side."""
    pixels = portrait()
    return pixels, warp(pixels, _push(pixels, detector, units) * np.float32(amplitude))


def write_fast_video(path: Path, *, detector: FaceDetector, seconds: float, fps: int = 200) -> int:
    """Write a video of 640x480 with a smile of 0.3 s every 2 s and sensor noise; return the number of frames."""
    whole = portrait()
    pixels = np.zeros((480, 640, 3), np.uint8)
    pixels[:, 64:576] = whole[:480]
    push = _push(pixels, detector, ("AU12",))
    length = round(0.3 * fps)
    moving = [
        warp(pixels, push * np.float32(0.012 * (0.5 - 0.5 * np.cos(2 * np.pi * i / length)))) for i in range(length)
    ]
    rng = np.random.default_rng(0)
    grain = rng.integers(0, 4, (8, *pixels.shape)).astype(np.uint8)
    count = round(seconds * fps)
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream("libx264", rate=fps, options={"crf": "20", "preset": "ultrafast"})
        (stream.width, stream.height), stream.pix_fmt = (640, 480), "yuv420p"
        stream.codec_context.time_base = Fraction(1, fps)
        for i in range(count):
            place = i % (2 * fps) - fps
            still = moving[place] if 0 <= place < length else pixels
            noisy = np.asarray(cv2.add(still, grain[i % len(grain)]), dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(noisy, format="rgb24")
            frame.pts = i
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return count


def _push(pixels: UInt8Array, detector: FaceDetector, units: tuple[str, ...]) -> FloatArray:
    """Return the field of units on a picture, (H, W, 2) float32 pixels, its peak the reference's side."""
    side = 224
    transform = reference_transform(_mesh(pixels, detector), side=side)
    size = float(np.hypot(transform[0, 0], transform[1, 0]))
    local = units_field(units, side=side, amplitude_px=1.0) * side / size
    height, width = pixels.shape[:2]
    return np.asarray(cv2.warpAffine(local, transform, (width, height), flags=cv2.WARP_INVERSE_MAP), dtype=np.float32)


def _mesh(pixels: UInt8Array, detector: FaceDetector) -> FloatArray:
    landmarks = detector.detect(pixels, effort="thorough")[0].landmarks
    if landmarks is None:
        raise RuntimeError("The detector gives no landmarks.")
    return landmarks
