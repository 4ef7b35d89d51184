"""In a picture of one person, hair, eyes and clothes are that person's, wherever they are named.

"1girl, red hair, blue dress" names one region, not three that compete for its patches. Of several people nothing is
known of whose they are; without a person, one animal is treated as one.
"""

from attnmod.parser.chunks import Chunk
from attnmod.parser.lexicon import BODY_PARTS, CLOTHING, singular
from attnmod.parser.mentions import is_above, place_apart, real
from attnmod.parser.reading import Reading

_PLACED = ("on", "under", "beside", "near", "next", "behind", "at", "in")


def of_the_person(reading: Reading) -> None:
    """What one wears and has belongs to the only person, or else to the only animal, also as tags.

    >>> outline("1girl, red hair, blue dress")
    'girl x1; hair: red < girl; dress: blue < girl'
    >>> outline("2girls, red hair, 1boy")
    'girls x2; hair: red; boy x1'
    """
    things = [chunk for chunk in reading.chunks if chunk.role == "entity" and not chunk.negated]
    owner = _only_one(reading, things)
    if owner is None:
        return
    before: Chunk | None = None
    for chunk in things:
        fits = chunk.parent is None and chunk is not owner and is_worn_or_body(reading, chunk)
        fits = fits and not is_above(chunk, owner) and (chunk.first > owner.first or reading.is_whole_tag(chunk))
        if fits and _opens(reading, chunk, before) and reading.word(chunk.stop) not in _PLACED:
            chunk.parent, before = place_apart(owner, chunk, "of_the_person"), chunk
            if chunk.rule == "noun_phrase":
                chunk.rule = "of_the_person"


def what_the_person_is(reading: Reading) -> None:
    """After "1girl" a tag for a kind of person says what she is.

    >>> outline("1girl, elf, pointy ears")
    'girl x1; ears: pointy < girl'
    """
    things = [chunk for chunk in reading.chunks if chunk.role == "entity" and not chunk.negated]
    counted = [chunk for chunk in things if reading.is_counted_tag(chunk)]
    if len(counted) != 1 or counted[0].count != 1:
        return
    for chunk in things:
        bare = not chunk.opener and chunk.count is None and not reading.words[chunk.head].plural
        if chunk is not counted[0] and bare and reading.is_whole_tag(chunk) and reading.is_person(chunk):
            chunk.role, chunk.same, chunk.rule = "mention", counted[0], "what_the_person_is"


def is_worn_or_body(reading: Reading, chunk: Chunk) -> bool:
    """Whether this can be worn, or is a part of a body: by its compound, by the lists, or by the lexicon."""
    noun = reading.noun(chunk)
    head = {reading.head(chunk), singular(reading.head(chunk))}
    if reading.is_compound(chunk) and noun is not None:
        return noun.kind in "cb"
    return bool(head & (BODY_PARTS | CLOTHING)) or (noun is not None and noun.kind in "cb" and noun.seen >= 6)


def _only_one(reading: Reading, things: list[Chunk]) -> Chunk | None:
    people = [chunk for chunk in things if reading.is_person(chunk)]
    # whom somebody owns or carries is another one, too
    many = [chunk for chunk in people if reading.words[chunk.head].plural or (chunk.count or 1) > 1]
    if many or len(people) > 1:
        return None
    if people:
        return people[0]
    animals = [chunk for chunk in things if reading.is_animal(chunk)]
    single = len(animals) == 1 and not reading.words[animals[0].head].plural and (animals[0].count or 1) == 1
    return real(animals[0]) if single else None


def _opens(reading: Reading, chunk: Chunk, before: Chunk | None) -> bool:
    """Whether the phrase begins a tag or clause, or goes on with a list of such things."""
    if reading.pos(chunk.first - 1) in ("stop", "comma"):
        return True
    if before is not None and before.stop <= chunk.first:
        return set(reading.gap(before, chunk)) <= {",", "and", "&", "with"}
    return reading.pos(chunk.first - 1) == "preposition" and reading.pos(chunk.first - 2) == "stop"
