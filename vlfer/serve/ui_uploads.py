"""Uploads of the app on their way to pixels: decoded by the limited processes that the HTTP API uses, never here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from vlfer.config import PredictConfig
from vlfer.errors import DataError, ImageReadError, VideoReadError
from vlfer.segments import Timeline
from vlfer.serve.decoders import DecoderPool, Looked
from vlfer.serve.settings import ServeSettings
from vlfer.sources import Clip
from vlfer.types import UInt8Array
from vlfer.video.read import media_kind

VIEW_PX = 1280
_ANNOTATE_S = 900.0


@dataclass(frozen=True, slots=True)
class Limits:
    """How much the app takes on.

    Attributes:
        labels: Most labels in one question.
        faces: Most faces of one image that are answered for.
        explained: Most faces of one image that are explained.
        video_s: Longest video in seconds.
        upload_mb: Largest upload in megabytes.
        photo_mb: Largest image in megabytes.
        pixels: Largest image, decoded; a frame of a video may have a quarter of it.
    """

    labels: int = 120
    faces: int = 40
    explained: int = 6
    video_s: float = 900.0
    upload_mb: int = 200
    photo_mb: float = 25.0
    pixels: int = 40_000_000


class Uploads:
    """Decodes uploads in processes of their own, which start with the first one. Safe from several threads.

    Args:
        config: How faces are found.
        crop_px: Side of a crop.
        limits: How large an upload may be.
        pool: Gives the processes of a service that runs beside the app; None starts two.
    """

    def __init__(
        self, config: PredictConfig, *, crop_px: int, limits: Limits, pool: Callable[[], DecoderPool] | None = None
    ) -> None:
        self.crop_px = crop_px
        self._config = config
        self._limits = limits
        self._shared = pool
        self._own: DecoderPool | None = None
        self._lock = threading.Lock()

    @property
    def pool(self) -> DecoderPool:
        """The decoding processes.

        Raises:
            ServiceProblem: If those of the service are not ready yet.
        """
        if self._shared is not None:
            return self._shared()
        with self._lock:
            if self._own is None:
                settings = ServeSettings(max_pixels=self._limits.pixels)
                self._own = DecoderPool(settings, self._config, crop_px=self.crop_px, on_lost=lambda: None)
            return self._own

    def warm_up(self) -> None:
        """Start the processes, unless a service has its own, and let them load their models; do not wait for it."""
        if self._shared is None:
            threading.Thread(target=self.pool.warm_up, name="vlfer-decoders", daemon=True).start()

    def look(self, path: str) -> Looked:
        """Decode an image, find its faces and cut them out.

        Raises:
            VlferError: If it is no image, too large, or takes too long.
        """
        return self.pool.look(self._image(path), faces=self._config.faces, crop_px=self.crop_px, view_px=VIEW_PX)

    def pixels(self, source: str | bytes) -> UInt8Array:
        """Decode an image, a path or the bytes of a file, to (H, W, 3) uint8 RGB.

        Raises:
            VlferError: As for `look`.
        """
        return self.pool.pixels(source if isinstance(source, bytes) else self._image(source))

    def video(
        self, path: str, *, fps: float | None = None, longest_s: float | None = None, side_px: int = 0
    ) -> AbstractContextManager[Clip]:
        """Open a video in a process of its own, which ends with the block.

        Args:
            path: The upload.
            fps: Frames wanted per second; None takes the configured number.
            longest_s: Longer ones are refused; None takes the limit of the app.
            side_px: Frames are scaled down to this longest side; 0 leaves them as they are.

        Raises:
            VideoReadError: If it is an image.
            VlferError: If it is no video or too long; so may reading its frames.
        """
        if media_kind(path) == "image":
            raise VideoReadError("This file is an image.", why="A video is needed here.", fix="the Photo tab.")
        return self.pool.video(
            Path(path), fps=fps or self._config.fps, longest_s=longest_s or self._limits.video_s, side_px=side_px
        )

    def annotate(self, path: str, timelines: Sequence[Timeline], out: Path) -> None:
        """Write a video with what was found drawn in.

        Raises:
            VlferError: If it cannot be read again, or takes too long.
        """
        self.pool.annotate(
            Path(path), timelines, out, threshold=self._config.threshold, tie_margin=self._config.tie_margin,
            within_s=_ANNOTATE_S,
        )  # fmt: skip

    def close(self) -> None:
        """End the processes that were started here."""
        with self._lock:
            if self._own is not None:
                self._own.close()
                self._own = None

    def _image(self, path: str) -> bytes:
        if not path:
            raise ImageReadError("There is no picture.", why="None was given.", fix="a file, or the camera.")
        size_mb = Path(path).stat().st_size / 2**20
        if size_mb > self._limits.photo_mb:
            raise DataError(
                f"The picture has {size_mb:.0f} MB.", why=f"At most {self._limits.photo_mb:g} MB are read here.",
                fix="a smaller copy of it.",
            )  # fmt: skip
        return Path(path).read_bytes()
