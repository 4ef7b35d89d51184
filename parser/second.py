"""`prompt_2`: SDXL's two text encoders may read different texts; their features are joined position by position.

Position n of the attention's keys then speaks of word n of the first text and of word n of the second. It can belong to
an entity only where both mean the same one; everywhere else it is global.
"""

from collections import Counter

from attnmod.parser.prompt import Prompt, Token


def join_second(first: Prompt, second: Prompt) -> Prompt:
    """The first prompt, with tokens that hold for both.

    Args:
        first: `prompt`, aligned with `tokenizer`.
        second: `prompt_2`, aligned with `tokenizer_2` and to the same length.

    Returns:
        The first prompt. Where the texts disagree its tokens are global; entities are the same if their nouns are, in
        order. One warning says how many entities are left without any token.

    Raises:
        ValueError: one of the two is not aligned, or they have different lengths.
    """
    if not first.tokens or len(first.tokens) != len(second.tokens):
        raise ValueError(
            f"second has {len(second.tokens)} tokens and first {len(first.tokens)}: align both, to the same length"
        )
    if first.text == second.text:
        return first
    same = _same_entities(first, second)
    tokens = []
    for one, other in zip(first.tokens, second.tokens, strict=True):
        theirs = tuple(sorted(same[number] for number in other.entities if number in same))
        special = one.kind == other.kind and one.kind in ("bos", "eos", "pad")
        if special or (one.kind == "entity" and one.entities == theirs):
            tokens.append(one)
            continue
        # a word beside padding still says something, to every patch
        word = one if one.kind not in ("eos", "pad") else other
        tokens.append(Token(one.index, word.text, "global", (), one.weight))
    had = {number for token in first.tokens for number in token.entities}
    left = {number for token in tokens for number in token.entities}
    warnings = ["prompt_2 differs from prompt: only positions where both mean the same entity are masked"]
    if lost := sorted(had - left):
        names = ", ".join(repr(first.entities[number].text) for number in lost[:4])
        warnings.append(f"without tokens, since prompt_2 has other words at their positions: {names}")
    return first.with_tokens(tokens, warnings)


def _same_entities(first: Prompt, second: Prompt) -> dict[int, int]:
    """Ids of the second prompt -> ids of the first, by noun and order."""
    ids: dict[tuple[str, int], int] = {}
    seen: Counter = Counter()
    for entity in first.entities:
        ids[entity.head.lower(), seen[entity.head.lower()]] = entity.id
        seen[entity.head.lower()] += 1
    seen.clear()
    same = {}
    for entity in second.entities:
        name = (entity.head.lower(), seen[entity.head.lower()])
        seen[entity.head.lower()] += 1
        if name in ids:
            same[entity.id] = ids[name]
    return same
