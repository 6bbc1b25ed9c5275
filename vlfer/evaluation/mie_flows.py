"""From coded clips to a flow archive that the leave-one-subject-out harness reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from vlfer.config import write_atomically
from vlfer.errors import DataError, NoFaceError, VlferError
from vlfer.evaluation.mie_datasets import MicroClip, classes_of, load_clips
from vlfer.evaluation.mie_report import Protocol
from vlfer.faces.detect import FaceDetector
from vlfer.micro.apex import find_apex
from vlfer.micro.flow import FlowEngine, build_flow, measure_motion, published_image
from vlfer.micro.registration import FacePair, reference_transform, register, warp_to_reference
from vlfer.micro.samples import FlowSamples, TextArray
from vlfer.types import FloatArray, IntArray, UInt8Array
from vlfer.video.read import load_image, read_video

Progress = Callable[[int, int], None]
V = TypeVar("V")

_SIDE_PX = 224
_APEX_SIDE_PX = 112


@dataclass(frozen=True, slots=True)
class FlowSet:
    """Flow of coded clips.

    Attributes:
        samples: What was computed.
        clips: The clip of each sample.
        apex: (N,) the number of the frame that was taken for the apex.
        searched: How many of these were looked for, as they are not coded.
        failed: Name and reason of each clip that is left out though the protocol counts it.
        skipped: Clips by emotion that the protocol does not count.
    """

    samples: FlowSamples
    clips: tuple[MicroClip, ...]
    apex: tuple[int, ...]
    searched: int
    failed: tuple[tuple[str, str], ...]
    skipped: dict[str, int]


def collect_clips(roots: dict[str, Path], protocol: Protocol) -> tuple[list[tuple[MicroClip, int]], dict[str, int]]:
    """Return the clips that a protocol counts, each with its class, and how many others there are by emotion.

    Args:
        roots: Name of a data set to its folder.
        protocol: The task.

    Raises:
        DataError: As `load_clips`; if no clip is counted, or one is there twice.
    """
    counted: list[tuple[MicroClip, int]] = []
    skipped: dict[str, int] = {}
    seen: set[tuple[str, str, str]] = set()
    for name, root in roots.items():
        for clip in load_clips(name, root):
            meaning = classes_of(protocol.name, clip.dataset, protocol.classes)
            place = protocol.classes.index(meaning[clip.emotion]) if clip.emotion in meaning else -1
            if place < 0:
                skipped[clip.emotion] = skipped.get(clip.emotion, 0) + 1
                continue
            key = (clip.dataset, clip.subject, f"{clip.clip}@{clip.onset}")
            if key in seen:
                raise DataError(f"{'/'.join(key[:2])}/{clip.clip} is coded twice.", why="It would count twice.")
            seen.add(key)
            counted.append((clip, place))
    if not counted:
        raise DataError(
            f"{protocol.name} counts none of the clips.",
            why=f"They carry {', '.join(f'{e} {n}' for e, n in skipped.items())}; its classes are "
            f"{', '.join(protocol.classes)}.",
            fix="another --protocol",
        )
    return counted, skipped


def compute_flows(
    counted: Sequence[tuple[MicroClip, int]], *, protocol: Protocol, detector: FaceDetector, method: str = "tvl1",
    skipped: dict[str, int] | None = None, progress: Progress | None = None,
) -> FlowSet:  # fmt: skip
    """Compute the published 28x28 flow images from onset to apex.

    A clip without frames, without a face or with a wrong coding is reported and left out.

    Args:
        counted: See `collect_clips`.
        protocol: The task.
        detector: Finds faces with the landmarks of the face mesh.
        method: Flow method, see `vlfer.micro.flow.build_flow`.
        skipped: Clips that the protocol does not count, for the record.
        progress: Told (done, total).

    Raises:
        ConfigError, EnvironmentProblem: As `build_flow`.
        DataError: If no clip gave a flow.
    """
    engine = build_flow(method)  # type: ignore[arg-type]
    done = each_clip(counted, lambda clip: clip_flow(clip, detector=detector, engine=engine), progress=progress)
    samples = FlowSamples(
        flow=np.stack([image for image, _ in done.values]),
        label=done.label,
        dataset=done.dataset,
        subject=done.subject,
        clip=done.names,
        classes=protocol.classes,
    )
    apexes = tuple(apex for _, apex in done.values)
    searched = sum(clip.apex is None for clip in done.clips)
    return FlowSet(samples, done.clips, apexes, searched, done.failed, dict(skipped or {}))


@dataclass(frozen=True, slots=True)
class Computed(Generic[V]):
    """What was computed of coded clips.

    Attributes:
        clips: Those that gave something.
        label: (N,) int64, their classes.
        values: What they gave.
        failed: Name and reason of each of the others.
    """

    clips: tuple[MicroClip, ...]
    label: IntArray
    values: tuple[V, ...]
    failed: tuple[tuple[str, str], ...]

    @property
    def dataset(self) -> TextArray:
        """(N,) str."""
        return np.array([clip.dataset for clip in self.clips])

    @property
    def subject(self) -> TextArray:
        """(N,) str."""
        return np.array([clip.subject for clip in self.clips])

    @property
    def names(self) -> TextArray:
        """(N,) str, with the onset where a subject has several of one name."""
        count = Counter((clip.subject, clip.clip) for clip in self.clips)
        return np.array([
            c.clip if count[c.subject, c.clip] == 1 else f"{c.clip}@{c.onset}" for c in self.clips
        ])  # fmt: skip


def each_clip(
    counted: Sequence[tuple[MicroClip, int]], compute: Callable[[MicroClip], V], *, progress: Progress | None = None
) -> Computed[V]:
    """Compute something of each clip; a clip that cannot is reported and left out.

    Raises:
        DataError: If none can.
    """
    clips: list[MicroClip] = []
    label: list[int] = []
    values: list[V] = []
    failed: list[tuple[str, str]] = []
    for done, (clip, place) in enumerate(counted, start=1):
        try:
            if clip.problem:
                raise DataError(f"{clip.problem}.")
            values.append(compute(_decoded(clip)))
            clips.append(clip)
            label.append(place)
        except VlferError as error:
            failed.append((f"{clip.dataset}/{clip.subject}/{clip.clip}", error.what))
        if progress is not None:
            progress(done, len(counted))
    if not clips:
        raise DataError(f"None of {len(counted)} clips could be used.", why=f"{failed[0][0]}: {failed[0][1]}")
    return Computed(tuple(clips), np.array(label, dtype=np.int64), tuple(values), tuple(failed))


def clip_flow(clip: MicroClip, *, detector: FaceDetector, engine: FlowEngine) -> tuple[UInt8Array, int]:
    """Return the flow image (28, 28, 3) uint8 of one clip and the number of its apex, searched where it is not coded.

    Raises:
        MediaReadError: If a frame cannot be read.
        NoFaceError: If onset or apex shows no face.
        ShapeError: If a clip without apex has fewer than three frames.
    """
    pair, apex, _ = register_clip(clip, detector=detector, side=_SIDE_PX)
    return published_image(measure_motion(pair, engine=engine)), apex


def register_clip(clip: MicroClip, *, detector: FaceDetector, side: int) -> tuple[FacePair, int, FloatArray]:
    """Return onset and apex of a clip in the reference frame, the number of the apex, and the mesh of the onset.

    Raises:
        MediaReadError: If a frame cannot be read.
        NoFaceError: If onset or apex shows no face.
        ShapeError: If a clip without apex has fewer than three frames.
    """
    onset = load_pixels(clip.frames[clip.onset])
    landmarks = _find_mesh(onset, detector, "onset")
    number = _apex_of(clip, landmarks)
    apex = load_pixels(clip.frames[number])
    apex_landmarks = _find_mesh(apex, detector, "apex")
    pair = register(onset, apex, onset_landmarks=landmarks, apex_landmarks=apex_landmarks, side=side)
    return pair, number, landmarks


def _apex_of(clip: MicroClip, landmarks: FloatArray) -> int:
    """Return the number of the apex as coded, or looked for between onset and offset."""
    if clip.apex is not None:
        return clip.apex
    numbers = [n for n in clip.frames if clip.onset <= n <= clip.offset]
    transform = reference_transform(landmarks, side=_APEX_SIDE_PX)
    faces = [warp_to_reference(load_pixels(clip.frames[n]), transform, side=_APEX_SIDE_PX) for n in numbers]
    return numbers[find_apex(np.stack(faces)).index]


def save_flows(flows: FlowSet, path: Path) -> None:
    """Write an archive that `vlfer.micro.samples.load_flow_archive` reads, with emotion, units and moments beside.

    Raises:
        OSError: If it cannot be written.
    """
    import io

    content = io.BytesIO()
    clips = flows.clips
    np.savez_compressed(
        content,
        **flows.samples.arrays,
        emotion_raw=np.array([clip.emotion for clip in clips]),
        au=np.array([clip.units for clip in clips]),
        onset=np.array([str(clip.onset) for clip in clips]),
        apex=np.array([str(apex) for apex in flows.apex]),
        offset=np.array([str(clip.offset) for clip in clips]),
    )
    write_atomically(path, content.getvalue())


def load_pixels(frame: Path | UInt8Array) -> UInt8Array:
    """Return a frame, (H, W, 3) uint8 RGB, read from its file unless it was decoded already."""
    return load_image(frame).pixels[0] if isinstance(frame, Path) else frame


def _decoded(clip: MicroClip) -> MicroClip:
    """Return a clip with the frames of its video, where it is one."""
    if clip.video is None:
        return clip
    chunks = [chunk.pixels for chunk in read_video(str(clip.video))]
    frames = dict(enumerate(frame for chunk in chunks for frame in chunk))
    return replace(clip, frames=frames, offset=len(frames) - 1)


def _find_mesh(pixels: UInt8Array, detector: FaceDetector, what: str) -> FloatArray:
    """Return the face mesh of the largest face, (L, 2) float32 pixels."""
    faces = detector.detect(pixels, effort="thorough")
    if not faces or faces[0].landmarks is None:
        raise NoFaceError(f"No face was found in the {what}.", why="Motion is measured between two faces.")
    return faces[0].landmarks
