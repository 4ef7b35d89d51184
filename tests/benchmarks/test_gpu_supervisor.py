"""Stages that hang, die, fail or lose the device: the rest runs, and nothing that was measured is lost."""

import json
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from attnmod.benchmarks.gpu import results, stages, summary, supervisor
from attnmod.benchmarks.gpu.clocks import Clocks, Sample, parse
from attnmod.benchmarks.gpu.processes import limited
from attnmod.benchmarks.gpu.stages import Stage, StageResult

ROOT = Path(__file__).parents[2]
MODULES = {
    "fine": """
from attnmod.benchmarks.harness import Row
def run(report):
    report.row(Row("op", "provider", "shape", "float16", p20=1.0, p50=2.0, p80=3.0), flops=4e9)
    with report.check("holds") as note:
        note("a note")
    report.say("all is fine")
    report.save_text("a text.txt", "kept")
    (report.folder / "a.file").write_text("kept, too")
""",
    "fails": """
from attnmod.benchmarks.gpu.report import LeftOut
def run(report):
    with report.check("breaks"):
        raise ValueError("it is a test")
    with report.check("cannot be made"):
        raise LeftOut("no such tool")
    report.say("after the failed check")
""",
    "raises": """
def run(report):
    report.say("before the exception")
    raise RuntimeError("outside any check")
""",
    "hangs": """
import subprocess, sys, time
def run(report):
    report.say("before it hangs")
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], process_group=0)
    print("grandchild", process.pid, flush=True)
    time.sleep(600)
""",
    "dies": """
import os, signal
def run(report):
    report.say("before it dies")
    os.kill(os.getpid(), signal.SIGKILL)
""",
    "loses": """
import os
from attnmod.benchmarks.gpu.report import DeviceLost
def run(report):
    for name in ("one", "two", "three"):
        if report.already(name):
            continue
        with report.check(name) as note:
            note(str(os.getpid()))
        if name == "two":
            raise DeviceLost(name)
""",
}


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs stages of these modules; gives the exit code, summary.json and what was printed."""
    modules = tmp_path / "modules"
    modules.mkdir()
    for name, source in MODULES.items():
        (modules / f"stage_{name}.py").write_text(source)
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PYTHONPATH", str(modules))
    monkeypatch.setenv("OUT", str(tmp_path / "out"))
    monkeypatch.setattr(stages, "_LEAST_GRACE", 0.5)

    def run(*names: str, seconds: float = 20.0, **options):
        chosen = [Stage(name, 0.5 if name == "hangs" else seconds, f"stage_{name}") for name in names]
        code = supervisor.run(chosen, supervisor.Options(toy=True, **options))
        path = tmp_path / "out" / "summary.json"
        record = json.loads(path.read_text()) if path.exists() else None
        return code, record, capsys.readouterr().out

    return run


def test_whatever_a_stage_does_the_others_run(run, tmp_path):
    code, record, printed = run("fails", "hangs", "raises", "dies", "fine", "loses")
    assert code == 1
    found = record["stages"]
    assert {name: stage["outcome"] for name, stage in found.items()} == {
        "fails": "failed", "hangs": "overran", "raises": "failed", "dies": "died", "fine": "ok", "loses": "ok",
    }  # fmt: skip
    assert found["fails"]["said"] == ["after the failed check"]
    assert found["hangs"]["said"] == ["before it hangs"]
    assert found["raises"]["said"] == ["before the exception"]
    assert found["dies"]["said"] == ["before it dies"]
    assert "outside any check" in found["raises"]["error"]
    assert "SIGKILL" in found["dies"]["error"]
    assert found["fine"]["rows"][0]["p50"] == 2.0
    assert "FAILED breaks: ValueError: it is a test" in printed
    assert "left out: cannot be made: no such tool" in printed
    with tarfile.open(tmp_path / "out" / "results.tar.gz") as archive:
        log = archive.extractfile("log.txt").read().decode()
        assert archive.extractfile("a-text.txt").read() == b"kept"
        assert archive.extractfile("a.file").read() == b"kept, too"
    assert "time.sleep" in log or "in run" in log  # where the hanging stage was
    # the device was lost: another process went on where the first had come to
    checks = {check["name"]: check["text"] for check in found["loses"]["checks"]}
    assert list(checks) == ["one", "two", "three"]
    assert checks["one"] == checks["two"] != checks["three"]
    grandchild = int(next(line for line in log.splitlines() if line.startswith("grandchild")).split()[1])
    assert not is_running(grandchild)


def test_out_of_time_is_said(run):
    code, record, printed = run("fine", minutes=0)
    assert code == 1
    assert record["stages"]["fine"]["outcome"] == "not run"
    assert "out of time" in printed


@pytest.fixture
def found(monkeypatch, tmp_path):
    """Results with a row, to be saved in OUT."""
    monkeypatch.setenv("OUT", str(tmp_path / "out"))

    def make() -> results.Results:
        made = results.Results(toy=True, clocks=Clocks())
        made.stages["fine"] = StageResult("ok", said=["all is fine"])
        return made

    return make


def test_an_out_that_cannot_be_written_is_said_and_stops_nothing(found, monkeypatch):
    monkeypatch.setenv("OUT", "/dev/null/out")
    some = found()
    some.save()
    assert "not everything is saved" in summary.printed(some)
    assert "all is fine" in summary.printed(some)


def test_a_full_disk_is_said_and_stops_nothing(found, tmp_path):
    """/dev/full has no space left, whoever writes there."""
    (tmp_path / "out").mkdir()
    kept = tmp_path / "out" / "summary.json"
    for name in ("summary.json", "results.tar.gz"):
        some = found()
        some.save()
        before = kept.read_text()
        (tmp_path / "out" / f"{name}.part").symlink_to("/dev/full")
        some.remark("something new")
        some.save()
        assert "No space left" in summary.printed(some)
        assert kept.read_text() == before if name == "summary.json" else "something new" in kept.read_text()
        some.save()  # space was made
        assert "something new" in kept.read_text()


def test_what_an_earlier_run_left_is_kept_where_it_can_be_read(found, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "summary.json").write_text("{")
    some = found()
    assert "could not be read" in summary.printed(some)
    some.texts["a.txt"] = "kept"
    some.save()
    again = results.Results(toy=True, clocks=Clocks())
    assert again.stages["fine"].said == ["all is fine"]
    assert (again.folder / "a.txt").read_text() == "kept"


def test_asked_to_end_it_keeps_what_it_has(run, tmp_path):
    """As `timeout` asks."""
    code = (
        "from attnmod.benchmarks.gpu.supervisor import *; run([Stage('hangs', 300, 'stage_hangs')], Options(toy=True))"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("grandchild"):
                process.send_signal(signal.SIGTERM)
    stages = json.loads((tmp_path / "out" / "summary.json").read_text())["stages"]
    assert stages["hangs"]["outcome"] == "stopped"
    assert stages["hangs"]["said"] == ["before it hangs"]
    assert "ended from outside" in "".join(lines)
    assert not is_running(int(next(line for line in lines if line.startswith("grandchild")).split()[1]))


def is_running(process: int) -> bool:
    for _ in range(50):  # what was killed is gone when somebody has waited for it
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        if state == "Z":
            return False
        time.sleep(0.1)
    return True


def test_a_program_that_is_not_done_in_time_dies_with_its_children():
    code, said = limited(["sh", "-c", "sleep 600 & echo $!; sleep 600"], 0.5)
    assert code is None
    assert not is_running(int(said))
    assert limited(["sh", "-c", "exit 3"], 10) == (3, "")


def test_a_moment_has_the_clock_of_its_samples():
    clocks = Clocks()
    clocks.samples = [Sample(float(second), 1000.0 + second, 300.0, 40.0) for second in range(10)]
    assert clocks.mhz(2.5, 5.5) == 1004.0
    assert clocks.mhz(4.2, 4.4) == 1004.0  # the nearest before
    assert clocks.mhz(100.0, 101.0) is None
    sample = parse("2026/11/26 08:00:00.250, 1980, [N/A], 44\r\n")
    assert sample is not None
    assert (sample.mhz, sample.celsius) == (1980.0, 44.0)


def test_a_long_summary_is_cut_where_it_is_longest(found):
    some = found()
    for name in ("short", "long", "last"):
        some.stages[name] = StageResult("ok", said=["x" * 100] * (500 if name == "long" else 3))
    text = summary.printed(some)
    assert len(text) <= summary.LIMIT
    assert text.count("-- ") == 4
    assert "lines more in summary.txt" in text
    assert len(summary.lines(some)) > 500


def test_the_kernel_table_has_a_line_for_each_thing_that_is_computed(found):
    some = found()
    row = {"op": "self", "shape": "sdxl-1024x1024 2x10x4096x64", "dtype": "float16", "cache": "warm", "note": ""}
    ours = row | {"provider": "attnmod", "p50": 0.18, "flops": 85.9e9, "eager": 0.2, "mhz": 1755.0}
    theirs = row | {"provider": "sdpa-cudnn", "p50": 0.2, "flops": 85.9e9, "eager": None, "mhz": 1745.0}
    missing = row | {"provider": "flex", "p50": None, "note": "not run: no time"}
    some.stages["kernels"] = StageResult("ok", rows=[ours, theirs, missing, missing])
    text = summary.printed(some)
    (line,) = (line for line in text.splitlines() if "self 2x10x4096x64" in line)
    assert line.split() == ["self", "2x10x4096x64", "180.0", "477", "(200)", "200.0", "430", "1750", "MHz"]
    assert "flex, 2 rows" in text
