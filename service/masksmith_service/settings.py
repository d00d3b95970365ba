"""The service's settings, read from environment variables `MASKSMITH_...`."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from masksmith_state.jobs.shards import SHARD_BYTES
from masksmith_state.settings import MAX_SECONDS, StateSettings, is_http_address
from masksmith_wire.key_bounds import MAX_REQUESTS_S, MIN_REQUESTS_S

from .bounds.table import cost, limit
from .middleware.addresses import is_loopback


class Settings(StateSettings):
    """Settings of the service."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=8000, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    root_path: str = Field(default="", pattern=r"^(/[A-Za-z0-9_.~-]+)*$")
    """Prefix of the service's paths, such as `/masks`, behind a proxy that does not remove the prefix."""
    processes: int = Field(default=1, ge=1, le=1024)
    """Processes that share the port; each takes a core when it is busy, and about 100 MiB."""
    max_body_bytes: int = Field(default=limit("max_body_bytes"), gt=0)
    """Largest upload."""
    max_document_bytes: int = Field(default=limit("max_document_bytes"), gt=0)
    """Largest JSON document."""
    max_header_bytes: int = Field(default=limit("max_header_bytes"), gt=0)
    """Largest header of a safetensors file, and largest sum of the headers of all files that a job names."""
    max_tensors: int = Field(default=limit("max_tensors"), gt=0)
    """Maximum number of tensors in a file, in a model in a root, or in a job."""
    max_elements: int = Field(default=limit("max_elements"), gt=0)
    """Maximum number of entries of a tensor."""
    max_shards: int = Field(default=limit("max_shards"), gt=0)
    """Maximum number of shards of a job."""
    max_document_depth: int = Field(default=limit("max_document_depth"), gt=0)
    """How deep the lists and objects of a JSON document may be nested."""
    max_live_jobs: int = Field(default=limit("max_live_jobs"), gt=0)
    """Maximum number of jobs of all keys together that may be queued or running at a time."""
    max_wait_s: float = Field(default=float(limit("max_wait_s")), ge=0, le=MAX_SECONDS)
    """Maximum number of seconds that a request with `Prefer: wait` waits."""
    max_request_head_bytes: int = Field(default=limit("max_request_head_bytes"), gt=0)
    """Maximum bytes of a request's line and headers together; the same for its trailers and chunk framing."""
    request_head_s: float = Field(default=float(limit("request_head_s")), gt=0, le=MAX_SECONDS)
    """Seconds within which a request's line and headers must arrive."""
    read_stall_s: float = Field(default=float(limit("read_stall_s")), gt=0, le=MAX_SECONDS)
    """Seconds within which a client must read another 64 KiB of a response, or all that is left."""
    max_connections: int = Field(default=limit("max_connections"), gt=0)
    """Maximum number of connections of a process; on further ones only `/healthz` is served."""
    max_streams: int = Field(default=limit("max_streams"), gt=0)
    """Maximum number, in a process, of event streams and of requests that wait for a job; a key may have half."""
    request_memory_bytes: int = Field(default=limit("request_memory_bytes"), gt=0)
    """Bytes of memory that the requests of a process may take at a time; requests of one key may take half of them."""
    min_free_bytes: int = Field(default=limit("min_free_bytes"), ge=0)
    """Bytes that uploads leave free on the disk of the store, if the store is a directory; 0: no check."""
    upload_stall_s: float = Field(default=float(limit("upload_stall_s")), gt=0, le=MAX_SECONDS)
    """Seconds within which a JSON document, or another 64 KiB of an upload, must arrive."""
    upload_age_s: float = Field(default=7 * 86_400.0, gt=0)
    """Seconds from the last use of an upload to its deletion, which waits while a live job reads the upload."""
    result_age_s: float = Field(default=30 * 86_400.0, gt=0)
    """Seconds from the end of a job to its deletion, with its results."""
    shard_bytes: int = Field(default=SHARD_BYTES, gt=0)
    """Bytes of weights in a shard."""
    auth: Literal["required", "none"] = "required"
    """`none`: if `host` is a loopback address, requests from this machine need no key until a key is made."""
    trusted_proxies: str = ""
    """Comma-separated addresses or networks of proxies whose `X-Forwarded-For`, `-Proto` and `-Prefix` are used."""
    oidc_issuer: str = ""
    """URL of an OpenID Connect issuer whose tokens are accepted beside keys (extra `oidc`)."""
    oidc_audience: str = ""
    """What the claim `aud` of the issuer's tokens must contain."""
    oidc_admin: str = ""
    """Claim and value that make the sender of a token an admin, such as `groups=masksmith-admins`; empty: nobody."""
    insecure: bool = False
    """Serve requests without keys, on any address."""
    allowed_hosts: str = ""
    """Comma-separated host names to answer to, besides IP addresses and this machine's names; `*`: all names."""
    session_s: float = Field(default=43_200.0, ge=60, le=MAX_SECONDS)
    """Seconds that a browser stays logged in."""
    key_stored_bytes: int = Field(default=limit("key_stored_bytes"), ge=0)
    """Bytes of uploads and results that a key may keep, unless it has a quota of its own."""
    key_broker_bytes: int = Field(default=limit("key_broker_bytes"), ge=0)
    """Bytes of the broker's memory that the records and messages of a key's uploads and jobs may take."""
    key_live_jobs: int = Field(default=limit("key_live_jobs"), ge=0)
    """Jobs of a key that may be queued or running at a time, unless it has a quota of its own."""
    key_requests_s: float = Field(default=float(limit("key_requests_s")), ge=MIN_REQUESTS_S, le=MAX_REQUESTS_S)
    """Requests a second that a key may send, with bursts of ten times as many, unless it has a quota of its own."""

    @model_validator(mode="after")
    def _check_memory(self) -> Settings:
        # Memory of the largest request that each setting allows.
        memory_bytes = {
            "max_document_bytes": cost("document") * self.max_document_bytes,
            "max_header_bytes": cost("header") * self.max_header_bytes,
            "max_shards": cost("part") * self.max_shards,
        }
        name = max(memory_bytes, key=lambda setting: memory_bytes[setting])
        if memory_bytes[name] > self.request_memory_bytes // 2:
            raise ValueError(
                f"request_memory_bytes must be at least {2 * memory_bytes[name]} for {name} = {getattr(self, name)}: a "
                "request may take half of it"
            )
        return self

    @field_validator("oidc_issuer")
    @classmethod
    def _check_issuer_url(cls, text: str) -> str:
        url = urlsplit(text) if is_http_address(text) else None
        is_safe = url is not None and (url.scheme == "https" or is_loopback(url.hostname or ""))
        if text and (url is None or not is_safe or "@" in url.netloc):
            raise ValueError(
                "must be an https:// address (http:// on loopback only) without a user name, spaces and a query"
            )
        return text

    @field_validator("oidc_audience")
    @classmethod
    def _check_oidc_audience(cls, text: str) -> str:
        if text != text.strip():
            raise ValueError("must not begin or end with spaces")
        return text

    @field_validator("oidc_admin")
    @classmethod
    def _check_oidc_admin(cls, text: str) -> str:
        claim, _, value = text.partition("=")
        if text and (not claim or not value or claim != claim.strip() or value != value.strip()):
            raise ValueError("must be CLAIM=VALUE")
        return text

    @model_validator(mode="after")
    def _check_issuer_settings(self) -> Settings:
        if not self.oidc_issuer:
            if self.oidc_audience or self.oidc_admin:
                raise ValueError("MASKSMITH_OIDC_AUDIENCE and MASKSMITH_OIDC_ADMIN need MASKSMITH_OIDC_ISSUER")
            return self
        if not self.oidc_audience:
            reason = "a token for another service must not be valid here"
            raise ValueError(f"MASKSMITH_OIDC_ISSUER needs MASKSMITH_OIDC_AUDIENCE: {reason}")
        if find_spec("joserfc") is None:
            raise ValueError("MASKSMITH_OIDC_ISSUER needs the package joserfc, which masksmith's extra 'oidc' installs")
        return self

    @property
    def is_local(self) -> bool:
        """Whether the service listens on a loopback address only."""
        return is_loopback(self.host)

    @property
    def is_open_before_first_key(self) -> bool:
        """Whether requests from this machine need no key until the first key is made."""
        return self.auth == "none" and self.is_local

    @property
    def allowed_host_names(self) -> frozenset[str]:
        """The names of `allowed_hosts`, in lower case; `*` among them allows all."""
        return frozenset(name for name in map(str.strip, self.allowed_hosts.lower().split(",")) if name)
