import itertools
import threading
import time

import numpy as np
import pytest

from vlfer.errors import MediaReadError, VideoReadError
from vlfer.video.ahead import read_ahead
from vlfer.video.live import LiveSource, open_live

from .rtsp import RtspCamera, transport_stream


def picture(number):
    return np.full((4, 4, 3), number % 256, np.uint8)


def test_the_newest_frame_is_seen_and_the_others_are_counted():
    looked = threading.Event()

    def stream():
        yield picture(0)
        looked.wait(5)
        yield from (picture(i) for i in range(1, 50))

    live = LiveSource("made", stream, ends=True)
    frames = live.frames()
    assert next(frames).pixels[0, 0, 0] == 0
    looked.set()
    time.sleep(0.3)  # the caller is slow
    rest = [int(frame.pixels[0, 0, 0]) for frame in frames]
    assert rest[-1] == 49
    assert live.n_read == 50
    assert live.n_dropped == 50 - 1 - len(rest)
    assert live.n_dropped > 40


def test_times_are_those_of_arrival():
    frames = list(LiveSource("made", lambda: iter([picture(0)]), ends=True).frames())
    assert len(frames) == 1
    assert 0 <= frames[0].time_s < 5


def test_a_lost_connection_is_made_again_and_the_wait_starts_over():
    attempts = []

    def stream():
        attempts.append(time.perf_counter())
        if len(attempts) in (2, 3):
            raise OSError("connection refused")
        yield picture(len(attempts))
        time.sleep(0.02)

    live = LiveSource("camera", stream, reconnects=3, first_wait_s=0.02)
    seen = [int(frame.pixels[0, 0, 0]) for frame in itertools.islice(live.frames(), 3)]
    assert seen == [1, 4, 5]
    assert live.n_reconnects >= 4
    assert attempts[2] - attempts[1] > 0.03  # the second wait is longer


def test_a_source_that_stays_away_ends_clearly():
    calls = []

    def stream():
        calls.append(None)
        if len(calls) > 1:
            raise OSError("no route to host")
        yield picture(0)

    live = LiveSource("camera", stream, reconnects=2, first_wait_s=0.01)
    with pytest.raises(VideoReadError, match=r"camera was lost after 1 frames: no route to host.*2 attempts"):
        list(live.frames())
    assert len(calls) == 3  # an end without an error is a lost connection too


def test_a_source_that_never_opens_says_so():
    def stream():
        raise OSError("connection refused")
        yield

    with pytest.raises(VideoReadError, match="cannot be opened: connection refused"):
        list(LiveSource("camera", stream, reconnects=1, first_wait_s=0.01).frames())


def test_leaving_early_ends_the_thread():
    live = LiveSource("made", lambda: (picture(i) for i in itertools.count()))
    frames = live.frames()
    next(frames)
    frames.close()
    assert not any(thread.name == "vlfer-live" and thread.is_alive() for thread in threading.enumerate())


def test_a_file_is_played_at_its_own_pace(clip):
    begun = time.perf_counter()
    live = open_live(str(clip))  # 40 frames at 25 fps
    times_s = [frame.time_s for frame in live.frames()]
    assert time.perf_counter() - begun > 1.4
    assert live.n_read == 40
    assert len(times_s) == live.n_read - live.n_dropped


def test_what_is_no_source_is_refused(tmp_path):
    with pytest.raises(MediaReadError, match="no live source"):
        open_live(str(tmp_path / "nothing.mp4"))


def test_a_webcam_that_is_not_there_is_told_at_once():
    with pytest.raises(VideoReadError, match="no webcam 77"):
        list(open_live("77").frames())


def test_a_stream_that_is_not_there_ends_and_hides_its_password():
    with pytest.raises(VideoReadError, match=r"me:\*\*\*@127\.0\.0\.1"):
        list(open_live("rtsp://me:secret@127.0.0.1:9/cam", reconnects=0).frames())


def test_a_stream_over_http_is_read(clip):
    import functools
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(clip.parent)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        live = open_live(f"http://127.0.0.1:{server.server_address[1]}/{clip.name}", reconnects=1, first_wait_s=0.01)
        frames = list(itertools.islice(live.frames(), 1))
    finally:
        server.shutdown()
        server.server_close()
    assert frames[0].pixels.shape == (120, 160, 3)


def watch_to_the_end(live, *, look_s=0.0):
    """Return how many frames were seen, and the error at the end."""
    seen = 0
    try:
        for frame in live.frames():
            assert frame.pixels.shape == (120, 160, 3)
            seen += 1
            time.sleep(look_s)
    except VideoReadError as error:
        return seen, str(error)
    raise AssertionError("the stream ended without an error")


def test_a_camera_that_dies_is_reconnected_and_then_given_up_with_every_frame_accounted_for():
    camera = RtspCamera(transport_stream(200), sessions=2)
    try:
        live = open_live(camera.address, reconnects=2, first_wait_s=0.05)
        seen, error = watch_to_the_end(live, look_s=0.2)
    finally:
        camera.close()
    assert "was lost after" in error
    assert "did not come back in 2 attempts" in error
    assert live.n_reconnects == 3  # once with frames, which begins the count anew, and twice in vain
    assert live.n_read >= 10  # what comes while the stream is being recognised is not shown
    assert live.n_dropped > 0
    assert seen + live.n_dropped == live.n_read


def test_a_stream_over_http_that_stops_early_is_reconnected():
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    data, served = transport_stream(200), []

    class Camera(BaseHTTPRequestHandler):
        def do_GET(self):
            served.append(None)
            self.send_response(200 if len(served) <= 2 else 404)
            self.send_header("Content-Type", "video/mp2t")
            self.end_headers()
            if len(served) <= 2:
                self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        live = open_live(f"http://127.0.0.1:{server.server_address[1]}/camera.ts", reconnects=1, first_wait_s=0.02)
        seen, error = watch_to_the_end(live)
    finally:
        server.shutdown()
        server.server_close()
    assert len(served) == 3  # the second gave frames, or the third would not have been tried
    assert live.n_read >= 10
    assert seen + live.n_dropped == live.n_read
    assert "did not come back in 1 attempts" in error


def test_reading_ahead_changes_nothing():
    assert list(read_ahead(range(100), depth=3)) == list(range(100))
    assert list(read_ahead([])) == []


def test_an_error_comes_after_what_was_before_it():
    def items():
        yield from range(5)
        raise VideoReadError("truncated")

    ahead = read_ahead(items())
    assert list(itertools.islice(ahead, 5)) == list(range(5))
    with pytest.raises(VideoReadError, match="truncated"):
        next(ahead)


def test_stopping_early_closes_the_items():
    closed = threading.Event()

    def items():
        try:
            yield from itertools.count()
        finally:
            closed.set()

    ahead = read_ahead(items())
    assert next(ahead) == 0
    ahead.close()
    assert closed.wait(5)
