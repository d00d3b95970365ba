"""The settings that service and workers share, read from environment variables `MASKSMITH_...`."""

from __future__ import annotations

import logging
import os
import re
import sys
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from masksmith_wire.locations import is_in_bucket
from masksmith_wire.text import printable, without_credentials
from masksmith_wire.validation import located_reason

from .errors import InvalidLocationError
from .redis_url import check_redis_url
from .roots.location import normalise
from .roots.setting import RootSetting
from .telemetry import logs

MAX_SECONDS = 1e9
"""Largest value of a setting in seconds, 31 years: timers and the broker overflow at much larger ones."""
MAX_ADDRESS_LENGTH = 1000
"""Maximum number of characters of an address."""
ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT")
"""Environment variables with the address of an S3-compatible store."""
S = TypeVar("S", bound="StateSettings")


class StateSettings(BaseSettings):
    """Locations of the shared state and of roots, the period of sweeps, and how a process logs and traces."""

    model_config = SettingsConfigDict(env_prefix="MASKSMITH_", extra="ignore", hide_input_in_errors=True)

    redis_url: str = "redis://127.0.0.1:6379/0"
    """Broker and job records: `redis://host:port/database`, `rediss://` with TLS, or `unix:///path?db=database`."""
    store_url: str = "masksmith-data/store"
    """Blob store: a directory, or `s3://bucket/prefix`."""
    roots: list[RootSetting] = []
    """Roots that jobs may read from and write to, as JSON: `[{"url": ..., "read": ["*"], "write": ["ops"]}]`."""
    sweep_s: float = Field(default=3.0, gt=0, le=MAX_SECONDS)
    """Seconds between two searches for shards whose lease has lapsed."""
    log_level: str = "INFO"
    """Least severe level that is logged."""
    log_format: logs.LogFormat = "text"
    """`text` or `json`: how a line of the log is written."""
    otlp_url: str = ""
    """OpenTelemetry collector that gets spans over HTTP, such as `http://127.0.0.1:4318`; empty: no traces."""

    @field_validator("redis_url")
    @classmethod
    def _check_redis_url(cls, url: str) -> str:
        check_redis_url(url)
        return url

    @field_validator("store_url")
    @classmethod
    def _check_store_url(cls, url: str) -> str:
        is_other_url = re.match(r"[A-Za-z][\w+.-]*:/", url) is not None and not re.match("s3://.", url)
        if not url.strip() or is_other_url:
            raise ValueError("must be a directory or s3://bucket/prefix")
        if is_in_bucket(url):
            try:
                normalise(url)
            except InvalidLocationError as error:
                raise ValueError(error.reason) from None
        return url

    @field_validator("otlp_url")
    @classmethod
    def _check_otlp_url(cls, url: str) -> str:
        if url and not is_http_address(url):
            raise ValueError("must be an address such as http://127.0.0.1:4318")
        return url

    @field_validator("log_level")
    @classmethod
    def _check_log_level(cls, level: str) -> str:
        if level.upper() not in logging.getLevelNamesMapping():
            raise ValueError("must be DEBUG, INFO, WARNING, ERROR or CRITICAL")
        return level.upper()

    @model_validator(mode="after")
    def _check_bucket_endpoint(self) -> Self:
        if any(map(is_in_bucket, (self.store_url, *(root.url for root in self.roots)))):
            for name in ENDPOINT_VARIABLES:
                _check_endpoint(name, os.environ.get(name))
        return self

    @property
    def store_location(self) -> str:
        """The store's URL, or its directory as an absolute path."""
        return self.store_url if "://" in self.store_url else str(Path(self.store_url).absolute())

    def configure_logging(self) -> None:
        """Configure logging to standard error, with `log_level` and `log_format`."""
        logs.configure(self.log_level, self.log_format)


def is_http_address(text: str) -> bool:
    """Whether a text is the address of an HTTP server: scheme and host, perhaps port and path, no query, no fragment.

    A text of more than `MAX_ADDRESS_LENGTH` characters, or with whitespace, is refused, too.
    """
    try:
        url = urlsplit(text)
        has_server = bool(url.hostname) and url.port != 0  # A port that is no number raises ValueError.
    except ValueError:
        return False
    is_refused = len(text) > MAX_ADDRESS_LENGTH or re.search(r"[\s?#]", text) is not None
    return url.scheme in ("http", "https") and has_server and not is_refused


def _check_endpoint(name: str, value: str | None) -> None:
    """Check an environment variable with the address of the S3-compatible store; `value` is None if it is not set.

    Raises:
        ValueError: If the value is not the address of an HTTP server, or has no TLS and AWS_ALLOW_HTTP is not set.
    """
    if value is None:
        return
    if not is_http_address(value):
        raise ValueError(f"{name}={value[:200]!r}: must be an address such as https://s3.example.org, or not be set")
    if value.lower().startswith("http:") and "AWS_ALLOW_HTTP" not in os.environ:
        raise ValueError(f"{name}={value[:200]!r}: an address without TLS needs AWS_ALLOW_HTTP=true")


def read_settings(settings_class: type[S]) -> S:
    """Read settings from the environment; if any are invalid, print names, values and reasons, and exit with 2."""
    try:
        return settings_class()
    except ValidationError as error:
        messages = [_message(details) for details in error.errors()]
    except SettingsError as error:
        field = re.search(r'field "(\w+)"', str(error))
        name = f"MASKSMITH_{field[1].upper()}" if field else "a setting"
        messages = [f"{name}={os.environ.get(name)!r}: is not JSON"]
    for message in messages:
        sys.stderr.write(f"masksmith: {printable(without_credentials(message))}\n")
    sys.exit(2)


def _message(details: Any) -> str:
    """Message of an error of pydantic; an error without a location is about several settings, which its text names."""
    name, *members = map(str, details["loc"] or [""])
    return located_reason({**details, "loc": ("MASKSMITH_" + name.upper(), *members)} if name else details)
