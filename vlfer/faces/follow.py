"""Faces in the frames of a video: found now and then, fitted more often, carried by flow in between, and steadied."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np

from vlfer.errors import ConfigError
from vlfer.faces.detect import overlap
from vlfer.faces.flow import FlowCarrier
from vlfer.faces.shots import ShotDetector
from vlfer.faces.smooth import SquareSmoother
from vlfer.types import Face, UInt8Array

FindFaces = Callable[[UInt8Array], tuple[list[Face], str]]

DEFAULT_DETECT_EVERY_S = 0.34
# Longer than this the shape of a face, which flow does not see, would lag behind: every fifth frame of 30 a second.
DEFAULT_FIT_EVERY_S = 0.15
# In a frame without a face all of it is searched; an empty scene would cost more than a crowd.
_IDLE_AFTER = 3
_SAME_FACE_IOU = 0.3
_ONE_FACE_IOU = 0.5
_MOST_JUMP = 0.6
# Corners of a face that another one comes near to may belong to that one.
_CLOSE_SIDES = 1.3
_SAME_TIME_S = 1e-6


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
    """One face that is being followed; ``raw`` is what was seen, unsmoothed, ``carrier`` None until it is needed."""

    raw: Face
    fitted_s: float
    smoother: SquareSmoother = field(default_factory=SquareSmoother)
    carrier: FlowCarrier | None = None


class FaceFollower:
    """Find the faces of successive frames without searching every one of them.

    A frame is searched when enough time has passed, after a cut, and when a face is lost. Between searches each face
    is followed by fitting its mesh where it was last seen (the scheme of MediaPipe, Lugaresi et al., 2019), and between
    these fits it is carried by optical flow, see `FlowCarrier`. Where the flow is not to be trusted, or another face
    is near, the mesh is fitted at once.

    Args:
        find: Searches a frame.
        follower: Follows one face; None searches every frame.
        every_s: Time from one search to the next while nothing is lost; 0 searches every frame.
        fit_every_s: Time from one fit of a face to the next; 0 fits it in every frame.
        smooth: Whether landmarks are steadied, see `SquareSmoother`.

    Raises:
        ConfigError: If ``every_s`` or ``fit_every_s`` is negative.
    """

    def __init__(
        self,
        find: FindFaces,
        *,
        follower: Follows | None = None,
        every_s: float = DEFAULT_DETECT_EVERY_S,
        fit_every_s: float = DEFAULT_FIT_EVERY_S,
        smooth: bool = True,
    ) -> None:
        if not (every_s >= 0 and fit_every_s >= 0):
            raise ConfigError(
                f"Faces are searched every {every_s} s and fitted every {fit_every_s} s.",
                why="Expected 0 or more.",
                fix=f"{DEFAULT_DETECT_EVERY_S} and {DEFAULT_FIT_EVERY_S}",
            )
        self._find = find
        self._follower = follower
        self._every_s = every_s
        self._fit_every_s = fit_every_s
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
        is_due = is_cut or time_s - self._searched_s >= self._every_s - _SAME_TIME_S
        slots = None if is_due else self._follow(pixels, time_s)
        if slots is None and self._is_idle(time_s, is_cut=is_cut):
            slots = []
        was_searched = slots is None
        if slots is None:
            faces, self._note = self._find(pixels)
            self._searched_s = time_s
            self._empty = 0 if faces else self._empty + 1
            slots = self._assign(faces, pixels, time_s)
        self._slots = slots
        steady = [slot.smoother.update(slot.raw, time_s) if self._smooth else slot.raw for slot in slots]
        return FrameFaces(steady, self._note, is_cut, was_searched)

    def _is_idle(self, time_s: float, *, is_cut: bool) -> bool:
        """Tell whether a frame need not be searched since there has been no face for a while."""
        return not is_cut and self._empty >= _IDLE_AFTER and time_s - self._searched_s < self._every_s - _SAME_TIME_S

    def _follow(self, pixels: UInt8Array, time_s: float) -> list[_Slot] | None:
        """Return all faces at their new place, or None if one is lost or two have become one."""
        if self._follower is None or not self._slots:
            return None
        found: list[_Slot] = []
        for slot in self._slots:
            now = self._carried(slot, pixels, time_s) or self._fitted(slot, pixels, time_s)
            if now is None or _jump(slot.raw, now.raw) > _MOST_JUMP:
                return None
            if any(overlap(now.raw.box, other.raw.box)[0] > _ONE_FACE_IOU for other in found):
                return None
            found.append(now)
        return found

    def _carried(self, slot: _Slot, pixels: UInt8Array, time_s: float) -> _Slot | None:
        """Return a face that is not due to be fitted where the flow takes it, or None."""
        if slot.carrier is None or time_s - slot.fitted_s >= self._fit_every_s - _SAME_TIME_S:
            return None
        if any(_is_close(slot.raw, other.raw) for other in self._slots if other is not slot):
            return None
        face = slot.carrier.carry(pixels)
        return None if face is None else _Slot(face, slot.fitted_s, slot.smoother, slot.carrier)

    def _fitted(self, slot: _Slot, pixels: UInt8Array, time_s: float) -> _Slot | None:
        """Return a face where its mesh finds it, or None."""
        face = None if self._follower is None else self._follower.follow(pixels, slot.raw)
        return None if face is None else _Slot(face, time_s, slot.smoother, self._carrier(pixels, face))

    def _carrier(self, pixels: UInt8Array, face: Face) -> FlowCarrier | None:
        is_used = self._follower is not None and self._fit_every_s > 0 and face.landmarks is not None
        return FlowCarrier(pixels, face) if is_used else None

    def _assign(self, faces: Sequence[Face], pixels: UInt8Array, time_s: float) -> list[_Slot]:
        """Carry the smoothers over to the faces that overlap most with where they were."""
        free = list(self._slots)
        slots = []
        for face in faces:
            slot = _Slot(face, time_s, carrier=self._carrier(pixels, face))
            best = max(free, key=lambda old: overlap(old.raw.box, face.box)[0], default=None)
            if best is not None and overlap(best.raw.box, face.box)[0] >= _SAME_FACE_IOU:
                free.remove(best)
                slot.smoother = best.smoother
            slots.append(slot)
        return slots


def _is_close(face: Face, other: Face) -> bool:
    """Tell whether the boxes of two faces, enlarged, touch."""
    reach = (_CLOSE_SIDES - 1) / 2 * (face.box[2:] - face.box[:2])
    wide = np.concatenate([face.box[:2] - reach, face.box[2:] + reach])
    return overlap(wide, other.box)[0] > 0


def _jump(before: Face, now: Face) -> float:
    """Return how far a face has moved, in sides of its box."""
    side = max(float(before.box[2] - before.box[0]), float(before.box[3] - before.box[1]), 1e-6)
    centre = (now.box[:2] + now.box[2:] - before.box[:2] - before.box[2:]) / 2
    return float((centre**2).sum() ** 0.5) / side
