"""Timing on a CPU: in each round, every kernel runs a block of calls under torch's timer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch.utils.benchmark import Timer

Runs = Mapping[str, Callable[[], object]]
"""By name of the kernel, a function that calls it once."""
Seconds = dict[str, list[float]]
"""By name of the kernel, the seconds of a call in each round."""
AfterRound = Callable[[], None]
"""Function that is called after each round."""


def do_nothing() -> None:
    """Do nothing; the default for `after_round`."""


@dataclass(frozen=True)
class HostClock:
    """Measures the time of calls on the CPU.

    Attributes:
        threads: Number of torch threads while a kernel runs.
        block_s: Approximate duration of a block of calls, in seconds; a slower call is a block of its own.
    """

    threads: int = 1
    block_s: float = 0.004

    def time(self, runs: Runs, rounds: int, after_round: AfterRound = do_nothing) -> tuple[Seconds, Seconds]:
        """Time one block of each run per round, so that changes of the machine's speed affect all runs equally.

        `after_round` is called after each round.

        Returns:
            Seconds per call, by name and round; and an empty dict, where the clock of GPUs returns the seconds of CUDA
            graphs.
        """
        timers = {name: Timer("run()", globals={"run": run}, num_threads=self.threads) for name, run in runs.items()}
        call_counts = {name: self._calls_per_block(timer) for name, timer in timers.items()}
        seconds: Seconds = {name: [] for name in runs}
        for round_number in range(rounds):
            # Every other round runs in reverse, so that no kernel always follows the same other one in the cache.
            for name in list(timers)[:: -1 if round_number % 2 else 1]:
                seconds[name].append(timers[name].timeit(call_counts[name]).median)
            after_round()
        return seconds, {}

    def _calls_per_block(self, timer: Timer) -> int:
        call_s = min(timer.timeit(1).median for _ in range(3))
        # At least 1e-7 s: shorter times are below what the timer resolves, and may be 0.
        return max(1, int(self.block_s / max(call_s, 1e-7)))
