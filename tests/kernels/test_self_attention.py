"""Self-attention with a temperature: every backend against float64, and what must hold to the bit."""

import pytest
import torch

from attnmod.kernels import configs, reference
from attnmod.kernels.ops import self_attention
from attnmod.kernels.testing import BACKENDS, DTYPES, assert_within_budget, check_self_attention, random_inputs

# The interpreter computes branches that a where then drops.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")


def name_dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=name_dtype)
@pytest.mark.parametrize("temperature", ["none", "number", "row", "head"])
def test_matches_float64(backend, dtype, temperature, device):
    q, k, v = random_inputs(2, 3, 65, 65, 40, dtype, device)
    tau = {
        "none": None,
        "number": 0.7,
        "row": torch.tensor([0.3, 1.0], device=device),
        "head": torch.tensor([[0.3, 0.6, 1.0], [1.0, 2.0, 5.0]], device=device),
    }[temperature]
    check_self_attention(q, k, v, backend, temperature=tau)


@pytest.mark.parametrize("head_dim", [8, 16, 32, 64, 80, 128, 160])
def test_head_dims(head_dim, device):
    q, k, v = random_inputs(1, 2, 33, 33, head_dim, torch.float16, device)
    check_self_attention(q, k, v, "triton", temperature=torch.tensor([0.5], device=device))


@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (1, 64), (63, 63), (64, 128), (129, 129), (65, 200), (5, 77)])
def test_lengths(queries, keys, device):
    q, k, v = random_inputs(1, 2, queries, keys, 32, torch.float16, device)
    check_self_attention(q, k, v, "triton", temperature=torch.tensor([0.5], device=device))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", DTYPES, ids=name_dtype)
@pytest.mark.parametrize(("heads", "queries", "head_dim"), [(10, 4096, 64), (20, 1024, 64), (8, 256, 160), (8, 64, 80)])
def test_unet_shapes(dtype, heads, queries, head_dim, device):
    q, k, v = random_inputs(2, heads, queries, queries, head_dim, dtype, device)
    check_self_attention(q, k, v, "triton", temperature=torch.tensor([1.0, 0.5], device=device))


@pytest.mark.parametrize("backend", BACKENDS)
def test_scale_is_a_factor_of_the_scores(backend, device):
    q, k, v = random_inputs(1, 2, 17, 33, 16, torch.float32, device)
    check_self_attention(q, k, v, backend, scale=0.7, temperature=torch.tensor([0.8], device=device))


@pytest.mark.parametrize("backend", ["triton", "sdpa"])
def test_strided_inputs(backend, device):
    """Heads that were split off a projection, keys shared by stride 0, and a slice of a wider tensor."""
    generator = torch.Generator().manual_seed(1)
    projected = torch.randn(2, 33, 3 * 16, generator=generator).to(device, torch.float16)
    q = projected.view(2, 33, 3, 16).transpose(1, 2)
    k = torch.randn(1, 1, 40, 16, generator=generator).to(device, torch.float16).expand(2, 3, 40, 16)
    v = torch.randn(2, 3, 80, 48, generator=generator).to(device, torch.float16)[:, :, ::2, 16:32]
    tau = torch.tensor([[0.5, 9.0], [0.7, 9.0]], device=device)[:, 0]
    out = check_self_attention(q, k, v, backend, temperature=tau)
    dense = self_attention(q.contiguous(), k.contiguous(), v.contiguous(), temperature=tau, backend=backend)
    if backend == "triton":
        assert torch.equal(out, dense)


def test_the_output_merges_heads_as_a_view(device):
    q, k, v = random_inputs(2, 3, 17, 17, 16, torch.float16, device)
    for backend in BACKENDS:
        out = self_attention(q, k, v, backend=backend)
        assert out.transpose(1, 2).reshape(2, 17, 48).data_ptr() == out.data_ptr()


def test_temperature_one_is_plain_attention(device):
    q, k, v = random_inputs(2, 2, 33, 33, 16, torch.float16, device)
    ones = torch.ones(2, device=device)
    assert torch.equal(
        self_attention(q, k, v, temperature=ones, backend="triton"), self_attention(q, k, v, backend="triton")
    )


def test_a_low_temperature_picks_the_best_key(device):
    q, k, v = random_inputs(1, 2, 33, 50, 16, torch.float32, device)
    best = (q @ k.transpose(-1, -2)).argmax(-1, keepdim=True)
    picked = v.gather(2, best.expand(-1, -1, -1, 16))
    for backend in BACKENDS:
        out = self_attention(q, k, v, temperature=torch.full((1,), 1e-7, device=device), backend=backend)
        assert torch.equal(out, picked)


def test_rows_do_not_touch_each_other(device):
    q, k, v = random_inputs(2, 2, 33, 70, 16, torch.float16, device)
    q, k, v = (torch.cat([x, x[:1]]) for x in (q, k, v))  # the third row repeats the first
    first = self_attention(q, k, v, temperature=torch.tensor([0.5, 1.0, 0.5], device=device), backend="triton")
    second = self_attention(q, k, v, temperature=torch.tensor([0.5, 0.1, 0.5], device=device), backend="triton")
    assert torch.equal(first[0], first[2])
    assert torch.equal(first[0], second[0])
    assert not torch.equal(first[1], second[1])


def test_permuted_keys_change_rounding_only(device):
    q, k, v = random_inputs(1, 2, 33, 70, 16, torch.float16, device)
    order = torch.randperm(70, generator=torch.Generator().manual_seed(3)).to(device)
    out = self_attention(q, k[:, :, order], v[:, :, order], backend="triton")
    exact = reference.self_attention(q.double(), k.double(), v.double())
    assert_within_budget(out, reference.self_attention(q, k, v), exact, torch.float16)


def test_every_run_gives_the_same_bits(device):
    q, k, v = random_inputs(2, 3, 65, 65, 32, torch.float16, device)
    tau = torch.tensor([0.5, 0.7], device=device)
    runs = [self_attention(q, k, v, temperature=tau, backend="triton") for _ in range(2)]
    assert torch.equal(*runs)


@pytest.mark.parametrize("tau", [0.0, -1.0, float("nan"), float("inf"), 1e-38, 1e38])
def test_unchecked_temperatures_stay_finite(tau, device):
    """On CUDA nobody looks at the values, so the kernel must not turn a bad one into NaN."""
    q, k, v = random_inputs(1, 2, 17, 33, 16, torch.float16, device)
    tau = torch.full((1,), tau, device=device)
    assert torch.ops.attnmod.self_attention(q, k, v, tau, None, "triton").isfinite().all()


def test_large_scores_stay_finite(device):
    q, k, v = random_inputs(1, 1, 17, 33, 16, torch.float16, device)
    out = self_attention(q * 1000, k * 1000, v, temperature=torch.full((1,), 0.01, device=device), backend="triton")
    assert out.isfinite().all()


def test_the_reference_has_gradients():
    q, k, v = (x.double().requires_grad_() for x in random_inputs(1, 2, 3, 5, 4, torch.float32, torch.device("cpu")))
    tau = torch.tensor([0.5], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda q, k, v: reference.self_attention(q, k, v, temperature=tau), (q, k, v))


@pytest.mark.parametrize("shape", [(0, 2, 5, 16), (1, 0, 5, 16), (1, 2, 0, 16)], ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_to_compute(shape, backend, device):
    q = torch.empty(shape, device=device)
    k = torch.empty(shape[0], shape[1], 3, 16, device=device)
    assert self_attention(q, k, k, backend=backend).shape == shape


def small_tiles(*options: str) -> configs.Tiles:
    return configs.Tiles(16, 32, 4, 1, options=options)


@pytest.mark.parametrize(
    ("keys", "dtype"),
    [(5, torch.float16), (32, torch.bfloat16), (33, torch.float16), (160, torch.bfloat16), (170, torch.float16)],
    ids=lambda value: name_dtype(value) if isinstance(value, torch.dtype) else str(value),
)
@pytest.mark.parametrize(
    "options",
    [*((option,) for option in configs.SOFTMAX_OPTIONS), ("lazy_rescale", "skip"), ("overlap", "polynomial")],
    ids="-".join,
)
def test_softmax_options(options, keys, dtype, device, self_attention_in):
    """Below one tile of keys, one tile, and several, whole and not."""
    self_attention_in(small_tiles(*options))
    q, k, v = random_inputs(2, 1, 17, keys, 40, dtype, device)
    check_self_attention(q, k, v, "triton", temperature=torch.tensor([0.2, 1.0], device=device))


def test_half_precision_has_softmax_options_that_float32_has_not():
    """Some of them are exact in 16 bits only."""
    assert configs.self_attention_tiles("sm_90", 64, 4096, 2).options
    assert not configs.self_attention_tiles("sm_90", 64, 4096, 4).options


@pytest.mark.parametrize("lazy", [False, True], ids=["", "lazy"])
def test_skipped_tiles_are_counted_and_invisible(lazy, device, self_attention_in):
    """Tiles 30 in log2 below the running maximum: in fp16 their exponentials are zero, so that nothing changes."""
    from attnmod.kernels.self_attention import launch_self_attention

    self_attention_in(small_tiles("skip", *["lazy_rescale"] * lazy))
    q, k, v = random_inputs(1, 2, 33, 160, 16, torch.float16, device)
    q[..., 0], k[..., 0] = 8.0, 0.0
    k[:, :, 32:96, 0] = -30.0  # two of five tiles: 8 * 30 / 4 nats below the first
    v[:, :, 32:96] = 1000.0
    out, skipped = torch.empty_like(q), torch.empty(1, 2, 3, dtype=torch.int32, device=device)
    launch_self_attention(q=q, k=k, v=v, temperature=None, scale=0.25, out=out, skipped=skipped)
    assert skipped.tolist() == [[[2, 2, 0]] * 2]  # padding, of which the last program is full, does not let a tile pass
    exact = reference.self_attention(q.double(), k.double(), v.double())
    assert_within_budget(out, reference.self_attention(q, k, v), exact, torch.float16)
    launch_self_attention(q=q, k=k[:, :, :32], v=v[:, :, :32], temperature=None, scale=0.25, out=out, skipped=skipped)
    assert not skipped.any()


@pytest.mark.parametrize("step", [4.0, -16.0], ids=["growing", "falling"])
@pytest.mark.parametrize("options", [(), ("lazy_rescale",), ("overlap",), ("skip", "lazy_rescale")], ids="-".join)
def test_a_maximum_that_moves(options, step, device, self_attention_in):
    """Every tile leads the one before by 12 in log2: the sums must shrink with each. Or it falls behind it by 46: the
    maximum of a tile alone would make the rest overflow."""
    self_attention_in(small_tiles(*options))
    q, k, v = random_inputs(1, 1, 17, 160, 16, torch.float16, device)
    q[..., 0] = 8.0
    k[:, :, :, 0] = torch.arange(160, device=device) // 32 * step
    check_self_attention(q, k, v, "triton")
