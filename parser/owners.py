"""Whose words the characters of a prompt are: found by bisection, since aligning and drawing ask for every piece.

owner = the part with the shortest span, entity or global phrase, that holds all of the characters
"""

from bisect import bisect_right
from typing import Any


class Owners:
    """An index of a prompt's entities and global phrases by their characters.

    A boundary is where a part begins or ends; between two of them the same parts hold. Parts nest a few levels deep, so
    that each stretch has few, however long the text is.
    """

    def __init__(self, prompt: Any):
        self._prompt = prompt
        entities = [(start, end, entity) for entity in prompt.entities for start, end in entity.spans]
        parts = [(*phrase.span, phrase) for phrase in prompt.globals] + entities
        begins: dict[int, list[int]] = {}
        finishes: dict[int, list[int]] = {}
        for number, (start, end, _) in enumerate(parts):
            begins.setdefault(start, []).append(number)
            finishes.setdefault(end, []).append(number)
        self._parts = parts
        self._edges = [0, *sorted({*begins, *finishes} - {0})]
        self._held: list[tuple[int, ...]] = []
        held: dict[int, None] = {}
        for edge in self._edges:
            for number in finishes.get(edge, ()):
                held.pop(number, None)
            held.update(dict.fromkeys(begins.get(edge, ())))
            self._held.append(tuple(held))

    def of(self, start: int, end: int) -> int | None:
        """The innermost entity whose words these characters are; None if they are global. See `Prompt.owner`."""
        shortest, owner = 0, None
        crossed = []
        for low, high, part in self._touching(start, end):
            is_entity = hasattr(part, "id")
            if not (low <= start and end <= high):
                crossed.append(part)
            elif (owner is None and not shortest) or high - low < shortest or (high - low == shortest and is_entity):
                shortest, owner = high - low, part
        found = owner.id if owner is not None and hasattr(owner, "id") and not owner.negated else None
        if crossed and not all(hasattr(one, "id") and found in self._prompt.ancestors(one.id) for one in crossed):
            return None
        return found

    def holding(self, start: int, end: int) -> list[Any]:
        """The entities and global phrases that hold all of these characters."""
        return [part for low, high, part in self._touching(start, end) if low <= start and end <= high]

    def _touching(self, start: int, end: int) -> list[tuple[int, int, Any]]:
        first = bisect_right(self._edges, start) - 1
        last = max(bisect_right(self._edges, end - 1), first + 1)
        return [self._parts[number] for number in sorted({one for held in self._held[first:last] for one in held})]
