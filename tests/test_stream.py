import numpy as np
import pytest

from vlfer.bench.clips import make_clip
from vlfer.collect import MOST_KEPT_THUMBS, MOST_THUMBNAILS
from vlfer.errors import VideoReadError
from vlfer.faces.follow import DEFAULT_FIT_EVERY_S, FaceFollower
from vlfer.pipeline import load_pipeline
from vlfer.stream import embed_stream
from vlfer.types import Embedding, Face, Frames
from vlfer.video.read import read_video

STILL = 8  # frames of one grey; that of the next is no cut


def chunks_of(n, *, size=4, fps=10.0, fail_after=None):
    """Frames whose grey tells their number by eights; the stream breaks after ``fail_after`` frames."""
    for first in range(0, n, size):
        if fail_after is not None and first >= fail_after:
            raise VideoReadError("The file is truncated.", why="It ends early.")
        numbers = np.arange(first, min(first + size, n))
        pixels = np.broadcast_to(numbers[:, None, None, None] // STILL % 256, (len(numbers), 8, 8, 3)).astype(np.uint8)
        yield Frames(pixels, numbers / fps)


def box(x):
    return np.array([x, 10, x + 50, 60], np.float32)


def two_faces(pixels):
    """One face stands still at the left, the other at the right."""
    return [Face(box(0), 0.9), Face(box(500), 0.8)], ""


def no_face(pixels):
    return [], "no face found"


def crop(pixels, face):
    """The frame's number in red, the face's place in green."""
    picture = np.zeros((4, 4, 3), np.uint8)
    picture[..., 0] = pixels[0, 0, 0]
    picture[..., 1] = 200 if face.box[0] > 100 else 20
    return picture


class Encoder:
    """Turns red and green into a direction, and remembers the batches."""

    def __init__(self):
        self.batches = []

    def __call__(self, pixels):
        self.batches.append(len(pixels))
        vectors = np.stack([pixels[:, 0, 0, 0] + 1.0, pixels[:, 0, 0, 1] + 1.0], axis=1).astype(np.float32)
        return Embedding(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), "s")


def test_each_face_keeps_its_own_vectors_in_order_of_time():
    encode = Encoder()
    found = embed_stream(chunks_of(10), find=two_faces, crop=crop, encode=encode)
    assert found.n_frames == 10
    assert found.last_s == pytest.approx(0.9)
    assert len(found.tracks) == 2
    assert encode.batches == [16, 4]  # the faces of two chunks go through at once
    for one in found.tracks:
        green = 200 if one.track.boxes[0, 0] > 100 else 20
        want = np.stack([np.arange(10) // STILL + 1.0, np.full(10, green + 1.0)], axis=1)
        np.testing.assert_allclose(one.embedding.vectors, want / np.linalg.norm(want, axis=1, keepdims=True), atol=1e-6)
        np.testing.assert_allclose(one.times_s, np.arange(10) / 10)


@pytest.mark.parametrize("size", [1, 3, 10, 64])
def test_chunked_equals_whole(size):
    found = embed_stream(chunks_of(10, size=size), find=two_faces, crop=crop, encode=Encoder())
    whole = embed_stream(chunks_of(10, size=10), find=two_faces, crop=crop, encode=Encoder())
    for one, other in zip(found.tracks, whole.tracks, strict=True):
        np.testing.assert_allclose(one.embedding.vectors, other.embedding.vectors, atol=1e-6)
        np.testing.assert_array_equal(one.track.boxes, other.track.boxes)


@pytest.mark.parametrize("fail_after", [4, 8])  # before as many faces as go through at once were gathered, and after
def test_a_stream_that_breaks_keeps_what_it_had(fail_after):
    found = embed_stream(chunks_of(20, fail_after=fail_after), find=two_faces, crop=crop, encode=Encoder())
    assert isinstance(found.failure, VideoReadError)
    assert found.n_frames == fail_after
    assert {len(one.track) for one in found.tracks} == {fail_after}


def test_a_stream_that_never_starts_is_an_error():
    with pytest.raises(VideoReadError, match="truncated"):
        embed_stream(chunks_of(20, fail_after=0), find=two_faces, crop=crop, encode=Encoder())


def test_frames_without_faces_are_counted_and_their_note_kept_once():
    found = embed_stream(chunks_of(6), find=no_face, crop=crop, encode=Encoder())
    assert (found.n_frames, found.tracks, list(found.notes)) == (6, [], ["no face found"])


def test_thumbnails_stay_few_however_long_the_stream():
    found = embed_stream(chunks_of(6 * MOST_KEPT_THUMBS, size=64), find=two_faces, crop=crop, encode=Encoder())
    for one in found.tracks:
        assert MOST_THUMBNAILS / 2 <= len(one.thumbnails) <= MOST_THUMBNAILS
        times_s = np.array([time_s for time_s, _ in one.thumbnails])
        assert (np.diff(times_s) > 0).all()
        assert times_s[-1] > 0.8 * found.last_s


def test_frames_without_faces_are_told_of_before_the_end():
    told = []
    embed_stream(chunks_of(200), find=no_face, crop=crop, encode=Encoder(), on_frames=told.append)
    assert told == [64, 128, 192, 200]


def test_progress_counts_frames():
    told = []
    embed_stream(chunks_of(10), find=two_faces, crop=crop, encode=Encoder(), on_frames=told.append)
    assert told == [8, 10]


@pytest.mark.slow
def test_scores_with_flow_between_fits_are_those_of_a_fit_in_every_frame(tmp_path):
    pipeline = load_pipeline("bundled", labels="ekman7", faces="detect", fps=100.0, device="cpu")
    tools = pipeline.clip_tools()
    clip = make_clip(tmp_path / "one.mp4", people=1, seconds=2.0, size=(640, 360))
    told = []
    for fit_every_s in (0.0, DEFAULT_FIT_EVERY_S):
        follower = FaceFollower(tools.find, follower=tools.follower, fit_every_s=fit_every_s)
        stream = embed_stream(
            read_video(clip.path), find=tools.find, crop=tools.crop, encode=tools.encode, follower=follower
        )
        (seen,) = stream.tracks
        assert len(seen.times_s) == 60
        told.append(pipeline.score(seen.embedding))
    every, between = told
    assert (every.probability.argmax(axis=1) == between.probability.argmax(axis=1)).all()
    assert np.abs(every.probability - between.probability).max() < 0.05
    assert np.abs(every.similarity - between.similarity).max() < 0.03
