"""Reads compiled kernels: what a processor would be asked to execute, from SASS or AMD's assembly."""

import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

from triton import knobs

_FLOAT64 = re.compile(r"^(DADD|DMUL|DFMA|DSETP|DMNMX|DMMA|v_\w+_f64\w*)")
_MATRIX = re.compile(r"^(HGMMA|HMMA|UTCHMMA|UTCOMMA|OMMA|v_mfma_\w+|v_smfmac_\w+)")
_EXPONENTIAL = re.compile(r"^(MUFU\.EX2|v_exp_f32)")
_SPECIAL = re.compile(r"^(MUFU|v_exp_|v_log_|v_rcp_|v_rsq_|v_sqrt_)")
_MULTIPLY_ADD = re.compile(r"^(FFMA|v_fma_f32|v_fmac_f32|v_pk_fma_f32|v_fmamk_f32|v_fmaak_f32)")
_END = ("EXIT", "s_endpgm")
_ASYNCHRONOUS_MATRIX, _MATRIX_WAIT = re.compile(r"^HGMMA"), re.compile(r"^WARPGROUP\.DEPBAR\.LE gsb0, 0x0")
_REGISTER = re.compile(r"\bR\d+")
_LOAD = re.compile(r"^LDG\.E(?:\.\w+)*?(?:\.(64|128))?(?:\.\w+)* R(\d+)")
_GROUP_WAIT = re.compile(r"^DEPBAR\.LE SB0, (0x[0-9a-f]+)")
_AMD_LOAD, _AMD_WAIT = re.compile(r"^(global|buffer|flat)_load_"), re.compile(r"^s_waitcnt .*?vmcnt\((\d+)\)")
_ITERATIONS = 4  # of a loop, until what is under way at its top is what always is
_SPILL = re.compile(r"^(LDL|STL|scratch_|buffer_(load|store)_\w+ .*off, s\[0:3\])")


class _Instruction(NamedTuple):
    address: int
    text: str
    target: int | None  # of a branch


@dataclass(frozen=True)
class MachineCode:
    """Counts are of instructions as written, not as executed; a warp executes each for all of its threads."""

    registers: int
    spill_bytes: int
    spills: int
    shared_bytes: int
    instructions: int
    matrix: dict[str, int]
    exponentials: int
    mufu: int
    ffma: int
    fp64: int
    # One entry for every innermost loop that takes exponentials: how many, how many of them stand between the issue of
    # an HGMMA and the wait for it, all instructions and all products of its body, and how many of those products are
    # issued, at the least, between a load of the loop and the wait for it (-1 where it loads nothing): its distance.
    loops: list[dict[str, int]]


def read(compiled) -> MachineCode:
    return _read_amd(compiled) if "amdgcn" in compiled.asm else _read_nvidia(compiled)


def _read_nvidia(compiled) -> MachineCode:
    cuobjdump = knobs.nvidia.cuobjdump.path
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage, sass = (
            subprocess.run([cuobjdump, flag, file.name], capture_output=True, text=True, check=True).stdout
            for flag in ("--dump-resource-usage", "-sass")
        )
    instructions = []
    for address, predicate, text in re.findall(r"/\*([0-9a-f]{4,})\*/\s+(@!?U?P\w+\s+)?([^;]+);", sass):
        if predicate and text.startswith("EXIT"):
            text = "conditional " + text
        target = re.search(r"0x([0-9a-f]+)", text) if text.startswith("BRA") else None
        instructions.append(_Instruction(int(address, 16), text, int(target[1], 16) if target else None))
    registers, stack = (int(_find(rf"{name}:(\d+)", usage)) for name in ("REG", "STACK"))
    return _count(instructions, registers, stack, compiled.metadata.shared)


def _read_amd(compiled) -> MachineCode:
    assembly = compiled.asm["amdgcn"]
    instructions, labels, branches = [], {}, []
    for line in assembly.splitlines():
        text = line.split(";")[0].split("//")[0].strip()
        if label := re.match(r"(\.?\w+):", text):
            labels[label[1]] = len(instructions)
        elif re.match(r"(v_|s_|ds_|buffer_|global_|flat_|scratch_)\w+", text):
            branches.append(text.split()[-1] if text.startswith(("s_cbranch", "s_branch")) else None)
            instructions.append(text)
    code = [
        _Instruction(i, text, labels.get(branch) if branch else None)
        for i, (text, branch) in enumerate(zip(instructions, branches, strict=True))
    ]
    registers = int(_find(r"\.vgpr_count:\s+(\d+)", assembly))  # includes the accumulators' half of the file
    scratch = int(_find(r"\.private_segment_fixed_size:\s+(\d+)", assembly))
    return _count(code, registers, scratch, compiled.metadata.shared)


def _count(code: list[_Instruction], registers: int, spill_bytes: int, shared: int) -> MachineCode:
    def number(pattern: re.Pattern, instructions=code) -> int:
        return sum(pattern.match(instruction.text) is not None for instruction in instructions)

    matrix = Counter(match[1].split(".")[0] for i in code if (match := _MATRIX.match(i.text)))
    return MachineCode(
        registers=registers,
        spill_bytes=spill_bytes,
        spills=number(_SPILL),
        shared_bytes=shared,
        instructions=sum(not instruction.text.startswith(("NOP", "s_nop")) for instruction in code),
        matrix=dict(matrix),
        exponentials=number(_EXPONENTIAL),
        mufu=number(_SPECIAL),
        ffma=number(_MULTIPLY_ADD),
        fp64=number(_FLOAT64),
        loops=[
            {
                "exponentials": number(_EXPONENTIAL, body),
                "beside_products": _beside_products(body),
                "instructions": len(body),
                "products": number(_MATRIX, body),
                "load_distance": load_distance(body, code),
            }
            for body in _innermost_loops(code)
            if number(_EXPONENTIAL, body)
        ],
    )


def _beside_products(body: list[_Instruction]) -> int:
    """Exponentials that are issued while products are under way, also those that the iteration before has issued."""
    under_way, found = False, 0
    for iteration in range(2):
        for instruction in body:
            if _ASYNCHRONOUS_MATRIX.match(instruction.text):
                under_way = True
            elif _MATRIX_WAIT.match(instruction.text):
                under_way = False
            elif iteration == 1 and _EXPONENTIAL.match(instruction.text):
                found += under_way
    return found


def load_distance(body: list[_Instruction], code: list[_Instruction]) -> int:
    """The fewest products that a loop issues between a load from global memory and the wait for it; -1 without a load.

    Zero is a loop that waits for what it has just asked for. Loads are asynchronous copies, whose groups are waited for
    in order (LDGDEPBAR and DEPBAR on NVIDIA, vmcnt on AMD); copies by descriptors (UTMALDG), as many loops ahead as
    were issued before the loop; and loads into registers, waited for by the first instruction that reads one of them.
    """
    if descriptors := sum("UTMALDG" in instruction.text for instruction in body):
        ahead = sum("UTMALDG" in instruction.text for instruction in code if instruction.address < body[0].address)
        return ahead // descriptors * sum(_MATRIX.match(instruction.text) is not None for instruction in body)
    products, distances = 0, []
    copies = 0  # issued since the last group was closed
    groups: list[int] = []  # what is under way: how many products had been issued when each was
    registers: dict[str, int] = {}
    for _ in range(_ITERATIONS):
        for _, text, _ in body:
            words = _REGISTER.findall(text)
            if _MATRIX.match(text):
                products += 1
            if text.startswith("LDGSTS"):
                copies += 1
            elif text.startswith("LDGDEPBAR"):
                groups.append(products if copies else -1)
                copies = 0
            elif wait := _GROUP_WAIT.match(text):
                distances += [products - issued for issued in groups[: len(groups) - int(wait[1], 16)] if issued >= 0]
                groups = groups[len(groups) - int(wait[1], 16) :] if int(wait[1], 16) else []
            elif _AMD_LOAD.match(text):
                groups.append(products)
            elif wait := _AMD_WAIT.search(text):
                under_way = int(wait[1])
                distances += [products - issued for issued in groups[: max(0, len(groups) - under_way)]]
                groups = groups[max(0, len(groups) - under_way) :]
            elif load := _LOAD.match(text):
                first = int(load[2])
                for register in range(first, first + int(load[1] or 32) // 32):
                    registers[f"R{register}"] = products
            else:
                distances += [products - registers.pop(word) for word in words if word in registers]
    return min(distances, default=-1)


def _innermost_loops(code: list[_Instruction]) -> list[list[_Instruction]]:
    """The bodies of the loops, found by their backward branches, that contain no other loop with exponentials.

    Compilers move rare blocks behind the end of the program; what jumps back from there is no loop.
    """
    spans = {(i.target, i.address) for i in code if i.target is not None and i.target < i.address}
    bodies = {span: [i for i in code if span[0] <= i.address <= span[1]] for span in spans}
    hot = {
        span: body
        for span, body in bodies.items()
        if any(_EXPONENTIAL.match(i.text) for i in body) and not any(i.text.startswith(_END) for i in body)
    }
    return [
        body
        for span, body in sorted(hot.items())
        if not any(other != span and span[0] <= other[0] and other[1] <= span[1] for other in hot)
    ]


def _find(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    if match is None:
        raise ValueError(f"no {pattern!r} in what the compiler reports")
    return match[1]
