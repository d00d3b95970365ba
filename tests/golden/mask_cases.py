"""What is solved for `masks.json`: patterns, solvers and options on fixed scores."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import numpy as np
from golden.scores import KINDS, flags, scores

import masksmith as ms

Truth = dict[str, Any]
SLOW_KINDS = ("normal32", "ties", "huge64")
"""What sinkhorn solves, which takes most of the time."""
SOLVERS = ("auto", "exact", "min-cost-flow", "greedy", "sinkhorn", "enumerate", "top-k")
EVEN, ODD, CONVOLUTION = (64, 96), (37, 53), (12, 16, 3, 3)

PLAIN = ("2:4", "1:4", "4:8", "<=2:4", "<=4:8", "3:7")
TRANSPOSABLE = (
    "transposable 2:4", "transposable 1:4", "transposable <=2:4", "transposable 4:8", "transposable 8:16",
    "transposable <=8:16", "transposable 16:32", "transposable <=16:32", "transposable 8:16 x 4:8",
    "transposable <=8:16 x 3:8",
)  # fmt: skip
DOUBLE = ("double 2:4", "double 8:16")
PANELS = ("16:2:8", "8:1:16")
BLOCKS = (
    "block 4x4 50%", "block 4x4 50% balance rows", "block 4x4 50% balance cols", "block 4x4 50% balance both",
    "block 8x4 30% norm l2", "block 4x4 40% norm max", "block 4x4 40% balance rows norm mean",
)  # fmt: skip
NESTED = ("block 8x8 50% nested 2:4", "block 8x8 50% balance both nested transposable 2:4")
HYBRID = ("hybrid 8x8 2:4 50%", "hybrid 16x8 transposable 4:8 75%")
WHOLE = ("channels in 50%", "channels out 30%", "50%", "10%")


@dataclass(frozen=True)
class Case:
    """One problem.

    Attributes:
        family: Rule, solver and options; one line stands for a family that is refused as a whole.
        what: The scores.
        group: What is tested together.
        solve: Gives the solution, or several by name.
        is_torch: Whether torch's order of summation has a say.
    """

    family: str
    what: str
    group: str
    solve: Callable[[], Any]
    is_torch: bool = False

    @property
    def id(self) -> str:
        """Its line in the file."""
        return f"{self.family} | {self.what}"

    def truth(self, approximate: bool = False) -> Truth:
        """Solve it, and tell what must stay."""
        try:
            solved = self.solve()
        except ms.MasksmithError as error:
            return {"error": type(error).__name__}
        if isinstance(solved, dict):
            return {name: told(solution) for name, solution in solved.items()}
        return told(solved, approximate)


def told(solution: Any, approximate: bool = False) -> Truth:
    """Tell a solution in a line; floats in hex, so that every bit counts."""
    if approximate:
        return {"approximate_objective": float(solution.objective)}
    return {
        "mask": digest(solution.mask),
        "kept": solution.kept,
        "objective": solution.objective.hex(),
        "upper_bound": solution.upper_bound.hex(),
        "unshifted": solution.unshifted_objective.hex(),
        "tiles": tiles(solution),
        "status": str(solution.status),
        "solver": solution.stats["solver"],
    }


def digest(mask: Any) -> str:
    """Return the SHA-256 of a mask's shape and packed bits, cut to 128 bits."""
    array = np.asarray(mask)
    packed = np.packbits(array, axis=-1, bitorder="little")
    return sha256(repr(tuple(array.shape)).encode() + packed.tobytes()).hexdigest()[:32]


def tiles(solution: Any) -> str:
    """Return the digest of what each tile keeps, and of the bounds."""
    pieces = [np.asarray(value, np.float64) for value in (solution.tile_objectives, solution.tile_bounds)]
    return sha256(b"".join(repr(one.shape).encode() + one.tobytes() for one in pieces)).hexdigest()[:32]


def cases() -> list[Case]:
    """List all cases."""
    return [*_patterns(), *_forced(), *_warm(), *_convolutions(), *_many()]


def _ruled() -> Iterator[tuple[str, Any]]:
    """Return patterns with the ids of their variants."""
    for text in (*PLAIN, *TRANSPOSABLE, *DOUBLE, *PANELS, *BLOCKS, *NESTED, *HYBRID, *WHOLE):
        yield text, ms.parse(text)
    for text in PLAIN:
        yield f"{text} axis out", ms.parse(text, axis="out")
    for text in (*PLAIN, *TRANSPOSABLE, *DOUBLE, *PANELS, *BLOCKS, *NESTED, *HYBRID):
        yield f"{text} dense", ms.parse(text, ragged="dense")
    for text in ("2:4", "transposable 8:16", "block 4x4 50%", "16:2:8", "double 2:4"):
        yield f"{text} error", ms.parse(text, ragged="error")
    yield "2:4 axis out dense", ms.parse("2:4", axis="out", ragged="dense")


def _patterns() -> Iterator[Case]:
    for rule, pattern in _ruled():
        is_ragged = rule.endswith((" dense", " error"))
        for solver in SOLVERS:
            for kind in SLOW_KINDS if solver == "sinkhorn" else KINDS:
                for shape in (ODD,) if is_ragged or solver == "sinkhorn" else (EVEN, ODD):
                    yield _case(rule, pattern, solver, kind, shape)


def _case(rule: str, pattern: Any, solver: str, kind: str, shape: tuple[int, ...], **options: Any) -> Case:
    text = "x".join(map(str, shape))
    what = " ".join(sorted(options))
    return Case(
        family=" | ".join([rule, solver, *([what] if what else [])]),
        what=f"{kind} | {text}",
        group=f"{what or 'patterns'}: {rule}",
        solve=lambda: ms.solve(scores(kind, shape), pattern, solver, **{key: give() for key, give in options.items()}),
        is_torch=solver in ("sinkhorn", "greedy"),
    )


def _forced() -> Iterator[Case]:
    for rule in ("2:4", "transposable 2:4", "transposable 8:16", "transposable <=8:16", "double 2:4", "50%", "16:2:8"):
        pattern = ms.parse(rule)
        for solver in SOLVERS:
            for kind in ("normal32", "ties", "huge64"):
                for shape in (EVEN, ODD):
                    keep = _later(flags, 5, shape, 40)
                    drop = _later(_but, _later(flags, 6, shape, 30), keep)
                    yield _case(rule, pattern, solver, kind, shape, must_keep=keep)
                    yield _case(rule, pattern, solver, kind, shape, must_drop=drop)
                    yield _case(rule, pattern, solver, kind, shape, must_keep=keep, must_drop=drop)
    infeasible = _later(flags, 7, EVEN, 1)
    case = _case("transposable 8:16", ms.parse("transposable 8:16"), "exact", "normal32", EVEN, must_keep=infeasible)
    yield replace(case, family="transposable 8:16 | exact | all kept")


def _later(give: Callable[..., Any], *values: Any) -> Callable[[], Any]:
    return lambda: give(*values)


def _but(drop: Callable[[], Any], keep: Callable[[], Any]) -> Any:
    return drop() & ~keep()


def _warm() -> Iterator[Case]:
    for rule in ("2:4", "transposable 2:4", "transposable 8:16", "transposable <=8:16", "transposable 16:32", "50%"):
        for solver in ("auto", "exact", "min-cost-flow", "greedy", "sinkhorn"):
            for kind in ("normal32",) if solver == "sinkhorn" else ("normal32", "normal64", "ties"):
                for bonus in (0.0, 0.25):
                    for start in ("mask", "solution", "duals"):
                        yield Case(
                            family=f"{rule} | {solver} | from {start} | hysteresis {bonus}",
                            what=kind,
                            group=f"warm: {rule}",
                            solve=_later(_warmed, rule, solver, kind, bonus, start),
                            is_torch=solver in ("sinkhorn", "greedy"),
                        )


def _warmed(rule: str, solver: str, kind: str, bonus: float, start: str) -> Any:
    earlier = ms.solve(scores(kind, ODD, 8), rule, keep_duals=start == "duals" and rule.startswith("trans"))
    begun = earlier.mask if start == "mask" else earlier
    return ms.solve(scores(kind, ODD, 9), rule, solver, warm_start=begun, hysteresis=bonus)


def _convolutions() -> Iterator[Case]:
    rules = ("2:4", "transposable 2:4", "transposable 8:16", "16:2:8", "block 4x4 50%", "channels in 50%", "50%")
    rules += ("hybrid 4x8 2:4 50%",)
    for rule in rules:
        for view in ("channels-last", "flat"):
            for kind in ("normal32", "ties", "huge32"):
                case = _case(rule, ms.parse(rule), "auto", kind, CONVOLUTION, view=_later(str, view))
                yield replace(case, family=f"{case.family} {view}")


def _many() -> Iterator[Case]:
    for rule in ("2:4", "transposable 8:16", "block 4x4 50%", "50%"):
        for view in ("channels-last", "flat"):
            yield Case(f"{rule} | solve_many", view, "many", _later(_tied, rule, view))
    rules = {"a": "2:4", "b": "transposable 8:16", "c": "10%", "tied": "2:4", "other": "transposable 2:4"}
    yield Case("mixed | solve_many", "channels-last", "many", _later(_tied, rules, "channels-last"))


def _tied(rule: Any, view: Any) -> dict[str, Any]:
    first = scores("normal32", EVEN)
    tensors = {"a": first, "b": scores("normal64", ODD), "c": scores("ties", CONVOLUTION)}
    tensors |= {"tied": first, "other": first.copy()}
    solved = ms.solve_many(tensors, rule, view=view)
    assert view == "flat" or solved["a"] is solved["tied"]
    return solved


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch compute with so many threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
