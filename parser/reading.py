"""The state that the grammar's rules work on: words, noun phrases, and what has been decided so far."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

from attnmod.parser.chunks import Chunk
from attnmod.parser.lexicon import ANIMALS, CLOTHING, PEOPLE, singular
from attnmod.parser.notation import Notation, Segment
from attnmod.parser.nouns import Noun, look_up, of_phrase
from attnmod.parser.words import Word

PLACE_READINGS = ("auto", "scene", "entity")
# noun phrases that a rule looks back over: nobody refers to what was named further off, and every phrase of a text of
# thousands would look at all of them
NEAR = 24


@dataclass(slots=True)
class Reading:
    """A prompt while it is being read; all places are word indices.

    Attributes:
        words: the words.
        chunks: the noun phrases, left to right; the rules give them roles and parents, merge and drop them.
        phrases: global phrases found by a rule, as (first, stop, kind, rule).
        places: what a place is, one of PLACE_READINGS.
        begins, ends: the kind of a phrase by its first word; its first word and kind by the word after it.
        linked: words that tie an entity to its parent ("wearing", "with"): they belong to the parent.
        warnings: sentences for the user.
        notation: where the prompt's segments are.
    """

    words: list[Word]
    chunks: list[Chunk]
    phrases: list[tuple[int, int, str, str]] = field(default_factory=list)
    begins: dict[int, str] = field(default_factory=dict)
    ends: dict[int, tuple[int, str]] = field(default_factory=dict)
    linked: set[int] = field(default_factory=set)
    places: str = "auto"
    warnings: list[str] = field(default_factory=list)
    notation: Notation = field(default_factory=lambda: Notation(""))

    def word(self, place: int) -> str:
        """The word in lower case; "" outside the text."""
        return self.words[place].lower if 0 <= place < len(self.words) else ""

    def pos(self, place: int) -> str:
        """The word's part of speech; "stop" outside the text."""
        return self.words[place].pos if 0 <= place < len(self.words) else "stop"

    def head(self, chunk: Chunk) -> str:
        return self.words[chunk.head].lower

    def noun(self, chunk: Chunk) -> Noun | None:
        """What is known of a phrase's noun: of its longest compound, or of the head."""
        first = max(chunk.first, chunk.head - 2)
        return of_phrase([word.lower for word in self.words[first : chunk.head + 1]])

    def is_compound(self, chunk: Chunk) -> bool:
        """Whether the noun and the word before it are one known noun."""
        before = self.words[chunk.head - 1].lower if chunk.head > chunk.first else ""
        return bool(before) and look_up(f"{before}_{self.head(chunk)}") is not None

    def is_person(self, chunk: Chunk) -> bool:
        if self.is_counted_tag(chunk) and singular(self.head(chunk)) not in ANIMALS:
            return True
        if self.is_compound(chunk):
            return self._is_of(chunk, "h")
        return singular(self.head(chunk)) in PEOPLE or (self._is_of(chunk, "h") and self.head(chunk) not in CLOTHING)

    def is_animal(self, chunk: Chunk) -> bool:
        return singular(self.head(chunk)) in ANIMALS or self._is_of(chunk, "n")

    def _is_of(self, chunk: Chunk, kind: str) -> bool:
        noun = self.noun(chunk)
        return noun is not None and noun.kind == kind and noun.seen >= 8 and noun.noun >= 6

    def is_whole_tag(self, chunk: Chunk) -> bool:
        """Whether a phrase is a tag of its own."""
        left, right = self.pos(chunk.first - 1), self.pos(chunk.stop)
        segment = self.segment_of(chunk.head)
        return left == right == "stop" and segment is not None and segment.kind != "sentence"

    def is_counted_tag(self, chunk: Chunk) -> bool:
        """ "1girl", "2boys"."""
        before = self.words[chunk.head - 1] if chunk.head > chunk.first else None
        return before is not None and before.pos == "number" and before.end == self.words[chunk.head].start

    def gap(self, left: Chunk, right: Chunk) -> list[str]:
        """The words between two phrases, in lower case."""
        return [word.lower for word in self.words[left.stop : right.first]]

    def gap_words(self, first: int, stop: int) -> set[str]:
        return {word.lower for word in self.words[first:stop]}

    def chunk_at(self, place: int) -> Chunk | None:
        """The phrase that this word is in. Phrases never overlap and stay sorted, so bisection finds it."""
        number = bisect_right(self.chunks, place, key=lambda chunk: chunk.first) - 1
        return self.chunks[number] if number >= 0 and place < self.chunks[number].stop else None

    def chunk_before(self, place: int) -> Chunk | None:
        """The last phrase that ends at or before this word."""
        number = bisect_right(self.chunks, place, key=lambda chunk: chunk.stop) - 1
        return self.chunks[number] if number >= 0 else None

    def chunk_from(self, place: int) -> Chunk | None:
        """The phrase that begins at this word."""
        chunk = self.chunk_at(place)
        return chunk if chunk is not None and chunk.first == place else None

    def segment_of(self, place: int) -> Segment | None:
        """The segment that a word is in."""
        return self.notation.segment_at(self.words[place].start)

    def stop_between(self, left: int, right: int) -> bool:
        """Whether a sentence or a tag ends between two words."""
        return any(word.pos == "stop" for word in self.words[left:right])

    def sentence_ends(self, left: int, right: int) -> bool:
        """Whether a sentence ends between two words; from one tag to the next the same thing may be spoken of."""
        return any(word.pos == "stop" and word.text != "," for word in self.words[left:right])

    def earlier(self, place: int) -> Iterator[Chunk]:
        """The nearest phrases that end at or before this word, from right to left."""
        number = bisect_right(self.chunks, place, key=lambda chunk: chunk.stop)
        return reversed(self.chunks[max(0, number - NEAR) : number])

    def chunks_in(self, first: int, stop: int) -> list[Chunk]:
        """The phrases that lie wholly between two words."""
        low = bisect_left(self.chunks, first, key=lambda chunk: chunk.first)
        return self.chunks[low : bisect_right(self.chunks, stop, key=lambda chunk: chunk.stop)]

    def words_in(self, start: int, end: int) -> range:
        """The words between two characters."""
        low = bisect_left(self.words, start, key=lambda word: word.start)
        return range(low, bisect_left(self.words, end, key=lambda word: word.start))

    def drop(self, first: int, stop: int) -> None:
        """Forget the phrases that touch these words."""
        low = bisect_right(self.chunks, first, key=lambda chunk: chunk.stop)
        del self.chunks[low : bisect_left(self.chunks, stop, key=lambda chunk: chunk.first)]

    def add_phrase(self, first: int, stop: int, kind: str, rule: str) -> None:
        self.phrases.append((first, stop, kind, rule))
        self.begins.setdefault(first, kind)
        self.ends[stop] = (first, kind)

    def make_phrase(self, first: int, stop: int, kind: str, rule: str) -> None:
        """A global phrase; the noun phrases inside it are no entities."""
        self.add_phrase(first, stop, kind, rule)
        for chunk in self.chunks_in(first, stop):
            chunk.role, chunk.rule = kind, rule

    def segments(self) -> list[tuple[int, int]]:
        """The pieces between commas and stops, commas inside noun phrases apart."""
        pieces, first = [], 0
        for place, word in enumerate(self.words):
            if word.pos in ("comma", "stop") and self.chunk_at(place) is None:
                pieces.append((first, place))
                first = place + 1
        pieces.append((first, len(self.words)))
        return [piece for piece in pieces if piece[0] < piece[1]]
