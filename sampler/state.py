"""What the processors of one UNet read: device tensors, updated in place before every UNet call."""

import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from attnmod.parser.prompt import Prompt
from attnmod.sampler.conditioning import SMALLEST_WEIGHT, RowConditioning, condition_rows
from attnmod.sampler.config import ModulationConfig
from attnmod.sampler.maps import OwnershipRecord
from attnmod.sampler.ownership import AttentionLevel, RunningAffinity, halved
from attnmod.sampler.pickup import MatchedRows
from attnmod.sampler.projections import Projections, TextLayers, project_text
from attnmod.sampler.regions import owners_at
from attnmod.sampler.schedule import progress_table

# Conditioning tensors of one run that are kept apart: a guider may send its conditions in turn, each its own.
REMEMBERED_CONDITIONINGS = 8


class ModulationState:
    """Shared by all processors of one handle.

    `self_attention_active` and `cross_attention_active` are the only things the processors branch on. They are
    decided on the host when a new conditioning tensor arrives; while they are off, the original processors run.
    """

    def __init__(self, config: ModulationConfig, num_train_timesteps: int, levels: tuple[int, ...], collect_maps: bool):
        """levels: how often the latents are halved where there is cross-attention."""
        self.config = config
        self.levels = levels
        self.attention = {level: AttentionLevel() for level in levels}
        self.collect_maps = collect_maps
        self.observes = config.observes_affinity
        self.self_attention_active = False
        self.cross_attention_active = False
        self.rows: RowConditioning  # of this call; set before either of the two above is
        self.record: OwnershipRecord | None = None
        self.text_layers: TextLayers = []  # the modulated cross-attention layers with their processors
        self._call: _Call | None = None
        self.projections_made = self.projections_saved = 0
        # columns: temperature, hidden weight, weight of global words, weight of details
        curves = [config.temperature, config.hidden_weight, config.global_weight, config.detail_weight]
        self._table = torch.tensor(progress_table(curves, num_train_timesteps), dtype=torch.float32)
        self._conditionings: list[Conditioning] = []  # the latest last
        self._run = 0

    def begin_call(
        self,
        unet: torch.nn.Module,
        sample: torch.Tensor,
        timestep: torch.Tensor | float | int,
        embeddings: torch.Tensor,
        lora_scale: float,
        match: Callable[[torch.Tensor], MatchedRows],
    ) -> None:
        """Set everything for one UNet call.

        Args:
            unet: the UNet that is about to run.
            sample: latents [R, C, height, width].
            timestep: of this call, a number or a tensor of one or R elements; it may live on the device.
            embeddings: the text conditioning [R, T, C].
            lora_scale: of this call.
            match: finds the prompts of its rows; called for a conditioning tensor not seen before.
        """
        latent_size = (sample.shape[-2], sample.shape[-1])
        current, so_far = self._look_up(embeddings), None
        if current is None:
            matched = match(embeddings)
            so_far = self._run_so_far(matched.prompts)  # a copy: its memory may be taken for these embeddings
            current = self._keep(embeddings, matched)
        self.rows = current.rows
        if current.record is not None:
            self.record = current.record
        self.self_attention_active = current.rows.modulates_self_attention
        self.cross_attention_active = current.rows.modulates_cross_attention
        current.fit(latent_size)
        current.run = self._run
        if so_far is not None:
            current.go_on_from(so_far)
        if self.cross_attention_active:
            self._provide_projections(current, unet, embeddings, timestep, lora_scale)
        for level, attention in self.attention.items():
            attention.owner, attention.query, attention.key = current.owners.get(level), None, None
        starts = None
        if self.self_attention_active or self.cross_attention_active:
            starts = self._set_progress(current, timestep)
        self._call = _Call(current, starts, latent_size)

    def end_call(self) -> None:
        """Take in what the layers of a call have left."""
        call, self._call = self._call, None
        if call is None:
            return
        current = call.conditioning
        if current.running is not None and self.cross_attention_active:
            current.running.observe(self.attention)
        if current.record is not None:
            current.record.add(call.starts, self._owners(call.latent_size), call.latent_size)
        for attention in self.attention.values():
            attention.query = attention.key = None

    def _owners(self, latent_size: tuple[int, int]) -> dict[int, dict[str, torch.Tensor]]:
        """level -> layer name -> the owners that it went by; of the average, the map that this call has led to.

        A layer whose patches another tool has merged has voted for itself, on patches that have no place in a map.
        """
        owners: dict[int, dict[str, torch.Tensor]] = {level: {} for level in self.levels}
        for _, processor in self.text_layers:
            owner = self.attention[processor.level].owner if processor.owners is None else processor.owners
            if owner is not None and owner.shape[-1] == math.prod(halved(latent_size, processor.level)):
                owners[processor.level][processor.name] = owner
            processor.owners = None
        return owners if self.cross_attention_active else {}

    def stand_aside(self) -> None:
        """Let the original processors run for this call."""
        self.self_attention_active = self.cross_attention_active = False
        self._call = None

    def new_run(self) -> None:
        """The pipeline was called: weights may have changed since the last run."""
        self._run += 1

    def forget(self) -> None:
        """Match every conditioning tensor anew: a prompt was set by hand. Their memory is used again."""
        for conditioning in self._conditionings:
            conditioning.tensor = None

    @property
    def projection_bytes(self) -> int:
        """Memory of the text's keys and values that are held now."""
        held = [tensor for kept in self._conditionings for pair in kept.projections.values() for tensor in pair]
        return sum(tensor.numel() * tensor.element_size() for tensor in held)

    def _provide_projections(
        self,
        current: "Conditioning",
        unet: torch.nn.Module,
        embeddings: torch.Tensor,
        timestep: torch.Tensor | float | int,
        lora_scale: float,
    ) -> None:
        if current.goes_on(self._run, timestep, lora_scale):
            self.projections_saved += 2 * len(self.text_layers)
        else:
            project_text(unet, self.text_layers, embeddings, lora_scale, into=current.projections)
            self.projections_made += 2 * len(self.text_layers)
        for _, processor in self.text_layers:
            processor.text_key, processor.text_value = current.projections[processor]

    def _set_progress(self, current: "Conditioning", timestep: torch.Tensor | float | int) -> torch.Tensor:
        """Set what changes per step, in place; returns which rows [R] begin a run."""
        rows = current.rows
        self._table = self._table.to(rows.temperature.device)  # a copy at the first call only
        now = torch.as_tensor(timestep, device=self._table.device).to(torch.float32).expand_as(rows.temperature)
        starts = rows.starts_run(now)
        if current.running is not None:
            current.running.restart(starts)
        if self.observes and self.config.balanced:
            rows.balance()

        last = self._table.shape[0] - 1
        position = now.clamp(0, last)
        below = position.floor().long()
        values = torch.lerp(self._table[below], self._table[(below + 1).clamp_max(last)], (position - below)[:, None])
        temperature, hidden_weight, global_weight, detail_weight = values.unbind(dim=1)  # [R] each
        at_first, at_last = self.config.hidden_weight.ends
        if current.has_regions and at_last < at_first:  # what is given by hand is sure from the start
            hidden_weight = torch.full_like(hidden_weight, at_last)

        rows.temperature.copy_(torch.where(rows.is_conditional, temperature, 1.0))
        rows.hidden_weight.copy_(torch.where(rows.has_entities, hidden_weight, 1.0))
        log_global = global_weight.clamp_min(SMALLEST_WEIGHT).log()[:, None]
        log_detail = detail_weight.clamp_min(SMALLEST_WEIGHT).log()[:, None]
        phase = torch.where(rows.is_global, log_global, torch.where(rows.is_detail, log_detail, 0.0))
        if self.config.equalize_entities:
            phase = phase + rows.equalization(self.config.equalize_entities)
        rows.log_weights.copy_(rows.own_log_weights + phase)
        return starts

    def _look_up(self, embeddings: torch.Tensor) -> "Conditioning | None":
        for conditioning in reversed(self._conditionings):
            if conditioning.is_of(embeddings):
                return conditioning
        return None

    def _run_so_far(self, prompts: list[Prompt | None]) -> "RunSoFar | None":
        """What the latest conditioning tensor of this run with all these prompts has seen, if there was one.

        Some callers make the tensor anew at every step, or cut guidance off in mid-run.
        """
        for earlier in reversed(self._conditionings):
            if earlier.run == self._run and (places := same_prompts(prompts, earlier.rows.prompts)) is not None:
                return RunSoFar(places, [tensor.clone() for tensor in earlier.evolving()], earlier.record)
        return None

    def _keep(self, embeddings: torch.Tensor, matched: MatchedRows) -> "Conditioning":
        """Remember a conditioning tensor; where one of the same shape has died, in its memory."""
        rows = condition_rows(matched.prompts, embeddings.shape[1], self.config, embeddings.device, matched.empty)
        free = next((kept for kept in self._conditionings if kept.is_dead and kept.rows.fits(rows)), None)
        if free is None:
            free = Conditioning(rows, self.levels, self.config)
        else:
            self._conditionings.remove(free)
            free.rows.take_over(rows)
        free.begin(embeddings, matched.masks, self.collect_maps)
        self._conditionings = [*self._conditionings, free][-REMEMBERED_CONDITIONINGS:]
        return free


@dataclass
class RunSoFar:
    """What one conditioning tensor has seen of a run, for the next one of the same run.

    places: for each of the next one's rows, which of these it is; None for a row without prompt. evolving: copies of
    `Conditioning.evolving`. record: of its maps.
    """

    places: list[int | None]
    evolving: list[torch.Tensor]
    record: OwnershipRecord | None


def same_prompts(prompts: list[Prompt | None], earlier: list[Prompt | None]) -> list[int | None] | None:
    """Where each prompt stands among the earlier ones, each place once; None if one is missing, or there is no prompt.

    >>> cat, dog = Prompt.from_entities("a cat", []), Prompt.from_entities("a dog", [])
    >>> same_prompts([dog, dog], [None, None, dog, dog]), same_prompts([cat], [None, dog]), same_prompts([None], [dog])
    ([2, 3], None, None)
    """
    left = {place: prompt for place, prompt in enumerate(earlier) if prompt is not None}
    places: list[int | None] = []
    for prompt in prompts:
        place = next((place for place, one in left.items() if one is prompt), None)
        if place is not None:
            del left[place]
        elif prompt is not None:
            return None
        places.append(place)
    return places if any(place is not None for place in places) else None


@dataclass
class _Call:
    """A UNet call between its two hooks."""

    conditioning: "Conditioning"
    starts: torch.Tensor | None  # [R] bool; None where nothing is modulated
    latent_size: tuple[int, int]


class Conditioning:
    """A conditioning tensor, known again by identity and version, with what was worked out for it.

    Attributes:
        owners: attention level -> a given map of owners, int8 [R, M] of slots.
        has_regions: whether they were given by hand.
        run: the run that it was last used in.
    """

    def __init__(self, rows: RowConditioning, levels: tuple[int, ...], config: ModulationConfig):
        self.rows, self.levels = rows, levels
        self.projections: Projections = {}
        self.owners: dict[int, torch.Tensor] = {}
        self.record: OwnershipRecord | None = None
        self.running: RunningAffinity | None = None
        self.run = -1
        self.tensor: weakref.ref[torch.Tensor] | None = None
        self._average = RunningAffinity(rows, levels, config) if config.observes_affinity else None

    def begin(self, embeddings: torch.Tensor, masks: list[torch.Tensor | None], collect_maps: bool) -> None:
        """Stand for these embeddings from now on; they are not kept alive."""
        self.tensor = weakref.ref(embeddings)
        self._version = _version(embeddings)
        self._projected_for: tuple[int, float, Any] | None = None
        # A call of unconditional rows alone owns nothing, and must not hide what the conditional one owned.
        conditional = any(prompt is not None for prompt in self.rows.prompts)
        self.record = OwnershipRecord(self.rows, self.levels) if collect_maps and conditional else None
        self._masks, self._fitted_to, self.owners = masks, None, {}
        with_entities = [mask is not None for mask, slots in zip(masks, self.rows.slots, strict=False) if slots]
        if any(with_entities) and not all(with_entities):
            raise ValueError(
                "of the prompts in one batch some have masks and some have none; give masks to all or none"
            )
        self.has_regions = any(with_entities)
        self.running = None if self.has_regions else self._average

    def fit(self, latent_size: tuple[int, int]) -> None:
        """Height and width of the latents of this call; what is kept per patch is made anew for another size."""
        if self._fitted_to == latent_size:
            return
        self._fitted_to = latent_size
        if self.running is not None:
            self.running.fit(latent_size)
            self.owners = self.running.owners
        if self.has_regions:
            self.owners = {level: self._regions(halved(latent_size, level)) for level in self.levels}

    def evolving(self) -> list[torch.Tensor]:
        """What changes from call to call and belongs to the run, a line for each row."""
        tensors = [self.rows.first_timestep, self.rows.last_timestep, self.rows.mean_affinity]
        if self.running is not None:
            tensors += [*self.running.averages.values(), *self.running.owners.values()]
        return tensors

    def go_on_from(self, so_far: RunSoFar) -> None:
        """Take over what an earlier conditioning tensor of this run has seen; after `fit`."""
        mine = self.evolving()
        if [tensor.shape[1:] for tensor in mine] != [tensor.shape[1:] for tensor in so_far.evolving]:
            return  # of latents of another size
        for own, earlier in zip(mine, so_far.evolving, strict=True):
            for row, place in enumerate(so_far.places):
                if place is not None:
                    own[row].copy_(earlier[place])
        if self.record is not None and so_far.record is not None:
            self.record.go_on_from(so_far.record, so_far.places)

    def _regions(self, size: tuple[int, int]) -> torch.Tensor:
        """The masks given by hand at a layer's size, int8 [R, M]."""
        nobody = torch.full((size[0] * size[1],), -1, dtype=torch.int8)
        rows = [
            nobody if masks is None else owners_at(masks, slots, size)
            for masks, slots in zip(self._masks, self.rows.slots, strict=True)
        ]
        return torch.stack(rows).to(self.rows.entity_bits.device)

    def is_of(self, embeddings: torch.Tensor) -> bool:
        return self.tensor is not None and self.tensor() is embeddings and self._version == _version(embeddings)

    @property
    def is_dead(self) -> bool:
        return self.tensor is None or self.tensor() is None

    def goes_on(self, run: int, timestep: torch.Tensor | float | int, lora_scale: float) -> bool:
        """Whether this call belongs to the run that the projections were made in, as far as the host can tell.

        Not after another call of the pipeline, under another LoRA scale, or where the timestep has not moved on from
        the run's first: then weights may have changed. When in doubt, no.
        """
        place, position = _place(timestep)
        key = (run, lora_scale, place)
        if self._projected_for == key and position > self._first_position:
            return True
        self._projected_for, self._first_position = key, position
        return False


def _place(timestep: torch.Tensor | float | int) -> tuple[Any, float]:
    """(what a timestep is part of, how far it is in there), without waiting for the device.

    A scheduler hands out the elements of one tensor in turn; where it lies on a device, their addresses tell the order.
    """
    if not isinstance(timestep, torch.Tensor):
        return "number", -float(timestep)
    if timestep.device.type == "cpu":
        return "number", -float(timestep.flatten()[0]) if timestep.numel() else math.inf
    return timestep.untyped_storage().data_ptr(), float(timestep.storage_offset())


def _version(tensor: torch.Tensor) -> int | None:
    """Counts in-place changes; inference tensors have no such count."""
    return None if tensor.is_inference() else tensor._version
