"""What video costs: frames a second, the share of decoding alone, memory over length, stable ids, live latency."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np

from vlfer.bench.clips import MadeClip, count_switches, make_clip
from vlfer.bench.measurement import Measurement, PeakMemory
from vlfer.live import LiveWatcher
from vlfer.pipeline import EmotionPipeline
from vlfer.reporting import Analysis
from vlfer.types import FloatArray
from vlfer.video.live import open_live
from vlfer.video.read import read_video

STEPS = ("decode", "detect", "align", "encode", "score")
_WARM_UP = 20
_OPENING_FRAMES = 16
_READ_CHUNK = 4  # as the pipeline reads

Tell = Callable[[str], None]


def bench_speed(
    pipeline: EmotionPipeline, clip: Path, *, name: str, bar_fps: float, with_share: bool
) -> list[Measurement]:
    """Measure frames a second with every frame analysed, and where the time goes.

    Args:
        pipeline: Set to look at every frame.
        clip: A video.
        name: Of the clip, for the table.
        bar_fps: What the speed is held against.
        with_share: Whether to compare with decoding alone.
    """
    opening = next(iter(read_video(clip, chunk=_OPENING_FRAMES)))
    for _ in pipeline.analyse([opening], on_error="raise"):  # the models warm up
        pass
    decode_s, count = _decode_alone(clip)
    begun = time.perf_counter()
    (analysis,) = pipeline.analyse([clip], on_error="raise")
    took_s = time.perf_counter() - begun
    fps = analysis.n_frames / took_s
    found = [Measurement(f"{name}: every frame analysed", fps, "fps", bar=bar_fps, at_least=True)]
    found.append(Measurement(f"{name}: decoding alone", count / decode_s, "fps"))
    if with_share:
        share = 100 * fps * decode_s / count
        found.append(Measurement(f"{name}: share of the decode-only rate", share, "%", bar=40.0, at_least=True))
    for step in STEPS:
        each_ms = 1000 * analysis.seconds.get(step, 0.0) / max(analysis.n_frames, 1)
        found.append(Measurement(f"{name}: {step}", each_ms, "ms/frame", note="steps overlap in time"))
    return found


def _decode_alone(clip: Path) -> tuple[float, int]:
    begun = time.perf_counter()
    count = sum(len(frames) for frames in read_video(clip, chunk=_READ_CHUNK))
    return time.perf_counter() - begun, count


def bench_switches(pipeline: EmotionPipeline, clip: MadeClip) -> list[Measurement]:
    """Count identity switches on a made clip of known people."""
    (analysis,) = pipeline.analyse([clip.path], on_error="raise")
    times_s, boxes, ids = by_frame(analysis)
    switches, matched, there = count_switches(clip, times_s, boxes, ids)
    name = f"{clip.boxes.shape[1]} faces, crossings, {len(clip.cuts)} cuts"
    return [
        Measurement(f"{name}: identity switches", float(switches), "", bar=2.0),
        Measurement(f"{name}: ids given to {clip.boxes.shape[1]} people", float(len(analysis.timelines)), ""),
        Measurement(f"{name}: visible faces found", 100 * matched / max(there, 1), "%"),
    ]


def by_frame(analysis: Analysis) -> tuple[list[float], list[FloatArray], list[list[int]]]:
    """Return the times of the frames with faces, and the boxes and ids in each."""
    rows: dict[float, list[tuple[FloatArray, int]]] = {}
    for timeline in analysis.timelines:
        if timeline.frames is None:
            continue
        for time_s, box in zip(timeline.frames.times_s, timeline.frames.boxes, strict=True):
            rows.setdefault(float(time_s), []).append((box, timeline.track_id))
    times_s = sorted(rows)
    boxes = [np.stack([box for box, _ in rows[time_s]]) for time_s in times_s]
    return times_s, boxes, [[track_id for _, track_id in rows[time_s]] for time_s in times_s]


def bench_memory(pipeline: EmotionPipeline, clip: Path, *, long_s: float, short_s: float = 60.0) -> list[Measurement]:
    """Compare the peak memory of the process over a long video with that over a short one.

    Both are the clip over and over in one file. The peaks are of all memory that belongs to the process, models
    included, as the system counts it.

    Args:
        pipeline: Set to look at as many frames as wanted.
        clip: A video of a few seconds; the files are written beside it.
        long_s: Length of the long video.
        short_s: Length of the short one.
    """
    peaks = []
    for length_s in (short_s, long_s):
        path = lengthen(clip, clip.with_name(f"{clip.stem}-{length_s:g}{clip.suffix}"), seconds=length_s)
        gc.collect()
        memory = PeakMemory()
        with memory:
            for _ in pipeline.analyse([path], on_error="raise"):
                pass
        if memory.grown_mb is None:
            return [Measurement("peak memory, long against short video", None, "%", bar=5.0)]
        peaks.append(memory.peak_mb)
    grown = 100 * (peaks[1] / peaks[0] - 1)
    name = f"peak memory, {long_s / 60:g} min against {short_s / 60:g} min"
    return [
        Measurement(name, grown, "%", bar=5.0, note="of the whole process"),
        Measurement(f"peak memory of {long_s / 60:g} min", peaks[1], "MB"),
    ]


def lengthen(clip: Path, path: Path, *, seconds: float) -> Path:
    """Write a video that is a clip over and over, without encoding it again; return its path."""
    with av.open(str(clip)) as source, av.open(str(path), "w") as output:
        stream: Any = source.streams.video[0]
        target = output.add_stream_from_template(stream)
        parts = [(p.pts, p.dts, p.duration, p.is_keyframe, bytes(p)) for p in source.demux(stream) if p.size]
        shift = 0
        while shift * stream.time_base < seconds:
            for pts, dts, duration, is_keyframe, data in parts:
                packet: Any = av.Packet(data)
                packet.pts, packet.dts, packet.duration = pts + shift, dts + shift, duration
                packet.time_base, packet.is_keyframe, packet.stream = stream.time_base, is_keyframe, target
                output.mux(packet)
            shift += stream.duration
    return path


def bench_latency(pipeline: EmotionPipeline, clip: Path, *, seconds: float = 10.0) -> list[Measurement]:
    """Play a clip as a live source and measure the time from a frame in hand to its scores."""
    live = open_live(str(clip))
    watcher = LiveWatcher(pipeline.clip_tools())
    latencies: list[float] = []
    for frame in live.frames():
        watcher.look(frame.pixels, frame.time_s)
        latencies.append(time.perf_counter() - frame.arrived_s)
        if frame.time_s > seconds:
            break
    steady = latencies[_WARM_UP:] or latencies
    median, late = np.percentile(steady, [50, 95])
    return [
        Measurement("live, one face: latency (median)", 1000 * float(median), "ms", bar=60.0),
        Measurement("live, one face: latency (95 %)", 1000 * float(late), "ms"),
        Measurement("live, one face: frames dropped", 100 * live.n_dropped / max(live.n_read, 1), "%"),
    ]


def build_clips(
    folder: Path, *, seconds: float, parts: tuple[str, ...], memory_fps: float, tell: Tell
) -> dict[str, MadeClip]:
    """Make the clips that the parts need: 720p, H.264, 30 fps, with one face and with five.

    That for memory has only the frames that are looked at, so that an hour of it is soon decoded.
    """
    clips: dict[str, MadeClip] = {}
    tell("Making the clips")
    if "memory" in parts:
        clips["slow"] = make_clip(folder / "slow.mp4", people=1, seconds=seconds, fps=max(1, round(memory_fps)))
    if {"speed", "latency"} & set(parts):
        clips["one"] = make_clip(folder / "one.mp4", people=1, seconds=seconds)
    if {"speed", "ids"} & set(parts):
        clips["five"] = make_clip(folder / "five.mp4", people=5, seconds=max(seconds, 12.0), cuts=True)
    return clips
