"""Records the arguments with which a model calls its blocks in a forward pass, and prepares a model for such passes."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from masksmith._errors import PruningError
from masksmith._torch_modes import without_autocast, without_fused_attention, without_inference_mode
from masksmith.calibration.batches import call_model, unfit_reason

from .blocks import BlockList
from .calls import CHANGED_ARGUMENT, Call, OutputPlaceholder, Tensors, copy_of, map_leaves, tensors_of
from .products import storage_address

Tensor = torch.Tensor
PADDING_KEY = "attention_mask"
"""Name of the model's argument that is 0 at padding: a tensor `[sequences, tokens]`."""
CACHE_KEYWORDS = ("past_key_value", "past_key_values", "layer_past", "cache_params")
"""Parameters of blocks by which models pass a cache, of keys and values or of states."""
DEPENDENT_ARGUMENT = (
    "one of its arguments is computed from what the blocks before it return; "
    "load the whole model and prune it in memory"
)
"""Why a call cannot be recorded while blocks are skipped."""


@dataclass(frozen=True)
class CapturedBatch:
    """The calls of the blocks in one batch.

    Attributes:
        order: Numbers of the blocks, in the order in which the model runs them.
        calls: The call of each block, by the block's number.
        inputs: Activations that the model passes to the first block, a list of one tensor.
        token_mask: `[sequences, tokens]`, False at padding; None if the batch has no `attention_mask` with a 0.
    """

    order: list[int]
    calls: list[Call]
    inputs: Tensors
    token_mask: Tensor | None


class _LastBlockError(Exception):
    """Ends a forward pass after the last block, since the rest of the model is not needed."""


def capture(
    model: torch.nn.Module,
    blocks: BlockList,
    batches: Iterable[Any],
    *,
    start: int = 0,
    blocks_are_skipped: bool = False,
) -> Iterator[CapturedBatch]:
    """Run batches through the model up to its last block, and yield the calls of the blocks.

    Args:
        model: The model, in evaluation mode.
        blocks: The model's blocks.
        batches: As for `calibrate`; the zeros of an `attention_mask` are padding.
        start: Number of batches at the beginning to leave out.
        blocks_are_skipped: Whether the blocks return NaN (see `skipping`). An argument that contains NaN, and is not
            itself an output of the previous block, is then refused, because it is computed from a block's output.
            Arguments of other dtypes cannot contain NaN; `streamed` finds those that depend on a block by comparing
            two records.

    Raises:
        PruningError: If a batch does not fit the model; the model does not run each block exactly once; a block after
            the first does not run on the previous block's output; or an argument or output of a block is refused.
    """
    for number, batch in islice(enumerate(batches), start, None):
        yield capture_batch(model, blocks, batch, number, blocks_are_skipped)


def capture_batch(
    model: torch.nn.Module, blocks: BlockList, batch: Any, number: int, blocks_are_skipped: bool = False
) -> CapturedBatch:
    """Run batch `number` as `capture` does, and return the calls of the blocks."""
    recorder = _Recorder(blocks, blocks_are_skipped)
    hooks = [hook for index, block in enumerate(blocks.modules) for hook in recorder.register(index, block)]
    try:
        _run(model, batch, number)
    finally:
        for hook in hooks:
            hook.remove()
    return recorder.finish(_arguments_by_name(model, batch), number)


def _run(model: torch.nn.Module, batch: Any, number: int) -> None:
    if isinstance(batch, Mapping):
        _refuse_unknown_keys(model, batch, number)
    try:
        call_model(model, batch)
    except _LastBlockError:
        pass
    except PruningError:
        raise
    except Exception as error:
        raise PruningError(unfit_reason(batch, number, error)) from error


def _refuse_unknown_keys(model: torch.nn.Module, batch: Mapping[str, Any], number: int) -> None:
    """Refuse keys that `model.forward` does not name as parameters, even if it takes `**kwargs`, too.

    With a misspelt `attention_mask`, padding would enter the statistics. If `model.forward` names no parameter, all
    keys are accepted.
    """
    parameters = inspect.signature(model.forward).parameters.values()
    keyword_kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    named = [parameter.name for parameter in parameters if parameter.kind in keyword_kinds]
    unknown = [str(key) for key in batch if key not in named]
    if named and unknown:
        raise PruningError(f"batch {number} has {', '.join(unknown)}, but the model takes {', '.join(named)}")


def _arguments_by_name(model: torch.nn.Module, batch: Any) -> Mapping[str, Any]:
    """Return a batch's arguments by the names of the parameters of `model.forward`; empty if those are not known."""
    if isinstance(batch, Mapping):
        return batch
    arguments = batch if isinstance(batch, (tuple, list)) else (batch,)
    try:
        return inspect.signature(model.forward).bind_partial(*arguments).arguments
    except TypeError:  # A pre-hook of the model may take other arguments than `forward`.
        return {}


class _Recorder:
    """Records the calls of the blocks in one batch, by forward hooks.

    `_returned` are the tensors that the previous block returned (while the first block is called: the activations that
    it is called with). `_versions` are the version counters of the returned tensors when the block returned them; torch
    increases a tensor's counter at each change in place. `_recorded` has each tensor of this pass that was recorded as
    an argument, with its counter at that time and the number of the block. `_copies` has such a tensor, by its
    identity, and the copy that was recorded for it, since a later pass may change the tensor.
    """

    def __init__(self, blocks: BlockList, blocks_are_skipped: bool) -> None:
        self._blocks, self._blocks_are_skipped = blocks, blocks_are_skipped
        self._order: list[int] = []
        self._calls: list[Call] = []
        self._input: Tensors = []
        self._returned: Tensors = []
        self._versions: list[int] = []
        self._recorded: list[tuple[Tensor, int, int]] = []
        self._copies: dict[int, tuple[Tensor, Tensor]] = {}
        modules = [module for block in blocks.modules for module in block.modules()]
        parameters = [parameter for block in blocks.modules for parameter in block.parameters()]
        self._weight_addresses = {storage_address(parameter) for parameter in parameters} - {0}
        # What `deepcopy` takes for its own copies, and does not copy: modules and parameters change as they are pruned.
        self._not_copied: dict[int, Any] = {id(each): each for each in (*modules, *parameters)}

    def register(self, number: int, block: torch.nn.Module) -> list[Any]:
        """Add hooks to a block, and return their handles."""

        def before(module: torch.nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            if _has_cache(module, arguments, keywords):
                reason = "it is called with a cache of keys and values; switch the cache off"
                raise PruningError(reason, self._blocks.name(number))
            self._record_call(number, arguments, keywords)

        def after(module: torch.nn.Module, arguments: Any, output: Any) -> None:
            self._record_output(output)

        return [block.register_forward_pre_hook(before, with_kwargs=True), block.register_forward_hook(after)]

    def finish(self, batch: Mapping[str, Any], number: int) -> CapturedBatch:
        """Check that all blocks ran, and return their calls; `batch` has the model's arguments by name."""
        missing = sorted(set(range(len(self._blocks.modules))) - set(self._order))
        if missing:
            raise PruningError(f"batch {number} does not run it", self._blocks.name(missing[0]))
        for tensor, version, block in self._recorded:
            if tensor._version != version:
                raise PruningError(CHANGED_ARGUMENT, self._blocks.name(block))
        calls = [call for _, call in sorted(zip(self._order, self._calls, strict=True), key=lambda pair: pair[0])]
        return CapturedBatch(self._order, calls, self._input, _token_mask(batch, self._input[0], number))

    def _record_call(self, number: int, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        """Record the arguments of a call of block `number`.

        Raises:
            PruningError: If it is not the block's first call, or does not get the previous block's output.
        """
        name = self._blocks.name(number)
        if number in self._order:
            raise PruningError("it runs several times in one pass", name)
        if not self._order:
            self._returned = [_first_activations(arguments, keywords, name)]
            self._input = [self._returned[0].clone()]
        elif self._outputs_were_changed() or not self._has_previous_output(arguments, keywords):
            previous = self._blocks.name(self._order[-1])
            raise PruningError(f"its input is not what {previous} returns: the model changes it in between", name)
        arguments, keywords = map_leaves((arguments, keywords), lambda leaf: self._recorded_leaf(leaf, number))
        self._calls.append(Call(arguments, keywords))
        self._order.append(number)

    def _record_output(self, output: Any) -> None:
        """Store a block's output, so that the next block's arguments can be compared with it.

        Raises:
            PruningError: If the block returned tensors of `torch.inference_mode`.
            _LastBlockError: After the last block.
        """
        self._returned = tensors_of(output)
        if any(tensor.is_inference() for tensor in self._returned):
            reason = "it returns tensors of torch.inference_mode(); let its forward use torch.no_grad() instead"
            raise PruningError(reason, self._blocks.name(self._order[-1]))
        self._versions = [tensor._version for tensor in self._returned]
        if len(self._order) == len(self._blocks.modules):
            raise _LastBlockError

    def _outputs_were_changed(self) -> bool:
        """Whether a tensor that the previous block returned was changed in place since."""
        return [tensor._version for tensor in self._returned] != self._versions

    def _has_previous_output(self, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> bool:
        """Whether the first tensor that the previous block returned is among the arguments."""
        return bool(self._returned) and any(leaf is self._returned[0] for leaf in tensors_of((arguments, keywords)))

    def _recorded_leaf(self, leaf: Any, number: int) -> Any:
        """Return what is recorded for a leaf of the arguments of block `number`.

        That is a placeholder if the previous block returned the leaf, else the leaf, with copies of its tensors.

        Raises:
            PruningError: If the leaf is a container, such as a named tuple, that has an output of the previous block,
                since a placeholder cannot replace it there; or if the blocks are skipped, and the leaf is computed from
                what one of them returned.
        """
        positions = [position for position, returned in enumerate(self._returned) if leaf is returned]
        if positions:
            return OutputPlaceholder(positions[0])
        if self._order and any(tensor is returned for tensor in tensors_of(leaf) for returned in self._returned):
            previous = self._blocks.name(self._order[-1])
            reason = f"its argument of the class {type(leaf).__name__} contains an output of {previous}"
            advice = "let the model pass tensors, tuples, lists or dicts"
            raise PruningError(f"{reason}; {advice}", self._blocks.name(number))
        if self._blocks_are_skipped and isinstance(leaf, Tensor) and bool(torch.isnan(leaf).any()):
            raise PruningError(DEPENDENT_ARGUMENT, self._blocks.name(number))
        copies = {id(tensor): self._copy(tensor, number) for tensor in tensors_of(leaf)}
        if isinstance(leaf, Tensor):
            return copies[id(leaf)]
        if not copies:
            return leaf
        try:
            return deepcopy(leaf, self._not_copied | copies)  # It takes these for its own copies.
        except Exception as error:
            reason = f"its argument of the class {type(leaf).__name__} cannot be copied: {error}"
            raise PruningError(reason, self._blocks.name(number)) from error

    def _copy(self, tensor: Tensor, number: int) -> Tensor:
        """Return what is recorded for a tensor among the arguments of block `number`.

        That is the same copy at each call; but for a parameter, or a view of one, the tensor itself: its values change
        as the parameter is pruned.
        """
        if not tensor.is_inference():  # Tensors of `torch.inference_mode` have no version counters.
            self._recorded.append((tensor, tensor._version, number))
        if isinstance(tensor, torch.nn.Parameter) or storage_address(tensor) in self._weight_addresses:
            return tensor
        if id(tensor) not in self._copies:
            self._copies[id(tensor)] = tensor, copy_of(tensor)
        return self._copies[id(tensor)][1]


def _has_cache(block: torch.nn.Module, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> bool:
    """Whether a block is called with a cache, by keyword or by position; its calls could not be repeated."""
    names = [name for name, _ in zip(inspect.signature(block.forward).parameters, arguments, strict=False)]
    values = {**dict(zip(names, arguments, strict=False)), **keywords}
    # Caches of transformers have this method, whatever the name of the argument is.
    return any(hasattr(value, "get_seq_length") for value in (*arguments, *keywords.values())) or any(
        values.get(name) is not None for name in CACHE_KEYWORDS
    )


def _first_activations(arguments: tuple[Any, ...], keywords: Mapping[str, Any], name: str) -> Tensor:
    """Return the activations among the arguments of the first block: the first tensor of a float dtype.

    Positional arguments come first, then `hidden_states`, then the other keywords.
    """
    candidates = [*arguments, keywords.get("hidden_states"), *keywords.values()]
    for candidate in candidates:
        if isinstance(candidate, Tensor) and candidate.is_floating_point():
            return candidate
    raise PruningError("none of its arguments is a tensor of activations", name)


def _token_mask(batch: Mapping[str, Any], inputs: Tensor, number: int) -> Tensor | None:
    """Return a batch's token mask (see `CapturedBatch`); None if the batch has no `attention_mask` with a 0."""
    mask = batch.get(PADDING_KEY)
    if not isinstance(mask, Tensor) or bool((mask != 0).all()):
        return None
    if mask.ndim != 2 or mask.shape != inputs.shape[:2]:
        shapes = f"{list(mask.shape)}, and its blocks get {list(inputs.shape)}"
        raise PruningError(f"{PADDING_KEY} of batch {number} has shape {shapes}: which tokens are padding is not known")
    if not bool((mask != 0).any()):
        raise PruningError(f"batch {number} holds nothing but padding")
    return (mask != 0).to(inputs.device)


@contextmanager
def prepared(model: torch.nn.Module) -> Iterator[None]:
    """Within the context: evaluation mode, no gradients, no cache of keys and values, no fused kernels.

    The caller's `torch.inference_mode` is switched off, because its tensors have no gradients, which tuning needs. The
    caller's `torch.autocast` is switched off, because it multiplies with copies of weights in another dtype, and
    `ProductWatcher` recognises a weight by its memory. Compiled modules run uncompiled, since compiled code calls the
    blocks without their hooks. After the context, all of these are as before.
    """
    training = [(module, module.training) for module in model.modules()]
    settings = {"use_cache": False, "_experts_implementation": "eager"}
    configs = {id(config): config for config in _configs(model)}.values()
    previous = [
        (config, name, getattr(config, name)) for config in configs for name in settings if hasattr(config, name)
    ]
    try:
        model.eval()
        for config, name, _ in previous:
            setattr(config, name, settings[name])
        uncompiled = torch.compiler.set_stance("force_eager")
        with without_inference_mode(), without_autocast(), without_fused_attention(), torch.no_grad(), uncompiled:
            yield
    finally:
        for config, name, value in previous:
            setattr(config, name, value)
        for module, was_training in training:
            module.training = was_training


def _configs(model: torch.nn.Module) -> list[Any]:
    """Return the configs of a model's modules and the configs directly inside them, such as that of a text model."""
    configs = [module.config for module in model.modules() if hasattr(getattr(module, "config", None), "to_dict")]
    attributes = [value for config in configs for value in vars(config).values()]
    return [*configs, *(value for value in attributes if hasattr(value, "to_dict"))]
