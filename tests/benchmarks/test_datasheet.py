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
CONTROLS = """
import json
from dataclasses import asdict
import triton, triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from benchmarks.datasheet import _columns, _tiles, faults, sdxl_cases
from benchmarks.launches import compile_launch, record
from benchmarks.machine_code import read

@triton.jit
def double(x_ptr):
    tl.store(x_ptr, tl.load(x_ptr) * 2.0 + 1.0)

case = sdxl_cases()[2]
for change in ({"maxnreg": 64}, {"TOKEN_TILES": ((0, 128),)}):
    launch = record(case, "sm_90")
    launch.arguments.update(change)
    code = read(compile_launch(launch, "sm_90"))
    row = asdict(code) | {"architecture": "sm_90", "kernel": case.name, "blocks_per_processor": 1}
    row["tiles"] = _tiles(launch)
    row["columns_of_exponentials"] = _columns("sm_90", launch, code)
    print(json.dumps(faults(row, {})))
source = ASTSource(fn=double, signature={"x_ptr": "*fp64"}, constexprs={}, attrs={})
print(json.dumps(read(triton.compile(source, target=GPUTarget("cuda", 90, 32))).fp64))
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
        assert row["fp64"] == 0
        assert row["spills"] == row["spill_bytes"] == 0
        assert row["blocks_per_processor"] >= 1
        assert row["matrix"]
        assert row["instructions_per_score"] > 4.5
        # what is counted is there: every score has an exponential and a multiply-add
        assert row["ffma"] > 8
        assert row["exponentials"] > 8


def test_77_tokens_take_exponentials_for_80_columns_and_as_many_for_the_vote(rows):
    by_head = [row for row in rows if row["kernel"].startswith("cross vote") and "x77x" in row["kernel"]]
    assert len(by_head) == 3
    for row in by_head:
        passes = 1 if row["architecture"] == "sm_100" else 2  # in sweeps each has a loop of its own
        assert 80 * passes <= row["columns_of_exponentials"] <= 88 * passes


def test_keys_are_asked_for_a_whole_pass_before_they_are_waited_for(rows):
    """In the Gluon kernel a warp of its own asks for them; there the exponentials stand beside a product."""
    for row in rows:
        if "gluon" in row["tiles"].split():
            assert len(row["loops"]) == 3
            assert all(loop["beside_products"] == loop["exponentials"] == 66 for loop in row["loops"])
        elif row["kernel"].startswith("self"):
            assert all(loop["load_distance"] >= loop["products"] > 0 for loop in row["loops"])


def test_every_combination_is_compiled_for_hopper():
    from benchmarks.datasheet import ARCHITECTURES, _architectures_of, all_cases, combination_cases

    cases = combination_cases()
    # plain, owner, vote, affinity in one piece and in sweeps, shared in sweeps; weights, hidden weight, sum, dtype
    assert len({case.name for case in cases}) == len(cases) == (2 * 4 + 1) * 2 * 2 * 2 * 3
    assert {_architectures_of(case) for case in cases} == {("sm_90",)}
    assert {_architectures_of(case) for case in all_cases()} == {ARCHITECTURES}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"spill_bytes": 8, "spills": 2}, "spills 8 bytes"),
        ({"fp64": 1}, "float64"),
        ({"matrix": {"HMMA": 8}}, "no HGMMA"),
        ({"columns_of_exponentials": 256.0}, "more than 160"),
        ({"kernel": "cross owner float16 4096x77x64", "columns_of_exponentials": 128.0}, "more than 80"),
        ({"kernel": "self temperature float16 4096x4096x64", "load_distance": 0}, "just asked for"),
        ({"blocks_per_processor": 0}, "does not fit"),
    ],
    ids=["spill", "float64", "matrix", "exponentials", "one-exponential", "distance", "fit"],
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


def test_a_kernel_that_does_not_compile_is_a_fault(rows):
    from benchmarks.datasheet import faults

    row = {name: rows[0][name] for name in ("architecture", "kernel", "tiles", "programs")} | {"error": "it is a test"}
    name = f"{row['architecture']} {row['kernel']}"
    assert faults(row, {}) == [f"{name}: does not compile: it is a test"]
    assert faults(row, {name: -1}) == []  # as was recorded


def test_candidates_are_not_held_to_anything(rows):
    from benchmarks.datasheet import faults

    assert faults(rows[0] | {"candidate": True, "spill_bytes": 8, "fp64": 1}, {}) == []


def test_the_exit_code(rows, monkeypatch, tmp_path, capsys):
    from benchmarks import datasheet

    arguments = ["--set", "sdxl", "--json", str(tmp_path / "sheet.json"), "--markdown", str(tmp_path / "sheet.md")]
    monkeypatch.setattr(datasheet, "sheet", lambda *_: rows)
    assert datasheet.main(arguments) == 0
    assert json.loads((tmp_path / "sheet.json").read_text())["rows"] == rows
    assert rows[0]["kernel"] in (tmp_path / "sheet.md").read_text()
    monkeypatch.setattr(datasheet, "sheet", lambda *_: [rows[0] | {"spills": 2, "spill_bytes": 8}, *rows[1:]])
    assert datasheet.main(arguments) == 1
    assert "spills 8 bytes" in capsys.readouterr().err


def test_what_is_counted_is_read_from_the_machine_code(cache):
    """A limit of 64 registers spills; a prompt padded to 128 columns takes 128 exponentials; float64 is seen."""
    path = cache / "controls.py"
    path.write_text(CONTROLS)
    result = run([str(path)], cache)
    assert result.returncode == 0, result.stderr
    spilled, padded, double = (json.loads(line) for line in result.stdout.splitlines())
    assert any("spills" in fault for fault in spilled)
    assert any("more than 160" in fault for fault in padded)
    assert double > 0


def test_exponentials_after_a_wait_are_a_fault_of_the_gluon_kernel():
    from benchmarks.datasheet import faults

    def row(*beside: int) -> dict:
        loops = [{"exponentials": 66, "beside_products": number} for number in beside]
        return GLUON_ROW | {"loops": loops}

    assert faults(row(66, 66), {}) == []
    (fault,) = faults(row(66, 60), {})
    assert "6 exponentials of the hot loop do not stand between" in fault
    steady = row(64, 30)
    steady["loops"][0]["exponentials"] = 64  # the other loop repeats what was too low
    assert faults(steady, {}) == []


GLUON_ROW = {
    "architecture": "sm_90", "kernel": "self temperature float16 4096x4096x64", "tiles": "gluon n=128 maxnreg=128",
    "blocks_per_processor": 1, "spill_bytes": 0, "spills": 0, "fp64": 0, "matrix": {"HGMMA": 72}, "load_distance": -1,
}  # fmt: skip


def test_exponentials_beside_products():
    from benchmarks.machine_code import _beside_products, _Instruction

    def body(*words: str) -> list:
        return [_Instruction(place, word, None) for place, word in enumerate(words)]

    issue, wait, exponential = "HGMMA.64x64x16.F32", "WARPGROUP.DEPBAR.LE gsb0, 0x0", "MUFU.EX2"
    assert _beside_products(body(exponential, issue, wait, exponential)) == 0
    assert _beside_products(body(issue, exponential, exponential, wait, exponential)) == 2
    assert _beside_products(body(exponential, wait, exponential, issue)) == 1  # from the iteration before
    assert _beside_products(body(issue, "WARPGROUP.DEPBAR.LE gsb0, 0x1", exponential, wait)) == 1  # one may go on


NVIDIA_COPIES = ["LDGSTS.E.128 [R9], [R2.64]", "LDGDEPBAR"]


@pytest.mark.parametrize(
    ("words", "distance"),
    [
        # waits for all groups at the top, asks at the bottom: nothing is in flight while products run
        (["DEPBAR.LE SB0, 0x0", "HGMMA.64", "HGMMA.64", *NVIDIA_COPIES], 0),
        # one group may stay under way: what is waited for was asked for one pass ago
        (["DEPBAR.LE SB0, 0x1", "HGMMA.64", "HGMMA.64", *NVIDIA_COPIES], 2),
        (["DEPBAR.LE SB0, 0x2", "HMMA.1", *NVIDIA_COPIES], 2),
        # two groups a pass, the second one asked for between the products
        (["DEPBAR.LE SB0, 0x0", "HMMA.1", *NVIDIA_COPIES, "HMMA.1", *NVIDIA_COPIES], 0),
        (["DEPBAR.LE SB0, 0x1", "HMMA.1", *NVIDIA_COPIES, "HMMA.1", *NVIDIA_COPIES], 1),
        # loads into registers are waited for by who reads them
        (["LDG.E.128 R4, desc[UR4][R2.64]", "STS.128 [R9], R4", "HMMA.1"], 0),
        (["STS.128 [R9], R4", "LDG.E.128 R4, desc[UR4][R2.64]", "HMMA.1"], 1),
        (["LDG.E.128 R4, desc[UR4][R2.64]", "HMMA.1", "FADD R1, R7, R1"], 1),
        (["LDG.E R4, desc[UR4][R2.64]", "HMMA.1", "FADD R1, R7, R1"], -1),  # it never reads R4
        # AMD counts what is under way
        (["global_load_dwordx4 v[0:3], v[4:5], off", "s_waitcnt vmcnt(0)", "v_mfma_f32_32x32x8_f16 a"], 0),
        (["s_waitcnt vmcnt(1) lgkmcnt(0)", "v_mfma_f32_32x32x8_f16 a", "buffer_load_dwordx4 v[0:3], v4"], 1),
        (["HMMA.1"], -1),
    ],
)
def test_the_distance_between_a_load_and_its_wait(words, distance):
    from benchmarks.machine_code import _Instruction, load_distance

    body = [_Instruction(place, word, None) for place, word in enumerate(words)]
    assert load_distance(body, body) == distance


def test_copies_by_descriptors_are_as_far_ahead_as_were_issued_before_the_loop():
    from benchmarks.machine_code import _Instruction, load_distance

    words = [*["UTMALDG.4D [UR8], [UR4]"] * 4, "SYNCS.PHASECHK", "HGMMA.64", "HGMMA.64", *["UTMALDG.4D"] * 2]
    code = [_Instruction(place, word, None) for place, word in enumerate(words)]
    assert load_distance(code[4:], code) == 4
    assert load_distance(code[4:], code[4:]) == 0


def test_a_float64_scale_is_narrowed_at_once(cache):
    """Under torch.compile a Python float arrives as float64; it may be loaded and converted, not computed with."""
    result = run(["-c", EMULATED_FLOAT64], cache)
    assert result.returncode == 0, result.stderr
    for name, code in json.loads(result.stdout).items():
        assert code["fp64"] == 0, name
        assert code["spills"] == 0, name
