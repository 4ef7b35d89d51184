"""Stage "machine": what is here, its two ceilings, and what stock's attention launches.

The ceilings are measured, not read off a datasheet: a large copy (bytes read and written) and a large product. Clock,
power and temperature are sampled by the supervisor all the time, see `clocks.py`. Nothing here changes a setting.
"""

import importlib
import importlib.metadata
import itertools
import os
import platform
import shutil
import statistics
import subprocess
from collections.abc import Callable

import torch
import torch.nn.functional as F

from attnmod.benchmarks.gpu.report import LeftOut, Report
from attnmod.benchmarks.harness import Row
from attnmod.benchmarks.shapes import Shape, random_operands, shapes

_PACKAGES = ("torch", "triton", "diffusers", "transformers", "numpy")
TOOLS = ("nvidia-smi", "ncu", "compute-sanitizer", "gcc", "nvcc")


def run(report: Report) -> None:
    with report.check("versions"):
        report.say(_versions())
    with report.check("tools"):
        found = {tool: shutil.which(tool) for tool in TOOLS}
        report.say("tools: " + ", ".join(f"{tool} {'yes' if path else 'MISSING'}" for tool, path in found.items()))
        if found["nvidia-smi"]:
            report.save_text("nvidia-smi.txt", _output("nvidia-smi", "-q"))
    with report.check("device"):
        report.say(_device(report.device))
    for name, measure in (("copy", _copy), ("product", _product), ("what stock's SDPA launches", _stock_kernels)):
        with report.check(name):
            if report.device.type != "cuda":
                raise LeftOut("needs CUDA")
            measure(report)


def _versions() -> str:
    versions = [f"python {platform.python_version()}"]
    for package in _PACKAGES:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"{package} {_version_on_the_path(package)}")
    versions.append(f"CUDA {torch.version.cuda}")
    if torch.version.cuda:
        versions.append(f"cuDNN {torch.backends.cudnn.version()}")
    return ", ".join(versions)


def _version_on_the_path(package: str) -> str:
    """Of a package that lies unpacked on PYTHONPATH without its metadata."""
    try:
        return getattr(importlib.import_module(package), "__version__", "without a version")
    except ImportError:
        return "MISSING"


def _device(device: torch.device) -> str:
    host = f"{os.cpu_count()} CPUs"
    if device.type != "cuda":
        return f"no CUDA device; {host}"
    facts = torch.cuda.get_device_properties(device)
    l2 = getattr(facts, "L2_cache_size", None)
    return (
        f"{facts.name}: compute capability {facts.major}.{facts.minor}, {facts.multi_processor_count} processors, "
        f"{facts.total_memory / 2**30:.0f} GiB, L2 {'?' if l2 is None else f'{l2 / 2**20:.0f} MiB'}; {host}"
    )


def _copy(report: Report) -> None:
    size = 1 << (20 if report.toy else 30)
    source = torch.randint(0, 256, (size,), dtype=torch.uint8, device=report.device)
    target = torch.empty_like(source)
    times = _milliseconds(lambda: target.copy_(source), 10)
    rate = 2 * size / statistics.median(times) / 1e9
    report.row(_ceiling("copy", f"{size >> 20} MiB", "uint8", times, f"{rate:.2f} TB/s read and written"))
    report.say(f"ceiling of a copy: {rate:.2f} TB/s, read and written together")


def _product(report: Report) -> None:
    size = 256 if report.toy else 8192
    a, b = (torch.randn(size, size, device=report.device, dtype=torch.bfloat16) for _ in range(2))
    times = _milliseconds(lambda: torch.mm(a, b), 10)
    rate = 2 * size**3 / statistics.median(times) / 1e9
    report.row(_ceiling("product", f"{size}^3", "bfloat16", times, f"{rate:.0f} TFLOP/s"), flops=2 * size**3)
    report.say(f"ceiling of a product: {rate:.0f} TFLOP/s in bf16, {size} cubed")


def _ceiling(name: str, shape: str, dtype: str, times: list[float], note: str) -> Row:
    deciles = statistics.quantiles(times, n=10)
    return Row(
        op="ceiling", provider=name, shape=shape, dtype=dtype, cache="-",
        p20=deciles[1], p50=statistics.median(times), p80=deciles[7], peak_mb=None, error=None, note=note,
    )  # fmt: skip


def _milliseconds(call: Callable[[], object], repeats: int) -> list[float]:
    """Of calls of milliseconds each, whose launch does not count beside them."""
    for _ in range(3):
        call()
    events = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
    events[0].record()
    for event in events[1:]:
        call()
        event.record()
    torch.cuda.synchronize()
    return [start.elapsed_time(end) for start, end in itertools.pairwise(events)]


def _stock_kernels(report: Report) -> None:
    """Which backend torch takes by itself at SDXL's shapes: the names of the kernels say it."""
    large, small = [Shape("toy", 2, 2, 64, 64)] * 2 if report.toy else shapes()[:2]
    for shape, tokens in ((large, None), (small, None), (large, 77), (small, 77)):
        if report.seconds_left() < 1:
            report.say("what stock's SDPA launches: out of time for the rest")
            return
        operands = random_operands(shape, tokens, torch.float16, report.device, copies=1)[0]
        names = kernel_names(lambda operands=operands: F.scaled_dot_product_attention(*operands))
        report.say(f"stock SDPA {shape.queries}x{tokens or shape.queries}: {', '.join(n[:90] for n in names)}")


def kernel_names(call: Callable[[], object]) -> list[str]:
    """What a call launches on the device, in order, from torch's profiler."""
    call()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        call()
        torch.cuda.synchronize()
    on_device = torch.autograd.DeviceType.CUDA
    names = [event.name for event in profile.events() or () if event.device_type == on_device]
    return list(dict.fromkeys(names)) or ["the profiler saw nothing"]


def _output(*command: str) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    return result.stdout + result.stderr
