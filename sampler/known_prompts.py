"""What a modulated pipeline's prompts are: what each text means, and which embeddings were made from it."""

import functools
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from attnmod.parser.align import CLIP_LENGTH, SPLITS, align_tokens
from attnmod.parser.prompt import Prompt
from attnmod.parser.readers import Reader, check_reader, read_with
from attnmod.parser.second import join_second
from attnmod.parser.syntax import parse_prompt
from attnmod.sampler.pickup import KnownRow, MatchedRows, PromptBook, Source
from attnmod.sampler.regions import read_masks

# Texts set by hand whose meaning is kept, with their masks; the one set first goes first. Many enough to set a list of
# prompts ahead of its runs; few enough for a server that sets one with every request: of four entities, masks of
# 1024x1024 take 16 MB a text.
KEPT_BY_HAND = 256


class KnownPrompts:
    """The prompts of one pipeline, parsed or set by hand, and the embeddings that go with them.

    Args:
        pipe: whose tokenizers the prompts are aligned with.
        spacy_model: what reads texts, by name or as an object; None for a small English one.
        reader: what makes a Prompt of a text instead; None for `parse_prompt` with that model.

    Attributes:
        latest: the prompts that were paired with embeddings last, one per text.
        by_hand: prompts set by hand, by their text, the one set last at the end; KEPT_BY_HAND at most.
        book: rows of embeddings with their prompts.
    """

    def __init__(self, pipe: Any, spacy_model: Any, reader: Reader | None = None):
        if reader is not None:
            check_reader(reader)
            if spacy_model is not None:
                raise ValueError("spacy_model and reader are both given: a reader takes the place of the parser")
        self._reader = reader
        self.latest: list[Prompt] = []
        self.by_hand: dict[str, Prompt] = {}
        self.book = PromptBook()
        self._pipe, self._spacy_model = pipe, spacy_model
        self._masks: dict[str, torch.Tensor] = {}  # the regions of entities, by their prompt's text

    def set_prompt(
        self,
        prompt: str | Prompt | Sequence[str | Prompt],
        embeddings: torch.Tensor | None,
        entities: Sequence[Any] | None,
        masks: Sequence[Any] | None,
        split: str | None,
    ) -> None:
        """Take what `ModulationHandle.set_prompt` is given, which says what it is and what is raised."""
        if entities is not None:
            if not isinstance(prompt, str):
                raise TypeError(f"entities go with one text, not with a {type(prompt).__name__}")
            prompt = Prompt.from_entities(prompt, entities)
        several = not isinstance(prompt, str | Prompt)
        if several and masks is not None:
            raise TypeError("masks go with one prompt; call set_prompt for each")
        # Not `_parse`, which takes what was set by hand before: a text is to mean again what the parser reads in it.
        parsed = [one if isinstance(one, Prompt) else self._read(one) for one in (prompt if several else [prompt])]
        if embeddings is not None and (embeddings.ndim != 3 or embeddings.shape[0] != len(parsed)):
            raise ValueError(
                f"prompt_embeds has shape {tuple(embeddings.shape)}; {len(parsed)} prompts need"
                f" [{len(parsed)}, tokens, channels]"
            )
        regions = None if masks is None else read_masks(masks, parsed[0])
        meant = {one.text: one for one in parsed}
        if embeddings is None:
            known, given = self._paired_anew(list(self.book.rows), meant, split), []
        else:  # the split is theirs, not that of other embeddings of the same text
            known = self._paired_anew(self.book.rows_beside(embeddings), meant, None)
            given = self._paired(parsed, embeddings, split=split)
        # Nothing below fails: a call that raises has changed nothing.
        self.book.rows = known
        for one in parsed:
            self._drop(one.text)
            self.by_hand[one.text] = one
        if regions is not None:
            self._masks[parsed[0].text] = regions
        for text in list(self.by_hand)[:-KEPT_BY_HAND]:
            self._drop(text)
        if given:
            self._remember(given)

    def note_encoded(self, given: dict[str, Any], embeddings: torch.Tensor, negative: torch.Tensor | None) -> None:
        """Keep texts beside the embeddings that the pipeline has made of them.

        Args:
            given: arguments of encode_prompt, by name.
            embeddings, negative: what it returned for the prompts and the negative prompts, [N, T, C].
        """
        # Negative rows first: where both texts are the same, the row counts as a prompt.
        if negative is not None and given.get("negative_prompt_embeds") is None:
            for row in negative[:: given.get("num_images_per_prompt", 1)]:
                self.book.remember(row, None)
        if given.get("prompt") is not None and given.get("prompt_embeds") is None:
            texts = _as_list(given["prompt"])
            seconds = _as_list(given.get("prompt_2") or texts)
            parsed = [self._parse(text) for text in texts]
            others = None if seconds == texts else [self._parse(text) for text in seconds]
            self._remember(self._paired(parsed, embeddings, others))

    def match(self, embeddings: torch.Tensor) -> MatchedRows:
        """The prompt and the regions of each row [R, T, C]. Syncs once."""
        matched = self.book.match(embeddings)
        matched.masks = [None if prompt is None else self._masks.get(prompt.text) for prompt in matched.prompts]
        # Embeddings passed to the pipeline are not encoded anew, and their text may have been set since they were.
        known = {id(row.prompt) for row in self.book.rows}
        now = {prompt.text: prompt for prompt in matched.prompts if prompt is not None}
        self.latest = [one if id(one) in known else now.get(one.text, one) for one in self.latest]
        return matched

    def _parse(self, text: str) -> Prompt:
        return self.by_hand.get(text) or self._read(text)

    def _read(self, text: str) -> Prompt:
        return parse_prompt(text, model=self._spacy_model) if self._reader is None else read_with(self._reader, text)

    def _drop(self, text: str) -> None:
        """Forget what was set by hand for a text."""
        self.by_hand.pop(text, None)
        self._masks.pop(text, None)

    def _paired(
        self,
        prompts: list[Prompt],
        embeddings: torch.Tensor,
        seconds: list[Prompt] | None = None,
        split: str | None = None,
    ) -> list[KnownRow]:
        """Prompts (seconds: what the second encoder reads) with embeddings [n, T, C], adjacent rows of each."""
        rows = []
        of_each = embeddings.split(embeddings.shape[0] // len(prompts))
        for prompt, second, adjacent in zip(prompts, seconds or [None] * len(prompts), of_each, strict=True):
            source = Source(prompt, second, split)
            rows.append(KnownRow(adjacent[0], self._pair(source, embeddings.shape[1]), source))
        return rows

    def _paired_anew(self, rows: list[KnownRow], meant: dict[str, Prompt], split: str | None) -> list[KnownRow]:
        """The rows, those of texts that are set with the prompts that these have now.

        So their prompts and the masks, which are found by text, are of one and the same call of `set_prompt`.

        Args:
            rows: of the book.
            meant: prompts by their text. Where `prompt_2` was another text, each of the two is the one meant now or, if
                it is not among these, what it was; then they are joined again.
            split: where the windows of these texts are cut; None is where they were.
        """
        pair = functools.cache(self._pair)  # runs of one prompt leave many equal rows
        anew = []
        for row in rows:
            source = row.source
            if source is not None and not source.texts.isdisjoint(meant):
                first, second = source.first, source.second
                source = Source(
                    meant.get(first.text, first),
                    None if second is None else meant.get(second.text, second),
                    split or source.split,
                )
                row = replace(row, prompt=pair(source, row.embedding.shape[0]), source=source)
            anew.append(row)
        return anew

    def _pair(self, source: Source, length: int) -> Prompt:
        """The prompt of an embedding of this length, with its tokens."""
        prompt, tokenizer = source.first, getattr(self._pipe, "tokenizer", None) or self._pipe.tokenizer_2
        # A prompt that has its tokens keeps them: their weights may have been set by hand.
        if len(prompt.tokens) != length:
            prompt = _align(prompt, tokenizer, length, source.split)
        if source.second is None:
            return prompt
        return join_second(prompt, _align(source.second, self._pipe.tokenizer_2, length))

    def _remember(self, rows: list[KnownRow]) -> None:
        self.latest = [row.prompt for row in rows if row.prompt is not None]
        for row in rows:
            self.book.remember(row.embedding, row.prompt, row.source)


def _align(prompt: Prompt, tokenizer: Any, length: int, split: str | None = None) -> Prompt:
    """Tokens for an embedding of this length; a multiple of 77 is chunks of 77, each with its own BOS and EOS."""
    chunks = length // CLIP_LENGTH if length % CLIP_LENGTH == 0 else 1
    layout: Any = dict(length=length // chunks, chunks=chunks)
    aligned = align_tokens(prompt, tokenizer, **layout, split=split or "tokens")
    if chunks > 1 and split is None:
        others = (align_tokens(prompt, tokenizer, **layout, split=other) for other in SPLITS)
        if any(
            [token.entities for token in other.tokens] != [token.entities for token in aligned.tokens]
            for other in others
        ):
            warnings.warn(
                f"{prompt.text[:40]!r}... has more than {CLIP_LENGTH} tokens, and tools cut such texts at different"
                ' places; taken is split="tokens", as sd_embed does. Say handle.set_prompt(..., split=...):'
                ' "sentences" for Compel',
                stacklevel=6,  # whoever called the handle's set_prompt, by way of _pair, _paired and set_prompt here
            )
    return aligned


def _as_list(texts: str | Sequence[str]) -> list[str]:
    return [texts] if isinstance(texts, str) else list(texts)
