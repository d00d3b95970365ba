"""Limits on the size of the model that a config names, so that a wrong config does not use up memory and time.

On the meta device parameters take no memory, but each module and each block does, and their number is in the config.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook

MAX_COUNT = 10**6
"""Largest number of layers, experts or other parts of a model that a setting of a config may state."""

BASE_MODULES, MODULES_PER_TENSOR = 20_000, 10
"""A model may have `BASE_MODULES + MODULES_PER_TENSOR * number of the checkpoint's tensors` modules.

The matrices of all stacks (parameters of three dimensions or more) together have the same limit; see
`excessive_stacks`.
"""

_COUNT = re.compile(r"(?:^|_)(?:layers?|experts?|blocks?|groups?|stages?|depths?|repeats?)(?:_|$)")
"""Names of settings that are numbers of parts of a model, such as `num_hidden_layers`, unless they end in `_size`."""


def excessive_count(config: Mapping[str, Any]) -> str | None:
    """Return a message about a setting that gives a model more than `MAX_COUNT` parts; None if there is none."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            message = excessive_count(value)
            if message is not None:
                return message
        elif _COUNT.search(name) and not name.endswith("_size"):
            for count in value if isinstance(value, list) else [value]:
                if isinstance(count, int) and count > MAX_COUNT:
                    return f"config.json says {name}={count}, and no more than {MAX_COUNT} are built"
    return None


@contextmanager
def limited_modules(tensor_count: int) -> Iterator[None]:
    """Within the context, raise a `ValueError` once more modules are registered than `tensor_count` tensors allow.

    Modules that other threads register are not counted.
    """
    limit, thread = _limit(tensor_count), threading.get_ident()
    registered = 0

    def count(parent: nn.Module, name: str, module: nn.Module | None) -> None:
        nonlocal registered
        if threading.get_ident() != thread:
            return
        registered += 1
        if registered > limit:
            raise ValueError(
                f"the config's model has more than {limit} modules, and the checkpoint has {tensor_count} tensor(s)"
            )

    hook = register_module_module_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def excessive_stacks(model: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """Return a message if a model's stacks have far more matrices than the checkpoint has tensors; else None.

    Each matrix of a stack may be a tensor of its own in a checkpoint. Saving the model then splits the stack, which
    makes an object for each of its matrices.

    Args:
        model: The model on the meta device.
        shapes: Shapes of the checkpoint's tensors, by name. A stack whose length is a size in one of these shapes is
            not counted, since the checkpoint probably stores it as one tensor.
    """
    sizes = {size for shape in shapes.values() for size in shape}
    lengths = {name: parameter.shape[0] for name, parameter in model.named_parameters() if parameter.ndim >= 3}
    counted = {name: length for name, length in lengths.items() if length not in sizes}
    if sum(counted.values()) <= _limit(len(shapes)):
        return None
    name = max(counted, key=counted.__getitem__)
    return (
        f"the config's model has {sum(counted.values())} matrices in stacks such as {name!r}, and the checkpoint has "
        f"{len(shapes)} tensor(s)"
    )


def _limit(tensor_count: int) -> int:
    return BASE_MODULES + MODULES_PER_TENSOR * tensor_count
