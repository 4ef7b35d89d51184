"""What a modulated pipeline's prompts are: what each text means, and which embeddings were made from it."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch

from attnmod.parser.align import CLIP_LENGTH, SPLITS, align_tokens
from attnmod.parser.prompt import Prompt
from attnmod.parser.second import join_second
from attnmod.parser.syntax import parse_prompt
from attnmod.sampler.pickup import MatchedRows, PromptBook
from attnmod.sampler.regions import read_masks


class KnownPrompts:
    """The prompts of one pipeline, parsed or set by hand, and the embeddings that go with them.

    Args:
        pipe: whose tokenizers the prompts are aligned with.
        spacy_model: what reads texts, by name or as an object; None for a small English one.

    Attributes:
        latest: the prompts that were paired with embeddings last, one per text.
        by_hand: prompts set by hand, by their text.
        book: rows of embeddings with their prompts.
    """

    def __init__(self, pipe: Any, spacy_model: Any):
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
        parsed = [self._parse(one) for one in (prompt if several else [prompt])]
        if embeddings is not None and (embeddings.ndim != 3 or embeddings.shape[0] != len(parsed)):
            raise ValueError(
                f"prompt_embeds has shape {tuple(embeddings.shape)}; {len(parsed)} prompts need"
                f" [{len(parsed)}, tokens, channels]"
            )
        regions = None if masks is None else read_masks(masks, parsed[0])
        for one in parsed:
            self.by_hand[one.text] = one
            self._masks.pop(one.text, None)
        if regions is not None:
            self._masks[parsed[0].text] = regions
        if embeddings is not None:
            self._remember(parsed, embeddings, split=split)

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
            self._remember(parsed, embeddings, None if seconds == texts else [self._parse(text) for text in seconds])

    def match(self, embeddings: torch.Tensor) -> MatchedRows:
        """The prompt and the regions of each row [R, T, C]. Syncs once."""
        matched = self.book.match(embeddings)
        matched.masks = [None if prompt is None else self._masks.get(prompt.text) for prompt in matched.prompts]
        return matched

    def _parse(self, prompt: str | Prompt) -> Prompt:
        if isinstance(prompt, Prompt):
            return prompt
        return self.by_hand.get(prompt) or parse_prompt(prompt, model=self._spacy_model)

    def _remember(
        self,
        prompts: list[Prompt],
        embeddings: torch.Tensor,
        seconds: list[Prompt] | None = None,
        split: str | None = None,
    ) -> None:
        """Pair prompts (seconds: what the second encoder reads) with embeddings [n, T, C], adjacent rows of each."""
        length = embeddings.shape[1]
        tokenizer = getattr(self._pipe, "tokenizer", None) or self._pipe.tokenizer_2
        latest = []
        for prompt, second in zip(prompts, seconds or [None] * len(prompts), strict=True):
            # A prompt that has its tokens keeps them: their weights may have been set by hand.
            if len(prompt.tokens) != length:
                prompt = _align(prompt, tokenizer, length, split)
            if second is not None:
                prompt = join_second(prompt, _align(second, self._pipe.tokenizer_2, length))
            latest.append(prompt)
        self.latest = latest
        for prompt, rows in zip(latest, embeddings.split(embeddings.shape[0] // len(latest)), strict=True):
            self.book.remember(rows[0], prompt)


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
                stacklevel=5,  # whoever called the handle's set_prompt, by way of _remember and set_prompt here
            )
    return aligned


def _as_list(texts: str | Sequence[str]) -> list[str]:
    return [texts] if isinstance(texts, str) else list(texts)
