"""Stage `tune`: the tiles of head dim 64. The winners are installed, so that the stages after it use them, and written
as a table for whoever wants to keep them. With --more: SD 1.5's head dims, too."""

import torch

from attnmod.benchmarks import tune
from attnmod.benchmarks.gpu.report import TABLE, LeftOut, Report
from attnmod.benchmarks.harness import Row
from attnmod.benchmarks.launches import Case
from attnmod.kernels import tile_table


def run(report: Report) -> None:
    path = report.folder / TABLE
    before = tile_table.read(path) if path.exists() else []  # by the child before this one
    entries = {entry.key: entry for entry in before}
    left = [search for search in tune.searches(toy=report.toy, more=report.more) if not report.already(search.name)]
    for search, share in tune.with_shares(left):
        with report.check(search.name) as note, share:
            if report.device.type != "cuda" and not tune.interpreted():
                raise LeftOut("needs CUDA, or Triton's interpreter for its flow")
            if report.seconds_left() < 0:
                raise LeftOut("no time left")
            found = tune.tune(
                search, report.device, lambda row: _take(report, row), toy=report.toy,
                measured=tune.where_it_runs(report.device),
            )  # fmt: skip
            if found is None:
                raise AssertionError("no candidate ran")
            entry, told = found
            tile_table.table().install([entry])
            entries[entry.key] = entry
            tile_table.write(path, entries.values(), tune.device_name(report.device))
            note(told)
            report.say(f"{search.name}: {told}")


def cases(toy: bool, more: bool, architecture: str) -> list[Case]:
    return tune.cases(toy=toy, more=more)


def _take(report: Report, row: Row) -> None:
    report.row(row)
    if row.note.startswith("not run: ") and report.device.type == "cuda":
        torch.cuda.synchronize()  # a device that was lost ends this search here, not at every candidate after
