"""How the miniature is assessed, with drawn pictures in the place of its own."""

import numpy as np
import pytest

from attnmod.benchmarks.miniature import assess as assessing
from attnmod.benchmarks.miniature.assess import GROUPS, as_table, assess, summarise
from attnmod.benchmarks.miniature.prompts import write_prompt
from attnmod.benchmarks.miniature.world import render


@pytest.fixture
def asked(monkeypatch):
    """text -> the scene that was asked for."""
    scenes = {}

    def note(scene, rng):
        text = write_prompt(scene, rng)
        scenes[text] = scene
        return text

    monkeypatch.setattr(assessing, "write_prompt", note)
    return scenes


def test_pictures_of_what_was_asked_for_are_right(asked, monkeypatch):
    def draw(_pipe, texts, **_options):
        return np.stack([render(asked[text], np.random.default_rng(0)).pixels for text in texts])

    monkeypatch.setattr(assessing, "draw_samples", draw)
    summary = summarise(assess(None, prompts=3, split="test", steps=1, guidance_scale=1.0, groups=("single", "2")))
    assert {group: row["pictures"] for group, row in summary.items()} == {"single": 3, "2": 3}
    for row in summary.values():
        assert row["right"]["whole prompt"] == 1
        assert not any(row["mistakes"].values())


def test_empty_pictures_are_wrong(asked, monkeypatch):
    monkeypatch.setattr(
        assessing, "draw_samples", lambda _pipe, texts, **_options: np.full((len(texts), 64, 64, 3), 210, np.uint8)
    )
    summary = summarise(assess(None, prompts=2, split="test", steps=1, guidance_scale=1.0, groups=("single",)))
    assert summary["single"]["right"]["content"] == 0
    assert summary["single"]["mistakes"]["lost"] == 2
    assert "| single | 2 | 0.00 | 0.00 |" in as_table(summary)


def test_a_single_object_is_one(asked, monkeypatch):
    monkeypatch.setattr(
        assessing, "draw_samples", lambda _pipe, texts, **_options: np.zeros((len(texts), 64, 64, 3), np.uint8)
    )
    assess(None, prompts=20, split="train", steps=1, guidance_scale=1.0, groups=("single",))
    assert {sum(thing.count for thing in scene.things) for scene in asked.values()} == {1}
    asked.clear()
    assess(None, prompts=20, split="train", steps=1, guidance_scale=1.0, groups=("1",))
    assert {sum(thing.count for thing in scene.things) for scene in asked.values()} > {1}
    assert GROUPS[0] == "single"
