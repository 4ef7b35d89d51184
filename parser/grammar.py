"""The grammar in one place: every rule in the order in which it is applied, each with what it does and an example.

    1 repairs     a word's part of speech is corrected                                known.py, evidence.py, repairs.py
    2 phrases     words become noun phrases                                           chunks.py
    3 roles       which phrases are things; places, styles and events are global      roles.py, style.py, abstract.py
    4 mentions    which phrases speak of what was named before                        mentions.py, people.py
    5 nesting     which thing is worn, held or owned by which                         links.py, people.py
    6 predicates  what is said of a thing behind its noun                             predicates.py
    7 the rest    becomes relations, actions and other global phrases                 globals.py

A rule is a function; its docstring is its definition: one sentence, and examples that the tests run. `python -m
attnmod.parser.grammar` prints them all.

>>> explain_rule("worn")
'clothes belong to who wears them'
"""

from collections.abc import Callable
from inspect import getdoc

from attnmod.parser.chunks import find_chunks
from attnmod.parser.globals import global_phrases
from attnmod.parser.links import NESTING
from attnmod.parser.mentions import pronouns, same_thing
from attnmod.parser.people import of_the_person, what_the_person_is
from attnmod.parser.predicates import after_noun, predicate, scattered
from attnmod.parser.repairs import REPAIRS
from attnmod.parser.roles import ROLES

STEPS: dict[str, tuple[Callable, ...]] = {
    "repairs": REPAIRS,
    "phrases": (find_chunks,),
    "roles": ROLES,
    "mentions": (same_thing, what_the_person_is, pronouns),
    "nesting": (*NESTING, of_the_person),
    "predicates": (predicate, after_noun, scattered),
    "the rest": (global_phrases,),
}
_RULES = {rule.__name__: rule for rules in STEPS.values() for rule in rules}
_OTHERS = {
    "noun_phrase": "a noun with the words before it that describe it",
    "given": "given by hand",
    "weight_syntax": "signs that weigh words, and mean no thing",
    "attribute_of": "describes the noun",
}


def explain_rule(name: str) -> str:
    """What a rule does, in a sentence; the name itself if there is no such rule."""
    if name in _OTHERS:
        return _OTHERS[name]
    if name not in _RULES:
        return name
    sentence = (getdoc(_RULES[name]) or "").split("\n\n")[0]
    sentence = " ".join(sentence.split()).strip().rstrip(".")
    return sentence[:1].lower() + sentence[1:]


def main() -> None:
    for step, rules in STEPS.items():
        print(step)
        for rule in rules:
            print(f"  {rule.__name__}\n    " + (getdoc(rule) or "").replace("\n", "\n    ").rstrip())


if __name__ == "__main__":
    main()
