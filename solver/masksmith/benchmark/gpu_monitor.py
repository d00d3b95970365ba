"""State of a GPU during measurements, through NVML: clocks, temperature, power, throttling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from typing import Any

SLOWDOWNS = {
    "SwPowerCap": "power cap",
    "HwSlowdown": "hardware slowdown",
    "SwThermalSlowdown": "software thermal slowdown",
    "HwThermalSlowdown": "hardware thermal slowdown",
    "HwPowerBrakeSlowdown": "power brake",
}
"""NVML's throttle reasons that make timings unreliable, each with its name in reports. The reasons of idle GPUs and of
clocks set by a user are left out."""


class GpuMonitor:
    """Reads a GPU's state; other devices have none.

    Args:
        device: `cpu`, or a CUDA device.
        uuid: UUID of the GPU, without the prefix `GPU-`. NVML finds the GPU by its UUID, since NVML and CUDA may number
            GPUs in different orders.
        nvml: NVML's Python binding; None imports it.
    """

    def __init__(self, device: str, uuid: str = "", nvml: Any = None) -> None:
        self._unavailable_reason: str | None = None
        self._nvml, self._handle = nvml, None
        if device.partition(":")[0] != "cuda":
            return
        if nvml is None and find_spec("pynvml") is None:
            self._unavailable_reason = "clocks unknown: pip install 'masksmith[bench]'"
            return
        self._nvml = nvml or import_module("pynvml")
        try:
            self._nvml.nvmlInit()
            self._handle = self._nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}".encode())
        except self._nvml.NVMLError as error:
            self._unavailable_reason = f"clocks unknown: {error}"

    def read(self) -> dict[str, Any]:
        """Return the current state; `{"missing": reason}` if NVML is unavailable, and an empty dict for a CPU.

        Values that the GPU does not report, such as the power of some virtual GPUs, are left out.
        """
        if self._handle is None:
            return {} if self._unavailable_reason is None else {"missing": self._unavailable_reason}
        state = {}
        for key, read_value in self._readers().items():
            with suppress(self._nvml.NVMLError):
                state[key] = read_value()
        return state

    def _readers(self) -> dict[str, Callable[[], Any]]:
        """Return a function for each value of the state."""
        nvml, handle = self._nvml, self._handle
        return {
            "sm_clock_mhz": lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
            "memory_clock_mhz": lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM),
            "temperature_c": lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
            "power_w": lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000.0,
            "driver": lambda: _text(nvml.nvmlSystemGetDriverVersion()),
            "throttled": self._slowdowns,
        }

    def _slowdowns(self) -> list[str]:
        reasons = self._nvml.nvmlDeviceGetCurrentClocksThrottleReasons(self._handle)
        return [label for name, label in SLOWDOWNS.items() if reasons & _reason_bit(self._nvml, name)]


def merge_states(states: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the last of a case's states, with the SM clock of the first, and the throttling of all of them.

    The result is empty for a CPU, and has only `missing` if NVML is unavailable. If no state has `throttled`, the
    result has none either, since throttling is then unknown.
    """
    first, last = states[0], states[-1]
    if not last or "missing" in last:
        return last
    known = [state["throttled"] for state in states if "throttled" in state]
    throttled = {"throttled": sorted(set().union(*known))} if known else {}
    return last | {"sm_clock_mhz_before": first.get("sm_clock_mhz")} | throttled


def _reason_bit(nvml: Any, name: str) -> int:
    """Return the bit of a throttle reason; 0 if this version of NVML does not define the reason."""
    return int(getattr(nvml, f"nvmlClocksThrottleReason{name}", 0))


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
