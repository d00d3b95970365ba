"""Updates masks step by step: requests masks when they are due, applies those that have arrived, makes layers dense."""

from __future__ import annotations

import torch

from masksmith.patterns import Pattern
from masksmith_client._errors import ClientError

from .history import History
from .masked_layer import MaskedLayer
from .methods.method import Method
from .pacing import Pacing
from .refresh import Refresh
from .refresh_worker.messages import RefreshResponse
from .refresher import Refresher
from .schedules import Schedule


class MaskUpdates:
    """Updates the masks of layers step by step.

    Args:
        layers: The masked layers.
        refresher: Requests and receives the masks.
        refresh: When masks are requested, and whether each request is waited for.
        pattern: The final pattern.
        schedule: Returns the pattern at each step, from the final pattern.
        method: The training method; its `settle` is called for each layer that gets a new mask.

    Attributes:
        step: Number of optimizer steps so far.
        history: Reports and records of the applied masks.
    """

    def __init__(
        self,
        layers: list[MaskedLayer],
        refresher: Refresher,
        refresh: Refresh,
        pattern: Pattern,
        schedule: Schedule,
        method: Method,
    ) -> None:
        self._layers, self._refresher, self._refresh = layers, refresher, refresh
        self._pattern, self._schedule, self._method = pattern, schedule, method
        self._pacing = Pacing(refresh)
        self.step = 0
        self.history = History({layer.name: layer.shape for layer in layers})

    @property
    def pattern(self) -> Pattern | None:
        """The pattern of this step; None if the schedule makes layers dense at this step."""
        return self._schedule.pattern_at(self._pattern, self.step)

    @property
    def masks_pattern(self) -> str | None:
        """The pattern of the masks that were applied last; None if none were."""
        return self.history.records[-1].pattern if self.history.records else None

    def follow_process_group(self) -> None:
        """Couple the ranks if the process group has changed; see `Refresher.follow_process_group`."""
        if self._refresher.follow_process_group():
            self._pacing.reset()  # All ranks must request masks at the same steps, so they need the same pacing state.

    def advance(self) -> None:
        """Count an optimizer step: apply masks that have arrived; then request masks if they are due.

        If the schedule makes layers dense at this step, they become dense instead, and masks that have arrived are
        ignored. Raises as `request` does.
        """
        self.step += 1
        response = self._refresher.poll()
        if response is not None:
            self._apply(response)
        if (pattern := self.pattern) is None:
            self._make_dense()
        elif self._is_due(pattern, self.step):
            self.request(pattern)

    def request(self, pattern: Pattern, *, wait: bool = False) -> None:
        """Request masks for the current weights; with `wait` or `Refresh.wait`, also wait for them and apply them.

        If an earlier request is pending, nothing is requested: this only records that masks are due, so that they are
        requested later.

        Raises:
            ClientError: If masks that were waited for cannot be computed.
            InputError: If the caller's `scores` returns something other than the scores of a layer. This class is a
                subclass of `ClientError`.
        """
        if self._refresher.pending is not None:
            has_become_due = self._pacing.on_late(self.step)
            if has_become_due:
                self._refresher.count_late()
            return
        self._pacing.on_request(self.step, str(pattern))
        self._refresher.request(pattern, self.step)
        if wait or self._refresh.wait:
            response = self._refresher.wait()
            self._apply(response)
            if response.failure is not None:
                raise ClientError(f"the masks of step {self.step} could not be computed: {response.failure}")

    def finish_pending(self) -> None:
        """Wait for the pending request, if there is one, and apply its masks.

        They are not applied if the request failed or was dropped, or if layers are dense at this step.
        """
        if self._refresher.pending is not None:
            self._apply(self._refresher.wait())

    def restart_at(self, step: int) -> None:
        """Continue from a step, as after loading a checkpoint."""
        self.step = step
        self._pacing.reset()

    def reset_gradients(self) -> None:
        """Discard the recorded gradients, and have new ones recorded if masks are due after the next step.

        If the method needs no gradients, none are ever recorded.
        """
        if not self._method.needs_gradient:
            return
        is_due = self._is_due(self._schedule.pattern_at(self._pattern, self.step + 1), self.step + 1)
        for layer in self._layers:
            layer.masking.gradient = None
            layer.masking.records_gradient = is_due

    def _is_due(self, pattern: Pattern | None, step: int) -> bool:
        if pattern is None:
            return False
        any_dense = any(layer.masking.dense for layer in self._layers)
        new_pattern = None if self.masks_pattern in (None, str(pattern)) else str(pattern)
        return self._pacing.is_due(step, any_dense=any_dense, new_pattern=new_pattern)

    def _apply(self, response: RefreshResponse) -> None:
        """Take the pending request, and apply and record the masks of the response.

        The masks are ignored if the request was dropped or failed, or if the schedule makes layers dense at this step.
        """
        pending = self._refresher.take_pending()
        if pending.dropped or response.failure is not None or self.pattern is None:
            return
        dense_layers = {layer.name for layer in self._layers if layer.masking.dense}
        for layer in self._layers:
            result = response.layers[layer.name]
            # The unchanged mask of a layer that was made dense after its last solve is applied again.
            if result.has_new_mask or (result.unchanged and layer.masking.dense):
                self._set_mask(layer)
        self.history.add(response, pending, self.step, dense_layers, self._refresher.late)

    @torch.no_grad()
    def _set_mask(self, layer: MaskedLayer) -> None:
        previous = None if layer.masking.dense else layer.masking.mask.clone()
        layer.masking.mask.copy_(self._refresher.mask(layer))
        layer.masking.dense = False
        self._method.settle(layer, previous)

    def _make_dense(self) -> None:
        """Make all layers dense, and ignore the response to a pending request."""
        self._refresher.drop()
        for layer in self._layers:
            layer.masking.dense = True
