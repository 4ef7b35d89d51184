"""What the pictures are drawn from, without drawing them: matplotlib is an extra."""

import doctest

from attnmod.benchmarks import plots
from attnmod.benchmarks.shapes import cross_points, self_points


def row(provider: str, op: str, shape: str, p50: float | None, cache: str = "warm") -> dict:
    return {"provider": provider, "op": op, "shape": shape, "p50": p50, "cache": cache}


def test_the_floors():
    assert doctest.testmod(plots).failed == 0
    cross = plots.floors_us(2, 10, 4096, 77, 64)
    assert round(cross["bytes"], 1) == 6.4  # DESIGN.md, section 5
    assert round(plots.floors_us(2, 20, 1024, 77, 64)["bytes"], 1) == 3.4


def test_a_line_varies_one_thing():
    rows = [
        row("ours", "cross vote", "sdxl 2x10x4096x64 T=77 G=4", 0.008),
        row("ours", "cross vote", "sdxl 2x10x4096x64 T=16 G=4", 0.007),
        row("ours", "cross vote", "sdxl 2x10x4096x64 T=77 G=8", 0.009),
        row("ours", "cross vote", "sdxl 2x20x1024x64 T=154 G=4", 0.005),
        row("peer", "cross plain", "sdxl 2x10x4096x64 T=77 G=4", 0.010),
        row("peer", "cross plain", "sdxl 2x10x4096x64 T=16 G=4", None),
        row("ours", "cross vote", "sdxl 2x10x4096x64 T=231 G=4", 0.020, cache="cold"),
    ]
    found = plots.points(rows)
    assert len(found) == 5
    (by_tokens,) = plots.lines(found, "tokens").values()
    assert by_tokens == [(16, 7.0), (77, 8.0)]
    (by_entities,) = plots.lines(found, "entities").values()
    assert by_entities == [(4, 8.0), (8, 9.0)]
    assert plots.lines(found, "batch") == {}


def test_the_measured_points_are_what_is_asked_for():
    """SDXL at three sizes and SD 1.5; batch 1, 2, 8; prompts from 16 to 512; 1 to 32 entities; four temperatures."""
    cross, own = cross_points(toy=False), self_points(toy=False)
    for shapes in ({shape for shape, _ in own}, {shape for shape, _, _ in cross}):
        assert {shape.model for shape in shapes} == {
            "sdxl-1024x1024",
            "sdxl-832x1216",
            "sdxl-2048x2048",
            "sd15-512x512",
        }
        assert {shape.batch for shape in shapes} == {1, 2, 8}
        assert {shape.head_dim for shape in shapes} == {40, 64, 80, 160}
    assert {tau for _, tau in own} == {1.0, 0.8, 0.5, 0.3}
    assert {tokens for _, tokens, _ in cross} == {16, 77, 154, 231, 512}
    assert {entities for _, _, entities in cross} == {1, 2, 4, 8, 16, 32}
    assert len(set(cross)) == len(cross)
    assert len(set(own)) == len(own)
