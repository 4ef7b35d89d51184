"""Who owned which patch, counted while the image is made, and drawn as a picture.

Kept is one small tensor per resolution, [R, M, G] counts; nothing of size patches x tokens.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont

from attnmod.parser.prompt import Prompt
from attnmod.sampler.conditioning import RowConditioning

# Told apart also without red-green vision; after Okabe and Ito's palette, then repeated lighter.
ENTITY_COLOURS = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
    (148, 103, 189),
)
NOBODYS_COLOUR = (128, 128, 128)


def halved(size: tuple[int, int], times: int) -> tuple[int, int]:
    """Height and width after so many halvings, rounded up as the UNet's strided convolutions do.

    >>> halved((104, 153), 2)
    (26, 39)
    """
    height, width = size
    for _ in range(times):
        height, width = math.ceil(height / 2), math.ceil(width / 2)
    return height, width


class OwnershipRecord:
    """Counts, for one conditioning tensor, how often each entity owned each patch, over heads, layers and steps."""

    def __init__(self, rows: RowConditioning, levels: tuple[int, ...]):
        """levels: how often the latents are halved where there is attention."""
        self.rows = rows
        self.levels = levels
        self.latent_size = (0, 0)
        self.counts: dict[int, torch.Tensor] = {}  # patches M -> [R, M, G] float32

    def fit(self, latent_size: tuple[int, int]) -> None:
        """Height and width of the latents of this call; another size starts the count anew.

        The counts are made here and added to in place, so that a compiled UNet finds the same tensors at every step.
        """
        if latent_size == self.latent_size:
            return
        self.latent_size, self.counts = latent_size, {}
        mean = self.rows.mean_affinity
        for level in self.levels:
            height, width = halved(latent_size, level)
            self.counts[height * width] = mean.new_zeros(mean.shape[0], height * width, mean.shape[1])

    def clear(self) -> None:
        for counts in self.counts.values():
            counts.zero_()

    def restart(self, starts: torch.Tensor) -> None:
        """Forget what an earlier run counted, in the rows that start [R] bool. Decided on the device."""
        for counts in self.counts.values():
            counts.copy_(torch.where(starts[:, None, None], 0.0, counts))

    def add(self, owner: torch.Tensor) -> None:
        """Count a layer's owners, int8 [R, M] or [R, H, M]; -1 is nobody."""
        counts = self.counts.get(owner.shape[-1])
        if counts is None:  # a layer that works on merged patches says nothing about where they are
            return
        if owner.ndim == 2:
            owner = owner[:, None]
        entities = torch.arange(counts.shape[2], device=owner.device)
        counts += (owner[..., None] == entities).float().mean(dim=1)  # [R, M, G]

    def shares(self) -> torch.Tensor:
        """How much of each patch each entity owned, float32 [R, G, h, w] in 0 to 1, at the finest resolution."""
        sizes = [halved(self.latent_size, level) for level in self.levels]
        layers = [self.counts[h * w].transpose(1, 2).unflatten(2, (h, w)) for h, w in sizes]  # [R, G, h, w] each
        total = torch.stack([F.interpolate(layer, size=max(sizes), mode="nearest") for layer in layers]).sum(0)
        return total / total.sum(dim=1, keepdim=True).clamp_min(1e-9)

    def entity_map(self) -> torch.Tensor:
        """Owner of each patch for every row that has a prompt: int8 [N, h, w] on the CPU.

        The values are entity ids of the row's prompt; -1 is nobody's patch.
        """
        shares = self.shares()
        owned, owner = shares.max(dim=1)
        owner = torch.where(owned > 0, owner, -1).cpu()
        maps = []
        for r, prompt in enumerate(self.rows.prompts):
            if prompt is not None:
                ids = torch.tensor(
                    [*self.rows.slots[r], *[-1] * (self.rows.num_entities - len(self.rows.slots[r])), -1]
                )
                maps.append(ids[owner[r]])
        return torch.stack(maps).to(torch.int8)

    def share_of(self, row: int, entity: int) -> torch.Tensor:
        """How often an entity owned each patch, float32 [h, w] in 0 to 1 on the CPU; row counts those with a prompt."""
        r = [r for r, prompt in enumerate(self.rows.prompts) if prompt is not None][row]
        shares = self.shares()[r].cpu()
        slots = self.rows.slots[r]
        return shares[slots.index(entity)] if entity in slots else torch.zeros(shares.shape[1:])

    @property
    def prompts(self) -> list[Prompt]:
        """The prompts of `entity_map`'s rows."""
        return [prompt for prompt in self.rows.prompts if prompt is not None]


def entity_colour(entity: int) -> tuple[int, int, int]:
    """RGB of an entity id; beyond the palette the colours come again, lighter; -1 is grey."""
    if entity < 0:
        return NOBODYS_COLOUR
    lap, index = divmod(entity, len(ENTITY_COLOURS))
    red, green, blue = (round(255 - (255 - channel) * 0.6**lap) for channel in ENTITY_COLOURS[index])
    return red, green, blue


def draw_entity_map(image: Image.Image, entity_map: torch.Tensor, prompt: Prompt, opacity: float = 0.55) -> Image.Image:
    """The image with each patch tinted in its entity's colour, and a legend below.

    Args:
        image: the generated picture.
        entity_map: int8 [h, w], entity ids, -1 for nobody.
        prompt: names the entities.
        opacity: of the tint, 0 to 1.
    """
    ids = entity_map.tolist()
    tint = Image.new("RGB", (len(ids[0]), len(ids)))
    tint.putdata([entity_colour(entity) for line in ids for entity in line])
    tinted = Image.blend(image.convert("RGB"), tint.resize(image.size, Image.Resampling.NEAREST), opacity)

    total = entity_map.numel()
    lines = [(entity.id, entity.text) for entity in prompt.entities if not entity.negated]
    lines = [(i, f"{text}  {100 * int((entity_map == i).sum()) / total:.0f} %") for i, text in lines]
    nobody = int((entity_map == -1).sum())
    if nobody or not lines:
        lines.append((-1, f"nobody  {100 * nobody / total:.0f} %"))
    return _with_legend(tinted, lines)


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
