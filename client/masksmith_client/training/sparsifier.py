"""The sparsifier: masks on a model's layers, refreshed while training goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from masksmith.patterns import Pattern
from masksmith.patterns.matching import Globs
from masksmith_client._client import Client
from masksmith_client._errors import ClientError, InputError
from masksmith_client.submission.prepare import parse_pattern

from .history import History
from .layers import choose
from .masked_layer import MaskedLayer
from .methods.method import Method
from .methods.numbers import not_negative
from .methods.straight_through import SRSTE
from .refresh import Refresh, as_refresh
from .refresh_worker.messages import RefreshResponse
from .refresher import Refresher, ScoresOf
from .report import LayerReport, TrainingReport
from .schedules import Schedule
from .state import FORMAT, check_state, mask_state, read_state, set_mask, write_state


class Sparsifier:
    """Keeps masks on a model's layers while it is trained.

        sparsifier = Sparsifier(model, "transposable 8:16", masks=Client(), refresh=100)
        for batch in batches:
            ...
            optimizer.step()
            sparsifier.step()
        sparsifier.bake()

    The first masks are waited for, so what is wrong shows at once. After that `step` never waits: at a refresh it
    copies the weights, a process of its own has them solved, and a later `step` puts the new masks in. A service that
    is slow or gone leaves the last masks in place; the log says so once, and once more when masks come again. Under
    torch.distributed the first process requests masks, and all apply the same masks at the same step.

    Args:
        model: The model; its optimizer may exist already, unless the method adds parameters.
        pattern: Such as `"transposable 8:16"`, or a pattern object.
        masks: A `Client`, or a function of scores and pattern such as `masksmith.solve`; `Client()` unless given.
        refresh: Steps between refreshes, or a `Refresh`; None for masks that are computed once.
        method: What becomes of pruned weights; `SRSTE()` unless given.
        schedule: Which pattern counts when; the given one from the beginning unless given.
        layers: Names or globs of the layers to mask; all linear layers and convolutions but the first and the last
            unless given.
        exclude: Names or globs to leave dense.
        in_place: Write zeros into the weights instead of parametrizing them; for methods without dense weights.
        hysteresis: Bonus, in score units, for entries that the mask keeps already, so that masks change only where it
            pays; proofs are for the scores with the bonus.
        scores: `scores(name, weight)` gives non-negative scores; magnitudes unless given.
        optimizer: The optimizer, if it exists already; see `watch`.

    Raises:
        InputError: If anything does not fit, by name.
        ClientError: If the first masks cannot be had.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        pattern: str | Pattern,
        masks: object = None,
        refresh: int | Refresh | None = 100,
        method: Method | None = None,
        *,
        schedule: Schedule | None = None,
        layers: Globs = None,
        exclude: Globs = None,
        in_place: bool = False,
        hysteresis: float = 0.0,
        scores: ScoresOf | None = None,
        optimizer: torch.optim.Optimizer | None = None,
    ) -> None:
        self.pattern = parse_pattern(pattern) if isinstance(pattern, str) else pattern
        self.method = SRSTE() if method is None else method
        self.schedule = Schedule() if schedule is None else schedule
        self._refresh = as_refresh(refresh) or Refresh(until=0, wait=True)
        self._check(in_place, hysteresis, scores)
        self._model, self._in_place = model, in_place
        self._layers, self._skipped = choose(model, self.pattern, self.method, layers, exclude)
        source = Client() if masks is None else masks
        self._refresher = Refresher(self._layers, source, self._refresh, self.method, hysteresis, scores)
        self._step = 0
        self._requested_at: int | None = None
        self._history = History({layer.name: layer.shape for layer in self._layers})
        self._watched: torch.utils.hooks.RemovableHandle | None = None
        self._baked = False
        self._begin(optimizer)

    def step(self) -> None:
        """Count an optimizer step: apply masks that have arrived, request new ones when they are due.

        Raises:
            InputError: If the model is no longer the one that was masked, or the masks are baked.
        """
        self._refuse_baked()
        if self.method.needs_optimizer and self._watched is None:
            raise InputError(f"{type(self.method).__name__} works on the optimizer: pass optimizer=, or call watch()")
        self._step += 1
        response = self._refresher.poll()
        if response is not None:
            self._apply(response)
        if (pattern := self._pattern) is None:
            self._be_dense()
        elif self._is_due(pattern, self._step):
            self._request(pattern)
        self._want_gradients()
        self._cut()

    def refresh_now(self) -> None:
        """Request masks of the weights as they are, wait for them, and apply them; as before the end of training.

        Raises:
            InputError: If the schedule has the layers dense at this step.
            ClientError: If there are no masks.
        """
        self._refuse_baked()
        pattern = self._pattern
        if pattern is None:
            raise InputError(f"the schedule has the layers dense at step {self._step}")
        if self._refresher.pending is not None:
            self._apply(self._refresher.wait())
        self._request(pattern, wait=True)
        self._cut()

    def watch(self, optimizer: torch.optim.Optimizer) -> None:
        """Let the method work on an optimizer's steps, which some need.

        Raises:
            InputError: If the optimizer lacks parameters that the method added to the model.
        """
        held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        for layer in self._layers:
            for name, parameter in layer.masking.named_parameters():
                if id(parameter) not in held:
                    raise InputError(f"the optimizer lacks the {name} of {layer.name!r}: make it after the Sparsifier")
        if self._watched is not None:
            self._watched.remove()
        self._watched = optimizer.register_step_pre_hook(lambda *_: self._before_step())

    @property
    def masks(self) -> dict[str, Tensor]:
        """What each layer keeps, by the name of its weight; True = kept."""
        return {layer.name: self.method.kept(layer).clone() for layer in self._layers}

    def report(self) -> TrainingReport:
        """Say what was done so far."""
        pattern = self._pattern
        return TrainingReport(
            pattern=None if pattern is None else str(pattern),
            method=type(self.method).__name__,
            step=self._step,
            asking=self._refresher.where,
            layers=[self._layer_report(layer) for layer in self._layers],
            skipped=dict(self._skipped),
            refreshes=list(self._history.records),
            late=self._refresher.late,
            outages=self._refresher.outages,
            trouble=self._refresher.failure,
        )

    def bake(self) -> torch.nn.Module:
        """Leave the masked weights in the model, and nothing of the sparsifier; gives the model."""
        self._refuse_baked()
        self._cut()
        for layer in self._layers:
            self._history.layers[layer.name] = self._layer_report(layer)
            layer.detach()
        if self._watched is not None:
            self._watched.remove()
        self._baked = True
        self.close()
        return self._model

    def close(self) -> None:
        """Stop refreshing; the masks stay as they are."""
        self._refresher.close()

    def state_dict(self) -> dict[str, Any]:
        """Give masks, step and records, for a checkpoint beside the model's own state dict."""
        return {
            "format": FORMAT,
            "pattern": str(self.pattern),
            "method": type(self.method).__name__,
            "step": self._step,
            "masks": {layer.name: mask_state(layer) for layer in self._layers},
        } | self._history.state()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint; masks that are under way are dropped.

        Raises:
            InputError: If it belongs to another pattern, method or other layers.
        """
        self._refuse_baked()
        check_state(state, str(self.pattern), type(self.method).__name__, self._layers)
        self._refresher.drop()
        for layer in self._layers:
            set_mask(layer, state["masks"][layer.name])
        self._history.load(state)
        self._step = self._requested_at = int(state["step"])
        self._want_gradients()
        self._cut()

    def save(self, path: str | Path) -> None:
        """Write the state as a safetensors file."""
        write_state(self.state_dict(), Path(path))

    def load(self, path: str | Path) -> None:
        """Go on from a file that `save` wrote; raises as `load_state_dict` does."""
        self.load_state_dict(read_state(Path(path)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Sparsifier {self.pattern}, {len(self._layers)} layer(s), step {self._step}>"

    def _check(self, in_place: bool, hysteresis: float, scores: ScoresOf | None) -> None:
        name = type(self.method).__name__
        if in_place and self.method.keeps_dense:
            raise InputError(f"{name} trains the pruned weights too, which masks in place would zero")
        if scores is not None and self.method.gives_scores:
            raise InputError(f"{name} makes its own scores: leave scores= out")
        not_negative("hysteresis", hysteresis)
        self.method.check(self.pattern)
        self.schedule.check(self.pattern)

    def _begin(self, optimizer: torch.optim.Optimizer | None) -> None:
        """Attach the layers and find the first masks; what fails leaves the model as it was."""
        for layer in self._layers:
            layer.attach(in_place=self._in_place)
        try:
            if optimizer is not None:
                self.watch(optimizer)
            pattern = self.schedule.pattern_at(self.pattern, 0)
            if pattern is not None:
                self._request(pattern, wait=True)
                for name, error in self._refresher.failing.items():
                    raise InputError(f"{name!r} has no mask: {error}")
        except BaseException:
            for layer in self._layers:
                layer.masking.dense = True
                layer.detach()
            self.close()
            raise
        self._want_gradients()
        self._cut()

    def _refuse_baked(self) -> None:
        if self._baked:
            raise InputError("the masks are baked into the weights: make a new Sparsifier to go on")

    @property
    def _pattern(self) -> Pattern | None:
        """The pattern of this step; None while layers are dense."""
        return self.schedule.pattern_at(self.pattern, self._step)

    def _is_due(self, pattern: Pattern | None, step: int) -> bool:
        if pattern is None:
            return False
        missing = any(layer.masking.dense for layer in self._layers)
        patient = self._requested_at is None or step - self._requested_at >= self._refresh.every
        return self._refresh.is_due(step) or (missing and patient)

    def _request(self, pattern: Pattern, *, wait: bool = False) -> None:
        self._requested_at = self._step
        if self._refresher.pending is not None:
            self._refresher.overdue()
            return
        for layer in self._layers:
            layer.check(self._model)
        self._refresher.request(pattern, self._step)
        if wait or self._refresh.wait:
            response = self._refresher.wait()
            self._apply(response)
            if response.failure is not None:
                raise ClientError(f"there are no masks for step {self._step}: {response.failure}")

    def _apply(self, response: RefreshResponse) -> None:
        pending = self._refresher.end()
        if pending.dropped or response.failure is not None or self._pattern is None:
            return
        dense = {layer.name for layer in self._layers if layer.masking.dense}
        for layer in self._layers:
            if response.layers[layer.name].has_new_mask:
                self._put_in(layer)
        self._history.add(response, pending, self._step, dense)

    @torch.no_grad()
    def _put_in(self, layer: MaskedLayer) -> None:
        previous = None if layer.masking.dense else layer.masking.mask.clone()
        layer.masking.mask.copy_(torch.from_numpy(self._refresher.memory.mask(layer.name)))
        layer.masking.dense = False
        self.method.settle(layer, previous)

    def _layer_report(self, layer: MaskedLayer) -> LayerReport:
        report = self._history.layers[layer.name]
        return report if self._baked else replace(report, density=float(self.method.kept(layer).float().mean()))

    def _be_dense(self) -> None:
        self._refresher.drop()
        for layer in self._layers:
            layer.masking.dense = True

    def _want_gradients(self) -> None:
        if not self.method.needs_gradient:
            return
        wanted = self._is_due(self.schedule.pattern_at(self.pattern, self._step + 1), self._step + 1)
        for layer in self._layers:
            layer.masking.gradient = None
            layer.masking.wants_gradient = wanted

    def _before_step(self) -> None:
        for layer in self._layers:
            self.method.before_step(layer)

    def _cut(self) -> None:
        if self._in_place:
            for layer in self._layers:
                layer.cut()
