"""What the service may be told: where it listens, how much it takes on, who may ask."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from vlfer.errors import ConfigError

KEYS_VARIABLE = "VLFER_API_KEYS"
_SHORTEST_KEY = 16


class ServeSettings(BaseModel):
    """Settings of the service; the defaults are meant to be safe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field("127.0.0.1", description="Where to listen; 127.0.0.1 serves this machine only.")
    port: int = Field(8000, ge=0, le=65535)
    api_keys: tuple[str, ...] = Field((), description="Who may ask; needed beyond localhost.", repr=False)
    allowed_hosts: tuple[str, ...] = Field((), description="Host names by which the service may be called.")
    max_image_mb: float = Field(25.0, gt=0, description="Largest image upload.")
    max_video_mb: float = Field(200.0, gt=0, description="Largest video upload.")
    max_json_mb: float = Field(4.0, gt=0, description="Largest JSON body.")
    max_pixels: int = Field(40_000_000, ge=1, description="Largest image, decoded; a frame may have a quarter of it.")
    max_video_s: float = Field(600.0, gt=0, description="Longest video.")
    max_clip_s: float = Field(20.0, gt=0, description="Longest clip of a micro-expression.")
    max_labels: int = Field(100, ge=1, description="Most labels in one question.")
    max_sentences: int = Field(256, ge=1, description="Most sentences in one /v1/text.")
    max_explained: int = Field(8, ge=0, description="Most faces of an image that are explained, largest first.")
    max_vectors: int = Field(1024, ge=1, description="Most vectors in one /v1/score.")
    rate_per_minute: int = Field(600, ge=0, description="POST requests a minute and client; 0 for no limit.")
    max_waiting: int = Field(256, ge=1, description="Requests in work at once; more are answered 503.")
    max_jobs: int = Field(16, ge=1, description="Videos waiting or running at once; more are answered 503.")
    job_ttl_s: float = Field(900.0, gt=0, description="How long a video's result is kept.")
    decoders: int = Field(2, ge=1, le=64, description="Processes that decode images and find faces.")
    decode_s: float = Field(15.0, gt=0, description="Longest time for one image, or between two chunks of a video.")
    decode_mb: int = Field(3072, ge=256, description="Address space of a decoding process.")
    receive_s: float = Field(15.0, gt=0, description="Longest silence of a client that is sending.")
    body_s: float = Field(300.0, gt=0, description="Longest time for a whole upload.")
    max_batch: int = Field(32, ge=1, description="Faces through the tower at once; 1 turns micro-batching off.")
    torch_threads: int = Field(0, ge=0, description="Threads of the tower; 0 leaves the choice to torch.")
    index_dir: Path | None = Field(None, description="Index for /v1/search, see `vlfer index`.")

    @property
    def is_local(self) -> bool:
        """Whether only this machine can ask."""
        return is_loopback(self.host)

    @property
    def hosts(self) -> frozenset[str]:
        """Names that a request may call the service by; empty for any."""
        if self.allowed_hosts:
            return frozenset(name.lower() for name in self.allowed_hosts)
        # A page of the web may point a name of its own at 127.0.0.1 and so read what only this machine should.
        return frozenset({"localhost", "127.0.0.1", "::1", self.host.lower()}) if self.is_local else frozenset()


def is_loopback(host: str) -> bool:
    """Tell whether an address is reached from this machine only."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_settings(settings: ServeSettings) -> ServeSettings:
    """Return the settings if they may be served with.

    Raises:
        ConfigError: If the service would be open to others without a key, or a key is too short.
    """
    if not settings.is_local and not settings.api_keys:
        raise ConfigError(
            f"--host {settings.host} serves other machines and there is no API key.",
            why="Anybody could send pictures of people and use this machine.",
            fix=f"{KEYS_VARIABLE}=$(openssl rand -hex 24) vlfer serve --host {settings.host}",
        )
    for key in settings.api_keys:
        if len(key) < _SHORTEST_KEY or not key.isascii() or any(ch.isspace() for ch in key):
            raise ConfigError(
                f"An API key has {len(key)} characters.",
                why=f"A key has at least {_SHORTEST_KEY}, all of them visible ASCII.",
                fix="openssl rand -hex 24",
            )
    return settings


def keys_from_environment() -> tuple[str, ...]:
    """Return the keys in ``$VLFER_API_KEYS``, separated by commas, and take the variable away from children."""
    return tuple(key.strip() for key in os.environ.pop(KEYS_VARIABLE, "").split(",") if key.strip())
