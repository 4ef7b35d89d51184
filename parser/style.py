"""How the picture is made and how it looks: media, looks, quality and artists are style, which every patch sees.

Rules of the same form as those in `roles`, which lists them all.
"""

import re
from bisect import bisect_right

from attnmod.parser.chunks import Chunk
from attnmod.parser.lexicon import (
    ALWAYS_THINGS,
    COLOURS,
    DESCRIBED_PLACES,
    LABELS_OF_ABSENCE,
    LABELS_OF_STYLE,
    MATERIALS,
    MEDIA,
    NEGATING_DETERMINERS,
    PICTURES,
    PLACES,
    SHOWING,
    STYLE_MARKS,
    STYLE_NOUNS,
    STYLE_WORDS,
    THINGS,
    TIMES,
    singular,
)
from attnmod.parser.nouns import is_known, is_verb_rather
from attnmod.parser.reading import NEAR, Reading

_SHOWING = ("of", "showing", "depicting", "featuring")


def medium(reading: Reading) -> None:
    """What the picture is made as, before "of" at the start, is style.

    >>> outline("an oil painting of a fox")
    'fox x1; [style: an oil painting of]'
    >>> outline("bird's eye view of a harbor")
    "harbor x1; [style: bird's eye view of]"
    >>> outline("RAW photo, close-up portrait of a nun")
    'nun x1; [style: RAW photo]; [style: close-up portrait of]'
    """
    starts = [start for start, _ in reading.segments()]
    first: int | None = None
    for chunk in reading.chunks:
        if chunk.role != "entity":
            continue
        if first is None:  # with what stands before it in its segment: "close-up portrait of"
            number = bisect_right(starts, chunk.first)
            first = starts[number - 1] if number else chunk.first
        if reading.pos(chunk.stop) == "possessive":
            continue  # "a bird's eye view of"
        if (
            first == chunk.first - 1
            and reading.pos(first) == "preposition"
            and reading.pos(chunk.stop) in ("comma", "stop")
        ):
            first = None
            continue  # "at night, a drawing of"
        if singular(reading.head(chunk)) not in MEDIA:
            return  # only before the first thing
        if reading.word(chunk.stop) in _SHOWING and reading.chunk_from(chunk.stop + 1) is not None:
            reading.make_phrase(first, chunk.stop + 1, "style", "medium")
        elif reading.pos(chunk.stop) not in ("comma", "stop"):
            return
        first = None  # "RAW photo, a portrait of"


def picture_as_subject(reading: Reading) -> None:
    """What "the photo shows" is in it; the photo is not.

    >>> outline("The photo shows a goat beside a fence. The image has a warm mood.")
    'goat x1; fence x1; [style: The photo shows]; [relation: beside]; [style: The image has]; [other: a warm mood]'
    """
    for chunk in reading.chunks:
        if chunk.role != "entity" or chunk.opener not in ("the", "this", "a", "an") or not _is_picture(reading, chunk):
            continue
        opens = reading.pos(chunk.first - 1) == "stop"
        verb = chunk.stop
        while reading.pos(verb) == "adverb":
            verb += 1
        if reading.word(verb) in SHOWING and (opens or chunk.opener == "the"):
            reading.make_phrase(chunk.first, verb + 1, "style", "picture_as_subject")
            continue
        spoken_of = reading.pos(verb) in ("verb", "be", "possessive") or reading.word(verb) in _SHOWING
        if chunk.opener in ("the", "this") and (spoken_of if opens else reading.pos(chunk.first - 1) == "preposition"):
            reading.make_phrase(chunk.first, chunk.stop, "style", "picture_as_subject")


def _is_picture(reading: Reading, chunk: Chunk) -> bool:
    return singular(reading.head(chunk)) in PICTURES


def labelled(reading: Reading) -> None:
    """What stands after "Style:" and the like is style; after "Avoid:" it is absent.

    >>> outline("Subject: a hen\\nStyle: oil on canvas\\nAvoid: people")
    'hen x1; not people; [style: oil on canvas]'
    """
    for segment in reading.notation.segments:
        words = set(segment.label.split())
        if not words & LABELS_OF_STYLE and not words & LABELS_OF_ABSENCE:
            continue
        places = reading.words_in(segment.start, segment.end)
        if len(places) == 0:
            continue
        if words & LABELS_OF_STYLE:
            last = places[-1] if reading.pos(places[-1]) != "stop" else places[-1] - 1
            if last >= places[0]:
                reading.make_phrase(places[0], last + 1, "style", "labelled")


def request(reading: Reading) -> None:
    """What a machine is asked to do with the picture is how it looks.

    >>> outline("Make the light warm. Show a shelf. Avoid people.")
    'shelf x1; not people; [style: Make the light warm]; [action: Show]; [action: Avoid]'
    """
    for place, word in enumerate(reading.words):
        if word.lower not in ("make", "keep", "set", "ensure", "use") or reading.pos(place - 1) != "stop":
            continue
        if reading.pos(place + 1) not in ("determiner", "possessive", "pronoun"):
            continue
        stop = place
        while reading.pos(stop) != "stop":
            stop += 1
        reading.make_phrase(place, stop, "style", "request")


def bare_tag(reading: Reading) -> None:
    """A tag of its own that no evidence calls a thing says how the picture looks.

    >>> outline("a heron, fantasy, misty, retro sci - fi, greg rutkowski, reeds")
    'heron x1; reeds; [style: fantasy]; [style: misty]; [style: retro sci - fi]; [style: greg rutkowski]'
    """
    artists = False
    for number, (first, stop) in enumerate(reading.segments()):
        if _is_absent(reading, first):
            continue
        artists = artists or "by" in (reading.word(first), reading.word(first + 1))
        chunks = [chunk for chunk in reading.chunks_in(first, stop) if chunk.role == "entity"]
        said = " ".join(reading.word(place) for place in range(first, stop))
        toned = bool(chunks) and reading.word(stop - 1) in _TONES and not any(chunk.opener for chunk in chunks)
        toned = toned or (bool(chunks) and bool(_CAMERAS & set(said.split())))
        if number and (said in _TERMS or toned):
            reading.make_phrase(first, stop, "style", "bare_tag")
            continue
        if number == 0 or not chunks or any(chunk.opener or chunk.count for chunk in chunks):
            continue
        chunk = chunks[0]
        rest = [place for place in range(first, stop) if reading.chunk_at(place) is None]
        alone = len(chunks) == 1 and all(reading.pos(place) in ("adjective", "adverb", "verb") for place in rest)
        of_the_unseen = chunk.first == first and reading.word(chunk.stop) == "of" and _is_no_thing(reading, chunk, True)
        painted = reading.word(first) in _PAINTS and reading.word(first + 1) == "on"
        acts = stop == first + 1 and reading.word(first).endswith("ing") and is_verb_rather(reading.word(first)[:-3])
        body = reading.word(stop - 1) == "body" and reading.word(first) in ("full", "upper", "lower", "half")
        if painted or acts or body or (alone and _is_no_thing(reading, chunk, artists)) or of_the_unseen:
            reading.make_phrase(first, stop, "style", "bare_tag")


# terms of photographers and painters whose nouns are things elsewhere
_TERMS = frozenset(
    (
        "leading lines", "cross process", "golden ratio", "negative space", "low key", "high key", "dutch angle",
        "rim light", "double exposure", "long exposure", "golden hour", "blue hour", "rule of thirds", "film still",
        "depth of field", "cowboy shot", "hard light", "key light", "fill light", "light leak", "god rays",
    )
)  # fmt: skip
_CAMERAS = frozenset(
    ("canon", "nikon", "kodak", "leica", "sony", "fujifilm", "fuji", "hasselblad", "olympus", "panavision")
)
_TONES = ("palette", "tones", "tone", "colors", "colours", "scheme", "lighting", "grading", "mood", "contrast", "hues")


def _is_absent(reading: Reading, place: int) -> bool:
    segment = reading.segment_of(place)
    return segment is not None and segment.kind == "absent"


_PAINTS = ("oil", "ink", "acrylic", "pencil", "pastel", "charcoal", "gouache", "watercolor", "watercolour", "tempera")


def _is_no_thing(reading: Reading, chunk: Chunk, artists: bool) -> bool:
    """Whether nothing says that this noun can be seen: no list, no lexicon, no colour or material before it."""
    said = [reading.word(place) for place in range(chunk.first, chunk.stop)]
    if {said[-1], singular(said[-1])} & THINGS or set(said[:-1]) & (COLOURS | MATERIALS) or said[-1].startswith("<"):
        return False
    if reading.pos(chunk.stop) == "verb" and reading.word(chunk.stop).endswith("ing") and not artists:
        return False
    noun = reading.noun(chunk)
    if len(said) > 1 and not is_known(said[0]) and "-" not in said[0] and said[0].isalpha() and len(said) <= 3:
        return noun is None or artists or not reading.is_compound(chunk)  # a name: "greg rutkowski"
    if noun is None and len(said) > 1 and "-" not in said[-1]:
        return False  # a word that nobody knows, described by one that is known
    if len(said) > 1 and singular(said[-1]) in DESCRIBED_PLACES | ALWAYS_THINGS:
        return False
    if len(said) == 1 and noun is not None and noun.noun <= 3 and noun.kind not in "hn":
        return True  # "cozy": tea cosies are rare
    if reading.places == "entity" and singular(said[-1]) in PLACES:
        return False
    return noun is None or noun.kind in "-s" or (noun.kind in "adp" and noun.seen <= 2)


def style_tail(reading: Reading) -> None:
    """Comma segments of looks and quality, and "by ...", are style.

    >>> outline("a castle, highly detailed, cinematic lighting, by Greg Rutkowski, 4k")
    'castle x1; [style: highly detailed]; [style: cinematic lighting]; [style: by Greg Rutkowski]; [style: 4k]'
    >>> outline("a fox in the style of Monet")
    'fox x1; [style: in the style of Monet]'
    >>> outline("painting of a nun by Van Gogh, shallow depth of field, 85mm f/1.4")
    'nun x1; [style: painting of]; [style: by Van Gogh]; [style: shallow depth of field]; [style: 85mm f/1.4]'
    """
    for number, (first, stop) in enumerate(reading.segments()):
        if _is_absent(reading, first):
            continue
        start = _style_start(reading, first, stop)
        if start is None and _is_style(reading, first, stop, number):
            start = first
        if start is not None:
            reading.make_phrase(start, stop, "style", "style_tail")
            continue
        for place in range(first, stop):
            chunk = reading.chunk_at(place)
            if is_style_mark(reading.word(place)) and (chunk is None or chunk.stop - chunk.first == 1):
                reading.make_phrase(place, place + 1, "style", "style_tail")


def is_style_mark(word: str) -> bool:
    """Whether this word says how a picture looks wherever it stands: by the list, or a lens or an aperture."""
    return word in STYLE_MARKS or _CAMERA.fullmatch(word) is not None


_CAMERA = re.compile(r"\d+(?:\.\d+)?mm|f/?\d+(?:\.\d+)?|iso-?\d+|\d+k|\d+fps")


def _style_start(reading: Reading, first: int, stop: int) -> int | None:
    """Where "in the style of", "in anime style", "by <name>" or "art by <name>" begins in a segment."""
    if reading.word(first) in ("by", "inspired") and first > 0 and reading.word(first + 1) not in TIMES:
        return first
    if reading.word(first + 1) == "by" and singular(reading.word(first)) in MEDIA and first > 0:
        return first
    artist = next((place for place in range(first, stop) if _names_artist(reading, place)), None)
    if artist is not None:
        return artist
    for chunk in reading.chunks_in(first, stop):
        if reading.head(chunk) == "style" and chunk.role == "entity":
            before = chunk.first - 1
            if before >= first and reading.word(before) in ("in", "with"):
                return before
            if chunk.first == first and first > 0:
                return first
    return None


def _names_artist(reading: Reading, place: int) -> bool:
    """ "by Van Gogh" in a picture that is said to be a painting: a bare name, not the one of who did something."""
    if reading.word(place) != "by" or reading.pos(place - 1) == "verb" or not reading.phrases:
        return False
    said = [kind for start, _, kind, _ in reading.phrases[:NEAR] if start < place]
    chunk = reading.chunk_from(place + 1)
    return "style" in said and chunk is not None and not chunk.opener and reading.words[chunk.head].name


def _is_style(reading: Reading, first: int, stop: int, number: int) -> bool:
    chunks = [chunk for chunk in reading.chunks_in(first, stop) if chunk.role == "entity"]
    words = [reading.words[place] for place in range(first, stop)]
    content = [word for word in words if word.pos in ("noun", "adjective", "adverb", "verb", "number")]
    if not content or any(word.pos in ("be", "relative") for word in words):
        return False
    if words[0].lower in NEGATING_DETERMINERS:
        return False  # "no watermark"
    if number > 0 and [word.lower for word in words] in (["black", "and", "white"], ["black", "&", "white"]):
        return True
    if all(word.lower in STYLE_WORDS | STYLE_NOUNS or is_style_mark(word.lower) for word in content):
        return number > 0 or not any(word.pos in ("determiner", "number") for word in words[:1])
    if number == 0 and words[0].pos in ("determiner", "number"):
        return False
    if not chunks or any(chunk.opener for chunk in chunks):
        return False
    chunks = [chunk for chunk in chunks if reading.word(chunk.first - 1) != "of"]  # "depth of field"
    heads = {singular(reading.head(chunk)) for chunk in chunks} | {reading.head(chunk) for chunk in chunks}
    return heads <= STYLE_NOUNS | {singular(noun) for noun in STYLE_NOUNS} | MEDIA
