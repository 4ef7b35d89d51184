"""What surrounds a call: autocast, offsets beyond 32 bits, and an architecture that nobody has measured."""

import warnings

import pytest
import torch

from attnmod.kernels import configs, ops, tile_table
from attnmod.kernels.ops import cross_attention, self_attention
from attnmod.kernels.testing import BACKENDS, assert_within_budget, random_inputs

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_autocast_casts_q_k_and_v_only(backend, dtype, device):
    q, k, v = random_inputs(2, 2, 17, 20, 16, torch.float32, device)
    bits = torch.full((2, 20), -1, dtype=torch.int32, device=device)
    bits[:, 3:8], bits[:, 8:12] = 1, 2
    # weights that either would round
    weights = torch.full((2, 20), -0.1234, device=device)
    weights[:, 3:] = 0.3
    with torch.autocast(device.type, dtype=dtype):
        out = cross_attention(q, k, v, entity_bits=bits, log_weights=weights, backend=backend)
        plain = self_attention(q, k, v, temperature=torch.tensor([0.5, 0.7], device=device), backend=backend)
    assert out.dtype == plain.dtype == dtype
    low = [x.to(dtype) for x in (q, k, v)]
    if backend == "triton":
        expected = cross_attention(*low, entity_bits=bits, log_weights=weights, backend=backend)
        assert torch.equal(out, expected)


def shared_cross_attention(q, k, v, backend):
    bits = torch.ones(k.shape[0], k.shape[2], dtype=torch.int32, device=k.device)
    return cross_attention(q, k, v, entity_bits=bits, share_heads=True, backend=backend)


@pytest.mark.parametrize("axis", [0, 1, 2], ids=["rows", "heads", "patches"])
def test_offsets_beyond_32_bits(axis, device, monkeypatch):
    """A stride that fits 32 bits, and twice it that does not; the memory between is never touched."""
    far = 2**30 + 8
    shape, strides = [1, 1, 1, 16], [16, 16, 16, 1]
    shape[axis], strides[axis] = 3, far
    try:
        wide, wide_out = (
            torch.as_strided(torch.empty(2 * far + 64, dtype=torch.float16, device=device), shape, strides)
            for _ in range(2)
        )
    except RuntimeError:
        pytest.skip("needs 8 GiB of address space")
    wide.copy_(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    dense = wide.clone(memory_format=torch.contiguous_format)
    for op in (self_attention, cross_attention, shared_cross_attention):
        expected = op(dense, dense, dense, backend="triton")
        assert torch.equal(op(wide, wide, wide, backend="triton"), expected)
        with monkeypatch.context() as patch:  # an output of an op is never so far apart: a launcher's may be
            patch.setattr(ops, "empty_output", lambda q: wide_out.zero_())
            assert torch.equal(op(dense, dense, dense, backend="triton"), expected)


def test_steps_beyond_32_bits(device):
    """From one tile of keys to the next it is more than 2^31 elements."""
    far = 2**25 + 8
    try:
        storage = torch.empty(66 * far, dtype=torch.float16, device=device)
    except RuntimeError:
        pytest.skip("needs 4.4 GB of address space")
    wide = torch.as_strided(storage, (1, 1, 66, 16), (16, 16, far, 1))
    wide.copy_(torch.randn(wide.shape, generator=torch.Generator().manual_seed(0)))
    dense = wide.clone(memory_format=torch.contiguous_format)
    expected = self_attention(dense, dense, dense, backend="triton")
    assert torch.equal(self_attention(dense, wide, wide, backend="triton"), expected)


def test_auto_says_where_nobody_has_measured(monkeypatch, device):
    q, k, v = random_inputs(1, 1, 5, 5, 16, torch.float16, device)
    monkeypatch.setattr(ops, "_choose_backend", lambda backend, q: "triton" if backend == "auto" else backend)
    monkeypatch.setattr(ops, "architecture", lambda device: "sm_42")
    ops._warn_once.cache_clear()
    ops._faster_self_attention.cache_clear()
    with pytest.warns(UserWarning, match="nobody has measured these kernels on sm_42"):
        self_attention(q, k, v)
    entry = tile_table.Entry("self_attention", "sm_42", 16, "short", tile_table.Tiles(16, 16, 4, 1), "sdpa", "a card")
    table = tile_table.table()
    monkeypatch.setattr(table, "entries", {**table.entries, entry.key: entry})
    monkeypatch.setattr(table, "generation", table.generation + 1)
    tau = torch.tensor([0.5], device=device)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        by_table = self_attention(q, k, v, temperature=tau)
    assert torch.equal(by_table, self_attention(q, k, v, temperature=tau, backend="sdpa"))
    ops._warn_once.cache_clear()
    ops._faster_self_attention.cache_clear()


@pytest.mark.parametrize("head_dim", [40, 64, 80, 128, 160])
@pytest.mark.parametrize("tokens", [1, 77, 81, 154, 231, 300, 512])
def test_no_columns_are_wasted(head_dim, tokens):
    """Tiles cover what there is: less than 16 channels too many, and 16 columns or, where swept, a group."""
    assert sum(width for _, width in configs.channel_tiles(head_dim)) - head_dim < 16
    group = sum(width for _, width in configs.sweep_tiles(tokens))
    assert -(-tokens // group) * group - tokens < (16 if tokens <= 80 else group)
    assert group <= 80


def test_an_extreme_lead_stays_finite(device):
    """A global token 150 nats above the rest: the vote is lost, the output is the leading token's value."""
    q, k, v = random_inputs(1, 1, 17, 20, 16, torch.float32, device)
    q[..., 0], k[..., 0] = 10.0, 0.0
    k[:, :, 0, 0] = 60.0  # 10 * 60 * 16 ** -0.5 nats
    bits = torch.full((1, 20), 1, dtype=torch.int32, device=device)
    bits[:, 0] = -1
    out = cross_attention(q, k, v, entity_bits=bits, backend="triton")
    expected = v[:, :, :1].expand_as(out)
    assert_within_budget(out, expected, expected.double(), torch.float32)


@pytest.mark.parametrize("tokens", [20, 90], ids=["one-piece", "swept"])
@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
def test_absent_tokens_may_hold_anything(tokens, masked, device):
    """The first token and the last are absent and NaN: neither is read into a score, a maximum or a sum."""
    q, k, v = random_inputs(1, 2, 17, tokens, 16, torch.float16, device)
    weights = torch.zeros(1, tokens, device=device)
    bits = torch.full((1, tokens), -1, dtype=torch.int32, device=device)
    bits[:, 3:8], bits[:, 8:12] = 1, 2
    absent = [0, tokens - 1]
    weights[:, absent] = -float("inf")
    k[:, :, absent], v[:, :, absent] = float("nan"), float("nan")
    options = {"entity_bits": bits} if masked else {}
    out = cross_attention(q, k, v, log_weights=weights, **options, backend="triton")
    options = {"entity_bits": bits[:, 1:-1]} if masked else {}
    shorter = cross_attention(q, k[:, :, 1:-1], v[:, :, 1:-1], **options, backend="eager")
    exact = cross_attention(q.float(), k[:, :, 1:-1].float(), v[:, :, 1:-1].float(), **options, backend="eager")
    assert isinstance(shorter, torch.Tensor)
    assert isinstance(exact, torch.Tensor)
    assert_within_budget(out, shorter, exact.double(), torch.float16)
