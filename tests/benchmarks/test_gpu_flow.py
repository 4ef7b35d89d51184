"""`make gpu` walks every stage on a CPU at toy sizes, on a machine that has little: no minute on a GPU goes to a typo.

What happens to stages that hang, die or lose the device is in test_gpu_supervisor.py.
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch

from attnmod.benchmarks.gpu.stages import MINUTES, STAGES
from attnmod.benchmarks.gpu.supervisor import chosen

ROOT = Path(__file__).parents[2]
# What a GPU machine may well not have. Its Python is told so before anything is imported.
_MISSING = ("spacy", "transformers", "accelerate", "peft", "pytest", "matplotlib", "torchvision")
_BLOCK = """
import importlib.util, sys
missing = set({missing!r})
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in missing:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Blocked())
find_spec = importlib.util.find_spec  # whoever asks whether they are there hears no
importlib.util.find_spec = lambda name, package=None: (
    None if name.split(".")[0] in missing else find_spec(name, package))
"""


def environment(folder: Path, missing: tuple[str, ...], **more: str) -> dict[str, str]:
    """Of a machine without a GPU and without these packages."""
    (folder / "sitecustomize.py").write_text(_BLOCK.format(missing=missing))
    python = {"PYTHONPATH": str(folder), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    nothing_else = {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", "TRITON_CACHE_DIR": str(folder / "triton")}
    return {**os.environ, **python, **nothing_else, **more}


def make_gpu(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["make", "gpu", "LIMIT=500", *arguments],
        env=environment, cwd=ROOT, capture_output=True, text=True, timeout=550, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def walk(tmp_path_factory) -> tuple[Path, str]:
    """OUT, which was not there before, and what was printed."""
    folder = tmp_path_factory.mktemp("machine")
    out = folder / "a" / "b"
    result = make_gpu(environment(folder, _MISSING, OUT=str(out)), "ARGS=--toy --minutes 60")
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return out, result.stdout


def test_every_stage_is_walked(walk):
    out, _ = walk
    record = json.loads((out / "summary.json").read_text())
    assert list(record["stages"]) == [stage.name for stage in STAGES]
    assert {stage["outcome"] for stage in record["stages"].values()} == {"ok"}
    assert record["toy"]
    assert record["machine"]["torch"] == torch.__version__
    left_out = {check["text"] for stage in record["stages"].values() for check in stage["checks"] if not stage["rows"]}
    assert left_out >= {"needs CUDA"}


def test_out_holds_a_few_files(walk):
    out, _ = walk
    names = {path.name for path in out.iterdir()}
    assert (
        {"results.tar.gz", "summary.json", "summary.txt"}
        <= names
        <= {"results.tar.gz", "summary.json", "summary.txt", "tiles.json"}
    )
    with tarfile.open(out / "results.tar.gz") as archive:
        assert {f"{stage.name}.json" for stage in STAGES} | {"log.txt", "compile.txt"} <= set(archive.getnames())


def test_the_summary_comes_last_and_fits(walk):
    _, printed = walk
    summary = printed[printed.rindex("== attnmod on") :]
    assert len(summary) < 12_000
    for stage in STAGES:
        assert f"\n-- {stage.name}: ok in " in summary
    assert "us, TFLOP/s" in summary  # the kernel table
    assert "modulated less stock, by kernel" in summary


def test_the_kernels_were_right(walk):
    out, _ = walk
    checks = json.loads((out / "summary.json").read_text())["stages"]["right"]["checks"]
    held = {check["name"] for check in checks if check["outcome"] == "ok"}
    for feature in ("owner", "vote", "affinity", "shared", "plain"):
        assert {f"cross {feature} float16 20x17x40", f"cross {feature} bfloat16 20x17x40"} <= held
    assert {"self temperature float16 33x33x40", "50 repeats, bit for bit"} <= held


def test_one_stage_alone_without_diffusers(walk, tmp_path):
    """The other stages' results stay; and what is left out is said."""
    out = shutil.copytree(walk[0], tmp_path / "out")
    given = environment(tmp_path, (*_MISSING, "diffusers"), OUT=str(out))
    result = make_gpu(given, "PART=unet", "ARGS=--toy")
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    stages = json.loads((out / "summary.json").read_text())["stages"]
    assert len(stages) == len(STAGES)
    assert stages["right"]["checks"]
    assert [check["outcome"] for check in stages["unet"]["checks"]] == ["left out"]
    assert "needs diffusers" in result.stdout
    with tarfile.open(out / "results.tar.gz") as archive:
        assert "compile.txt" in archive.getnames()


def test_stages_share_the_time_and_one_alone_has_all_of_it():
    assert chosen("all", MINUTES) == list(STAGES)
    assert chosen("all", 2 * MINUTES)[0].seconds == 2 * STAGES[0].seconds
    assert sum(stage.seconds for stage in STAGES) < 60 * MINUTES - 30  # for imports, a kill and the summary
    (alone,) = chosen("tune", 8)
    assert alone.name == "tune"
    assert alone.seconds > 400
