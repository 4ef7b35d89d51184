"""The emulator runs small kernels that are right, and says what is wrong with ones that are not."""

from pathlib import Path

import pytest
import torch
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from attnmod.kernels.plan import Launch
from tests.kernels import gluon_samples as samples
from tests.kernels.gluon_emulator import Deadlock, Hazard, emulate


def described(tensor: torch.Tensor, rows: int) -> TensorDescriptor:
    block = [rows, tensor.shape[1]]
    layout = gl.NVMMASharedLayout.get_default_for(block, gl.float16)
    return TensorDescriptor(tensor, list(tensor.shape), list(tensor.stride()), block, layout)


def numbers(rows: int) -> torch.Tensor:
    return torch.randn(rows, 32, generator=torch.Generator().manual_seed(0)).half()


def copied(seed: int = 0, expected_bytes: int = 1024, text: str | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """40 rows in blocks of 16: the last one is half outside."""
    given, taken = numbers(40), torch.full((40, 32), torch.nan).half()
    arguments = {"in_desc": described(given, 16), "out_desc": described(taken, 16), "BYTES": expected_bytes}
    emulate(Launch(samples.copy_kernel, (3, 1, 1), arguments), seed, text)
    return given, taken


def multiplied(outstanding: int = 0, text: str | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    a, b, out = numbers(64), numbers(32), torch.full((64, 32), torch.nan).half()
    arguments = {"a_desc": described(a, 64), "b_desc": described(b, 32), "out_desc": described(out, 64)}
    emulate(Launch(samples.product_kernel, (1, 1, 1), arguments | {"OUTSTANDING": outstanding}), 0, text)
    return a.float() @ b.float(), out


def passed(stages: int, seed: int, text: str | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    given, taken = numbers(112), torch.full((112, 32), torch.nan).half()
    arguments = {"in_desc": described(given, 16), "out_desc": described(taken, 16), "steps": 7, "STAGES": stages}
    emulate(Launch(samples.ring_kernel, (1, 1, 1), arguments), seed, text)
    return given, taken


def changed(right: str, wrong: str) -> str:
    text = Path(samples.__file__).read_text(encoding="utf-8")
    assert text.count(right) == 1, f"{right!r} is there {text.count(right)} times"
    return text.replace(right, wrong)


def in_any_order(run) -> None:
    for seed in range(40):
        given, taken = run(seed)
        assert torch.equal(given, taken)


def test_a_copy():
    in_any_order(copied)


def test_a_product():
    expected, out = multiplied()
    torch.testing.assert_close(out.float(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_a_ring(stages):
    in_any_order(lambda seed: passed(stages, seed))


def test_too_many_bytes_are_waited_for():
    with pytest.raises(Deadlock, match="partition 0 waits for parity 0 of a barrier in phase 0"):
        copied(expected_bytes=2048)


def test_too_few_bytes_are_waited_for():
    with pytest.raises(Hazard, match="which is under way"):
        in_any_order(lambda seed: copied(seed, expected_bytes=512))


def test_a_copy_that_is_not_waited_for():
    text = changed("    mbarrier.wait(full, 0)\n    _store", "    _store")
    with pytest.raises(Hazard, match="which is under way"):
        in_any_order(lambda seed: copied(seed, text=text))


def test_a_barrier_that_the_copy_engine_was_not_shown():
    with pytest.raises(Hazard, match="has not been shown by a fence"):
        copied(
            text=changed(
                "    fence_async_shared()\n    mbarrier.expect(full, BYTES)", "    mbarrier.expect(full, BYTES)"
            )
        )


def test_a_store_without_a_fence_before_a_product():
    with pytest.raises(Hazard, match="a product reads what was stored without a fence"):
        multiplied(text=changed("    fence_async_shared()\n    acc", "    acc"))


def test_a_store_without_a_fence_before_a_copy():
    text = changed("    fence_async_shared()\n    _store(out_desc, [0, 0], out)", "    _store(out_desc, [0, 0], out)")
    with pytest.raises(Hazard, match="is not fenced from a copy to the tensor"):
        multiplied(text=text)


def test_a_result_that_is_taken_too_early():
    with pytest.raises(Hazard, match="while its product is under way"):
        multiplied(outstanding=1)


WAIT = "mbarrier.wait(full.index(i % STAGES), (i // STAGES) & 1)"
FREE = "mbarrier.arrive(empty.index(i % STAGES), count=1)"
EXPECT = "mbarrier.expect(full.index(i % STAGES), 16 * 32 * 2)"
ANY = (Hazard, Deadlock, AssertionError)


@pytest.mark.parametrize(
    ("right", "wrong", "error"),
    [
        ("((i // STAGES) & 1) ^ 1", "(i // STAGES) & 1", Deadlock),
        (WAIT, WAIT.replace("& 1)", "& 1 ^ 1)"), ANY),
        (f"        {FREE}\n", "", Deadlock),
        (FREE, "mbarrier.arrive(empty.index(0), count=1)", Deadlock),
        (FREE, "mbarrier.arrive(empty.index(i % STAGES), count=2)", Hazard),
        ("mbarrier.init(empty.index(i), count=1)", "mbarrier.init(empty.index(i), count=2)", Deadlock),
        ("        mbarrier.wait(empty.index(i % STAGES), ((i // STAGES) & 1) ^ 1)\n", "", ANY),
        ("        tma.store_wait(0)\n        mbarrier", "        mbarrier", Hazard),
        ("        mbarrier.init(full.index(i), count=1)\n", "", Hazard),
        ("full.index(i % STAGES), buffers.index(i % STAGES))", "full.index(i % STAGES), buffers.index(i))", Hazard),
        (EXPECT, EXPECT.replace("i % STAGES", "0"), ANY),
    ],
)
def test_a_ring_gone_wrong(right, wrong, error):
    text = changed(right, wrong)
    with pytest.raises(error):
        in_any_order(lambda seed: passed(2, seed, text))


def test_an_error_of_the_kernel_itself_comes_out():
    with pytest.raises(ZeroDivisionError):
        passed(2, 0, changed("        tma.store_wait(0)\n        mbarrier", "        1 // 0\n        mbarrier"))
