"""Every combination of what a cross-attention can be asked for, in both of its forms: each against float64.

A form that no test runs is a form that may not even start. Shapes and values are drawn, from a seed.
"""

import itertools
import random

import pytest
import torch
from torch import Tensor

from attnmod.kernels import cross_attention
from attnmod.kernels.testing import DTYPES, check_cross_attention, random_inputs

INF = float("inf")
# From and to so many tokens, and how many groups of 80 a sweep holds at once: none is one after the other.
FORMS = {"prompt": [(3, 40, 0)], "swept": [(3, 40, 0), (3, 40, 1), (81, 97, 0), (81, 97, 2)]}
# The interpreter computes branches that a where then drops.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")


def combinations(feature: str) -> list[tuple[torch.dtype, bool, bool, bool]]:
    """dtype, weights, hidden weight, renormalised; on a GPU, where each is a compilation, some of them by lot."""
    found = list(itertools.product(DTYPES, (False, True), (False, True), (True, False)))
    return random.Random(feature).sample(found, 3) if torch.cuda.is_available() else found


def drawn_options(feature: str, weights: bool, hidden: bool, queries: int, tokens: int, draw: torch.Generator) -> dict:
    """Two rows, the first of which holds all kinds of tokens and the second as often none that is anybody's."""
    entities = 3
    options: dict[str, Tensor | bool] = {}
    if weights:
        log_weights = torch.randn(2, tokens, generator=draw)
        log_weights[torch.rand(2, tokens, generator=draw) < 0.2] = -INF
        options["log_weights"] = log_weights
    if hidden:
        options["hidden_weight"] = torch.rand(2, generator=draw)
    if feature == "plain":
        return options
    bits = torch.randint(-1, 1 << entities, (2, tokens), generator=draw, dtype=torch.int32)
    bits[:, 1] = 1
    bits[1] = bits[1] if tokens % 2 else -1
    options["entity_bits"] = bits
    if feature == "owner":
        options["owner"] = torch.randint(-1, entities, (2, queries), generator=draw, dtype=torch.int8)
    elif feature != "vote":
        options["affinity"] = torch.rand(2, tokens, entities, generator=draw)
    options["share_heads"] = feature == "shared"
    return options


@pytest.mark.parametrize(
    ("form", "feature"),
    [("prompt", feature) for feature in ("plain", "owner", "vote", "affinity")]
    + [("swept", feature) for feature in ("plain", "owner", "vote", "affinity", "shared")],
)
def test_every_combination(form, feature, device, monkeypatch):
    lot = random.Random(f"{form} {feature}")
    taken = []
    for dtype, weights, hidden, renormalize in combinations(feature):
        fewest, most, groups = lot.choice(FORMS[form])
        head_dim, tokens = lot.choice((8, 16, 40)), lot.randint(fewest, most)
        queries = lot.randint(17, 33)  # of fewer the low dtype's error, and with it the budget, is luck
        monkeypatch.setattr(cross_attention, "cross_attention_form", lambda *_: form)
        monkeypatch.setattr(cross_attention, "held_groups", lambda *_, groups=groups: taken.append(groups) or groups)
        draw = torch.Generator().manual_seed(lot.randrange(1 << 30))
        heads = 2 if feature == "shared" else 1
        q, k, v = random_inputs(2, heads, queries, tokens, head_dim, dtype, device, seed=lot.randrange(1 << 30))
        options = drawn_options(feature, weights, hidden, queries, tokens, draw)
        options = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in options.items()}
        check_cross_attention(q, k, v, "triton", **options, renormalize=renormalize)
    assert set(taken) == ({0, 1, 2} if form == "swept" and not torch.cuda.is_available() else set(taken))
