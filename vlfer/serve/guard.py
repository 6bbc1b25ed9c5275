"""The door: who may ask, how much, how fast, and what every answer carries. Plain ASGI, before anything is parsed."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from vlfer.serve.metrics import Metrics
from vlfer.serve.problems import ServiceProblem, problem_of, respond
from vlfer.serve.settings import ServeSettings

_log = logging.getLogger("vlfer.serve")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
_API = ("/v1/", "/metrics", "/openapi.json", "/healthz", "/readyz")
_MOST_CLIENTS = 10_000
_HEADERS = (
    (b"x-content-type-options", b"nosniff"), (b"x-frame-options", b"DENY"), (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"), (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(self), microphone=(), geolocation=()"), (b"x-robots-tag", b"noindex"),
)  # fmt: skip
_API_POLICY = b"default-src 'none'; frame-ancestors 'none'"
# The app's own scripts are inline and compile templates; nothing is loaded from, or sent to, anywhere else.
_APP_POLICY = (
    b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    b"img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; "
    b"connect-src 'self' blob: data:; frame-ancestors 'none'; form-action 'self'; base-uri 'self'; object-src 'none'"
)


class Guard:
    """Middleware around the whole application, the app included.

    It checks, in this order: host name, origin, key, rate, number in work, size and pace of the body. It adds security
    headers, counts, and writes one line a request: method, route, status, time. Never a query, a name or an address.
    """

    def __init__(self, app: App, *, settings: ServeSettings, metrics: Metrics) -> None:
        self._app = app
        self._settings = settings
        self._metrics = metrics
        self._keys = [hashlib.sha256(key.encode()).digest() for key in settings.api_keys]
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._in_work = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 1008})
            return
        began, status = time.perf_counter(), [0]
        headers = {name.lower(): value for name, value in reversed(scope["headers"])}

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                status[0] = message["status"]
                message["headers"] = _with_security(list(message.get("headers", [])), scope["path"])
            await send(message)

        self._in_work += 1
        self._metrics.in_work.set(self._in_work)
        try:
            limit = self._admit(scope, headers)
            await self._app(scope, _Body(receive, limit=limit, settings=self._settings), sending)
        except ServiceProblem as problem:
            if not status[0]:
                response = respond(problem_of(problem), headers={**problem.headers, "Connection": "close"})
                await response(scope, receive, sending)
        except HTTPException as error:  # the body was too large or too slow, where nobody else could say so
            if not status[0]:
                refused = ServiceProblem(error.status_code, str(error.detail))
                await respond(problem_of(refused), headers={"Connection": "close"})(scope, receive, sending)
        except ClientDisconnect:
            _log.debug("a client left")
        except Exception as error:  # answered here, so that this answer too carries the headers and is counted
            # The traceback holds no values: a request's pictures and words stay out of the log.
            _log.error("%s failed", _route_of(scope), exc_info=error)
            if not status[0]:
                await respond(problem_of(error))(scope, receive, sending)
        finally:
            self._in_work -= 1
            self._metrics.in_work.set(self._in_work)
            self._note(scope, status[0], time.perf_counter() - began)

    def _admit(self, scope: Scope, headers: dict[bytes, bytes]) -> int:
        """Return the largest body allowed.

        Raises:
            ServiceProblem: If the request is turned away.
        """
        path, method = scope["path"], scope["method"]
        self._check_host(headers)
        _check_origin(headers)
        owner = self._check_key(headers, path, scope)
        scope.setdefault("state", {})["owner"] = owner
        if method == "POST":
            self._check_rate(owner)
            if self._in_work > self._settings.max_waiting:
                raise ServiceProblem(
                    503, f"{self._in_work - 1} requests are in work.", fix="again in a second.",
                    headers={"Retry-After": "1"},
                )  # fmt: skip
        limit = self._body_limit(path)
        try:
            length = int(headers.get(b"content-length", b"0"))
        except ValueError:
            raise ServiceProblem(400, "The Content-Length is no number.") from None
        if length > limit:
            raise ServiceProblem(
                413, f"The request has {length / 2**20:.1f} MB.", why=f"At most {limit / 2**20:.0f} are taken here."
            )  # fmt: skip
        return limit

    def _check_host(self, headers: dict[bytes, bytes]) -> None:
        allowed = self._settings.hosts
        name = _host_name(headers.get(b"host", b""))
        if allowed and name not in allowed:
            raise ServiceProblem(
                403, f"This service is not called {name[:80]!r}.", why=f"It is {', '.join(sorted(allowed))}.",
                fix="--allow-host NAME",
            )  # fmt: skip

    def _check_key(self, headers: dict[bytes, bytes], path: str, scope: Scope) -> str:
        """Return who asks: a digest of the key, or of the address where no key is needed."""
        given = _given_key(headers)
        digest = hashlib.sha256(given).digest()
        # Every key is compared, and digests have one length: the time taken tells nothing about how near a guess was.
        matches = [hmac.compare_digest(digest, key) for key in self._keys]
        if any(matches):
            return digest.hex()[:16]
        if self._keys and path not in OPEN_PATHS:
            raise ServiceProblem(
                401, "The API key is missing or wrong." if not given else "The API key is wrong.",
                fix="the header 'Authorization: Bearer KEY'; in a browser, the key as password.",
                headers={"WWW-Authenticate": 'Basic realm="vlfer", charset="UTF-8"'},
            )  # fmt: skip
        return hashlib.sha256(str((scope.get("client") or ("",))[0]).encode()).hexdigest()[:16]

    def _check_rate(self, owner: str) -> None:
        """Take a token from the bucket of a client; it holds those of a minute and fills all the time."""
        rate = self._settings.rate_per_minute
        if not rate:
            return
        now = time.monotonic()
        tokens, last = self._buckets.pop(owner, (float(rate), now))
        tokens = min(float(rate), tokens + (now - last) * rate / 60)
        self._buckets[owner] = (max(tokens - 1, 0.0) if tokens >= 1 else tokens, now)
        while len(self._buckets) > _MOST_CLIENTS:
            self._buckets.popitem(last=False)
        if tokens < 1:
            wait_s = max(1, round((1 - tokens) * 60 / rate))
            raise ServiceProblem(
                429, f"More than {rate} requests came in a minute.", fix=f"again in {wait_s} s.",
                headers={"Retry-After": str(wait_s)},
            )  # fmt: skip

    def _body_limit(self, path: str) -> int:
        settings = self._settings
        if path.startswith("/v1/image"):
            megabytes = settings.max_image_mb
        elif path.startswith(("/v1/video", "/v1/mie")) or not path.startswith(_API):
            megabytes = settings.max_video_mb
        else:
            megabytes = settings.max_json_mb
        return int(megabytes * 2**20) + 64 * 1024  # the frame of a multipart body

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = _route_of(scope)
        code = str(status or 499)  # 499: the client left before the answer
        self._metrics.requests.labels(scope["method"] if status else "-", route, code).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        if route != "app":
            _log.info("%s %s %s %.0f ms", scope["method"], route, code, 1000 * seconds)


def _route_of(scope: Scope) -> str:
    """Return the template of a route, which tells nothing about who asked what."""
    return getattr(scope.get("route"), "path", "") or ("other" if scope["path"].startswith(_API) else "app")


class _Body:
    """`receive` with a limit of size and of time; both end with the body."""

    def __init__(self, receive: Receive, *, limit: int, settings: ServeSettings) -> None:
        self._receive = receive
        self._limit = limit
        self._silence_s = settings.receive_s
        self._deadline = time.monotonic() + settings.body_s
        self._got = 0
        self._is_complete = False

    async def __call__(self) -> Message:
        if self._is_complete:
            return await self._receive()
        left_s = min(self._silence_s, self._deadline - time.monotonic())
        try:
            message = await asyncio.wait_for(self._receive(), max(left_s, 0.01))
        except TimeoutError:
            raise HTTPException(408, "The upload paused for too long, or took too long as a whole.") from None
        if message["type"] == "http.request":
            self._got += len(message.get("body", b""))
            self._is_complete = not message.get("more_body", False)
            if self._got > self._limit:
                raise HTTPException(413, f"The request has more than {self._limit / 2**20:.0f} MB.")
        else:
            self._is_complete = True
        return message


def _with_security(headers: list[tuple[bytes, bytes]], path: str) -> list[tuple[bytes, bytes]]:
    present = {name.lower() for name, _ in headers}
    is_api = path.startswith(_API)
    wanted = [*_HEADERS, (b"content-security-policy", _API_POLICY if is_api else _APP_POLICY)]
    if is_api:
        wanted.append((b"cache-control", b"no-store"))
    dropped = {b"server", b"access-control-allow-origin", b"access-control-allow-credentials"}
    kept = [(name, value) for name, value in headers if name.lower() not in dropped]
    return kept + [(name, value) for name, value in wanted if name not in present]


def _check_origin(headers: dict[bytes, bytes]) -> None:
    """Turn away what a page of another site sends: browsers say where it comes from."""
    site, origin = headers.get(b"sec-fetch-site", b""), headers.get(b"origin", b"")
    is_foreign = site in (b"cross-site", b"same-site") and headers.get(b"sec-fetch-mode") != b"navigate"
    if origin and origin != b"null":
        is_foreign |= _host_name(origin.split(b"://", 1)[-1]) != _host_name(headers.get(b"host", b""))
    if is_foreign or origin == b"null":
        raise ServiceProblem(403, "The request comes from a page of another site.", why="Only this site may ask.")


def _host_name(value: bytes) -> str:
    text = value.decode("latin-1").strip().lower()
    if text.startswith("["):
        return text[1:].split("]", 1)[0]
    return text.rsplit(":", 1)[0] if text.count(":") == 1 else text


def _given_key(headers: dict[bytes, bytes]) -> bytes:
    scheme, _, value = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer":
        return value.strip()
    if scheme.lower() == b"basic":
        try:
            return base64.b64decode(value, validate=True).partition(b":")[2]
        except binascii.Error:
            return b""
    return headers.get(b"x-api-key", b"").strip()
