"""`masksmith prune --local`: solve the masks of a checkpoint in this process, one tensor at a time."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from importlib import import_module, util
from typing import Any

import numpy as np

from masksmith_client._errors import InputError, as_input_errors
from masksmith_client.checkpoints.prune_method import PruneMethod
from masksmith_client.checkpoints.solved import Solve, SolvedTensor, TensorToSolve, update_record
from masksmith_wire.dtypes import to_numpy
from masksmith_wire.scores import ScoreMethod
from masksmith_wire.updates import UpdateMethod

from .local import array_of, library
from .local_update import WeightToUpdate, update_weight

TORCH_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I8": "int8", "U8": "uint8",
}  # fmt: skip


def local_solver(method: PruneMethod, threads: int | None) -> Solve:
    """Return what solves tensors in this process.

    Raises:
        InputError: If the library is not installed, or the update needs a package that is not.
    """
    masksmith = library()
    if method.update is not None:
        with as_input_errors(masksmith.MissingExtraError):
            getattr(masksmith, method.update.name)

    def solve(tensors: Iterator[TensorToSolve]) -> Generator[SolvedTensor]:
        for tensor in tensors:
            try:
                yield _solve(masksmith, tensor, method, threads)
            except masksmith.MasksmithError as error:
                raise InputError(f"{tensor.chosen.name!r}: {error}") from None

    return solve


def _solve(masksmith: Any, tensor: TensorToSolve, method: PruneMethod, threads: int | None) -> SolvedTensor:
    chosen = tensor.chosen
    solution = masksmith.solve(
        _scores(tensor, method.scores), chosen.pattern, layout=chosen.layout, threads=threads, name=chosen.name
    )
    updated: bytes | None = None
    update: dict[str, Any] = {}
    if method.update is not None:
        solution, updated, update = _update(tensor, method.update, solution)
    mask = np.asarray(solution.mask)
    certificate = {
        "status": str(solution.status),
        "objective": float(solution.objective),
        "upper_bound": float(solution.upper_bound),
        "gap": float(solution.gap),
        "retained": float(solution.retained),
        "density": float(solution.density),
        "kept": int(np.count_nonzero(mask)),
        "solver": solution.stats["solver"],
        "solve_s": solution.stats["solve_s"],
        **update,
    }
    return SolvedTensor(chosen.name, mask, certificate, updated)


def _update(tensor: TensorToSolve, method: UpdateMethod, solution: Any) -> tuple[Any, bytes, dict[str, Any]]:
    chosen = tensor.chosen
    assert chosen.layout is not None
    assert chosen.pattern is not None
    assert tensor.gram is not None
    weight, gram = _read(tensor, as_stored=False), array_of(tensor.gram)
    to_update = WeightToUpdate(chosen.name, chosen.dtype, chosen.layout, chosen.pattern, weight, gram)
    solution, updated, report = update_weight(to_update, method, solution)
    return solution, updated, {"update": update_record(method, report)}


def _scores(tensor: TensorToSolve, method: ScoreMethod) -> Any:
    """Score a tensor, each of its matrices on its own if the method depends on whole rows and columns."""
    from masksmith.scores import by_layout, magnitude

    chosen, is_plain = tensor.chosen, method.name == "magnitude" and not method.options
    weight = _read(tensor, as_stored=is_plain)
    if is_plain:
        return magnitude(weight)
    assert chosen.layout is not None
    statistic, kind = tensor.statistic, None if tensor.statistic is None else tensor.statistic.kind
    values = None if statistic is None else array_of(statistic.tensor)
    return by_layout(chosen.layout, method.name, weight, values, kind, name=chosen.name, **method.options)


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
