"""Words -> noun phrases: the part of the grammar that decides where a phrase begins and ends.

    phrase   = opener* modifier* noun+                         "the three very old oak trees"
    opener   = determiner | possessive | number
    modifier = adverb? adjective | participle | noun | colour pair | "," between adjectives

A dependency parse puts its noun phrases where its (often wrong) arcs are; "a blue shirt and red pants" comes out as
one. Reading the tags from left to right gets such prompts right, since they are plain lists of such phrases.
"""

from dataclasses import dataclass, field

from attnmod.parser.lexicon import (
    ARTICLES,
    COLOURS,
    DOZENS,
    HAVING,
    HOLDING,
    IRREGULAR_PLURALS,
    JOINED_PARTICIPLES,
    LINKING_VERBS,
    MATERIALS,
    NUMBERS,
    SINGULAR_DETERMINERS,
    WEARING,
    singular,
)
from attnmod.parser.words import Word


@dataclass(slots=True, eq=False)
class Chunk:
    """A noun phrase on its way to becoming an entity or a global phrase; all places are word indices.

    Attributes:
        first, stop: its words, stop exclusive.
        head: the noun.
        modifiers: the words that become attributes.
        opener: its first determiner, possessive or number in lower case, or "".
        count: how many, or None.
        role: entity, mention, attribute, scene, style, relation, action or other.
        rule: the name of the rule that decided last.
        parent: the chunk that this one is worn by, held by or a part of.
        height: how many levels of children are below.
        extras: further words of the entity, as (first, stop): predicates, quoted text.
        head_text: the noun's text if it stands elsewhere ("two green and one grey parrot").
        same: of a mention, what it mentions.
    """

    first: int
    stop: int
    head: int
    modifiers: list[int] = field(default_factory=list)
    opener: str = ""
    count: int | None = None
    role: str = "entity"
    rule: str = "noun_phrase"
    parent: "Chunk | None" = None
    height: int = 0
    negated: bool = False
    extras: list[tuple[int, int]] = field(default_factory=list)
    head_text: str = ""
    same: "Chunk | None" = None

    @property
    def is_thing(self) -> bool:
        """Whether parts can nest here: an entity, or a mention of one."""
        return self.role == "entity" or (self.role == "mention" and self.same is not None)

    def root(self) -> "Chunk":
        return self.chain()[-1]

    def chain(self) -> "list[Chunk]":
        """This chunk, its parent, and so on."""
        chain: list[Chunk] = [self]
        while (parent := _above(chain[-1])) is not None:
            if any(parent is one for one in chain):
                break  # no rule makes a ring, and any text must give a Prompt
            chain.append(parent)
        return chain


# words before the noun's adjectives: "all of the other two". More are no sentence, and each would be read anew from
# here
_MOST_OPENERS = 6


@dataclass(frozen=True, slots=True)
class Ahead:
    """What stands at and after each word, found once from right to left.

    Attributes:
        noun: whether modifiers, if any, and then a noun stand here.
        modified: whether at least one adjective, colour or material and then a noun stand here, without an opener.
    """

    noun: list[bool]
    modified: list[bool]


def look_ahead(words: list[Word]) -> Ahead:
    noun, modified = [False] * (len(words) + 1), [False] * (len(words) + 1)
    for place in range(len(words) - 1, -1, -1):
        word = words[place]
        named = word.pos == "noun"
        if word.pos in ("comma", "conjunction"):
            after = words[place - 1].pos if place else ""
            noun[place] = modified[place + 1] and after in ("adjective", "noun", "verb")
        else:
            describes = word.pos in ("adjective", "adverb") or (
                word.pos == "verb" and (word.participle or word.modifier)
            )
            describes = describes and word.lower not in WEARING | HOLDING | HAVING
            noun[place] = named or (describes and noun[place + 1])
        starts = word.pos in ("adjective", "adverb") or (word.pos == "verb" and word.participle)
        starts = starts or (named and word.lower in COLOURS | MATERIALS)
        modified[place] = starts and noun[place + 1]
    return Ahead(noun, modified)


def _above(chunk: Chunk) -> Chunk | None:
    return chunk.parent if chunk.parent is not None or chunk.same is None else chunk.same.parent


def find_chunks(words: list[Word]) -> list[Chunk]:
    """All noun phrases, from left to right."""
    ahead = look_ahead(words)
    chunks = []
    place = 0
    while place < len(words):
        chunk = _read_chunk(words, place, ahead)
        if chunk is None:
            place += 1
        else:
            chunks.append(chunk)
            place = chunk.stop
    return chunks


def _read_chunk(words: list[Word], first: int, ahead: Ahead) -> Chunk | None:
    """The noun phrase that begins at this word, if one does."""
    place = first
    number: int | None = None
    while place < min(len(words), first + _MOST_OPENERS):
        word = words[place]
        if word.pos == "possessive" and place == first and word.lower.startswith(("'", "\u2019")):
            return None  # the 's of an owner belongs to neither phrase
        half = word.lower == "half" and place + 2 < len(words) and words[place + 2].lower in DOZENS
        if half and words[place + 1].lower == "a":  # "half a dozen eggs"
            number, place = DOZENS[words[place + 2].lower] // 2, place + 2
        elif word.lower in DOZENS and place + 1 < len(words) and ahead.noun[place + 1]:
            number = DOZENS[word.lower] * (number or 1)
        elif word.pos == "number" and place + 1 < len(words):
            value = count_word(word.lower)
            if value is None:
                break  # "a 1960s diner", "the 2nd car"
            number = value if number is None else number  # "one hundred" has been read as one
        elif word.pos not in ("determiner", "possessive") or (place > first and word.lower in ("a", "an", "the")):
            break
        place += 1
    opener = words[first].lower if place > first else ""
    modifiers: list[int] = []
    nouns: list[int] = []
    # after "with" or "wearing" a noun must come: "with long, flowing hair" is no list of tags
    led = opener != "" or (first > 0 and words[first - 1].pos in ("preposition", "verb"))
    while place < len(words):
        if words[place].pos == "noun":
            nouns.append(place)
        elif _modifies(words, place, ahead, bool(opener), led, nouns, modifiers):
            if words[place].pos == "conjunction":
                modifiers, nouns = [*modifiers, *nouns], []  # the "gold" of "gold and white vase" was no noun
            elif words[place].pos != "comma":
                modifiers.append(place)
        else:
            break
        place += 1
    if not nouns:
        return None
    head = nouns[-1]
    modifiers = sorted({*modifiers, *nouns[:-1]})
    chunk = Chunk(first, head + 1, head, [place for place in modifiers if place < head], opener)
    chunk.count = count_of(words, chunk, number)
    if words[head].repaired in ("noun_taken_for_verb", "adjective_taken_for_noun"):
        chunk.rule = words[head].repaired
    return chunk


def _modifies(
    words: list[Word], place: int, ahead: Ahead, opened: bool, led: bool, nouns: list[int], modifiers: list[int]
) -> bool:
    """Whether this word, not a noun, goes on with the phrase."""
    word = words[place]
    if nouns and word.pos != "conjunction":
        # after a noun only "gold colored", "snow covered" and the like lead on to another noun
        return word.lower in JOINED_PARTICIPLES and ahead.noun[place + 1]
    if word.pos == "adjective":
        return ahead.noun[place + 1]
    if word.pos == "number":
        return (opened or count_word(word.lower) is None) and ahead.noun[place + 1]
    if word.pos == "adverb":
        # right before a noun, a word said to be an adverb ("a round pendant") is none if the phrase is open
        return (opened or not _is_noun(words, place + 1)) and ahead.noun[place + 1]
    if word.pos == "verb" and word.lower not in WEARING | HOLDING | HAVING:
        may = word.modifier or (opened and not modifiers) or (word.participle and (opened or bool(modifiers)))
        return may and ahead.noun[place + 1]
    if word.pos == "comma":
        return led and bool(modifiers) and word.text == "," and ahead.modified[place + 1]
    if word.pos == "conjunction":
        return _is_pair(words, place, ahead, nouns, modifiers)
    return False


def _is_noun(words: list[Word], place: int) -> bool:
    return place < len(words) and words[place].pos == "noun"


def _is_pair(words: list[Word], place: int, ahead: Ahead, nouns: list[int], modifiers: list[int]) -> bool:
    """ "black and white cat": both sides modify. With a noun on the left only colours and materials do.

    "gold and white vase" is a pair, "shirt and red pants" is two phrases.
    """
    if not (nouns or modifiers) or not ahead.modified[place + 1]:
        return False
    right = words[place + 1].lower
    if not nouns:
        return True
    stuff = COLOURS | MATERIALS
    return right in stuff and all(words[noun].lower in stuff for noun in nouns)


def count_word(word: str) -> int | None:
    """The number that a word or a row of digits names, or None."""
    word = word.replace(",", "")
    if word in NUMBERS:
        return NUMBERS[word]
    tens, hyphen, ones = word.partition("-")
    if hyphen and NUMBERS.get(tens, 0) >= 20 and NUMBERS.get(ones, 10) < 10:
        return NUMBERS[tens] + NUMBERS[ones]  # "twenty-two"
    # str.isdecimal also takes digits of other scripts, which int reads; "²" it leaves alone
    return int(word) if word.isdecimal() and len(word) <= 6 else None


def count_of(words: list[Word], chunk: Chunk, number: int | None) -> int | None:
    """How many the phrase says there are.

    >>> outline("a cat, the dog, two birds, 3 mice, a dozen eggs, several cows, a few clouds, rice")
    'cat x1; dog x1; birds x2; mice x3; eggs x12; cows; clouds; rice'
    """
    if number is not None:
        return number
    noun = words[chunk.head]
    plural = (noun.plural and singular(noun.lower) != noun.lower) or noun.lower in IRREGULAR_PLURALS
    if any(words[place].lower in ("few", "many", "several") for place in range(chunk.first, chunk.head)):
        return None  # "a few clouds"
    if chunk.opener in ARTICLES:
        return 1
    owner = chunk.first > 0 and words[chunk.first - 1].pos == "possessive"
    if (chunk.opener in SINGULAR_DETERMINERS or owner) and not plural:
        return 1
    return None


def is_linking(word: Word) -> bool:
    return word.pos == "be" or word.lower in LINKING_VERBS
