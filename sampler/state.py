"""What the processors of one UNet read: device tensors, updated in place before every UNet call."""

import weakref
from collections import OrderedDict
from collections.abc import Callable

import torch

from attnmod.sampler.conditioning import SMALLEST_WEIGHT, RowConditioning, condition_rows
from attnmod.sampler.config import ModulationConfig
from attnmod.sampler.maps import OwnershipRecord
from attnmod.sampler.pickup import MatchedRows
from attnmod.sampler.schedule import progress_table

# Conditioning tensors of one run that are kept apart: a guider may send its conditions in turn, each its own.
REMEMBERED_CONDITIONINGS = 8


class ModulationState:
    """Shared by all processors of one handle.

    `self_attention_active` and `cross_attention_active` are the only things the processors branch on. They are
    decided on the host when a new conditioning tensor arrives; while they are off, the original processors run.
    """

    def __init__(self, config: ModulationConfig, num_train_timesteps: int, collect_maps: bool):
        self.config = config
        self.collect_maps = collect_maps
        self.self_attention_active = False
        self.cross_attention_active = False
        self.rows: RowConditioning  # of this call; set before either of the two above is
        self.ownership: OwnershipRecord | None = None
        # columns: temperature, hidden weight, weight of global words, weight of details
        curves = [config.temperature, config.hidden_weight, config.global_weight, config.detail_weight]
        self._table = torch.tensor(progress_table(curves, num_train_timesteps), dtype=torch.float32)
        self._conditionings: OrderedDict[int, _Seen] = OrderedDict()

    def begin_call(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | float | int,
        embeddings: torch.Tensor,
        match: Callable[[torch.Tensor], MatchedRows],
    ) -> None:
        """Set everything for one UNet call.

        Args:
            sample: latents [R, C, height, width].
            timestep: of this call, a number or a tensor of one or R elements; it may live on the device.
            embeddings: the text conditioning [R, T, C].
            match: finds the prompts of its rows; called for a conditioning tensor not seen before.
        """
        seen = self._look_up(embeddings)
        if seen is None:
            prompts = match(embeddings).prompts
            rows = condition_rows(prompts, embeddings.shape[1], self.config, embeddings.device)
            seen = self._keep(embeddings, rows)
        self.rows = seen.rows
        if seen.ownership is not None:
            self.ownership = seen.ownership
            self.ownership.fit((sample.shape[-2], sample.shape[-1]))
        self.self_attention_active = seen.rows.modulates_self_attention
        self.cross_attention_active = seen.rows.modulates_cross_attention
        if self.self_attention_active or self.cross_attention_active:
            self._set_progress(seen, timestep)

    def stand_aside(self) -> None:
        """Let the original processors run for this call."""
        self.self_attention_active = self.cross_attention_active = False

    def _set_progress(self, seen: "_Seen", timestep: torch.Tensor | float | int) -> None:
        rows = seen.rows
        self._table = self._table.to(rows.temperature.device)  # a copy at the first call only
        now = torch.as_tensor(timestep, device=self._table.device).to(torch.float32).expand_as(rows.temperature)
        starts = rows.starts_run(now)
        if seen.ownership is not None:
            seen.ownership.restart(starts)

        last = self._table.shape[0] - 1
        position = now.clamp(0, last)
        below = position.floor().long()
        values = torch.lerp(self._table[below], self._table[(below + 1).clamp_max(last)], (position - below)[:, None])
        temperature, hidden_weight, global_weight, detail_weight = values.unbind(dim=1)  # [R] each

        rows.temperature.copy_(torch.where(rows.is_conditional, temperature, 1.0))
        rows.hidden_weight.copy_(torch.where(rows.has_entities, hidden_weight, 1.0))
        log_global = global_weight.clamp_min(SMALLEST_WEIGHT).log()[:, None]
        log_detail = detail_weight.clamp_min(SMALLEST_WEIGHT).log()[:, None]
        phase = torch.where(rows.is_global, log_global, torch.where(rows.is_detail, log_detail, 0.0))
        rows.log_weights.copy_(rows.own_log_weights + phase)

    def _look_up(self, embeddings: torch.Tensor) -> "_Seen | None":
        seen = self._conditionings.get(id(embeddings))
        if seen is None or seen.tensor() is not embeddings or seen.version != _version(embeddings):
            return None
        self._conditionings.move_to_end(id(embeddings))
        return seen

    def _keep(self, embeddings: torch.Tensor, rows: RowConditioning) -> "_Seen":
        # A call of unconditional rows alone owns nothing, and must not hide what the conditional one owned.
        record = OwnershipRecord(rows) if self.collect_maps and any(rows.prompts) else None
        seen = _Seen(embeddings, rows, record)
        self._conditionings[id(embeddings)] = seen
        while len(self._conditionings) > REMEMBERED_CONDITIONINGS:
            self._conditionings.popitem(last=False)
        return seen

    def forget(self) -> None:
        """Match every conditioning tensor anew: a prompt was set by hand."""
        self._conditionings.clear()


class _Seen:
    """A conditioning tensor, known again by identity and version; it is not kept alive."""

    def __init__(self, embeddings: torch.Tensor, rows: RowConditioning, ownership: OwnershipRecord | None):
        self.tensor = weakref.ref(embeddings)
        self.version = _version(embeddings)
        self.rows = rows
        self.ownership = ownership


def _version(tensor: torch.Tensor) -> int | None:
    """Counts in-place changes; inference tensors have no such count."""
    return None if tensor.is_inference() else tensor._version
