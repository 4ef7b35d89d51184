"""The Gluon kernels, emulated: under many schedules against float64, and with what is wrong in them put there."""

from collections.abc import Iterable
from pathlib import Path
from unittest import mock

import pytest
import torch

from attnmod.kernels import reference
from attnmod.kernels.gluon import launch, persistent, self_attention
from attnmod.kernels.testing import assert_within_budget
from attnmod.kernels.tile_table import Tiles
from tests.kernels.gluon_emulator import Deadlock, Hazard, emulate


def consumers(count: int, block_n: int, stages: int, *options: str) -> Tiles:
    return Tiles(64 * count, block_n, 4, stages, max_registers=160, options=options, kernel="gluon")


SHIPPED = {
    "1 consumer": consumers(1, 128, 3),
    "2 consumers": consumers(2, 64, 2),
    "3 consumers, 4 stages": consumers(3, 64, 4),
    "3 consumers": consumers(3, 128, 2),
}
PERSISTENT = {
    "1 consumer, persistent": consumers(1, 128, 2, "persistent", "steady"),
    "2 consumers, persistent": consumers(2, 128, 3, "persistent", "steady"),
    "3 consumers, persistent": consumers(3, 64, 2, "persistent"),
    "3 consumers, persistent, steady": consumers(3, 64, 2, "persistent", "steady"),
}
FORMS = SHIPPED | PERSISTENT
forms = pytest.mark.parametrize("tiles", FORMS.values(), ids=FORMS)


def projected(length: int, heads: int, dtype: torch.dtype, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(2, length, heads, 64, generator=generator).to(dtype).transpose(1, 2)


def attend(q, k, v, tau, tiles: Tiles, seed: int, text: str | None = None) -> torch.Tensor:
    batch, heads, queries, _ = q.shape
    out = torch.full((batch, queries, heads, 64), torch.nan, dtype=q.dtype).transpose(1, 2)
    given = dict(q=q, k=k, v=v, temperature=tau, scale=0.125, out=out, tiles=tiles)
    processors = (1, 3, 132)[seed % 3]  # few take as many blocks at once as they can, many one each
    with mock.patch.object(launch, "_processors", return_value=processors):
        emulate(launch.describe_self_attention(**given), seed, text)
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
        assert launch.obstacle(q, k, v, q, "sm_90") == ""
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


@pytest.mark.parametrize("form", [name for name in FORMS if "steady" in FORMS[name].options])
def test_a_steady_reference_that_was_too_low(form):
    """The first tile's scores are small and a later one's are not: exponentials overflow, and the block is repeated."""
    generator = torch.Generator().manual_seed(4)
    q, k, v = (projected(length, 1, torch.float16, generator) for length in (200, 512, 512))
    k[:, :, 500] = 2 * q[:, :, 5]
    tau = torch.tensor([0.4, 1.0])
    never = _text(persistent).replace("total < _LARGEST_SUM, 0, 1", "total < _LARGEST_SUM, 0, 0")
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


# A wrong phase, stage, index, count, mask or wait: what the emulator is for. In both kernels:
GONE_WRONG = [
    ("tile - gl.where(tile >= steps, steps, 0)", "tile"),
    ("tile - 1 - gl.where(tile - 1 >= steps, steps, 0)", "tile - 1"),
    ("BYTES: gl.constexpr = BLOCK_N * _D * 2", "BYTES: gl.constexpr = BLOCK_N * _D"),
    ("mbarrier.wait(empty.index(stage), ", "max(0, "),
    ("mbarrier.init(empty.index(i), count=CONSUMERS)", "mbarrier.init(empty.index(i), count=1)"),
    ("mbarrier.init(empty.index(i), count=CONSUMERS)", "mbarrier.init(empty.index(i), count=CONSUMERS + 1)"),
    ("mbarrier.arrive(empty.index(stage), count=1)\n", "pass\n"),
    ("        mbarrier.arrive(k_full.index(stage), count=1, pred=i == steps)\n", ""),
    ("        mbarrier.arrive(v_full.index(stage), count=1, pred=i == 0)\n", ""),
    ("        mbarrier.wait(v_full.index(stage), parity)\n", ""),
    ("(upcoming // STAGES) & 1, pred", "((upcoming + 1) // STAGES) & 1, pred"),
    ("warpgroup_mma_wait(1, deps=(product,))", "warpgroup_mma_wait(2, deps=(product,))"),
    ("warpgroup_mma_wait(0, deps=(added, p))", "warpgroup_mma_wait(1, deps=(added, p))"),
    ("offs_n < keys_left", "offs_n <= keys_left"),
    ("    fence_async_shared()\n    block =", "    block ="),
    ("first_row + ME * _ROWS, h", "first_row, h"),
    ("    tma.store_wait(0)\n", ""),
    ("acc = acc * gl.convert_layout(rescale", "acc = acc * gl.convert_layout(1.0 + 0.0 * rescale"),
    ("place[5] > ME", "place[5] > ME + 1"),
    ("first_block += 2 * twos", "first_block += twos"),
    ("first_block = 3 * threes", "first_block = 2 * threes"),
]
SHIPPED_GONE_WRONG = [
    *GONE_WRONG,
    ("((i // STAGES) & 1) ^ 1", "(i // STAGES) & 1"),
    ("stage = i % STAGES\n        tile", "stage = (i + 1) % STAGES\n        tile"),
    ("    mbarrier.wait(q_full, 0)\n", ""),
    ("    mbarrier.wait(k_full.index(0), 0)\n", ""),
    ("    mbarrier.wait(v_full.index(stage), (steps // STAGES) & 1)\n", ""),
    ("    mbarrier.arrive(empty.index(0), count=1)\n", ""),
    ("program -= groups * threes", "program -= threes"),
    ("h = group % heads", "h = group // heads"),
]
PERSISTENT_GONE_WRONG = [
    *GONE_WRONG,
    ("(((begun + i) // STAGES) & 1) ^ 1", "((begun + i) // STAGES) & 1"),
    ("stage = (begun + i) % STAGES\n        tile", "stage = (begun + i + 1) % STAGES\n        tile"),
    ("mbarrier.wait(q_empty.index(slot), ", "max(0, "),
    ("((done // 2) & 1) ^ 1", "(done // 2) & 1"),
    ("slot = done % 2\n    mbarrier", "slot = 0\n    mbarrier"),
    ("mbarrier.init(q_empty.index(i), count=CONSUMERS)", "mbarrier.init(q_empty.index(i), count=CONSUMERS + 1)"),
    ("    mbarrier.arrive(q_empty.index(done % 2), count=1)\n", ""),
    ("    mbarrier.arrive(barriers[1].index(slot), count=1)\n", ""),
    ("mbarrier.wait(v_full.index(stage), ((begun + steps) // STAGES) & 1)", "pass"),
    ("mbarrier.wait(k_full.index(stage), (begun // STAGES) & 1)", "pass"),
    ("    mbarrier.wait(barriers[0].index(slot), (done // 2) & 1)\n", ""),
    ("        mbarrier.wait(barriers[6], 0)\n", ""),
    ("mbarrier.init(through, count=CONSUMERS)", "mbarrier.init(through, count=1)"),
    ("        mbarrier.arrive(barriers[6], count=1)\n", ""),
    (".slice(ME, 1)", ".slice(0, 1)"),
    ("barriers[5].index(turn).slice", "barriers[5].index(0).slice"),
    ("        done += 1\n            begun += place[3] + 1", "        done += 1"),
    ("piece -= groups * threes", "piece -= threes"),
    ("group // heads, group % heads", "group % heads, group // heads"),
    ("gl.where(is_through, 0, size)", "size"),
]


@pytest.mark.parametrize(("right", "wrong"), SHIPPED_GONE_WRONG, ids=lambda text: " ".join(text.split())[:40])
def test_what_is_wrong_in_the_kernel_is_told_of(right, wrong):
    _see_it_fail(self_attention, right, wrong, SHIPPED.values())


@pytest.mark.parametrize(("right", "wrong"), PERSISTENT_GONE_WRONG, ids=lambda text: " ".join(text.split())[:40])
def test_what_is_wrong_in_the_persistent_kernel_is_told_of(right, wrong):
    _see_it_fail(persistent, right, wrong, PERSISTENT.values())


def _see_it_fail(module, right: str, wrong: str, tried: Iterable[Tiles]) -> None:
    text = _text(module)
    assert right in text
    mutant = text.replace(right, wrong)
    assert any(_fails(tiles, mutant, seed) for seed in range(12) for tiles in tried)


def _fails(tiles: Tiles, text: str, seed: int) -> bool:
    generator = torch.Generator().manual_seed(seed)
    keys, hottest = ((640, 0.02), (700, 1.0), (60, 0.02), (700, 0.4))[seed % 4]
    q, k, v = (projected(length, 1, torch.float16, generator) for length in (300, keys, keys))
    if seed % 4 == 1:  # all scores are far below that of a key of zeros
        q, k = q.abs(), -k.abs()
    if seed % 4 == 3:  # one row of the first block alone outgrows its reference
        k[:, :, 600] = 2 * q[:, :, 5]
    try:
        check(q, k, v, torch.tensor([1.0, hottest]), tiles, seed, text)
    except (AssertionError, Deadlock, Hazard, IndexError, RuntimeError):
        return True
    return False
