"""What a program gets through Gradio's own client."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError


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
    assert list(client.view_api(return_format="dict")["named_endpoints"]) == ["/photo"]


def test_errors_are_told_in_three_parts(client: Any, tmp_path: Path) -> None:
    text = tmp_path / "photo.png"
    text.write_text("hello")
    with pytest.raises(AppError, match=r"is not an image.*Try:") as caught:
        client.predict(handle_file(str(text)), "joy, gloom", api_name="/photo")
    assert str(tmp_path.parent) not in str(caught.value)
    assert "Traceback" not in str(caught.value)


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
