"""`attnmod bench host` on the driver that does nothing. Whether its goals hold is not for a test to say."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import host

ROOT = Path(__file__).parents[2]


def run_host(*arguments: str, interpret: str = "0") -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.host", *arguments],
        env={**os.environ, "TRITON_INTERPRET": interpret},
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_every_call_is_a_row_and_check_is_the_exit_code():
    result = run_host("--rounds", "1", "--check")
    assert "host time of a call" in result.stdout, result.stderr[-2000:]
    for name in ("SDPA", *host.GOALS, "self-attention, checked", "stock block"):
        assert re.search(rf"^{name} +\d+\.\d +ratio +\d+\.\d+", result.stdout, re.MULTILINE), name
    assert result.stdout.count("goal") == len(host.GOALS)
    assert result.returncode == int("MISSED" in result.stdout)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a device is there, so the stub is not asked for")
def test_without_launches_it_says_why():
    result = run_host(interpret="1")
    assert result.returncode == 2
    assert "TRITON_INTERPRET=1 is set" in result.stderr
    assert not result.stdout


def test_ratios_are_taken_turn_by_turn():
    """A machine that is twice as slow in one of the turns changes no ratio."""
    times = {"SDPA": [10.0, 20.0, 10.0], "self-attention": [9.0, 18.0, 9.0], "cross-attention": [11.0, 22.0, 11.0]}
    _, own, cross = host._figures(times, beside="SDPA")
    assert (own.ratio, own.holds) == (0.9, True)
    assert (cross.ratio, cross.holds) == (1.1, False)


def test_no_rounds_are_refused(capsys):
    with pytest.raises(SystemExit):
        host.main(["--rounds", "0"])
    assert "--rounds must be at least 1; it was 0" in capsys.readouterr().err
