"""Traces on disk, so that the next command on the same model need not import `torch` and `transformers`.

A trace depends on the config, on the names and shapes of the tensors, on the versions of Python, `torch` and
`transformers`, and on the modules of masksmith that make, write and read traces. The name of the trace's file is a
digest of all of these. The file begins with a digest of its other bytes, so a damaged file is not used.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import platformdirs
from blake3 import blake3

from masksmith import _torch_modes, layouts
from masksmith.layouts import Layout
from masksmith_client.results.atomic_write import atomic_write

from .trace import Trace

MAX_FILES = 64
"""Number of traces that are kept: those written last."""
LIBRARIES = ("torch", "transformers")
"""Packages whose versions are part of the key."""


def cache_folder() -> Path:
    """Return the folder of traces, in the user's cache directory."""
    return Path(platformdirs.user_cache_dir("masksmith", appauthor=False)) / "layouts"


def trace_key(config: bytes, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Return a digest of everything that a trace depends on; `LIBRARIES` must be installed.

    Args:
        config: The bytes of `config.json`.
        shapes: Shapes of the checkpoint's tensors, without scales, by name.
    """
    versions = [importlib.metadata.version(name) for name in LIBRARIES]
    hasher = blake3(json.dumps([versions, platform.python_version(), sorted(shapes.items())]).encode())
    hasher.update(blake3(config).digest())
    for path in _source_files():
        hasher.update(blake3(path.read_bytes()).digest())
    return hasher.hexdigest()


def _source_files() -> list[Path]:
    """Return the files of the modules that make a trace, and write and read it."""
    folder = Path(__file__).parent
    modules = [folder / name for name in ("trace_cache.py", "trace.py", "traced.py", "config.py")]
    modules += [folder.parent / "submission/modules.py", Path(_torch_modes.__file__)]
    return [*modules, *sorted((folder / "tracing").glob("*.py")), *sorted(Path(layouts.__file__).parent.glob("*.py"))]


def load_trace(key: str) -> Trace | None:
    """Read a trace; None if there is none of this key, or its file is damaged or cannot be read."""
    try:
        digest, _, content = (cache_folder() / f"{key}.json").read_bytes().partition(b"\n")
    except OSError:
        return None
    if digest != _digest(content):
        return None
    fields = json.loads(content)
    layout_of = {
        name: Layout(tuple(axes), tuple(parts), rule) for name, (axes, parts, rule) in fields["layouts"].items()
    }
    return Trace(**fields | {"layouts": layout_of})


def save_trace(key: str, trace: Trace) -> None:
    """Write a trace, and delete the oldest beyond `MAX_FILES`; an error of the file system is ignored."""
    layout_fields = {name: [layout.axes, layout.out_parts, layout.rule] for name, layout in trace.layouts.items()}
    content = json.dumps(asdict(trace) | {"layouts": layout_fields}).encode()
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with atomic_write(folder / f"{key}.json") as file:
            file.write(_digest(content) + b"\n" + content)
        _delete_beyond_max(folder)
    except OSError:
        return


def _delete_beyond_max(folder: Path) -> None:
    files = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in files[MAX_FILES:]:
        path.unlink(missing_ok=True)


def _digest(content: bytes) -> bytes:
    return blake3(content).hexdigest().encode()
