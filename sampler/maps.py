"""Who owned which patch, kept while the image is made, and drawn as a picture.

Kept is one byte for each patch of each layer and step, never anything of size patches x tokens.
"""

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont

from attnmod.parser.prompt import Prompt
from attnmod.sampler.conditioning import RowConditioning
from attnmod.sampler.ownership import halved
from attnmod.sampler.palette import entity_colour

# UNet calls that are remembered; of a longer run the last ones. For SDXL at 1024x1024, one image and its
# unconditional row, a call takes 0.2 MB, so 26 MB in all.
REMEMBERED_CALLS = 128
LEGIBLE_WIDTH = 256  # pixels: what a legend needs for an entity with three attributes


@dataclass
class _Call:
    """One UNet call.

    starts: which rows began a run with it, [R] bool; None for all. owners: level -> (layer names, int8 [L, R, M]).
    """

    starts: torch.Tensor | None
    owners: dict[int, tuple[tuple[str, ...], torch.Tensor]]
    latent_size: tuple[int, int]


class OwnershipRecord:
    """The owner maps of every layer and step of a run, for one conditioning tensor."""

    def __init__(self, rows: RowConditioning, levels: tuple[int, ...]):
        """rows: only read now; their memory serves other prompts later.

        levels: how often the latents are halved where there is cross-attention.
        """
        self.levels = levels
        self._prompts, self._slots = list(rows.prompts), [list(slots) for slots in rows.slots]
        self._num_slots = rows.num_entities
        self._calls: list[_Call] = []

    def go_on_from(self, earlier: "OwnershipRecord", places: Sequence[int | None]) -> None:
        """Begin with what an earlier record of the same run has: places are its rows; None is a row that it lacks."""
        lacking = torch.tensor([place is None for place in places])
        index = [place or 0 for place in places]
        for call in earlier._calls:
            kept = {
                level: (names, maps[:, index].masked_fill(lacking.to(maps.device)[:, None], -1))
                for level, (names, maps) in call.owners.items()
            }
            starts = None if call.starts is None else call.starts[index] & ~lacking.to(call.starts.device)
            self._calls.append(_Call(starts, kept, call.latent_size))

    def add(
        self,
        starts: torch.Tensor | None,
        owners: dict[int, dict[str, torch.Tensor]],
        latent_size: tuple[int, int],
    ) -> None:
        """Keep one UNet call.

        Args:
            starts: rows for which this call begins a run, [R] bool, on the device and looked at later; None for all.
            owners: level -> {layer name: owners, int8 [R, M] or [R, H, M]}; empty where nobody owns anything.
            latent_size: height and width of the latents.
        """
        if self._calls and self._calls[-1].latent_size != latent_size:
            self._calls = []
        kept = {level: (tuple(maps), _stacked(maps.values())) for level, maps in owners.items() if maps}
        self._calls = [*self._calls, _Call(None if starts is None else starts.clone(), kept, latent_size)][
            -REMEMBERED_CALLS:
        ]

    @property
    def bytes(self) -> int:
        return sum(maps.numel() for call in self._calls for _, maps in call.owners.values())

    @property
    def prompts(self) -> list[Prompt]:
        """The prompts of `entity_map`'s images."""
        return [prompt for prompt in self._prompts if prompt is not None]

    def num_steps(self) -> int:
        """UNet calls of the last run."""
        return len(self._last_run())

    def shares(self, layer: str | None = None, step: int | None = None) -> torch.Tensor:
        """How often each slot owned each patch, float32 [R, G, h, w] in 0 to 1 on the CPU, over layers and steps.

        What is missing from a sum of 1 was nobody's.

        Args:
            layer: a layer's name or a shell pattern over the names; None is all. The finest of them gives the size.
            step: which UNet call of the run, from 0; negative counts from the end; None is all.

        Raises:
            ValueError: no layer of that name.
            IndexError: no such step.
        """
        calls = self._last_run()
        if step is not None:
            if not -len(calls) <= step < len(calls):
                raise IndexError(f"there is no step {step}; the last run had {len(calls)}")
            calls = [calls[step]]
        total: dict[int, torch.Tensor] = {}
        if layer is None:  # where nobody owns anything, that is seen at the finest level
            height, width = halved(calls[0].latent_size, min(self.levels))
            total[min(self.levels)] = torch.zeros(len(self._prompts), self._num_slots, height * width)
        votes = 0
        for call in calls:
            for level, (names, maps) in call.owners.items():
                chosen = [i for i, name in enumerate(names) if layer is None or fnmatch.fnmatchcase(name, layer)]
                if chosen:
                    slots = torch.arange(self._num_slots, device=maps.device)[:, None]  # [G, 1]
                    counts = (maps[chosen][:, :, None] == slots).sum(0)  # [R, G, M]
                    total[level] = total.get(level, 0) + counts.cpu()
                    votes += len(chosen)
        if not total:
            known = sorted({name for call in calls for names, _ in call.owners.values() for name in names})
            raise ValueError(f"no layer matches {layer!r}; modulated are {', '.join(known)}")
        sizes = {level: halved(calls[0].latent_size, level) for level in total}
        finest = max(sizes.values())
        images = [counts.unflatten(2, sizes[level]).float() for level, counts in total.items()]  # [R, G, h, w]
        owned = torch.stack([F.interpolate(image, size=finest, mode="nearest") for image in images]).sum(0)
        return owned / max(votes, 1)

    def entity_map(self, layer: str | None = None, step: int | None = None) -> torch.Tensor:
        """Who owned each patch most often: int8 [N, h, w], entity ids of each image's prompt, -1 is nobody."""
        shares = self.shares(layer, step)
        owned, slot = shares.max(dim=1)
        nobody = 1 - shares.sum(dim=1)
        slot = torch.where(owned > nobody - 1e-6, slot, -1)  # an entity wins a tie
        maps = [self._ids(r)[slot[r]] for r in self._image_rows()]
        return torch.stack(maps).to(torch.int8)

    def clarity_map(self, layer: str | None = None, step: int | None = None) -> torch.Tensor:
        """The share of each patch's owner, float32 [N, h, w]: 1 where all layers and steps agreed, 0 at nobody's."""
        return self.shares(layer, step).amax(dim=1)[self._image_rows()]

    def share_of(self, image: int, entity: int, layer: str | None = None, step: int | None = None) -> torch.Tensor:
        """How often an entity owned each patch, float32 [h, w] in 0 to 1."""
        r = self._image_rows()[image]
        shares = self.shares(layer, step)[r]
        slots = self._slots[r]
        return shares[slots.index(entity)] if entity in slots else torch.zeros(shares.shape[1:])

    def _image_rows(self) -> list[int]:
        return [r for r, prompt in enumerate(self._prompts) if prompt is not None]

    def _ids(self, r: int) -> torch.Tensor:
        """Entity id of each slot; the last, which -1 reads, is nobody."""
        slots = self._slots[r]
        return torch.tensor([*slots, *[-1] * (self._num_slots - len(slots) + 1)])

    def _last_run(self) -> list[_Call]:
        begins = 0
        for i, call in enumerate(self._calls):
            if call.starts is None or call.starts.any():
                begins = i
        return self._calls[begins:]


def _stacked(maps) -> torch.Tensor:
    """Owners of several layers, int8 [L, R, M]; where heads voted apart, what most of them say."""
    layers = []
    for owner in maps:
        if owner.ndim == 3:
            owner = owner.mode(dim=1).values
        layers.append(owner)
    return torch.stack(layers)


def draw_entity_map(image: Image.Image, entity_map: torch.Tensor, prompt: Prompt, opacity: float = 0.55) -> Image.Image:
    """The image with each patch tinted in its entity's colour, and a legend below.

    Args:
        image: the generated picture; one narrower than `LEGIBLE_WIDTH` is enlarged by a whole number.
        entity_map: int8 [h, w], entity ids, -1 for nobody.
        prompt: names the entities.
        opacity: of the tint, 0 to 1.
    """
    times = max(1, -(-LEGIBLE_WIDTH // image.width))
    image = image.resize((times * image.width, times * image.height), Image.Resampling.NEAREST)
    tint = _tint(entity_map).resize(image.size, Image.Resampling.NEAREST)
    tinted = Image.blend(image.convert("RGB"), tint, opacity)
    return _with_legend(tinted, _legend(entity_map, prompt))


def evenly(total: int, wanted: int) -> list[int]:
    """Up to so many of 0 ... total - 1, evenly spread, the first and the last among them.

    >>> evenly(25, 4), evenly(3, 8)
    ([0, 8, 16, 24], [0, 1, 2])
    """
    if wanted >= total:
        return list(range(total))
    if wanted < 2:
        return [total - 1]
    return [round(i * (total - 1) / (wanted - 1)) for i in range(wanted)]


def draw_strip(maps: Sequence[torch.Tensor], steps: Sequence[int], prompt: Prompt, height: int = 128) -> Image.Image:
    """Entity maps, int8 [h, w] each, side by side under the numbers of their steps, with one legend."""
    gap, font = height // 16, ImageFont.load_default(max(10, height // 10))
    width = max(1, round(height * maps[0].shape[1] / maps[0].shape[0]))
    top = height // 6
    canvas = Image.new("RGB", (len(maps) * (width + gap) + gap, top + height), "white")
    draw = ImageDraw.Draw(canvas)
    for i, (entity_map, step) in enumerate(zip(maps, steps, strict=True)):
        left = gap + i * (width + gap)
        draw.text((left, top // 6), f"step {step + 1}", fill="black", font=font)
        canvas.paste(_tint(entity_map).resize((width, height), Image.Resampling.NEAREST), (left, top))
    return _with_legend(canvas, _legend(torch.stack(tuple(maps)), prompt))


def _tint(entity_map: torch.Tensor) -> Image.Image:
    ids = entity_map.tolist()
    tint = Image.new("RGB", (len(ids[0]), len(ids)))
    tint.putdata([entity_colour(entity) for line in ids for entity in line])
    return tint


def _legend(entity_map: torch.Tensor, prompt: Prompt) -> list[tuple[int, str]]:
    """Each entity with its share of the patches; nobody where there are such, or no entities."""
    total = entity_map.numel()
    lines = [(entity.id, entity.text) for entity in prompt.entities if not entity.negated]
    # the share first: a long text is cut at its end
    lines = [(i, f"{100 * int((entity_map == i).sum()) / total:.0f} %  {text}") for i, text in lines]
    nobody = int((entity_map == -1).sum())
    if nobody or not lines:
        lines.append((-1, f"{100 * nobody / total:.0f} %  nobody"))
    return lines


def _with_legend(image: Image.Image, lines: Sequence[tuple[int, str]]) -> Image.Image:
    size = max(12, image.width // 28)
    font = ImageFont.load_default(size)
    row = size + size // 2
    canvas = Image.new("RGB", (image.width, image.height + row * len(lines) + size // 2), "white")
    canvas.paste(image, (0, 0))
    draw = ImageDraw.Draw(canvas)
    for i, (entity, text) in enumerate(lines):
        top = image.height + size // 2 + i * row
        draw.rectangle((size // 2, top, size // 2 + size, top + size), fill=entity_colour(entity))
        text = _fitted(draw, font, text, image.width - 2 * size - size // 2)
        draw.text((2 * size, top), text, fill="black", font=font, anchor="la")
    return canvas


def _fitted(draw: ImageDraw.ImageDraw, font, text: str, room: int) -> str:
    """The text, or as much of its beginning as there is room for (a prompt may be one word of 10,000 letters)."""
    shortened = text = text[: room + 1]  # no letter is narrower than a pixel
    while draw.textlength(shortened, font=font) > room and text:
        text = text[:-1]
        shortened = f"{text}…"
    return shortened
