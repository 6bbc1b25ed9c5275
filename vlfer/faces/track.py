"""From faces per frame to faces through time: one id a person, also through crossings, gaps and cuts."""

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
# Cosine of two descriptions (`vlfer.faces.appearance`) from which a face that comes back is taken for one seen before:
# of pairs of different people in photographs less than one in a hundred reach it. The second best must lie below.
DEFAULT_SAME_LOOK = 0.72
_CLEAR_LEAD = 0.03

_FORBIDDEN = 1e6
# What a difference in looks costs against a difference in place: crossing faces are told apart by it.
_LOOK_WEIGHT = 2.0
_LOOK_MEMORY = 0.9
_SPEED_MEMORY = 0.6
# A face moves on in its direction for so many frames; what is missing longer may have stopped or gone on, and is looked
# for anywhere on its way, if it has some likeness. Half hidden faces have less of it than `DEFAULT_SAME_LOOK`.
_MOST_COASTING = 6
_LEAST_LOOK = 0.4
_MOST_KNOWN = 256


@dataclass(slots=True, eq=False)
class _OpenTrack:
    track_id: int
    last: Face
    last_frame: int
    faces: list[Face] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)
    look: FloatArray | None = None
    met: set[int] = field(default_factory=set)
    speed: FloatArray = field(default_factory=lambda: np.zeros(2, dtype=np.float32))

    def add(self, face: Face, frame: int, *, look: FloatArray | None, is_crowded: bool, keep: bool) -> None:
        gap = frame - self.last_frame
        if gap > 0:
            moved = (face.box[:2] + face.box[2:] - self.last.box[:2] - self.last.box[2:]) / (2 * gap)
            self.speed = (_SPEED_MEMORY * self.speed + (1 - _SPEED_MEMORY) * moved).astype(np.float32)
        if look is not None and (self.look is None or not is_crowded):  # the look of a half hidden face is another's
            mixed = look if self.look is None else _LOOK_MEMORY * self.look + (1 - _LOOK_MEMORY) * look
            self.look = np.asarray(mixed / max(float(np.linalg.norm(mixed)), 1e-6), dtype=np.float32)
        self.last, self.last_frame = face, frame
        if keep:
            self.faces.append(face)
            self.frames.append(frame)

    def expected(self, frame: int, *, near: FloatArray) -> FloatArray:
        """Return the box where the face is expected: of where it may be by now, the place closest to box ``near``."""
        ahead = float(frame - self.last_frame)
        if ahead > _MOST_COASTING:
            way = (near[:2] + near[2:] - self.last.box[:2] - self.last.box[2:]) / 2
            pace = float(self.speed @ self.speed)
            ahead = float(np.clip(float(way @ self.speed) / pace, 0.0, ahead)) if pace > 0 else 0.0
        return np.asarray(self.last.box + np.tile(self.speed * ahead, 2), dtype=np.float32)

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

    Each frame's faces are assigned to the open tracks by the Hungarian method, on the overlap of boxes, the distance of
    their centres from where the track is expected, and their looks: SORT (Bewley et al., 2016) with the appearance term
    of DeepSORT (Wojke et al., 2017). A face that no open track explains is compared by its looks with those that went
    missing, or were there before a cut, and takes its id back.

    Args:
        max_gap_frames: How many frames a face may be missing and still be the same by its place.
        max_distance: How far the centre may be from where it is expected, in sides of the face.
        max_growth: Factor by which its size may change between two sightings.
        same_look: Cosine of looks from which a face is known again.
        keep_faces: Whether sightings are kept for `take_closed` and `finish`; without, memory does not grow.

    Raises:
        ShapeError: If a limit is out of range.
    """

    def __init__(
        self,
        *,
        max_gap_frames: int = DEFAULT_MAX_GAP_FRAMES,
        max_distance: float = 0.7,
        max_growth: float = 1.8,
        same_look: float = DEFAULT_SAME_LOOK,
        keep_faces: bool = True,
    ) -> None:
        if max_gap_frames < 0 or max_distance <= 0 or max_growth < 1 or not -1 <= same_look <= 1:
            raise ShapeError(
                f"max_gap_frames={max_gap_frames}, max_distance={max_distance}, max_growth={max_growth}, "
                f"same_look={same_look}.",
                why="Expected at least 0, more than 0, at least 1, and a cosine.",
            )
        self.max_gap_frames = max_gap_frames
        self.max_distance = max_distance
        self.max_growth = max_growth
        self.same_look = same_look
        self.keep_faces = keep_faces
        self._open: list[_OpenTrack] = []
        self._known: list[_OpenTrack] = []
        self._closed: list[FaceTrack] = []
        self._next_id = 0
        self._last_frame: int | None = None

    def update(
        self, faces: Sequence[Face], frame_index: int, *, looks: FloatArray | None = None, is_cut: bool = False
    ) -> list[int]:
        """Take in the faces of the next frame.

        Args:
            faces: Any number of faces, also none.
            frame_index: Index of the frame in its source; must increase from call to call.
            looks: (N, A) float32 unit descriptions of the faces, or None; then no face is known again after it was
                lost.
            is_cut: Whether the frame begins a new shot: places of before mean nothing.

        Returns:
            The track id of each face, in order.

        Raises:
            ShapeError: If ``frame_index`` does not increase, or there is not one look a face.
        """
        if self._last_frame is not None and frame_index <= self._last_frame:
            raise ShapeError(f"Frame {frame_index} came after frame {self._last_frame}.", why="Frames must increase.")
        if looks is not None and (looks.ndim != 2 or len(looks) != len(faces)):
            raise ShapeError(f"There are {len(faces)} faces and looks {looks.shape}.", why="One row for each.")
        self._last_frame = frame_index
        self._retire(frame_index, is_cut=is_cut)
        chosen = self._by_place(faces, frame_index, looks)
        if looks is not None:
            self._by_look(chosen, faces, looks, frame_index)
        ids = []
        for number, face in enumerate(faces):
            track = chosen.get(number)
            if track is None:
                track = _OpenTrack(self._next_id, face, frame_index)
                self._next_id += 1
                self._open.append(track)
            crowded = any(overlap(face.box, other.box)[1] > 0.1 for other in faces if other is not face)
            look = None if looks is None else looks[number]
            track.add(face, frame_index, look=look, is_crowded=crowded, keep=self.keep_faces)
            ids.append(track.track_id)
        for track in self._open:
            if track.last_frame == frame_index:
                track.met.update(ids)
        return ids

    def take_closed(self) -> list[FaceTrack]:
        """Return, and forget, the tracks that have ended: faces gone for longer than the gap allowed."""
        closed, self._closed = sorted(self._closed, key=lambda track: track.track_id), []
        return closed

    def finish(self) -> list[FaceTrack]:
        """End all tracks; return, and forget, those not taken yet, by id."""
        self._closed += [track.close() for track in (*self._open, *self._known) if track.faces]
        self._open, self._known = [], []
        return self.take_closed()

    def _retire(self, frame_index: int, *, is_cut: bool) -> None:
        """Take tracks that are missing too long from the open ones; remember those that have looks."""
        for track in list(self._open):
            if not is_cut and frame_index - track.last_frame - 1 <= self.max_gap_frames:
                continue
            self._open.remove(track)
            track.speed = np.zeros(2, dtype=np.float32)
            if track.look is not None:
                self._known.append(track)
            elif track.faces:
                self._closed.append(track.close())
        for track in self._known[:-_MOST_KNOWN]:
            self._known.remove(track)
            if track.faces:
                self._closed.append(track.close())

    def _by_place(self, faces: Sequence[Face], frame_index: int, looks: FloatArray | None) -> dict[int, _OpenTrack]:
        """Assign faces to open tracks that expect them there."""
        if not faces or not self._open:
            return {}
        cost = np.array(
            [
                [
                    self._cost(track, face, frame_index, look=None if looks is None else looks[i])
                    for i, face in enumerate(faces)
                ]
                for track in self._open
            ]
        )
        rows, columns = linear_sum_assignment(cost)
        return {int(c): self._open[int(r)] for r, c in zip(rows, columns, strict=True) if cost[r, c] < _FORBIDDEN}

    def _by_look(
        self, chosen: dict[int, _OpenTrack], faces: Sequence[Face], looks: FloatArray, frame_index: int
    ) -> None:
        """Assign the other faces to people seen before who look like them, if nobody else does."""
        free = [number for number in range(len(faces)) if number not in chosen]
        taken = {id(track) for track in chosen.values()}
        missing = [t for t in (*self._known, *self._open) if id(t) not in taken and t.look is not None]
        if not free or not missing:
            return
        gallery = np.stack([track.look for track in missing if track.look is not None])
        similarity = looks[free] @ gallery.T
        rows, columns = linear_sum_assignment(-similarity)
        for row, column in zip(rows, columns, strict=True):
            own = similarity[row, column]
            if own < self.same_look:
                continue
            # Somebody else who looks the same makes it a guess. Those never seen together may be one person.
            met = missing[int(column)].met
            rivals = [c for c in range(len(missing)) if c not in columns and missing[c].track_id in met]
            if rivals and own - similarity[row, rivals].max() < _CLEAR_LEAD:
                continue
            track = missing[int(column)]
            if track in self._known:
                self._known.remove(track)
                self._open.append(track)
            # It came from nowhere: the way from its last place is no motion.
            track.last, track.last_frame, track.speed = faces[free[int(row)]], frame_index, np.zeros(2, np.float32)
            chosen[free[int(row)]] = track

    def _cost(self, track: _OpenTrack, face: Face, frame_index: int, *, look: FloatArray | None) -> float:
        likeness = None if look is None or track.look is None else float(look @ track.look)
        gap, reach = frame_index - track.last_frame, self.max_distance
        if gap > _MOST_COASTING and likeness is not None:
            if likeness < _LEAST_LOOK:
                return _FORBIDDEN
            reach *= math.sqrt(gap / _MOST_COASTING)  # as what is not known of its way adds up
        expected = track.expected(frame_index, near=face.box)
        iou, _ = overlap(expected, face.box)
        (x0, y0, size0), (x1, y1, size1) = _place(expected), _place(face.box)
        distance = math.hypot(x1 - x0, y1 - y0) / max(min(size0, size1), 1e-6)
        growth = max(size0, size1) / max(min(size0, size1), 1e-6)
        if distance > reach or growth > self.max_growth:
            return _FORBIDDEN
        cost = 1.0 - iou + distance
        return cost if likeness is None else cost + _LOOK_WEIGHT * (1.0 - likeness)


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
