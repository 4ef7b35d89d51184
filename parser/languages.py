"""Which stretches of a text are not English: another script, or another language's little words."""

import re
from itertools import pairwise

from attnmod.parser.lexicon import words
from attnmod.parser.nouns import is_known

# little words of some other languages that English, names and artists' names do not have
_FOREIGN = words(
    "un une les avec dans et sur est del los las con una y eine einen einem einer ein und mit der das ist auf im il "
    "gli "
    "della uma com na em een het dans sous avec devant chez sin por para unos dos ist sind nella degli og och som av "
    "med "
    "jest oraz nad pod pour aux entre sopra sotto ao dos das os um vor neben unter sobre junto"
)
# as little, but said in English and in names too: they count beside one of those above
_SHARED = words("la le el de di a in en an on pas do da du van von des se su al o i e")
_ENGLISH = words(
    "a an the and or of in on at with to by from for is are was were be it its his her their this that these those "
    "as into "
    "near over under behind beside between above below through while who which has have no without up down out very "
    "wearing holding standing sitting one two three looking"
)
_WORD = re.compile(r"[^\W\d_]+")
_SCRIPT_WORD = re.compile(r"(?:[^\W\d_]|[\u0900-\u0dff])+")  # vowel signs of Indian scripts are no letters to Python
_OTHER_SCRIPT = re.compile(
    "[\u0250-\u02af\u0370-\u1dff\u1f00-\u1fff\u2c00-\ua71f\ua800-\ufaff\uff66-\uffdc\U00010000-\U0003ffff]"
)


def foreign_stretches(plain: str, segments: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Where no English is written: runs of another script, and segments or clauses of another language.

    >>> foreign_stretches("a red cat, un chien noir sur un toit", [(0, 36)])
    [(9, 36)]
    """
    found = []
    for start, end in segments:
        edges = [start, *(match.start() for match in re.finditer("[,;]", plain[start:end]))]
        edges = [start, *(start + place for place in edges[1:]), end]
        clauses = [(low, high) for low, high in pairwise(edges) if _is_foreign(plain[low:high])]
        found += clauses or ([(start, end)] if _is_foreign(plain[start:end]) else [])
    return _merged(sorted([*found, *_other_scripts(plain)]))


def _is_foreign(said: str) -> bool:
    spoken = _WORD.findall(said[:2000].lower())
    foreign = sum(word in _FOREIGN for word in spoken)
    if not foreign or len(spoken) < 3:
        return False
    shared = sum(word in _SHARED for word in spoken)
    english = sum(word in _ENGLISH and word not in _SHARED | _FOREIGN for word in spoken)
    unknown = sum(not _is_english(word) for word in spoken if word not in _FOREIGN | _SHARED)
    return english == 0 and (foreign + shared) * 6 >= len(spoken) and (foreign + shared >= 2 or unknown >= 1)


def _is_english(word: str) -> bool:
    return word in _ENGLISH or is_known(word)


def _other_scripts(plain: str) -> list[tuple[int, int]]:
    """Runs of words in another script; the blanks and signs between two of them belong to the run."""
    found: list[tuple[int, int]] = []
    for match in _SCRIPT_WORD.finditer(plain):
        if _OTHER_SCRIPT.search(match[0]):
            if found and not any(one.isalnum() for one in plain[found[-1][1] : match.start()]):
                found[-1] = (found[-1][0], match.end())
            else:
                found.append(match.span())
    return found


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in spans:
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged
