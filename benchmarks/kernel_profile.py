"""What a piece of work launches, by PyTorch's profiler: kernels by name, their number and their time on the device."""

from collections import defaultdict
from collections.abc import Callable

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

# name -> (launches, us of all of them)
Kernels = dict[str, tuple[int, float]]


def kernels_of(work: Callable[[], object], device: torch.device) -> Kernels:
    """Of one run of work. On a CPU operators stand in for kernels, with the time that is their own."""
    on_gpu = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as record:
        work()
        if on_gpu:
            torch.cuda.synchronize()
    count: dict[str, int] = defaultdict(int)
    us: dict[str, float] = defaultdict(float)
    for event in record.events() or ():
        if event.device_type != (DeviceType.CUDA if on_gpu else DeviceType.CPU) or event.is_user_annotation:
            continue
        count[event.name] += 1
        us[event.name] += event.time_range.elapsed_us() if on_gpu else event.self_cpu_time_total
    return {name: (count[name], us[name]) for name in count}


def total(kernels: Kernels) -> tuple[int, float]:
    """Launches and us of all."""
    return sum(count for count, _ in kernels.values()), sum(us for _, us in kernels.values())


def longest(kernels: Kernels, number: int = 30) -> str:
    """A table of those that take most of the time."""
    launches, whole = total(kernels)
    lines = [f"{launches} launches, {whole:.0f} us", f"{'us':>10} {'share':>6} {'launches':>8}  name"]
    ranked = sorted(kernels.items(), key=lambda item: -item[1][1])[:number]
    lines += [f"{us:10.1f} {us / max(whole, 1e-9):6.1%} {count:8}  {name}" for name, (count, us) in ranked]
    return "\n".join(lines) + "\n"


def differences(before: Kernels, after: Kernels, number: int = 10) -> list[str]:
    """What takes more and what takes less time, the largest difference first.

    >>> differences({"flash": (2, 30.0), "gemm": (9, 50.0)}, {"ours": (2, 21.0), "gemm": (8, 49.0)})
    ['-30.0 us  flash (2 -> 0)', '+21.0 us  ours (0 -> 2)', '-1.0 us  gemm (9 -> 8)']
    """
    changes = []
    for name in {**before, **after}:
        (count, us), (count_after, us_after) = before.get(name, (0, 0.0)), after.get(name, (0, 0.0))
        changes.append((us_after - us, f"{us_after - us:+.1f} us  {name[:100]} ({count} -> {count_after})"))
    return [line for _, line in sorted(changes, key=lambda change: -abs(change[0]))[:number]]
