"""Which text an embedding came from.

A pipeline hands the UNet a batch whose layout only it knows: unconditional rows first, or last, or in a call of
their own; dropped in mid-run; three-way under other guidance. So no row is told by its place. What the text
encoders returned is remembered together with its text, and the rows of a conditioning tensor are compared with it
bit for bit.
"""

import sys
from dataclasses import dataclass, field

import torch

from attnmod.parser.prompt import Prompt

# Rows remembered, the newest first out of the comparison. One is 0.3 MB for SDXL in fp16.
REMEMBERED_ROWS = 128


@dataclass(frozen=True)
class Source:
    """What the text encoders have read for a row, from which its prompt is made for its T tokens.

    first is of `prompt`, second of `prompt_2` where that is another text; split is where a text of several windows was
    cut, None where nobody has said so.
    """

    first: Prompt
    second: Prompt | None = None
    split: str | None = None

    @property
    def texts(self) -> set[str]:
        return {prompt.text for prompt in (self.first, self.second) if prompt is not None}


@dataclass(frozen=True)
class KnownRow:
    """One row of text embedding [T, C].

    prompt has T tokens; it is None for a negative prompt, which stays plain. source is what the prompt was made from.
    """

    embedding: torch.Tensor
    prompt: Prompt | None
    source: Source | None = None


@dataclass
class MatchedRows:
    """What is known of each row.

    prompts has None for a row that runs plain; empty tells rows of zeros; unknown counts those never seen before.
    masks has the regions [G, h, w] of a row's entities, where they were given by hand.
    """

    prompts: list[Prompt | None]
    empty: list[bool]
    unknown: int
    masks: list[torch.Tensor | None] = field(default_factory=list)


class PromptBook:
    """Remembers embeddings with their prompts.

    Attributes:
        rows: what is remembered, newest first.
    """

    def __init__(self):
        self.rows: list[KnownRow] = []

    def remember(self, embedding: torch.Tensor, prompt: Prompt | None, source: Source | None = None) -> None:
        """Pair a row of text embedding [T, C] with its prompt."""
        # A view would keep a whole batch alive, and would follow edits that the caller makes in place.
        row = KnownRow(embedding.detach().clone(), prompt, source)
        self.rows = [row, *self.rows][:REMEMBERED_ROWS]

    def rows_beside(self, embeddings: torch.Tensor) -> list[KnownRow]:
        """What is remembered of other embeddings than these [R, T, C]. Syncs for every row of this shape."""

        def is_one_of_these(row: KnownRow) -> bool:
            return bool((embeddings == row.embedding.to(embeddings)).flatten(1).all(dim=1).any())

        return [row for row in self.rows if row.embedding.shape != embeddings.shape[1:] or not is_one_of_these(row)]

    def match(self, embeddings: torch.Tensor) -> MatchedRows:
        """The prompt of each row [R, T, C]. A row of zeros is the empty negative prompt of SDXL. Syncs once."""
        known = [row for row in self.rows if row.embedding.shape == embeddings.shape[1:]]
        candidates = [torch.zeros_like(embeddings[0])] + [row.embedding.to(embeddings) for row in known]
        equal = torch.stack([(embeddings == candidate).flatten(1).all(dim=1) for candidate in candidates], dim=1)
        matched = MatchedRows([], [], 0)
        for is_zero, *is_known in equal.tolist():
            matched.empty.append(is_zero)
            first = is_known.index(True) if True in is_known else None
            matched.prompts.append(None if first is None or is_zero else known[first].prompt)
            matched.unknown += first is None and not is_zero
        return matched


def calling_pipeline():
    """The diffusers pipeline, modular or not, whose method is running now, looked for up the call stack.

    None in a hand-written loop.

    Pipelines may share a UNet and may be given the same prompt: then the embeddings are equal too, and only the
    caller tells them apart.
    """
    from diffusers import DiffusionPipeline, ModularPipeline

    frame = sys._getframe(1)
    while frame is not None:
        if isinstance(caller := frame.f_locals.get("self"), DiffusionPipeline | ModularPipeline):
            return caller
        frame = frame.f_back
    return None
