"""The timer: what it rotates and, on a pretended GPU with a clock of its own, what it counts and leaves out."""

import contextlib
import doctest
import itertools
import time

import pytest
import torch

from attnmod.benchmarks import timer
from attnmod.benchmarks.harness import Truth, measure
from attnmod.benchmarks.timer import time_calls

CPU = torch.device("cpu")
SETS = [(0,), (1,), (2,)]


def test_the_examples():
    assert doctest.testmod(timer).failed == 0


def test_inputs_rotate():
    seen = []
    time_calls(seen.append, SETS, CPU, budget_ms=0.01)
    assert len(seen) >= 6
    measured = seen[-5:]
    assert all(after == (before + 1) % 3 for before, after in itertools.pairwise(measured))


def test_two_sets_do_not_rotate_far_enough():
    with pytest.raises(ValueError, match="at least 3 sets are needed, 2 were given"):
        time_calls(print, SETS[:2], CPU)


def test_a_cpu_has_no_time_of_its_own_for_launches():
    times = time_calls(lambda i: None, SETS, CPU, budget_ms=0.01)
    assert times.p20 <= times.p50 <= times.p80
    assert times.eager is None
    assert times.host is None


class PretendedGPU:
    """Kernels that take `kernel` us and whose launches hold the host up for `launch` us; a graph's do not."""

    def __init__(self, monkeypatch, kernel: float, launch: float, flush: float = 85.0):
        self.kernel, self.launch, self.flush = kernel, launch, flush
        self.clock = 0.0  # us of the device
        self.captured: list | None = None
        self.order: list = []  # of what ran from a graph, in turn
        gpu = self

        class Graph:
            def __init__(self):
                self.kernels: list = []

            def replay(self):
                for name, duration in self.kernels:
                    gpu.order.append(name)
                    gpu.clock += duration

        class Event:
            def __init__(self, enable_timing):
                assert enable_timing

            def record(self):
                self.at = gpu.clock

            def elapsed_time(self, end):
                return (end.at - self.at) / 1e3

        class Stream:
            def wait_stream(self, other):
                pass

        @contextlib.contextmanager
        def graph(graph, stream):
            self.captured = graph.kernels
            yield
            self.captured = None

        for name, value in {
            "CUDAGraph": Graph, "Event": Event, "Stream": Stream, "graph": graph, "synchronize": lambda: None,
            "stream": lambda stream: contextlib.nullcontext(), "current_stream": Stream,
        }.items():  # fmt: skip
            monkeypatch.setattr(torch.cuda, name, value)
        monkeypatch.setattr(timer, "_l2_overwriter", lambda device: lambda: self.run("flush", self.flush))

    def run(self, name, duration: float) -> None:
        if self.captured is not None:
            self.captured.append((name, duration))
            return
        self.clock += duration
        until = time.perf_counter() + self.launch * 1e-6
        while time.perf_counter() < until:
            pass

    def call(self, i: int) -> None:
        self.run(i, self.kernel)


GPU = torch.device("cuda")


def test_a_kernel_of_8_us_reads_as_8_us(monkeypatch):
    gpu = PretendedGPU(monkeypatch, kernel=8.0, launch=50.0)
    times = time_calls(gpu.call, SETS, GPU)
    assert (times.p20, times.p50, times.p80) == pytest.approx((0.008,) * 3)
    assert times.eager >= times.host >= 0.05
    assert gpu.order[:4] == [0, 1, 2, 0]
    assert len(gpu.order) % timer.CALLS == 0


def test_cold_takes_off_the_flush(monkeypatch):
    gpu = PretendedGPU(monkeypatch, kernel=8.0, launch=1.0)
    times = time_calls(gpu.call, SETS, GPU, cold=True)
    assert times.p50 == pytest.approx(0.008)
    assert gpu.order[-4:] == ["flush", 0, "flush", 1]


def test_a_long_call_fills_no_graph_of_20(monkeypatch):
    gpu = PretendedGPU(monkeypatch, kernel=10_000.0, launch=10_000.0)
    assert time_calls(gpu.call, SETS, GPU).p50 == pytest.approx(10.0)
    assert len(gpu.order) % 3 == 0
    assert len(gpu.order) % timer.CALLS != 0


def test_a_capture_that_fails_is_a_row_and_leaves_collection_on(monkeypatch):
    import gc

    @contextlib.contextmanager
    def refuses(graph, stream):
        raise RuntimeError("operation not permitted when stream is capturing")
        yield

    gpu = PretendedGPU(monkeypatch, kernel=8.0, launch=1.0)
    monkeypatch.setattr(torch.cuda, "graph", refuses)
    with pytest.raises(RuntimeError, match="capturing"):
        time_calls(gpu.call, SETS, GPU)
    assert gc.isenabled()


def test_a_wrong_provider_is_not_timed():
    exact = torch.randn(4, 4, dtype=torch.float64)
    truth = Truth.of(exact, exact.float() * (1 + 1e-7))
    inputs = [(exact.float(),)] * 3
    right = measure("op", "right", "4x4", lambda x: x, inputs, lambda: truth, budget_ms=1, flops=32.0)
    wrong = measure("op", "wrong", "4x4", lambda x: x + 0.01, inputs, lambda: truth, budget_ms=1)
    nothing = measure("op", "nothing", "4x4", lambda x: x * float("nan"), inputs, lambda: truth, budget_ms=1)
    broken = measure("op", "broken", "4x4", lambda x: 1 / 0, inputs, lambda: truth, budget_ms=1)
    assert right.p50 is not None
    assert right.tflops is not None
    for row in (wrong, nothing):
        assert row.p50 is None
        assert "not timed" in row.note
    assert broken.p50 is None
    assert broken.note == "not run: ZeroDivisionError: division by zero"
