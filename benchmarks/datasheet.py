"""What the shipped kernels ask of a processor, read from their machine code: no GPU needed.

    python -m benchmarks.datasheet [--set sdxl|candidates|all] [--architecture sm_90 ...] [--json FILE] [--record]

Every kernel is compiled with the tiles that it ships with. The exit code is 1 where a float16 or bfloat16 kernel at
head dim 40, 64 or 80 on NVIDIA spills or computes in float64, does without HGMMA on sm_90, takes exponentials for
more than 80 columns at 77 tokens (160 where it votes), does not fit a processor or, in self-attention, waits for keys
that it has just asked for; and where another row spills more than was recorded for it. What a row cannot say is how
long a kernel takes; `make gpu` measures that.

Columns: `regs` per thread; `spill` bytes of a thread's stack; `smem` bytes of a block; `blocks` that fit on one
processor at once; `matrix`, `ffma`, `mufu`: instructions as written in the program, `ex2` of them exponentials, and
`beside` those that the hot loop issues between an HGMMA and the wait for it, so that both pipes work at once;
`ahead`: how many products the hot loop issues at the least between a load and the wait for it, of how many in one pass
(a cross-attention in one piece has no loop: it issues all of its loads before the first product);
`per score`: instructions of the loops over the scores (of the whole program where there is none), times threads, over
the scores that they compute. Its floor is 4.5: multiply-add, exponential, sum, maximum, and half a conversion.
"""

import argparse
import itertools
import json
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import torch
import triton

from attnmod.benchmarks.launches import Case, Launch, compile_launch, record
from attnmod.benchmarks.machine_code import MachineCode, read
from attnmod.kernels.configs import Tiles

ARCHITECTURES = ("sm_80", "sm_89", "sm_90", "sm_100", "sm_120", "gfx942")
RESULTS = Path(__file__).with_name("results")
FLOOR = 4.5
_F16, _BF16, _F32 = torch.float16, torch.bfloat16, torch.float32

_CANDIDATE_ARCHITECTURES = ("sm_80", "sm_90", "sm_100")
_COMBINATION_ARCHITECTURES = ("sm_90",)
_CANDIDATE_OPTIONS = (
    ("overlap",),
    ("lazy_rescale",),
    ("polynomial",),
    ("skip",),
    ("lazy_rescale", "skip"),
    ("overlap", "polynomial"),
)

# Per processor: 32-bit registers, shared memory, of one block, threads, blocks. CUDA C++ Programming Guide, "Compute
# Capabilities"; AMD "CDNA 3 ISA" (512 registers for each of a SIMD's lanes, 64 KiB of shared memory).
_SPILLED_UNDER_A_LIMIT = 64  # bytes of a thread
_LIMITS = {
    "sm_80": (65536, 164 << 10, 163 << 10, 2048, 32),
    "sm_89": (65536, 100 << 10, 99 << 10, 1536, 24),
    "sm_90": (65536, 228 << 10, 227 << 10, 2048, 32),
    "sm_100": (65536, 228 << 10, 227 << 10, 2048, 32),
    "sm_120": (65536, 100 << 10, 99 << 10, 1536, 24),
    "gfx942": (4 * 64 * 512, 64 << 10, 64 << 10, 2048, 16),
}


def sdxl_cases() -> list[Case]:
    """What SDXL at 1024x1024 launches in fp16: the set that the tests compile."""
    return [
        Case("self", "temperature", _F16, 10, 4096, 4096, 64),
        Case("self", "temperature", _F16, 20, 1024, 1024, 64),
        Case("cross", "vote", _F16, 10, 4096, 77, 64),
        Case("cross", "shared", _F16, 10, 4096, 77, 64),
        Case("cross", "vote", _F16, 20, 1024, 154, 64),
        Case("cross", "vote", _F16, 20, 1024, 231, 64),
    ]


def all_cases() -> list[Case]:
    """Every kernel and tile that ships: SDXL's shapes and SD 1.5's, long prompts, all head dims and dtypes.

    Prompts of 154 and 231 tokens run the same code.
    """
    cases = sdxl_cases()
    cases += [Case("self", "plain", _F16, 10, 4096, 4096, 64)]
    cases += [Case("cross", feature, _F16, 10, 4096, 77, 64) for feature in ("plain", "owner", "affinity")]
    cases += [Case("cross", "shared", _F16, 10, 4096, 512, 64), Case("cross", "vote", _F16, 10, 4096, 512, 64)]
    for head_dim in (40, 80, 128, 160):
        cases += [Case("self", "temperature", _F16, 8, queries, queries, head_dim) for queries in (4096, 1024)]
        cases += [Case("cross", "vote", _F16, 8, 4096, tokens, head_dim) for tokens in (77, 231, 512)]
        cases += [Case("cross", "shared", _F16, 8, 4096, tokens, head_dim) for tokens in (77, 231)]
    for head_dim in (40, 64, 80):
        cases += [Case("self", "temperature", _BF16, 10, 4096, 4096, head_dim)]
        cases += [Case("cross", "vote", _BF16, 10, 4096, tokens, head_dim) for tokens in (77, 231)]
    for head_dim in (64, 80, 160):
        cases += [Case("self", "temperature", _F32, 10, 4096, 4096, head_dim)]
        cases += [Case("cross", "vote", _F32, 10, 4096, tokens, head_dim) for tokens in (77, 231)]
    return cases


def combination_cases() -> list[Case]:
    """Everything that one cross-attention can be asked for, in both forms, dtypes apart: all of it must compile.

    Heads that vote together have one form.
    """
    cases = []
    for feature, tokens in [*itertools.product(("plain", "owner", "vote", "affinity"), (77, 231)), ("shared", 231)]:
        for dtype, weights, hidden, renormalize in itertools.product(
            (_F16, _BF16, _F32), (False, True), (False, True), (False, True)
        ):
            options = {"weights": weights, "hidden": hidden, "renormalize": renormalize}
            cases.append(Case("cross", feature, dtype, 10, 4096, tokens, 64, **options))
    return cases


def candidate_cases() -> list[Case]:
    """Forms of SDXL's largest self-attention for `tune.py` to try; what they would do is read beforehand."""
    plain, fewer = Tiles(64, 128, 4, 2), Tiles(128, 64, 4, 2)
    forms = [plain] + [replace(plain, options=options) for options in _CANDIDATE_OPTIONS]
    forms += [replace(plain, max_registers=168), replace(plain, num_stages=3, options=("overlap",))]
    forms += [fewer, replace(fewer, options=("overlap",))]
    forms += [Tiles(128, 128, 8, 2), Tiles(128, 128, 8, 2, options=("overlap",))]
    forms += [Tiles(64, 64, 4, 3), Tiles(64, 64, 4, 3, options=("overlap",))]
    return [Case("self", "temperature", _F16, 10, 4096, 4096, 64, candidate=form) for form in forms]


def measure(case: Case, architecture: str) -> dict:
    """One row of the sheet."""
    launch = record(case, architecture)
    row = {
        "architecture": architecture,
        "kernel": case.name,
        "heads": case.heads,
        "tiles": _tiles(launch),
        "programs": launch.grid[0],
        "candidate": case.candidate is not None,
    }
    try:
        code = read(compile_launch(launch, architecture))
    except (triton.runtime.errors.OutOfResources, triton.compiler.errors.CompilationError, RuntimeError) as error:
        return row | {"error": " ".join(str(error).split())[:200]}
    row |= asdict(code)
    row["blocks_per_processor"] = blocks_per_processor(architecture, code, _resident_warps(launch))
    row["instructions_per_score"] = round(_per_score(architecture, case, launch, code), 2)
    row["beside_products"] = sum(loop["beside_products"] for loop in code.loops)
    row["columns_of_exponentials"] = round(_columns(architecture, launch, code), 1)
    row["load_distance"] = min((loop["load_distance"] for loop in code.loops), default=-1)
    return row


def blocks_per_processor(architecture: str, code: MachineCode, warps: int) -> int:
    """How many blocks are resident at once; 0 where not even one is."""
    registers, shared, shared_of_block, threads, blocks = _LIMITS[architecture]
    if code.shared_bytes > shared_of_block:
        return 0
    if architecture.startswith("gfx"):
        by_shared = shared // max(code.shared_bytes, 1)
        waves = min(8, 512 // _round_up(code.registers, 8))  # of each of four SIMDs
        return min(blocks, by_shared, waves * 4 // warps)
    by_registers = registers // (_round_up(code.registers * 32, 256) * warps)
    by_shared = shared // (code.shared_bytes + 1024)  # the system keeps 1 KiB of every block
    return min(blocks, by_registers, by_shared, threads // (32 * warps))


def faults(row: dict, ceilings: dict[str, int]) -> list[str]:
    """Why this row fails, in words; empty where it does not."""
    if row.get("candidate"):  # nothing that ships
        return []
    name = f"{row['architecture']} {row['kernel']}"
    if "error" in row:
        return [] if ceilings.get(name) == -1 else [f"{name}: does not compile: {row['error']}"]
    found = []
    if row["blocks_per_processor"] == 0:
        found.append(f"does not fit: {row['shared_bytes']} bytes of shared memory, {row['registers']} registers")
    if not _is_guarded(row):
        ceiling = ceilings.get(name)
        if ceiling is not None and row["spill_bytes"] > ceiling:
            found.append(f"spills {row['spill_bytes']} bytes, where {ceiling} were recorded")
        return [f"{name}: {fault}" for fault in found]
    # a limit of registers is in the table where a measurement weighed a few spilled bytes against another block
    limited = "maxnreg" in row.get("tiles", "")
    if row["spill_bytes"] > (_SPILLED_UNDER_A_LIMIT if limited else 0) or (row["spills"] and not limited):
        found.append(f"spills {row['spill_bytes']} bytes in {row['spills']} instructions")
    if row["fp64"]:
        found.append(f"has {row['fp64']} float64 instructions")
    if row["architecture"] == "sm_90" and not row["matrix"].get("HGMMA"):
        found.append(f"has no HGMMA: {row['matrix'] or 'no matrix instruction at all'}")
    allowed = _allowed_columns(row["kernel"])
    # a thread takes a few more for its rows' own factors: one in ten
    if allowed and row["columns_of_exponentials"] > 1.1 * allowed:
        found.append(f"takes exponentials for {row['columns_of_exponentials']} columns, more than {allowed}")
    if row["kernel"].startswith("self") and row["load_distance"] == 0:
        found.append("waits for keys and values that it has just asked for: no product between a load and its wait")
    if "gluon" in row["tiles"].split() and (waited := _exponentials_after_the_wait(row)):
        found.append(f"{waited} exponentials of the hot loop do not stand between a product's issue and its wait")
    return [f"{name}: {fault}" for fault in found]


def _exponentials_after_the_wait(row: dict) -> int:
    """The hot loops have the fewest: those that repeat what a steady reference was too low for rescale besides."""
    least = min(loop["exponentials"] for loop in row["loops"])
    return max(least - loop["beside_products"] for loop in row["loops"] if loop["exponentials"] == least)


def sheet(cases: list[Case], architectures: list[str], jobs: int) -> list[dict]:
    pairs = [
        (case, architecture)
        for architecture in architectures
        for case in cases
        if architecture in _architectures_of(case)
    ]
    if jobs == 1:
        return [_measure_pair(pair) for pair in pairs]
    with ProcessPoolExecutor(jobs) as pool:
        return list(pool.map(_measure_pair, pairs))


def _architectures_of(case: Case) -> tuple[str, ...]:
    """Candidates and combinations are compiled for fewer."""
    if case.candidate is not None:
        return _CANDIDATE_ARCHITECTURES
    return ARCHITECTURES if case.weights is None else _COMBINATION_ARCHITECTURES


def table(rows: list[dict]) -> str:
    """The sheet as Markdown."""
    columns = ["kernel", "tiles", "regs", "spill", "smem", "blocks", "matrix", "ahead", "ffma"]
    head = "| " + " | ".join([*columns, "mufu (ex2, beside)", "fp64", "per score"]) + " |"
    lines = []
    for architecture, candidate in dict.fromkeys((row["architecture"], row["candidate"]) for row in rows):
        title = f"### {architecture}{': candidates, which do not ship' if candidate else ''}"
        lines += ["", title, "", head, "|---" * head.count(" | ") + "|---|"]
        for row in rows:
            if (row["architecture"], row["candidate"]) != (architecture, candidate):
                continue
            cells = [row["kernel"], row["tiles"]]
            if "error" in row:
                cells += ["does not compile"] + [""] * 9
            else:
                matrix = ", ".join(f"{count} {kind}" for kind, count in row["matrix"].items())
                cells += [str(row[name]) for name in ("registers", "spill_bytes", "shared_bytes")]
                cells += [str(row["blocks_per_processor"]), matrix, _ahead(row), str(row["ffma"])]
                cells += [f"{row['mufu']} ({row['exponentials']}, {row['beside_products']})", str(row["fp64"])]
                cells += [f"{row['instructions_per_score']:.1f}"]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines[1:]) + "\n"


def _ahead(row: dict) -> str:
    loops = [loop for loop in row["loops"] if loop["load_distance"] >= 0]
    return ", ".join(f"{loop['load_distance']} of {loop['products']}" for loop in loops) or "no loop"


def recorded_ceilings(folder: Path = RESULTS) -> dict[str, int]:
    """The most spill bytes that any committed sheet has for a row; -1 where it did not compile."""
    ceilings: dict[str, int] = {}
    for path in sorted(folder.glob("datasheet-triton-*.json")):
        for row in json.loads(path.read_text())["rows"]:
            if row.get("candidate"):
                continue
            name = f"{row['architecture']} {row['kernel']}"
            ceilings[name] = max(ceilings.get(name, -1), row.get("spill_bytes", -1))
    return ceilings


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.datasheet", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--set", choices=_SETS, default="all", help="which kernels (default: all)")
    parser.add_argument("--architecture", nargs="+", choices=ARCHITECTURES, default=list(ARCHITECTURES), metavar="ARCH")
    parser.add_argument("--jobs", type=int, default=2, help="processes that compile (default: 2)")
    parser.add_argument(
        "--record", action="store_true", help="write both files, named by Triton's version, to results/"
    )
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--markdown", type=Path, help="write the table to this file")
    options = parser.parse_args(arguments)

    if options.record:
        version = ".".join(triton.__version__.split(".")[:2])
        options.json = RESULTS / f"datasheet-triton-{version}.json"
        options.markdown = options.json.with_suffix(".md")
    rows = sheet(_SETS[options.set](), options.architecture, options.jobs)
    title = f"Triton {triton.__version__}; no time was measured: these are properties of the machine code."
    print(title, table(rows), sep="\n\n")
    ceilings = recorded_ceilings()
    found = [fault for row in rows for fault in faults(row, ceilings)]
    if options.json:
        record_ = {"triton": triton.__version__, "torch": torch.__version__, "floor_per_score": FLOOR, "rows": rows}
        options.json.write_text(json.dumps(record_, indent=1) + "\n")
    if options.markdown:
        options.markdown.write_text(f"# Datasheet\n\n{title}\n\n{_legend()}\n\n{table(rows)}")
    for fault in found:
        print(fault, file=sys.stderr)
    guarded = sum(_is_guarded(row) for row in rows)
    print(f"{len(rows)} rows, {guarded} of them guarded, {len(found)} faults")
    return 1 if found else 0


def _legend() -> str:
    return (__doc__ or "").split("\n\n", 2)[2].strip()


def _is_guarded(row: dict) -> bool:
    """Whether the row is held to the rules, rather than to what was recorded for it."""
    head_dim = int(row["kernel"].rsplit("x", 1)[1])
    return (
        not row.get("candidate")
        and row["architecture"].startswith("sm_")
        and "float32" not in row["kernel"]
        and head_dim in (40, 64, 80)
    )


def _measure_pair(pair: tuple[Case, str]) -> dict:
    return measure(*pair)


def _warps(launch: Launch) -> int:
    return launch.arguments["num_warps"]


def _resident_warps(launch: Launch) -> int:
    """Of a block: the Gluon kernel with consumers has 4 warps for each, and as many for the one that loads."""
    return _warps(launch) * (launch.arguments.get("CONSUMERS", 0) + 1)


def _tiles(launch: Launch) -> str:
    names = {"BLOCK_M": "m", "BLOCK_N": "n", "num_warps": "warps", "num_stages": "stages", "STAGES": "stages"}
    names |= {"blocks_per_program": "blocks", "CONSUMERS": "consumers"}
    words = ["gluon"] if launch.kernel.is_gluon() else []
    words += [f"{short}={launch.arguments[name]}" for name, short in names.items() if name in launch.arguments]
    words += [
        name for name in ("OVERLAP", "LAZY_RESCALE", "POLYNOMIAL", "SKIP", "STEADY") if launch.arguments.get(name)
    ]
    words += [f"maxnreg={launch.arguments['maxnreg']}"] if "maxnreg" in launch.arguments else []
    return " ".join(words).lower()


def _computed_columns(launch: Launch) -> int:
    """Columns of scores that one pass of the loop, or of the program, computes for its rows."""
    if "BLOCK_N" in launch.arguments:
        return launch.arguments["BLOCK_N"]
    return sum(width for _, width in launch.arguments["TOKEN_TILES"])


def _per_score(architecture: str, case: Case, launch: Launch, code: MachineCode) -> float:
    threads = _warps(launch) * (64 if architecture.startswith("gfx") else 32)
    loops = [loop["instructions"] for loop in code.loops]
    # of self-attention's loops one runs: the other repeats what a steady reference was too low for
    body = (min(loops) if case.op == "self" else sum(loops)) if loops else code.instructions
    return body * threads / (_rows(launch) * _computed_columns(launch))


def _rows(launch: Launch) -> int:
    """The queries of one pass of the loop, or of the program where there is none."""
    if "CONSUMERS" in launch.arguments:  # each has a loop of its own
        return 64
    return launch.arguments["BLOCK_M"] * launch.arguments.get("blocks_per_program", 1)


def _columns(architecture: str, launch: Launch, code: MachineCode) -> float:
    """For how many columns each row takes exponentials: the most that one loop, or the program, does."""
    threads = _warps(launch) * (64 if architecture.startswith("gfx") else 32)
    most = max((loop["exponentials"] for loop in code.loops), default=code.exponentials)
    return most * threads / _rows(launch)


def _allowed_columns(kernel: str) -> int:
    """For how many columns a cross-attention with 77 tokens may take exponentials; 0 where there is no such rule.

    One for each score; the vote has its own, under its own maximum, and so has the sum before mask and weights.
    """
    if not kernel.startswith("cross") or "x77x" not in kernel:
        return 0
    votes = any(feature in kernel.split() for feature in ("vote", "affinity", "shared"))
    return 80 * (1 + votes + ("unnormalised" in kernel))


def _round_up(value: int, granule: int) -> int:
    return -(-value // granule) * granule


_SETS = {
    "sdxl": sdxl_cases,
    "candidates": candidate_cases,
    "combinations": combination_cases,
    "all": lambda: all_cases() + candidate_cases() + combination_cases(),
}

if __name__ == "__main__":
    sys.exit(main())
