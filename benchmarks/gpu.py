"""Everything that only a GPU can tell, in parts that can run alone: `make gpu [PART=...]`.

    test        the kernels on this device against float64, on fresh random inputs; compute-sanitizer where it is there
    tune        searches tiles and writes the winners as a patch to kernels/configs.py
    kernels     both attention benchmarks
    unet        one UNet step, stock against modulated, at a small size
    unet-full   the same at SDXL's size

Each part is saved as soon as it is done, in benchmarks/results/<device>/. With OUT set, everything goes to one
results.tar.gz and one summary.json there; parts that were saved before are kept. A part that fails does not stop the
others; the exit code is then 1. Each has its share of eight minutes, after which it measures nothing new: what is left
out is a row that says so. On a CPU, or with --toy, the whole control flow runs at toy sizes: those times mean nothing.

Needed are torch, triton and diffusers; neither pytest nor spaCy nor a network.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import torch

from attnmod.benchmarks.harness import (
    OUT_OF_TIME,
    Row,
    device_folder,
    machine,
    out_of_time,
    print_rows,
    results_in,
    save,
    seconds_left,
    time_limit,
)

PARTS = ("test", "tune", "kernels", "unet", "unet-full")
# Their shares of the time; a part that runs alone has all of it, which the test, the tuning and the kernels can use.
_SECONDS = {"test": 70, "tune": 110, "kernels": 90, "unet": 15, "unet-full": 195}


def run_tests(toy: bool) -> list[Row]:
    """The kernels' own checks, on shapes of a UNet and with another seed every time; the seed is in the row."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    backend = "triton" if device.type == "cuda" or os.environ.get("TRITON_INTERPRET") == "1" else "sdpa"
    shapes = [(2, 2, 33, 33, 40)] if toy else [(2, 4, 1024, 1024, 64), (2, 10, 1024, 77, 64), (2, 2, 4096, 4096, 40)]
    shapes += [] if toy else [(1, 4, 1000, 77, 80), (2, 4, 256, 231, 160), (1, 2, 1024, 512, 64)]
    rows, failures = [], []
    if device.type == "cuda":
        for name, check in (("no sync, no memory but the outputs", _check_calls), ("CUDA graph", _check_graph)):
            check(device)
            rows.append(Row("test", backend, name, "float16", "-", None, None, None, None, None, "ok"))
    for shape in shapes:
        for dtype in (torch.float16, torch.bfloat16, torch.float32):
            seed, name = random.SystemRandom().randrange(1 << 30), "x".join(str(size) for size in shape)
            note = OUT_OF_TIME
            if not out_of_time():
                try:
                    _check_shape(shape, dtype, backend, device, seed)
                    note = f"seed {seed}"
                except AssertionError as error:  # the other shapes are looked at all the same
                    note = f"FAILED with seed {seed}: {error}"
                    failures.append(f"{name} {dtype} {note}")
            rows.append(Row("test", backend, name, str(dtype)[6:], "-", None, None, None, None, None, note))
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer and device.type == "cuda" and not toy:
        rows.append(Row("sanitizer", backend, "small", "-", "-", None, None, None, None, None, _sanitize(sanitizer)))
    if failures:
        save("test", rows, toy=toy)
        raise AssertionError("; ".join(failures))
    return rows


def _check_shape(shape: tuple[int, ...], dtype: torch.dtype, backend: str, device: torch.device, seed: int) -> None:
    from attnmod.benchmarks.bench_cross_attention import controls
    from attnmod.benchmarks.shapes import Shape
    from tests.kernels.budget import check_cross_attention, check_self_attention, random_inputs

    batch, heads, queries, tokens, head_dim = shape
    q, k, v = random_inputs(batch, heads, queries, tokens, head_dim, dtype, device, seed=seed)
    check_self_attention(q, k, v, backend, temperature=torch.linspace(0.3, 1.0, batch, device=device))
    if tokens <= 512:
        options = controls(Shape("test", batch, heads, queries, head_dim), tokens, 5, device)
        for share_heads in (False, True):
            check_cross_attention(q, k, v, backend, **options, share_heads=share_heads)


def _calls(device: torch.device) -> tuple[list[Callable[[], list[torch.Tensor]]], torch.Tensor]:
    """Calls of both ops whose temperature and hidden weight are the tensor that comes with them."""
    from attnmod.benchmarks.bench_cross_attention import controls
    from attnmod.benchmarks.shapes import Shape, random_operands

    shape = Shape("test", 2, 4, 1024, 64)
    value = torch.tensor([0.5, 0.7], device=device)
    (q, k, v), (_, text_k, text_v) = (random_operands(shape, n, torch.float16, device, copies=1)[0] for n in (None, 77))
    options = controls(shape, 77, 4, device) | {"hidden_weight": value, "return_owner": True, "backend": "triton"}
    ops = torch.ops.attnmod
    return [
        lambda: [ops.self_attention(q, k, v, value, None, "triton")],
        lambda: ops.cross_attention(q, text_k, text_v, **options),
        lambda: ops.cross_attention(q, text_k, text_v, **options, share_heads=True, return_affinity=True),
    ], value


def _check_calls(device: torch.device) -> None:
    """Nothing waits for the device, and the outputs are all that is allocated."""
    for call in _calls(device)[0]:
        call()  # compiles
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        torch.cuda.set_sync_debug_mode("error")
        try:
            results = call()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert torch.cuda.max_memory_allocated() == torch.cuda.memory_allocated(), "something else was allocated"
        rounding = 512 * len(results)
        assert torch.cuda.memory_allocated() - before <= sum(x.nbytes for x in results) + rounding


def _check_graph(device: torch.device) -> None:
    """A captured call follows the values of its tensors."""
    calls, value = _calls(device)
    for call in calls:
        call()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = call()
        for change in (0.3, 0.9):
            value.fill_(change)
            graph.replay()
            assert all(torch.equal(a, b) for a, b in zip(captured, call(), strict=True)), f"replay at {change}"


def _sanitize(sanitizer: str) -> str:
    if seconds_left() < 60:
        return OUT_OF_TIME
    command = [sanitizer, "--error-exitcode", "9", sys.executable, "-m", "benchmarks.gpu", "--part", "test", "--toy"]
    with tempfile.TemporaryDirectory() as folder:
        try:
            result = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=min(seconds_left(), 300),
                env={**os.environ, "OUT": folder},
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return OUT_OF_TIME
    if result.returncode:
        raise RuntimeError(f"compute-sanitizer: {(result.stdout + result.stderr)[-2000:]}")
    return "no error"


def run_tune(toy: bool) -> list[Row]:
    from attnmod.benchmarks import tune
    from attnmod.kernels.configs import architecture

    if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
        return [Row("tune", "-", "-", "-", "-", None, None, None, None, None, "not run: needs CUDA or the interpreter")]
    rows, winners = tune.run(toy)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(tune.write_patch(winners, architecture(device)))
    return rows


def run_kernels(toy: bool) -> list[Row]:
    from attnmod.benchmarks import bench_cross_attention, bench_self_attention

    with time_limit(seconds_left() / 2):
        rows = bench_self_attention.run(toy)
    save("self_attention", rows, toy=toy)
    cross = bench_cross_attention.run(toy)
    save("cross_attention", cross, toy=toy)
    return rows + cross


def run_unet(toy: bool) -> list[Row]:
    from attnmod.benchmarks.unet_step import run

    return run(full=False, variants=("eager", "graph", "compiled") if toy else ("eager", "graph"))


def run_unet_full(toy: bool) -> list[Row]:
    from attnmod.benchmarks.unet_step import run

    return run(full=not toy)


_RUNNERS: dict[str, Callable[[bool], list[Row]]] = {
    "test": run_tests,
    "tune": run_tune,
    "kernels": run_kernels,
    "unet": run_unet,
    "unet-full": run_unet_full,
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--part", choices=("all", *PARTS), default="all")
    parser.add_argument("--toy", action="store_true", help="toy sizes: does everything run?")
    parser.add_argument("--minutes", type=float, default=8, help="what all parts together may take (default: 8)")
    options = parser.parse_args(arguments)
    toy = options.toy or not torch.cuda.is_available()
    parts = PARTS if options.part == "all" else (options.part,)
    scale = 60 * options.minutes / sum(_SECONDS[part] for part in parts)
    with _results_folder():
        summary = _read_summary()
        for part in parts:
            start = time.perf_counter()
            try:
                with time_limit(_SECONDS[part] * scale):
                    rows = _RUNNERS[part](toy)
                print_rows(rows)
                save(part, rows, toy=toy)
                outcome = {"ok": True, "rows": [asdict(row) for row in rows]}
            except Exception:  # the next part may still tell something
                traceback.print_exc()
                outcome = {"ok": False, "error": traceback.format_exc()[-4000:]}
            summary[part] = outcome | {"toy": toy, "seconds": round(time.perf_counter() - start, 1)}
            _write_summary(summary)
            print(f"-- {part}: {'ok' if outcome['ok'] else 'FAILED'} in {summary[part]['seconds']} s", flush=True)
    return 0 if all(summary[part]["ok"] for part in parts) else 1


@contextlib.contextmanager
def _results_folder() -> Iterator[None]:
    """With OUT set the files are kept elsewhere, for OUT is to hold but an archive of them and the summary."""
    if not os.environ.get("OUT"):
        yield
        return
    archive = Path(os.environ["OUT"]) / "results.tar.gz"
    with tempfile.TemporaryDirectory() as folder, results_in(Path(folder)):
        if archive.exists():
            with tarfile.open(archive) as earlier:
                earlier.extractall(folder, filter="data")
        yield


def _summary_path() -> Path:
    return (Path(os.environ["OUT"]) if os.environ.get("OUT") else device_folder()) / "summary.json"


def _read_summary() -> dict[str, dict]:
    """The parts that ran before."""
    path = _summary_path()
    return json.loads(path.read_text())["parts"] if path.exists() else {}


def _write_summary(summary: dict) -> None:
    """After every part, so that what was measured is kept if a later part takes the machine down."""
    path = _summary_path()
    path.write_text(json.dumps({"machine": machine(), "parts": summary}, indent=1) + "\n")
    if os.environ.get("OUT"):
        unfinished = path.with_name("results.tar.gz.part")
        with tarfile.open(unfinished, "w:gz") as archive:
            archive.add(device_folder(), arcname=device_folder().name)
        unfinished.replace(path.with_name("results.tar.gz"))


if __name__ == "__main__":
    sys.exit(main())
