"""Timing on a CPU: rounds in which every kernel gets its turn, each a block of calls under torch's own timer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch.utils.benchmark import Timer

Runs = Mapping[str, Callable[[], object]]
Seconds = dict[str, list[float]]


@dataclass(frozen=True)
class HostClock:
    """Times on the CPU.

    Attributes:
        threads: torch's threads while a kernel runs.
        block_s: Shortest block of calls: what is shorter is repeated until it lasts as long.
    """

    threads: int = 1
    block_s: float = 0.004

    def time(self, runs: Runs, rounds: int) -> tuple[Seconds, Seconds]:
        """Time each run once a round; the machine's moods then meet all alike.

        Returns:
            Seconds a call, by name and round; and none of a graph, which CPUs do not have.
        """
        timers = {name: Timer("run()", globals={"run": run}, num_threads=self.threads) for name, run in runs.items()}
        numbers = {name: self._number(timer) for name, timer in timers.items()}
        seconds: Seconds = {name: [] for name in runs}
        for turn in range(rounds):
            # Every other round goes backwards: nobody always follows the same neighbour, whose data is in the cache.
            for name in list(timers)[:: -1 if turn % 2 else 1]:
                seconds[name].append(timers[name].timeit(numbers[name]).median)
        return seconds, {}

    def _number(self, timer: Timer) -> int:
        once = min(timer.timeit(1).median for _ in range(3))
        return max(1, int(self.block_s / max(once, 1e-7)))
