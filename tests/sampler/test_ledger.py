"""What a modulated step of SDXL's full UNet issues beside the stock one, counted on the meta device."""

import json

import pytest

from benchmarks.ledger import RESULTS, ledgers

LAYERS = 70  # of cross-attention, and as many of self-attention


@pytest.fixture
def rows(counted):
    return {name: dict(row) for name, row in counted.items()}


@pytest.fixture(scope="module")
def counted():
    return {name: ledger.row() for name, ledger in ledgers().items()}


def test_neutral_is_stock(rows):
    assert rows["neutral"] == rows["stock"]


def test_every_attention_stays_one_call(rows):
    """One owner map asks the last layer of the size that decides once more; balancing, of each of SDXL's two sizes."""
    more = {"everything on": 1, "everything on, as described": 2}
    for name, row in rows.items():
        assert row["attention calls"] == 2 * LAYERS + more.get(name, 0), name


def test_the_text_is_not_projected_again(rows):
    """140 products, 0.105 TFLOP and 0.68 GB of weights a step; two small ones smooth the owner map."""
    stock, on = rows["stock"], rows["everything on"]
    assert stock["matrix products"] - on["matrix products"] == 2 * LAYERS - 2
    assert stock["products GFLOP"] - on["products GFLOP"] == pytest.approx(105, abs=1)
    assert stock["products MB"] - on["products MB"] > 680


def test_calls_besides(rows):
    """A few dozen calls set a step's values, and nothing grows with the number of layers."""
    products = 2 * LAYERS
    for name, row in rows.items():
        saved = 0 if name in ("stock", "neutral", "temperature") else products
        assert row["calls"] - (rows["stock"]["calls"] - saved) <= 60, name


def test_the_committed_table_is_this_one(rows):
    """Up to the calls, of which another version of torch or diffusers may need more or fewer."""
    committed = json.loads((RESULTS / "ledger.json").read_text(encoding="utf-8"))
    for row in (*committed.values(), *rows.values()):
        row.pop("calls")
    assert committed == rows
