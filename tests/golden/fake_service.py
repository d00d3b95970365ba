"""A service that answers with plain JSON and writes down what it was asked; it shares no code with masksmith."""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx2
import numpy as np

Fault = Callable[[httpx2.Request], httpx2.Response]
JOBS = "/v1/jobs"
DTYPES = {"float32": "F32", "float64": "F64", "uint8": "U8", "bool": "BOOL"}
OURS_NOT = frozenset({"host", "connection", "accept-encoding"})
"""Headers that are httpx2's business."""


class Pieces(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """A body that may break off."""

    def __init__(self, *pieces: bytes, cut: bool = False) -> None:
        self._pieces, self._cut = pieces, cut

    def __iter__(self) -> Iterator[bytes]:
        yield from self._pieces
        if self._cut:
            raise httpx2.ReadError("connection reset")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece


def event(identifier: str, kind: str, **data: Any) -> bytes:
    """Return an event as it travels."""
    return f"event: {kind}\nid: {identifier}\ndata: {json.dumps(data)}\n\n".encode()


def problem(status: int, code: str = "busy", headers: dict[str, str] | None = None) -> Fault:
    """Return a refusal."""
    document = {"title": code, "status": status, "code": code, "detail": "no"}
    return lambda _: httpx2.Response(status, json=document, headers=headers)


def reset(_: httpx2.Request) -> httpx2.Response:
    """Break the connection while the request is being sent."""
    raise httpx2.WriteError("broken pipe")


def safetensors(tensors: dict[str, Any], metadata: dict[str, str] | None = None) -> bytes:
    """Return a safetensors file."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    data = b""
    for name, array in tensors.items():
        end = len(data) + array.nbytes
        header[name] = {
            "dtype": DTYPES[array.dtype.name], "shape": list(array.shape), "data_offsets": [len(data), end],
        }  # fmt: skip
        data += array.tobytes()
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


SHAPES = {"a": (8, 8), "b": (4, 12)}
"""The weights of jobs whose request was not seen."""


def some_mask(shape: Any) -> Any:
    """Return a mask that keeps every other entry."""
    return np.arange(math.prod(shape)).reshape(shape) % 2 == 0


def masks_file(shapes: dict[str, tuple[int, ...]], patterns: dict[str, str] | None = None) -> bytes:
    """Return a masks file in which every other entry is kept."""
    masks = {name: some_mask(shape) for name, shape in shapes.items()}
    infos = {name: {"shape": list(s), "ragged": "pad", "axis": "in"} for name, s in shapes.items()}
    for name, info in infos.items():
        info["pattern"] = (patterns or {}).get(name, "2:4")
    packed = {name: np.packbits(mask, axis=-1, bitorder="little") for name, mask in masks.items()}
    return safetensors(packed, {"masksmith": json.dumps(infos)})


class FakeService:
    """Takes everything; jobs have ended as soon as they are looked at `patience` times."""

    def __init__(self, patience: int = 0) -> None:
        self.asked: list[httpx2.Request] = []
        self.held: set[str] = set()
        self.faults: list[tuple[str, str, Fault]] = []
        self.streams: list[Pieces] = []
        self.state = "succeeded"
        self.pages = 0
        self.patience = patience
        self._jobs: dict[str, dict[str, Any]] = {}
        self._headers: dict[str, dict[str, Any]] = {}

    def fail(self, method: str, path: str, *faults: Fault) -> None:
        """Answer the next requests whose path ends so with faults."""
        self.faults += [(method, path, fault) for fault in faults]

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(request)
        for entry in self.faults:
            if entry[0] == request.method and request.url.path.endswith(entry[1]):
                self.faults.remove(entry)
                return entry[2](request)
        path = request.url.path.removeprefix("/prefix").removeprefix("/deep")
        if path == "/healthz":
            return httpx2.Response(200, json={"status": "ok", "wire_version": 1})
        if path == "/readyz":
            return httpx2.Response(200, json={"status": "ok"})
        if path.startswith("/v1/tensors/"):
            return self._tensor(request, path)
        if path.startswith(JOBS):
            return self._job(request, path.removeprefix(JOBS).strip("/").split("/"))
        return httpx2.Response(200, json=[])

    def _tensor(self, request: httpx2.Request, path: str) -> httpx2.Response:
        if request.method == "HEAD":
            return httpx2.Response(200 if path in self.held else 404)
        self.held.add(path)
        length = struct.unpack("<Q", request.content[:8])[0]
        self._headers[path.rpartition("/")[2]] = json.loads(request.content[8 : 8 + length])
        return httpx2.Response(201, json={"digest": path, "bytes": len(request.content), "tensors": ["weight"]})

    def _job(self, request: httpx2.Request, parts: list[str]) -> httpx2.Response:
        match request.method, parts:
            case "POST", [""]:
                return httpx2.Response(202, json=self._document(f"{len(self._jobs):04x}", json.loads(request.content)))
            case "GET", [""]:
                return httpx2.Response(200, json=self._page())
            case "DELETE", [_]:
                return httpx2.Response(204)
            case "GET", [_, "events"]:
                ended = Pieces(event("1-0", "state", state="running"), event("2-0", "state", state=self.state))
                return httpx2.Response(200, stream=self.streams.pop(0) if self.streams else ended)
            case "GET", [job, "masks"]:
                tensors = self._document(job, {})["tensors"]
                shapes = {each["name"]: tuple(each["shape"]) for each in tensors}
                patterns = {each["name"]: each["pattern"] for each in tensors}
                return httpx2.Response(200, stream=Pieces(masks_file(shapes, patterns)))
            case "GET", [job, "weights"]:
                shapes = {each["name"]: each["shape"] for each in self._document(job, {})["tensors"]}
                masked = {name: some_mask(shape).astype(np.float32) for name, shape in shapes.items()}
                return httpx2.Response(200, stream=Pieces(safetensors(masked)))
            case "GET", [_, "benchmark"]:
                return httpx2.Response(200, json={"format": 1, "settings": {}, "results": []})
            case "POST", [job, "cancel"]:
                return httpx2.Response(200, json=self._document(job, {}, "canceled"))
        self.patience -= 1
        return httpx2.Response(200, json=self._document(parts[0], {}, "running" if self.patience >= 0 else self.state))

    def _document(self, job: str, asked: dict[str, Any], state: str = "queued") -> dict[str, Any]:
        fresh = {
            "id": job, "kind": asked.get("kind", "masks"), "pattern": asked.get("pattern", "2:4"), "solver": "auto",
            "created_at": "2026-01-01T00:00:00Z", "progress": {"done": 0, "total": 1},
            "tensors": self._reports(asked),
        }  # fmt: skip
        return self._jobs.setdefault(job, fresh) | {"state": state}

    def _reports(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        """Say that all tensors of a request have succeeded."""
        shapes = {
            tensor["name"]: self._headers[tensor["digest"]][tensor["key"]]["shape"]
            for tensor in asked.get("tensors", ())
            if tensor["digest"] in self._headers
        }
        own = {tensor["name"]: tensor.get("pattern") for tensor in asked.get("tensors", ())}
        return [
            {"name": name, "state": "succeeded", "shape": list(shape),
             "pattern": own.get(name) or asked.get("pattern", "2:4")}
            for name, shape in (shapes or SHAPES).items()
        ]  # fmt: skip

    def _page(self) -> dict[str, Any]:
        self.pages -= 1
        job = self._document(f"{self.pages:04x}", {}, "succeeded")
        return {"jobs": [job], "next": job["id"] if self.pages > 0 else None}

    def lines(self) -> list[dict[str, Any]]:
        """Tell what was asked, in order; uploads side by side are sorted, and random keys numbered."""
        keys: dict[str, str] = {}
        told = [_told(request, keys) for request in self.asked]
        ordered: list[dict[str, Any]] = []
        run: list[dict[str, Any]] = []
        for line in [*told, None]:
            if line is not None and "/v1/tensors/" in line["path"]:
                run.append(line)
                continue
            ordered += sorted(run, key=lambda line: line["path"])
            run = []
            ordered += [] if line is None else [line]
        return ordered


def _told(request: httpx2.Request, keys: dict[str, str]) -> dict[str, Any]:
    path, _, _ = request.url.raw_path.decode().partition("?")
    line: dict[str, Any] = {"method": request.method, "host": request.url.host, "path": path}
    if request.url.query:
        line["query"] = sorted(request.url.params.multi_items())
    headers = {name: value for name, value in sorted(request.headers.items()) if name not in OURS_NOT}
    headers["user-agent"] = re.sub(r"\d+(\.\d+)+", "*", headers["user-agent"])
    if "idempotency-key" in headers:
        key = headers["idempotency-key"]
        assert len(key) == 32
        headers["idempotency-key"] = keys.setdefault(key, f"random {len(keys) + 1}")
    line["headers"] = headers
    line["read_timeout_s"] = request.extensions["timeout"]["read"]
    if headers.get("content-type") == "application/json":
        line["json"] = json.loads(request.content)
    elif request.content:
        line["body"] = {"bytes": len(request.content), "sha256": hashlib.sha256(request.content).hexdigest()}
    return json.loads(json.dumps(line))
