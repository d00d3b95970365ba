"""Clocks and gauges: the order of things, with recorders in the place of CUDA and NVML."""

from contextlib import contextmanager
from itertools import cycle
from types import SimpleNamespace

import torch

from masksmith.benchmark.cuda_clock import CudaClock
from masksmith.benchmark.fastest import fastest
from masksmith.benchmark.gpu_monitor import GpuMonitor, merge_states
from masksmith.benchmark.host_clock import HostClock


class Recorder:
    """Stands for `torch.cuda`: writes down what happens, and lets every call take a second of its time."""

    class OutOfGraphError(RuntimeError):
        pass

    def __init__(self):
        self.log, self.now, self.capturing = [], 0.0, False
        self.current_device = "another device"

    @contextmanager
    def device(self, device):
        before, self.current_device = self.current_device, device
        try:
            yield
        finally:
            self.current_device = before

    def get_device_properties(self, device):
        return type("Properties", (), {"L2_cache_size": 1024})()

    def synchronize(self, device):
        self.log.append("synchronize")

    def Event(self, enable_timing):
        recorder = self

        class Event:
            def record(self):
                assert recorder.current_device == "cpu"
                self.at = recorder.now
                recorder.log.append("event")

            def synchronize(self):
                pass

            def elapsed_time(self, other):
                return 1000.0 * (other.at - self.at)

        return Event()

    def Stream(self, device):
        return type("Stream", (), {"wait_stream": lambda self, other: None, "device": device})()

    current_stream = Stream

    def stream(self, stream):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.capturing = False

    def CUDAGraph(self):
        return type("Graph", (), {"replay": lambda graph: self.act("replay", 1.0)})()

    def graph(self, graph, stream=None):
        assert self.current_device == "cpu"
        assert getattr(stream, "device", None) == "cpu", "torch would capture on the device of its first capture"
        self.capturing = True
        return self

    def act(self, what, seconds):
        self.log.append(what)
        self.now += seconds


def clock(recorder):
    made = CudaClock("cpu", repeats=3, pause_s=0.0, cuda=recorder)
    object.__setattr__(made, "_flusher", lambda: lambda: recorder.act("flush", 100.0))
    return made


def test_every_call_meets_a_cold_cache_and_an_idle_gpu():
    recorder = Recorder()
    eager, graph = clock(recorder).time({"a": lambda: recorder.act("a", 2.0)}, rounds=2)
    assert eager == {"a": [2.0, 2.0]}
    assert graph == {"a": [1.0, 1.0]}
    timed = recorder.log[4:]
    once = ["flush", "synchronize", "event", "a", "event"] * 3 + ["flush", "event", "replay", "event"] * 3
    assert timed == once * 2


def test_the_gpu_is_looked_at_directly_after_the_work_of_a_round():
    recorder = Recorder()
    clock(recorder).time({"a": lambda: recorder.act("a", 2.0)}, 2, lambda: recorder.log.append("look"))
    assert recorder.log.count("look") == 2
    assert recorder.log[-2:] == ["event", "look"]


def test_kernels_take_turns_and_every_other_round_goes_backwards():
    recorder = Recorder()
    runs = {name: lambda name=name: recorder.act(name, 1.0) for name in "ab"}
    clock(recorder).time(runs, rounds=2)
    order = [entry for entry in recorder.log[8:] if entry in runs]
    assert order == ["a"] * 3 + ["b"] * 3 + ["b"] * 3 + ["a"] * 3


def test_what_cannot_be_captured_has_no_graph_but_eager_times():
    recorder = Recorder()

    def run():
        if recorder.capturing:
            raise RuntimeError("operation not permitted when stream is capturing")
        recorder.act("a", 1.0)

    eager, graph = clock(recorder).time({"a": run}, rounds=1)
    assert eager == {"a": [1.0]}
    assert graph == {}


def test_the_implementation_of_a_gpu_is_chosen_by_the_times_that_are_reported():
    recorder = Recorder()
    slow_launch = {"fast": lambda x: recorder.act("fast", 9.0), "slow": lambda x: recorder.act("slow", 2.0)}
    replays = cycle([1.0] * 3 + [5.0] * 3)
    recorder.CUDAGraph = lambda: SimpleNamespace(replay=lambda: recorder.act("replay", next(replays)))
    assert fastest(slow_launch, torch.zeros(1), clock(recorder))[0] == "fast"

    def refuse(x):
        if recorder.capturing:
            raise RuntimeError("operation not permitted when stream is capturing")
        recorder.act("refuse", 1.0)

    assert fastest(slow_launch | {"refuse": refuse}, torch.zeros(1), clock(recorder))[0] == "refuse"


def test_the_host_clock_repeats_short_calls_and_counts_single_ones():
    calls = []
    seconds, graph = HostClock(block_s=0.001).time({"a": lambda: calls.append(1), "b": lambda: None}, rounds=3)
    assert graph == {}
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3}
    assert len(calls) > 300
    assert all(0 < value < 0.001 for value in seconds["a"])


class Nvml:
    """Stands for NVML."""

    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0
    nvmlClocksThrottleReasonSwPowerCap = 4
    nvmlClocksThrottleReasonHwSlowdown = 8

    class NVMLError(Exception):
        pass

    def __init__(self, reasons=0, fault=None):
        self.reasons, self.fault = reasons, fault

    def nvmlInit(self):
        if self.fault:
            raise self.NVMLError(self.fault)

    def nvmlDeviceGetHandleByUUID(self, uuid):
        assert uuid == b"GPU-1234"
        return "handle"

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle):
        return self.reasons

    def nvmlDeviceGetClockInfo(self, handle, kind):
        return {1: 1980, 2: 2619}[kind]

    def nvmlDeviceGetTemperature(self, handle, kind):
        return 55

    def nvmlDeviceGetPowerUsage(self, handle):
        return 412_500

    def nvmlSystemGetDriverVersion(self):
        return b"580.1"


def test_gauges_tell_clocks_and_what_slows_them_down():
    idle, capped = GpuMonitor("cuda", "1234", Nvml()).read(), GpuMonitor("cuda", "1234", Nvml(reasons=4)).read()
    assert idle == {
        "sm_clock_mhz": 1980, "memory_clock_mhz": 2619, "temperature_c": 55, "power_w": 412.5, "driver": "580.1",
        "throttled": [],
    }  # fmt: skip
    assert capped["throttled"] == ["power cap"]
    merged = merge_states([idle | {"sm_clock_mhz": 345}, capped, idle])
    assert merged == idle | {"throttled": ["power cap"], "sm_clock_mhz_before": 345}


def test_a_gpu_that_does_not_tell_is_measured_without_gauges_and_said_to_be():
    state = GpuMonitor("cuda", "1234", Nvml(fault="driver not loaded")).read()
    assert state == {"missing": "clocks unknown: driver not loaded"}
    assert merge_states([state, state]) == state
    assert "throttled" not in merge_states([{"power_w": 1.0}, {"power_w": 2.0}])


def test_what_a_gpu_does_not_report_is_left_out():
    class WithoutPower(Nvml):
        def nvmlDeviceGetPowerUsage(self, handle):
            raise self.NVMLError("Not Supported")

    state = GpuMonitor("cuda", "1234", WithoutPower()).read()
    assert "power_w" not in state
    assert (state["sm_clock_mhz"], state["throttled"]) == (1980, [])


def test_a_cpu_has_no_gauges():
    assert GpuMonitor("cpu").read() == {}
    assert merge_states([{}, {}]) == {}


def test_the_recorder_was_asked_for_nothing_real():
    assert not torch.cuda.is_initialized()
