"""What the stages of `make gpu` make of what they see, where it can be seen without a GPU."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from attnmod.benchmarks.gpu import compile as compilation
from attnmod.benchmarks.gpu import ncu, risky, sanitizer
from attnmod.benchmarks.gpu.report import LeftOut, Report
from attnmod.benchmarks.gpu.target import SMALL

ROOT = Path(__file__).parents[2]
RAW = """==PROF== something before
"ID","Kernel Name","gpu__time_duration.sum","sm__throughput.avg.pct_of_peak_sustained_elapsed",\
"sm__inst_executed_pipe_xu.avg.pct_of_peak_sustained_active",\
"sm__pipe_tensor_op_hmma_cycles_active.avg.pct_of_peak_sustained_active",\
"smsp__average_warps_issue_stalled_wait_per_issue_active.ratio",\
"smsp__average_warps_issue_stalled_barrier_per_issue_active.ratio"
"","","ns","%","%","%","",""
"0","_self_attention_kernel","181,250","71.5","61.2","45.0","0.25","1.5"
"""


@pytest.fixture
def report(tmp_path) -> tuple[Report, list[dict]]:
    events: list[dict] = []
    device = torch.device("cpu")
    return Report("stage", 60.0, events.append, toy=True, more=False, device=device, folder=tmp_path), events


def test_what_is_compiled_ahead_is_found_by_a_launch(tmp_path, monkeypatch):
    """A launch through Triton's own JIT, in a process of its own and on the stub driver, compiles nothing."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    cases = SMALL[:2]
    made = compilation.warm(cases, "sm_90", 300)
    assert [outcome.what for outcome in made] == ["miss", "miss"]
    compilation.slim(tmp_path)  # as before it travels
    code = (
        "import torch\n"
        "from attnmod.benchmarks.stub_driver import stub_gpu\n"
        "from attnmod.benchmarks.gpu.compilations import Compilations\n"
        "from attnmod.benchmarks.gpu.target import SMALL, launch\n"
        "with stub_gpu() as driver, Compilations() as found:\n"
        "    for case in SMALL[:2]:\n"
        "        launch(case, torch.device('cpu'))\n"
        "    print(found.hits, len(found.misses))\n"
    )
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    result = subprocess.run([sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True)
    assert result.stdout == "2 0\n", result.stderr[-2000:]


def test_an_output_that_nobody_writes_is_seen():
    """In a process of its own, where kernels are interpreted."""
    code = (
        "import torch\n"
        "from unittest import mock\n"
        "from attnmod.benchmarks.gpu import right\n"
        "from attnmod.benchmarks.launches import Case\n"
        "from attnmod.kernels import ops\n"
        "nothing = lambda **_: None\n"
        "cpu, f16 = torch.device('cpu'), torch.float16\n"
        "for op in ('self', 'cross'):\n"
        "    feature = 'temperature' if op == 'self' else 'vote'\n"
        "    case = Case(op, feature, f16, 1, 5, 5, 16)\n"
        "    right.check(case, 'triton', cpu, 0)\n"
        "    with mock.patch.object(ops, '_launchers', lambda: (nothing, nothing)):\n"
        "        try:\n"
        "            right.check(case, 'triton', cpu, 0)\n"
        "        except (AssertionError, IndexError, RuntimeError) as error:\n"
        "            print('seen')\n"
    )
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    result = subprocess.run([sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True)
    assert result.stdout == "seen\nseen\n", result.stderr[-2000:]


def test_memory_is_full_of_nan_until_somebody_writes_it():
    from attnmod.benchmarks.gpu.right import poisoned

    with poisoned():
        assert torch.zeros(3).new_empty(7, 5).isnan().all()
        assert (torch.zeros(3).new_empty(7, dtype=torch.int8) == 127).all()
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_candidate_that_hangs_is_told_of_and_the_others_are_tried(report, monkeypatch):
    script = (
        "import sys, time\n"
        "for name in sys.argv[1:]:\n"
        "    time.sleep(600 * (name == 'hangs'))\n"
        "    print(f'{name}\\tok', flush=True)"
    )

    def start(self) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-c", script, *self._left], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    monkeypatch.setattr(risky, "candidates", lambda group, architecture: dict.fromkeys(("one", "hangs", "two")))
    monkeypatch.setattr(risky, "_SECONDS", 1.0)
    monkeypatch.setattr(risky.Process, "_start", start)
    given, events = report
    begun = time.monotonic()
    risky.Process(given, "softmax").tell()
    assert time.monotonic() - begun < 60
    outcomes = {event["name"]: event["outcome"] for event in events if event["event"] == "check"}
    assert outcomes == {"candidate one": "ok", "candidate hangs": "FAILED", "candidate two": "ok"}


def test_ncu_s_decisive_figures():
    kernel, pipes, stalls = ncu.figures(RAW)
    assert kernel == "_self_attention_kernel: 181.2 us, 71.5 SM %"
    assert pipes.strip() == "pipes: xu 61.2%, tensor_op_hmma 45.0%"
    assert stalls.strip() == "warps stalled an issue: barrier 1.5, wait 0.2"
    with pytest.raises(RuntimeError, match="no kernel"):
        ncu.figures("==ERROR== nothing")


def test_memcheck_s_verdict():
    fine = "launched: a\nlaunched: b\n========= ERROR SUMMARY: 0 errors\n"
    assert sanitizer.verdict(0, fine) == "memcheck: 2 launches, 0 errors"
    found = "\n========= ".join(
        ["", "COMPUTE-SANITIZER", "Invalid __global__ read of size 16", "ERROR SUMMARY: 1 error"]
    )
    with pytest.raises(AssertionError, match="Invalid __global__ read"):
        sanitizer.verdict(9, found)
    with pytest.raises(AssertionError, match="exit code 1"):
        sanitizer.verdict(1, "Traceback")
    with pytest.raises(LeftOut, match="out of time after 1 launches"):
        sanitizer.verdict(None, "launched: a\n")
    with pytest.raises(LeftOut, match="does not support"):
        sanitizer.verdict(1, "Device not supported")
