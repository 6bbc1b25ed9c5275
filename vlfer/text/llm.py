"""Language models that write descriptors: any OpenAI-compatible endpoint, or a causal model of transformers.

vLLM, Ollama, the server of llama.cpp and the hosted services all speak the same protocol: ``POST /chat/completions``.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

from vlfer.errors import EnvironmentProblem, did_you_mean

Messages = Sequence[Mapping[str, str]]
Ending = Literal["stop", "length", "refusal"]

_BUSY = (408, 409, 425, 429, 500, 502, 503, 504)
_LONGEST_WAIT_S = 30.0


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model answered.

    Attributes:
        text: The answer, possibly empty.
        ending: Whether it ended by itself, was cut off, or was refused.
    """

    text: str
    ending: Ending = "stop"


class ChatModel(Protocol):
    """Whatever turns messages into an answer."""

    def provenance(self) -> dict[str, str]:
        """Return what identifies the model, for the cache and for the file that is written."""
        ...

    def reply(
        self, messages: Messages, *, schema: Mapping[str, Any], seed: int, temperature: float, max_tokens: int
    ) -> Reply:
        """Answer messages, by a JSON object of the schema if the model can be held to one."""
        ...


class EndpointModel:
    """A model behind an OpenAI-compatible endpoint.

    The endpoint is asked for output in a JSON schema; one that does not know schemas is asked for any JSON, and then
    for plain text. A busy endpoint is asked again, later each time.

    Args:
        model: Its name at the endpoint.
        url: Such as ``http://localhost:11434/v1``; ``/v1`` is added to a bare host.
        key: Bearer token, or "". It is sent to the endpoint and told to nobody else.
        timeout_s: Longest wait for one answer.
        tries: How often a busy endpoint is asked.
        sleep: Waits; replaced in tests.

    Raises:
        EnvironmentProblem: If the URL is none.
    """

    def __init__(
        self,
        model: str,
        *,
        url: str,
        key: str = "",
        timeout_s: float = 180.0,
        tries: int = 4,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        import httpx

        self.model = model
        self.url = _base_url(url)
        self._tries = tries
        self._sleep = sleep
        self._formats = ["json_schema", "json_object", "text"]
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(headers=headers, timeout=httpx.Timeout(timeout_s, connect=10.0))

    def provenance(self) -> dict[str, str]:
        """Return the name of the model and its endpoint without user and password."""
        parts = urlsplit(self.url)
        host = parts.hostname or ""
        return {"model": self.model, "endpoint": f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}"}

    def reply(
        self, messages: Messages, *, schema: Mapping[str, Any], seed: int, temperature: float, max_tokens: int
    ) -> Reply:
        """Answer messages.

        Raises:
            EnvironmentProblem: If the endpoint is down, refuses the key or the model, or does not speak the protocol.
        """
        body: dict[str, Any] = {
            "model": self.model, "messages": [dict(m) for m in messages], "temperature": temperature, "seed": seed,
            "max_tokens": max_tokens,
        }  # fmt: skip
        while True:
            form = self._formats[0]
            status, content = self._post({**body, **_response_format(form, schema)})
            if status in (400, 422) and len(self._formats) > 1:
                if self._formats[0] == form:  # another thread may have found out first
                    self._formats = self._formats[1:]
                continue
            if status >= 400:
                raise self._refused(status, content)
            return self._read(content)

    def _post(self, body: Mapping[str, Any]) -> tuple[int, bytes]:
        import httpx

        wait_s = 1.0
        for attempt in range(1, self._tries + 1):
            try:
                response = self._client.post(f"{self.url}/chat/completions", json=body)
            except httpx.TimeoutException as error:
                raise self._down(f"no answer in time ({type(error).__name__})") from error
            except httpx.HTTPError as error:
                raise self._down(str(error) or type(error).__name__) from error
            if response.status_code not in _BUSY or attempt == self._tries:
                break
            asked = response.headers.get("retry-after", "")
            self._sleep(min(float(asked) if asked.replace(".", "", 1).isdigit() else wait_s, _LONGEST_WAIT_S))
            wait_s *= 2
        return response.status_code, response.content

    def _down(self, why: str) -> EnvironmentProblem:
        return EnvironmentProblem(
            f"The endpoint {self.provenance()['endpoint']} does not answer.",
            why=f"{why}.",
            fix="start the server (ollama serve, vllm serve MODEL, llama-server -m FILE), or check --url",
        )

    def _refused(self, status: int, content: bytes) -> EnvironmentProblem:
        where = self.provenance()["endpoint"]
        told = _error_text(content)
        if status in (401, 403):
            return EnvironmentProblem(
                f"The endpoint {where} refuses the key (HTTP {status}).",
                why=told,
                fix="put the key into an environment variable and name it: --key-env OPENAI_API_KEY",
            )
        if status == 404:
            known = self._models()
            near = did_you_mean(self.model, known)
            return EnvironmentProblem(
                f"The endpoint {where} has no model {self.model!r} (HTTP 404).",
                why=f"{near} It has {', '.join(known[:12])}.".strip() if known else told,
                fix=f"--llm {known[0]}" if known else "check --url (it usually ends in /v1) and --llm",
            )
        return EnvironmentProblem(f"The endpoint {where} answers with HTTP {status}.", why=told, fix="see its log.")

    def _models(self) -> list[str]:
        import httpx

        try:
            listed = self._client.get(f"{self.url}/models", timeout=10.0).json()
            return [str(row["id"]) for row in listed["data"]]
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return []

    def _read(self, content: bytes) -> Reply:
        try:
            choice = json.loads(content)["choices"][0]
            message = choice["message"]
            text, refusal = message.get("content") or "", message.get("refusal") or ""
            ending = choice.get("finish_reason")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise EnvironmentProblem(
                f"{self.url} is no OpenAI-compatible endpoint.",
                why=f"It answered {content[:80]!r}, which holds no choices[0].message.",
                fix="check --url (it usually ends in /v1)",
            ) from error
        if refusal or ending == "content_filter":
            return Reply(str(refusal or text), "refusal")
        return Reply(str(text), "length" if ending == "length" else "stop")


def _base_url(url: str) -> str:
    parts = urlsplit(url.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise EnvironmentProblem(f"{url!r} is no URL of an endpoint.", fix="--url http://localhost:11434/v1")
    base = url.strip().rstrip("/").removesuffix("/chat/completions")
    return base if parts.path.strip("/") else f"{base}/v1"


def _response_format(form: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    if form == "json_schema":
        inner = {"name": "descriptors", "schema": dict(schema), "strict": False}
        return {"response_format": {"type": "json_schema", "json_schema": inner}}
    return {"response_format": {"type": "json_object"}} if form == "json_object" else {}


def _error_text(content: bytes) -> str:
    try:
        error = json.loads(content)["error"]
        text = error["message"] if isinstance(error, dict) else str(error)
    except (ValueError, KeyError, TypeError):
        text = content[:200].decode("utf-8", "replace")
    return " ".join(str(text).split())[:300]


class LocalModel:
    """A causal language model of transformers on this machine.

    It cannot be held to a schema; its answer is checked and asked for again like any other.

    Args:
        name: A folder, or a name on the hub.
        device: "auto", "cpu", "cuda".

    Raises:
        EnvironmentProblem: If it cannot be loaded.
    """

    def __init__(self, name: str, *, device: str = "auto") -> None:
        import torch
        import transformers

        self.name = name
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        try:
            self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(name)
            model: Any = transformers.AutoModelForCausalLM.from_pretrained(name, dtype="auto")
            self._model = model.eval().to(self._device)
        except (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError) as error:
            raise EnvironmentProblem(
                f"The language model {name!r} cannot be loaded.",
                why=(str(error).strip().splitlines() or [type(error).__name__])[0][:300],
                fix="a folder or hub name of a causal model of transformers, or --url of an endpoint that serves one",
            ) from error

    def provenance(self) -> dict[str, str]:
        """Return the name and what tells its weights: the hub's commit, or a hash of config and file sizes."""
        commit = getattr(self._model.config, "_commit_hash", None)
        return {"model": self.name, "weights": commit or _fingerprint(Path(self.name))}

    def reply(
        self, messages: Messages, *, schema: Mapping[str, Any], seed: int, temperature: float, max_tokens: int
    ) -> Reply:
        """Answer messages.

        Raises:
            EnvironmentProblem: If the messages are longer than the model reads.
        """
        import torch

        del schema
        ids = self._tokenizer(self._prompt(messages), return_tensors="pt")["input_ids"].to(self._device)
        limit = getattr(self._model.config, "max_position_embeddings", None)
        room = max_tokens if limit is None else min(max_tokens, int(limit) - ids.shape[1])
        if room < 1:
            raise EnvironmentProblem(
                f"The language model {self.name!r} reads {limit} tokens, and the request alone has {ids.shape[1]}.",
                fix="a model that reads 4096 tokens or more",
            )
        sampling: dict[str, Any] = {"do_sample": True, "temperature": temperature} if temperature > 0 else {}
        pad = self._tokenizer.pad_token_id if self._tokenizer.pad_token_id is not None else 0
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(seed)
            out = self._model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=room, pad_token_id=pad, **sampling
            )
        fresh = out[0, ids.shape[1] :]
        ends = self._model.generation_config.eos_token_id
        ended = len(fresh) > 0 and int(fresh[-1]) in (ends if isinstance(ends, list) else [ends])
        text = self._tokenizer.decode(fresh, skip_special_tokens=True)
        return Reply(str(text), "length" if len(fresh) >= room and not ended else "stop")

    def _prompt(self, messages: Messages) -> str:
        if self._tokenizer.chat_template:
            rows = [dict(m) for m in messages]
            return str(self._tokenizer.apply_chat_template(rows, add_generation_prompt=True, tokenize=False))
        return "\n\n".join(m["content"] for m in messages) + "\n\nJSON:\n"


def _fingerprint(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*")) if folder.is_dir() else []:
        if path.is_file():
            digest.update(f"{path.name} {path.stat().st_size}\n".encode())
            if path.name == "config.json":
                digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
