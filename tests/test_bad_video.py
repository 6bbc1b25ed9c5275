"""Videos as they come: changing size, turned, huge, misnamed, cut off, silent pictures and pictureless sound."""

import shutil

import av
import numpy as np
import pytest

from vlfer.config import PredictConfig
from vlfer.export.film import write_annotated
from vlfer.pipeline import EmotionPipeline
from vlfer.text.bank import TextBank
from vlfer.text.labels import parse_labels
from vlfer.types import Face
from vlfer.video.read import media_kind, probe_video, read_video


class BrightFace:
    name = "bright"

    def detect(self, pixels, *, effort="thorough"):
        y, x = np.nonzero(pixels[..., 0] > 150)
        return [Face(np.array([x.min(), y.min(), x.max() + 1, y.max() + 1], np.float32), 0.9)] if len(x) else []


@pytest.fixture
def pipeline(tiny_backbone):
    config = PredictConfig(labels="joy, grief", faces="detect", fps=100.0)
    labels = parse_labels("joy, grief")
    return EmotionPipeline(
        tiny_backbone, labels=labels, bank=TextBank(tiny_backbone), detector=BrightFace(), config=config
    )


def film(path, *, size=(160, 120), count=12, first=0, face=True):
    """A bright square on the left half; ``first`` shifts its times."""
    width, height = size
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(count):
            pixels = np.full((height, width, 3), 30, np.uint8)
            if face:
                pixels[height // 4 : height // 2, width // 8 : width // 8 + height // 4] = 220
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = first + number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def only(pipeline, path):
    (analysis,) = pipeline.analyse([path])
    return analysis


def test_a_changing_resolution_is_read_through(pipeline, tmp_path):
    small = film(tmp_path / "small.ts")
    large = film(tmp_path / "large.ts", size=(320, 240), first=12)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(small.read_bytes() + large.read_bytes())
    assert sum(len(chunk) for chunk in read_video(joined)) == 24  # decord brings all to the first size
    analysis = only(pipeline, joined)
    assert analysis.report.status == "ok"
    assert analysis.n_frames == 24
    assert write_annotated(joined, analysis.timelines, tmp_path / "out.mp4") == 24


def test_a_phone_video_held_upright_is_upright_in_all_results(pipeline, tmp_path):
    import struct

    wide = film(tmp_path / "wide.mp4")
    data = bytearray(wide.read_bytes())
    at = data.find(b"tkhd") + 4
    at += 4 + (20 if data[at] == 0 else 32) + 16
    data[at : at + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    phone = tmp_path / "phone.mp4"
    phone.write_bytes(data)
    assert (probe_video(phone).width, probe_video(phone).height) == (120, 160)
    analysis = only(pipeline, phone)
    x0, y0, x1, y1 = analysis.report.predictions[0].box
    assert 0 <= x0 < x1 <= 120
    assert 0 <= y0 < y1 <= 80  # the left half is now above
    write_annotated(phone, analysis.timelines, tmp_path / "out.mp4")
    info = probe_video(tmp_path / "out.mp4")
    assert (info.width, info.height, info.rotation_deg) == (120, 160, 0)


def test_4k_is_read_in_small_chunks(pipeline, tmp_path):
    path = film(tmp_path / "large.mp4", size=(3840, 2160), count=4)
    assert max(chunk.pixels.nbytes for chunk in read_video(path)) <= 64 * 2**20
    analysis = only(pipeline, path)
    assert (analysis.report.status, analysis.n_frames) == ("ok", 4)


def test_a_video_under_another_name_is_a_video(pipeline, tmp_path):
    path = film(tmp_path / "film.mp4")
    misnamed = tmp_path / "holiday.jpg"
    shutil.copy(path, misnamed)
    assert media_kind(misnamed) == "video"
    assert only(pipeline, misnamed).n_frames == 12


def test_a_truncated_video_says_how_much_there_was(pipeline, tmp_path, caplog):
    path = tmp_path / "cut.mp4"
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=10, options={"preset": "ultrafast", "crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        stream.codec_context.gop_size = 5
        noise = np.random.default_rng(0)
        for _ in range(40):
            pixels = noise.integers(0, 120, (120, 160, 3), dtype=np.uint8)
            pixels[30:60, 20:50] = 220
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    analysis = only(pipeline, path)
    assert analysis.report.predictions
    assert 10 <= analysis.n_frames < 40
    assert "of 40 frames could be read" in caplog.text


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [("empty.mp4", b"", "empty"), ("text.mp4", b"not a video\n" * 40, "text"), ("zeros.mp4", bytes(5000), "video")],
)
def test_what_is_no_video_is_told(pipeline, tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    report = only(pipeline, path).report
    assert report.status == "error"
    assert words in report.message
    assert name in report.message


def test_sound_without_a_picture_is_told(pipeline, tmp_path):
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        tone = container.add_stream("aac", rate=16000, layout="mono")
        chunk = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        chunk.sample_rate = 16000
        container.mux(tone.encode(chunk))
        container.mux(tone.encode())
    assert "sound only" in only(pipeline, path).report.message


def test_a_face_that_never_appears_is_no_error_of_the_program(pipeline, tmp_path):
    report = only(pipeline, film(tmp_path / "empty.mp4", face=False)).report
    assert (report.status, report.error_type) == ("no_face", "NoFaceError")
    assert "12 frames" in report.message
