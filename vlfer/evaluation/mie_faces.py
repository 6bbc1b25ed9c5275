"""From coded clips to an archive of faces, for learners that read pictures: MIACNet and LBP-TOP."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vlfer.evaluation.mie_datasets import MicroClip
from vlfer.evaluation.mie_flows import Progress, each_clip, load_pixels, register_clip
from vlfer.evaluation.mie_report import Protocol
from vlfer.faces.detect import FaceDetector
from vlfer.micro.face_samples import FaceSamples
from vlfer.micro.registration import reference_transform, warp_to_reference
from vlfer.types import UInt8Array
from vlfer.video.sample import tim_positions


def compute_faces(
    counted: Sequence[tuple[MicroClip, int]], *, protocol: Protocol, detector: FaceDetector, side: int = 64,
    frames: int = 10, progress: Progress | None = None,
) -> tuple[FaceSamples, tuple[tuple[str, str], ...]]:  # fmt: skip
    """Register onset and apex of each clip, and resample the clip from onset to offset to a fixed number of frames.

    Args:
        counted: See `vlfer.evaluation.mie_flows.collect_clips`.
        protocol: The task.
        detector: Finds faces with the landmarks of the face mesh.
        side: S in pixels.
        frames: T; 0 keeps onset and apex only.
        progress: Told (done, total).

    Returns:
        The samples, and name and reason of each clip that is left out.

    Raises:
        DataError: If no clip shows a face.
    """
    done = each_clip(
        counted, lambda clip: clip_faces(clip, detector=detector, side=side, frames=frames), progress=progress
    )
    samples = FaceSamples(
        faces=np.stack(done.values), label=done.label, dataset=done.dataset, subject=done.subject, clip=done.names,
        classes=protocol.classes,
    )  # fmt: skip
    return samples, done.failed


def clip_faces(clip: MicroClip, *, detector: FaceDetector, side: int, frames: int) -> UInt8Array:
    """Return onset, apex and the resampled clip, (2 + T, S, S, 3) uint8 RGB.

    All frames of the resampled clip share the transform of the onset: landmarks jitter more than a face moves.

    Raises:
        MediaReadError: If a frame cannot be read.
        NoFaceError: If onset or apex shows no face.
        ShapeError: If a clip without apex has fewer than three frames.
    """
    pair, _, landmarks = register_clip(clip, detector=detector, side=side)
    if not frames:
        return np.stack([pair.onset, pair.apex])
    transform = reference_transform(landmarks, side=side)
    numbers = [n for n in clip.frames if clip.onset <= n <= clip.offset]
    steady = np.stack([warp_to_reference(load_pixels(clip.frames[n]), transform, side=side) for n in numbers])
    return np.concatenate([np.stack([pair.onset, pair.apex]), resampled(steady, count=frames)])


def resampled(clip: UInt8Array, *, count: int) -> UInt8Array:
    """Return a clip (T, S, S, 3) uint8 at ``count`` equal steps of time, between frames by linear interpolation."""
    place = tim_positions(len(clip), count=count)
    low = np.minimum(place.astype(np.int64), max(0, len(clip) - 2))
    share = (place - low)[:, None, None, None]
    high = np.minimum(low + 1, len(clip) - 1)
    return np.asarray(((1 - share) * clip[low] + share * clip[high]).round(), dtype=np.uint8)
