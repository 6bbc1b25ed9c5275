"""The video again, with what was found drawn in: H.264 in MP4, with its sound."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from vlfer.errors import EnvironmentProblem, VlferError
from vlfer.export.overlay import Tag, draw_tags
from vlfer.scoring import decide
from vlfer.segments import Timeline
from vlfer.types import FloatArray, UInt8Array
from vlfer.video.read import read_video

_log = logging.getLogger(__name__)

FOOTER = "perceived expression, not felt emotion  ·  vlfer"
_CLOCK = Fraction(1, 90000)
_LONGEST_GAP = 2.5


class TagTrack:
    """One person's tags at any time: boxes between sightings are interpolated, labels are those of the cells.

    Args:
        timeline: With the scores of its frames.
        threshold: As in `vlfer.scoring.decide`.
        tie_margin: As in `vlfer.scoring.decide`.
    """

    def __init__(self, timeline: Timeline, *, threshold: float | None, tie_margin: float) -> None:
        self._timeline = timeline
        self._labels = [label for label, _ in decide(timeline.scores, threshold=threshold, tie_margin=tie_margin)]
        times_s = timeline.frames.times_s if timeline.frames is not None else np.zeros(0)
        steps = np.diff(times_s)
        self._gap_s = _LONGEST_GAP * float(np.median(steps)) if len(steps) else 0.25

    def at(self, time_s: float) -> Tag | None:
        """Return the tag at a time, None while the face is not seen."""
        frames, timeline = self._timeline.frames, self._timeline
        if frames is None or not len(frames):
            return None
        after = int(np.searchsorted(frames.times_s, time_s))
        before = max(0, after - 1)
        after = min(after, len(frames) - 1)
        low_s, high_s = float(frames.times_s[before]), float(frames.times_s[after])
        if before != after and high_s - low_s <= self._gap_s:
            share = float(np.clip((time_s - low_s) / max(high_s - low_s, 1e-9), 0.0, 1.0))
            box: FloatArray = ((1 - share) * frames.boxes[before] + share * frames.boxes[after]).astype(np.float32)
        else:
            near = before if abs(time_s - low_s) <= abs(time_s - high_s) else after
            if abs(float(frames.times_s[near]) - time_s) > self._gap_s / 2:
                return None
            box = frames.boxes[near]
        cell = int(np.clip(np.searchsorted(timeline.start_s, time_s, side="right") - 1, 0, len(timeline.start_s) - 1))
        row = timeline.scores.probability[cell]
        order = np.argsort(-row, kind="stable")[:3]
        names = timeline.scores.labels.names
        bars = tuple((names[i], float(row[i])) for i in order)
        return Tag(timeline.track_id + 1, box, self._labels[cell], bars)


def write_annotated(
    source: str | Path,
    timelines: Sequence[Timeline],
    path: Path,
    *,
    start_s: float = 0.0,
    end_s: float | None = None,
    threshold: float | None = None,
    tie_margin: float = 0.05,
    on_frames: Callable[[int], None] | None = None,
) -> int:
    """Write the video with boxes and labels, H.264 and the sound of the source, which is copied where MP4 takes it.

    The file is written whole or not at all.

    Args:
        source: The video.
        timelines: What was found in it.
        path: An MP4 file.
        start_s: Frames from this time on.
        end_s: Frames before this time, None for the end.
        threshold: As in `vlfer.scoring.decide`.
        tie_margin: As in `vlfer.scoring.decide`.
        on_frames: Told the number of frames written.

    Returns:
        The number of frames written.

    Raises:
        EnvironmentProblem: If this PyAV has no H.264 encoder.
        VideoReadError: If the video cannot be read.
        OSError: If the file cannot be written.
    """
    if "libx264" not in av.codecs_available:
        raise EnvironmentProblem("This PyAV has no H.264 encoder.", why="libx264 is missing.", fix="uv pip install av")
    tracks = [TagTrack(timeline, threshold=threshold, tie_margin=tie_margin) for timeline in timelines]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".tmp-{secrets.token_hex(8)}.mp4"
    try:
        with av.open(str(temporary), "w", options={"movflags": "faststart"}) as output:
            count = _write(output, str(source), tracks, start_s=start_s, end_s=end_s, on_frames=on_frames)
        os.replace(temporary, path)
    except av.error.FFmpegError as error:
        raise OSError(error.errno, f"the video cannot be written: {error.strerror}", str(path)) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return count


def _write(
    output: Any,
    source: str,
    tracks: Sequence[TagTrack],
    *,
    start_s: float,
    end_s: float | None,
    on_frames: Callable[[int], None] | None,
) -> int:
    stream: Any = None
    sound: _Sound | None = None
    count = 0
    try:
        for chunk in read_video(source, chunk=16, start_s=start_s, end_s=end_s):
            for pixels, time_s in zip(chunk.pixels, chunk.times_s, strict=True):
                if stream is None:
                    stream = _video_stream(output, pixels)
                    sound = _Sound.opened(output, source, start_s=start_s, end_s=end_s)
                tags = [tag for tag in (track.at(float(time_s)) for track in tracks) if tag is not None]
                drawn = _fitted(draw_tags(pixels, tags, footer=FOOTER), stream.width, stream.height)
                frame = av.VideoFrame.from_ndarray(drawn, format="rgb24")
                frame.pts, frame.time_base = round((float(time_s) - start_s) / float(_CLOCK)), _CLOCK
                output.mux(stream.encode(frame))
                if sound is not None:
                    sound.write_until(float(time_s))
                count += 1
            if on_frames is not None:
                on_frames(count)
    except VlferError as error:
        if not count:
            raise
        _log.warning("%s: annotated up to where it could be read: %s", source, error)
    output.mux(stream.encode())
    if sound is not None:
        sound.write_until(float("inf"))
        sound.close()
    return count


def _video_stream(output: Any, pixels: UInt8Array) -> Any:
    stream = output.add_stream("libx264", rate=30, options={"crf": "20", "preset": "veryfast"})
    stream.width, stream.height = max(2, pixels.shape[1] // 2 * 2), max(2, pixels.shape[0] // 2 * 2)
    stream.pix_fmt = "yuv420p"
    stream.time_base = stream.codec_context.time_base = _CLOCK
    return stream


def _fitted(pixels: UInt8Array, width: int, height: int) -> UInt8Array:
    """Cut to even sides, or scale a frame of another size than the first."""
    if abs(pixels.shape[1] - width) <= 1 and abs(pixels.shape[0] - height) <= 1:
        return np.ascontiguousarray(pixels[:height, :width])
    import cv2

    return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)


class _Sound:
    """Copies the packets of the first sound track, shifted to where the picture begins."""

    def __init__(self, container: Any, source: Any, target: Any, output: Any, *, start_s: float, end_s: float) -> None:
        self._container = container
        self._target = target
        self._output = output
        self._source = source
        self._origin_s = (container.start_time or 0) / av.time_base
        self._start_s, self._end_s = start_s, end_s
        self._packets = self._wanted()
        self._held: tuple[float, Any] | None = None

    @classmethod
    def opened(cls, output: Any, path: str, *, start_s: float, end_s: float | None) -> _Sound | None:
        """Return what copies the sound, or None where there is none that MP4 can hold."""
        container = av.open(path)
        if not container.streams.audio:
            container.close()
            return None
        source = container.streams.audio[0]
        try:
            target = output.add_stream_from_template(source)
        except (ValueError, av.error.FFmpegError) as error:
            _log.warning("%s: its sound (%s) cannot be kept: %s", path, source.codec_context.name, error)
            container.close()
            return None
        return cls(container, source, target, output, start_s=start_s, end_s=float("inf") if end_s is None else end_s)

    def _wanted(self) -> Iterator[tuple[float, Any]]:
        try:
            for packet in self._container.demux(self._source):
                if packet.pts is None:
                    continue
                time_s = float(packet.pts * packet.time_base) - self._origin_s
                if time_s >= self._end_s:
                    return
                if time_s >= self._start_s:
                    yield time_s, packet
        except (av.error.FFmpegError, OSError) as error:
            _log.warning("the sound ends early: %s", error)

    def write_until(self, time_s: float) -> None:
        """Write the packets up to a time of the source."""
        while True:
            if self._held is None:
                self._held = next(self._packets, None)
            if self._held is None or self._held[0] > time_s:
                return
            packet = self._held[1]
            shift = round((self._start_s + self._origin_s) / float(packet.time_base))
            packet.pts -= shift
            packet.dts = packet.pts if packet.dts is None else packet.dts - shift
            packet.stream = self._target
            self._output.mux(packet)
            self._held = None

    def close(self) -> None:
        """Close the source."""
        self._container.close()
