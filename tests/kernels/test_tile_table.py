"""The table of tiles: what ships can be read; a user's own is taken where it fits, else refused aloud."""

import json

import pytest
import torch

from attnmod.kernels import configs, ops, tile_table
from attnmod.kernels.tile_table import Entry, Tiles

CARD = "NVIDIA H100 80GB HBM3"
OWN = Entry("self_attention", "sm_90", 64, "long", Tiles(128, 64, 8, 3, options=("overlap",)), measured=CARD)


@pytest.fixture
def own_path(monkeypatch, tmp_path):
    """Where the user's table is to be, on a machine with that card; afterwards the table is read anew."""
    path = tmp_path / "attnmod" / "tiles.json"
    monkeypatch.setenv("ATTNMOD_TILES", str(path))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: CARD)
    tile_table.table.cache_clear()
    yield path
    tile_table.table.cache_clear()


def test_every_op_and_head_dim_has_tiles_on_every_architecture():
    table = tile_table.TileTable()
    for head_dim in (16, 32, 64, 128, 256):
        for op, shapes in (
            ("self_attention", ("long", "short")),
            ("cross_attention", ("prompt long", "prompt short", "swept")),
        ):
            for shape in shapes:
                assert table.find(op, "sm_42", head_dim, shape).architecture == "any"
    assert len(table.entries) == len(tile_table.read(tile_table.SHIPPED))  # no key twice


def test_a_users_table_lies_over_the_shipped_one(own_path):
    tile_table.write(own_path, [OWN], CARD)
    assert configs.self_attention_tiles("sm_90", 64, 4096, 2) == OWN.tiles
    assert configs.self_attention_tiles("sm_90", 64, 1024, 2) != OWN.tiles
    assert configs.self_attention_tiles("sm_86", 64, 4096, 2) != OWN.tiles


def test_a_form_of_the_gluon_kernel_is_kept(own_path):
    one = Entry("self_attention", "sm_90", 64, "long", Tiles(192, 128, 4, 2, 1, 160, ("persistent",), "gluon"))
    tile_table.write(own_path, [one, OWN], CARD)
    assert tile_table.read(own_path) == [one, OWN]


def test_the_users_folder_is_looked_at(own_path, monkeypatch):
    monkeypatch.delenv("ATTNMOD_TILES")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(own_path.parents[1]))
    tile_table.write(own_path, [OWN], CARD)
    assert configs.self_attention_entry("sm_90", 64, 4096) == OWN


def test_what_is_in_use_is_told(own_path):
    assert ops.tiles_in_use() == f"the ones that ship; `attnmod bench tune` makes {own_path} for this card"
    tile_table.write(own_path, [OWN], CARD)
    assert ops.tiles_in_use() == f"{own_path}, over the ones that ship"
    tile_table.write(own_path, [OWN], "another card")
    assert "ignored: it was made on another card" in ops.tiles_in_use()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"device": "another card"}, f"made on another card, and here is {CARD}"),
        ({"triton": "2.1.0"}, "made with Triton 2.1.0"),
        ({"format": 7}, "format 7; this attnmod reads 1"),
        ({"entries": []}, "no entries"),
        ({"entries": 3}, "a list of entries"),
        ({"entries": [{"op": "attention"}]}, "entry 0"),
        ({"entries": [5]}, "an entry is an object"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_table_that_does_not_fit_is_ignored_and_said_so(own_path, change, says):
    tile_table.write(own_path, [OWN], CARD)
    own_path.write_text(json.dumps(json.loads(own_path.read_text()) | change))
    with pytest.warns(UserWarning, match=f"tiles.json is ignored: .*{says}"):
        tiles = configs.self_attention_tiles("sm_90", 64, 4096, 2)
    assert tiles == tile_table.TileTable().find("self_attention", "sm_90", 64, "long").tiles


@pytest.mark.parametrize("text", [None, "", "[]", '{"format": 1'])
def test_a_named_table_that_is_none_is_told_of(own_path, text):
    if text is not None:
        own_path.parent.mkdir()
        own_path.write_text(text)
    with pytest.warns(UserWarning, match="is ignored"):
        configs.self_attention_entry("sm_90", 64, 4096)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"block_m": 48}, "block_m is a power of two; it was 48"),
        ({"block_n": 0}, "block_n is a power of two"),
        ({"num_warps": -4}, "num_warps is a whole number, not negative"),
        ({"num_stages": "3"}, "num_stages is a whole number"),
        ({"options": ["fast"]}, "options are some of overlap"),
        ({"op": "attention"}, "op is one of"),
        ({"backend": "flash"}, "backend is triton or sdpa"),
        ({"colour": 3}, "colour"),
        ({"shape": 3}, "shape is a text"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_entries_are_checked(tmp_path, change, says):
    path = tmp_path / "tiles.json"
    tile_table.write(path, [OWN])
    content = json.loads(path.read_text())
    content["entries"][0] |= change
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"entry 0: .*{says}"):
        tile_table.read(path)


def test_what_is_written_is_read_back(tmp_path):
    entries = tile_table.read(tile_table.SHIPPED)
    tile_table.write(tmp_path / "tiles.json", entries)
    assert tile_table.read(tmp_path / "tiles.json") == entries
    assert (tmp_path / "tiles.json").read_text() == tile_table.SHIPPED.read_text()


def test_an_installed_entry_makes_what_was_derived_old():
    table = tile_table.TileTable()
    before = table.generation
    table.install([OWN])
    assert table.generation > before
    assert table.find("self_attention", "sm_90", 64, "long") == OWN


@pytest.mark.parametrize(("triton", "taken"), [("3.6.0", True), ("3.6.1", True), ("3.9.0", False), ("3.60.0", False)])
def test_the_gluon_kernel_ships_for_the_triton_that_it_was_measured_with(monkeypatch, triton, taken):
    monkeypatch.setattr(configs, "triton_version", lambda: triton)
    assert (configs.gluon_tiles("sm_90", 64, 4096) is not None) == taken
    assert configs.gluon_tiles("sm_80", 64, 4096) is None
