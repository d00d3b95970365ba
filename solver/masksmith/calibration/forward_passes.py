"""Gathers statistics of a torch model's layers in forward (and backward) passes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize
from tqdm import tqdm

from masksmith._errors import ScoresError
from masksmith._torch_modes import without_fused_attention, without_inference_mode
from masksmith.layouts import (
    BY_CHOICE,
    Candidate,
    SelectionError,
    is_transformers_conv1d,
    plain_path,
    select,
    with_layouts,
)
from masksmith.patterns.matching import Globs

from .accumulator import LayerAccumulator
from .batches import LAZY_REASON, call_model, fits_signature, unfit_reason
from .products import ProductRecorder
from .statistics import Calibration

KINDS = ("norms", "gram", "activations", "gradients")
"""Kinds of statistics."""
INFERENCE_TENSOR = "nference tensor"
"""Part of torch's messages about gradients that would pass through a tensor of `torch.inference_mode`.

The first letter is left out, since it is a capital in some of them.
"""
REENTRANT_CHECKPOINT = "CheckpointFunctionBackward"
"""Name of the node of `torch.utils.checkpoint` with `use_reentrant=True` in a graph of gradients."""
Loss = Callable[[torch.nn.Module, Any], torch.Tensor]


def calibrate(
    model: torch.nn.Module,
    batches: Iterable[Any],
    *,
    gather: Sequence[str] = ("norms",),
    layers: Globs = None,
    loss: Loss | None = None,
    max_samples: int = 256,
    progress: bool | None = None,
) -> Calibration:
    """Run batches through a model and gather the statistics that scores need.

    Names are those of the plain model, without the segments that `torch.compile` and other wrappers add.
    Temporary hooks record the inputs of linear layers and convolutions (one group, one or two dimensions); the model
    is in evaluation mode meanwhile. If a layer's class has a `forward` of its own, or its weight is used without
    calling the layer, the inputs of the matrix products with the weight are recorded instead. If such a layer
    multiplies in a way that cannot be followed, it is skipped. Statistics of a weight that several layers share are
    summed over these layers.

    Args:
        model: Any torch module.
        batches: Each batch is a tensor, or a tuple or list of arguments, or a mapping of keyword arguments.
        gather: `norms` (Wanda, RIA), `gram` (SparseGPT; `inputs * inputs` float64 numbers per layer), `activations`
            (SiPP, PFP) and `gradients` (Taylor).
        layers: Names of layers or of their weights, or globs; by default all but those that are dense by default, such
            as an output head. A layer that is named exactly must be supported.
        loss: `loss(model, batch)` returns the scalar to differentiate for `gradients`; by default the output's `.loss`.
        max_samples: Rows of `activations` to keep, a random sample with a fixed seed.
        progress: Whether to show a progress bar; by default in terminals and notebooks.

    Raises:
        ScoresError: If `gather` is empty or has an unknown kind; `max_samples` is less than 1; a name or glob matches
            no layer; a layer that is named exactly is not supported; no layer is selected; there is no batch; a layer
            is called without a tensor that fits its weight; a parameter is on the meta device or lazy;
            a batch has other arguments than the model takes; a loss is not one number or has no gradient; gradients do
            not reach a layer, such as one in a reentrant activation checkpoint or one with a mask of a `Sparsifier`; or
            a statistic has NaN or infinity.
    """
    unknown = [kind for kind in gather if kind not in KINDS]
    if unknown or not gather:
        raise ScoresError(f"gather={list(gather)}: expected some of {', '.join(KINDS)}")
    if max_samples < 1:
        raise ScoresError(f"max_samples={max_samples} must be at least 1")
    accumulators, skipped, shared_names = _accumulators(model, layers, gather, max_samples)
    count = 0
    with without_inference_mode(), _gathering_inputs(model, accumulators.values()) as recorder:
        for batch in tqdm(batches, "calibrating", disable=not _shows_progress(progress), leave=False):
            count += 1
            with recorder.batch(), parametrize.cached():
                if "gradients" in gather:
                    _backward(model, batch, count - 1, accumulators, loss)
                else:
                    with torch.no_grad():
                        _forward(model, batch, count - 1)
    if count == 0:
        raise ScoresError("there is no batch to calibrate with")
    reasons = {name: _reason_without_statistics(each, gather) for name, each in accumulators.items()}
    statistics = {name: each.finish() for name, each in accumulators.items() if reasons[name] is None}
    skipped |= {name: reason for name, reason in reasons.items() if reason is not None}
    return Calibration(statistics, skipped, shared_names)


def _accumulators(
    model: torch.nn.Module, layers: Globs, gather: Sequence[str], max_samples: int
) -> tuple[dict[str, LayerAccumulator], dict[str, str], dict[str, str]]:
    """Return the accumulators of the selected weights, the skipped weights, and the other names of shared weights.

    The second value maps the name of a skipped weight to the reason; weights that the caller did not select are not in
    it. The third maps each other name of a weight to the name that its accumulator has.
    """
    _refuse_missing_values(model)
    modules = {_weight_name(plain_path(model, paths[0])): (paths, module) for paths, module in _layers(model)}
    candidates = [
        Candidate(name, aliases=_other_names(model, paths), unsupported_reason=_unsupported_reason(module))
        for name, (paths, module) in modules.items()
    ]
    try:
        selection = select(with_layouts(candidates), None, layers, noun="linear or convolution layer")
    except SelectionError as error:
        raise _scores_error(error) from None
    accumulators: dict[str, LayerAccumulator] = {}
    # The key is the id of a weight. The weight is stored as well, so that it is not freed and no other weight gets its
    # id: a parametrized weight is a new tensor at each access.
    by_weight: dict[int, tuple[Any, str]] = {}
    shared_names: dict[str, str] = {}
    for name in selection.chosen:
        paths, module = modules[name]
        weight = module.weight
        _, first = by_weight.setdefault(id(weight), (weight, name))
        if first == name:
            accumulators[name] = LayerAccumulator(name, module, gather, max_samples)
        else:
            accumulators[first].modules.append(module)
        plain_names = (_weight_name(plain_path(model, path)) for path in paths)
        shared_names |= {other: first for other in plain_names if other != first}
    skipped = {name: reason for name, reason in selection.skipped.items() if reason not in BY_CHOICE}
    return accumulators, skipped, shared_names


def _layers(model: torch.nn.Module) -> list[tuple[list[str], torch.nn.Module]]:
    """Return the linear layers and convolutions of a model, each with all paths under which it is registered."""
    kinds = (torch.nn.Linear, torch.nn.modules.conv._ConvNd)
    paths_of: dict[torch.nn.Module, list[str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        if (isinstance(module, kinds) or is_transformers_conv1d(module)) and getattr(
            module, "weight", None
        ) is not None:
            paths_of.setdefault(module, []).append(path)
    return [(paths, module) for module, paths in paths_of.items()]


def _weight_name(path: str) -> str:
    return f"{path}.weight" if path else "weight"


def _other_names(model: torch.nn.Module, paths: Sequence[str]) -> tuple[str, ...]:
    """Return the names of a layer and of its weight, with and without the segments of wrappers.

    The name of the weight at the first path, without these segments, is left out, since it is the candidate's own name.
    """
    plain = [plain_path(model, path) for path in paths]
    names = [*plain, *paths, *map(_weight_name, [*plain, *paths])]
    return tuple(name for name in dict.fromkeys(names) if name and name != _weight_name(plain[0]))


def _refuse_missing_values(model: torch.nn.Module) -> None:
    """Raise `ScoresError` if a parameter has no values, unless accelerate loads them when their layer runs."""
    lazy = next((name for name, parameter in model.named_parameters() if is_lazy(parameter)), None)
    if lazy is not None:
        raise ScoresError(LAZY_REASON, name=lazy)
    if any(hasattr(module, "_hf_hook") for module in model.modules()):
        return
    name = next((name for name, parameter in model.named_parameters() if parameter.is_meta), None)
    if name is not None:
        raise ScoresError("it is on the meta device, without values: load the weights first", name=name)


def _scores_error(error: SelectionError) -> ScoresError:
    if error.kind == "unmatched":
        return ScoresError(f"fits no linear or convolution layer; {error.reason}", name=error.name)
    return ScoresError(error.reason, name=error.name or None)


def _unsupported_reason(module: torch.nn.Module) -> str | None:
    weight = cast("torch.Tensor", module.weight)
    if weight.is_complex():
        return f"dtype {weight.dtype} is not calibrated"
    if isinstance(module, torch.nn.Linear) or is_transformers_conv1d(module):
        return None
    if not isinstance(module, (torch.nn.Conv1d, torch.nn.Conv2d)):
        return f"{type(module).__name__} is not calibrated"
    return None if module.groups == 1 else "its inputs differ from group to group"


def _reason_without_statistics(accumulator: LayerAccumulator, gather: Sequence[str]) -> str | None:
    """Return why a layer that was watched has no statistics; None if it has."""
    if set(gather) == {"gradients"}:
        if accumulator.calls:
            return None
    elif accumulator.unsupported_reason is not None:
        return accumulator.unsupported_reason
    if accumulator.samples == 0:
        return "it never ran"
    if "gradients" in gather and accumulator.calls == 0:
        return "its weight is used without calling the layer, so that its gradients are not gathered"
    return None


@contextmanager
def _gathering_inputs(model: torch.nn.Module, accumulators: Iterable[LayerAccumulator]) -> Iterator[ProductRecorder]:
    """Within the context, the accumulators get the inputs of their layers.

    Meanwhile the model is in evaluation mode, compiled layers run uncompiled, and attention is not fused.
    """
    training = {module: module.training for module in model.modules()}
    recorder = ProductRecorder(accumulators)
    hooks = list(recorder.register())
    model.eval()
    try:
        # If torch tried to compile a layer that has hooks, the layer's code would run uncompiled from then on, in the
        # whole process.
        with torch.compiler.set_stance("force_eager"), without_fused_attention():
            yield recorder
    finally:
        for hook in hooks:
            hook.remove()
        for module, was_training in training.items():
            module.training = was_training


def _forward(model: torch.nn.Module, batch: Any, number: int) -> Any:
    try:
        return call_model(model, batch)
    except TypeError as error:  # Other errors of the model are raised as they are.
        if fits_signature(model, batch):
            raise
        raise ScoresError(unfit_reason(batch, number, error)) from error


def _backward(
    model: torch.nn.Module, batch: Any, number: int, accumulators: Mapping[str, LayerAccumulator], loss: Loss | None
) -> None:
    """Run a batch forward and backward, and add its gradients to the accumulators; no parameter's `.grad` changes."""
    with torch.enable_grad(), _weights_in_use(accumulators.values()) as in_use:
        try:
            value: Any = getattr(_forward(model, batch, number), "loss", None) if loss is None else loss(model, batch)
        except RuntimeError as error:
            if INFERENCE_TENSOR not in str(error):
                raise
            raise ScoresError(_inference_reason(model)) from error
        if loss is None and value is None:
            raise ScoresError("gradients need loss=, since the model's output has no .loss")
        if not isinstance(value, torch.Tensor) or value.numel() != 1:
            kind = f"of shape {list(value.shape)}" if isinstance(value, torch.Tensor) else f"a {type(value).__name__}"
            raise ScoresError(f"the loss is {kind}, not a tensor of one number: return such a tensor from loss=")
        weights = [weight for each in in_use.values() for weight in each]
        if weights and not value.requires_grad:
            raise ScoresError(
                "the loss has no gradient: model or loss= computes it under torch.no_grad() or torch.inference_mode()"
            )
        _refuse_reentrant_checkpoints(value)
        with _ignoring_inputs(accumulators.values()):  # Activation checkpointing runs layers again.
            gradients = iter(torch.autograd.grad(value, weights, allow_unused=True) if weights else ())
    for accumulator, layer_weights in in_use.items():
        # `gradients` is one iterator for all accumulators, in their order: each takes as many as it has weights.
        parts = [gradient for _, gradient in zip(layer_weights, gradients, strict=False) if gradient is not None]
        accumulator.add_gradient(sum(parts[1:], parts[0]) if parts else None)


@contextmanager
def _ignoring_inputs(accumulators: Iterable[LayerAccumulator]) -> Iterator[None]:
    """Within the context, accumulators do not add the inputs of their layers."""
    for accumulator in accumulators:
        accumulator.ignores_inputs = True
    try:
        yield
    finally:
        for accumulator in accumulators:
            accumulator.ignores_inputs = False


def _refuse_reentrant_checkpoints(loss: Any) -> None:
    """Raise `ScoresError` if layers ran in a checkpoint that keeps their weights out of the loss's graph."""
    nodes, seen = [getattr(loss, "grad_fn", None)], set[Any]()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        if node.name() == REENTRANT_CHECKPOINT:
            raise ScoresError(
                "gradients do not reach layers in torch.utils.checkpoint with use_reentrant=True: pass "
                "use_reentrant=False, or switch activation checkpointing off"
            )
        seen.add(node)
        nodes += [following for following, _ in node.next_functions]


def _inference_reason(model: torch.nn.Module) -> str:
    """Return why gradients cannot be computed through a tensor that was made under `torch.inference_mode`."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    name = next((repr(name) for name, tensor in tensors if tensor.is_inference()), "a batch")
    return f"gradients need tensors that were made outside of torch.inference_mode(), and {name} was made under it"


@contextmanager
def _weights_in_use(accumulators: Iterable[LayerAccumulator]) -> Iterator[dict[LayerAccumulator, list[torch.Tensor]]]:
    """Yield a mapping that collects, during a forward pass, the weights by which the layers multiply.

    For a parametrized layer that is the computed tensor, not a parameter. Frozen weights are made to require gradients
    until the context ends: parameters at its start, since they may be used before their layer is called; computed
    weights when their layer is called.
    """
    in_use: dict[LayerAccumulator, list[torch.Tensor]] = {accumulator: [] for accumulator in accumulators}
    frozen = [parameter.requires_grad_(True) for parameter in _frozen_parameters(in_use)]

    def store_weight(accumulator: LayerAccumulator, module: torch.nn.Module, arguments: Any) -> None:
        if accumulator.ignores_inputs:
            return
        weight = cast("torch.Tensor", module.weight)
        if module.weight is not weight:
            raise ScoresError(
                "gradients do not reach its weight, which is computed anew at each use, as with a Sparsifier's masks: "
                "calibrate before the Sparsifier is created, or bake the masks",
                name=accumulator.name,
            )
        if not weight.requires_grad:
            frozen.append(weight.requires_grad_(True))
        if all(weight is not other for other in in_use[accumulator]):
            in_use[accumulator].append(weight)

    hooks = [
        module.register_forward_pre_hook(partial(store_weight, accumulator))
        for accumulator in in_use
        for module in accumulator.modules
    ]
    try:
        yield in_use
    finally:
        for hook in hooks:
            hook.remove()
        for weight in frozen:
            weight.requires_grad_(False)


def _frozen_parameters(accumulators: Iterable[LayerAccumulator]) -> list[torch.Tensor]:
    """Return the layers' weights that are parameters without gradients, but can have them."""
    modules = [module for accumulator in accumulators for module in accumulator.modules]
    weights = [module._parameters.get("weight") for module in modules]
    return [
        weight
        for weight in weights
        if weight is not None
        and weight.is_floating_point()
        and not weight.requires_grad
        and not weight.is_inference()  # its layer is refused when it is called
    ]


def _shows_progress(progress: bool | None) -> bool:
    return progress if progress is not None else (sys.stderr.isatty() or "ipykernel" in sys.modules)
