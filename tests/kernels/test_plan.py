"""Plans need launches, which Triton's interpreter has none of: their tests run in a process of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.stub_driver import obstacle

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a real driver is there: the stub cannot take its place")
def test_launches_through_plans():
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/kernels/on_stub_driver.py"],
        env={**environment, "TRITON_INTERPRET": "0"},
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
    assert " passed" in result.stdout


def test_the_stub_says_why_it_is_of_no_use(monkeypatch):
    from benchmarks.stub_driver import stub_gpu

    assert "interpreted" in obstacle() or torch.cuda.is_available()
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="no C compiler"), stub_gpu():
        pass
