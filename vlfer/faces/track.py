"""From faces per frame to faces through time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment

from vlfer.errors import ShapeError
from vlfer.faces.detect import overlap
from vlfer.types import Face, FaceTrack, FloatArray, IntArray

DEFAULT_MAX_GAP_FRAMES = 12

_FORBIDDEN = 1e6


@dataclass(slots=True, eq=False)
class _OpenTrack:
    track_id: int
    faces: list[Face] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)

    def close(self) -> FaceTrack:
        marks = [face.landmarks for face in self.faces if face.landmarks is not None]
        complete = len(marks) == len(self.faces) and len({len(mark) for mark in marks}) == 1
        return FaceTrack(
            boxes=np.stack([face.box for face in self.faces]),
            scores=np.array([face.score for face in self.faces], dtype=np.float32),
            frame_index=np.array(self.frames, dtype=np.int64),
            landmarks=np.stack(marks) if complete else None,
            track_id=self.track_id,
        )


class FaceLinker:
    """Give the faces of successive frames stable ids, frame by frame (for streams; see `link_faces`).

    Each frame's faces are assigned to the open tracks by the Hungarian method, on the overlap of boxes and the
    distance of their centres, as in SORT (Bewley et al., 2016) but without a motion model.

    Args:
        max_gap_frames: How many frames a face may be missing and still be the same.
        max_distance: How far the centre may move between two sightings, in sides of the face.
        max_growth: Factor by which its size may change between two sightings.

    Raises:
        ShapeError: If a limit is out of range.
    """

    def __init__(
        self,
        *,
        max_gap_frames: int = DEFAULT_MAX_GAP_FRAMES,
        max_distance: float = 0.7,
        max_growth: float = 1.8,
    ) -> None:
        if max_gap_frames < 0 or max_distance <= 0 or max_growth < 1:
            raise ShapeError(
                f"max_gap_frames={max_gap_frames}, max_distance={max_distance}, max_growth={max_growth}.",
                why="Expected at least 0, more than 0 and at least 1.",
            )
        self.max_gap_frames = max_gap_frames
        self.max_distance = max_distance
        self.max_growth = max_growth
        self._open: list[_OpenTrack] = []
        self._closed: list[FaceTrack] = []
        self._next_id = 0
        self._last_frame: int | None = None

    def update(self, faces: Sequence[Face], frame_index: int) -> list[int]:
        """Take in the faces of the next frame.

        Args:
            faces: Any number of faces, also none.
            frame_index: Index of the frame in its source; must increase from call to call.

        Returns:
            The track id of each face, in order.

        Raises:
            ShapeError: If ``frame_index`` does not increase.
        """
        if self._last_frame is not None and frame_index <= self._last_frame:
            raise ShapeError(f"Frame {frame_index} came after frame {self._last_frame}.", why="Frames must increase.")
        self._last_frame = frame_index
        ended = [track for track in self._open if frame_index - track.frames[-1] - 1 > self.max_gap_frames]
        self._closed += [track.close() for track in ended]
        self._open = [track for track in self._open if track not in ended]
        chosen: dict[int, _OpenTrack] = {}
        if faces and self._open:
            cost = np.array([[self._cost(track.faces[-1], face) for face in faces] for track in self._open])
            for row, column in zip(*linear_sum_assignment(cost), strict=True):
                if cost[row, column] < _FORBIDDEN:
                    chosen[int(column)] = self._open[int(row)]
        ids = []
        for number, face in enumerate(faces):
            track = chosen.get(number)
            if track is None:
                track = _OpenTrack(self._next_id)
                self._next_id += 1
                self._open.append(track)
            track.faces.append(face)
            track.frames.append(frame_index)
            ids.append(track.track_id)
        return ids

    def take_closed(self) -> list[FaceTrack]:
        """Return, and forget, the tracks that have ended: faces gone for longer than the gap allowed."""
        closed, self._closed = sorted(self._closed, key=lambda track: track.track_id), []
        return closed

    def finish(self) -> list[FaceTrack]:
        """End all tracks; return, and forget, those not taken yet, by id."""
        self._closed += [track.close() for track in self._open]
        self._open = []
        return self.take_closed()

    def _cost(self, before: Face, now: Face) -> float:
        iou, _ = overlap(before.box, now.box)
        (x0, y0, size0), (x1, y1, size1) = _place(before.box), _place(now.box)
        distance = math.hypot(x1 - x0, y1 - y0) / max(min(size0, size1), 1e-6)
        growth = max(size0, size1) / max(min(size0, size1), 1e-6)
        if distance > self.max_distance or growth > self.max_growth:
            return _FORBIDDEN
        return 1.0 - iou + distance


def _place(box: FloatArray) -> tuple[float, float, float]:
    """Return the centre and the side of a square of the same area."""
    x0, y0, x1, y1 = (float(v) for v in box)
    return (x0 + x1) / 2, (y0 + y1) / 2, math.sqrt(max(x1 - x0, 0.0) * max(y1 - y0, 0.0))


def link_faces(
    faces_per_frame: Sequence[Sequence[Face]],
    frame_index: IntArray | Iterable[int] | None = None,
    *,
    max_gap_frames: int = DEFAULT_MAX_GAP_FRAMES,
    max_distance: float = 0.7,
    max_growth: float = 1.8,
    min_frames: int = 1,
) -> list[FaceTrack]:
    """Link the faces of successive frames into tracks.

    Args:
        faces_per_frame: The faces of each frame.
        frame_index: Increasing index of each frame in its source; 0, 1, 2, ... by default.
        max_gap_frames: How many frames, in units of ``frame_index``, a face may be missing and still be the same.
        max_distance: How far the centre may move between two sightings, in sides of the face.
        max_growth: Factor by which its size may change between two sightings.
        min_frames: Tracks seen in fewer frames are dropped.

    Returns:
        The tracks by order of appearance, numbered from 0.

    Raises:
        ShapeError: If there is not one increasing index per frame, or a limit is out of range.
    """
    indices = list(range(len(faces_per_frame))) if frame_index is None else [int(index) for index in frame_index]
    if len(indices) != len(faces_per_frame):
        raise ShapeError(f"There are {len(faces_per_frame)} frames and {len(indices)} indices.", why="One for each.")
    linker = FaceLinker(max_gap_frames=max_gap_frames, max_distance=max_distance, max_growth=max_growth)
    for faces, index in zip(faces_per_frame, indices, strict=True):
        linker.update(faces, index)
    kept = [track for track in linker.finish() if len(track) >= min_frames]
    return [
        FaceTrack(track.boxes, track.scores, track.frame_index, track.landmarks, number)
        for number, track in enumerate(kept)
    ]
