"""What a sparsifier did: one record a refresh, one report a layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class RefreshRecord:
    """One refresh.

    Attributes:
        asked_at, applied_at: Optimizer steps after which the weights were copied, and the masks applied.
        wait_s: Seconds between the two; the loop went on meanwhile.
        pattern: The pattern of the masks.
        sent, unchanged: Layers that were solved, and layers left out because nothing about them had changed.
        failed: Layers that got no mask and kept their last one.
        sad: Sum of absolute differences, `||mask - previous||_1`: the mask entries that changed (Zhou et al., 2021).
        flip_rate: `sad / entries` of all masked layers, in [0, 1] (Hu et al., 2024).
        retained: Share of the score kept by the new masks, over the layers sent; None where nothing was sent.
        optimal: Whether every new mask was proved optimal (gap 0.0) for the weights it was computed from.
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


@dataclass(frozen=True, slots=True)
class LayerReport:
    """One layer as it is now.

    Attributes:
        name: Its weight's name in the model.
        shape: Its weight's shape.
        density: Share of entries that its mask keeps; 1.0 while the layer is dense.
        status, gap, retained, objective, upper_bound: What was proved of its mask, for the scores that it was computed
            from (under `hysteresis`: for the shifted scores); None where nothing was, as of a loaded mask.
        asked_at: Optimizer steps after which those scores were taken.
        sad, flip_rate: Mask entries changed by the last refresh, and their share.
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
    """What a sparsifier did so far.

    Attributes:
        pattern: The pattern at this step; None in a dense phase.
        method: The method's name.
        step: Optimizer steps so far.
        asking: Where masks come from: `in this process`, `a thread` or `a process`.
        layers: The masked layers.
        skipped: Layers left dense, with the reason.
        refreshes: All refreshes, the first masks included.
        late: Refreshes left out because the masks before them were still awaited.
        outages: Times that requests began to fail, each lasting until one succeeded.
        trouble: Why the last request for masks failed; None if it did not.
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

    def as_dict(self) -> dict[str, Any]:
        """Give everything as plain lists and dicts, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        head = f"{self.pattern or 'dense'}, {self.method}, step {self.step}: {len(self.layers)} masked layer(s)"
        lines = [head, f"{'layer':<44}{'shape':>14}{'kept':>9}{'retained':>10}{'gap':>8}{'flips':>9}"]
        lines += [_line(layer) for layer in self.layers]
        if self.refreshes:
            last = self.refreshes[-1]
            lines.append(
                f"{len(self.refreshes)} refresh(es), the last asked after step {last.asked_at}, applied after step "
                f"{last.applied_at}: {last.flip_rate:.2%} of the entries flipped"
            )
        if self.trouble is not None:
            lines.append(f"masks are not being refreshed: {self.trouble}")
        return "\n".join(lines)


def _line(layer: LayerReport) -> str:
    shape = "x".join(map(str, layer.shape))
    retained = "-" if layer.retained is None else f"{layer.retained:.2%}"
    gap = "-" if layer.gap is None else f"{layer.gap:.2g}"
    return f"{layer.name:<44}{shape:>14}{layer.density:>9.2%}{retained:>10}{gap:>8}{layer.flip_rate:>9.2%}"
