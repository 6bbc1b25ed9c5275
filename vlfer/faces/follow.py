"""Faces in the frames of a video: found every so often, followed in between, and steadied."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from vlfer.errors import ConfigError
from vlfer.faces.detect import overlap
from vlfer.faces.shots import ShotDetector
from vlfer.faces.smooth import SquareSmoother
from vlfer.types import Face, UInt8Array

FindFaces = Callable[[UInt8Array], tuple[list[Face], str]]

DEFAULT_DETECT_EVERY_S = 0.34
# In a frame without a face all of it is searched; an empty scene would cost more than a crowd.
_IDLE_AFTER = 3
_SAME_FACE_IOU = 0.3
_ONE_FACE_IOU = 0.5
_MOST_JUMP = 0.6


@runtime_checkable
class Follows(Protocol):
    """A detector that can follow a face from one frame to the next, for less than finding it costs."""

    def follow(self, pixels: UInt8Array, face: Face) -> Face | None:
        """Return the face near to where it was, or None if it is not seen there."""


@dataclass(slots=True)
class FrameFaces:
    """The faces of one frame.

    Attributes:
        faces: Largest first where they were searched for.
        note: Remark of the finder.
        is_cut: Whether the frame begins a new shot.
        was_searched: Whether the whole frame was searched.
    """

    faces: list[Face]
    note: str = ""
    is_cut: bool = False
    was_searched: bool = True


@dataclass(slots=True, eq=False)
class _Slot:
    """One face that is being followed; ``raw`` is what was seen, unsmoothed."""

    raw: Face
    smoother: SquareSmoother = field(default_factory=SquareSmoother)


class FaceFollower:
    """Find the faces of successive frames without searching every one of them.

    A frame is searched when enough time has passed, after a cut, and when a face is lost. Between searches each face
    is followed by fitting its mesh where it was last seen (the scheme of MediaPipe, Lugaresi et al., 2019).

    Args:
        find: Searches a frame.
        follower: Follows one face; None searches every frame.
        every_s: Time from one search to the next while nothing is lost; 0 searches every frame.
        smooth: Whether landmarks are steadied, see `SquareSmoother`.

    Raises:
        ConfigError: If ``every_s`` is negative.
    """

    def __init__(
        self,
        find: FindFaces,
        *,
        follower: Follows | None = None,
        every_s: float = DEFAULT_DETECT_EVERY_S,
        smooth: bool = True,
    ) -> None:
        if not every_s >= 0:
            raise ConfigError(f"Faces are searched every {every_s} s.", why="Expected 0 or more.", fix="0.34")
        self._find = find
        self._follower = follower
        self._every_s = every_s
        self._smooth = smooth
        self._shots = ShotDetector()
        self._slots: list[_Slot] = []
        self._searched_s = -float("inf")
        self._empty = 0
        self._note = ""

    def update(self, pixels: UInt8Array, time_s: float) -> FrameFaces:
        """Return the faces of the next frame; ``time_s`` increases.

        Raises:
            VlferError: Whatever the finder raises.
        """
        is_cut = self._shots.update(pixels)
        if is_cut:
            self._slots, self._empty = [], 0
        followed = None if is_cut or time_s - self._searched_s >= self._every_s - 1e-6 else self._follow(pixels)
        if followed is None and self._is_idle(time_s, is_cut=is_cut):
            followed = []
        if followed is None:
            faces, self._note = self._find(pixels)
            self._searched_s = time_s
            self._empty = 0 if faces else self._empty + 1
        else:
            faces = followed
        self._slots = self._assign(faces)
        steady = [slot.smoother.update(slot.raw, time_s) if self._smooth else slot.raw for slot in self._slots]
        return FrameFaces(steady, self._note, is_cut, followed is None)

    def _is_idle(self, time_s: float, *, is_cut: bool) -> bool:
        """Tell whether a frame need not be searched since there has been no face for a while."""
        return not is_cut and self._empty >= _IDLE_AFTER and time_s - self._searched_s < self._every_s - 1e-6

    def _follow(self, pixels: UInt8Array) -> list[Face] | None:
        """Return all faces at their new place, or None if one is lost or two have become one."""
        if self._follower is None or not self._slots:
            return None
        faces: list[Face] = []
        for slot in self._slots:
            face = self._follower.follow(pixels, slot.raw)
            if face is None or _jump(slot.raw, face) > _MOST_JUMP:
                return None
            if any(overlap(face.box, other.box)[0] > _ONE_FACE_IOU for other in faces):
                return None
            faces.append(face)
        return faces

    def _assign(self, faces: Sequence[Face]) -> list[_Slot]:
        """Carry the smoothers over to the faces that overlap most with where they were."""
        free = list(self._slots)
        slots = []
        for face in faces:
            best = max(free, key=lambda slot: overlap(slot.raw.box, face.box)[0], default=None)
            if best is not None and overlap(best.raw.box, face.box)[0] >= _SAME_FACE_IOU:
                free.remove(best)
                slots.append(_Slot(face, best.smoother))
            else:
                slots.append(_Slot(face))
        return slots


def _jump(before: Face, now: Face) -> float:
    """Return how far a face has moved, in sides of its box."""
    side = max(float(before.box[2] - before.box[0]), float(before.box[3] - before.box[1]), 1e-6)
    centre = (now.box[:2] + now.box[2:] - before.box[:2] - before.box[2:]) / 2
    return float((centre**2).sum() ** 0.5) / side
