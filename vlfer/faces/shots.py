"""Where one camera shot ends and the next begins."""

from __future__ import annotations

import cv2
import numpy as np

from vlfer.types import FloatArray, UInt8Array

_VIEW_PX = 64
_BINS = 8
# A cut changes the colours of the picture (total variation of their histogram) and its layout (mean absolute change of
# a tiny view, 0..1). Both must be far above what the shot itself does from frame to frame.
_MIN_COLOUR = 0.20
_MIN_LAYOUT = 0.07
_TIMES_USUAL = 4.0
_MEMORY = 0.8


class ShotDetector:
    """Tell hard cuts in a stream of frames, one frame after the other.

    Histogram and pixel difference against an adaptive threshold, as in the comparison of Lienhart (1999). Fades and
    dissolves are no cuts here: faces can be followed through them.
    """

    def __init__(self) -> None:
        self._view: FloatArray | None = None
        self._colours: FloatArray | None = None
        self._usual = 0.0

    def update(self, pixels: UInt8Array) -> bool:
        """Take in the next frame and tell whether it begins a new shot; the very first one does not.

        Args:
            pixels: (H, W, 3) uint8 RGB; of another size than before, it begins a shot.
        """
        step = max(1, min(pixels.shape[:2]) // (2 * _VIEW_PX))
        view = cv2.resize(pixels[::step, ::step], (_VIEW_PX, _VIEW_PX), interpolation=cv2.INTER_AREA)
        slots = (np.asarray(view, dtype=np.int64) >> 5) @ np.array([_BINS * _BINS, _BINS, 1])
        colours = np.bincount(slots.ravel(), minlength=_BINS**3).astype(np.float32) / slots.size
        now = np.asarray(view, dtype=np.float32).mean(axis=2) / np.float32(255.0)
        before, before_colours = self._view, self._colours
        self._view, self._colours = now, colours
        if before is None or before_colours is None:
            return False
        layout = float(np.abs(now - before).mean())
        colour = float(np.abs(colours - before_colours).sum()) / 2
        is_cut = layout > max(_MIN_LAYOUT, _TIMES_USUAL * self._usual) and colour > _MIN_COLOUR
        if not is_cut:
            self._usual = _MEMORY * self._usual + (1 - _MEMORY) * layout
        return is_cut
