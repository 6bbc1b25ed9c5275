"""A small client of the HTTP API. It needs httpx and NumPy, no model."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import httpx
import numpy as np

from vlfer.errors import VlferError
from vlfer.types import FloatArray

Labels = str | Sequence[str | Mapping[str, Any]]
Upload = str | Path | bytes


class ServiceError(VlferError, RuntimeError):
    """The service answered with a problem, or not at all.

    Args:
        what: What happened.
        status: Of the answer, 0 where there was none.
        why: The cause.
        fix: What to try.
    """

    def __init__(self, what: str, *, status: int = 0, why: str = "", fix: str = "") -> None:
        super().__init__(what, why=why, fix=fix)
        self.status = status


class VlferClient:
    """Asks a service. Every method returns the JSON of the answer and raises `ServiceError`.

    Args:
        url: Where the service is, ``http://localhost:8000``.
        api_key: Needed beyond localhost.
        timeout_s: Longest wait for one answer.
        transport: Of httpx, for tests.
    """

    def __init__(
        self,
        url: str = "http://localhost:8000",
        *,
        api_key: str | None = None,
        timeout_s: float = 60.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout_s, transport=transport)

    def __enter__(self) -> VlferClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def image(self, photo: Upload, *, labels: Labels = "ekman7", **fields: Any) -> dict[str, Any]:
        """Ask about an image: a path, or the bytes of a file. ``fields``: faces, threshold, top, explain."""
        return self._object(
            "POST", "/v1/image", files={"file": _bytes(photo)}, data={"labels": _form(labels), **_strings(fields)}
        )

    def score(self, vectors: FloatArray, space: str, *, labels: Labels = "ekman7", **fields: Any) -> dict[str, Any]:
        """Ask about vectors (N, D) float32 that were computed on this side; see `vlfer.serve.edge`."""
        raw = base64.b64encode(np.ascontiguousarray(vectors, "<f4").tobytes()).decode()
        spec = labels if isinstance(labels, str) else list(labels)
        return self._object("POST", "/v1/score", json={"space": space, "vectors": raw, "labels": spec, **fields})

    def text(self, sentences: Sequence[str]) -> tuple[FloatArray, str]:
        """Return the vectors (N, D) float32 of sentences and the space they are in."""
        answer = self._json("POST", "/v1/text", json={"sentences": list(sentences)})
        return np.array(answer["vectors"], np.float32), str(answer["space"])

    def mie(
        self,
        clip: Upload | None = None,
        *,
        onset: Upload | None = None,
        apex: Upload | None = None,
        labels: Labels = "micro3",
        picture: bool = False,
    ) -> dict[str, Any]:
        """Ask about a micro-expression: a clip, or an onset and an apex image."""
        parts = {"clip": clip, "onset": onset, "apex": apex}
        files = {name: _bytes(part) for name, part in parts.items() if part is not None}
        return self._object("POST", "/v1/mie", files=files, data={"labels": _form(labels), "picture": str(picture)})

    def search(self, words: str, *, count: int = 12, thumbnails: bool = False) -> list[dict[str, Any]]:
        """Return the moments of the service's index that look most like a description."""
        question = {"query": words, "count": count, "thumbnails": thumbnails}
        return cast(list[dict[str, Any]], self._json("POST", "/v1/search", json=question)["hits"])

    def labels(self) -> list[dict[str, Any]]:
        """Return the shipped label sets."""
        return cast(list[dict[str, Any]], self._json("GET", "/v1/labels"))

    def models(self) -> list[dict[str, Any]]:
        """Return the model that answers."""
        return cast(list[dict[str, Any]], self._json("GET", "/v1/models"))

    def video(
        self,
        film: Upload,
        *,
        labels: Labels = "ekman7",
        on_progress: Callable[[int, int], None] | None = None,
        every_s: float = 0.5,
        **fields: Any,
    ) -> dict[str, Any]:
        """Ask about a video and wait for the answer; Ctrl-C cancels it on the server. ``fields``: fps, top."""
        job = self.submit_video(film, labels=labels, **fields)
        try:
            while job["state"] in ("queued", "running"):
                if on_progress is not None:
                    on_progress(job["done"], job["total"])
                time.sleep(every_s)
                job = self.job(job["id"])
        except BaseException:
            self.cancel(job["id"])
            raise
        return self._object("GET", f"/v1/video/{job['id']}/result")

    def submit_video(self, film: Upload, *, labels: Labels = "ekman7", **fields: Any) -> dict[str, Any]:
        """Hand in a video; the answer holds its id."""
        data = {"labels": _form(labels), **_strings(fields)}
        return self._object("POST", "/v1/video", files={"file": _bytes(film)}, data=data)

    def job(self, job_id: str) -> dict[str, Any]:
        """Return how far a video is."""
        return self._object("GET", f"/v1/video/{job_id}")

    def cancel(self, job_id: str) -> dict[str, Any]:
        """Stop a video, or forget its result."""
        return self._object("DELETE", f"/v1/video/{job_id}")

    def _object(self, method: str, path: str, **body: Any) -> dict[str, Any]:
        return cast(dict[str, Any], self._json(method, path, **body))

    def _json(self, method: str, path: str, **body: Any) -> Any:
        try:
            answer = self._http.request(method, path, **body)
        except httpx.HTTPError as error:
            raise ServiceError(
                f"The service at {self._http.base_url} does not answer: {error}.", fix="vlfer serve"
            ) from error
        if answer.is_success:
            return answer.json()
        try:
            problem = answer.json()
        except ValueError:
            problem = {}
        raise ServiceError(
            str(problem.get("what") or problem.get("detail") or answer.reason_phrase), status=answer.status_code,
            why=str(problem.get("why", "")), fix=str(problem.get("fix", "")),
        )  # fmt: skip


def _bytes(upload: Upload) -> tuple[str, bytes]:
    """Return an upload under a name that tells nothing."""
    return "upload", upload if isinstance(upload, bytes) else Path(upload).read_bytes()


def _form(labels: Labels) -> str:
    import json

    return labels if isinstance(labels, str) else json.dumps(list(labels), ensure_ascii=False)


def _strings(fields: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(value) for key, value in fields.items() if value is not None}
