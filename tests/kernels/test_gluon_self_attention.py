"""The Gluon kernels, emulated: under many schedules against float64, and with what is wrong in them put there."""

from pathlib import Path

import pytest
import torch

from attnmod.kernels import reference
from attnmod.kernels.gluon import lone_warpgroup, self_attention
from attnmod.kernels.testing import assert_within_budget
from attnmod.kernels.tile_table import Tiles
from tests.kernels.gluon_emulator import Deadlock, Hazard, emulate


def consumers(count: int, block_n: int, stages: int, *options: str) -> Tiles:
    return Tiles(64 * count, block_n, 4, stages, max_registers=160, options=options, kernel="gluon")


def alone(rows: int, block_n: int, stages: int, *options: str) -> Tiles:
    return Tiles(rows, block_n, 4, stages, max_registers=168, options=("alone", *options), kernel="gluon")


FORMS = {
    "1 consumer": consumers(1, 128, 3),
    "2 consumers in turns": consumers(2, 128, 3, "ping_pong"),
    "2 consumers": consumers(2, 64, 2),
    "3 consumers in turns": consumers(3, 64, 4, "ping_pong"),
    "3 consumers": consumers(3, 128, 2),
    "3 consumers, steady": consumers(3, 64, 2, "steady"),
    "2 consumers, steady": consumers(2, 128, 3, "steady"),
    "alone": alone(64, 128, 2),
    "alone, steady": alone(64, 128, 2, "steady"),
    "alone, 128 rows": alone(128, 64, 3, "steady"),
    "alone, 3 stages": alone(64, 64, 3),
}
forms = pytest.mark.parametrize("tiles", FORMS.values(), ids=FORMS)


def projected(length: int, heads: int, dtype: torch.dtype, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(2, length, heads, 64, generator=generator).to(dtype).transpose(1, 2)


def attend(q, k, v, tau, tiles: Tiles, seed: int, text: str | None = None) -> torch.Tensor:
    batch, heads, queries, _ = q.shape
    out = torch.full((batch, queries, heads, 64), torch.nan, dtype=q.dtype).transpose(1, 2)
    given = dict(q=q, k=k, v=v, temperature=tau, scale=0.125, out=out, tiles=tiles)
    emulate(self_attention.describe_self_attention(**given), seed, text)
    return out


def check(q, k, v, tau, tiles: Tiles, seed: int, text: str | None = None) -> None:
    out = attend(q, k, v, tau, tiles, seed, text)
    exact = reference.self_attention(
        q.double(), k.double(), v.double(), temperature=None if tau is None else tau.double(), scale=0.125
    )
    assert_within_budget(out, reference.self_attention(q, k, v, temperature=tau, scale=0.125), exact, q.dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (64, 128), (130, 513), (200, 77), (65, 640)])
@forms
def test_against_float64(tiles, queries, keys, dtype):
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        q, k, v = (projected(length, 2, dtype, generator) for length in (queries, keys, keys))
        check(q * 1.5, k, v, torch.tensor([[0.3, 1.0], [0.8, 2.0]]), tiles, seed)


@forms
def test_layouts(tiles):
    """One projection for all three, [B, H, N, D] in memory, a single row; temperatures of a row and none."""
    generator = torch.Generator().manual_seed(1)
    fused = torch.randn(2, 100, 3, 2, 64, generator=generator).half()
    by_head = torch.randn(3, 2, 2, 100, 64, generator=generator).half()
    one = torch.randn(3, 1, 100, 1, 64, generator=generator).half().transpose(2, 3)
    for q, k, v in (fused.permute(2, 0, 3, 1, 4), by_head, one):
        assert self_attention.obstacle(q, k, v, q, "sm_90") == ""
        for tau in (None, torch.linspace(0.5, 1.0, q.shape[0])):
            check(q, k, v, tau, tiles, 0)


@forms
def test_rows_of_the_batch_do_not_meet(tiles):
    """What lies beyond a row's last key is not zero but the next row's: huge here."""
    generator = torch.Generator().manual_seed(2)
    q, k, v = (projected(length, 1, torch.float16, generator) for length in (70, 77, 77))
    first = attend(q, k, v, None, tiles, 0)
    k[1], v[1], q[1] = 1e4, 6e4, 1e3
    assert torch.equal(attend(q, k, v, None, tiles, 1)[0], first[0])


@forms
def test_schedules_do_not_show(tiles):
    generator = torch.Generator().manual_seed(3)
    q, k, v = (projected(length, 1, torch.float16, generator) for length in (130, 600, 600))
    first = attend(q, k, v, None, tiles, 0)
    assert all(torch.equal(attend(q, k, v, None, tiles, seed), first) for seed in range(1, 8))


@pytest.mark.parametrize("form", [name for name in FORMS if "steady" in name])
def test_a_steady_reference_that_was_too_low(form):
    """The first tile's scores are small and a later one's are not: exponentials overflow, and the block is repeated."""
    generator = torch.Generator().manual_seed(4)
    q, k, v = (projected(length, 1, torch.float16, generator) for length in (200, 512, 512))
    k[:, :, 500] = 2 * q[:, :, 5]
    tau = torch.tensor([0.4, 1.0])
    module = lone_warpgroup if "alone" in FORMS[form].options else self_attention
    never = _text(module).replace("total < _LARGEST_SUM, 0, 1", "total < _LARGEST_SUM, 0, 0")
    assert not torch.isfinite(attend(q, k, v, tau, FORMS[form], 0, never)).all()
    for seed in range(4):
        check(q, k, v, tau, FORMS[form], seed)


def test_what_is_not_finite():
    """A NaN stays in its row."""
    generator = torch.Generator().manual_seed(5)
    q, k, v = (projected(length, 1, torch.float16, generator) for length in (70, 200, 200))
    q[0, 0, 3] = torch.nan
    for tiles in FORMS.values():
        out = attend(q, k, v, None, tiles, 0)
        assert out[0, 0, 3].isnan().all()
        out[0, 0, 3] = 0
        assert out.isfinite().all()


def _text(module) -> str:
    return Path(module.__file__).read_text(encoding="utf-8")


# A wrong phase, stage, index, count, mask or wait: what the emulator is for.
CONSUMERS_GONE_WRONG = [
    ("(((begun + i) // STAGES) & 1) ^ 1", "((begun + i) // STAGES) & 1"),
    ("stage = (begun + i) % STAGES\n        before", "stage = (begun + i + 1) % STAGES\n        before"),
    ("tile - gl.where(tile >= steps, steps, 0)", "tile"),
    ("mbarrier.expect(k_full.index(stage), BLOCK_N * _D * 2)", "mbarrier.expect(k_full.index(stage), BLOCK_N * _D)"),
    ("        mbarrier.wait(k_empty.index(stage), before)\n", ""),
    ("        mbarrier.wait(v_empty.index(stage), before)\n", ""),
    ("mbarrier.init(k_empty.index(i), count=CONSUMERS)", "mbarrier.init(k_empty.index(i), count=1)"),
    ("mbarrier.init(v_empty.index(i), count=CONSUMERS)", "mbarrier.init(v_empty.index(i), count=CONSUMERS + 1)"),
    ("mbarrier.arrive(k_empty.index(stage), count=1)", "pass"),
    ("        mbarrier.arrive(v_empty.index(last), count=1)\n", ""),
    ("(begun + i - 1) // STAGES) & 1)\n", "(begun + i) // STAGES) & 1)\n"),
    ("    mbarrier.wait(v_full.index(final % STAGES), (final // STAGES) & 1)\n", ""),
    ("(upcoming // STAGES) & 1, pred", "((upcoming + 1) // STAGES) & 1, pred"),
    ("warpgroup_mma_wait(1, deps=(product,))", "warpgroup_mma_wait(2, deps=(product,))"),
    ("warpgroup_mma_wait(0, deps=(added, p))", "warpgroup_mma_wait(1, deps=(added, p))"),
    ("offs_n < keys_left", "offs_n <= keys_left"),
    ("    fence_async_shared()\n    block =", "    block ="),
    ("    mbarrier.wait(barriers[0], 0)\n", ""),
    ("place[2] + ME * _ROWS", "place[2]"),
    ("    mbarrier.wait(decided, 0)\n", ""),
    ("mbarrier.init(decided, count=CONSUMERS)", "mbarrier.init(decided, count=1)"),
    ("_produce_pass(loads, place[3], STAGES, BLOCK_N)", "_produce_pass(loads, 0, STAGES, BLOCK_N)"),
    ("verdicts.slice(ME, 1)", "verdicts.slice(0, 1)"),
    ("given, steps, steps - 1, ME", "given, 0, steps - 1, ME"),
    ("    mbarrier.arrive(v_empty.index(final % STAGES), count=1)\n", ""),
    ("    tma.store_wait(0)\n", ""),
    ("        acc = acc * gl.convert_layout(rescale", "        acc = acc * gl.convert_layout(1.0 + 0.0 * rescale"),
    ("(1 if ME == 0 else 0)", "0"),
    ("turns.index((ME + 1) % CONSUMERS)", "turns.index(ME)"),
]
ALONE_GONE_WRONG = [
    ("tile -= gl.where(tile >= steps, steps, 0)", "tile -= 0"),
    ("BYTES: gl.constexpr = BLOCK_N * _D * 2", "BYTES: gl.constexpr = BLOCK_N * _D"),
    ("(begun + i - 1) // STAGES) & 1)\n", "(begun + i) // STAGES) & 1)\n"),
    ("(upcoming // STAGES) & 1", "((upcoming + 1) // STAGES) & 1"),
    ("i + STAGES < steps, i - 1 + STAGES < steps", "i + STAGES < steps, i + STAGES < steps"),
    ("_fetch(k_desc, place, i + STAGES, k_full", "_fetch(k_desc, place, i + STAGES - 1, k_full"),
    ("v_buffers.index(last), v_left)", "v_buffers.index(stage), v_left)"),
    ("warpgroup_mma_wait(0, deps=(added, p))", "warpgroup_mma_wait(1, deps=(added, p))"),
    ("    mbarrier.wait(v_full.index(final % STAGES), (final // STAGES) & 1)\n", ""),
    ("    mbarrier.wait(q_full, 0)\n", ""),
    ("_pass(given, steps, STAGES", "_pass(given, 0, STAGES"),
    ("offs_n < keys_left", "offs_n <= keys_left"),
    ("    fence_async_shared()\n    _store", "    _store"),
    ("    fence_async_shared()\n    mbarrier.expect", "    mbarrier.expect"),
    ("    tma.store_wait(0)\n", ""),
]


@pytest.mark.parametrize(("right", "wrong"), CONSUMERS_GONE_WRONG, ids=lambda text: " ".join(text.split())[:40])
def test_a_wrong_consumer_or_producer_is_told_of(right, wrong):
    text = _text(self_attention)
    assert right in text
    mutant = text.replace(right, wrong)
    assert any(_fails(tiles, mutant, seed) for tiles in list(FORMS.values())[:7] for seed in range(6))


@pytest.mark.parametrize(("right", "wrong"), ALONE_GONE_WRONG, ids=lambda text: " ".join(text.split())[:40])
def test_a_wrong_lone_warpgroup_is_told_of(right, wrong):
    text = _text(lone_warpgroup)
    assert right in text
    mutant = text.replace(right, wrong)
    assert any(_fails(tiles, mutant, seed) for tiles in list(FORMS.values())[7:] for seed in range(4))


def _fails(tiles: Tiles, text: str, seed: int) -> bool:
    generator = torch.Generator().manual_seed(seed)
    keys = 700 if seed % 2 else 640
    q, k, v = (projected(length, 1, torch.float16, generator) for length in (200, keys, keys))
    if seed % 2:  # all scores are far below that of a key of zeros
        q, k = q.abs(), -k.abs()
    try:
        check(q, k, v, torch.tensor([1.0, 0.02]), tiles, seed, text)
    except (AssertionError, Deadlock, Hazard):
        return True
    return False
