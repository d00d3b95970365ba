"""`Sparsifier`, the public class: applies masks to a model's layers and refreshes them during training."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, Self

import torch

from masksmith._torch_modes import without_inference_mode
from masksmith.patterns import Pattern
from masksmith.patterns.matching import Globs
from masksmith_client._errors import ClientError, InputError

from .adapters import refuse_merged
from .by_name import as_method, as_pattern, as_schedule
from .copies import bake_copy, shared_names
from .history import SavedHistory
from .layers import choose
from .loggers import Logger
from .mask_updates import MaskUpdates
from .masked_layer import MaskedLayer
from .masked_model import MaskedModel
from .methods.method import Method, check_options
from .optimizers import WatchedOptimizers
from .refresh import Refresh, as_refresh
from .refresher import Refresher, ScoresOf
from .report import LayerReport, TrainingReport
from .schedules import Schedule
from .semi_structured import check_compute, use_sparse
from .sharding import reshard
from .state import check_saved_with_weights, check_state, layers_state, load_layers, read_state, write_state

log = logging.getLogger("masksmith_client.training")


class Sparsifier(MaskedModel):
    """Applies masks to a model's layers during training.

        sparsifier = Sparsifier(model, "transposable 8:16", masks=Client(), refresh=100)
        for batch in batches:
            ...
            optimizer.step()
            sparsifier.step()
        sparsifier.bake()

    Unless the schedule begins with dense layers, the constructor waits for the first masks, so that errors show at
    once. `step` does not wait, unless `Refresh.wait` is set: at a refresh it copies the weights, a refresh process or
    thread requests their masks, and a later `step` applies them.
    While the service is slow or unreachable the last masks stay; the beginning and the end of an outage are logged.
    With torch.distributed, all ranks apply the same masks at the same step.

    Args:
        model: The model. Its optimizer may exist already, unless the method adds parameters.
        pattern: Such as `"transposable 8:16"`, or a pattern object.
        masks: A `Client`, or a function of scores and pattern such as `masksmith.solve`; default `Client()`.
        refresh: Optimizer steps between refreshes, or a `Refresh`; None computes masks once for each pattern of the
            schedule.
        method: How pruned weights are trained, as an object or by name (`"sr-ste decay=1e-4"`); default `SRSTE()`.
        schedule: The pattern at each step, as an object or by name (`"dense-phases warm_up=100"`); default `pattern`
            from the first step on.
        layers: Names or globs of the layers to mask. Default in a model with blocks: the layers of the blocks; in a
            model without blocks: all linear layers and convolutions but the first and the last. Defaults leave out
            layers that are dense by their role, such as routers.
        exclude: Names or globs of layers to leave dense.
        in_place: Write zeros into the weights instead of parametrizing them; for methods without dense weights.
        hysteresis: A bonus in units of the scores, added to the scores of entries that the mask keeps already, so that
            a mask changes only for a larger gain; proofs are for the scores with this bonus.
        scores: A function `scores(name, weight)` that returns non-negative scores; default magnitudes.
        optimizer: The optimizer, or a list of several, if they exist already; see `watch`.
        layouts: Axes, such as `"in out"`, by name of weight; needed for a parameter that is no layer's weight, since it
            may be used as `x @ w` or as `x @ w.T`.
        compute: `"dense"`, or `"sparse"` for products by the 2:4 kernels of a GPU, with transposable 2:4 masks.

    Raises:
        InputError: If an argument is invalid; the message names it.
        ClientError: If the first masks cannot be computed.
    """

    @without_inference_mode()
    def __init__(
        self,
        model: torch.nn.Module,
        pattern: str | Pattern,
        masks: object = None,
        refresh: int | Refresh | None = 100,
        method: Method | str | None = None,
        *,
        schedule: Schedule | str | None = None,
        layers: Globs = None,
        exclude: Globs = None,
        in_place: bool = False,
        hysteresis: float = 0.0,
        scores: ScoresOf | None = None,
        optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer] | None = None,
        layouts: Mapping[str, str] | None = None,
        compute: str = "dense",
    ) -> None:
        self.pattern = as_pattern(pattern)
        self.method, self.schedule = as_method(method), as_schedule(schedule)
        # Without refreshes, masks are requested now, when a dense phase ends, and when the pattern changes.
        settings = as_refresh(refresh) or Refresh(until=0, wait=True)
        if not isinstance(model, torch.nn.Module):
            raise InputError(f"model={type(model).__name__} is not a torch.nn.Module")
        check_options(self.method, self.pattern, in_place, hysteresis, scores)
        self.schedule.check(self.pattern)
        is_sparse = check_compute(compute, self.pattern, self.schedule, in_place)
        reshard(model)
        masked_layers, self._skipped = choose(
            model, self.pattern, self.method, layers, exclude, layouts, in_place=in_place
        )
        refuse_merged(model, masked_layers)
        super().__init__(model, masked_layers, in_place=in_place)
        if is_sparse:
            use_sparse(self._layers)
        self._refresher = Refresher(self._layers, masks, settings, self.method, hysteresis, scores)
        self._updates = MaskUpdates(self._layers, self._refresher, settings, self.pattern, self.schedule, self.method)
        # The method may change weights by their masks, so all ranks must have the same masks before its step.
        before_step = self._updates.follow_process_group
        self._optimizers = WatchedOptimizers(model, self._layers, self.method, before_step)
        self._attach(optimizer)

    def step(self) -> None:
        """Count an optimizer step: apply masks that have arrived, request new masks when they are due.

        Raises:
            InputError: If a masked layer was replaced or cannot be masked any more; the method needs the optimizer and
                none is watched; `scores` returns something other than the scores of a layer; the masks are baked; a
                state dict of the model has overwritten what `load_state_dict` has restored; values were written in
                place into a masked weight, which is temporary; or an adapter is merged into a masked layer.
            ClientError: If masks cannot be computed, and `Refresh.wait` is set.
        """
        self._check_not_baked()
        self._updates.follow_process_group()
        for layer in self._check_and_adopt_layers():
            layer.check_restored_values()
        if self.method.needs_optimizer:
            if not self._optimizers:
                raise InputError(f"{type(self.method).__name__} needs the optimizer: pass optimizer=, or call watch()")
            self._optimizers.check()
        try:
            self._updates.advance()
        finally:  # Also if it raises an error: the caller may catch the error, and train on.
            self._updates.reset_gradients()
            self._zero_pruned()
            self._updates.history.log()

    def refresh_now(self) -> None:
        """Request masks for the current weights, wait for them, and apply them; useful at the end of training.

        If the masks of some layers cannot be computed, those of the others are applied before the error.

        Raises:
            InputError: If layers are dense at this step by the schedule, a masked layer was replaced or cannot be
                masked any more, `scores` returns something other than the scores of a layer, the masks are baked,
                values were written in place into a masked weight, or an adapter is merged into a masked layer.
            ClientError: If the request fails; or if a layer gets no mask: the message names the first such layer.
        """
        self._check_not_baked()
        self._updates.follow_process_group()
        pattern = self._updates.pattern
        if pattern is None:
            raise InputError(f"by the schedule, layers are dense at step {self._updates.step}")
        self._check_and_adopt_layers()
        try:
            self._updates.finish_pending()
            self._updates.request(pattern, wait=True)
        finally:  # Also if the request fails: the masks of the pending one may have been applied.
            self._zero_pruned()
            self._updates.history.log()
        if self._refresher.failing:
            failing = self._refresher.failing
            name, error = next(iter(failing.items()))
            raise ClientError(f"{len(failing)} layer(s) keep their last mask; {name!r} has no new one: {error}")

    def join_process_group(self) -> None:
        """Couple the ranks if `torch.distributed` was initialized after the sparsifier was created; else do nothing.

        All ranks get the masks of rank 0. `step` and the step of a watched optimizer do this, too; after a call before
        the first step, all ranks have the same masks in the first forward pass. All ranks must call this together.
        """
        if not self._baked:
            self._updates.follow_process_group()
            self._zero_pruned()

    def log_to(self, logger: Logger) -> None:
        """Call `logger(metrics, step)` for each refresh, also for the refreshes so far.

        Args:
            logger: Such as `accelerator.log`, `TensorBoardLogger(writer)` or `RunLogger(run)`; for the names of metrics
                see `loggers.metrics_of`.

        Raises:
            InputError: If the logger cannot be called.
        """
        if not callable(logger):
            raise InputError(f"logger={logger!r} cannot be called: pass a function, TensorBoardLogger or RunLogger")
        self._updates.history.log_to(logger)

    def watch(self, *optimizers: torch.optim.Optimizer | Sequence[torch.optim.Optimizer]) -> None:
        """Register the optimizers that train masked weights; some methods modify their steps. May be called again.

        Raises:
            InputError: If an argument is not an optimizer, no optimizer owns a masked weight, one has `maximize=True`
                and the method does not support that, or a parameter that the method added belongs to no optimizer.
        """
        self._optimizers.add(*optimizers)

    def report(self) -> TrainingReport:
        """Return the state of all layers and the results of all refreshes."""
        pattern = self._updates.pattern
        return TrainingReport(
            pattern=None if pattern is None else str(pattern),
            method=type(self.method).__name__,
            step=self._updates.step,
            asking=self._refresher.handled_in,
            layers=[self._layer_report(layer) for layer in self._layers],
            skipped=dict(self._skipped),
            refreshes=list(self._updates.history.records),
            late=self._refresher.late,
            outages=self._refresher.outages,
            trouble=self._refresher.failure,
            shared_names=shared_names(self._model, self._layers),
            failing=dict(self._refresher.failing),
        )

    def bake(self, model: torch.nn.Module | None = None) -> torch.nn.Module:
        """Replace the weights by the masked weights, remove the sparsifier from the model, and return the model.

        Args:
            model: A copy of the model, such as an average of its weights, which is baked and returned instead, with its
                own masks if it has any; the sparsifier stays on the model.

        Raises:
            InputError: If a copy is passed that lacks a masked layer; if no copy is passed, and the masks are baked or
                a masked layer was replaced; if values were written in place into a masked weight, of the copy if one is
                passed, which is temporary; or if an adapter is merged into a masked layer.
        """
        if model is not None and model is not self._model:
            return bake_copy(self._model, model, self._layers)
        self._check_not_baked()
        self._check_and_adopt_layers()
        self._warn_of_other_pattern()
        self._zero_pruned()
        for layer in self._layers:
            self._updates.history.layers[layer.name] = self._layer_report(layer)
            layer.detach()
        self._optimizers.remove()
        self._baked = True
        self.close()
        return self._model

    def close(self) -> None:
        """Stop the refresh worker; the masks stay until a later refresh, which starts the worker again.

        If no `masks` were passed, the connections to the service are closed, too, until a later refresh.
        """
        self._refresher.release()

    def state_dict(self, *, pruned: bool = False) -> dict[str, Any]:
        """Return pattern, method, masks, step and records, to be saved in a checkpoint with the model's state dict.

        Masks of sharded weights are gathered, so all ranks must call it; each gets the whole state.

        Args:
            pruned: Whether to include the dense values of pruned entries, which `plain_state_dict` lacks; with
                `in_place` there are none.
        """
        self._restore_shards()
        settings = {"pattern": str(self.pattern), "method": type(self.method).__name__, "step": self._updates.step}
        layers = layers_state(self._layers, pruned=pruned and not self._in_place)
        return layers | settings | self._updates.history.state()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state from a checkpoint; the response to a pending request is ignored.

        Load the model's state dict before the sparsifier's: in a plain state dict, pruned entries are zero, and these
        zeros would overwrite the values that `load_state_dict` restores.

        Raises:
            InputError: If the pattern, the method or the layers of the state differ; a member is missing or has another
                type; the masks are baked; a masked layer was replaced or cannot be masked any more; values were written
                in place into a masked weight; or an adapter is merged into a masked layer. Nothing is changed then.
        """
        self._check_not_baked()
        self._check_and_adopt_layers()
        check_state(state, str(self.pattern), type(self.method).__name__, self._layers)
        saved_history = SavedHistory.read(state, state["masks"])
        self._refresher.drop()
        load_layers(self._layers, state)
        self._updates.history.restore(saved_history)
        self._refresher.late = saved_history.late
        self._updates.restart_at(state["step"])
        self._updates.reset_gradients()
        self._zero_pruned()

    def save(self, path: str | Path, *, pruned: bool = False) -> None:
        """Write the state as a safetensors file; see `state_dict`. Raises `InputError` if it cannot be written."""
        write_state(self.state_dict(pruned=pruned), Path(path))

    def load(self, path: str | Path, *, check_weights: bool = False) -> None:
        """Restore the state from a file that `save` wrote; raises as `load_state_dict` does.

        Args:
            path: The file.
            check_weights: Whether to refuse the file unless it was saved with the weights that the model has now; a
                file without values of pruned entries is not compared, and is accepted.
        """
        state = read_state(Path(path))
        if check_weights:
            self._check_not_baked()
            self._check_and_adopt_layers()
            check_state(state, str(self.pattern), type(self.method).__name__, self._layers)
            check_saved_with_weights(self._layers, state, path)
        self.load_state_dict(state)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # If a model has its sparsifier as an attribute, copies of the model share this sparsifier.
        return self

    def __reduce__(self) -> NoReturn:
        raise InputError(
            "a Sparsifier cannot be pickled: save its state_dict() and that of the model; to pickle the model, remove "
            "the Sparsifier from the model's attributes"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Sparsifier {self.pattern}, {len(self._layers)} layer(s), step {self._updates.step}>"

    def _attach(self, optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer] | None) -> None:
        """Attach the layers, watch the optimizer, and wait for the first masks, unless the schedule begins dense.

        An error leaves the model unchanged.
        """
        try:
            for layer in self._layers:
                layer.attach(in_place=self._in_place)
            if optimizer is not None:
                self.watch(optimizer)
            pattern = self._updates.pattern
            if pattern is not None:
                self._updates.request(pattern, wait=True)
                if self._refresher.failing:
                    name, error = next(iter(self._refresher.failing.items()))
                    raise InputError(f"{name!r} has no mask: {error}")
        except BaseException:
            for layer in self._layers:
                layer.masking.dense = True
                layer.detach()
            self._optimizers.remove()
            self.close()
            raise
        self._updates.reset_gradients()
        self._zero_pruned()

    def _warn_of_other_pattern(self) -> None:
        """Log a warning if the masks have another pattern than the final one, unless layers are dense at this step."""
        pattern = self._updates.masks_pattern
        if self._updates.pattern is not None and pattern not in (None, str(self.pattern)):
            log.warning(
                "the masks that are baked have the pattern %s, not %s: call refresh_now() before bake(), once the "
                "schedule has reached the final pattern",
                pattern,
                self.pattern,
            )

    def _layer_report(self, layer: MaskedLayer) -> LayerReport:
        report = self._updates.history.layers[layer.name]
        return replace(report, density=layer.density(self._model))
