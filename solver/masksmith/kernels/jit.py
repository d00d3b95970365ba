"""Decorators that compile CPU kernels; only this module and `cuda.jit` import numba, so all flags are set here.

Kernels release the GIL (threads run them in parallel), are cached on disk, and never use fast-math: signs and ties
must not depend on how the compiler reorders floating-point operations.
"""

from __future__ import annotations

import errno
import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import IO, Any, ParamSpec, TypeVar, cast

import numba
import numba.core.event
import numba.extending
from numba.core import cgutils, types as types
from numba.core.caching import FunctionCache
from numba.core.compiler_lock import global_compiler_lock

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""Errors of file systems that have no locks, such as some network file systems."""
COMPILED: bool = not numba.config.DISABLE_JIT  # type: ignore[attr-defined]
"""Whether kernels are compiled; with NUMBA_DISABLE_JIT=1 they run as plain Python, and intrinsics cannot run at all."""

numba_version: str = numba.__version__

alloca_once: Any = cgutils.alloca_once
for_range: Any = cgutils.for_range

log = logging.getLogger("masksmith")

P = ParamSpec("P")
R = TypeVar("R")


def jit(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a kernel on its first call; it runs without fast-math and without the GIL, and is cached on disk."""
    return _cached(numba.njit(function, nogil=True, boundscheck=False))


def jit_without_refcounts(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a kernel that allocates nothing; it lacks reference counting, whose atomic updates slow short kernels."""
    options: dict[str, Any] = {"nogil": True, "boundscheck": False, "_nrt": False}
    return _cached(numba.njit(function, **options))


def inline(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a kernel that is always inlined into its callers (LLVM `alwaysinline`)."""
    return _cached(numba.njit(function, nogil=True, forceinline=True))


def _cached(dispatcher: Any) -> Callable[P, R]:
    if COMPILED:
        dispatcher._cache = LockedCache(dispatcher.py_func)
        dispatcher.compile = partial(_compile_once, dispatcher, dispatcher.compile)
    return cast("Callable[P, R]", dispatcher)


def _compile_once(dispatcher: Any, compile_or_load: Callable[[Any], Any], signature: Any) -> Any:
    # Processes that need the same kernel at the same time would all compile it. With the lock, one process compiles the
    # kernel, and the other processes wait and then load it. A kernel's lock is held while the kernels that it calls are
    # compiled, and no kernel calls itself, so no two processes wait for each other. Within a process, numba's lock is
    # taken first.
    with global_compiler_lock, locked(dispatcher._cache.lock_path(signature, dispatcher.targetctx.codegen())):
        return compile_or_load(signature)


@cache
def sources_digest() -> str:
    """Return a digest of the source of all kernels."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


class LockedCache(FunctionCache):
    """numba's cache of one kernel on disk, valid for the current source of all kernels, with a lock for saving.

    numba itself only looks at the file of the kernel, and would load a kernel into which outdated code of other files
    was inlined.
    Without the lock, two processes that save different signatures of one kernel at the same time may choose the same
    data file, so that one signature is later loaded with the code of the other.
    """

    def __init__(self, py_func: Callable[..., Any]) -> None:
        super().__init__(py_func)  # type: ignore[no-untyped-call]
        file = self._cache_file
        file._source_stamp = (file._source_stamp, sources_digest())

    def lock_path(self, signature: Any, codegen: Any) -> Path:
        """Return the file that is locked while a process loads or compiles one signature of this kernel."""
        key = repr(self._index_key(signature, codegen))  # type: ignore[no-untyped-call]
        digest = hashlib.blake2b(key.encode(), digest_size=8).hexdigest()
        return Path(self.cache_path) / f"{self._impl.filename_base}.{digest}.lock"

    def save_overload(self, sig: Any, data: Any) -> None:
        """Save a compiled kernel while no other process saves one in the same folder."""
        with locked(Path(self.cache_path) / "masksmith.lock"):
            super().save_overload(sig, data)  # type: ignore[no-untyped-call]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file, which the system releases if the process ends.

    No lock on Windows and on file systems without locks; processes may then compile the same kernels twice.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        if fcntl is not None:
            _lock(file)
        yield


def _lock(file: IO[bytes]) -> None:
    assert fcntl is not None
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        log.debug("no lock on %s: %s", file.name, error)


def intrinsic(typing: Callable[..., Any]) -> Callable[..., Any]:
    """Define a function by the LLVM instructions that `typing` generates; integer constants are passed as literals."""
    return cast("Callable[..., Any]", numba.extending.intrinsic(prefer_literal=True)(typing))


class _CompilationLogger(numba.core.event.Listener):
    """Logs a warning when the first masksmith kernel of this process has to be compiled.

    Attributes:
        logged: Whether the warning was logged.
        callbacks: Functions that are called before the warning, and then forgotten.
    """

    def __init__(self) -> None:
        self.logged = False
        self.callbacks: list[Callable[[], None]] = []

    def on_start(self, event: Any) -> None:
        function = event.data["dispatcher"].py_func
        if not self.logged and function.__module__.startswith("masksmith."):
            self.logged = True
            callbacks, self.callbacks = self.callbacks, []
            for callback in callbacks:
                callback()
            log.warning("compiling kernels for this machine, once; this can take half a minute (masksmith warmup)")

    def on_end(self, event: Any) -> None:
        pass


_LOGGER = _CompilationLogger()
numba.core.event.register("numba:compile", _LOGGER)  # type: ignore[no-untyped-call]


@contextmanager
def on_first_compilation(callback: Callable[[], None]) -> Iterator[None]:
    """Call a function if the first kernel of this process has to be compiled in the `with` block, not loaded from disk.

    It is not called if a kernel of this process was compiled before.
    """
    if not _LOGGER.logged:
        _LOGGER.callbacks.append(callback)
    try:
        yield
    finally:
        if callback in _LOGGER.callbacks:
            _LOGGER.callbacks.remove(callback)
