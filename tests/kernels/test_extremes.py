"""Values at the ends of what is allowed, and beyond: every backend agrees with float64, or all of them refuse."""

import re

import pytest
import torch
from torch import Tensor

from attnmod.kernels import reference
from attnmod.kernels.ops import cross_attention, self_attention
from attnmod.kernels.testing import (
    BACKENDS,
    DTYPES,
    assert_within_budget,
    check_cross_attention,
    check_self_attention,
    in_float64,
    random_inputs,
)

INF, NAN = float("inf"), float("nan")
# The interpreter computes branches that a where then drops.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")
every_backend = pytest.mark.parametrize("backend", BACKENDS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
both_forms = pytest.mark.parametrize("tokens", [6, 85], ids=["one-piece", "swept"])
BEYOND = (1e38, INF, NAN, 0.0, -1.0, 10**400, -(10**400), 10**5000)


def two_entities(tokens: int, queries: int, device: torch.device) -> dict[str, Tensor]:
    """Tokens of entity 0 and of entity 1 in turn, no global one; patches of either."""
    bits = torch.tensor([[1, 2]], dtype=torch.int32, device=device).repeat(1, tokens)[:, :tokens]
    owner = (torch.arange(queries, device=device) % 2).to(torch.int8)[None]
    return {"entity_bits": bits, "owner": owner}


def row(tokens: int, even: float, odd: float, device: torch.device) -> Tensor:
    return torch.tensor([[even, odd]], device=device).repeat(1, tokens)[:, :tokens].contiguous()


def check_beside_large_logarithms(q: Tensor, k: Tensor, v: Tensor, backend: str, **options) -> Tensor:
    """One head against float64. A score beside a log weight of 1000 has ten bits fewer behind its point."""
    out, owner = cross_attention(q, k, v, **options, return_owner=True, backend=backend)
    options |= {"owner": owner[:, 0]}
    exact = reference.cross_attention(q.double(), k.double(), v.double(), **in_float64(options))
    low = reference.cross_attention(q, k, v, **options)
    largest = max(options[name].log().abs().max() if name == "hidden_weight" else options[name].abs().max()
                  for name in ("hidden_weight", "log_weights") if name in options)  # fmt: skip
    rounding = largest * torch.finfo(torch.float32).eps * exact.abs().max()
    budget = 2 * (low.double() - exact).abs().max() + torch.finfo(q.dtype).eps * exact.abs().max() + rounding
    error = (out.double() - exact).abs().max()
    assert error <= budget, f"error {error:.3g} is above its budget {budget:.3g}"
    return out


@every_backend
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=["float16", "float32"])
@both_forms
@pytest.mark.parametrize("given", [True, False], ids=["owner", "vote"])
@pytest.mark.parametrize(("even", "odd"), [(-100.0, 0.0), (-50.0, 50.0), (-1000.0, 60.0)])
def test_weights_far_apart(backend, dtype, tokens, given, even, odd, device):
    """A patch whose own tokens weigh next to nothing beside hidden ones still sees its own, and nothing else."""
    q, k, v = random_inputs(1, 1, 9, tokens, 16, dtype, device)
    options = two_entities(tokens, 9, device) | {"log_weights": row(tokens, even, odd, device)}
    if not given:
        del options["owner"]
    out = check_beside_large_logarithms(q, k, v, backend, **options)
    assert (out != 0).any(-1).all()
    if odd == 0:  # e^50 is no result of float16
        check_beside_large_logarithms(q, k, v, backend, **options, renormalize=False)
    # and where they are merely quiet, the loud ones win
    quiet = options | {"hidden_weight": torch.full((1,), 0.5, device=device)}
    check_beside_large_logarithms(q, k, v, backend, **quiet)


@every_backend
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=["float16", "float32"])
@both_forms
@pytest.mark.parametrize("hidden", [1e-39, 1e-45])
def test_tiny_hidden_weights(backend, dtype, tokens, hidden, device):
    """Where only hidden tokens are left they share a patch's attention, however little each counts."""
    q, k, v = random_inputs(1, 1, 9, tokens, 16, dtype, device)
    options = two_entities(tokens, 9, device)
    options["entity_bits"][:] = 2  # nobody of entity 0 sees any
    options["hidden_weight"] = torch.full((1,), hidden, device=device)
    assert (check_beside_large_logarithms(q, k, v, backend, **options) != 0).any(-1).all()
    options["log_weights"] = row(tokens, -1000.0, -1000.0, device)
    assert (check_beside_large_logarithms(q, k, v, backend, **options) != 0).any(-1).all()


@every_backend
@every_dtype
@both_forms
@pytest.mark.parametrize("lead", [90.0, 400.0])
@pytest.mark.parametrize("kind", ["owner", "vote", "shared"])
def test_scores_far_apart(backend, dtype, tokens, lead, kind, device):
    """The first token, which nobody sees, leads all others by more than float32's exponentials span."""
    q, k, v = random_inputs(1, 2, 9, tokens, 16, dtype, device)
    q[..., 0], k[..., 0] = 4.0, 0.0
    k[:, :, 0, 0] = lead  # 4 * lead * 16 ** -0.5 nats
    options = two_entities(tokens, 9, device)
    options["entity_bits"][:, 0] = 0
    if kind != "owner":
        del options["owner"]
    options["share_heads"] = kind == "shared"
    out, owner = check_cross_attention(q, k, v, backend, **options)
    assert (out != 0).any(-1).all()
    assert kind == "owner" or set(owner.unique().tolist()) == {0, 1}


@every_backend
@every_dtype
@pytest.mark.parametrize("scale", [1e-30, 1e3, 1e6])
def test_scales_within_the_range(backend, dtype, scale, device):
    q, k, v = random_inputs(1, 2, 9, 6, 16, dtype, device)
    check_self_attention(q, k, v, backend, scale=scale)
    check_self_attention(q, k, v, backend, scale=scale, temperature=torch.full((1,), 1e-6, device=device))
    check_cross_attention(q, k, v, backend, **two_entities(6, 9, device), scale=scale)


@every_backend
@pytest.mark.parametrize("value", BEYOND, ids=lambda value: f"{value:.0e}" if isinstance(value, float) else "integer")
def test_numbers_beyond_the_range(backend, value, device):
    q, k, v = random_inputs(1, 1, 3, 4, 16, torch.float32, device)
    for op in (self_attention, cross_attention):
        with pytest.raises(ValueError, match=r"scale must be above 0 and at most 1e\+06; it was "):
            op(q, k, v, scale=value, backend=backend)
    if value == 1e38:  # a temperature in float32's range
        assert self_attention(q, k, v, temperature=value, backend=backend).isfinite().all()
        return
    with pytest.raises(ValueError, match=re.escape("temperature must be above 0 and at most 3.403e+38")):
        self_attention(q, k, v, temperature=value, backend=backend)


@pytest.mark.parametrize("weight", [-1001.0, -1e30, torch.finfo(torch.float32).min])
def test_weights_beyond_the_range(weight):
    """What is written for "absent" in other libraries' masks is refused, and told how it is written here."""
    q, k, v = random_inputs(1, 1, 3, 4, 16, torch.float32, torch.device("cpu"))
    weights = torch.zeros(1, 4)
    weights[0, 2] = weight
    with pytest.raises(ValueError, match="log_weights must be finite and at least -1000, or -inf for an absent token"):
        cross_attention(q, k, v, log_weights=weights)


@every_backend
@both_forms
@pytest.mark.parametrize("kind", ["plain", "owner", "vote", "shared"])
def test_an_absent_token_may_hold_anything(backend, tokens, kind, device):
    q, k, v = random_inputs(2, 2, 9, tokens, 16, torch.float16, device)
    options: dict = {"log_weights": torch.zeros(2, tokens, device=device), "share_heads": kind == "shared"}
    absent = [0, tokens // 2, tokens - 1]
    options["log_weights"][:, absent] = -INF
    if kind != "plain":
        options |= {name: value.expand(2, -1) for name, value in two_entities(tokens, 9, device).items()}
    if kind != "owner":
        options.pop("owner", None)
    for renormalize in (True, False):
        expected = cross_attention(q, k, v, **options, renormalize=renormalize, backend=backend)
        filled = [x.clone() for x in (k, v)]
        for x in filled:
            x[:, :, absent] = torch.tensor([NAN, INF, -INF], device=device, dtype=x.dtype)[:, None]
        found = cross_attention(q, *filled, **options, renormalize=renormalize, backend=backend)
        assert found.isfinite().all()
        assert torch.equal(found, expected)


def test_gradients_with_an_absent_token_that_holds_nan():
    q, k, v = random_inputs(1, 1, 3, 4, 16, torch.float32, torch.device("cpu"))
    k[:, :, 1] = v[:, :, 1] = NAN
    q.requires_grad_()
    weights = torch.tensor([[0.0, -INF, 0.0, 0.0]])
    cross_attention(q, k, v, log_weights=weights, backend="eager").sum().backward()
    assert q.grad is not None
    assert q.grad.isfinite().all()


@pytest.mark.parametrize("backend", ["auto", "triton", "sdpa"])
@pytest.mark.parametrize("op", [self_attention, cross_attention], ids=["self", "cross"])
def test_forward_mode_is_refused(op, backend):
    q, k, v = random_inputs(1, 1, 3, 4, 16, torch.float32, torch.device("cpu"))
    for name in ("q", "k", "v"):

        def of_one(x, name=name):
            return op(**{"q": q, "k": k, "v": v} | {name: x}, backend=backend)

        given = {"q": q, "k": k, "v": v}[name]
        with pytest.raises(ValueError, match=f"{name} has a forward-mode tangent.*eager"):
            torch.func.jvp(of_one, (given,), (torch.ones_like(given),))
        with torch.no_grad(), pytest.raises(ValueError, match=f"{name} has a forward-mode tangent"):
            torch.func.jvp(of_one, (given,), (torch.ones_like(given),))
    assert torch.func.jvp(lambda x: op(x, k, v, backend="eager"), (q,), (torch.ones_like(q),))[1].any()


@every_backend
def test_meta_tensors(backend):
    """Shapes without numbers: a model can be tried out before it has any memory."""
    q, k, v = (x.half().to("meta") for x in random_inputs(2, 3, 5, 7, 8, torch.float32, torch.device("cpu")))
    out = self_attention(q, k, v, temperature=torch.ones(2, device="meta"), backend=backend)
    assert (out.shape, out.dtype, out.device.type) == (q.shape, torch.float16, "meta")
    assert out.transpose(1, 2).is_contiguous()
    options = {
        "entity_bits": torch.ones(2, 7, dtype=torch.int32, device="meta"),
        "affinity": torch.ones(2, 7, 4, device="meta"),
        "log_weights": torch.ones(2, 7, device="meta"),
        "hidden_weight": torch.ones(2, device="meta"),
        "share_heads": True,
    }
    out, owner, affinity = cross_attention(q, k, v, **options, return_owner=True, return_affinity=True, backend=backend)
    assert (out.shape, out.dtype) == (q.shape, torch.float16)
    assert (owner.shape, owner.dtype) == ((2, 5), torch.int8)
    assert (affinity.shape, affinity.dtype) == ((2, 5, 4), torch.float32)
    with pytest.raises(ValueError, match="log_weights must be"):
        cross_attention(q, k, v, log_weights=torch.ones(2, 6, device="meta"), backend=backend)


@every_backend
def test_meta_tensors_are_not_looked_at(backend, monkeypatch):
    monkeypatch.setenv("ATTNMOD_CHECK", "1")
    q = torch.empty(1, 1, 3, 8, device="meta")
    assert cross_attention(q, q, q, log_weights=torch.empty(1, 3, device="meta"), backend=backend).shape == q.shape


@every_dtype
def test_the_definition_in_a_low_dtype_is_near_the_truth_at_the_sharpest(dtype):
    """Where the largest score leads clearly, no dtype may miss it, whatever the scale."""
    q = 8.0 * torch.eye(4, 16).to(dtype)[None, None]
    v = torch.arange(4.0).to(dtype)[None, None, :, None].expand(1, 1, 4, 16).contiguous()
    for scale in (1.0, 1e6):
        out = self_attention(q, q, v, scale=scale, temperature=1e-6, backend="eager")
        exact = reference.self_attention(q.double(), q.double(), v.double(), scale=scale, temperature=1e-6)
        assert_within_budget(out, exact.to(dtype), exact, dtype)
        assert torch.equal(exact, v.double())
    options = in_float64({"scale": 1e6})
    assert torch.equal(cross_attention(q, q, v, **options, backend="eager"), v)
