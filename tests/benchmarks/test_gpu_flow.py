"""`make gpu` runs its whole control flow on a CPU at toy sizes: no minute on a GPU is lost to a typing error."""

import ast
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch

from benchmarks.harness import measure, relative_error

ROOT = Path(__file__).parents[2]


PARTS = ("test", "tune", "kernels", "unet", "unet-full")


def run_gpu(out: Path, *arguments: str, **environment: str) -> tuple[int, dict]:
    """The exit code of `python -m benchmarks.gpu` at toy sizes without a device, and its summary."""
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--toy", *arguments],
        env={**os.environ, "OUT": str(out), "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", **environment},
        cwd=ROOT, capture_output=True, text=True, timeout=550, check=False,
    )  # fmt: skip
    path = out / "summary.json"
    assert path.exists(), result.stdout[-2000:] + result.stderr[-2000:]
    return result.returncode, json.loads(path.read_text())["parts"]


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    """Every part after the other, as `make gpu` runs them; then the last one again, alone."""
    folder = tmp_path_factory.mktemp("out")
    for arguments in ((), ("--part", "unet-full")):
        code, parts = run_gpu(folder, "--minutes", "60", *arguments)
        assert code == 0, {name: part.get("error") for name, part in parts.items()}
        assert tuple(parts) == PARTS
        assert all(part["ok"] and part["toy"] for part in parts.values())
    assert sorted(path.name for path in folder.iterdir()) == ["results.tar.gz", "summary.json"]
    with tarfile.open(folder / "results.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder


def test_every_part_saves_rows(out):
    for name in (*PARTS, "self_attention", "cross_attention"):
        record = json.loads((out / "cpu" / f"{name}.json").read_text())
        assert record["rows"], name
        assert record["machine"]["torch"] == torch.__version__


def test_every_run_draws_new_inputs(out, tmp_path):
    _, parts = run_gpu(tmp_path, "--part", "test", "--minutes", "60")
    rows = [json.loads((out / "cpu" / "test.json").read_text())["rows"], parts["test"]["rows"]]
    seeds = [{row["note"] for row in some} for some in rows]
    assert all(note.startswith("seed ") for note in seeds[0] | seeds[1])
    assert not seeds[0] & seeds[1]


def test_no_time_left_is_a_row(tmp_path):
    code, parts = run_gpu(tmp_path, "--part", "kernels", "--minutes", "0")
    assert code == 0
    assert {row["note"] for row in parts["kernels"]["rows"]} == {"not run: out of time"}


def test_a_part_that_fails_is_told_and_stops_no_other(monkeypatch, tmp_path):
    from benchmarks import gpu

    def fails(toy):
        raise RuntimeError("it is a test")

    monkeypatch.setenv("OUT", str(tmp_path))
    monkeypatch.setattr(gpu, "PARTS", ("test", "tune"))
    monkeypatch.setattr(gpu, "_RUNNERS", {"test": fails, "tune": lambda toy: []})
    assert gpu.main(["--toy"]) == 1
    parts = json.loads((tmp_path / "summary.json").read_text())["parts"]
    assert not parts["test"]["ok"]
    assert "it is a test" in parts["test"]["error"]
    assert parts["tune"]["ok"]


def test_the_unet_ran_both_ways(out):
    rows = json.loads((out / "cpu" / "unet.json").read_text())["rows"]
    timed = {(row["provider"], row["cache"]) for row in rows if row["p50"] is not None}
    assert {("stock", "eager"), ("modulated", "eager"), ("stock", "compiled"), ("modulated", "compiled")} <= timed
    changes = {(row["provider"], row["cache"]): row["note"] for row in rows}
    assert changes["modulated", "eager"] != "differs by 0 from stock"
    assert changes["stock", "eager"] == "differs by 0 from stock"


def test_no_provider_missed_its_budget(out):
    for name in ("self_attention", "cross_attention", "tune"):
        rows = json.loads((out / "cpu" / f"{name}.json").read_text())["rows"]
        assert not [row for row in rows if row["note"].startswith("not timed")]
        ours = [row for row in rows if row["provider"].startswith("attnmod")]
        assert ours
        assert all(row["error"] <= 1 and row["p50"] for row in ours), name


def test_a_gpu_machine_needs_little(tmp_path):
    """The UNet's part without spaCy, transformers, pytest and their like: a machine with torch, triton, diffusers."""
    code = (
        "import sys\n"
        "missing = {'spacy', 'transformers', 'accelerate', 'peft', 'pytest', 'matplotlib', 'torchvision'}\n"
        "class Blocked:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in missing:\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Blocked())\n"
        "import importlib.util\n"
        "find_spec = importlib.util.find_spec\n"  # whoever asks whether they are there hears no
        "importlib.util.find_spec = lambda name, package=None: (\n"
        "    None if name.split('.')[0] in missing else find_spec(name, package))\n"
        "from benchmarks.gpu import main\n"
        "sys.exit(max(main(['--toy', '--part', part]) for part in ('unet', 'test')))\n"
    )
    environment = {**os.environ, "OUT": str(tmp_path), "TRITON_INTERPRET": "0", "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    rows = json.loads((tmp_path / "summary.json").read_text())["parts"]["unet"]["rows"]
    assert [row["cache"] for row in rows if row["p50"] is None] == ["graph", "graph"]  # which need CUDA


def test_the_patch_fits_configs(out):
    patch = (out / "cpu" / "configs.patch").read_text()
    assert '+    ("cpu", 64, "prompt"): Tiles(' in patch
    assert "+MEASURED" in patch


def test_the_patched_table_is_python():
    from attnmod.kernels.configs import Tiles
    from benchmarks.tune import patched_configs

    winners = {
        ("self", 64, "long"): "sdpa",
        ("self", 64, "short"): Tiles(64, 64, 4, 3),
        ("cross", 64, "prompt"): Tiles(64, 0, 4, 1),
    }
    scope = {"__name__": "patched"}
    text = patched_configs(winners, "sm_90")
    ast.parse(text)
    sys.modules["patched"] = type(sys)("patched")
    exec(compile(text, "configs.py", "exec"), scope)
    assert "sm_90" in scope["MEASURED"]
    assert scope["sdpa_is_faster"]("sm_90", 64, 4096)
    assert not scope["sdpa_is_faster"]("sm_90", 64, 1024)
    assert scope["self_attention_tiles"]("sm_90", 64, 1024, 2).num_stages == 3
    assert text.count('("sm_90", 64, "prompt")') == 1


def test_a_wrong_provider_is_not_timed():
    exact = torch.randn(4, 4, dtype=torch.float64)
    low = exact.float() * (1 + 1e-7)
    right = measure("op", "right", "4x4", lambda i: exact.float(), exact, low, budget_ms=1)
    wrong = measure("op", "wrong", "4x4", lambda i: exact.float() + 0.01, exact, low, budget_ms=1)
    broken = measure("op", "broken", "4x4", lambda i: 1 / 0, exact, low, budget_ms=1)
    assert right.p50 is not None
    assert wrong.p50 is None
    assert "not timed" in wrong.note
    assert broken.p50 is None
    assert "ZeroDivisionError" in broken.note
    assert relative_error(torch.full_like(low, float("nan")), low, exact) != 0
