"""Why a parameter, or a wrapped model, cannot be masked; most reasons say what to do about it."""

from __future__ import annotations

import gc
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from masksmith.layouts import plain_path
from masksmith_client._errors import InputError
from masksmith_client.submission.overlaps import overlapping_pairs

from .masked_parameter import is_masked

FSDP1_REASON = (
    "FSDP1 keeps all weights in flat pieces: shard with fully_shard (FSDP2) instead of FullyShardedDataParallel"
)
ZERO3_REASON = (
    "it is empty, as DeepSpeed ZeRO-3 leaves weights between uses: train with ZeRO-2, or shard with fully_shard"
)


def refuse_fsdp1(model: torch.nn.Module) -> None:
    """Raise `InputError` if the model, or a part of it, is wrapped by FSDP1."""
    if any(type(module).__name__ == "FullyShardedDataParallel" for module in model.modules()):
        raise InputError(f"the model cannot be masked: {FSDP1_REASON}")


def refuse_ddp(model: torch.nn.Module) -> None:
    """Raise `InputError` if DistributedDataParallel wraps a module that shares parameters with the model.

    Called only for methods that add parameters.
    The wrapper averages over ranks only the gradients of parameters that its module had when it was wrapped.
    """
    if not dist.is_available() or not dist.is_initialized():
        return  # DistributedDataParallel needs a process group.
    ddp, parameter_ids = torch.nn.parallel.DistributedDataParallel, {id(each) for each in model.parameters()}
    # A wrapped model has no reference to its wrapper, so all objects of the process are searched. Their types are
    # compared, because `isinstance` also reads `__class__`, which runs code of proxy objects.
    wrappers = [each for each in gc.get_objects() if issubclass(type(each), ddp)]
    if any(id(parameter) in parameter_ids for wrapper in wrappers for parameter in wrapper.module.parameters()):
        raise InputError(
            "the method adds parameters, whose gradients DistributedDataParallel would not reduce: create the "
            "Sparsifier before DistributedDataParallel"
        )


def refuse_overlaps(model: torch.nn.Module, masked: Iterable[torch.nn.Parameter]) -> None:
    """Raise `InputError` if a masked parameter shares memory with another parameter of the model.

    A mask on one of them would change the values of the other. Modules may share one parameter: it has one mask.
    """
    masked_ids = {id(parameter) for parameter in masked}
    parameters = {name: parameter for name, parameter in model.named_parameters() if not is_lazy(parameter)}
    for pair in overlapping_pairs(parameters):
        masked_name = next((name for name in pair if id(parameters[name]) in masked_ids), None)
        if masked_name is not None:
            other = pair[1] if masked_name == pair[0] else pair[0]
            raise InputError(
                f"{plain_path(model, masked_name)!r} cannot be masked: it shares memory with "
                f"{plain_path(model, other)!r}, which is another parameter: let both layers have one parameter, or "
                "clone one of the two"
            )


def unsupported_reason(module: torch.nn.Module, name: str) -> str | None:
    """Return why a module's parameter cannot be masked; None if it can."""
    if isinstance(module, torch.jit.ScriptModule):
        return "TorchScript has compiled its module, which a mask does not reach: mask the model before torch.jit"
    parameter = module._parameters.get(name)
    if parameter is None:
        return missing_reason(module, name)
    if is_masked(module, name):
        return "it has the mask of another Sparsifier: bake that one first"
    if isinstance(module, torch.nn.RNNBase):
        return f"{type(module).__name__} passes its weights to a kernel, which a mask does not reach"
    if isinstance(module, torch.nn.Bilinear):
        return "Bilinear multiplies with two inputs, not with one"
    if isinstance(module, torch.nn.modules.conv._ConvTransposeNd) and module.groups > 1:
        return "a transposed convolution of several groups"
    return storage_reason(parameter)


def renormalised_reason(modules: Iterable[torch.nn.Module]) -> str | None:
    """Return why a weight of these modules cannot have a mask that is not in place; None if it can."""
    embeddings = (torch.nn.Embedding, torch.nn.EmbeddingBag)
    if any(isinstance(module, embeddings) and module.max_norm is not None for module in modules):
        return (
            "an embedding with max_norm writes to what it looks up, which would be temporary masked values: mask it "
            "with in_place=True, or without max_norm"
        )
    return None


def missing_reason(module: torch.nn.Module, name: str) -> str:
    """Return why a module has no parameter of this name."""
    if parametrize.is_parametrized(module, name):
        return "it is parametrized already: bake or remove the parametrization first"
    if f"{name}_orig" in module._parameters:
        return f"torch.nn.utils.prune or spectral_norm keeps it as {name}_orig: remove that first"
    if f"{name}_g" in module._parameters:
        return f"torch.nn.utils.weight_norm keeps it as {name}_g and {name}_v: remove that first"
    if getattr(module, name, None) is not None:
        return f"its module holds a tensor {name} that is no parameter, as FSDP1 leaves it; {FSDP1_REASON}"
    return f"its module has no parameter {name}"


def storage_reason(parameter: torch.nn.Parameter) -> str | None:
    """Return why a parameter's values cannot be masked and trained; None if they can.

    Its values may be missing, may share one place in memory, or may not allow gradients.
    """
    if is_lazy(parameter):
        return "it is not initialized: run a batch through the model first"
    if getattr(parameter, "_fsdp_flattened", False):
        return FSDP1_REASON
    if hasattr(parameter, "ds_id") and parameter.numel() == 0:
        return ZERO3_REASON
    if parameter.is_inference():
        return "it was made under torch.inference_mode(), and cannot be trained: load the model outside of it"
    if parameter.layout is not torch.strided:
        return f"its layout is {parameter.layout}: convert it by to_dense() first"
    if any(stride == 0 and size > 1 for stride, size in zip(parameter.stride(), parameter.shape, strict=True)):
        return "several of its entries are one place in memory, as expand() leaves them: clone it"
    if parameter.is_meta:
        return "it is on the meta device, without values: load the weights first"
    return None
