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


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("out")
    environment = {**os.environ, "OUT": str(folder), "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    for part in ("test", "tune", "kernels", "unet", "unet-full"):
        result = subprocess.run(
            [sys.executable, "-m", "benchmarks.gpu", "--toy", "--part", part],
            env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert result.returncode == 0, f"{part}: {result.stdout[-2000:]}{result.stderr[-2000:]}"
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["parts"][part]["ok"]
        assert summary["toy"]
    return folder


def test_every_part_saves_rows(out):
    for name in ("test", "tune", "kernels", "unet", "unet-full", "self_attention", "cross_attention"):
        record = json.loads((out / "cpu" / f"{name}.json").read_text())
        assert record["rows"], name
        assert record["machine"]["torch"] == torch.__version__
    with tarfile.open(out / "results.tar.gz") as archive:
        assert "cpu/unet-full.json" in archive.getnames()


def test_the_unet_ran_both_ways(out):
    rows = json.loads((out / "cpu" / "unet.json").read_text())["rows"]
    timed = {(row["provider"], row["cache"]) for row in rows if row["p50"] is not None}
    assert {("stock", "eager"), ("modulated", "eager"), ("stock", "compiled"), ("modulated", "compiled")} <= timed


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
