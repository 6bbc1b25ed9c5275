"""What a program gets through Gradio's own client."""

from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image


@pytest.fixture(scope="module")
def client(app_url: str) -> Any:
    return Client(app_url, verbose=False, analytics_enabled=False)


def test_photo_in_any_words(client: Any, portrait: str) -> None:
    answer = client.predict(handle_file(portrait), "a broad smile, weeping", api_name="/photo")
    (face,) = answer["faces"]
    assert face["label"] == "a broad smile"
    assert sum(share for _, share in face["top"]) == pytest.approx(1, abs=1e-4)
    assert "an expression of a broad smile" in answer["sentences"]["a broad smile"]
    assert "not felt" in answer["reading"]


def test_only_what_is_meant_for_programs_is_offered(client: Any) -> None:
    assert list(client.view_api(return_format="dict")["named_endpoints"]) == ["/photo", "/video"]


def test_errors_are_told_in_three_parts(client: Any, tmp_path: Path) -> None:
    text = tmp_path / "photo.png"
    text.write_text("hello")
    with pytest.raises(AppError, match=r"is not an image.*Try:") as caught:
        client.predict(handle_file(str(text)), "joy, gloom", api_name="/photo")
    assert str(tmp_path.parent) not in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_video_in_any_words(client: Any, clips: dict[str, str]) -> None:
    answer = client.predict(handle_file(clips["moods"]), "a broad smile, weeping", api_name="/video")
    assert answer["segments"][-1]["end_s"] == pytest.approx(6.9, abs=0.2)
    assert {name for one in answer["segments"] for name, _ in one["top"]} == {"a broad smile", "weeping"}
    assert "not felt" in answer["reading"]


def test_what_is_too_large_once_decoded_is_refused(client: Any, tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.png"
    head = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(bytes(10_000_000), 9)), (b"IEND", b""))
    bomb.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    )
    with pytest.raises(AppError, match="50000 x 50000"):
        client.predict(handle_file(str(bomb)), "joy, gloom", api_name="/photo")
    flat = tmp_path / "flat.png"
    Image.new("RGB", (4000, 1001)).save(flat)
    with pytest.raises(AppError, match="4,000,000"):
        client.predict(handle_file(str(flat)), "joy, gloom", api_name="/photo")
    large = tmp_path / "large.png"
    large.write_bytes(bomb.read_bytes() + bytes(3 * 2**20))
    with pytest.raises(AppError, match="At most 2 MB"):
        client.predict(handle_file(str(large)), "joy, gloom", api_name="/photo")


def test_a_video_of_two_hours_is_refused(client: Any, tmp_path: Path) -> None:
    path = tmp_path / "long.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=1, options={"preset": "ultrafast"})
        stream.width = stream.height = 64
        frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        for number in range(7200):
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(AppError, match=r"7200 s.*At most 30 s"):
        client.predict(handle_file(str(path)), "joy, gloom", api_name="/video")


@pytest.mark.parametrize("words", ["ekmann7", "joy, joy"])
def test_words_that_cannot_be_used(client: Any, portrait: str, words: str) -> None:
    with pytest.raises(AppError):
        client.predict(handle_file(portrait), words, api_name="/photo")


@pytest.mark.parametrize("words", ["/etc/passwd", "../prompts/ekman7.yaml", "ekman7.yaml"])
def test_a_path_is_a_word_and_opens_no_file(client: Any, portrait: str, words: str) -> None:
    answer = client.predict(handle_file(portrait), words, api_name="/photo")
    assert list(answer["sentences"]) == [words]


def test_page_names_no_other_host(app_url: str) -> None:
    page = httpx.get(app_url).text + httpx.get(f"{app_url}theme.css").text
    loaded = re.findall(r"""(?:src=|href=|url\()["']?(https?://[^"')\s]+)""", page)
    assert [address for address in loaded if "127.0.0.1" not in address] == []


def test_no_file_outside_the_uploads_is_served(app_url: str) -> None:
    for path in ("/etc/passwd", "../../etc/passwd", str(Path(__file__).resolve())):
        assert httpx.get(f"{app_url}gradio_api/file={path}").status_code in (403, 404)
