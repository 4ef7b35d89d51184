"""The datasheet: SDXL's kernels keep what they promise on sm_80, sm_90 and sm_100, and broken promises are seen."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytest.importorskip("triton", reason="triton is a Linux dependency")
EMULATED_FLOAT64 = """
import json, sys
from dataclasses import asdict
from benchmarks.datasheet import sdxl_cases
from benchmarks.launches import compile_launch, record
from benchmarks.machine_code import read
codes = {}
for case in (sdxl_cases()[0], sdxl_cases()[2]):
    codes[case.name] = asdict(read(compile_launch(record(case, "sm_90"), "sm_90", scale_type="fp64")))
print(json.dumps(codes))
"""


def run(arguments: list[str], cache: Path) -> subprocess.CompletedProcess:
    """A process of its own: Triton's interpreter and its compiler exclude each other in one."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"PYTHONPATH": str(ROOT), "TRITON_CACHE_DIR": str(cache)}
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("triton")


@pytest.fixture(scope="module")
def rows(cache) -> list[dict]:
    path = cache / "sheet.json"
    arguments = ["-m", "benchmarks.datasheet", "--set", "sdxl", "--architecture", "sm_80", "sm_90", "sm_100"]
    result = run([*arguments, "--json", str(path)], cache)
    assert result.returncode == 0, result.stderr
    assert "0 faults" in result.stdout
    return json.loads(path.read_text())["rows"]


def test_the_sheet_has_every_row(rows):
    assert len(rows) == 18
    for row in rows:
        assert row["spills"] == row["spill_bytes"] == row["fp64"] == 0
        assert row["blocks_per_processor"] >= 1
        assert row["matrix"]
        assert row["instructions_per_score"] > 4.5
        # what is counted is there: every score has an exponential and a multiply-add
        assert row["ffma"] > 8
        assert row["exponentials"] > 8


def test_77_tokens_take_one_exponential_for_each_of_80_columns(rows):
    by_head = [row for row in rows if row["kernel"].startswith("cross vote") and "x77x" in row["kernel"]]
    assert len(by_head) == 3
    assert all(80 <= row["columns_of_exponentials"] <= 88 for row in by_head)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"spill_bytes": 8, "spills": 2}, "spills 8 bytes"),
        ({"fp64": 1}, "float64"),
        ({"matrix": {"HMMA": 8}}, "no HGMMA"),
        ({"columns_of_exponentials": 128.0}, "more than 80"),
        ({"blocks_per_processor": 0}, "does not fit"),
    ],
    ids=["spill", "float64", "matrix", "exponentials", "fit"],
)
def test_a_broken_promise_is_a_fault(rows, change, complaint):
    from benchmarks.datasheet import faults

    row = next(row for row in rows if row["architecture"] == "sm_90" and row["kernel"].startswith("cross vote"))
    assert faults(row, {}) == []
    assert complaint in " ".join(faults(copy.deepcopy(row) | change, {}))


def test_other_rows_have_a_ceiling(rows):
    from benchmarks.datasheet import faults

    row = rows[0] | {"kernel": "self temperature float32 4096x4096x64", "spill_bytes": 16}
    name = f"{row['architecture']} {row['kernel']}"
    assert faults(row, {name: 16}) == []
    assert "where 8 were recorded" in faults(row, {name: 8})[0]


def test_a_float64_scale_is_narrowed_at_once(cache):
    """Under torch.compile a Python float arrives as float64; it may be loaded and converted, not computed with."""
    result = run(["-c", EMULATED_FLOAT64], cache)
    assert result.returncode == 0, result.stderr
    for name, code in json.loads(result.stdout).items():
        assert code["fp64"] == 0, name
        assert code["spills"] == 0, name
