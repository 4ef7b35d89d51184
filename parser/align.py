"""Characters to token positions: which token of the text encoder belongs to which entity.

    token n covers the characters [a, b)     by the tokenizer's own offsets, never by searching for strings
    its entity is the shortest entity or global phrase whose span holds [a, b); with it, all of its ancestors

Searching for words or for subsequences of ids goes wrong on repeated words, on punctuation and wherever the
tokenizer rewrites the text (CLIP lower-cases, composes accents, collapses blanks); offsets are exact there.
Nothing here imports torch or spaCy, and only `load_tokenizer` imports transformers.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import Any

from attnmod.parser.owners import Owners
from attnmod.parser.prompt import Prompt, Token

CLIP_LENGTH = 77  # positions of CLIP's text encoders, used where a tokenizer does not say
# Where a long text may be cut into windows, after the last token of each kind that fits; the best first.
SPLITS = {
    "tokens": (),
    "words": ("words",),
    "phrases": ("phrases", "words"),
    "sentences": ("sentences", "phrases", "words"),
}
_NAMED_IN_A_WARNING = 4  # a 10,000 character prompt loses hundreds of entities; a few names are enough

Offsets = tuple[int, int]


def align_tokens(
    prompt: Prompt, tokenizer: Any, *, length: int | None = None, chunks: int | None = 1, split: str = "tokens"
) -> Prompt:
    """Fill `Prompt.tokens`: one Token for each position of the text encoder.

    The layout is the one that diffusers hands to the text encoder: bos, the text cut to fit, eos, padding. eos is
    found by position, not by id: CLIP's first tokenizer pads with the id of eos, SDXL's second one with "!".

    A token belongs to an entity if it lies wholly inside its span and in no shorter global phrase; a negated entity's
    tokens are global. What the text encoder does not read is cut off: an entity cut in half gets a warning; one cut
    off wholly gets a warning too and appears in no token, but stays in `Prompt.entities`, so that ids keep their
    meaning.

    Args:
        prompt: parsed or given by hand; tokens that it has already are replaced.
        tokenizer: a Hugging Face tokenizer. One without offsets (a slow one) is asked for growing pieces of the text.
        length: number of positions of the text encoder; by default what the tokenizer says, or 77.
        chunks: how many texts of that length a long prompt is encoded as, each with bos and eos of its own, as Compel
            and sd_embed do; None: as many as it needs.
        split: where such a text ends: "tokens", when it is full, as sd_embed does; or after the last of its
            "sentences" (a full stop), "phrases" (also a comma, colon or semicolon) or "words", as Compel does by the
            name of its SplitLongTextMode (BRUTAL is "tokens"). Where a text has none, the next of these holds.

    Returns:
        The same prompt with tokens, and with a warning for each kind of loss.

    Raises:
        TypeError: prompt is not a Prompt.
        ValueError: length leaves no room for the special tokens, chunks is below 1, or an unknown split.
    """
    if not isinstance(prompt, Prompt):
        raise TypeError(f"prompt is a {type(prompt).__name__}: it must be a Prompt, as parse_prompt returns")
    if length is None:
        length = getattr(tokenizer, "model_max_length", None)
        # transformers says 10^30 where the tokenizer's files say nothing
        length = length if isinstance(length, int) and length <= 100_000 else CLIP_LENGTH
    elif isinstance(length, bool) or not isinstance(length, int):
        raise TypeError(f"length is {length!r}: it must be an integer")

    if chunks is not None and (isinstance(chunks, bool) or not isinstance(chunks, int) or chunks < 1):
        raise ValueError(f"chunks is {chunks!r}: it must be an integer of at least 1, or None")

    if split not in SPLITS:
        raise ValueError(f"split is {split!r}: it must be one of {', '.join(SPLITS)}")

    read = None if chunks is None else length * chunks
    ids, offsets = _encode(tokenizer, _encodable(prompt.text), read)
    has_bos = bool(ids) and ids[0] == getattr(tokenizer, "bos_token_id", None) and _is_empty(offsets[0])
    has_eos = len(ids) > has_bos and ids[-1] == getattr(tokenizer, "eos_token_id", None) and _is_empty(offsets[-1])
    room = length - has_bos - has_eos
    if room < 0:
        raise ValueError(f"length is {length}: it must be at least {has_bos + has_eos}, for the special tokens")
    body = offsets[has_bos : len(offsets) - has_eos]
    windows = _windows(_endings(prompt, tokenizer, ids[has_bos:], body, split), room, chunks)

    # what the text encoder does not read needs no owner
    owners = Owners(prompt)
    seen_by = [_visible_to(prompt, owners, span) for span in body[: windows[-1][1]]]
    tokens: list[Token] = []
    pad = str(getattr(tokenizer, "pad_token", None) or "")
    for first, stop in windows:
        if has_bos:
            tokens.append(Token(len(tokens), str(tokenizer.bos_token), "bos"))
        for span, entities in zip(body[first:stop], seen_by[first:stop], strict=True):
            kind = "entity" if entities else "global"
            tokens.append(Token(len(tokens), prompt.text[slice(*span)], kind, entities, prompt.weight(*span)))
        if has_eos:
            tokens.append(Token(len(tokens), str(tokenizer.eos_token), "eos"))
        while len(tokens) % length:
            tokens.append(Token(len(tokens), pad, "pad"))
    return prompt.with_tokens(tokens, _losses(prompt, body, seen_by, len(tokens)))


def _endings(
    prompt: Prompt, tokenizer: Any, ids: Sequence[int], body: Sequence[Offsets], split: str
) -> list[frozenset[str]]:
    """What ends with each token, of "sentences", "phrases" and "words", as far as this split asks for it."""
    if split == "tokens":
        return [frozenset()] * len(body)
    wanted = frozenset(SPLITS[split])
    endings = []
    for span, name in zip(body, tokenizer.convert_ids_to_tokens(list(ids[: len(body)])), strict=True):
        sign = prompt.text[slice(*span)]
        ends = {"words"} if name.endswith("</w>") else set()
        ends |= {"sentences", "phrases"} if sign == "." else {"phrases"} if sign in (",", ":", ";") else set()
        endings.append(wanted & ends)
    return endings


def _windows(endings: Sequence[frozenset[str]], room: int, count: int | None) -> list[tuple[int, int]]:
    """Where a text of so many tokens is cut into windows that hold `room` of them: (first, stop) of each."""
    windows: list[tuple[int, int]] = []
    first, done = 0, False
    while not done:
        stop = min(first + room, len(endings))
        if stop < len(endings):
            for kind in SPLITS["sentences"]:
                last = max((n for n in range(first, stop) if kind in endings[n]), default=None)
                if last is not None:
                    stop = last + 1
                    break
        windows.append((first, stop))
        first = stop
        done = len(windows) == count if count else stop == len(endings) or room == 0
    return windows


def _visible_to(prompt: Prompt, owners: Owners, span: Offsets) -> tuple[int, ...]:
    """Ids of the entities that see the token over these characters, ascending; empty for a global token."""
    owner = None if _is_empty(span) else owners.of(*span)
    return () if owner is None else tuple(sorted((owner, *prompt.ancestors(owner))))


def _losses(prompt: Prompt, body: Sequence[Offsets], seen_by: Sequence[tuple[int, ...]], length: int) -> Iterator[str]:
    """Sentences on entities that lost tokens, by truncation or because a token reaches over their edge."""
    halved, dropped, blurred = [], [], []
    room = len(seen_by)
    reached = body[room][0] if room < len(body) else len(prompt.text)  # the first character that is not read
    found = set(chain.from_iterable(seen_by))
    for entity in prompt.entities:
        if entity.negated:
            continue
        if entity.id not in found:
            (dropped if entity.span[1] > reached else blurred).append(entity.text)
        elif entity.span[1] > reached:
            halved.append(entity.text)
    if len(body) > room:
        yield f"the prompt has {len(body)} tokens and the text encoder reads {room} of them ({length} positions)"
    if halved:
        yield f"cut in half by the end of the text encoder: {_names(halved)}"
    if dropped:
        yield f"cut off by the end of the text encoder, so without tokens: {_names(dropped)}"
    if blurred:
        yield f"no token lies wholly inside these entities, so they have none: {_names(blurred)}"


def _names(texts: Sequence[str]) -> str:
    more = len(texts) - _NAMED_IN_A_WARNING
    shown = [repr(text if len(text) <= 60 else f"{text[:57]}...") for text in texts[:_NAMED_IN_A_WARNING]]
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def _encode(tokenizer: Any, text: str, length: int | None) -> tuple[list[int], list[Offsets]]:
    """Token ids of the whole text, special tokens included, and the characters that each stands for."""
    text, origins = _with_all_vectors(tokenizer, text)
    if getattr(tokenizer, "is_fast", True):
        encoded = tokenizer(text, return_offsets_mapping=True, verbose=False)
        ids, offsets = list(encoded["input_ids"]), [(int(a), int(b)) for a, b in encoded["offset_mapping"]]
    else:
        ids, offsets = _encode_without_offsets(tokenizer, text, length)
    if origins is not None:
        offsets = [span if _is_empty(span) else (origins[span[0]][0], origins[span[1] - 1][1]) for span in offsets]
    return ids, offsets


def _with_all_vectors(tokenizer: Any, text: str) -> tuple[str, list[Offsets] | None]:
    """The text with learnt words of several vectors written out, as diffusers does before it tokenises.

    "<cat>" of three vectors is "<cat> <cat>_1 <cat>_2" to the text encoder. Also the characters of the text that each
    character of the longer one stands for; None if nothing had to be written out.
    """
    added = getattr(tokenizer, "added_tokens_encoder", None) or {}
    learnt = sorted((word for word in added if f"{word}_1" in added and word in text), key=len, reverse=True)
    if not learnt:
        return text, None
    longer: list[str] = []
    origins: list[Offsets] = []
    place = 0
    for match in re.finditer("|".join(map(re.escape, learnt)), text):
        longer.append(text[place : match.start()])
        origins += [(one, one + 1) for one in range(place, match.start())]
        word, number = match[0], 1
        written = word
        while f"{word}_{number}" in added:
            written += f" {word}_{number}"
            number += 1
        longer.append(written)
        origins += [match.span()] * len(written)
        place = match.end()
    longer.append(text[place:])
    origins += [(one, one + 1) for one in range(place, len(text))]
    return "".join(longer), origins


# words, single signs, and each character of scripts that write no blanks between words
_STEP = re.compile(r"[^\W\u0e00-\uffff]+|\S")


def _encode_without_offsets(tokenizer: Any, text: str, length: int | None) -> tuple[list[int], list[Offsets]]:
    """Offsets by cumulative re-encoding, for a tokenizer that gives none.

    The text is encoded up to one word end after the other. Where those ids are the beginning of the whole text's
    ids, the count of tokens up to that character is known; tokens between two such places share their
    characters. It costs one encoding per word, and stops where the text encoder stops reading.
    """
    ids = list(tokenizer(text, verbose=False)["input_ids"])
    plain = list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    offsets: list[Offsets] = []
    start = 0
    for step in _STEP.finditer(text):
        if length is not None and len(offsets) > length:
            break
        known = list(tokenizer(text[: step.end()], add_special_tokens=False, verbose=False)["input_ids"])
        if len(known) > len(offsets) and plain[: len(known)] == known:
            offsets += [_trimmed(text, start, step.end())] * (len(known) - len(offsets))
            start = step.end()
    offsets += [_trimmed(text, start, len(text))] * (len(plain) - len(offsets))
    before = 1 if len(ids) > len(plain) and ids[0] == getattr(tokenizer, "bos_token_id", None) else 0
    return ids, [(0, 0)] * before + offsets + [(0, 0)] * (len(ids) - before - len(plain))


def _trimmed(text: str, start: int, end: int) -> Offsets:
    piece = text[start:end]
    stripped = piece.strip()
    if not stripped:
        return (start, end)
    start += piece.index(stripped)
    return (start, start + len(stripped))


def _is_empty(span: Offsets) -> bool:
    return span[0] >= span[1]


def _encodable(text: str) -> str:
    """The text with lone surrogates replaced one for one: tokenizers read UTF-8, which has none."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


def load_tokenizer(folder: str | PathLike[str]) -> Any:
    """The CLIP tokenizer in a folder that has vocab.json and merges.txt, or tokenizer.json, as a pipeline's
    `tokenizer`.

    Raises:
        FileNotFoundError: the folder or the files are missing.
        ValueError: no tokenizer can be made of them.
    """
    path = Path(folder)
    if not path.is_dir():
        raise FileNotFoundError(
            f"no tokenizer folder at {path}: it must be a folder with vocab.json and merges.txt, or tokenizer.json"
        )
    whole = (path / "tokenizer.json").is_file()
    missing = [name for name in ("vocab.json", "merges.txt") if not (path / name).is_file()]
    if missing and not whole:
        raise FileNotFoundError(
            f"{path} has no {' and no '.join(missing)}: a CLIP tokenizer needs both, or tokenizer.json"
        )
    from transformers import (
        CLIPTokenizer,  # seconds to import, and needed only here
        CLIPTokenizerFast,  # type: ignore[attr-defined]  # made when it is asked for
    )

    try:
        if (path / "tokenizer_config.json").is_file():
            tokenizer = CLIPTokenizer.from_pretrained(str(path), local_files_only=True)
        elif whole:
            tokenizer = CLIPTokenizerFast(tokenizer_file=str(path / "tokenizer.json"))
        else:
            tokenizer = CLIPTokenizer(str(path / "vocab.json"), str(path / "merges.txt"))
    except Exception as error:  # whatever a library makes of a broken file
        raise ValueError(f"no tokenizer can be made of {path}: {type(error).__name__}: {error}") from error
    if tokenizer.model_max_length > 100_000:
        tokenizer.model_max_length = CLIP_LENGTH
    return tokenizer
