"""Makes parser/data/nouns.txt, the evidence of what English nouns name, from WordNet 3.0's own files.

    python -m attnmod.parser.make_nouns FOLDER      where data.noun, index.* and cntlist.rev lie (Debian: wordnet-base)

A line a noun: the word, the kind of thing that it mostly names, and two digits: how much of its use as a noun is for
things that can be seen (0 to 9), and how much of its use is as a noun at all. Use is counted in WordNet's own tagged
texts, with a little for senses that occur in none. Kinds: c clothing, b body, h human, n animal, t other thing, m
stuff, p place, w weather and light, s style, medium or genre, d time, a abstract, - a word that is no noun. The
licence lies beside the file.
"""

import re
import sys
from collections import defaultdict
from pathlib import Path

# WordNet's lexicographer files
_KINDS = {
    3: "a", 4: "a", 5: "n", 6: "t", 7: "a", 8: "b", 9: "a", 10: "k", 11: "a", 12: "a", 13: "t", 14: "g", 15: "p", 16:
        "a",
    17: "t", 18: "h", 19: "w", 20: "t", 21: "t", 22: "a", 23: "a", 24: "a", 25: "t", 26: "a", 27: "m", 28: "d",
}  # fmt: skip
# of the file of what everything is a kind of
_TOPS = {
    "person": "h", "animal": "n", "plant": "t", "food": "t", "object": "t", "artifact": "t", "organism": "t",
    "substance": "m",
    "physical_object": "t",
}  # fmt: skip
_SEEN = frozenset("cbhntm")
# synsets whose kinds of are worn; the word, and the sense of it that is meant
_WORN = (
    ("clothing", 1), ("garment", 1), ("footwear", 1), ("footwear", 2), ("headdress", 1), ("accessory", 1), ("jewelry",
    1),
    ("body_armor", 1), ("spectacles", 1), ("uniform", 1), ("adornment", 1), ("mask", 1), ("mask", 4), ("hairpiece", 1),
    ("goggles", 1), ("handwear", 1), ("neckwear", 1), ("belt", 2), ("backpack", 1), ("life_jacket", 1), ("armor", 1),
)  # fmt: skip
_STYLED = (
    ("genre", 1), ("artistic_style", 1), ("style", 1), ("photography", 1), ("print", 2), ("picture", 1),
    ("graphic_art", 1),
    ("art_form", 1), ("perspective", 2), ("painting", 2), ("art_movement", 1), ("film", 1),
)  # fmt: skip
_PLAIN = re.compile(r"[a-z]+(?:-[a-z]+){0,2}")


def read_synsets(folder: Path) -> dict[str, tuple[int, list[str], bool]]:
    """Of each synset its lexicographer file, what it is a kind of, and whether it is one of a kind (a name)."""
    synsets = {}
    for line in (folder / "data.noun").read_text(encoding="latin-1").splitlines():
        if line.startswith(" "):
            continue
        fields = line.split(" | ")[0].split()
        place = 4 + 2 * int(fields[3], 16)
        pointers = fields[place + 1 : place + 1 + 4 * int(fields[place])]
        above = [pointers[i + 1] for i in range(0, len(pointers), 4) if pointers[i] in ("@", "@i")]
        named = any(pointers[i] == "@i" for i in range(0, len(pointers), 4))
        synsets[fields[0]] = (int(fields[1]), above, named)
    return synsets


def read_index(folder: Path, name: str) -> dict[str, list[str]]:
    """Of each word its synsets, the one most used first."""
    index = {}
    for line in (folder / f"index.{name}").read_text(encoding="latin-1").splitlines():
        if not line.startswith(" "):
            fields = line.split()
            index[fields[0]] = fields[-int(fields[2]) :]
    return index


def read_counts(folder: Path) -> dict[tuple[str, str, int], int]:
    """How often (word, part of speech, sense number) was tagged."""
    counts: dict[tuple[str, str, int], int] = defaultdict(int)
    letters = {"1": "noun", "2": "verb", "3": "adj", "4": "adv", "5": "adj"}
    for line in (folder / "cntlist.rev").read_text(encoding="latin-1").splitlines():
        key, sense, count = line.split()
        word, _, rest = key.partition("%")
        counts[word, letters[rest[0]], int(sense)] += int(count)
    return counts


def main(folder: Path, out: Path) -> None:
    synsets = read_synsets(folder)
    indices = {name: read_index(folder, name) for name in ("noun", "verb", "adj", "adv")}
    counts = read_counts(folder)

    def below(roots: tuple[tuple[str, int], ...]) -> set[str]:
        found = {
            indices["noun"][word][sense - 1] for word, sense in roots if len(indices["noun"].get(word, ())) >= sense
        }
        under = defaultdict(list)
        for number, (_, above, _) in synsets.items():
            for one in above:
                under[one].append(number)
        waiting = list(found)
        while waiting:
            for one in under[waiting.pop()]:
                if one not in found:
                    found.add(one)
                    waiting.append(one)
        return found

    worn, styled = below(_WORN), below(_STYLED)

    tops = {synset: _TOPS[word] for word in _TOPS for synset in indices["noun"].get(word, ())[:1]}

    def kind_of(number: str) -> str:
        if number in styled:
            return "s"
        if number in tops:
            return tops[number]
        return "c" if number in worn and synsets[number][0] == 6 else _KINDS[synsets[number][0]]

    lines = []
    for word, senses in sorted(indices["noun"].items()):
        parts = word.split("_")
        if len(parts) > 3 or not all(map(_PLAIN.fullmatch, parts)) or all(synsets[one][2] for one in senses):
            continue
        use: dict[str, float] = defaultdict(float)
        for number, synset in enumerate(senses, start=1):
            use[kind_of(synset)] += counts[word, "noun", number] + 1 / number
        total = sum(use.values())
        seen = sum(use[kind] for kind in _SEEN) + 0.5 * (use["g"] + use["k"] + use["w"])
        best = max(use, key=lambda kind: use[kind])
        other = sum(
            counts[word, name, number] + 1 / number
            for name in ("verb", "adj", "adv")
            for number in range(1, len(indices[name].get(word, ())) + 1)
        )
        if len(parts) > 1 and best != "s" and (best not in "cbhntm" or seen < 0.5 * total):
            continue  # of compounds only things are looked for
        kind = {"g": "t", "k": "a"}.get(best, best)
        lines.append(f"{word} {kind}{int(9 * seen / total)}{int(9 * total / (total + other))}")
    known = set(indices["noun"])
    for word in sorted({word for name in ("verb", "adj", "adv") for word in indices[name]} - known):
        if _PLAIN.fullmatch(word):
            lines.append(f"{word} -00")
    out.write_text("\n".join(sorted(lines)) + "\n")
    print(f"{len(lines)} nouns in {out}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(__file__).parent / "data" / "nouns.txt")
