"""A checkpoint's model, built without weights; weights are loaded from the files module by module, and freed again."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import torch

from masksmith_client._errors import InputError
from masksmith_client.checkpoints.checkpoint import Checkpoint

if TYPE_CHECKING:
    from masksmith.model_pruning import Part

TORCH_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Names of dtypes in torch, by their names in safetensors files."""


@contextmanager
def converting_load_errors(component: str, checkpoint: Checkpoint) -> Iterator[None]:
    """Convert exceptions that transformers raises while it loads a component of a checkpoint to `InputError`.

    Args:
        component: For the message, such as `tokenizer`.
        checkpoint: The checkpoint.
    """
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise InputError(f"the {component} of {checkpoint.folder} cannot be loaded: {reason}") from None


class Skeleton:
    """A causal language model in float32, with its buffers; its parameters are on the meta device unless loaded.

    Args:
        checkpoint: The files that hold its weights.
        trust_remote_code: Whether code that the checkpoint brings may run.

    Attributes:
        model: The transformers model.
        stored_tensors: Which parameter or buffer each stored tensor becomes.

    Raises:
        InputError: If the model cannot be built, or if the checkpoint lacks a parameter outside the output head. If any
            stored tensor needs a converter, a missing parameter is detected only when it is loaded.
    """

    def __init__(self, checkpoint: Checkpoint, *, trust_remote_code: bool) -> None:
        self._checkpoint = checkpoint
        with converting_load_errors("language model", checkpoint):
            self.model = _build(checkpoint, trust_remote_code=trust_remote_code)
        self.stored_tensors = StoredTensors(self.model, checkpoint)
        self._check_stored()

    def _check_stored(self) -> None:
        """Refuse, before anything is loaded, a checkpoint that lacks a parameter outside the model's output head.

        If a stored tensor needs a converter, `load` checks this instead, because the converter may make parameters of
        other names.
        """
        if self.stored_tensors.source_patterns:
            return
        names = {name for name, _ in self.model.named_parameters()} - {*self.stored_tensors.targets.values()}
        for name in sorted(names):
            # `find` also finds a stored tensor that the parameter is tied to.
            if self._checkpoint.find(name) is None and name.rpartition(".")[0] != self._output_head:
                raise self._missing_error(name)

    @property
    def _output_head(self) -> str | None:
        """Name of the output head's module; None if the model has none. The blocks do not need this module."""
        head = self.model.get_output_embeddings()
        return next((name for name, module in self.model.named_modules() if module is head), None)

    def _missing_error(self, name: str) -> InputError:
        return InputError(f"{self._checkpoint.folder} has no tensor for the model's parameter {name!r}")

    def converting_load_errors(self, component: str) -> AbstractContextManager[None]:
        """Convert exceptions while a component of this checkpoint is loaded; see the module's function."""
        return converting_load_errors(component, self._checkpoint)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a stored tensor."""
        return self._checkpoint.weight(name).shape

    def check_parts(self, parts: Mapping[str, Part]) -> None:
        """Compare parts of loaded parameters with the tensors that are stored.

        Raises:
            InputError: If one differs; the message names it.
        """
        for name, part in parts.items():
            if not torch.equal(part.view(self.model.get_parameter(part.parameter)), self._read(name)):
                reason = f"{part.parameter!r} of the loaded model does not have its values where they are expected"
                raise InputError(f"{name!r} cannot be pruned: {reason}; exclude it")

    def load(self, prefix: str) -> None:
        """Load the parameters and stored buffers of the module named `prefix`.

        Raises:
            InputError: If one is missing, unreadable, or of another shape.
        """
        self._load(
            name for name in self.stored_tensors.targets if self.stored_tensors.targets[name].startswith(f"{prefix}.")
        )
        self._load_tied(name for name, _ in self.model.named_parameters() if name.startswith(f"{prefix}."))

    def release(self, prefix: str) -> None:
        """Free the parameters of the module named `prefix`."""
        self._release(name for name, _ in self.model.named_parameters() if name.startswith(f"{prefix}."))

    def load_outside(self, prefix: str) -> None:
        """Load the parameters and stored buffers outside the module named `prefix`, except those of the output head.

        Raises:
            InputError: As `load` does.
        """
        outside = self._names_outside(prefix)
        self._load(name for name, target in self.stored_tensors.targets.items() if target in outside)
        self._load_tied(outside & {name for name, _ in self.model.named_parameters()})

    def release_outside(self, prefix: str) -> None:
        """Free the parameters that `load_outside` loads."""
        self._release(self._names_outside(prefix))

    def _names_outside(self, prefix: str) -> set[str]:
        """Return the names of parameters and buffers outside a module, except those of the output head."""
        names, head = {*self.model.state_dict()}, self._output_head
        return {name for name in names if not name.startswith(f"{prefix}.") and name.rpartition(".")[0] != head}

    def _load(self, stored_names: Iterable[str]) -> None:
        converters: dict[str, Any] = {}
        for name in stored_names:
            value, target = self._read(name), self.stored_tensors.targets[name]
            converter = self.stored_tensors.converter(name)
            if converter is None:
                self._set(target, value)
            else:
                converters.setdefault(target, converter).add_tensor(
                    target, name, self.stored_tensors.source_patterns[name], value
                )
        for target, converter in converters.items():
            with self.converting_load_errors(f"parameter {target}"):
                values = converter.convert(target, model=self.model, config=self.model.config)
            # Each value is a tensor, or a list of one tensor.
            for name, value in values.items():
                self._set(name, value[0] if isinstance(value, list) else value)

    def _read(self, name: str) -> torch.Tensor:
        tensor = self._checkpoint.weight(name)
        if tensor.dtype not in TORCH_DTYPES:
            raise InputError(
                f"{name!r} has dtype {tensor.dtype}, with which no model can be calibrated; convert it to floats"
            )
        dtype = getattr(torch, TORCH_DTYPES[tensor.dtype])
        if 0 in tensor.shape:  # `torch.frombuffer` does not take a buffer without bytes.
            return torch.empty(tensor.shape)
        values = torch.frombuffer(tensor.read(), dtype=dtype)
        return values.reshape(tensor.shape).to(torch.float32)

    def _set(self, name: str, value: torch.Tensor) -> None:
        path, _, attribute = name.rpartition(".")
        owner = self.model.get_submodule(path)
        expected = getattr(owner, attribute)
        if value.shape != expected.shape:
            shapes = f"shape {list(value.shape)} in {self._checkpoint.folder}, {list(expected.shape)} in the model"
            raise InputError(f"{name!r} has {shapes}")
        if attribute in owner._parameters:
            owner._parameters[attribute] = torch.nn.Parameter(value.contiguous(), requires_grad=False)
        else:
            owner._buffers[attribute] = value.to(expected.dtype)

    def _release(self, names: Iterable[str]) -> None:
        for name in [*names]:
            path, _, attribute = name.rpartition(".")
            owner = self.model.get_submodule(path)
            if attribute in owner._parameters:
                empty = torch.empty_like(owner._parameters[attribute], device="meta")
                owner._parameters[attribute] = torch.nn.Parameter(empty, requires_grad=False)

    def _load_tied(self, names: Iterable[str]) -> None:
        """Load each of these parameters that is not loaded yet, from the stored tensor that it is tied to.

        Raises:
            InputError: If there is no such tensor, or it is unreadable or of another shape.
        """
        for name in names:
            if not self.model.get_parameter(name).is_meta:
                continue
            tensor = self._checkpoint.find(name)
            if tensor is None:
                raise self._missing_error(name)
            self._set(name, self._read(tensor.name))


def _build(checkpoint: Checkpoint, *, trust_remote_code: bool) -> Any:
    import accelerate
    import transformers

    from masksmith_client.checkpoints.tracing.size_limits import excessive_count, limited_modules

    message = excessive_count(checkpoint.config or {})
    if message is not None:
        raise ValueError(message)
    options = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    config = transformers.AutoConfig.from_pretrained(checkpoint.folder, **options)
    with accelerate.init_empty_weights(include_buffers=False), limited_modules(len(checkpoint.tensors)):
        model = transformers.AutoModelForCausalLM.from_config(
            config, dtype=torch.float32, trust_remote_code=trust_remote_code
        )
    return model.eval()


class StoredTensors:
    """Maps stored tensors to the parameters or buffers that they become, alone or converted together with others.

    Stored tensors that the model does not use are left out.

    Attributes:
        targets: Names of parameters or buffers by the names of stored tensors.
        source_patterns: Source patterns of transformers' converters, by the names of the stored tensors to convert.
    """

    def __init__(self, model: Any, checkpoint: Checkpoint) -> None:
        self.targets: dict[str, str] = {}
        self.source_patterns: dict[str, str] = {}
        model_state = model.state_dict()
        self._converters, rename = _converters_and_renaming(model, model_state)
        for name in checkpoint.tensors:
            target, pattern = (name, None) if name in model_state else rename(name)
            if target not in model_state:
                continue
            self.targets[name] = target
            if pattern is not None:
                self.source_patterns[name] = pattern

    def converter(self, name: str) -> Any:
        """Return a new converter for a stored tensor; None for a tensor that is loaded unchanged."""
        return copy.deepcopy(self._converters[self.source_patterns[name]]) if name in self.source_patterns else None


def _converters_and_renaming(
    model: Any, model_state: Mapping[str, Any]
) -> tuple[dict[str, Any], Callable[[str], tuple[str, str | None]]]:
    """Return how transformers converts stored tensors to those of the model.

    Returns:
        The converters by source pattern. And a function that maps the name of a stored tensor to its name in the model,
        and to the source pattern that it matches; None if no converter has such a pattern.
    """
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, rename_source_key
    except ImportError:  # Before version 5, transformers only added the prefix of the base model.
        return {}, lambda name: (f"{model.base_model_prefix}.{name}", None)
    mapping = get_model_conversion_mapping(model)
    converters = [each for each in mapping if isinstance(each, WeightConverter)]
    renamings = [each for each in mapping if not isinstance(each, WeightConverter)]
    converters_by_pattern = {pattern: each for each in converters for pattern in each.source_patterns}
    return converters_by_pattern, lambda name: rename_source_key(
        name, renamings, converters, model.base_model_prefix, model_state
    )
