"""Singulars of nouns, good enough for looking them up, and how word lists are written."""


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def singular(word: str) -> str:
    """A crude singular, good enough for looking a noun up.

    >>> [singular(word) for word in ("dresses", "cats", "cities", "glass", "knives", "women", "left")]
    ['dress', 'cat', 'city', 'glass', 'knife', 'woman', 'left']
    """
    word = word.lower()
    if word in IRREGULAR_PLURALS:
        return IRREGULAR_PLURALS[word]
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("sses", "shes", "ches", "xes", "zes")):
        return word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 2:
        return word[:-1]
    return word


IRREGULAR_PLURALS = {
    "men": "man", "women": "woman", "children": "child", "people": "person", "mice": "mouse", "feet": "foot",
    "teeth": "tooth", "geese": "goose", "knives": "knife", "leaves": "leaf", "wolves": "wolf", "shelves": "shelf",
    "loaves": "loaf", "glasses": "glasses", "clothes": "clothes", "jeans": "jeans", "pants": "pants",
    "shorts": "shorts", "trousers": "trousers", "mars": "mars", "beaches": "beach", "dresses": "dress", "wives": "wife",
    "scarves": "scarf", "tomatoes": "tomato", "potatoes": "potato", "skis": "ski", "halves": "half", "hooves": "hoof",
    "calves": "calf", "elves": "elf", "heroes": "hero", "volcanoes": "volcano", "mangoes": "mango", "busses": "bus",
    "buses": "bus", "lenses": "lens", "thieves": "thief", "cacti": "cactus", "oxen": "ox", "dice": "dice",
    "gloves": "glove",
    "sleeves": "sleeve", "waves": "wave", "caves": "cave", "olives": "olive", "stoves": "stove", "doves": "dove",
}  # fmt: skip
