"""Decorators that compile kernels with numba; no other module imports numba, so all flags are set here.

Kernels release the GIL (threads run them in parallel), are cached on disk, and never use fast-math: signs and ties
must not depend on how the compiler reorders floating-point operations.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import numba
import numba.core.event
import numba.extending
from numba.core import cgutils, types as types

COMPILED: bool = not numba.config.DISABLE_JIT  # type: ignore[attr-defined]
"""Whether kernels are compiled; with NUMBA_DISABLE_JIT=1 they run as plain Python, and intrinsics cannot run at all."""

alloca_once: Any = cgutils.alloca_once
for_range: Any = cgutils.for_range

log = logging.getLogger("masksmith")

P = ParamSpec("P")
R = TypeVar("R")


def jit(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a kernel on first call, without fast-math, without the GIL, cached on disk."""
    return cast("Callable[P, R]", numba.njit(function, nogil=True, cache=True, boundscheck=False))


def jit_without_refcounts(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a kernel that allocates nothing, without reference counting: its atomic updates slow short kernels."""
    options: dict[str, Any] = {"nogil": True, "cache": True, "boundscheck": False, "_nrt": False}
    return cast("Callable[P, R]", numba.njit(function, **options))


def inline(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a kernel that is always inlined into its callers (LLVM `alwaysinline`)."""
    return cast("Callable[P, R]", numba.njit(function, nogil=True, cache=True, forceinline=True))


def intrinsic(typing: Callable[..., Any]) -> Callable[..., Any]:
    """Define a function by the LLVM instructions that `typing` generates; integer constants are passed as literals."""
    return cast("Callable[..., Any]", numba.extending.intrinsic(prefer_literal=True)(typing))


class _CompilationLogger(numba.core.event.Listener):
    """Logs a warning when the first masksmith kernel of this process has to be compiled."""

    logged = False

    def on_start(self, event: Any) -> None:
        function = event.data["dispatcher"].py_func
        if not self.logged and function.__module__.startswith("masksmith."):
            self.logged = True
            log.warning("compiling kernels for this machine, once; this can take half a minute (masksmith warmup)")

    def on_end(self, event: Any) -> None:
        pass


numba.core.event.register("numba:compile", _CompilationLogger())  # type: ignore[no-untyped-call]
