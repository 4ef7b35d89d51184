"""Parsed prompts -> the tensors of one UNet call's rows.

A row is one line of the UNet's batch. Rows with a prompt are modulated; rows without one (the unconditional half,
a negative prompt, an unknown embedding) get values that change nothing.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from attnmod.parser.prompt import Prompt
from attnmod.sampler.config import ModulationConfig

MAX_ENTITIES = 32  # one bit each of an int32
# A phase weight of zero hides a token as well as float32 can tell, without making it absent from the vote.
SMALLEST_WEIGHT = 1e-12
SMALLEST_MEAN_AFFINITY = 1e-9
MOST_EQUALIZED = 2.0  # log of the largest factor by which `equalize_entities` changes a weight


@dataclass
class RowConditioning:
    """What the kernels read for R rows of T tokens and G entity slots. All on the UNet's device.

    G is 16 or 32, whatever the prompt has: a compiled UNet is not compiled anew for another number of entities.

    Fixed for a prompt:
        entity_bits [R, T] int32, affinity [R, T, G] float32 or None, own_log_weights [R, T] float32 (the tokens'
        own weights; -inf is absent), is_global and is_detail [R, T] bool (which phase weight a token takes),
        is_conditional and has_entities [R] bool.
    Changed in place at every step:
        temperature [R], hidden_weight [R], log_weights [R, T], mean_affinity [R, G] (of each entity, over the patches
        of the run so far, up to a factor) and balanced_affinity [R, T, G] (affinity over that mean), all float32.

    prompts has the parsed prompt of each row, or None; slots the entity ids that the bits of each row stand for
    (-1 for the background).
    """

    prompts: list[Prompt | None]
    slots: list[list[int]]
    entity_bits: torch.Tensor
    affinity: torch.Tensor | None
    own_log_weights: torch.Tensor
    is_global: torch.Tensor
    is_detail: torch.Tensor
    is_conditional: torch.Tensor
    has_entities: torch.Tensor
    modulates_self_attention: bool
    modulates_cross_attention: bool
    temperature: torch.Tensor = field(init=False)
    hidden_weight: torch.Tensor = field(init=False)
    log_weights: torch.Tensor = field(init=False)
    mean_affinity: torch.Tensor = field(init=False)
    balanced_affinity: torch.Tensor | None = field(init=False)
    first_timestep: torch.Tensor = field(init=False)
    last_timestep: torch.Tensor = field(init=False)

    def __post_init__(self):
        self.temperature = torch.ones_like(self.own_log_weights[:, 0])
        self.hidden_weight = torch.ones_like(self.temperature)
        self.log_weights = self.own_log_weights.clone()
        capacity = 16 if all(len(slots) <= 16 for slots in self.slots) else MAX_ENTITIES
        self.mean_affinity = self.temperature[:, None].repeat(1, capacity)
        if self.affinity is not None:
            self.affinity = torch.nn.functional.pad(self.affinity, (0, capacity - self.affinity.shape[2]))
        self.balanced_affinity = None if self.affinity is None else self.affinity.clone()
        self.first_timestep = torch.full_like(self.temperature, -math.inf)
        self.last_timestep = self.first_timestep.clone()

    @property
    def num_entities(self) -> int:
        """G: entity slots, of which a row need not use all."""
        return self.mean_affinity.shape[1]

    def fits(self, other: "RowConditioning") -> bool:
        """Whether every tensor has the shape and the device of the other's."""
        mine, theirs = self._tensors(), other._tensors()
        return mine.keys() == theirs.keys() and all(
            (tensor.shape, tensor.device) == (theirs[name].shape, theirs[name].device) for name, tensor in mine.items()
        )

    def take_over(self, other: "RowConditioning") -> None:
        """Become the other, in place: addresses stay, so that a captured CUDA graph reads the new values."""
        for name, tensor in self._tensors().items():
            tensor.copy_(getattr(other, name))
        for name in ("prompts", "slots", "modulates_self_attention", "modulates_cross_attention"):
            setattr(self, name, getattr(other, name))

    def _tensors(self) -> dict[str, torch.Tensor]:
        return {name: value for name, value in vars(self).items() if isinstance(value, torch.Tensor)}

    def balance(self) -> None:
        """Divide each entity's votes by its mean affinity so far, in place."""
        if self.affinity is not None and self.balanced_affinity is not None:
            mean = self.mean_affinity.clamp_min(SMALLEST_MEAN_AFFINITY)
            torch.div(self.affinity, mean[:, None, :], out=self.balanced_affinity)

    def equalization(self, strength: float) -> torch.Tensor:
        """Log weights [R, T] that make up for unequal attention to the entities so far; see `equalize_entities`."""
        if self.affinity is None:
            return torch.zeros_like(self.log_weights)
        votes = (self.affinity > 0) & self.is_detail[..., None]  # the background has no detail
        used = votes.any(dim=1)  # [R, G]
        attention = self.mean_affinity.clamp_min(SMALLEST_MEAN_AFFINITY).log()
        middle = (attention * used).sum(1, keepdim=True) / used.sum(1, keepdim=True).clamp_min(1)
        lacking = (middle - attention).clamp(-MOST_EQUALIZED, MOST_EQUALIZED)
        return strength * (votes * lacking[:, None, :]).sum(2)

    def starts_run(self, timestep: torch.Tensor) -> torch.Tensor:
        """Rows [R] for which this timestep [R] begins a run: it is no lower than the run's first, or above its last.

        The same embeddings may be used for run after run, and an average over steps must not leak from one image
        into the next. Decided on the device.
        """
        starts = (timestep >= self.first_timestep) | (timestep > self.last_timestep)
        self.last_timestep.copy_(timestep)
        self.first_timestep.copy_(torch.where(starts, timestep, self.first_timestep))
        self.mean_affinity.copy_(torch.where(starts[:, None], torch.ones_like(self.mean_affinity), self.mean_affinity))
        return starts


def condition_rows(
    prompts: Sequence[Prompt | None],
    length: int,
    config: ModulationConfig,
    device: torch.device | str,
    empty: Sequence[bool] | None = None,
) -> RowConditioning:
    """Tensors for rows with these prompts.

    Args:
        prompts: one per row, with aligned tokens; None for a row that is not to be modulated.
        length: T, tokens in the text embedding.
        config: what is modulated.
        device: where the UNet runs.
        empty: rows whose embedding is zero. Their keys and values are zero too, and so is what attention makes of
            them; marked as a text without tokens, they cost nothing.

    Raises:
        ValueError: a prompt whose tokens are not `length` many.
    """
    rows = [_condition_row(prompt, length, config) for prompt in prompts]
    num_entities = max(1, *(len(row.slots) for row in rows))
    modulates_cross_attention = config.modulates_cross_attention and any(
        row.slots or any(row.log_weights) for row in rows
    )
    for row, is_empty in zip(rows, empty or (), strict=False):
        if is_empty:
            row.log_weights = [-math.inf] * length

    def tensor(values, dtype):
        return torch.tensor(values, dtype=dtype, device=device)

    affinity = None
    # The kernels' default vote is the plain sum; anything else is spelled out.
    if config.vote != "sum" or config.observes_affinity or config.unowned_background:
        affinity = torch.zeros(len(rows), length, num_entities)
        for r, row in enumerate(rows):
            for token, slot, vote in row.votes:
                affinity[r, token, slot] = vote
        affinity = affinity.to(device)
    conditional = [prompt is not None and bool(prompt.text.strip()) for prompt in prompts]
    if config.temperature_rows == "all" and any(conditional):
        sharpened = [True] * len(rows)
    else:
        sharpened = conditional
    return RowConditioning(
        prompts=list(prompts),
        slots=[row.slots for row in rows],
        entity_bits=tensor([row.bits for row in rows], torch.int32),
        affinity=affinity,
        own_log_weights=tensor([row.log_weights for row in rows], torch.float32),
        is_global=tensor([row.is_global for row in rows], torch.bool),
        is_detail=tensor([row.is_detail for row in rows], torch.bool),
        is_conditional=tensor(sharpened, torch.bool),
        has_entities=tensor([bool(row.slots) for row in rows], torch.bool),
        modulates_self_attention=config.modulates_self_attention and any(conditional),
        modulates_cross_attention=modulates_cross_attention,
    )


@dataclass
class _Row:
    slots: list[int]
    bits: list[int]
    votes: list[tuple[int, int, float]]  # (token, slot, how much it votes)
    log_weights: list[float]
    is_global: list[bool]
    is_detail: list[bool]


def _condition_row(prompt: Prompt | None, length: int, config: ModulationConfig) -> _Row:
    row = _Row([], [-1] * length, [], [0.0] * length, [False] * length, [False] * length)
    if prompt is None or not prompt.text.strip():
        return row
    if len(prompt.tokens) != length:
        raise ValueError(f"prompt has {len(prompt.tokens)} tokens, but the text embedding has {length}")

    special = {"bos": config.bos, "eos": config.eos, "pad": config.padding}
    for n, token in enumerate(prompt.tokens):
        row.log_weights[n] = math.log(token.weight) if token.weight > 0 else -math.inf
        if special.get(token.kind) == "absent":
            row.log_weights[n] = -math.inf

    row.slots = _slots(prompt, MAX_ENTITIES - config.unowned_background)
    if not row.slots:
        return row
    slot_of = {entity: slot for slot, entity in enumerate(row.slots)}
    background = len(row.slots)
    for n, token in enumerate(prompt.tokens):
        slots = sorted(slot_of[entity] for entity in token.entities if entity in slot_of)
        row.is_detail[n] = bool(slots)
        row.is_global[n] = not slots and special.get(token.kind, "global") == "global"
        # no bit: every owned patch hides it, as far as the mask hides. Of a single entity it has nothing to hide.
        if special.get(token.kind) == "masked" and len(row.slots) > 1:
            row.bits[n] = _as_int32(config.unowned_background << background)
        if slots:
            row.bits[n] = _as_int32(sum(1 << slot for slot in slots) | (config.unowned_background << background))
    for slot in range(len(row.slots)):
        row.votes += [(n, slot, vote) for n, vote in _entity_votes(prompt, row.slots[slot], config.vote)]
    if config.unowned_background:
        words = [n for n, token in enumerate(prompt.tokens) if token.kind == "global"]
        vote = 1.0 if config.vote == "sum" else 1 / max(1, len(words))
        row.votes += [(n, background, vote) for n in words]
        row.slots.append(-1)
    return row


def _as_int32(bits: int) -> int:
    """32 bits as an int32 has them: the highest is its sign."""
    return bits - (1 << 32) if bits >= 1 << 31 else bits


def _slots(prompt: Prompt, limit: int) -> list[int]:
    """Entity ids that have tokens, parents before children; those beyond the limit are told of and left out."""
    entities = sorted({entity for token in prompt.tokens for entity in token.entities})
    if len(entities) > limit:
        warnings.warn(
            f"the prompt has {len(entities)} entities; the first {limit} are kept apart, the words of the others"
            " are seen by every patch",
            stacklevel=2,
        )
    return entities[:limit]


def _entity_votes(prompt: Prompt, entity: int, vote: str) -> list[tuple[int, float]]:
    """Which tokens vote for an entity, and with what weight. A token votes for its innermost entity only."""
    own = [n for n, token in enumerate(prompt.tokens) if token.entities and max(token.entities) == entity]
    if vote == "sum":
        return [(n, 1.0) for n in own]
    if vote == "head":
        own = _tokens_that_spell(prompt, own, prompt.entities[entity].head) or own
    return [(n, 1 / len(own)) for n in own]


def _tokens_that_spell(prompt: Prompt, tokens: list[int], word: str) -> list[int]:
    """The last run of these tokens whose texts join to the word; empty if there is none."""
    texts = [prompt.tokens[n].text.lower() for n in tokens]
    for end in range(len(tokens), 0, -1):
        for start in range(end - 1, -1, -1):
            if "".join(texts[start:end]) == word.lower():
                return tokens[start:end]
    return []
