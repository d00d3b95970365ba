"""Timing on a GPU by CUDA events around single calls, with a cache flush before each, for eager calls and CUDA graphs.

An eager call starts on an idle GPU, so its time includes the overhead of Python and the launch. A graph's replay is
queued while the flush runs; this hides the launch, so the time of the replay is that of the kernel. Kernels alternate,
with pauses between rounds, because a GPU under constant load lowers its clocks.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from .host_clock import AfterRound, Runs, Seconds, do_nothing

WARM_UPS = 3
"""Calls on a side stream before a graph is captured."""
FLUSH_FACTOR = 2
"""Bytes written by a flush, in units of the size of the L2 cache."""
MIN_FLUSH_BYTES = 2**20
"""Least number of bytes written by a flush, whatever size the device reports."""


@dataclass(frozen=True)
class CudaClock:
    """Measures the time of calls on a CUDA device.

    Attributes:
        device: CUDA device.
        repeats: Calls of a kernel per round, and also replays of its graph per round; the times of a round are the
            median of the calls, and the median of the replays.
        pause_s: Pause after a round, in seconds.
        cuda: torch's CUDA module; tests replace it by a recorder.
    """

    device: str = "cuda"
    repeats: int = 5
    pause_s: float = 0.002
    cuda: Any = torch.cuda

    def time(self, runs: Runs, rounds: int, after_round: AfterRound = do_nothing) -> tuple[Seconds, Seconds]:
        """Time each run in every round; `after_round` is called directly after the work of each round.

        Returns:
            Seconds of a call, by name and round; and seconds of a graph's replay, by name and round, without the names
            of the runs that cannot be captured.
        """
        # Events and graphs belong to the current device, whatever the device of the tensors.
        with self.cuda.device(self.device):
            return self._time(runs, rounds, after_round)

    def _time(self, runs: Runs, rounds: int, after_round: AfterRound) -> tuple[Seconds, Seconds]:
        flush = self._flusher()

        def flush_and_wait() -> None:
            flush()
            self.cuda.synchronize(self.device)

        graphs = {name: graph for name, run in runs.items() if (graph := self._capture(run)) is not None}
        eager: Seconds = {name: [] for name in runs}
        replayed: Seconds = {name: [] for name in graphs}
        for round_number in range(rounds):
            # Every other round runs in reverse, so that no kernel always follows the same other one.
            for name in list(runs)[:: -1 if round_number % 2 else 1]:
                eager[name].append(self._median(runs[name], flush_and_wait))
                if name in graphs:
                    replayed[name].append(self._median(graphs[name].replay, flush))
            after_round()
            time.sleep(self.pause_s)
        return eager, replayed

    def _median(self, run: Callable[[], object], prepare: Callable[[], object]) -> float:
        """Return the median seconds of `repeats` calls of `run`, with `prepare` before each."""

        def time_once() -> float:
            prepare()
            return self._seconds(run)

        return sorted(time_once() for _ in range(self.repeats))[self.repeats // 2]

    def _seconds(self, run: Callable[[], object]) -> float:
        """Return the seconds between CUDA events before and after one call of `run`."""
        before, after = (self.cuda.Event(enable_timing=True) for _ in range(2))
        before.record()
        run()
        after.record()
        after.synchronize()
        return float(before.elapsed_time(after)) / 1000.0

    def _flusher(self) -> Callable[[], object]:
        """Return a function that overwrites the L2 cache."""
        size = FLUSH_FACTOR * self.cuda.get_device_properties(self.device).L2_cache_size
        return torch.empty(max(size, MIN_FLUSH_BYTES), dtype=torch.uint8, device=self.device).zero_

    def _capture(self, run: Callable[[], object]) -> Any:
        """Capture a graph of one call, after warm-up on a side stream; return None if it cannot be captured."""
        stream = self.cuda.Stream(self.device)
        stream.wait_stream(self.cuda.current_stream(self.device))
        with self.cuda.stream(stream):
            for _ in range(WARM_UPS):
                run()
        self.cuda.current_stream(self.device).wait_stream(stream)
        graph = self.cuda.CUDAGraph()
        try:
            # torch's default capture stream belongs to the device of the process's first capture.
            with self.cuda.graph(graph, stream=stream):
                run()
        except RuntimeError:
            self.cuda.synchronize(self.device)
            return None
        return graph
