"""Checks of plain values: each raises a ValueError that names the field, what it was and what is allowed."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any


def check_text(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise ValueError(f"{name} is {value!r}: it must be a string")


def check_flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}: it must be true or false")


def check_integer(name: str, value: Any, *, at_least: int, alternative: str = "") -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        allowed = f"an integer of at least {at_least}" + (f", or {alternative}" if alternative else "")
        raise ValueError(f"{name} is {value!r}: it must be {allowed}")


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}: it must be one of {', '.join(choices)}")


def check_weight(name: str, value: Any) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < 0:
        raise ValueError(f"{name} is {value!r}: it must be a finite number of at least 0")


def check_weights(name: str, value: Any, length: int) -> None:
    """(start, end, weight) stretches of a text of this length, ascending."""
    if not isinstance(value, tuple):
        raise ValueError(f"{name} is {value!r}: it must be a tuple of (start, end, weight)")
    before = 0
    for place, one in enumerate(value):
        if not isinstance(one, tuple) or len(one) != 3:
            raise ValueError(f"{name}[{place}] is {one!r}: it must be (start, end, weight)")
        check_span(f"{name}[{place}]", one[:2])
        check_weight(f"{name}[{place}]", one[2])
        if one[0] < before or one[1] > length:
            raise ValueError(f"{name}[{place}] is {one!r}: stretches ascend and lie within {length} characters")
        before = one[1]


def check_strings(name: str, value: Any) -> None:
    if not isinstance(value, tuple) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{name} is {value!r}: it must be a tuple of strings")


def check_span(name: str, value: Any) -> None:
    whole = isinstance(value, tuple) and len(value) == 2 and all(type(edge) is int for edge in value)
    if not whole or not 0 <= value[0] < value[1]:
        raise ValueError(f"{name} is {value!r}: it must be (start, end) with 0 <= start < end")


def check_mentions(name: str, value: Any, first: tuple[int, int]) -> None:
    """Spans of one entity: the first one given, the others behind each other, none overlapping."""
    if not isinstance(value, tuple):
        raise ValueError(f"{name} is {value!r}: it must be a tuple of (start, end)")
    for one in value:
        check_span(name, one)
    ordered = sorted(value)
    if value[0] != first or list(value[1:]) != sorted(value[1:]):
        raise ValueError(f"{name} is {value!r}: it must begin with the entity's span, {first}, and then ascend")
    if any(before[1] > after[0] for before, after in pairwise(ordered)):
        raise ValueError(f"{name} is {value!r}: mentions must not overlap")


def check_keys(name: str, data: Any, *, required: Sequence[str], optional: Sequence[str] = ()) -> None:
    if not isinstance(data, Mapping):
        raise ValueError(f"{name} is {data!r}: it must be an object with the keys {', '.join(required)}")
    missing = [key for key in required if key not in data]
    if missing:
        raise ValueError(f"{name} lacks {', '.join(missing)}: it has {', '.join(map(str, data)) or 'no keys'}")
    unknown = [str(key) for key in data if key not in required and key not in optional]
    if unknown:
        raise ValueError(
            f"{name} has the unknown key {', '.join(unknown)}: allowed are {', '.join([*required, *optional])}"
        )


def list_of(name: str, value: Any) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{name} is {value!r}: it must be a list")
    return value


def span_of(name: str, value: Any) -> tuple[int, int]:
    """JSON has lists where the dataclasses have tuples."""
    span = tuple(list_of(name, value))
    check_span(name, span)
    return span  # type: ignore[return-value]  # check_span has seen two integers
