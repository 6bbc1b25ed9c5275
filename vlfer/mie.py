"""Recognise a micro-expression: a clip, or an onset and an apex, to motion, action units and labels in any words.

Wiring only: the face finder, registration, flow, the flow encoder and the scorer each live in a module of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vlfer.errors import DataError, NoFaceError
from vlfer.faces.detect import FaceDetector, overlap
from vlfer.faces.follow import Follows
from vlfer.micro.apex import find_apex
from vlfer.micro.canonical import Input, flow_input
from vlfer.micro.flow import NOISE_FLOOR, FlowMethod, Motion, measure_motion, published_image
from vlfer.micro.magnify import BAND_HZ, MAGNIFY_FEWEST_FRAMES, magnify_clip
from vlfer.micro.pictures import motion_picture
from vlfer.micro.registration import FacePair, face_width_px, reference_transform, register, warp_to_reference
from vlfer.micro.spotting import Interval, MotionTracer, spot, talking
from vlfer.micro.words import UNIT_SENTENCES
from vlfer.models.flow_encoder import FlowAdapter
from vlfer.scoring import decide, score, score_sentences, top_labels
from vlfer.types import Embedding, Face, FloatArray, Frames, Label, LabelSet, UInt8Array

SIDE_PX = 224
_SLOW_FPS = 50.0
_APEX_SIDE_PX = 112
_LONGEST_S = 0.5
_FEWEST_FRAMES = 3
_LEFT_PLACE = 0.08
_AROUND_S = 0.5
_SAME_PLACE = 0.6
_NO_NOTES: tuple[str, ...] = ()


class SentenceBank(Protocol):
    """What encodes sentences, in the space of the adapter."""

    def encode(self, sentences: Sequence[str]) -> Embedding:
        """Encode N sentences into N unit vectors."""
        ...


@dataclass(frozen=True, slots=True)
class Moments:
    """Where the expression is in its clip, as indices of frames.

    Attributes:
        onset: First frame of the expression, or the frame that was given.
        apex: Strongest frame.
        offset: End, or None where only two images were given.
        times_s: Their times in seconds; None for two images.
    """

    onset: int
    apex: int
    offset: int | None = None
    times_s: tuple[float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class MicroResult:
    """What one micro-expression shows.

    Attributes:
        label: The label, or None for an abstention.
        probability: Of the best label; relative to the labels given.
        top: Labels with probabilities, best first.
        units: Action units that the motion suggests, with their cosine similarity, best first.
        reason: Why it abstained; empty otherwise.
        moments: Onset, apex, offset.
        strength: 98th percentile of the motion as a fraction of the face's width.
        head_shift: How far the head moved, in the same unit.
        picture: (S, 3 S, 3) uint8 RGB: arrows, direction, strain.
        notes: What to bear in mind: slow video, several faces.
    """

    label: str | None
    probability: float
    top: tuple[tuple[str, float], ...]
    units: tuple[tuple[str, float], ...]
    reason: str
    moments: Moments
    strength: float
    head_shift: float
    picture: UInt8Array = field(repr=False)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MicroRecognizer:
    """Everything that an answer needs.

    Attributes:
        detector: Finds faces with the landmarks of the face mesh.
        adapter: The flow encoder.
        bank: The text tower that it was aligned with.
        labels: What is asked.
        method: Flow method.
        threshold: Abstain below this probability; None takes the scorer's default.
        magnify: Eulerian magnification before flow is measured; 1 for none. With a clip what moves within the band of
            a micro-expression is magnified, with two images their difference.
    """

    detector: FaceDetector
    adapter: FlowAdapter
    bank: SentenceBank
    labels: LabelSet
    method: FlowMethod = "farneback"
    threshold: float | None = None
    magnify: float = 1.0

    def recognize_pair(self, onset: UInt8Array, apex: UInt8Array) -> MicroResult:
        """Say what moved from one image to another.

        Args:
            onset: (H, W, 3) uint8 RGB.
            apex: (H, W, 3) uint8 RGB, possibly of another size.

        Raises:
            NoFaceError: If one of them shows no face.
            ShapeError: If one is no RGB image, or the detector gives no face mesh.
        """
        return self._answer(onset, apex, Moments(0, 1), ())

    def recognize_clip(self, clip: Frames, *, onset: int | None = None, apex: int | None = None) -> MicroResult:
        """Find onset and apex in a short clip, as far as they are not given, and say what moved.

        Args:
            clip: Frames of one expression, one face; at least three unless both moments are given.
            onset: Index of the onset; by default the last frame at rest before the apex.
            apex: Index of the apex; by default the strongest frame after the onset.

        Raises:
            DataError: If a moment lies outside the clip, or the onset is not before the apex.
            NoFaceError: If the onset or the apex shows no face.
            ShapeError: If the clip is too short to look for the apex.
        """
        self._check_moments(clip, onset, apex)
        start = onset or 0
        notes = _speed_notes(clip)
        if apex is None:
            found = find_apex(self._steady_faces(clip.pixels[start:], start))
            apex, offset = start + found.index, start + found.offset
            onset = start + found.onset if onset is None else onset
            if not found.is_clear:
                notes = (*notes, "no frame stands out, so the apex is little better than a guess")
        else:
            onset, offset = start, len(clip) - 1
        times = (float(clip.times_s[onset]), float(clip.times_s[apex]), float(clip.times_s[offset]))
        if times[2] - times[0] > _LONGEST_S:
            notes = (*notes, f"it lasts {times[2] - times[0]:.2f} s: longer than a micro-expression's half second")
        moments = Moments(onset, apex, offset, times)
        return self._answer(clip.pixels[onset], clip.pixels[apex], moments, notes, clip=clip)

    def _check_moments(self, clip: Frames, onset: int | None, apex: int | None) -> None:
        for name, index in (("onset", onset), ("apex", apex)):
            if index is not None and not 0 <= index < len(clip):
                raise DataError(f"The {name} is frame {index}.", why=f"The clip has frames 0 to {len(clip) - 1}.")
        if apex is not None and (onset or 0) >= apex:
            raise DataError(
                f"The onset is frame {onset or 0} and the apex frame {apex}.",
                why="An expression starts before it is strongest.", fix="swap them, or leave one out to have it found",
            )  # fmt: skip

    def _steady_faces(self, pixels: UInt8Array, first: int) -> UInt8Array:
        """Return all frames under the transform of the first, (T, S, S, 3): landmarks jitter more than faces move."""
        face, _ = self._face(pixels[0], f"frame {first}")
        transform = reference_transform(_mesh_of(face), side=_APEX_SIDE_PX)
        return np.stack([warp_to_reference(frame, transform, side=_APEX_SIDE_PX) for frame in pixels])

    def _face(self, pixels: UInt8Array, what: str) -> tuple[Face, str]:
        faces = self.detector.detect(pixels, effort="large")
        if not faces:
            raise NoFaceError(f"No face was found in the {what}.", why="Motion is measured between two faces.")
        note = f"{len(faces)} faces in the {what}: the largest was taken" if len(faces) > 1 else ""
        return faces[0], note

    def _same_face(self, apex: UInt8Array, first: Face, onset: UInt8Array) -> tuple[Face, str]:
        """Find the face of the onset again in the apex: near its place, which is soon looked at, or anywhere."""
        if apex.shape == onset.shape and isinstance(self.detector, Follows):
            near = self.detector.follow(apex, first)
            if near is not None and overlap(near.box, first.box)[0] > _SAME_PLACE:
                return near, ""
        return self._face(apex, "apex")

    def _answer(
        self, onset: UInt8Array, apex: UInt8Array, moments: Moments, notes: tuple[str, ...], *,
        clip: Frames | None = None,
    ) -> MicroResult:  # fmt: skip
        first, first_note = self._face(onset, "onset")
        second, second_note = self._same_face(apex, first, onset)
        pair = register(onset, apex, onset_landmarks=_mesh_of(first), apex_landmarks=_mesh_of(second), side=SIDE_PX)
        from_clip = None
        if clip is not None and self.magnify > 1 and pair.registered == "onset":
            from_clip = self._magnified(clip, moments, _mesh_of(first))
        frames = pair if from_clip is None else replace(pair, onset=from_clip[0], apex=from_clip[1])
        motion = measure_motion(frames, method=self.method, magnify=self.magnify, is_magnified=from_clip is not None)
        label, probability, top, units, reason = self._words(motion)
        return MicroResult(
            label=label,
            probability=probability,
            top=top,
            units=units,
            reason=reason,
            moments=moments,
            strength=motion.strength,
            head_shift=pair.shift,
            picture=motion_picture(pair.onset, motion),
            notes=tuple(note for note in (*notes, first_note, second_note, _head_note(pair)) if note),
        )

    def _magnified(self, clip: Frames, moments: Moments, mesh: FloatArray) -> tuple[UInt8Array, UInt8Array] | None:
        """Return onset and apex out of the magnified clip, or None if it is too short to know frequencies."""
        around = round(_AROUND_S * (fps := _fps(clip)))
        start, stop = max(0, moments.onset - around), min(len(clip), moments.apex + around + 1)
        if stop - start < MAGNIFY_FEWEST_FRAMES or BAND_HZ[0] >= 0.45 * fps:
            return None
        transform = reference_transform(mesh, side=SIDE_PX)
        faces = np.stack([warp_to_reference(frame, transform, side=SIDE_PX) for frame in clip.pixels[start:stop]])
        larger = magnify_clip(faces, fps=fps, factor=self.magnify)
        return larger[moments.onset - start], larger[moments.apex - start]

    def _words(
        self, motion: Motion
    ) -> tuple[str | None, float, tuple[tuple[str, float], ...], tuple[tuple[str, float], ...], str]:
        if motion.is_still:
            reason = (
                f"the face moved by {motion.strength:.2%} of its width, within what noise alone shows "
                f"({NOISE_FLOOR:.2%}): there is nothing to read"
            )
            return None, 0.0, (), (), reason
        image = published_image(motion)[None]
        kind: Input = "steady" if self.adapter.input == "steady" else "canonical"
        vector = self.adapter.encode(flow_input(image, kind=kind))
        scores = score(vector, self.labels, self.bank, temperature=self.adapter.temperature)
        [(label, reason)] = decide(scores, threshold=self.threshold)
        top, _ = top_labels(scores, 0)
        return label, top[0][1], top, self._units(vector), reason

    def _units(self, vector: Embedding, *, count: int = 4) -> tuple[tuple[str, float], ...]:
        names = LabelSet(tuple(Label(unit) for unit in UNIT_SENTENCES), name="action units")
        words = self.bank.encode([sentence for group in UNIT_SENTENCES.values() for sentence in group])
        owner = np.repeat(np.arange(len(names)), [len(group) for group in UNIT_SENTENCES.values()]).astype(np.int64)
        weight = np.ones(len(owner), dtype=np.float32)
        scores = score_sentences(vector, words, owner, weight, labels=names, temperature=self.adapter.temperature)
        order = np.argsort(-scores.similarity[0], kind="stable")[:count]
        return tuple((names.names[i], float(scores.similarity[0, i])) for i in order)


def _mesh_of(face: Face) -> FloatArray:
    if face.landmarks is None:
        raise DataError("The detector gave no landmarks.", why="Registration needs them.", fix="--detector mediapipe")
    return face.landmarks


def _head_note(pair: FacePair) -> str:
    pixels = pair.shift * face_width_px(pair.onset.shape[0])
    return f"the head moved by {pixels / pair.face_width_px:.1%} of the face's width" if pair.shift > 0.05 else ""


def _fps(clip: Frames) -> float:
    """Return frames a second, 0 where times do not tell."""
    if len(clip) < 2 or clip.times_s[-1] <= clip.times_s[0]:
        return 0.0
    return (len(clip) - 1) / float(clip.times_s[-1] - clip.times_s[0])


def _speed_notes(clip: Frames) -> tuple[str, ...]:
    fps = _fps(clip)
    if not fps or fps >= _SLOW_FPS:
        return ()
    return (
        f"at {fps:.0f} frames a second a micro-expression has {max(1, round(fps * _LONGEST_S))} frames at most, and "
        f"the apex is known to {1000 / fps:.0f} ms only: short ones are missed",
    )


@dataclass(frozen=True, slots=True)
class Spotted:
    """What was spotted in one video.

    Attributes:
        intervals: The expressions, in order of time.
        seconds_seen: How much of the video showed a face.
        notes: What to bear in mind.
    """

    intervals: tuple[Interval, ...]
    seconds_seen: float
    notes: tuple[str, ...] = ()


def spot_video(chunks: Iterable[Frames], *, detector: FaceDetector, recheck_s: float = 1.0) -> Spotted:
    """Spot expressions of the largest face of a video, in one pass; of past frames it keeps a few numbers only.

    An expression that spans the border of two stretches of `steady_faces` is lost.

    Args:
        chunks: The frames, in order.
        detector: Finds faces with the landmarks of the face mesh.
        recheck_s: How often the face is looked for again.

    Raises:
        NoFaceError: If no frame that was looked at shows a face.
    """
    found: list[Interval] = []
    seen, talked, started, last, stretch = 0.0, 0.0, 0.0, 0.0, -1
    tracer, speed = MotionTracer(), _NO_NOTES

    def heard() -> Iterator[Frames]:
        nonlocal speed
        for chunk in chunks:
            speed = speed or _speed_notes(chunk)
            yield chunk

    def finish() -> None:
        nonlocal found, seen, talked
        seen += last - started if len(tracer) else 0.0
        if len(tracer) >= _FEWEST_FRAMES:
            trace = tracer.trace()
            found += spot(trace)
            talked += float(talking(trace).mean()) * (last - started)

    for face in steady_faces(heard(), detector=detector, side=_APEX_SIDE_PX, recheck_s=recheck_s):
        if face.stretch != stretch:
            finish()
            tracer, stretch, started = MotionTracer(), face.stretch, face.time_s
        tracer.add(face.time_s, face.pixels)
        last = face.time_s
    finish()
    if not seen:
        raise NoFaceError("No face was found in the video.", why="Expressions are spotted on a face.")
    speech = f"the face talks for {talked:.0f} s, in which its mouth and chin are not read"
    return Spotted(tuple(found), seen, (*speed, speech) if talked >= 1 else speed)


@dataclass(frozen=True, slots=True)
class SteadyFace:
    """A face in the reference frame.

    Attributes:
        stretch: Number of the stretch of video that shares one transform.
        time_s: When.
        pixels: (S, S, 3) uint8 RGB.
    """

    stretch: int
    time_s: float
    pixels: UInt8Array = field(repr=False)


def steady_faces(
    chunks: Iterable[Frames], *, detector: FaceDetector, side: int, recheck_s: float = 1.0
) -> Iterator[SteadyFace]:
    """Yield the largest face of every frame that shows one, in stretches that share the transform of their first face.

    Landmarks jitter by more than a face moves, so they are not followed from frame to frame. Once in a while the face
    is looked for again; if it has left its place by more than 8 % of its width, or was gone, a new stretch begins.

    Args:
        chunks: The frames, in order.
        detector: Finds faces with the landmarks of the face mesh.
        side: S in pixels.
        recheck_s: How often the face is looked for again.
    """
    transform, checked, stretch = None, -np.inf, -1
    for chunk in chunks:
        for pixels, time_s in zip(chunk.pixels, chunk.times_s.tolist(), strict=True):
            if time_s - checked >= recheck_s:
                checked = time_s
                faces = detector.detect(pixels, effort="large")
                new = reference_transform(_mesh_of(faces[0]), side=side) if faces else None
                if new is None or transform is None or _apart(transform, new, _mesh_of(faces[0]), side) > _LEFT_PLACE:
                    transform, stretch = new, stretch + 1
            if transform is not None:
                yield SteadyFace(stretch, time_s, warp_to_reference(pixels, transform, side=side))


def _apart(one: NDArray[np.float64], other: NDArray[np.float64], landmarks: FloatArray, side: int) -> float:
    """Return how far two transforms take a face apart, as a fraction of its width."""
    centre = np.append(landmarks.mean(axis=0), 1.0)
    return float(np.linalg.norm((one - other) @ centre)) / face_width_px(side)
