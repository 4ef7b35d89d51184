"""The English prompts that ask for a scene of the little world (`world.py`), in several templates."""

import numpy as np

from attnmod.benchmarks.miniature.world import (
    COLOURS,
    GROUNDS,
    LIGHTS,
    SHAPES,
    SIZES,
    TEXTURES,
    Scene,
    Thing,
    draw_scene,
)

_COUNT_WORDS = {2: "two", 3: "three", 4: "four"}
_LIGHT_PHRASES = {"day": ["in daylight", "during the day"], "dusk": ["at dusk"], "night": ["at night"]}
_LOOSE_LIGHT_PHRASES = {"day": ["by day"]}


def write_prompt(scene: Scene, rng: np.random.Generator, loose: bool = False) -> str:
    """One of many English ways to ask for the scene; everything said in it is in the scene and the reverse.

    Args:
        scene: what to ask for.
        rng: chooses the phrasing.
        loose: also phrasings that attnmod's parser reads otherwise than they are meant ("on snow" is to it a
            thing, "an orange striped square" an orange). They are trained on, but no measurement uses them.
    """
    phrases = [_noun_phrase(thing, rng, loose) for thing in scene.things]
    if scene.relation is not None:
        link = scene.relation if scene.relation in ("above", "below") else f"to the {scene.relation}"
        text = f"{phrases[0]} {link} {phrases[1]}"
    elif len(phrases) == 1:
        text = phrases[0]
    else:
        text = f"{', '.join(phrases[:-1])} and {phrases[-1]}"

    scenery = []
    if scene.ground is not None:
        on_it = [f"on {scene.ground}", f"on the {scene.ground}"]
        scenery.append(_choose(rng, [f"in the {scene.ground}"], loose, on_it))
    if scene.light is not None:
        scenery.append(_choose(rng, _LIGHT_PHRASES[scene.light], loose, _LOOSE_LIGHT_PHRASES.get(scene.light, [])))
    if rng.random() < 0.5:
        scenery.reverse()
    scenery_first = bool(scenery) and rng.random() < 0.3
    verb = "there is" if scene.things[0].count == 1 else "there are"
    opening = _choose(rng, ["", "", "", f"{verb} "] + ["a picture of "] * (not scenery_first), loose, ["a drawing of "])
    if scenery_first:
        return f"{', '.join(scenery)}, {opening}{text}"
    comma = ", " if len(scenery) != 1 or rng.random() < 0.5 else " "
    return comma.join([opening + text, *scenery])


def vocabulary(prompts: int = 4_000) -> dict[str, list[str]]:
    """The words of the training's prompts, by kind; those of none of the kinds are "others"."""
    kinds = {
        "shapes": {f"{shape}{ending}" for shape in SHAPES for ending in ("", "s", "es")},
        "colours": set(COLOURS),
        "textures": set(TEXTURES),
        "sizes": set(SIZES),
        "numbers": {"a", "an", *_COUNT_WORDS.values()},
        "relations": {"left", "right", "above", "below"},
        "scenery": {"daylight", *LIGHTS, *GROUNDS},
    }
    written: set[str] = set()
    for index in range(prompts):
        rng = np.random.default_rng((8, index))
        written |= set(write_prompt(draw_scene(rng), rng, loose=True).replace(",", "").split())
    known = {kind: sorted(words & written) for kind, words in kinds.items()}
    return {**known, "others": sorted(written - set().union(*kinds.values()))}


def _choose(rng: np.random.Generator, phrases, loose: bool, loose_phrases) -> str:
    return str(rng.choice([*phrases, *loose_phrases] if loose else phrases))


def _noun_phrase(thing: Thing, rng: np.random.Generator, loose: bool) -> str:
    plural = thing.count > 1
    noun = thing.shape + ("es" if thing.shape == "cross" else "s") * plural
    number = _COUNT_WORDS.get(thing.count, "a")
    size = [thing.size] if thing.size else []
    texture = [thing.texture] if thing.texture else []
    if not plural and rng.random() < 0.15:  # "a small striped circle that is red"
        return " ".join([number, *size, *texture, noun, "that is", thing.colour])
    looks = [*texture, thing.colour]
    if loose and rng.random() < 0.5:
        looks.reverse()
    return " ".join([number, *size, *looks, noun]).replace("a orange", "an orange")
