import math

import pytest

from attnmod import Curve
from attnmod.sampler.schedule import SHAPES, progress_table


@pytest.mark.parametrize("kind", [kind for kind in SHAPES if kind != "constant"])
def test_curves_meet_their_ends_exactly_and_are_monotone(kind):
    curve = Curve(kind, 0.25, 2.0, begin=0.2, stop=0.8)
    assert curve(0.0) == curve(0.2) == 0.25
    assert curve(0.8) == curve(1.0) == 2.0
    assert curve(0.2 + 1e-9) == pytest.approx(0.25, abs=1e-6)  # no jump at the window's edges
    assert curve(0.8 - 1e-9) == pytest.approx(2.0, abs=1e-6)
    assert curve(0.5) == pytest.approx((0.25 + 2.0) / 2)
    values = [curve(u / 200) for u in range(201)]
    assert values == sorted(values)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("linear", 0.25), ("cosine", (1 - math.cos(math.pi / 4)) / 2), ("sigmoid", 0.0701)],
)
def test_shapes_at_a_quarter(kind, expected):
    assert Curve(kind, 0.0, 1.0)(0.25) == pytest.approx(expected, abs=1e-4)


def test_a_step():
    curve = Curve("linear", 0.5, 1.0, begin=0.3, stop=0.3)
    assert [curve(u) for u in (0.0, 0.29, 0.3, 1.0)] == [0.5, 0.5, 1.0, 1.0]


def test_outside_the_run_the_nearer_end_holds():
    curve = Curve("linear", 1.0, 3.0)
    assert (curve(-0.5), curve(1.5)) == (1.0, 3.0)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (dict(kind="cubic", start=1), "cubic"),
        (dict(kind="linear", start=1, end=-0.1), "end"),
        (dict(kind="linear", start=math.nan, end=1), "start"),
        (dict(kind="linear", start=1, end=math.inf), "end"),
        (dict(kind="linear", start=1, end=True), "end"),
        (dict(kind="linear", start=1, end=2, begin=0.6, stop=0.5), "window"),
        (dict(kind="linear", start=1, end=2, stop=1.1), "window"),
        (dict(kind="constant", start=1, end=2), "constant"),
    ],
)
def test_bad_curves_are_refused_by_name(arguments, named):
    with pytest.raises(ValueError, match=named):
        Curve(**arguments)


def test_from_numbers_and_dicts_and_back():
    assert Curve.of(0.5) == Curve("constant", 0.5)
    curve = Curve("cosine", 0.1, 0.9, 0.2, 0.6)
    assert Curve.of(curve.to_dict()) == curve
    with pytest.raises(ValueError, match="kinds"):
        Curve.of({"kinds": "linear", "start": 1})
    with pytest.raises(ValueError, match="start"):
        Curve.of({"kind": "linear"})
    with pytest.raises(TypeError, match="list"):
        Curve.of([1, 2])


def test_the_table_runs_against_the_timesteps():
    """t = T_train is pure noise (u = 0), t = 0 the image (u = 1)."""
    curve = Curve("linear", 1.0, 2.0)
    table = progress_table([curve, Curve("constant", 7.0)], 10)
    assert len(table) == 11
    assert table[10] == [1.0, 7.0]
    assert table[0] == [2.0, 7.0]
    assert table[4][0] == pytest.approx(1.6)
