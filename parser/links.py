"""The second part of the grammar: which thing is worn, held or owned by which.

Each rule is one function; its name lands in the JSON. A nesting rule looks at one noun phrase and at the words
between it and the one before, decides, and says whether it did. The examples are doctests, in the short notation of
`outline`: "hat x1: red < girl" is a hat with the parent girl.
"""

from collections.abc import Callable, Iterable

from attnmod.parser.chunks import Chunk, is_linking
from attnmod.parser.clauses import LIST_MARKS, complement_end, joined_before, list_goes_on
from attnmod.parser.lexicon import (
    ANIMATE,
    ARTICLES,
    BODY_PARTS,
    CLOTHING,
    FILLED_WITH,
    HAVING,
    HOLDING,
    MADE_OF,
    MATERIALS,
    OWNING,
    PARTS,
    TOOLS,
    WEARING,
    singular,
)
from attnmod.parser.mentions import place_apart, real, referent
from attnmod.parser.people import is_worn_or_body
from attnmod.parser.reading import Reading

# no sentence nests deeper, and a span holds its children's, so that "leg of leg of leg of ..." would grow squarely
MAX_NESTING = 6

_JOINERS = LIST_MARKS | {"matching", "also", "then"}


def is_animate(reading: Reading, chunk: Chunk) -> bool:
    """Whether this is a person or an animal; of a mention, what it mentions."""
    chunk = real(chunk)
    return singular(reading.head(chunk)) in ANIMATE or reading.is_person(chunk)


def nest(reading: Reading) -> None:
    """Give each entity its parent, by the first rule that applies; most have none."""
    things = [chunk for chunk in reading.chunks if chunk.role == "entity"]
    for chunk in things:
        before = reading.chunk_before(chunk.first)
        if chunk.negated or chunk.parent is not None or before is None:
            continue
        rules = NESTING
        if reading.stop_between(before.stop, chunk.first):
            rules = (own_part,) if reading.sentence_ends(before.stop, chunk.first) else ACROSS_TAGS
        for rule in rules:
            if rule(reading, before, chunk):
                if chunk.rule == "noun_phrase":
                    chunk.rule = rule.__name__
                break


def _adopt(reading: Reading, parent: Chunk, child: Chunk, linked: Iterable[int]) -> bool:
    """Nest; the words that tie the two belong to the parent."""
    above = parent.chain()
    if child.same is not None or real(parent) is child or real(parent).negated or not parent.is_thing or child in above:
        return False
    if len(above) + child.height > MAX_NESTING:
        return False
    if any(real(one) is child for one in above):
        return False
    child.parent = parent
    for distance, chunk in enumerate(above, start=1):
        chunk.height = max(chunk.height, child.height + distance)
    reading.linked.update(linked)
    return True


def possessive(reading: Reading, before: Chunk, chunk: Chunk) -> bool:
    """The owner's part.

    >>> outline("a dog's red collar")
    'dog x1; collar x1: red < dog'
    >>> outline("a cat wearing a coat and a captain's hat")
    'cat x1; coat x1 < cat; hat x1: captain < cat'
    """
    if reading.gap(before, chunk) not in (["'s"], ["\u2019s"], ["'"], ["\u2019"]):
        return False
    wearer = before.parent if before.rule in ("worn", "conjunct") else None
    owner = reading.chunk_before(before.first)
    if owner is not None and owner.rule in ("worn", "conjunct") and reading.gap(owner, before) in (["and"], [","]):
        wearer = wearer or owner.parent
    led = reading.word(before.first - 1) in ("with", "in") and before.opener in ARTICLES
    if wearer is None and led and owner is not None and is_animate(reading, owner) and is_animate(reading, before):
        wearer = owner  # "a girl with an artist's beret"
    if wearer is not None and is_worn(reading, chunk):
        # the captain is not worn: he says what kind of hat it is
        before.role, before.parent = "attribute", None
        chunk.first, chunk.modifiers = before.first, [before.head, *chunk.modifiers]
        chunk.opener, chunk.count, chunk.rule = before.opener, before.count, before.rule
        reading.chunks.remove(before)
        return _adopt(reading, wearer, chunk, ())
    return _adopt(reading, before, chunk, range(before.stop, chunk.first))


def own_part(reading: Reading, before: Chunk, chunk: Chunk) -> bool:
    """Its, his, her, their or whose part or clothes: of the one that the pronoun can mean.

    >>> outline("a robot whose eyes are red and a dog wagging its tail")
    'robot x1; eyes: red < robot; dog x1; tail x1 < dog; [action: wagging]'
    >>> outline("a warrior with a sword in one hand and a shield in the other")
    'warrior x1; sword x1 < warrior; hand x1 < warrior; shield x1 < warrior; [relation: in]; [relation: in]'
    """
    if chunk.opener == "whose":
        return before.is_thing and _adopt(reading, before, chunk, range(before.stop, chunk.first))
    noun = reading.head(chunk)
    if chunk.opener in ("one", "each", "both") and singular(noun) in ("hand", "paw", "claw", "arm"):
        if reading.word(chunk.first - 1) not in ("in", "on"):
            return False
        earlier = [other for other in reading.earlier(chunk.first) if other.is_thing and is_animate(reading, other)]
        return bool(earlier) and _adopt(reading, earlier[0], chunk, ())
    if chunk.opener not in OWNING or reading.is_person(chunk):
        return False  # "his brother" is somebody else
    owner = referent(reading, chunk.first, chunk.opener)
    if owner is None:
        return False
    between = [other for other in reading.earlier(chunk.first) if other.first >= owner.stop and other.is_thing]
    if any(real(other.root()) is not owner for other in between) or reading.stop_between(owner.stop, chunk.first):
        return _adopt(reading, place_apart(owner, chunk, "own_part"), chunk, ())
    return _adopt(reading, owner, chunk, ())


def of_part(reading: Reading, before: Chunk, chunk: Chunk) -> bool:
    """Parts belong to what follows "of"; contents belong to what stands before it.

    >>> outline("the brown bark of an old oak")
    'oak x1: old; bark x1: brown < oak'
    >>> outline("a glass of red wine")
    'glass x1; wine: red < glass'
    """
    if reading.gap(before, chunk) != ["of"]:
        return False
    if singular(reading.head(before)) in PARTS and before.role == "entity":
        above, before.parent = before.parent, None
        if not _adopt(reading, chunk, before, [before.stop]):
            before.parent = above
            return False
        if above is not None and chunk.same is None and not any(real(one) is chunk for one in above.chain()):
            chunk.parent = above
        before.rule = "of_part" if before.rule == "noun_phrase" else before.rule
        return True
    return _adopt(reading, before, chunk, [before.stop])


def worn(reading: Reading, before: Chunk, chunk: Chunk) -> bool:
    """Clothes belong to who wears them.

    >>> outline("a girl with blue eyes wearing a red hat")
    'girl x1; eyes: blue < girl; hat x1: red < girl'
    """
    return _by_verb(reading, before, chunk, WEARING, {"in", "with", "up"})


def held(reading: Reading, before: Chunk, chunk: Chunk) -> bool:
    """What is held or carried belongs to who does.

    >>> outline("A woman in a white shirt and jeans holds a pink umbrella")
    'woman x1; shirt x1: white < woman; jeans < woman; umbrella x1: pink < woman'
    """
    return _by_verb(reading, before, chunk, HOLDING, {"up", "on", "onto"})


def has(reading: Reading, before: Chunk, chunk: Chunk) -> bool:
    """What a thing has or features is a part of it.

    >>> outline("An old building has stone arches and wooden doors")
    'building x1: old; arches: stone < building; doors: wooden < building'
    """
    return _by_verb(reading, before, chunk, HAVING, set())


def _by_verb(reading: Reading, before: Chunk, chunk: Chunk, verbs: frozenset[str], particles: set[str]) -> bool:
    """Whether one of these verbs stands right before the phrase, and whose verb it is."""
    verb = chunk.first - 1
    while verb >= before.stop and reading.word(verb) in particles:
        verb -= 1
    if verb < before.stop or reading.word(verb) not in verbs:
        return False
    owner = _subject(reading, before, verb)
    first = verb
    while first > before.stop and reading.pos(first - 1) in ("be", "adverb", "relative", "conjunction", "comma"):
        first -= 1
    return owner is not None and _adopt(reading, owner, chunk, range(first, chunk.first))


def _subject(reading: Reading, before: Chunk, verb: int) -> Chunk | None:
    """Who wears, holds or has: the model's subject of a full verb, else the nearest one who can."""
    if reading.pos(verb - 1) != "relative":
        said = reading.words[verb].subject
        chunk = reading.chunk_at(said) if said is not None and said < verb else None
        if chunk is not None and chunk.is_thing and not chunk.negated:
            return joined_before(reading, chunk)[-1]  # the first of several holders
    chain = [chunk for chunk in before.chain() if chunk.is_thing]
    able = [chunk for chunk in chain if is_animate(reading, chunk)]
    wears = reading.word(verb) in WEARING and reading.words[verb].subject is None
    if able and wears and not any(reading.is_person(real(one)) for one in able):
        # "a man holding a dog while wearing a hat"
        people = [one for one in reading.earlier(before.first) if one.is_thing and reading.is_person(real(one))]
        apart = reading.word(verb - 1) in ("while", "and", ",")
        if people and apart and not reading.stop_between(people[0].stop, verb):
            return people[0]
    if before.opener in OWNING and before.stop == verb and not is_animate(reading, before):
        return before  # "their flaky crusts cradling a filling"
    if reading.word(verb) in HAVING and chain:
        return chain[-1]
    if not able:
        earlier = [chunk for chunk in reading.earlier(before.first) if chunk.is_thing]
        able = [chunk for chunk in earlier if is_animate(reading, chunk) and not chunk.negated]
        able = [chunk for chunk in able if not reading.sentence_ends(chunk.stop, verb)]
    return (able or chain[-1:] or [None])[0]


def is_worn(reading: Reading, chunk: Chunk) -> bool:
    noun = reading.noun(chunk)
    if reading.is_compound(chunk) and noun is not None and noun.kind in "btnh":
        return False
    listed = {reading.head(chunk), singular(reading.head(chunk))} & CLOTHING
    return bool(listed) or (noun is not None and noun.kind == "c" and noun.seen >= 6)


def worn_in(reading: Reading, before: Chunk, chunk: Chunk) -> bool:
    """ "in" and a piece of clothing: worn.

    >>> outline("a man in a gray jacket")
    'man x1; jacket x1: gray < man'
    """
    if reading.gap(before, chunk) != ["in"] or not is_worn(reading, chunk):
        return False
    owner = next((other for other in before.chain() if is_animate(reading, other)), before.root())
    return _adopt(reading, owner, chunk, [before.stop])


def with_part(reading: Reading, before: Chunk, chunk: Chunk) -> bool:
    """ "with" right after a thing names a part of it; a person or an animal is company, not a part.

    >>> outline("a table with a lamp")
    'table x1; lamp x1 < table'
    >>> outline("a boy with a dog, a lake with hills in the background")
    'boy x1; dog x1; lake x1; hills; [relation: with]; [relation: with]; [relation: in the background]'
    >>> outline("a chef cutting bread with a knife")
    'chef x1; knife x1 < chef; bread; [action: cutting]'
    """
    gap = reading.gap(before, chunk)
    placed = reading.begins.get(chunk.stop) in ("relation", "scene")
    if gap != ["with"] or is_animate(reading, chunk) or (placed and reading.word(chunk.stop + 2) in _SIDES):
        return False
    owner = before
    if before.rule == "of_part" and before.parent is not None and not is_animate(reading, before):
        owner = before.parent  # "a jar of honey with a dipper"
    user = reading.chunk_before(before.first)
    used = singular(reading.head(chunk)) in TOOLS and reading.pos(before.first - 1) == "verb"
    if used and user is not None and is_animate(reading, user) and not is_animate(reading, before):
        return _adopt(reading, user, chunk, [before.stop])
    if is_worn_or_body(reading, chunk):
        owner = next((other for other in before.chain() if is_animate(reading, other)), before)
    return _adopt(reading, owner, chunk, [before.stop])


# "a lake with hills in the background": they stand there and are no part of it
_SIDES = ("background", "foreground", "distance", "left", "right", "horizon", "far", "middle", "center", "centre")


def shaped_like(reading: Reading, before: Chunk, chunk: Chunk) -> bool:
    """What a thing is shaped like or dressed as is not shown: it describes the thing.

    >>> outline("a balloon shaped like a dog and a corgi dressed as a pirate")
    'balloon x1: shaped, dog; corgi x1: dressed, pirate'
    >>> outline("a cake in the shape of a heart")
    'cake x1: shape, heart'
    """
    gap = reading.gap(before, chunk)
    shape = reading.word(chunk.first + 1) in ("shape", "form") and gap in (["in"], ["with"])
    like = gap[-1:] in (["like"], ["as"]) and gap[-2:-1] in (["shaped"], ["dressed"], ["disguised"])
    if not before.is_thing or before.negated or not (like or shape):
        return False
    before.extras += [(chunk.first - 2, chunk.first - 1)] * like + [(chunk.first, chunk.stop)]
    reading.linked.update(range(before.stop, chunk.stop))
    chunk.role, chunk.rule, chunk.parent = "attribute", "shaped_like", before
    return True


def made_of(reading: Reading, before: Chunk, chunk: Chunk) -> bool:
    """What a thing is made of, covered in or full of: an attribute if it is bare stuff, else a part.

    Stuff has no place in the picture of its own: "a box made of felt" is one region.

    >>> outline("a yellow box made of felt")
    'box x1: yellow, made, felt'
    >>> outline("a bowl filled with ripe red strawberries")
    'bowl x1: filled; strawberries: ripe, red < bowl'
    """
    gap = reading.gap(before, chunk)
    while gap and (gap[0] in ("that", "which", ",") or reading.words[chunk.first - len(gap)].pos in ("be", "adverb")):
        gap = gap[1:]
    participle = chunk.first - len(gap)
    made = len(gap) >= 2 and gap[0] in MADE_OF and gap[-1] in ("of", "from", "with", "in")
    filled = len(gap) == 2 and gap[0] in FILLED_WITH and gap[1] in ("of", "with", "in", "by")
    if (not made and not filled) or not before.is_thing or before.negated:
        return False
    said = reading.words[participle].subject
    subject = reading.chunk_at(said) if said is not None and participle > before.stop else None
    if subject is not None and subject.is_thing and not subject.negated and subject.first < participle:
        before = subject  # "the roof of the house is covered in moss"
    if _is_stuff(reading, chunk) or (made and _is_bare(reading, chunk)):
        before.extras += [(participle, participle + 1), (chunk.first, chunk.stop)]
        reading.linked.update(range(before.stop, chunk.first))
        chunk.role, chunk.rule, chunk.parent = "attribute", "made_of", before
        return True
    if not reading.word(participle).endswith("ing"):
        before.extras.append((participle, participle + 1))
    return _adopt(reading, before, chunk, range(participle, chunk.first))


def _is_bare(reading: Reading, chunk: Chunk) -> bool:
    return chunk.opener not in ARTICLES and not reading.words[chunk.head].plural


def _is_stuff(reading: Reading, chunk: Chunk) -> bool:
    return _is_bare(reading, chunk) and reading.head(chunk) in MATERIALS


def conjunct(reading: Reading, before: Chunk, chunk: Chunk) -> bool:
    """The next item of a list belongs where the item before it does.

    A person or animal after a thing begins anew ("a girl with a hat and a boy"), and so does an article
    after a bare noun ("a glass of wine and a plate").

    >>> outline("A man wearing a blue shirt and red pants and a boy with a kite")
    'man x1; shirt x1: blue < man; pants: red < man; boy x1; kite x1 < boy'
    >>> outline("a person wearing a shirt that is blue and a hat")
    'person x1; shirt x1: blue < person; hat x1 < person'
    """
    first = before.stop
    if reading.pos(first) == "relative" and is_linking(reading.words[first + 1]):
        first = complement_end(reading, first + 2) or first  # "a shirt that is blue and a hat"
    gap = [reading.word(place) for place in range(first, chunk.first)]
    if not gap or not set(gap) <= _JOINERS or before.parent is None:
        return False
    parent = before.parent
    if before.role == "attribute":  # "made of gold and silver"
        if not _is_stuff(reading, chunk):
            return False
        parent.extras.append((chunk.first, chunk.stop))
        reading.linked.update(range(before.stop, chunk.first))
        chunk.role, chunk.rule, chunk.parent = "attribute", "made_of", parent
        return True
    if is_animate(reading, chunk) and not is_animate(reading, before):
        return False
    fresh = chunk.opener != ""
    if fresh and before.rule in ("of_part", "possessive", "ellipsis"):
        return False
    if fresh and not before.opener and reading.word(chunk.stop) in WEARING | HOLDING:
        return False
    if gap == [","] and not list_goes_on(reading, chunk):
        noun = reading.head(chunk)
        if fresh or before.opener or not {noun, singular(noun)} & (BODY_PARTS | CLOTHING | PARTS):
            return False  # ", holding hands, cherry blossoms"
    if is_worn_or_body(reading, chunk) and not is_animate(reading, parent):
        # "a hat with a ribbon, gloves and boots": worn by who wears the hat
        parent = next((one for one in parent.chain() if is_animate(reading, one)), parent)
    return _adopt(reading, parent, chunk, range(before.stop, chunk.first))


NESTING: tuple[Callable[[Reading, Chunk, Chunk], bool], ...] = (
    possessive,
    own_part,
    of_part,
    worn,
    held,
    has,
    worn_in,
    shaped_like,
    with_part,
    made_of,
    conjunct,
)
# "a ranger with silver hair, wearing armor": what a tag may say of what an earlier one named
ACROSS_TAGS = (own_part, worn, held)
