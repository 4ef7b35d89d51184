"""What prompts carry besides language, and where a phrase may not cross."""

import pytest

from attnmod.parser.describe import outline
from attnmod.parser.notation import read_notation
from attnmod.parser.syntax import parse_prompt

READINGS = {
    # Midjourney
    "a pear on a plate, painterly --ar 2:3 --v 6 --style raw": "pear x1; plate x1; [relation: on]; [style: painterly]",
    "/imagine prompt: a glass harp --q 2": "harp x1: glass",
    "a tower, tall spires --no clouds, birds --ar 1:1": "tower x1; spires: tall; not clouds; not birds",
    "a red fox::2 a green hill::1": "fox x1: red; hill x1: green",
    "a fox \u2014ar 16:9": "fox x1",
    "a fox \u2014 red and small": "fox x1",
    # A1111 and ComfyUI
    "a [red:blue:0.5] boat": "boat x1: red, blue; [other: [red:blue:0.5]]",
    "a {cat|dog} on a mat": "cat x1; dog; mat x1; [relation: on]",
    "a __animal__ on a mat, embedding:easy": "mat x1; [relation: on]",
    "a red boat AND a green hat": "boat x1: red; hat x1: green",
    "red hair BREAK blue dress": "hair: red; dress: blue",
    # NovelAI, textual inversion
    "1.3::silver helmet::, 0.7::green cape::": "helmet: silver; cape: green",
    "a photo of a <my-toy> box on a <shelf>": "box x1: <my-toy>; <shelf> x1; [style: a photo of]; [relation: on]",
    # commas, lines, hyphens
    "a hen,3 chicks,4k": "hen x1; chicks x3; [style: 4k]",
    "1,000 birds": "birds x1000",
    "a red barn\n- two white horses\n- a black tractor": "barn x1: red; horses x2: white; tractor x1: black",
    "Subject: a red hen\nStyle: thick oil on canvas": "hen x1: red; [style: thick oil on canvas]",
    "an inn, sci - fi, long_hair": "inn x1; hair: long; [style: sci - fi]",
    "calm and quiet, pale gold and teal palette, a lamp": "lamp x1",
    # other languages
    "un chat noir sur un toit rouge": "",
    "ein Ritter mit goldenem Helm": "",
    "a red cat, un chien noir sur un toit": "cat x1: red",
    "a red cat \u548c\u4e00\u53ea\u72d7 on a mat": "cat x1: red; mat x1; [relation: on]",
}


def without_other(said):
    """Bits of signs inside entities, and what the readings above leave open."""
    return "; ".join(part for part in said.split("; ") if not part.startswith("[other:"))


@pytest.mark.parametrize(("text", "said"), READINGS.items(), ids=lambda value: value[:30])
def test_reading(text, said):
    prompt = parse_prompt(text)
    assert prompt.text == text
    kept = without_other(outline(prompt))
    styles = "palette" in text
    assert (kept.split("; [style")[0] if styles else kept) == without_other(said)


@pytest.mark.parametrize("text", [text for text in READINGS if not READINGS[text] or "un chien" in text])
def test_another_language_is_said(text):
    assert any("another language" in warning for warning in parse_prompt(text).warnings)


def test_segments_have_the_raw_offsets():
    text = "Subject: a hen\n- two eggs, cinematic"
    segments = read_notation(text).segments
    assert [(text[one.start : one.end], one.kind, one.label) for one in segments] == [
        ("a hen", "label", "subject"),
        ("two eggs, cinematic", "bullet", ""),
    ]
    tags = parse_prompt("1girl, hat, sword").segments
    assert [("1girl, hat, sword"[start:end], kind) for start, end, kind in tags] == [
        ("1girl", "tag"),
        ("hat", "tag"),
        ("sword", "tag"),
    ]


@pytest.mark.parametrize("text", ["a (red hat:1.3) --v 6 \ud800", "x" * 500, "\n\n- \n", "a\u2028b", "::" * 50])
def test_the_readable_text_keeps_every_offset(text):
    assert len(read_notation(text).readable) == len(text)
