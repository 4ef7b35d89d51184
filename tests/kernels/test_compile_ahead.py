"""Both kernels compile for an H100 on a machine without one: no float64, no spill, tensor cores in use."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytest.importorskip("triton", reason="triton is a Linux dependency")


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> dict:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"PYTHONPATH": str(ROOT), "TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton"))}
    script = Path(__file__).with_name("compile_for_sm90.py")
    result = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize("launch", ["self", "self-plain", "cross", "cross-shared"])
def test_machine_code(report, launch):
    code = report[launch]
    assert code["float64_ptx"] == []
    assert code["stack"] == 0
    assert code["spills"] == 0
    assert code["matrix"] > 0


@pytest.mark.parametrize("launch", ["self-float64-scale", "cross-float64-scale"])
def test_a_float64_scale_is_narrowed_at_once(report, launch):
    """Under torch.compile a Python float arrives as float64; it may be loaded and converted, not computed with."""
    code = report[launch]
    assert code["float64"] == 0
    assert all(name.startswith(("ld.param", "cvt.rn.f32", "mov", ".reg")) for name in code["float64_ptx"])
    assert code["spills"] == 0


def test_a_prompt_of_77_tokens_computes_80_columns(report):
    """Of 64 + 16 columns the attention takes 80 exponentials a row, and the vote another 80; 128 would take 128."""
    exponentials_per_thread = report["cross"]["exponentials"]
    rows, threads = 128, 256
    assert exponentials_per_thread * threads <= 2 * 80 * rows + 40 * threads
