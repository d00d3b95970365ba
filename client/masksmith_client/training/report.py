"""The report of a sparsifier, with a record of each refresh whose response was applied, and a report of each layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class RefreshRecord:
    """One refresh whose response was applied; a refresh that failed as a whole has no record.

    Attributes:
        asked_at, applied_at: Number of optimizer steps after which the weights were copied, and the masks applied.
        wait_s: Seconds between the request and the application of its masks.
        pattern: The pattern of the masks.
        sent, unchanged: Number of layers that were to be solved (those that failed included), and of layers that were
            skipped because nothing had changed since their last solve.
        failed: Number of layers that got no mask and kept their last one.
        sad: Sum of absolute differences, `||mask - previous||_1`, the number of changed entries (Zhou et al., 2021).
            Entries of layers that were dense until then are left out.
        flip_rate: `sad / entries` over all masked layers, in [0, 1] (Hu et al., 2024).
        retained: Share of the score that the new masks keep, all together; None if it is unknown, as without new masks.
        optimal: Whether every layer that was to be solved got a mask that was proved optimal (gap 0.0) for the scores
            that it was computed from; True if no layer was to be solved, False if one failed.
        gap: Gap of all new masks together, `(upper_bound - objective) / upper_bound`; None if a mask has no bound,
            or no layer got a new mask.
        late: Number of refreshes that had become due while an earlier one was pending, from the beginning to this one.
    """

    asked_at: int
    applied_at: int
    wait_s: float
    pattern: str
    sent: int
    unchanged: int
    failed: int
    sad: int
    flip_rate: float
    retained: float | None
    optimal: bool
    gap: float | None = None
    late: int = 0

    @property
    def staleness_steps(self) -> int:
        """Number of optimizer steps between the copy of the weights and the masks computed from it."""
        return self.applied_at - self.asked_at


@dataclass(frozen=True, slots=True)
class LayerReport:
    """The current state of one layer.

    Attributes:
        name: The weight's name in the model.
        shape: The weight's shape.
        density: Share of entries that are not zero in the weight that the model computes with.
        status, gap, retained, objective, upper_bound: The solver's result for the last mask and the scores that it was
            computed from (with `hysteresis`: the scores with the bonus); None before the first mask.
        asked_at: Number of optimizer steps after which the weight or scores for the last mask were copied; None before
            the first mask.
        sad, flip_rate: Number of mask entries changed by the last refresh, and their share; 0 if the layer was dense
            until then.
    """

    name: str
    shape: tuple[int, ...]
    density: float
    status: str | None = None
    gap: float | None = None
    retained: float | None = None
    objective: float | None = None
    upper_bound: float | None = None
    asked_at: int | None = None
    sad: int = 0
    flip_rate: float = 0.0


@dataclass(frozen=True)
class TrainingReport:
    """The state of a sparsifier and the results of its refreshes.

    Attributes:
        pattern: The pattern at this step; None in a dense phase.
        method: The method's name.
        step: Number of optimizer steps so far.
        asking: Where requests are handled: `in this process`, `a thread`, `a process`, or, on ranks that request no
            masks, `another process of the group`; `, on the device of the weights` is added if masks are solved there.
        layers: Reports of the masked layers.
        skipped: Why layers stay dense, by name.
        refreshes: All refreshes whose responses were applied, including the first masks.
        late: Number of refreshes that became due while an earlier one was pending; they are requested after it.
        outages: Number of outages: sequences of failed requests without a successful one in between; an outage
            that has not ended counts, too.
        trouble: Why the last request failed as a whole; None if it succeeded, or no response has arrived.
        shared_names: For each weight that the model has under several names, maps the others to the name of its layer.
        failing: Why layers that were to be solved got no mask in the last response, by name; they keep their last
            mask, and `layers` has its results. Empty if the request as a whole failed.
    """

    pattern: str | None
    method: str
    step: int
    asking: str
    layers: list[LayerReport]
    skipped: Mapping[str, str] = field(default_factory=dict)
    refreshes: list[RefreshRecord] = field(default_factory=list)
    late: int = 0
    outages: int = 0
    trouble: str | None = None
    shared_names: Mapping[str, str] = field(default_factory=dict)
    failing: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return all fields in dicts, lists and tuples, which `json.dumps` accepts."""
        return asdict(self)

    def __str__(self) -> str:
        head = f"{self.pattern or 'dense'}, {self.method}, step {self.step}: {len(self.layers)} masked layer(s)"
        lines = [head, f"{'layer':<44}{'shape':>14}{'kept':>9}{'retained':>10}{'gap':>8}{'flips':>9}"]
        lines += [_line(layer) for layer in self.layers]
        if self.refreshes:
            last = self.refreshes[-1]
            lines.append(
                f"{len(self.refreshes)} refresh(es), the last requested after step {last.asked_at}, applied after step "
                f"{last.applied_at}: {last.flip_rate:.2%} of the entries flipped"
            )
        lines += [f"{other} is the same weight as {name}" for other, name in self.shared_names.items()]
        lines += [f"{name} keeps its last mask: {reason}" for name, reason in self.failing.items()]
        if self.trouble is not None:
            lines.append(f"masks are not being refreshed: {self.trouble}")
        return "\n".join(lines)


def _line(layer: LayerReport) -> str:
    shape = "x".join(map(str, layer.shape))
    retained = "-" if layer.retained is None else f"{layer.retained:.2%}"
    gap = "-" if layer.gap is None else f"{layer.gap:.2g}"
    return f"{layer.name:<44}{shape:>14}{layer.density:>9.2%}{retained:>10}{gap:>8}{layer.flip_rate:>9.2%}"
