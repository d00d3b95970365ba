"""`masksmith prune --local`: solve the masks of a checkpoint in this process, one tensor at a time."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from importlib import import_module, util
from typing import Any

import numpy as np

from masksmith_client._errors import InputError
from masksmith_client.checkpoints.solved import Solve, SolvedTensor, TensorToSolve
from masksmith_wire.dtypes import to_numpy
from masksmith_wire.scores import ScoreMethod

from .local import library

TORCH_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I8": "int8", "U8": "uint8",
}  # fmt: skip


def local_solver(method: ScoreMethod, threads: int | None) -> Solve:
    """Return what solves tensors in this process.

    Raises:
        InputError: If the library is not installed.
    """
    masksmith = library()

    def solve(tensors: Iterator[TensorToSolve]) -> Generator[SolvedTensor]:
        for tensor in tensors:
            try:
                yield _solve(masksmith, tensor, method, threads)
            except masksmith.MasksmithError as error:
                raise InputError(f"{tensor.chosen.name!r}: {error}") from None

    return solve


def _solve(masksmith: Any, tensor: TensorToSolve, method: ScoreMethod, threads: int | None) -> SolvedTensor:
    chosen = tensor.chosen
    solution = masksmith.solve(
        _scores(tensor, method), chosen.pattern, layout=chosen.layout, threads=threads, name=chosen.name
    )
    certificate = {
        "status": str(solution.status),
        "objective": float(solution.objective),
        "upper_bound": float(solution.upper_bound),
        "gap": float(solution.gap),
        "retained": float(solution.retained),
        "density": float(solution.density),
        "kept": int(solution.kept),
        "solver": solution.stats["solver"],
        "solve_s": solution.stats["solve_s"],
    }
    return SolvedTensor(chosen.name, np.asarray(solution.mask), certificate)


def _scores(tensor: TensorToSolve, method: ScoreMethod) -> Any:
    """Score a tensor, each of its matrices on its own if the method depends on whole rows and columns."""
    from masksmith.scores import by_layout, magnitude

    chosen, is_plain = tensor.chosen, method.name == "magnitude" and not method.options
    weight = _read(tensor, as_stored=is_plain)
    if is_plain:
        return magnitude(weight)
    assert chosen.layout is not None
    return by_layout(chosen.layout, method.name, weight, name=chosen.name, **method.options)


def _read(tensor: TensorToSolve, *, as_stored: bool) -> Any:
    """Read a weight for numpy, where bfloat16 becomes float32, as it does in a service, which rounds scores alike.

    With `as_stored` torch reads it, if it is installed: bfloat16 stays half as large, and absolute values are exact.
    """
    source = tensor.source
    data = source.read()
    if not as_stored or util.find_spec("torch") is None:
        return to_numpy(memoryview(data), source.dtype, source.shape)
    torch = import_module("torch")
    return torch.frombuffer(data, dtype=getattr(torch, TORCH_DTYPES[source.dtype])).reshape(source.shape)
