"""Edge mode: faces are found, and if wanted encoded, on the device; pictures of people never leave it.

Of a face either its crop travels (S x S pixels as PNG, so that not a bit is lost) or its vector (384 numbers). The
server's scores are those of a full upload.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from vlfer.errors import NoFaceError
from vlfer.pipeline import EmotionPipeline
from vlfer.serve.client import Labels, VlferClient
from vlfer.types import Face, FloatArray, UInt8Array


@dataclass(frozen=True, slots=True)
class OnDevice:
    """What a device knows of an image.

    Attributes:
        faces: N faces, largest first.
        crops: (N, S, S, 3) uint8 RGB.
    """

    faces: tuple[Face, ...]
    crops: UInt8Array


class EdgeClient:
    """Looks at images here and lets a server score what it saw.

    Args:
        pipeline: Finds faces and, for `ask_with_vectors`, encodes them; its backbone must be that of the server.
        client: Reaches the server.
    """

    def __init__(self, pipeline: EmotionPipeline, client: VlferClient) -> None:
        self._pipeline = pipeline
        self._client = client

    def look(self, pixels: UInt8Array) -> OnDevice:
        """Find and cut out the faces of an image (H, W, 3) uint8 RGB.

        Raises:
            NoFaceError: If there is none.
        """
        faces, _ = self._pipeline.find(pixels, effort="thorough")
        if not faces:
            raise NoFaceError("No face was found.")
        return OnDevice(tuple(faces), np.stack([self._pipeline.crop(pixels, face) for face in faces]))

    def encode(self, seen: OnDevice) -> FloatArray:
        """Return the vectors (N, D) float32 of the faces."""
        return self._pipeline.encode(seen.crops).vectors

    def ask_with_vectors(self, pixels: UInt8Array, *, labels: Labels = "ekman7", **fields: Any) -> list[dict[str, Any]]:
        """Send one vector a face; return one answer a face, with its box."""
        seen = self.look(pixels)
        answer = self._client.score(self.encode(seen), self._pipeline.encoder.space, labels=labels, **fields)
        return _with_boxes(answer["faces"], seen)

    def ask_with_crops(self, pixels: UInt8Array, *, labels: Labels = "ekman7", **fields: Any) -> list[dict[str, Any]]:
        """Send one small picture a face, for devices without a tower; return one answer a face, with its box."""
        seen = self.look(pixels)
        answers = [
            self._client.image(png_of(crop), labels=labels, faces="whole", **fields)["faces"][0] for crop in seen.crops
        ]
        return _with_boxes(answers, seen)


def png_of(crop: UInt8Array) -> bytes:
    """Return a crop (S, S, 3) as the bytes of a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(crop).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _with_boxes(answers: Sequence[dict[str, Any]], seen: OnDevice) -> list[dict[str, Any]]:
    return [
        {**answer, "face": number, "box": [float(side) for side in face.box]}
        for number, (answer, face) in enumerate(zip(answers, seen.faces, strict=True))
    ]
