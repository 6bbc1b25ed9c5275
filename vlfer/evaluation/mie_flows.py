"""From coded clips to a flow archive that the leave-one-subject-out harness reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlfer.config import write_atomically
from vlfer.errors import DataError, NoFaceError, VlferError
from vlfer.evaluation.mie_datasets import MicroClip, classes_of, load_clips
from vlfer.evaluation.mie_report import Protocol
from vlfer.faces.detect import FaceDetector
from vlfer.micro.apex import find_apex
from vlfer.micro.flow import FlowEngine, build_flow, measure_motion, published_image
from vlfer.micro.registration import reference_transform, register, warp_to_reference
from vlfer.micro.samples import FlowSamples
from vlfer.types import FloatArray, UInt8Array
from vlfer.video.read import load_image

Progress = Callable[[int, int], None]

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
    images: list[UInt8Array] = []
    kept: list[tuple[MicroClip, int, int]] = []
    failed: list[tuple[str, str]] = []
    for done, (clip, label) in enumerate(counted, start=1):
        try:
            if clip.problem:
                raise DataError(f"{clip.problem}.")
            image, apex = clip_flow(clip, detector=detector, engine=engine)
            images.append(image)
            kept.append((clip, label, apex))
        except VlferError as error:
            failed.append((f"{clip.dataset}/{clip.subject}/{clip.clip}", error.what))
        if progress is not None:
            progress(done, len(counted))
    if not kept:
        raise DataError(f"None of {len(counted)} clips gave a flow.", why=f"{failed[0][0]}: {failed[0][1]}")
    names = [
        clip.clip if sum(c.clip == clip.clip and c.subject == clip.subject for c, _, _ in kept) == 1
        else f"{clip.clip}@{clip.onset}"
        for clip, _, _ in kept
    ]  # fmt: skip
    samples = FlowSamples(
        flow=np.stack(images),
        label=np.array([label for _, label, _ in kept], dtype=np.int64),
        dataset=np.array([clip.dataset for clip, _, _ in kept]),
        subject=np.array([clip.subject for clip, _, _ in kept]),
        clip=np.array(names),
        classes=protocol.classes,
    )
    clips, apexes = tuple(clip for clip, _, _ in kept), tuple(apex for _, _, apex in kept)
    searched = sum(clip.apex is None for clip in clips)
    return FlowSet(samples, clips, apexes, searched, tuple(failed), dict(skipped or {}))


def clip_flow(clip: MicroClip, *, detector: FaceDetector, engine: FlowEngine) -> tuple[UInt8Array, int]:
    """Return the flow image (28, 28, 3) uint8 of one clip and the number of its apex, searched where it is not coded.

    Raises:
        MediaReadError: If a frame cannot be read.
        NoFaceError: If onset or apex shows no face.
        ShapeError: If a clip without apex has fewer than three frames.
    """
    onset = _pixels(clip.frames[clip.onset])
    landmarks = _mesh(onset, detector, "onset")
    apex = clip.apex
    if apex is None:
        numbers = [n for n in clip.frames if clip.onset <= n <= clip.offset]
        transform = reference_transform(landmarks, side=_APEX_SIDE_PX)
        faces = [warp_to_reference(_pixels(clip.frames[n]), transform, side=_APEX_SIDE_PX) for n in numbers]
        apex = numbers[find_apex(np.stack(faces)).index]
    strongest = _pixels(clip.frames[apex])
    pair = register(
        onset, strongest, onset_landmarks=landmarks, apex_landmarks=_mesh(strongest, detector, "apex"), side=_SIDE_PX
    )
    return published_image(measure_motion(pair, engine=engine)), apex


def save_flows(flows: FlowSet, path: Path) -> None:
    """Write an archive that `vlfer.micro.samples.load_flow_archive` reads, with emotion, units and moments beside.

    Raises:
        OSError: If it cannot be written.
    """
    import io

    content = io.BytesIO()
    samples, clips = flows.samples, flows.clips
    np.savez_compressed(
        content,
        flow=samples.flow,
        dataset=samples.dataset,
        subject=samples.subject,
        clip=samples.clip,
        label=samples.label,
        classes=np.array(samples.classes),
        emotion_raw=np.array([clip.emotion for clip in clips]),
        au=np.array([clip.units for clip in clips]),
        onset=np.array([str(clip.onset) for clip in clips]),
        apex=np.array([str(apex) for apex in flows.apex]),
        offset=np.array([str(clip.offset) for clip in clips]),
    )
    write_atomically(path, content.getvalue())


def _pixels(file: Path) -> UInt8Array:
    pixels: UInt8Array = load_image(file).pixels[0]
    return pixels


def _mesh(pixels: UInt8Array, detector: FaceDetector, what: str) -> FloatArray:
    faces = detector.detect(pixels, effort="thorough")
    if not faces or faces[0].landmarks is None:
        raise NoFaceError(f"No face was found in the {what}.", why="Motion is measured between two faces.")
    return faces[0].landmarks
