"""The training process's side of mask requests: copies weights, submits requests, receives masks, logs failures."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from masksmith.patterns import Pattern
from masksmith_client._client import Client
from masksmith_client._errors import InputError
from masksmith_client.submission.tensors import SAFETENSORS_DTYPES

from .masked_layer import MaskedLayer
from .methods.method import Method
from .on_device import DeviceMemory, DeviceSnapshots, can_solve_on_device, create_device_worker
from .process_group import ProcessGroup
from .refresh import Refresh
from .refresh_worker.create import create_worker
from .refresh_worker.messages import RefreshRequest, RefreshResponse
from .refresh_worker.shared_memory import LayerSlot, SharedMemory
from .refresh_worker.thread import RefreshWorker
from .sharding import Sharding, is_dtensor, local
from .shares import Proofs, Shares, divide, merge
from .snapshots import Snapshots

log = logging.getLogger("masksmith_client.training")

ScoresOf = Callable[[str, Tensor], Tensor]
"""Returns the scores of a weight from its name and value."""


@dataclass
class PendingRequest:
    """A request for masks; every rank stores it, also a rank that submits nothing to a worker.

    Attributes:
        step: Number of optimizer steps after which the weights were copied.
        pattern: The pattern of the masks.
        requested_s: `time.monotonic()` at the request.
        dropped: Whether the response is to be ignored.
    """

    step: int
    pattern: Pattern
    requested_s: float
    dropped: bool = False


class Refresher:
    """Requests and receives masks, one request at a time.

    Args:
        layers: The masked layers.
        masks: What solves the masks, as in `Sparsifier(masks=...)`; None creates a `Client()`.
        refresh: Timeout, processors, and whether requests are handled in the calling thread.
        method: The training method, which may compute scores and need gradients.
        hysteresis: Added to the scores of entries that the masks keep already.
        scores: Computes scores; by default the method does, or weights are scored by magnitude.

    Attributes:
        pending: The last request, until `take_pending` returns it; None if there is none.
        late: Number of refreshes that became due while an earlier one was pending.
        outages: Number of outages: sequences of failed requests; one that has not ended counts, too.
        failure: Why the request of the last response failed as a whole; None if it did not, or if there is no response.
        failing: Layers that were to be solved and got no mask in the last response, with the reason; empty if the
            request as a whole failed.
    """

    def __init__(
        self,
        layers: list[MaskedLayer],
        masks: object,
        refresh: Refresh,
        method: Method,
        hysteresis: float = 0.0,
        scores: ScoresOf | None = None,
    ) -> None:
        self._layers, self._method = layers, method
        self._refresh, self._hysteresis, self._scores = refresh, hysteresis, scores
        self._values_are_scores = method.gives_scores or scores is not None
        self._process_group = ProcessGroup(layers[0].weight.device)
        # The client that this object has created and must close: None if `masks` was passed, and after `release`.
        self._own_client = Client() if masks is None else None
        # What solves the masks: `masks`, or the client above; None after `release` has closed it.
        self._masks: object = self._own_client if masks is None else masks
        # Whether scores have been returned that float32 would round; the memory of all layers is float64 then.
        self._has_float64_scores = False
        self._worker: RefreshWorker | None = None
        # Before the first request there is no pattern, so layers stay whole; each request divides them by its pattern.
        self._start(self._divide(None))
        self.pending: PendingRequest | None = None
        self.late = 0
        self.outages = 0
        self.failure: str | None = None
        self.failing: dict[str, str] = {}

    def _divide(self, pattern: Pattern | None) -> Shares:
        """Divide the layers among the ranks; without a pattern, and for scores, each layer as a whole."""
        return divide(self._layers, None if self._values_are_scores else pattern, self._process_group.world_size)

    def _current_storage(self) -> list[tuple[torch.dtype, torch.device]]:
        """Return dtype and device of all weights.

        Weights that other ranks solve are included, so that after a change all ranks call `_start` at the same request.
        """
        return [(layer.weight.dtype, layer.weight.device) for layer in self._layers]

    def _start(self, shares: Shares) -> None:
        """Store the shares, close the previous worker, and create memory and worker for this rank's shares, if any."""
        self.close()
        self._process_group.use(self._layers[0].weight.device)
        self._shares, self._storage, self._worker = shares, self._current_storage(), None
        self._proofs: Proofs = {}
        # By layer whose rows are divided among several shares: how its mask was divided at the last request.
        self._shardings: dict[str, Sharding | None] = {}
        rank = self._process_group.rank
        self._own_shares = {
            name: share for name, layer_shares in shares.items() for share in layer_shares if share.rank == rank
        }
        layers = [layer for layer in self._layers if layer.name in self._own_shares]
        self._is_on_device = can_solve_on_device(self._layers, self._masks)
        if not layers:
            return
        slots = [self._slot(layer) for layer in layers]
        self._memory: SharedMemory | DeviceMemory
        self._snapshots: Snapshots | DeviceSnapshots
        if self._is_on_device:
            memory = DeviceMemory(slots, [layer.weight.device for layer in layers])
            self._worker = create_device_worker(self._masks, memory, self._refresh)
            self._memory, self._snapshots = memory, DeviceSnapshots(memory)
        else:
            shared = SharedMemory(slots)
            self._worker = create_worker(self._masks, shared, self._refresh)
            self._memory, self._snapshots = shared, Snapshots(shared)

    def mask(self, layer: MaskedLayer) -> Tensor:
        """Return this rank's part of a new mask; all ranks must call this for the same layers in the same order."""
        name, masking = layer.name, layer.masking
        stored = self._memory.mask(name) if name in self._own_shares else None
        mask = stored if stored is None or isinstance(stored, Tensor) else torch.from_numpy(stored)
        if name in self._shardings and self._shardings[name] == masking.sharding:
            # The mask is divided as at the request, so this rank has solved its own part of it. A rank that owns no
            # rows has an empty mask, which is returned unchanged.
            return masking.mask if mask is None else mask
        if self._process_group.is_distributed:
            shares, packed = self._shares[name], not self._is_on_device
            mask = self._process_group.gather_mask(shares, mask, layer.shape, packed=packed)
        assert mask is not None
        return masking.part_of(mask)

    @property
    def handled_in(self) -> str:
        """Where requests are handled, for the report."""
        return "another process of the group" if self._worker is None else self._worker.handled_in

    def request(self, pattern: Pattern, step: int) -> None:
        """Copy weights or scores, and request masks, without waiting for the masks or for copies from a GPU.

        All ranks must call this at the same step, while no request is pending.

        Raises:
            InputError: If the function `scores` does not return a tensor of real numbers in the layer's shape.
        """
        self._reopen()
        shares = self._divide(pattern)
        if shares != self._shares or self._current_storage() != self._storage:
            # The present memory fits only the shares, dtypes and devices that it was made for. Shares change with the
            # tiles of the pattern, and when weights are sharded. Values of another dtype would be rounded to the dtype
            # of the memory.
            self._start(shares)
        pending = PendingRequest(step, pattern, time.monotonic())
        for layer in self._layers:
            recorded = layer.masking.gradient
            if self._method.needs_gradient and not layer.masking.dense:
                self._process_group.sum_gradient(layer)
            self._take_snapshot(layer, step)
            # `sum_gradient` replaced the gradient by a sum that is as large as the whole layer. It is dropped here, so
            # that only one such sum is in memory at a time.
            layer.masking.gradient = recorded
        self.pending = pending  # Not before: if scores fail, no request is pending.
        if self._worker is None:
            return
        self._snapshots.mark_end()
        request = RefreshRequest(
            step=step,
            pattern=str(pattern),
            axis=pattern.axis,
            ragged=pattern.ragged,
            layers=list(self._own_shares),
            are_scores=self._values_are_scores,
            hysteresis=self._hysteresis,
            timeout_s=self._refresh.timeout_s,
        )
        self._snapshots.when_done(partial(self._worker.submit, request))

    def _take_snapshot(self, layer: MaskedLayer, step: int) -> None:
        """Copy the values and mask of this rank's share of a layer, if it has one; take part in gathering the layer."""
        name = layer.name
        has_share = name in self._own_shares
        if len(self._shares[name]) > 1:
            self._shardings[name] = layer.masking.sharding
            if has_share:
                self._snapshots.take(name, local(layer.weight.detach()), local(layer.mask))
        elif has_share or is_dtensor(layer.weight):
            # All ranks gather a sharded weight together, one layer at a time.
            values, mask = self._values(layer, step), layer.whole_mask()
            if has_share:
                if self._values_are_scores:
                    self._make_room_for(values)
                self._snapshots.take(name, values, mask)

    def _make_room_for(self, scores: Tensor) -> None:
        """Replace the memory by one of float64, with the copies so far, if these scores are the first that need it."""
        is_exact_in_float32 = scores.dtype.itemsize < 4 or scores.dtype == torch.float32
        if self._has_float64_scores or self._is_on_device or is_exact_in_float32:
            return
        self._has_float64_scores = True
        self.close()
        assert isinstance(self._memory, SharedMemory)
        assert isinstance(self._snapshots, Snapshots)
        layers = [layer for layer in self._layers if layer.name in self._own_shares]
        memory, previous = SharedMemory([self._slot(layer) for layer in layers]), self._snapshots
        self._memory, self._snapshots = memory, previous.copied_to(memory)
        self._worker = create_worker(self._masks, memory, self._refresh)

    def follow_process_group(self) -> bool:
        """Divide the layers anew if the process group has changed, and return whether it has.

        It has changed if it was initialized or destroyed after the last call. The response to a pending request is then
        ignored: other ranks have requested other masks, or have received theirs already. All ranks get the masks of
        rank 0; all must call this at the same step.
        """
        if not self._process_group.follow():
            return False
        if self.pending is not None:
            self._wait()  # The solver may not be able to handle another request at the same time.
            self.pending = None
        self._start(self._divide(None))
        self._process_group.share_masks(self._layers)
        return True

    def poll(self) -> RefreshResponse | None:
        """Return the response if it has arrived on all ranks; else, or if no request is pending, return None.

        All ranks must call this at the same step. It does not wait for the masks.
        """
        return None if self.pending is None else self._receive(self._poll)

    def wait(self) -> RefreshResponse:
        """Block until the response to the pending request has arrived on all ranks, and return it."""
        response = self._receive(self._wait)
        assert response is not None
        return response

    def drop(self) -> None:
        """Ignore the response to the pending request, if there is one."""
        if self.pending is not None:
            self.pending.dropped = True

    def take_pending(self) -> PendingRequest:
        """Return the pending request, and set `pending` to None; called when the response has arrived."""
        assert self.pending is not None
        pending, self.pending = self.pending, None
        return pending

    def count_late(self) -> None:
        """Count a refresh that became due while a request is pending; log only the first one of the training run."""
        assert self.pending is not None
        if self.late == 0:
            log.warning(
                "the masks requested at step %d have not arrived, and the next are due; training continues with the "
                "last masks, and the next are requested as soon as these arrive",
                self.pending.step,
            )
        self.late += 1

    def close(self) -> None:
        """Stop the worker, if this rank has one; the next request starts it again."""
        if self._worker is not None:
            self._worker.close()

    def release(self) -> None:
        """Stop the worker, and close the client if this object has created it; the next request starts both again."""
        self.close()
        if self._own_client is not None:
            self._own_client.close()
            self._own_client = self._masks = None

    def _reopen(self) -> None:
        """After `release` has closed the client, create another, and a worker that uses it."""
        if self._masks is not None:
            return
        self._masks = self._own_client = Client()
        if self._worker is not None:
            assert isinstance(self._memory, SharedMemory)  # A client solves nothing on the weights' devices.
            self._worker = create_worker(self._masks, self._memory, self._refresh)

    def _poll(self) -> RefreshResponse | None:
        if self._worker is None:
            return self._empty_response()
        return self._worker.poll() if self._snapshots.are_done() else None

    def _wait(self) -> RefreshResponse:
        if self._worker is None:
            return self._empty_response()
        self._snapshots.wait()
        return self._worker.wait()

    def _empty_response(self) -> RefreshResponse:
        """Return the response of a rank without a share."""
        assert self.pending is not None
        return RefreshResponse(step=self.pending.step)

    def _receive(self, get_own_response: Callable[[], RefreshResponse | None]) -> RefreshResponse | None:
        """Collect and merge the responses of all ranks, and record failures; None until all ranks have a response.

        Args:
            get_own_response: Returns this rank's response, or None if it has not arrived.
        """
        responses = self._process_group.collect(get_own_response)
        if responses is None:
            return None
        response = merge(responses, self._shares, self._proofs)
        if response.failure is not None:
            self._record_failure(response.failure)
        elif self.failure is not None:
            log.warning("masks are refreshed again")
            self.failure = None
        self._record_failing_layers(response)
        return response

    def _record_failure(self, failure: str) -> None:
        """Store why a request failed; if an outage begins with it, count and log the outage."""
        if self.failure is None:
            self.outages += 1
            log.warning("masks are not being refreshed: %s; training continues with the last masks", failure)
        self.failure = failure

    def _record_failing_layers(self, response: RefreshResponse) -> None:
        """Store which layers failed; log those that have a mask and did not fail in the response before."""
        failing = {name: result.error for name, result in response.layers.items() if result.error is not None}
        dense = {layer.name: layer.masking.dense for layer in self._layers}
        for name, error in failing.items():
            if name not in self.failing and not dense[name]:
                log.warning("layer %r keeps its last mask: %s", name, error)
        self.failing = failing

    @torch.no_grad()
    def _values(self, layer: MaskedLayer, step: int) -> Tensor:
        """Return a layer's scores, or its whole weight if it is scored by magnitude.

        Raises:
            InputError: If the function `scores` does not return a tensor of real numbers in the layer's shape.
        """
        if self._method.gives_scores:
            return self._method.scores(layer, step)
        if self._scores is None:
            return layer.whole_weight()
        scores = self._scores(layer.name, layer.whole_weight())
        if not isinstance(scores, Tensor):
            raise InputError(f"scores of {layer.name!r} are {type(scores).__name__}, not a tensor")
        if scores.is_complex():
            raise InputError(f"scores of {layer.name!r} are {scores.dtype}, not real numbers")
        if tuple(scores.shape) != layer.shape:
            raise InputError(f"scores of {layer.name!r} have shape {list(scores.shape)}, not {list(layer.shape)}")
        return scores

    def _slot(self, layer: MaskedLayer) -> LayerSlot:
        """Return the slot in memory of this rank's share of a layer."""
        dtype = SAFETENSORS_DTYPES[str(layer.weight.dtype).removeprefix("torch.")]
        if self._values_are_scores:
            dtype = "F64" if dtype == "F64" or self._has_float64_scores else "F32"
        layout = layer.layout
        return LayerSlot(
            layer.name,
            dtype,
            self._own_shares[layer.name].shape(layer.shape),
            None if layout is None else str(layout),
            () if layout is None else layout.out_parts,
        )
