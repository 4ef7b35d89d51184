"""Both attention benchmarks and their pictures: `attnmod bench kernels [--toy] [--minutes 5]`."""

import argparse
import importlib.util

from attnmod.benchmarks import bench_cross_attention, bench_self_attention
from attnmod.benchmarks.harness import device_folder


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="attnmod bench kernels", description=__doc__)
    parser.add_argument("--toy", action="store_true", help="tiny shapes: does everything run?")
    parser.add_argument("--minutes", type=float, default=60, help="measure nothing new after so many (default: 60)")
    options = parser.parse_args(arguments)
    passed_on = ["--toy"] * options.toy + ["--minutes", str(options.minutes / 2)]
    bench_self_attention.main(passed_on)
    bench_cross_attention.main(passed_on)
    if importlib.util.find_spec("matplotlib") is None:
        print("no pictures: matplotlib is not installed (pip install 'attnmod[bench]')")
        return 0
    from attnmod.benchmarks.plots import draw

    for path in draw(device_folder()):
        print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
