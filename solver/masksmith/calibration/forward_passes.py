"""Gathers statistics of a torch model's layers while batches go through it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from tqdm import tqdm

from masksmith._errors import ScoresError
from masksmith.layouts import BY_CHOICE, Candidate, SelectionError, select
from masksmith.patterns.matching import Globs

from .accumulator import Gatherer
from .statistics import Calibration

KINDS = ("norms", "gram", "activations", "gradients")
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
    """Run batches through a model and gather what the scores need.

    Linear layers and convolutions (one group, one or two dimensions) are watched by hooks, which are gone afterwards;
    the model is in evaluation mode meanwhile. A weight that several layers share gathers from all of them.

    Args:
        model: Any torch module.
        batches: A tensor is passed as it is, a tuple or list as arguments, a mapping as keywords.
        gather: `norms` (Wanda, RIA), `gram` (SparseGPT: `inputs ** 2` float64 a layer), `activations` (SiPP, PFP) and
            `gradients` (Taylor).
        layers: Names of layers or of their weights, or globs; all unless given. A layer that is spelled out must be one
            that can be watched.
        loss: `loss(model, batch)` gives the scalar that `gradients` are of; unless given, the output's own `.loss`.
        max_samples: Rows that `activations` keeps, chosen at random by a fixed seed.
        progress: Whether to show a bar; unless given, if somebody is likely to look.

    Raises:
        ScoresError: If nothing or something unknown is asked for, a name or glob matches no layer, no layer is left to
            watch, there is no batch, or a layer gathers NaN or infinity.
    """
    unknown = [kind for kind in gather if kind not in KINDS]
    if unknown or not gather:
        raise ScoresError(f"gather={list(gather)}: expected some of {', '.join(KINDS)}")
    gatherers, skipped = _gatherers(model, layers, gather, max_samples)
    count = 0
    with _watched(model, gatherers.values()):
        for batch in tqdm(batches, "calibrating", disable=not _wanted(progress), leave=False):
            count += 1
            if "gradients" in gather:
                _backward(model, batch, gatherers, loss)
            else:
                with torch.no_grad():
                    _forward(model, batch)
    if count == 0:
        raise ScoresError("there is no batch to calibrate with")
    idle = {name: "it never ran" for name, gatherer in gatherers.items() if gatherer.samples == 0}
    found = {name: gatherer.finish(name) for name, gatherer in gatherers.items() if name not in idle}
    return Calibration(found, skipped | idle)


def _gatherers(
    model: torch.nn.Module, layers: Globs, gather: Sequence[str], max_samples: int
) -> tuple[dict[str, Gatherer], dict[str, str]]:
    modules = {f"{path}.weight" if path else "weight": (path, module) for path, module in _layers(model)}
    candidates = [
        Candidate(name, aliases=(path,) if path else (), unsupported_reason=_unsupported_reason(module))
        for name, (path, module) in modules.items()
    ]
    try:
        selection = select(candidates, None, layers, noun="linear or convolution layer")
    except SelectionError as error:
        raise _refusal(error) from None
    gatherers: dict[str, Gatherer] = {}
    # The weights are kept beside, for a parametrized one is a new tensor each time, and ids are used again.
    by_weight: dict[int, tuple[Any, Gatherer]] = {}
    for name in selection.chosen:
        module = modules[name][1]
        weight = module.weight
        if id(weight) in by_weight:
            by_weight[id(weight)][1].modules.append(module)
        else:
            gatherers[name] = Gatherer(module, gather, max_samples)
            by_weight[id(weight)] = weight, gatherers[name]
    return gatherers, {name: reason for name, reason in selection.skipped.items() if reason not in BY_CHOICE}


def _layers(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    for path, module in model.named_modules():
        kinds = (torch.nn.Linear, torch.nn.modules.conv._ConvNd)
        if isinstance(module, kinds) and getattr(module, "weight", None) is not None:
            yield path, module


def _refusal(error: SelectionError) -> ScoresError:
    if error.kind == "unmatched":
        return ScoresError(f"fits no linear or convolution layer; {error.reason}", name=error.name)
    return ScoresError(error.reason, name=error.name or None)


def _unsupported_reason(module: torch.nn.Module) -> str | None:
    if isinstance(module, torch.nn.Linear):
        return None
    if not isinstance(module, (torch.nn.Conv1d, torch.nn.Conv2d)):
        return f"{type(module).__name__} is not calibrated"
    return None if module.groups == 1 else "its inputs differ from group to group"


@contextmanager
def _watched(model: torch.nn.Module, gatherers: Iterable[Gatherer]) -> Iterator[None]:
    training = {module: module.training for module in model.modules()}
    hooks = [module.register_forward_pre_hook(each.see) for each in gatherers for module in each.modules]
    model.eval()
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for module, was in training.items():
            module.training = was


def _forward(model: torch.nn.Module, batch: Any) -> Any:
    if isinstance(batch, Mapping):
        return model(**batch)
    return model(*batch) if isinstance(batch, (tuple, list)) else model(batch)


def _backward(model: torch.nn.Module, batch: Any, gatherers: Mapping[str, Gatherer], loss: Loss | None) -> None:
    """Add this batch's gradients; those of the model's own training are left alone."""
    weights = [gatherer.modules[0].weight for gatherer in gatherers.values()]
    frozen = [weight for weight in weights if not weight.requires_grad]
    for weight in frozen:
        weight.requires_grad_(True)
    try:
        with torch.enable_grad():
            value = _forward(model, batch).loss if loss is None else loss(model, batch)
            gradients = torch.autograd.grad(value, weights, allow_unused=True)
    except AttributeError:
        if loss is not None:
            raise
        raise ScoresError("gradients need loss=, for the model's output has no .loss") from None
    finally:
        for weight in frozen:
            weight.requires_grad_(False)
    for gatherer, gradient in zip(gatherers.values(), gradients, strict=True):
        gatherer.add_gradient(gradient)


def _wanted(progress: bool | None) -> bool:
    return progress if progress is not None else (sys.stderr.isatty() or "ipykernel" in sys.modules)
