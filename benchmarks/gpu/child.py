"""Runs stages one after the other and sends what they find, a JSON object a line, to a pipe of the supervisor.

python -m attnmod.benchmarks.gpu.child '{"stages": [["right", 30, "MODULE"]], "pipe": 3, ...}'
"""

import faulthandler
import gc
import importlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

LOST = 3  # exit code: the device is beyond use for this process, the stage may go on in another


def main() -> int:
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)  # the supervisor asks where a stage hangs
    order = json.loads(sys.argv[1])
    _end_with(os.getppid())
    pipe = os.fdopen(order["pipe"], "w", buffering=1, encoding="utf-8")
    lock = threading.Lock()

    def send(event: dict) -> None:
        with lock:
            pipe.write(json.dumps(event, default=str) + "\n")

    import torch

    from attnmod.benchmarks.gpu.compilations import Compilations
    from attnmod.benchmarks.gpu.report import TABLE, DeviceLost, Report
    from attnmod.benchmarks.harness import machine, results_in, time_limit

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    toy = order["toy"] or device.type != "cuda"
    folder = Path(order["folder"])
    try:
        facts = machine()
    except Exception as error:  # the stages can tell more than who they are
        facts = {"device": device.type, "error": str(error)}
    send({"event": "started", "machine": facts, "toy": toy, "time": time.time()})
    if (folder / TABLE).exists():
        _install(folder / TABLE)
    done = frozenset(order["done"])
    for name, seconds, module in order["stages"]:
        send({"event": "begin", "stage": name, "time": time.time()})
        error, lost = None, False
        report = Report(
            name, seconds, send, toy=toy, more=order["more"], device=device, folder=folder, done=done
        )  # fmt: skip
        try:
            with time_limit(seconds), results_in(folder), Compilations() as compiled:
                importlib.import_module(module).run(report)
            if compiled.misses and name != "compile":
                spent, names = sum(miss[1] for miss in compiled.misses), {miss[0] for miss in compiled.misses}
                ours = [name for name in names if "attention" in name]
                report.say(
                    f"Triton had to compile {len(compiled.misses)} kernels here, {spent:.1f} s"
                    f" ({', '.join(ours) if ours else 'none of ours'})"
                )
                report.save_text(f"{name}-compiled.txt", "".join(f"{miss}\n" for miss in compiled.misses))
            report.assert_device(name)
        except DeviceLost:
            lost = True
        except Exception:
            error = traceback.format_exc()
            try:
                report.assert_device(name)
            except DeviceLost:
                lost = True
        send({"event": "end", "stage": name, "error": error, "lost": lost, "time": time.time()})
        if lost:
            return LOST
        done = frozenset()
        if device.type == "cuda":  # what this stage held is the next one's, or a program's that it starts
            gc.collect()
            torch.cuda.empty_cache()
    return 0


def _install(table: Path) -> None:
    """The winners of a tuning that an earlier child made."""
    from attnmod.kernels import tile_table

    try:
        tile_table.table().install(tile_table.read(table))
    except Exception:
        traceback.print_exc()


def _end_with(parent: int) -> None:
    """Ends this process when its supervisor is gone, however that came about."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # no destructor of a library that a broken device can hang
