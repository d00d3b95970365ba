"""Refreshes on the weights' devices: weights and masks stay on the GPU. Used if `can_solve_on_device` is true.

Snapshots are copies on the device. The masks are solved there, by a thread or, with `Refresh.wait`, by the calling
thread. Only proofs and the numbers of added and dropped entries are copied to the host. A layer is solved at every
refresh, whether its weights have changed or not.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from masksmith.patterns import parse
from masksmith_client._errors import InputError

from .masked_layer import MaskedLayer
from .refresh import Refresh
from .refresh_worker.messages import LayerResult, RefreshRequest, RefreshResponse
from .refresh_worker.shared_memory import LayerSlot
from .refresh_worker.sources import solve_matrices
from .refresh_worker.thread import InlineWorker, RefreshWorker, ThreadWorker

log = logging.getLogger("masksmith_client.training")


def can_solve_on_device(layers: Iterable[MaskedLayer], masks: object) -> bool:
    """Whether masks can be solved on the weights' devices.

    This needs weights that are all on CUDA devices, `masks=masksmith.solve`, and kernels that can run. If only the
    kernels cannot run, the reason is logged as a warning.
    """
    library = sys.modules.get("masksmith")
    if library is None or masks is not getattr(library, "solve", None):
        return False
    if not all(layer.weight.is_cuda for layer in layers):
        return False
    from masksmith.cuda import reason_kernels_cannot_run

    reason = reason_kernels_cannot_run()
    if reason is not None:
        log.warning("masks of weights on CUDA devices are solved on the CPU: %s", reason)
    return reason is None


class DeviceMemory:
    """Values, previous masks and new masks of all layers, each on its weight's device; used instead of `SharedMemory`.

    Args:
        slots: The layers.
        devices: The device of each layer's weight, in the order of the slots.
    """

    def __init__(self, slots: Iterable[LayerSlot], devices: Iterable[torch.device]) -> None:
        self.slots = {slot.name: slot for slot in slots}
        self._values: dict[str, Tensor] = {}
        self._previous: dict[str, Tensor] = {}
        self._masks = {
            slot.name: torch.zeros(slot.shape, dtype=torch.bool, device=device)
            for slot, device in zip(self.slots.values(), devices, strict=True)
        }

    def values(self, name: str) -> Tensor:
        """Return the copy of a layer's weights or scores."""
        return self._values[name]

    def previous(self, name: str) -> Tensor:
        """Return the mask that a layer had at the time of the request."""
        return self._previous[name]

    def mask(self, name: str) -> Tensor:
        """Return a layer's new mask, all False before the first solve; each solve overwrites it."""
        return self._masks[name]

    @property
    def devices(self) -> set[torch.device]:
        """The devices of the layers."""
        return {mask.device for mask in self._masks.values()}

    def take(self, name: str, values: Tensor, mask: Tensor) -> None:
        """Copy a layer's values and mask."""
        self._values[name], self._previous[name] = values.detach().clone(), mask.clone()


class DeviceSnapshots:
    """Copies on the device, complete before the worker's kernels read them; used instead of `Snapshots`."""

    def __init__(self, memory: DeviceMemory) -> None:
        self._memory = memory

    def take(self, name: str, values: Tensor, mask: Tensor) -> None:
        """Copy a layer's values and mask."""
        self._memory.take(name, values, mask)

    def mark_end(self) -> None:
        """Let the worker's kernels wait for the copies, also if training has a CUDA stream of its own.

        Kernels run in the order of their launch only within a stream; a worker's thread uses the default streams.
        """
        for device in self._memory.devices:
            if device.type == "cuda":
                torch.cuda.default_stream(device).wait_stream(torch.cuda.current_stream(device))

    def when_done(self, callback: Callable[[], None]) -> None:
        """Call `callback` now."""
        callback()

    def are_done(self) -> bool:
        """Return True: nothing has to be waited for."""
        return True

    def wait(self) -> None:
        """Do nothing: nothing has to be waited for."""


class DeviceHandler:
    """Handles refresh requests on the device, one at a time.

    Args:
        solve: `masksmith.solve`.
        memory: Holds the layers' values and masks.
    """

    def __init__(self, solve: Callable[..., Any], memory: DeviceMemory) -> None:
        self._solve, self._memory = solve, memory

    def handle(self, request: RefreshRequest) -> RefreshResponse:
        """Solve the masks of a request; failures are part of the response."""
        try:
            layers = {name: self._solve_layer(name, request) for name in request.layers}
        except Exception as error:
            log.exception("masks could not be computed")
            return RefreshResponse(step=request.step, failure=f"{type(error).__name__}: {error}")
        return RefreshResponse(step=request.step, layers=layers)

    @torch.no_grad()
    def _solve_layer(self, name: str, request: RefreshRequest) -> LayerResult:
        pattern = parse(request.pattern, axis=request.axis, ragged=request.ragged)  # type: ignore[arg-type]
        slot, previous = self._memory.slots[name], self._memory.previous(name)
        mask = torch.empty_like(self._memory.mask(name))
        try:
            result = solve_matrices(
                lambda part, pattern: self._solve(part.contiguous(), pattern), self._scores(name, request), mask,
                slot, pattern, _as_mask,
            )  # fmt: skip
        except ValueError as error:
            return LayerResult(error=str(error))
        self._memory.mask(name).copy_(mask)
        added, dropped = torch.stack(((mask & ~previous).sum(), (previous & ~mask).sum())).tolist()
        return result.model_copy(update={"added": added, "dropped": dropped})

    def _scores(self, name: str, request: RefreshRequest) -> Tensor:
        values = self._memory.values(name)
        scores = values if request.are_scores else values.abs()
        if request.hysteresis == 0.0:
            return scores
        scores = scores if scores.dtype == torch.float64 else scores.float()
        # As on the CPU, the bonus has the scores' dtype; a product of bools and a float has torch's default dtype.
        return scores + self._memory.previous(name).to(scores.dtype) * request.hysteresis


def create_device_worker(solve: object, memory: DeviceMemory, refresh: Refresh) -> RefreshWorker:
    """Create the worker that solves in a thread, or with `refresh.wait` in the calling thread."""
    assert callable(solve)
    handler = DeviceHandler(solve, memory)
    worker = InlineWorker(handler) if refresh.wait else ThreadWorker(handler)
    worker.handled_in = f"{worker.handled_in}, on the device of the weights"
    return worker


def _as_mask(solution: Any, slot: LayerSlot, shape: tuple[int, ...]) -> Tensor:
    mask = solution.mask
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or tuple(mask.shape) != tuple(shape):
        raise InputError(f"the mask of {slot.name!r} is not a bool tensor of shape {list(shape)}")
    return mask
