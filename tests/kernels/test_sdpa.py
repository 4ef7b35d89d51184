"""What the sdpa path does apart from the definition: on a CPU it sorts the rows by what they need."""

import math

import pytest
import torch

from attnmod.kernels import reference, sdpa

HEADS, PATCHES, TOKENS, HEAD_DIM = 2, 19, 13, 8


@pytest.fixture
def rows():
    """Five rows: empty, without entities, masked, masked but hidden_weight 1, masked with absent tokens."""
    generator = torch.Generator().manual_seed(3)
    q, k, v = (torch.randn(5, HEADS, size, HEAD_DIM, generator=generator) for size in (PATCHES, TOKENS, TOKENS))
    bits = torch.full((5, TOKENS), -1, dtype=torch.int32)
    bits[2:, 2:5], bits[2:, 6:9] = 1, 2
    weights = torch.zeros(5, TOKENS)
    weights[0] = -math.inf
    weights[2, 3], weights[4, 6:8] = 0.7, -math.inf
    hidden = torch.tensor([0.0, 0.0, 0.25, 1.0, 0.0])
    return q, k, v, dict(entity_bits=bits, log_weights=weights, hidden_weight=hidden, scale=0.4)


def all_masked(k, *_):
    """As on a device, where a look at the values would have to wait."""
    return [("masked", slice(0, k.shape[0]))]


OPTIONS = [
    dict(),
    dict(share_heads=True, return_affinity=True),
    dict(renormalize=False),
    dict(owner=torch.arange(5 * PATCHES).reshape(5, PATCHES).remainder(3).sub(1).to(torch.int8), share_heads=True),
    dict(entity_bits=None),
]


@pytest.mark.parametrize("options", OPTIONS, ids=["per-head", "shared", "not-renormalised", "given", "no-entities"])
@pytest.mark.parametrize("sorted_rows", [True, False], ids=["sorted", "as-on-a-device"])
def test_rows_need_not_be_sorted(rows, options, sorted_rows, monkeypatch):
    q, k, v, given = rows
    options = dict(affinity=None, owner=None, share_heads=False, renormalize=True, **given) | options
    if not sorted_rows:
        monkeypatch.setattr(sdpa, "_rows_by_kind", all_masked)
    found = sdpa.cross_attention(q, k, v, **options, return_owner=True)
    truth = reference.cross_attention(q.double(), k.double(), v.double(), **options, return_owner=True)
    for mine, theirs in zip(found, truth, strict=True):
        assert mine.isfinite().all()
        assert torch.allclose(mine.double(), theirs.double(), atol=1e-5)
    assert found[0][0].eq(0).all()


def test_an_empty_row_costs_nothing(rows, monkeypatch):
    """Nothing of it is read: NaN in it stays where it is."""
    q, k, v, given = rows
    for tensor in (q, k, v):
        tensor[0] = math.nan
    out, *_ = sdpa.cross_attention(q, k, v, affinity=None, owner=None, share_heads=True, renormalize=True, **given)
    assert out.isfinite().all()


def test_kinds_of_rows(rows):
    _, k, _, given = rows
    kinds = sdpa._rows_by_kind(k, given["entity_bits"], given["log_weights"], given["hidden_weight"])
    assert [(kind, rows.start, rows.stop) for kind, rows in kinds] == [
        ("empty", 0, 1), ("plain", 1, 2), ("masked", 2, 3), ("plain", 3, 4), ("masked", 4, 5)
    ]  # fmt: skip


def test_a_leading_token_far_above_the_votes(rows):
    """BOS 200 nats above: its share is 1, and the vote is still taken among the rest."""
    q, k, v, given = rows
    q, k, v = q[2:3], k[2:3].clone(), v[2:3]
    k[:, :, 0] = q.mean((0, 1, 2)) * 1e3
    options = {name: value[2:3] if isinstance(value, torch.Tensor) else value for name, value in given.items()}
    options |= dict(affinity=None, owner=None, share_heads=False, renormalize=True)
    out, _ = sdpa.cross_attention(q, k, v, **options, return_owner=True)
    assert out.isfinite().all()
    truth, _ = reference.cross_attention(q.double(), k.double(), v.double(), **options, return_owner=True)
    assert torch.allclose(out.double(), truth, atol=1e-4)
