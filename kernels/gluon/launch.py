"""Launches of the Gluon kernels: what they can take, how they share out the queries, and their descriptors."""

import functools
import heapq

import torch
import triton
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from attnmod.kernels.configs import temperature_strides
from attnmod.kernels.gluon import persistent, self_attention
from attnmod.kernels.plan import Launch
from attnmod.kernels.tile_table import Tiles

HEAD_DIM, ROWS, PRODUCER_REGISTERS = self_attention.HEAD_DIM, self_attention.ROWS, self_attention.PRODUCER_REGISTERS


def obstacle(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, out: torch.Tensor, device: str) -> str:
    """Why this kernel cannot take these, in a line; "" where it can. device: the architecture's name."""
    if device != "sm_90":
        return f"it is for sm_90, not {device}"
    if q.dtype not in (torch.float16, torch.bfloat16) or q.shape[3] != HEAD_DIM:
        return f"it takes 16-bit floats of head dim {HEAD_DIM}, not {q.dtype} of {q.shape[3]}"
    for name, tensor in (("q", q), ("k", k), ("v", v), ("out", out)):
        if tensor.data_ptr() % 16:
            return f"{name} does not begin at a multiple of 16 bytes"
        if tensor.stride(3) != 1 or any(
            size > 1 and (stride <= 0 or stride % 8)
            for size, stride in zip(tensor.shape[:3], tensor.stride()[:3], strict=True)
        ):
            return f"{name} has strides {tensor.stride()}: a descriptor takes multiples of 16 bytes, none of them 0"
    return ""


def describe_self_attention(
    *,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    temperature: torch.Tensor | None,
    scale: float,
    out: torch.Tensor,
    tiles: Tiles,
) -> Launch:
    """The launch of these arguments, which have no `obstacle`."""
    batch, heads, queries, _ = q.shape
    keys = k.shape[2]
    consumers = tiles.block_m // ROWS
    at_once = _processors(q.device) * (2 if consumers == 1 else 1)
    threes, twos, ones = shares(triton.cdiv(queries, ROWS), batch * heads, consumers, at_once)
    pieces = batch * heads * (threes + twos + ones)
    arguments = dict(
        q_desc=_descriptor(q, ROWS),
        k_desc=_descriptor(k, tiles.block_n),
        v_desc=_descriptor(v, tiles.block_n),
        temperature_ptr=temperature,
        out_desc=_descriptor(out, ROWS),
        temperature_strides=temperature_strides(temperature),
        scale=float(scale),
        num_keys=keys,
        heads=heads,
        threes=threes,
        twos=twos,
        ones=ones,
        CONSUMERS=consumers,
        STAGES=tiles.num_stages,
        BLOCK_N=tiles.block_n,
        REGISTERS=tiles.max_registers,
        HAS_TEMPERATURE=temperature is not None,
        EVEN_KEYS=keys % tiles.block_n == 0,
        num_warps=4,
        maxnreg=registers_at_launch(tiles),
        enable_fp_fusion=True,
    )
    if "persistent" not in tiles.options:
        return Launch(self_attention._self_attention_kernel, (pieces, 1, 1), arguments)
    programs = min(pieces, max(at_once, triton.cdiv(pieces, persistent.TURNS)))
    arguments |= dict(turns=triton.cdiv(pieces, programs), pieces=pieces, STEADY="steady" in tiles.options)
    return Launch(persistent._self_attention_kernel, (programs, 1, 1), arguments)


# What a program of so many consumers takes, of the time of one of three.
_TIMES = {3: 1.0, 2: 0.7, 1: 0.45}


@functools.cache
def shares(blocks: int, groups: int, consumers: int, processors: int) -> tuple[int, int, int]:
    """How many programs take three of a head's blocks, how many two, and how many one, so that all end soonest.

    Programs of three fill a processor, but come in rounds; what does not fill the last round goes in smaller pieces.

    >>> shares(64, 20, 3, 132), shares(16, 40, 3, 132), shares(64, 20, 2, 132), shares(3, 2, 1, 132)
    ((19, 0, 7), (3, 0, 7), (0, 32, 0), (0, 0, 3))
    """
    if consumers < 3:
        return (0, blocks // 2, blocks % 2) if consumers == 2 else (0, 0, blocks)
    best = None
    for threes in range(blocks // 3, max(-1, blocks // 3 - 8), -1):
        for twos in range(min((blocks - 3 * threes) // 2, 4) + 1):
            ones = blocks - 3 * threes - 2 * twos
            ends = [0.0] * processors
            for size, count in ((3, threes), (2, twos), (1, ones)):
                for _ in range(count * groups):
                    heapq.heapreplace(ends, ends[0] + _TIMES[size])
            if best is None or max(ends) < best[0] - 1e-9:
                best = max(ends), (threes, twos, ones)
    assert best is not None
    return best[1]


@functools.cache
def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 132


def registers_at_launch(tiles: Tiles) -> int:
    """Of a thread, before the warps share them out anew: the producer's warp stands in for a warpgroup.

    >>> registers_at_launch(Tiles(128, 128, 8, 3, max_registers=240, kernel="gluon"))
    168
    """
    consumers = tiles.block_m // ROWS
    shared_out = consumers * tiles.max_registers + PRODUCER_REGISTERS
    return -(-shared_out // (consumers + 1) // 8) * 8


def _descriptor(tensor: torch.Tensor, rows: int) -> TensorDescriptor:
    """Blocks of so many rows of a head, of [B, length, H, D]: the order in which a projection has them in memory."""
    turned = tensor.transpose(1, 2)
    # an axis of one may have any stride, also one that a descriptor cannot have
    strides = [stride if size > 1 else HEAD_DIM for size, stride in zip(turned.shape, turned.stride(), strict=True)]
    block = [1, rows, 1, HEAD_DIM]
    dtype = gl.float16 if tensor.dtype == torch.float16 else gl.bfloat16
    layout = gl.NVMMASharedLayout.get_default_for(block, dtype)
    return TensorDescriptor(tensor, list(turned.shape), [*strides[:3], 1], block, layout)
