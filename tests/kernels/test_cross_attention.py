"""Cross-attention, every combination of its features: each backend against float64."""

import itertools

import pytest
import torch
from torch import Tensor

from attnmod.kernels.ops import cross_attention
from attnmod.kernels.testing import BACKENDS, DTYPES, check_cross_attention, random_inputs

INF = float("inf")
# The interpreter computes branches that a where then drops.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")


def name_dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def entity_bits(batch: int, tokens: int, entities: int, device: torch.device) -> Tensor:
    """BOS is global; then tokens of one entity, of a nested one, of nobody, and global ones take turns."""
    bits = torch.full((batch, tokens), -1, dtype=torch.int64)
    for n in range(1, tokens):
        g = n * 7 % entities
        bits[:, n] = (1 << g, (1 << g) | (1 << (g // 2)), -1, 1 << g, 0)[n % 5]
    return torch.where(bits >= 1 << 31, bits - (1 << 32), bits).to(torch.int32).to(device)


def log_weights(batch: int, tokens: int, device: torch.device) -> Tensor:
    weights = torch.randn(batch, tokens, generator=torch.Generator().manual_seed(5))
    weights[:, 2::7] = -INF
    return weights.to(device)


def feature_combinations() -> list:
    combinations = []
    for vote, weights, hidden, share, renormalize in itertools.product(
        ("plain", "default", "affinity", "owner"), (False, True), (False, True), (False, True), (True, False)
    ):
        if vote == "plain" and (hidden or share):
            continue
        words = (
            vote,
            weights and "weights",
            hidden and "hidden",
            share and "share",
            not renormalize and "unnormalised",
        )
        combinations.append(
            pytest.param(vote, weights, hidden, share, renormalize, id="-".join(word for word in words if word))
        )
    return combinations


def make_options(vote, weights, hidden, share, renormalize, batch, queries, tokens, entities, device) -> dict:
    generator = torch.Generator().manual_seed(7)
    options = {"renormalize": renormalize, "share_heads": share}
    if weights:
        options["log_weights"] = log_weights(batch, tokens, device)
    if vote == "plain":
        return options
    bits = entity_bits(batch, tokens, entities, device)
    bits[1] = -1  # a neutral row beside modulated ones
    options["entity_bits"] = bits
    if vote == "affinity":
        affinity = torch.rand(batch, tokens, entities, generator=generator)
        affinity[:, ::3] = 0
        options["affinity"] = affinity.to(device)
    if vote == "owner":
        owner = torch.randint(-1, entities, (batch, queries), generator=generator)
        options["owner"] = owner.to(device, torch.int8)
    if hidden:
        options["hidden_weight"] = torch.tensor([0.3, 0.0, 0.0][:batch], device=device)
    return options


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("vote", "weights", "hidden", "share", "renormalize"), feature_combinations())
def test_features(backend, vote, weights, hidden, share, renormalize, device):
    q, k, v = random_inputs(3, 2, 17, 21, 16, torch.float16, device)
    options = make_options(vote, weights, hidden, share, renormalize, 3, 17, 21, 5, device)
    check_cross_attention(q, k, v, backend, **options)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=name_dtype)
@pytest.mark.parametrize("share", [False, True], ids=["per-head", "shared"])
@pytest.mark.parametrize("vote", ["default", "affinity"])
def test_dtypes(backend, dtype, share, vote, device):
    q, k, v = random_inputs(2, 2, 33, 77, 40, dtype, device)
    options = make_options(vote, True, True, share, True, 2, 33, 77, 3, device)
    check_cross_attention(q, k, v, backend, **options)


@pytest.mark.parametrize("share", [False, True], ids=["per-head", "shared"])
@pytest.mark.parametrize("lead", [0.0, 20.3], ids=["level", "bos-leads"])
@pytest.mark.parametrize("seed", range(4))
def test_float32_beside_a_plain_row(seed, lead, share, device):
    """An unconditional row has no vote, and its exponentials are taken under its own maximum, not far below it."""
    q, k, v = random_inputs(2, 2, 17, 33, 40, torch.float32, device, seed=seed)
    if lead:
        q[..., 0], k[..., 0] = 4.1, 0.0
        k[:, :, 0, 0] = lead * 40**0.5 / 4.1
    options = make_options("default", True, True, share, True, 2, 17, 33, 5, device)
    check_cross_attention(q, k, v, "triton", **options)


@pytest.mark.parametrize("affinity_dtype", DTYPES, ids=name_dtype)
def test_affinity_dtypes(affinity_dtype, device):
    q, k, v = random_inputs(2, 2, 17, 21, 16, torch.float16, device)
    options = make_options("affinity", False, False, True, True, 2, 17, 21, 5, device)
    options["affinity"] = options["affinity"].to(affinity_dtype)
    check_cross_attention(q, k, v, "triton", **options)


@pytest.mark.parametrize("share", [False, True], ids=["per-head", "shared"])
@pytest.mark.parametrize(
    ("queries", "tokens"),
    [(1, 1), (33, 2), (63, 16), (65, 17), (17, 76), (129, 77), (17, 78), (17, 154), (17, 231), (17, 300)],
)
def test_lengths(queries, tokens, share, device):
    q, k, v = random_inputs(2, 2, queries, tokens, 32, torch.float16, device)
    options = make_options("default", True, False, share, True, 2, queries, tokens, 4, device)
    check_cross_attention(q, k, v, "triton", **options)


@pytest.mark.parametrize(("tokens", "renormalize"), [(512, True), (700, False)])
def test_long_prompts(tokens, renormalize, device):
    q, k, v = random_inputs(1, 1, 5, tokens, 16, torch.float16, device)
    bits = entity_bits(1, tokens, 4, device)
    options = {"entity_bits": bits, "log_weights": log_weights(1, tokens, device), "renormalize": renormalize}
    check_cross_attention(q, k, v, "triton", **options)


@pytest.mark.parametrize("head_dim", [8, 16, 40, 64, 80, 128, 160])
def test_head_dims(head_dim, device):
    q, k, v = random_inputs(2, 2, 33, 77, head_dim, torch.float16, device)
    options = make_options("default", True, True, False, True, 2, 33, 77, 4, device)
    check_cross_attention(q, k, v, "triton", **options)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("vote", ["default", "affinity"])
@pytest.mark.parametrize("entities", [1, 2, 16, 17, 32])
def test_entity_counts(backend, vote, entities, device):
    q, k, v = random_inputs(2, 2, 33, 90, 16, torch.float16, device)
    options = make_options(vote, True, False, True, True, 2, 33, 90, entities, device)
    _, owner = check_cross_attention(q, k, v, backend, **options)
    assert owner.max() >= entities // 2  # the high ids win somewhere, the sign bit's entity among them


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", DTYPES, ids=name_dtype)
@pytest.mark.parametrize(("heads", "queries", "head_dim"), [(10, 4096, 64), (20, 1024, 64), (8, 256, 160), (8, 64, 80)])
@pytest.mark.parametrize("tokens", [77, 154, 231])
@pytest.mark.parametrize("share", [False, True], ids=["per-head", "shared"])
def test_unet_shapes(dtype, heads, queries, head_dim, tokens, share, device):
    q, k, v = random_inputs(2, heads, queries, tokens, head_dim, dtype, device)
    options = make_options("affinity", True, True, share, True, 2, queries, tokens, 4, device)
    check_cross_attention(q, k, v, "triton", **options)


@pytest.mark.parametrize("backend", ["triton", "sdpa"])
def test_strided_inputs(backend, device):
    """Heads split off a projection, one prompt for all rows by stride 0, and controls that are views."""
    generator = torch.Generator().manual_seed(1)
    q = torch.randn(2, 33, 48, generator=generator).to(device, torch.float16).view(2, 33, 3, 16).transpose(1, 2)
    k = torch.randn(1, 20, 48, generator=generator).to(device, torch.float16).expand(2, -1, -1)
    k = k.view(2, 20, 3, 16).transpose(1, 2)
    v = torch.randn(2, 20, 3, 32, generator=generator).to(device, torch.float16)[..., 8:24].transpose(1, 2)
    options = {
        "entity_bits": entity_bits(1, 20, 3, device).expand(2, -1),
        "affinity": torch.rand(3, 20, 2, generator=generator).to(device).permute(2, 1, 0),
        "log_weights": log_weights(2, 40, device)[:, ::2],
        "hidden_weight": torch.tensor([0.5, 9.0, 0.1], device=device)[::2],
        "share_heads": True,
    }
    out, owner = check_cross_attention(q, k, v, backend, **options)
    dense = {name: value.contiguous() if isinstance(value, Tensor) else value for name, value in options.items()}
    dense = cross_attention(q.contiguous(), k.contiguous(), v.contiguous(), **dense, return_owner=True, backend=backend)
    if backend == "triton":
        assert torch.equal(out, dense[0])
        assert torch.equal(owner, dense[1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_strided_owner(backend, device):
    q, k, v = random_inputs(2, 2, 17, 21, 16, torch.float16, device)
    owner = torch.randint(-1, 3, (17, 2), generator=torch.Generator().manual_seed(2)).to(device, torch.int8).T
    check_cross_attention(q, k, v, backend, entity_bits=entity_bits(2, 21, 3, device), owner=owner)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("share", [False, True], ids=["per-head", "shared"])
def test_bos_does_not_drown_the_vote(backend, share, device):
    """BOS leads by 20 nats: under its maximum every other probability is zero in fp16."""
    q, k, v = random_inputs(1, 2, 65, 77, 16, torch.float16, device)
    q[..., 0], k[..., 0] = 4.0, 0.0
    k[:, :, 0, 0] = 30.0  # 4 * 30 * 16 ** -0.5 = 30 nats, of which other channels take a few
    bits = torch.full((1, 77), -1, dtype=torch.int32, device=device)
    bits[:, 1:40], bits[:, 40:60] = 1, 2
    _, owner = check_cross_attention(q, k, v, backend, entity_bits=bits, share_heads=share)
    assert set(owner.unique().tolist()) == {0, 1}


@pytest.mark.parametrize("backend", BACKENDS)
def test_wide_affinities_fit_the_vote(backend, device):
    """Balancing divides by small means: affinities far outside fp16 must neither overflow nor vanish."""
    q, k, v = random_inputs(2, 2, 33, 21, 16, torch.float16, device)
    options = make_options("affinity", False, False, True, True, 2, 33, 21, 5, device)
    for factor in (1e6, 1e-6):
        scaled = options | {"affinity": options["affinity"] * factor}
        check_cross_attention(q, k, v, backend, **scaled)
