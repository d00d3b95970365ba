"""The one door to numba: every compiled function of masksmith passes here, so flags live in one place.

Kernels release the GIL (threads run them side by side), are cached on disk, and never use fast-math: signs and ties
must not depend on the compiler's mood.
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


def borrow(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a kernel that allocates nothing, without reference counts: their atomic updates outweigh short work."""
    options: dict[str, Any] = {"nogil": True, "cache": True, "boundscheck": False, "_nrt": False}
    return cast("Callable[P, R]", numba.njit(function, **options))


def inline(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a kernel that always dissolves into its callers (LLVM `alwaysinline`)."""
    return cast("Callable[P, R]", numba.njit(function, nogil=True, cache=True, forceinline=True))


def intrinsic(typing: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function whose machine code is written by hand, in LLVM instructions; constants come as literals."""
    return cast("Callable[..., Any]", numba.extending.intrinsic(prefer_literal=True)(typing))


class _Notice(numba.core.event.Listener):
    """Says, once a process, that a kernel of ours is not on disk yet: nobody should wait for a compiler untold."""

    told = False

    def on_start(self, event: Any) -> None:
        """Speak up at the first compilation."""
        function = event.data["dispatcher"].py_func
        if not self.told and function.__module__.startswith("masksmith."):
            self.told = True
            log.warning("compiling kernels for this machine, once; this can take half a minute (masksmith warmup)")

    def on_end(self, event: Any) -> None:
        """Nothing to say."""


numba.core.event.register("numba:compile", _Notice())  # type: ignore[no-untyped-call]
