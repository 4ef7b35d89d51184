"""Cross-attention's corners, each on a case whose answer is known, and what must hold to the bit."""

import pytest
import torch
from torch import Tensor

from attnmod.kernels import reference
from attnmod.kernels.ops import cross_attention
from attnmod.kernels.testing import BACKENDS, assert_within_budget, check_cross_attention, random_inputs

INF = float("inf")
# The interpreter computes branches that a where then drops.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")
every_backend = pytest.mark.parametrize("backend", BACKENDS)
per_head_and_shared = pytest.mark.parametrize("share", [False, True], ids=["per-head", "shared"])


def pointing_at(tokens: list[int], num_tokens: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Patch m looks at token tokens[m] only; the value of token n is 2 ** n in every channel."""
    k = 32.0 * torch.eye(num_tokens, 16, device=device)[None, None]
    q = k[:, :, tokens]
    v = 2.0 ** torch.arange(num_tokens, device=device)[None, None, :, None].expand(1, 1, -1, 16)
    return q, k, v.contiguous()


def bits_of(*rows: list[int], device: torch.device) -> Tensor:
    return torch.tensor(rows, dtype=torch.int32, device=device)


@every_backend
@per_head_and_shared
def test_a_nested_entity_wins_when_its_tokens_do(backend, share, device):
    """ "a boy wearing a red hat": the hat's tokens belong to both, and are visible to both."""
    boy, hat, everyone = 0b01, 0b11, -1
    bits = bits_of([everyone, boy, hat], device=device)
    q, k, v = pointing_at([1, 2], 3, device)
    _, owner = cross_attention(q, k, v, entity_bits=bits, share_heads=share, return_owner=True, backend=backend)
    assert owner.flatten().tolist() == [0, 1]
    # The boy's patch may look at the hat. The hat's may not look at the boy: it sees the others alike, (1 + 4) / 2.
    crossed = cross_attention(
        q.flip(2), k, v, entity_bits=bits, owner=owner.reshape(1, 2), share_heads=share, backend=backend
    )
    assert crossed[0, 0, :, 0].tolist() == [4.0, 2.5]


@every_backend
@per_head_and_shared
def test_the_lowest_entity_wins_a_tie(backend, share, device):
    q, k, v = random_inputs(1, 2, 17, 4, 16, torch.float32, device)
    k = k[:, :, :1].expand(-1, -1, 4, -1)  # all tokens look the same
    bits = bits_of([-1, 0b100, 0b010, 0b100], device=device)
    affinity = torch.tensor([[0, 0, 0, 0], [0, 1, 0, 1], [0, 0, 2, 0], [0, 0, 0, 1]], device=device)[None].float()
    _, owner = cross_attention(
        q, k, v, entity_bits=bits, affinity=affinity, share_heads=share, return_owner=True, backend=backend
    )
    assert (owner == 2).all()


@every_backend
def test_shared_heads_vote_by_their_mean(backend, device):
    """One head is sure of entity 1, two lean to entity 0: the mean of probabilities, not the count, decides."""
    lean, sure = torch.tensor([0.1, 0.0]), torch.tensor([0.0, 6.0])
    k = torch.eye(2, 16, device=device).expand(1, 3, 2, 16)
    q = torch.zeros(1, 3, 1, 16, device=device)
    q[0, :, 0, :2] = torch.stack([lean, lean, sure]).to(device)
    options = {"entity_bits": bits_of([1, 2], device=device), "scale": 1.0, "return_owner": True, "backend": backend}
    _, separate = cross_attention(q, k, k, **options)
    assert separate.flatten().tolist() == [0, 0, 1]
    _, shared, affinity = cross_attention(q, k, k, **options, share_heads=True, return_affinity=True)
    assert shared.flatten().tolist() == [1]
    assert affinity.shape == (1, 1, 32)
    assert abs(affinity.sum() - 1) < 1e-6


@every_backend
@per_head_and_shared
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=["float16", "float32"])
def test_neutral_rows_report_nobody(backend, share, dtype, device):
    """A row of global tokens, and a row whose hidden weight is 1, are plain attention."""
    q, k, v = random_inputs(3, 2, 17, 4, 16, dtype, device)
    q, k, v = (x[[0, 0, 2]] for x in (q, k, v))
    bits = bits_of([-1] * 4, [-1, 1, 2, 2], [-1, 1, 2, 2], device=device)
    hidden = torch.tensor([0.0, 1.0, 0.0], device=device)
    out, owner = cross_attention(
        q, k, v, entity_bits=bits, hidden_weight=hidden, share_heads=share, return_owner=True, backend=backend
    )
    plain = cross_attention(q, k, v, backend=backend)
    assert (owner[:2] == -1).all()
    assert (owner[2] >= 0).all()
    if backend == "triton":
        assert torch.equal(out[0], out[1])
    exact = reference.cross_attention(q[:2].double(), k[:2].double(), v[:2].double())
    assert_within_budget(out[:2], reference.cross_attention(q[:2], k[:2], v[:2]), exact, dtype)
    assert not torch.equal(out[2], plain[2])


@every_backend
@per_head_and_shared
def test_an_empty_row_is_zero_and_reads_nothing(backend, share, device):
    q, k, v = random_inputs(2, 2, 17, 20, 16, torch.float16, device)
    for x in (q, k, v):
        x[0] = float("nan")
    weights = torch.zeros(2, 20, device=device)
    weights[0] = -INF
    bits = torch.ones(2, 20, dtype=torch.int32, device=device)
    out, owner = cross_attention(
        q, k, v, entity_bits=bits, log_weights=weights, share_heads=share, return_owner=True, backend=backend
    )
    assert (out[0] == 0).all()
    assert (owner[0] == -1).all()
    assert (owner[1] == 0).all()
    assert out[1].isfinite().all()
    assert (cross_attention(q, k, v, log_weights=weights, renormalize=False, backend=backend)[0] == 0).all()


@every_backend
@pytest.mark.parametrize("renormalize", [True, False])
def test_a_patch_that_sees_nothing_is_zero(backend, renormalize, device):
    q, k, v = random_inputs(1, 2, 17, 4, 16, torch.float16, device)
    owner = torch.zeros(1, 17, dtype=torch.int8, device=device)
    owner[:, 3:] = 1
    bits = bits_of([2, 2, 0, 2], device=device)
    options = {"entity_bits": bits, "owner": owner, "renormalize": renormalize, "backend": backend}
    out = cross_attention(q, k, v, **options)
    assert (out[:, :, :3] == 0).all()
    assert (out[:, :, 3:] != 0).any(-1).all()
    # also where every score is so low that its exponential's reciprocal overflows
    low = cross_attention(torch.full_like(q, 8.0), torch.full_like(k, -8.0), v, **options)
    assert (low[:, :, :3] == 0).all()


@every_backend
def test_nobodys_patch_sees_every_token(backend, device):
    q, k, v = random_inputs(1, 2, 17, 4, 16, torch.float16, device)
    nobody = torch.full((1, 17), -1, dtype=torch.int8, device=device)
    out = cross_attention(q, k, v, entity_bits=bits_of([-1, 1, 2, 0], device=device), owner=nobody, backend=backend)
    exact = reference.cross_attention(q.double(), k.double(), v.double())
    assert_within_budget(out, reference.cross_attention(q, k, v), exact, torch.float16)


@every_backend
def test_the_vote_ignores_the_weights(backend, device):
    q, k, v = random_inputs(1, 2, 33, 6, 16, torch.float16, device)
    bits = bits_of([-1, 1, 1, 2, 2, 4], device=device)
    weights = torch.tensor([[0.0, 5.0, -5.0, 3.0, -9.0, 0.0]], device=device)
    options = {"entity_bits": bits, "return_owner": True, "backend": backend}
    assert torch.equal(
        cross_attention(q, k, v, **options)[1], cross_attention(q, k, v, **options, log_weights=weights)[1]
    )


@every_backend
def test_log_weights_are_clamped(backend, device):
    q, k, v = random_inputs(1, 2, 17, 6, 16, torch.float32, device)
    low, high = torch.zeros(2, 1, 6, device=device)
    low[:, 2], high[:, 2] = 60.0, 1e30
    for renormalize in (True, False):
        assert torch.equal(
            *(
                cross_attention(q, k, v, log_weights=weights, renormalize=renormalize, backend=backend)
                for weights in (low, high)
            )
        )


@every_backend
@per_head_and_shared
@pytest.mark.parametrize("renormalize", [True, False])
def test_an_absent_token_changes_nothing(backend, share, renormalize, device):
    """To the bit: 78 tokens are computed in the same tiles as 77."""
    q, k, v = random_inputs(1, 2, 33, 78, 16, torch.float16, device)
    k[:, :, 77] = 50.0  # it would win everything
    weights = torch.randn(1, 78, generator=torch.Generator().manual_seed(1)).to(device)
    weights[:, 77] = -INF
    bits = torch.ones(1, 78, dtype=torch.int32, device=device)
    bits[:, 30:], bits[:, 77] = 2, 4
    options = {"share_heads": share, "renormalize": renormalize, "return_owner": True, "backend": backend}
    longer = cross_attention(q, k, v, entity_bits=bits, log_weights=weights, **options)
    shorter = cross_attention(
        q, k[:, :, :77], v[:, :, :77], entity_bits=bits[:, :77], log_weights=weights[:, :77], **options
    )
    assert torch.equal(longer[1], shorter[1])
    if backend == "triton":
        assert torch.equal(longer[0], shorter[0])
    else:  # a library's product of another shape may add in another order
        check_cross_attention(
            q,
            k,
            v,
            backend,
            entity_bits=bits,
            log_weights=weights,
            share_heads=share,
            renormalize=renormalize,
        )


@every_backend
def test_permuted_tokens_change_rounding_only(backend, device):
    q, k, v = random_inputs(1, 2, 33, 77, 16, torch.float32, device)
    weights = torch.randn(1, 77, generator=torch.Generator().manual_seed(1)).to(device)
    bits = torch.ones(1, 77, dtype=torch.int32, device=device)
    bits[:, 30:50], bits[:, 50:] = 2, -1
    order = torch.randperm(77, generator=torch.Generator().manual_seed(2)).to(device)
    out, owner = cross_attention(
        q,
        k[:, :, order],
        v[:, :, order],
        entity_bits=bits[:, order],
        log_weights=weights[:, order],
        share_heads=True,
        return_owner=True,
        backend=backend,
    )
    _, original = check_cross_attention(q, k, v, backend, entity_bits=bits, log_weights=weights, share_heads=True)
    assert (owner == original).float().mean() > 0.95  # only a near tie may fall the other way
    given = {"entity_bits": bits, "owner": owner}
    low = reference.cross_attention(q, k, v, **given, log_weights=weights)
    exact = reference.cross_attention(q.double(), k.double(), v.double(), **given, log_weights=weights.double())
    assert_within_budget(out, low, exact, torch.float32)


@every_backend
def test_padded_entities_are_invisible(backend, device):
    q, k, v = random_inputs(1, 2, 33, 21, 16, torch.float16, device)
    bits = torch.ones(1, 21, dtype=torch.int32, device=device)
    bits[:, 10:] = 2
    affinity = torch.rand(1, 21, 2, generator=torch.Generator().manual_seed(1)).to(device)
    options = {"entity_bits": bits, "return_owner": True, "share_heads": True, "return_affinity": True}
    narrow = cross_attention(q, k, v, affinity=affinity, **options, backend=backend)
    for width in (3, 16, 32):
        padded = torch.zeros(1, 21, width, device=device)
        padded[..., :2] = affinity
        wide = cross_attention(q, k, v, affinity=padded, **options, backend=backend)
        assert torch.equal(wide[0], narrow[0])
        assert torch.equal(wide[1], narrow[1])
        assert (wide[2][..., 2:] == 0).all()


@per_head_and_shared
def test_rows_do_not_touch_each_other(share, device):
    q, k, v = (x.repeat(3, 1, 1, 1) for x in random_inputs(1, 2, 33, 21, 16, torch.float16, device))
    bits = torch.ones(3, 21, dtype=torch.int32, device=device)
    bits[:, 10:] = 2
    weights, hidden = torch.zeros(3, 21, device=device), torch.full((3,), 0.2, device=device)
    options = {"share_heads": share, "return_owner": True, "backend": "triton"}
    first = cross_attention(q, k, v, entity_bits=bits, log_weights=weights, hidden_weight=hidden, **options)
    bits, weights, hidden = bits.clone(), weights.clone(), hidden.clone()
    bits[1], weights[1], hidden[1], q[1] = -1, -INF, 0.9, float("nan")
    second = cross_attention(q, k, v, entity_bits=bits, log_weights=weights, hidden_weight=hidden, **options)
    for before, after in zip(first, second, strict=True):
        assert torch.equal(before[0], before[2])
        assert torch.equal(before[0], after[0])
        assert torch.equal(before[2], after[2])


def test_every_run_gives_the_same_bits(device):
    q, k, v = random_inputs(2, 3, 33, 77, 16, torch.float16, device)
    bits = torch.ones(2, 77, dtype=torch.int32, device=device)
    bits[:, 30:] = 2
    options = {"entity_bits": bits, "share_heads": True, "return_owner": True, "return_affinity": True}
    first, second = (cross_attention(q, k, v, **options, backend="triton") for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@per_head_and_shared
def test_unchecked_values_stay_finite(share, device):
    """On CUDA nobody looks at the values: whatever they are, nothing out of bounds is read and nothing is NaN."""
    q, k, v = random_inputs(2, 2, 17, 6, 16, torch.float16, device)
    bits = bits_of([-1, 1, -(2**31), 7, 0, 2], [3, 3, 3, 3, 3, 3], device=device)
    nan = float("nan")
    bad = torch.tensor([[nan, INF, -INF, 1e30, -1e30, 0.0], [nan] * 6], device=device)
    affinity = torch.tensor([nan, INF, -INF, -1.0, 1e30, 1e-40], device=device)[None, :, None].expand(2, 6, 3)
    owner = torch.tensor([-128, 127, 32, 31, -1, 0, 1] * 5, dtype=torch.int8, device=device)[:34].reshape(2, 17)
    for hidden in (nan, INF, -1.0, 2.0):
        hidden = torch.full((2,), hidden, device=device)
        for given in ({"owner": owner}, {"affinity": affinity}):
            results = torch.ops.attnmod.cross_attention(
                q,
                k,
                v,
                entity_bits=bits,
                log_weights=bad,
                hidden_weight=hidden,
                share_heads=share,
                return_owner=True,
                backend="triton",
                **given,
            )
            assert results[0].isfinite().all()
    assert (results[1][0] >= 0).all()
    assert (results[1] < 3).all()


def test_the_reference_has_gradients():
    q, k, v = (x.double().requires_grad_() for x in random_inputs(1, 2, 4, 5, 4, torch.float32, torch.device("cpu")))
    bits = torch.tensor([[1, 2, 0, 2, 1]], dtype=torch.int32)
    owner = torch.tensor([[0, 1, 3, -1]], dtype=torch.int8)  # the third patch sees no token
    weights = torch.tensor([[0.0, 1.0, -1.0, -INF, 0.5]], dtype=torch.float64)
    for renormalize in (True, False):
        assert torch.autograd.gradcheck(
            lambda q, k, v, renormalize=renormalize: reference.cross_attention(
                q, k, v, entity_bits=bits, owner=owner, log_weights=weights, renormalize=renormalize
            ),
            (q, k, v),
        )


@pytest.mark.parametrize("shape", [(0, 2, 5, 16), (1, 2, 0, 16)], ids=str)
@every_backend
def test_nothing_to_compute(shape, backend, device):
    q = torch.empty(shape, device=device)
    k = torch.empty(shape[0], shape[1], 3, 16, device=device)
    bits = torch.ones(shape[0], 3, dtype=torch.int32, device=device)
    out, owner, affinity = cross_attention(
        q, k, k, entity_bits=bits, share_heads=True, return_owner=True, return_affinity=True, backend=backend
    )
    assert out.shape == shape
    assert owner.shape == (shape[0], shape[2])
    assert affinity.shape == (shape[0], shape[2], 32)
