"""From an opened clip to its analysis: the wiring of following, encoding, linking, pooling and segmenting."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlfer.cells import CellBuilder, Pool, pool_mean
from vlfer.collect import (
    EmbedCollector,
    EmbeddedTrack,
    ScoreCollector,
    ScoredTrack,
    ScoreFaces,
    StreamOf,
    score_track,
)
from vlfer.config import PredictConfig
from vlfer.errors import ConfigError, NoFaceError
from vlfer.faces.follow import FaceFollower, FindFaces, Follows
from vlfer.faces.track import FaceLinker
from vlfer.models.encoder import Encoder
from vlfer.models.threads import sharing_cores
from vlfer.reporting import Analysis, broken_off_report, interrupted_report
from vlfer.segments import segment_track
from vlfer.sightings import Journal
from vlfer.sources import Clip
from vlfer.stream import CropFace, EncodeFaces, FaceStage, run_stream
from vlfer.types import FloatArray, Report

ScoredStream = StreamOf[ScoredTrack]

# A face that is missing for longer is known again by its looks alone.
_MISSING_S = 1.5


@dataclass(frozen=True, slots=True)
class ClipTools:
    """What a pipeline lends to the analysis of a clip.

    Attributes:
        find: Searches a frame for faces.
        follower: Follows a face, or None.
        crop: Frame and face to a crop.
        encode: Crops to vectors.
        score: Vectors to scores.
        encoder: Its space and, where it has one, its temporal adapter are used.
        config: The settings.
    """

    find: FindFaces
    follower: Follows | None
    crop: CropFace
    encode: EncodeFaces
    score: ScoreFaces
    encoder: Encoder
    config: PredictConfig

    def face_stage(self) -> FaceStage:
        """Build a fresh step from frames to crops."""
        follower = FaceFollower(self.find, follower=self.follower, every_s=self.config.detect_every_s)
        return FaceStage(follower, self.crop)

    def cell_builder(self, *, frame_s: float) -> Callable[[], CellBuilder]:
        """Return what makes the cell builder of a new person, for frames that are ``frame_s`` apart.

        Raises:
            ConfigError: If the temporal model needs an adapter that is not there.
        """
        window_s, hop_s = self.config.window_s, self.config.hop_s
        pool = build_pool(self.config.temporal, self.encoder)
        return lambda: CellBuilder(window_s=window_s, hop_s=hop_s, frame_s=frame_s, pool=pool)

    def collector(self, *, frame_s: float) -> ScoreCollector:
        """Build a fresh collector for frames that are ``frame_s`` apart.

        Raises:
            ConfigError: If the temporal model needs an adapter that is not there.
        """
        build_cells = self.cell_builder(frame_s=frame_s)
        return ScoreCollector(
            linker=_linker(frame_s), score=self.score, build_cells=build_cells, space=self.encoder.space
        )


def _linker(frame_s: float) -> FaceLinker:
    return FaceLinker(max_gap_frames=max(2, round(_MISSING_S / frame_s)), keep_faces=False)


def analyse_clip(
    clip: Clip,
    tools: ClipTools,
    *,
    provenance: Mapping[str, Any],
    note: Callable[..., str],
    on_frames: Callable[[int], None] | None = None,
    journal_dir: Path | None = None,
) -> Analysis:
    """Analyse a video.

    Args:
        clip: The video, opened.
        tools: What does the work.
        provenance: For the report.
        note: Joins remarks.
        on_frames: Told the number of frames looked at so far.
        journal_dir: Where the run keeps what it has, so that a broken one goes on; to be removed by who named it.
            None keeps nothing.

    Raises:
        NoFaceError: If no face was found in the whole of it.
        ConfigError: If a setting is out of range.
        VlferError: Whatever ends the stream before its first frame.
    """
    collector = tools.collector(frame_s=clip.frame_s)
    journal = _journal(clip, tools, journal_dir)
    if journal is not None:
        for sightings in journal.replay():
            collector.take(sightings, is_replay=True)
    try:
        with sharing_cores():
            stream = run_stream(
                clip.after(collector.last_s) if collector.n_frames and clip.after is not None else clip.chunks,
                stage=tools.face_stage(),
                encode=tools.encode,
                collector=collector,
                journal=journal,
                on_frames=on_frames,
                keep_interrupted=True,
            )
    finally:
        if journal is not None:
            journal.close()
    return conclude(clip, stream, tools, provenance=provenance, note=note(*stream.notes))


def watch_clip(
    clip: Clip, tools: ClipTools, *, on_frames: Callable[[int], None] | None = None
) -> StreamOf[EmbeddedTrack]:
    """Look at a video and keep every vector, so that `tell_clip` can answer for any labels.

    Raises:
        VlferError: Whatever ends the stream before its first frame.
    """
    collector = EmbedCollector(linker=_linker(clip.frame_s))
    with sharing_cores():
        return run_stream(
            clip.chunks, stage=tools.face_stage(), encode=tools.encode, collector=collector, on_frames=on_frames
        )


def tell_clip(
    clip: Clip,
    watched: StreamOf[EmbeddedTrack],
    tools: ClipTools,
    *,
    provenance: Mapping[str, Any],
    note: Callable[..., str],
) -> Analysis:
    """Score and cut into segments what `watch_clip` saw.

    Raises:
        NoFaceError: If no frame shows a face.
    """
    build = tools.cell_builder(frame_s=clip.frame_s)
    kept = {name: getattr(watched, name) for name in StreamOf.__dataclass_fields__ if name != "tracks"}
    tracks = [score_track(found, score=tools.score, cells=build()) for found in watched.tracks]
    return conclude(clip, StreamOf(tracks, **kept), tools, provenance=provenance, note=note(*watched.notes))


def conclude(
    clip: Clip, stream: ScoredStream, tools: ClipTools, *, provenance: Mapping[str, Any], note: str
) -> Analysis:
    """Turn a scored stream into an analysis.

    Raises:
        NoFaceError: If no frame shows a face.
    """
    config = tools.config
    deciding: Any = {"threshold": config.threshold, "tie_margin": config.tie_margin, "top": config.top}
    parts = [segment_track(found, space=tools.encoder.space, note=note, **deciding) for found in stream.tracks]
    timelines = tuple(timeline for timeline, _ in parts)
    predictions = tuple(chain.from_iterable(segments for _, segments in parts))
    if stream.failure is None and not stream.was_interrupted and not predictions:
        raise NoFaceError(f"No face was found in {stream.n_frames} frames.", fix="--fps 30, to look more often.")
    report = Report(clip.source, "ok", predictions, provenance=provenance)
    if stream.failure is not None:
        report = broken_off_report(report, stream.failure, last_s=stream.last_s)
    elif stream.was_interrupted:
        report = interrupted_report(report, last_s=stream.last_s)
    return Analysis(
        report,
        timelines,
        cuts_s=tuple(stream.cuts_s),
        n_frames=stream.n_frames,
        n_replayed=stream.n_replayed,
        last_s=stream.last_s,
        was_interrupted=stream.was_interrupted,
        seconds=stream.seconds,
    )


def _journal(clip: Clip, tools: ClipTools, folder: Path | None) -> Journal | None:
    """Return the journal of this clip under these settings; None where it cannot be told from another one."""
    if folder is None or not clip.identity:
        return None
    used = ("faces", "detector", "margin", "detect_every_s")
    settings = {name: getattr(tools.config, name) for name in used}
    identity = {**clip.identity, "space": tools.encoder.space, **settings}
    name = hashlib.sha256(str(clip.identity["path"]).encode()).hexdigest()[:16]
    return Journal(folder / f"{name}.journal", identity=identity)


def build_pool(name: str | None, encoder: Encoder) -> Pool:
    """Return what turns the frames of a window into one vector.

    Args:
        name: "mean", "attention", "topk", "ema" or "adapter", see `vlfer.models.temporal`; None takes the temporal
            adapter of the encoder where it has one, else the mean.
        encoder: Whose adapter.

    Raises:
        ConfigError: If an adapter is wanted and there is none, or the name is unknown.
    """
    adapter = getattr(encoder, "temporal", None)
    if name is None:
        name = "mean" if adapter is None else "adapter"
    if name == "mean":
        return pool_mean
    if name == "adapter" and adapter is None:
        raise ConfigError(
            "The temporal model 'adapter' was asked for.",
            why="No temporal adapter is loaded.",
            fix="--adapter FOLDER, or --temporal mean",
        )
    import torch

    from vlfer.models import temporal as models

    known: dict[str, Any] = {"attention": models.pool_attention, "topk": models.pool_topk}
    if name not in (*known, "ema", "adapter"):
        raise ConfigError(f"There is no temporal model {name!r}.", fix="--temporal mean")

    def pool(vectors: FloatArray, mask: NDArray[np.bool_], offsets_s: FloatArray) -> FloatArray:
        if name == "adapter":
            vectors, mask = _thinned(vectors, mask, most=adapter.max_frames)  # type: ignore[union-attr]
        with torch.inference_mode():
            clips, counts = torch.from_numpy(np.ascontiguousarray(vectors)), torch.from_numpy(mask)
            if name == "ema":  # of a recording both sides are known: old and coming frames fade alike
                out = models.pool_ema(clips, counts, times_s=torch.from_numpy(-np.abs(offsets_s)))
            elif name == "adapter":
                device = next(adapter.parameters()).device  # type: ignore[union-attr]
                out = adapter(clips.to(device), counts.to(device)).cpu()  # type: ignore[misc]
            else:
                out = known[name](clips, counts)
        return np.asarray(out.numpy(), dtype=np.float32)

    return pool


def _thinned(vectors: FloatArray, mask: NDArray[np.bool_], *, most: int) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Return windows of at most ``most`` frames, evenly taken; frames that count come first in a window."""
    if mask.shape[1] <= most:
        return vectors, mask
    count = mask.sum(axis=1)
    even = np.rint(np.linspace(0.0, 1.0, most)[None, :] * (count[:, None] - 1)).astype(np.int64)
    index = np.where((count <= most)[:, None], np.arange(most)[None, :], even)
    return np.take_along_axis(vectors, index[:, :, None], axis=1), np.arange(most)[None, :] < count[:, None]
