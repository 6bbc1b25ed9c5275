"""Recognition end to end on a real face with made motion; words through a text tower that is a table."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from skimage.data import astronaut

from vlfer.errors import AdapterError, DataError, NoFaceError
from vlfer.faces.detect import build_detector
from vlfer.micro.registration import reference_transform
from vlfer.micro.samples import SIDE, FlowSamples
from vlfer.micro.synthetic import units_field, warp
from vlfer.micro.words import UNIT_SENTENCES, parse_units
from vlfer.mie import MicroRecognizer
from vlfer.models.flow_encoder import FlowEncoder, load_flow_adapter, save_flow_adapter
from vlfer.text.labels import parse_labels
from vlfer.training.mie_align import AlignSettings, made_motion, train_flow_encoder
from vlfer.types import Embedding, Frames

SPACE = "table"


class Table:
    """A text tower that gives every sentence a direction of its own."""

    def encode(self, sentences) -> Embedding:
        rows = []
        for sentence in sentences:
            seed = int.from_bytes(hashlib.sha256(sentence.encode()).digest()[:4], "little")
            rows.append(np.random.default_rng(seed).normal(size=64))
        vectors = np.array(rows)
        return Embedding((vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), SPACE)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    rng = np.random.default_rng(5)
    made = [made_motion(rng) for _ in range(96)]
    samples = FlowSamples(
        flow=np.stack([image for image, _ in made]), label=np.zeros(96, np.int64), dataset=np.full(96, "made"),
        subject=np.arange(96).astype(str), clip=np.arange(96).astype(str), classes=("any",),
    )  # fmt: skip
    settings = AlignSettings(epochs=30, batch=32)
    encoder = train_flow_encoder(samples, [true for _, true in made], bank=Table(), settings=settings)
    folder = tmp_path_factory.mktemp("adapter")
    save_flow_adapter(encoder, folder, space=SPACE, temperature=0.07, input_kind="canonical", facts={"clips": 96})
    return load_flow_adapter(folder, space=SPACE)


@pytest.fixture(scope="module")
def recognizer(adapter) -> MicroRecognizer:
    labels = parse_labels("smile, frown, raised brows")
    words = {"smile": UNIT_SENTENCES["AU12"], "frown": UNIT_SENTENCES["AU4"], "raised brows": UNIT_SENTENCES["AU2"]}
    described = tuple(replace(label, descriptors=words[label.name]) for label in labels.labels)
    return MicroRecognizer(build_detector(), adapter, Table(), replace(labels, labels=described), threshold=0.0)


def moved(units: list[str], peak_px: float = 2.0) -> np.ndarray:
    """The portrait with these units pushed, ``peak_px`` in a reference of 224 pixels."""
    import cv2

    pixels = astronaut()
    landmarks = build_detector().detect(pixels, effort="fast")[0].landmarks
    to_reference = reference_transform(landmarks, side=224)
    size = float(np.hypot(to_reference[0, 0], to_reference[1, 0]))
    local = units_field(units, side=224, amplitude_px=peak_px) / size
    back = cv2.warpAffine(local, to_reference, (512, 512), flags=cv2.WARP_INVERSE_MAP)
    return warp(pixels, back)


@pytest.mark.parametrize(("units", "name"), [(["AU12"], "smile"), (["AU4"], "frown"), (["AU1", "AU2"], "raised brows")])
def test_made_motion_on_a_real_face_is_named(recognizer, units, name) -> None:
    result = recognizer.recognize_pair(astronaut(), moved(units))
    assert result.top[0][0] == name
    assert result.label == name
    assert {unit for unit, _ in result.units} & set(units)
    assert result.picture.shape == (224, 672, 3)
    assert result.strength > 0.004


def test_identical_frames_abstain(recognizer) -> None:
    result = recognizer.recognize_pair(astronaut(), astronaut())
    assert result.label is None
    assert "nothing to read" in result.reason
    assert result.top == ()


def test_no_face_in_the_apex_is_told(recognizer) -> None:
    with pytest.raises(NoFaceError, match="apex"):
        recognizer.recognize_pair(astronaut(), np.full((200, 200, 3), 90, np.uint8))


def test_two_faces_and_other_size(recognizer) -> None:
    wide = np.concatenate([astronaut(), astronaut()[:, ::-1]], axis=1)
    result = recognizer.recognize_pair(wide, moved(["AU12"]))
    assert any("2 faces in the onset" in note for note in result.notes)


def clip(fps: float, rise: list[float]) -> Frames:
    frames = np.stack([moved(["AU12"], 2.0 * r) if r else astronaut() for r in rise])
    return Frames(frames, np.arange(len(rise)) / fps, "made")


def test_five_frames_at_25_fps(recognizer) -> None:
    result = recognizer.recognize_clip(clip(25, [0, 0.4, 1, 0.4, 0]))
    assert result.moments.apex == 2
    assert result.moments.times_s == pytest.approx((0.0, 0.08, 0.12), abs=0.041)
    assert result.top[0][0] == "smile"
    assert any("25 frames a second" in note and "12 frames at most" in note for note in result.notes)
    assert not recognizer.recognize_clip(clip(200, [0, 0.4, 1, 0.4, 0])).notes


def test_moments_out_of_order_or_outside(recognizer) -> None:
    still = clip(100, [0, 0, 0, 0])
    with pytest.raises(DataError, match="starts before it is strongest"):
        recognizer.recognize_clip(still, onset=3, apex=1)
    with pytest.raises(DataError, match="frames 0 to 3"):
        recognizer.recognize_clip(still, apex=9)


def test_adapter_refuses_another_space_and_changed_weights(tmp_path) -> None:
    torch.manual_seed(0)
    save_flow_adapter(FlowEncoder(8), tmp_path, space="a", temperature=0.1, input_kind="canonical", facts={})
    assert load_flow_adapter(tmp_path, space="a").encode(np.ones((2, SIDE, SIDE, 3), np.float32)).vectors.shape == (
        2,
        8,
    )
    with pytest.raises(AdapterError, match=r"'a'.*'b'"):
        load_flow_adapter(tmp_path, space="b")
    weights = tmp_path / "flow.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(AdapterError, match="changed or damaged"):
        load_flow_adapter(tmp_path, space="a")
    with pytest.raises(AdapterError, match="no adapter"):
        load_flow_adapter(tmp_path / "none", space="a")


def test_annotations_are_read() -> None:
    assert parse_units("4+L10") == ("AU4", "AU10")
    assert parse_units("R14, 17+17") == ("AU14", "AU17")
    assert parse_units("") == ()
    assert parse_units("99") == ()


def test_spotting_a_video_that_loses_the_face(recognizer) -> None:
    from vlfer.mie import spot_video

    blank = np.full((512, 512, 3), 60, np.uint8)
    levels = [0, 0, 0, 0, 0, 0.5, 1, 1, 0.5] + [0] * 16
    smiles = [moved(["AU12"], 4 * level) if level else astronaut() for level in levels]
    pixels = np.stack([*smiles, *[blank] * 10])
    chunk = Frames(pixels, np.arange(len(pixels)) / 25, "made")
    spotted = spot_video([chunk], detector=recognizer.detector, recheck_s=0.4)
    [found] = spotted.intervals
    assert found.kind == "micro"
    assert found.apex_s == pytest.approx(0.26, abs=0.05)
    assert spotted.seconds_seen == pytest.approx(24 / 25 + 0.2, abs=0.25)
    with pytest.raises(NoFaceError, match="in the video"):
        spot_video([Frames(pixels[-10:], np.arange(10) / 25, "blank")], detector=recognizer.detector)


def test_a_face_that_talks_is_said_to(recognizer) -> None:
    from vlfer.mie import spot_video

    mouths = [moved(["AU26"], 5 * level) if level else astronaut() for level in (0.0, 0.5, 1.0, 0.5)]
    pixels = np.stack([mouths[i % 4] for i in range(48)])  # four syllables a second
    spotted = spot_video([Frames(pixels, np.arange(48) / 16, "made")], detector=recognizer.detector)
    assert spotted.intervals == ()
    assert any("talks for 3 s" in note for note in spotted.notes)


def _trembling(amplitude_px: float, *, frames: int = 40, fps: float = 100.0) -> Frames:
    """A smile that comes and goes once in 0.4 s, with a little noise."""
    rng = np.random.default_rng(0)
    push = moved(["AU12"], 2.0).astype(float) - astronaut()
    level = amplitude_px / 2.0 * (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(frames) / frames))
    pixels = astronaut()[None] + level[:, None, None, None] * push[None] + rng.normal(0, 0.5, (frames, 512, 512, 3))
    return Frames(pixels.clip(0, 255).round().astype(np.uint8), np.arange(frames) / fps, "trembling")


def test_magnifying_reads_a_motion_that_is_too_small_otherwise(recognizer) -> None:
    clip = _trembling(0.5)
    plain = recognizer.recognize_clip(clip, onset=0, apex=20)
    larger = replace(recognizer, magnify=6.0).recognize_clip(clip, onset=0, apex=20)
    assert larger.units[0][0] == "AU12"
    assert larger.strength == pytest.approx(plain.strength, rel=0.6)  # in the unit of the face, not magnified


def test_magnifying_two_images(recognizer) -> None:
    result = replace(recognizer, magnify=3.0).recognize_pair(astronaut(), moved(["AU12"], 0.8))
    assert result.top[0][0] == "smile"
