"""What a handle answers about its last run: who owned which patch, and how clearly."""

import torch
from PIL import Image

from attnmod.sampler.maps import OwnershipRecord, draw_strip, evenly
from attnmod.sampler.state import ModulationState


class MapQueries:
    """The part of a `ModulationHandle` that shows maps; they are there with `modulate(pipe, maps=True)`."""

    _collect_maps: bool
    _state: ModulationState

    def entity_map(self, *, layer: str | None = None, step: int | None = None) -> torch.Tensor:
        """Who owned which patch in the last run: most of the layers and steps asked for.

        Args:
            layer: a name of `cross_attention_layers`, or a shell pattern over them; left out, all.
            step: which UNet call of the run, from 0; negative counts from the end; left out, all.

        Returns:
            int8 [N, h, w] on the CPU, for the N images of the run, at the finest resolution of those layers: ids of
            `handle.prompts` entities, -1 where nobody.

        Raises:
            RuntimeError: attached without `maps=True`, or nothing modulated has run yet.
            ValueError: no such layer.
            IndexError: no such step.
        """
        return self._record("entity_map").entity_map(layer, step)

    def clarity_map(self, *, layer: str | None = None, step: int | None = None) -> torch.Tensor:
        """How clearly each patch's owner owns it: the share of the layers and steps that say so.

        Returns:
            float32 [N, h, w] in 0 to 1 on the CPU, of the size of `entity_map`, which has the arguments and errors.
        """
        return self._record("clarity_map").clarity_map(layer, step)

    def heat_map(
        self, entity: int | str, *, image: int = 0, layer: str | None = None, step: int | None = None
    ) -> torch.Tensor:
        """How clearly one entity owns each patch: the share of the layers and steps of the last run.

        Args:
            entity: id, text ("a red hat") or head noun ("hat") of an entity; of several the first.
            image: which image of the run.
            layer, step: as in `entity_map`.

        Returns:
            float32 [h, w] in 0 to 1 on the CPU, of the size of `entity_map`.

        Raises:
            RuntimeError: as `entity_map`.
            ValueError: no such entity, or layer.
            IndexError: no such image, or step.
        """
        record = self._record("heat_map")
        prompt = record.prompts[image]
        for one in prompt.entities:
            if entity in (one.id, one.text, one.head):
                return record.share_of(image, one.id, layer, step)
        known = ", ".join(f"{one.id} {one.text!r}" for one in prompt.entities) or "none"
        raise ValueError(f"the prompt has no entity {entity!r}; it has {known}")

    def map_strip(self, *, image: int = 0, columns: int = 8) -> Image.Image:
        """The entity map of up to `columns` steps of the last run, side by side, with a legend: a picture taking shape.

        Raises:
            RuntimeError: as `entity_map`.
            IndexError: no such image.
        """
        record = self._record("map_strip")
        steps = evenly(record.num_steps(), columns)
        return draw_strip([record.entity_map(step=step)[image] for step in steps], steps, record.prompts[image])

    def _record(self, asked: str) -> OwnershipRecord:
        if not self._collect_maps:
            raise RuntimeError(f"{asked}() needs modulate(pipe, maps=True)")
        if self._state.record is None or not self._state.record.num_steps():
            raise RuntimeError(f"{asked}() has nothing to show: no modulated run since attaching")
        return self._state.record
