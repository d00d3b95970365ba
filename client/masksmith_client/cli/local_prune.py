"""`masksmith prune --local`: solve the masks of a checkpoint in this process, one tensor at a time."""

from __future__ import annotations

from collections.abc import Iterator
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


def parse_scores(text: str) -> ScoreMethod:
    """Read scores that are made of the weights alone.

    Raises:
        InputError: If they need data.
    """
    try:
        method = ScoreMethod.parse(text)
    except ValueError as error:
        raise InputError(str(error)) from None
    if method.kinds:
        raise InputError(
            f"--scores {text!r} needs data; prune takes scores of the weights alone, such as magnitude. For others use "
            f"masksmith solve --calibration and masksmith apply"
        )
    return method


def local_solver(method: ScoreMethod, threads: int | None) -> Solve:
    """Return what solves tensors in this process.

    Raises:
        InputError: If the library is not installed.
    """
    masksmith = library()

    def solve(tensors: Iterator[TensorToSolve]) -> Iterator[SolvedTensor]:
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

    chosen, weight = tensor.chosen, _read(tensor)
    if method.name == "magnitude":
        return magnitude(weight, **method.options)
    assert chosen.layout is not None
    return by_layout(chosen.layout, method.name, weight, name=chosen.name, **method.options)


def _read(tensor: TensorToSolve) -> Any:
    """Read a weight: with torch, which keeps bfloat16 as it is; without it bfloat16 becomes float32, twice as large."""
    source = tensor.source
    data = source.read()
    if util.find_spec("torch") is None:
        return to_numpy(memoryview(data), source.dtype, source.shape)
    torch = import_module("torch")
    return torch.frombuffer(data, dtype=getattr(torch, TORCH_DTYPES[source.dtype])).reshape(source.shape)
