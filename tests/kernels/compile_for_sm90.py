"""Compiles launches for an H100 on any machine and prints what their machine code uses, as JSON.

A process of its own: Triton's interpreter and its compiler exclude each other in one. The launchers run on meta
tensors with a recorder in the kernel's place, so what is compiled is what a GPU would be given.
"""

import json
import re
import subprocess
import tempfile

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from attnmod.kernels import cross_attention, self_attention

_POINTERS = {
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.float32: "*fp32",
    torch.int32: "*i32",
    torch.int8: "*i8",
}


class Recorder:
    """Stands in for a jitted kernel and keeps the arguments of its launch."""

    def __getitem__(self, grid):
        return self

    def __call__(self, **arguments):
        self.arguments = arguments


def compile_launch(module, name: str, scale_type: str = "fp32", **inputs) -> dict:
    kernel = getattr(module, f"_{name}_kernel")
    recorder = Recorder()
    setattr(module, f"_{name}_kernel", recorder)
    module.architecture = lambda device: "sm_90"
    getattr(module, f"launch_{name}")(**inputs)
    setattr(module, f"_{name}_kernel", kernel)

    arguments = recorder.arguments
    signature, constants, attributes = {}, {}, {}
    for index, parameter in enumerate(kernel.params):
        value = arguments.pop(parameter.name)
        if parameter.is_constexpr:
            signature[parameter.name], constants[parameter.name] = "constexpr", value
        else:
            signature[parameter.name] = _describe((index,), value, constants, attributes)
    signature["scale"] = scale_type
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attributes)
    return _read(triton.compile(source, target=GPUTarget("cuda", 90, 32), options=arguments))


def _describe(path: tuple[int, ...], value, constants: dict, attributes: dict):
    """The type of an argument, specialised as Triton does at a launch: 1 and None, and multiples of 16."""
    if isinstance(value, tuple):
        return tuple(_describe((*path, i), item, constants, attributes) for i, item in enumerate(value))
    if value is None or (isinstance(value, int) and value == 1):
        constants[path] = value
        return "constexpr"
    if isinstance(value, float):
        return "fp32"
    if isinstance(value, torch.Tensor) or value % 16 == 0:
        attributes[path] = [["tt.divisibility", 16]]
    return _POINTERS[value.dtype] if isinstance(value, torch.Tensor) else "i32"


def _read(compiled) -> dict:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        machine_code = subprocess.run([*command[:1], "-sass", file.name], capture_output=True, text=True, check=True)
    instructions = re.findall(r"\*/\s+(?:@!?U?P\w+ )?([A-Z][A-Z0-9_]+)", machine_code.stdout)
    return {
        "registers": int(re.search(r"REG:(\d+)", usage)[1]),
        "stack": int(re.search(r"STACK:(\d+)", usage)[1]),
        "spills": sum(name in ("LDL", "STL") for name in instructions),
        "float64": sum(name in ("DADD", "DMUL", "DFMA", "DSETP", "DMNMX") for name in instructions),
        "float64_ptx": sorted(set(re.findall(r"^\s*(\S*f64\S*)", compiled.asm["ptx"], re.MULTILINE))),
        "matrix": sum(name == "HGMMA" for name in instructions),
        "exponentials": sum(name == "MUFU" for name in instructions),
        "shared": compiled.metadata.shared,
    }


def self_attention_inputs(temperature: bool) -> dict:
    q = torch.empty(2, 4096, 10, 64, dtype=torch.float16, device="meta").transpose(1, 2)
    tau = torch.empty(2, device="meta") if temperature else None
    return {"q": q, "k": q, "v": q, "temperature": tau, "scale": 0.125, "out": q}


def cross_attention_inputs(share_heads: bool) -> dict:
    q = torch.empty(2, 4096, 10, 64, dtype=torch.float16, device="meta").transpose(1, 2)
    k = torch.empty(2, 77, 10, 64, dtype=torch.float16, device="meta").transpose(1, 2)
    shape = (2, 4096) if share_heads else (2, 10, 4096)
    return {
        "q": q,
        "k": k,
        "v": k,
        "entity_bits": torch.empty(2, 77, dtype=torch.int32, device="meta"),
        "affinity": torch.empty(2, 77, 8, device="meta") if share_heads else None,
        "log_weights": torch.empty(2, 77, device="meta"),
        "hidden_weight": torch.empty(2, device="meta"),
        "owner": None,
        "share_heads": share_heads,
        "renormalize": True,
        "scale": 0.125,
        "out": q,
        "owner_out": torch.empty(shape, dtype=torch.int8, device="meta"),
        "affinity_out": torch.empty(2, 4096, 8, device="meta") if share_heads else None,
    }


if __name__ == "__main__":
    report = {
        "self": compile_launch(self_attention, "self_attention", **self_attention_inputs(True)),
        "self-plain": compile_launch(self_attention, "self_attention", **self_attention_inputs(False)),
        "self-float64-scale": compile_launch(
            self_attention, "self_attention", scale_type="fp64", **self_attention_inputs(True)
        ),
        "cross": compile_launch(cross_attention, "cross_attention", **cross_attention_inputs(False)),
        "cross-shared": compile_launch(cross_attention, "cross_attention", **cross_attention_inputs(True)),
        "cross-float64-scale": compile_launch(
            cross_attention, "cross_attention", scale_type="fp64", **cross_attention_inputs(False)
        ),
    }
    print(json.dumps(report))
