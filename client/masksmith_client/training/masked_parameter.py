"""Masked parameters: a parameter stays where it is in its module; reading it as an attribute returns masked values.

The parameter keeps its name, its place in the order of parameters and its identity, so optimizers, state dicts, FSDP2
and copies find the dense parameter as in a plain module. As with `torch.nn.utils.parametrize`, the dense parameter is
also `module.parametrizations.weight.original`.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.fx import _symbolic_trace
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from masksmith_client._errors import InputError

from .lost_writes import is_initializer, watch
from .masking import Masking
from .sharding import is_dtensor

MARK = "_masked_parameter"
"""Attribute of the subclasses that `attach` creates: the name of the parameter."""
RESETS = ("reset_parameters", "_reset_parameters")
"""Methods of torch's modules that initialize parameters."""
FSDP2_READER, TENSOR_PARALLEL_READER = "reset_sharded_param", "_partition_linear_fn"
"""Functions of torch that read a module's weight to shard it."""
QCONFIG, FAKE_QUANTISED = "qconfig", "weight_fake_quant"
"""The attribute that torch.ao.quantization sets on each module before it replaces modules, and deletes after it has
converted the modules; and a submodule that identifies the modules that `prepare_qat` has put in place of others."""
QCONFIG_SETTER = ("torch.ao.quantization.quantize", "_propagate_qconfig_helper")
"""Module and name of torch's function that sets the qconfig of a module, by its name or by its exact class."""
PARAMETER_READER = ("torch.nn.modules.module", "get_parameter")
"""Module and name of torch's function that returns a parameter by its name: the dense one, as in `named_parameters`."""
PRUNING_READER = "torch.nn.utils.prune"
"""Module of torch that replaces a weight by a parameter and a mask of its own."""
PARAMETRIZATION_REMOVER = ("torch.nn.utils.parametrize", "remove_parametrizations")
"""Module and name of torch's function that removes a parametrization and the most derived class of the module."""
MODE_SETTERS = ("train", "eval")
"""Methods in which layers with adapters, such as loralib's, merge their adapters into the weight."""
ADAPTER_ATTRIBUTES = ("lora_A", "lora_a", "merged")
"""Attributes of layers with adapters: each such layer has at least one of them."""
_names_masked_in_place: weakref.WeakKeyDictionary[torch.nn.Module, set[str]] = weakref.WeakKeyDictionary()
"""By module, the names of its parameters whose own values are masked, without `attach`."""


def attach(module: torch.nn.Module, name: str, masking: Masking) -> None:
    """Make `module.<name>` return masked values, by a property of a subclass that is created for this module.

    If the masking has a `product`, the module's `forward` is replaced by it.
    """
    module.register_module(_key(name), masking)
    masking.add_holder(module, name)
    module.__class__ = _subclass(type(module), name, with_forward=masking.product is not None)


def _subclass(base: type[torch.nn.Module], name: str, *, with_forward: bool) -> type[torch.nn.Module]:
    """Create a subclass whose attribute `name` returns masked values.

    If `with_forward`, its `forward` calls the masking's `product`.
    """
    members: dict[str, Any] = {MARK: name, name: _masked_property(name), "__module__": base.__module__}
    members |= {"__reduce_ex__": _reduce, "__setstate__": _set_state(name, base)}
    members |= {"parametrizations": property(_parametrizations), QCONFIG: _qconfig_property()}
    if with_forward:
        members["forward"] = _forward_of(name, base)
    members |= {reset: _reset(name, getattr(base, reset)) for reset in RESETS if hasattr(base, reset)}
    return type(base.__name__, (base,), members)


def detach(module: torch.nn.Module, name: str) -> None:
    """Make `module.<name>` return the parameter itself again."""
    module._modules.pop(_key(name), None)
    # Remove the outer subclasses, up to that of a parameter which is still masked.
    while MARK in vars(type(module)) and masking_of(module, vars(type(module))[MARK]) is None:
        module.__class__ = type(module).__mro__[1]


def masking_of(module: torch.nn.Module, name: str) -> Masking | None:
    """Return the masking that is attached to a module's parameter; None if it has none, or is masked in place."""
    masking = module._modules.get(_key(name))
    return masking if isinstance(masking, Masking) and isinstance(getattr(type(module), name, None), property) else None


def mark_in_place(module: torch.nn.Module, name: str, *, is_masked: bool) -> None:
    """Record whether a module's parameter is masked in place."""
    names = _names_masked_in_place.setdefault(module, set())
    if is_masked:
        names.add(name)
    else:
        names.discard(name)


def is_masked(module: torch.nn.Module, name: str) -> bool:
    """Whether a module's parameter is masked, in place or by `attach`."""
    return masking_of(module, name) is not None or name in _names_masked_in_place.get(module, ())


def _key(name: str) -> str:
    return f"{name}_masking"


def _masked_property(name: str) -> property:
    key = _key(name)

    def read(module: torch.nn.Module) -> Tensor:
        parameter = module._parameters.get(name)
        parameter = module.__dict__.get(name) if parameter is None else parameter
        if parameter is None:
            # Python then calls the module's `__getattr__`, which finds what replaced the parameter, if anything did.
            raise AttributeError(name)
        masking = module._modules.get(key)
        if masking is None or masking.is_bypassed or _reader_needs_parameter(parameter):
            return parameter
        try:
            masked: Tensor = masking(parameter)
        except AttributeError as error:
            # Python would look the name up elsewhere, and the module would return its dense parameter.
            raise RuntimeError(f"the masked {name} of {type(module).__name__} cannot be computed: {error}") from error
        if masked is not parameter and isinstance(masking, Masking):
            watch(masked, masking)
        return masked

    def write(module: torch.nn.Module, value: Tensor) -> None:
        # Replicas of DataParallel hold tensors that are no parameters.
        module.__dict__[name] = value

    return property(read, write)


def _qconfig_property() -> property:
    """Return the property `qconfig` of a masked module; it is None if the module is not to be quantised.

    torch.ao.quantization chooses the replacement of a module by its exact class, so it leaves a masked module as it is.
    Setting the property raises an InputError if torch would leave the module as it is; deleting it raises one if torch
    has left the module as it is.
    """

    def read(module: torch.nn.Module) -> Any:
        try:
            return module.__dict__[QCONFIG]
        except KeyError:
            raise AttributeError(QCONFIG) from None

    def write(module: torch.nn.Module, value: Any) -> None:
        is_to_be_quantised = value is not None or _is_selected_by_class(module)
        if is_to_be_quantised and FAKE_QUANTISED not in module._modules:
            raise InputError(
                f"torch.ao.quantization would leave a masked {type(module).__name__} as it is: create the Sparsifier "
                "after prepare_qat, or bake the masks first"
            )
        module.__dict__[QCONFIG] = value

    def delete(module: torch.nn.Module) -> None:
        if module.__dict__.pop(QCONFIG, None) is not None:
            raise InputError(
                f"torch.ao.quantization did not convert a masked {type(module).__name__}: bake the masks first"
            )

    return property(read, write, delete)


def _is_selected_by_class(module: torch.nn.Module) -> bool:
    """Whether torch.ao.quantization sets the qconfig of a masked module to None only because its class is a subclass.

    This is so if torch's configuration selects the class without masks, has no entry of its own for the module's name,
    and the module has no qconfig yet.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and (frame.f_globals.get("__name__"), frame.f_code.co_name) != QCONFIG_SETTER:
        frame = frame.f_back
    if frame is None or QCONFIG in module.__dict__:
        return False
    configuration, name = frame.f_locals.get("qconfig_dict", {}), frame.f_locals.get("prefix")
    return configuration.get(_class_without_masks(module)) is not None and name not in configuration


def _class_without_masks(module: torch.nn.Module) -> type[torch.nn.Module]:
    return next(base for base in type(module).__mro__ if MARK not in vars(base))


def _forward_of(name: str, base: type[torch.nn.Module]) -> Callable[[Any, Tensor], Tensor]:
    key = _key(name)

    def forward(module: torch.nn.Linear, input: Tensor) -> Tensor:
        masking = module._modules.get(key)
        parameter = module._parameters.get(name)
        if not isinstance(masking, Masking) or masking.product is None or parameter is None:
            output: Tensor = base.forward(module, input)
            return output
        return masking.product(input, parameter, module.bias, masking)

    return forward


def _reset(name: str, reset: Callable[..., None]) -> Callable[..., None]:
    """Wrap a method that initializes parameters, so that it writes to the dense parameter, not to masked values."""
    key = _key(name)

    def reset_dense(module: torch.nn.Module, *args: Any, **kwargs: Any) -> None:
        masking = module._modules.get(key)
        if not isinstance(masking, Masking):
            return reset(module, *args, **kwargs)
        masking.is_bypassed = True
        try:
            reset(module, *args, **kwargs)
        finally:
            masking.is_bypassed = False

    return reset_dense


def _reduce(module: torch.nn.Module, protocol: int) -> Any:
    """Pickle a module as its class without masks, its masked parameters (see `_restore`) and its state."""
    _function, _arguments, state = tuple(object.__reduce_ex__(module, protocol))[:3]
    base, masked_parameters = type(module), []
    while MARK in vars(base):
        masked_parameters.append((vars(base)[MARK], "forward" in vars(base)))
        base = base.__mro__[1]
    return _restore, (base, tuple(reversed(masked_parameters))), state


def _restore(base: type[torch.nn.Module], masked_parameters: tuple[tuple[str, bool], ...]) -> torch.nn.Module:
    """Return a module without state; `masked_parameters` are names, each with whether `forward` is replaced."""
    for name, with_forward in masked_parameters:
        base = _subclass(base, name, with_forward=with_forward)
    return base.__new__(base)


def _set_state(name: str, base: type[torch.nn.Module]) -> Callable[..., None]:
    """Return the method that gives a copy of a masked module its state, and registers the copy with its masking."""

    def set_state(module: torch.nn.Module, state: dict[str, Any]) -> None:
        base.__setstate__(module, state)  # type: ignore[no-untyped-call]
        masking = masking_of(module, name)
        if masking is not None:
            masking.add_holder(module, name)

    return set_state


def _reader_needs_parameter(parameter: Tensor) -> bool:
    """Whether the code that reads the attribute needs the parameter itself.

    FSDP2 needs it to shard it, functions that initialize weights to write to it, and `get_parameter` to return it.

    Raises:
        InputError: If that code merges an adapter, or is torch.nn.utils.prune, tensor parallelism or torch.fx, which
            would take masked values for the parameter.
    """
    if torch.compiler.is_compiling():
        # Compiled code neither shards nor merges, and frames cannot be inspected while it is traced.
        return False
    if _symbolic_trace._is_fx_tracing_flag and get_proxy_mode() is None:
        # Without a mode that records operations (`make_fx`), the masked values would become a constant of the graph.
        raise InputError("torch.fx would make the masked weight a constant, which is not trained: bake the masks first")
    frame = sys._getframe(2)  # 0 is this function, 1 the property, 2 the code that reads the attribute.
    reader, reader_module = frame.f_code.co_name, str(frame.f_globals.get("__name__"))
    if (reader_module, reader) == PARAMETER_READER or is_initializer(reader):
        return True
    if "merge" in reader or reader in MODE_SETTERS:
        _refuse_merge(frame, reader_module)
    if reader_module == PRUNING_READER:
        raise InputError("torch.nn.utils.prune cannot prune a masked weight: bake the masks first")
    if reader == TENSOR_PARALLEL_READER:
        raise InputError(
            "parallelize_module would take masked values for parameters: create the Sparsifier after parallelize_module"
        )
    return reader == FSDP2_READER and is_dtensor(parameter)


def _refuse_merge(frame: FrameType, module_name: str) -> None:
    """Raise `InputError` if the code that reads a weight is a method of peft, or of a layer that has an adapter.

    Args:
        frame: The frame of that code: a function with "merge" in its name, or `train()` or `eval()`.
        module_name: The name of the Python module that defines the function.
    """
    method = frame.f_code.co_name
    if module_name.startswith("peft.") and method not in MODE_SETTERS:
        raise InputError("peft merges into masked values, which are lost: use merge_adapters() of the Sparsifier")
    first_argument = frame.f_locals.get(frame.f_code.co_varnames[0]) if frame.f_code.co_argcount else None
    if not isinstance(first_argument, torch.nn.Module):
        return
    if any(hasattr(first_argument, attribute) for attribute in ADAPTER_ATTRIBUTES):
        advice = " and have the layer not merge in train() and eval() (in loralib: merge_weights=False)"
        raise InputError(
            f"{type(first_argument).__name__}.{method}() merges an adapter into masked values, which are lost: use "
            f"merge_adapters() of the Sparsifier{advice if method in MODE_SETTERS else ''}"
        )


def _parametrizations(module: torch.nn.Module) -> torch.nn.Module:
    """Return torch's own parametrizations of the module, if it has any, else a view of its masked parameters.

    Raises:
        InputError: If the code that reads the attribute is torch's function that removes a parametrization, and the
            parametrization is older than the mask: the function would remove the class of the masked parameter instead.
    """
    of_torch = module._modules.get("parametrizations")
    if of_torch is not None and MARK in vars(type(module)) and not torch.compiler.is_compiling():
        frame = sys._getframe(1)  # The code that reads the attribute.
        if (frame.f_globals.get("__name__"), frame.f_code.co_name) == PARAMETRIZATION_REMOVER:
            raise InputError(
                "torch cannot remove a parametrization that is older than the mask of its module: bake the masks first"
            )
    return _Parametrizations(module) if of_torch is None else of_torch


class _Parametrizations(torch.nn.Module):
    """View of a module's masked parameters, by name."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.__dict__["module"] = module

    def __getattr__(self, name: str) -> Any:
        module = self.__dict__["module"]
        masking = masking_of(module, name)
        if masking is None:
            raise AttributeError(f"{type(module).__name__} has no masked parameter {name!r}")
        return _Parametrized(module, name)


class _Parametrized(torch.nn.Module):
    """View of one masked parameter: `original` is the dense parameter, `[0]` its masking."""

    def __init__(self, module: torch.nn.Module, name: str) -> None:
        super().__init__()
        self.__dict__["module"], self.__dict__["name"] = module, name

    @property
    def original(self) -> Tensor | None:
        """The dense parameter."""
        module: torch.nn.Module = self.__dict__["module"]
        return module._parameters[self.__dict__["name"]]

    def __getitem__(self, index: int) -> Masking:
        masking = masking_of(self.__dict__["module"], self.__dict__["name"])
        assert masking is not None
        return [masking][index]
