"""The shipped miniature: a pipeline of SDXL's architecture that has learned a little world of shapes.

Its folder is a `StableDiffusionXLPipeline`, made by `python -m benchmarks.miniature.export`, with its card (README.md)
and the words that it was trained on (words.json).
"""

import json
import re
from pathlib import Path

MINIATURE = Path(__file__).parent / "data" / "miniature"


def is_shipped() -> bool:
    """Whether this installation holds the miniature."""
    return (MINIATURE / "model_index.json").is_file()


def known_words() -> dict[str, list[str]]:
    """The words that it was trained on, by kind: shapes, colours, textures, sizes, numbers, scenery, others."""
    return json.loads((MINIATURE / "words.json").read_text(encoding="utf-8"))


def beyond_the_world(prompt: str) -> str | None:
    """What a prompt asks for that the miniature cannot know, as a warning that says what it knows; or None."""
    words = known_words()
    known = {word for kind in words.values() for word in kind}
    unknown = list(dict.fromkeys(word for word in re.findall(r"[^\W\d_]+", prompt.lower()) if word not in known))
    if not unknown:
        return None
    told = "; ".join(f"{kind} ({', '.join(words[kind])})" for kind in words if kind != "others")
    return f"the built-in miniature has never seen the words {', '.join(unknown)}. It knows {told}"
