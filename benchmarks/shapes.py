"""The shapes that are measured: what a UNet calls its attention with."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Shape:
    model: str
    batch: int
    heads: int
    queries: int
    head_dim: int

    @property
    def name(self) -> str:
        return f"{self.model} {self.batch}x{self.heads}x{self.queries}x{self.head_dim}"


_SDXL = {"1024x1024": (4096, 1024), "832x1216": (3952, 988), "2048x2048": (16384, 4096)}
_TOY = [Shape("toy", 2, 2, 48, 64), Shape("toy", 1, 2, 33, 40)]


def shapes() -> list[Shape]:
    """For a conditional and an unconditional row: SDXL's two resolutions of attention at three image sizes, the first
    two being those of 1024x1024, and SD 1.5's four at 512x512."""
    found = []
    for size, (large, small) in _SDXL.items():
        found += [Shape(f"sdxl-{size}", 2, 10, large, 64), Shape(f"sdxl-{size}", 2, 20, small, 64)]
    for queries, head_dim in ((4096, 40), (1024, 80), (256, 160), (64, 160)):
        found.append(Shape("sd15-512x512", 2, 8, queries, head_dim))
    return found


def self_points(toy: bool) -> list[tuple[Shape, float]]:
    """(shape, temperature): every shape at 0.8; at 1024x1024 each temperature and each batch, the other being fixed."""
    if toy:
        return [(shape, tau) for shape in _TOY for tau in (1.0, 0.5)]
    main = shapes()[:2]
    points = [(shape, tau) for shape in main for tau in (0.8, 1.0, 0.5, 0.3)]
    points += [(shape, 0.8) for shape in shapes()[2:]]
    return points + [(replace(shape, batch=batch), 0.8) for shape in main for batch in (1, 8)]


def cross_points(toy: bool) -> list[tuple[Shape, int, int]]:
    """(shape, tokens, entities): every shape at 77 and 4; at 1024x1024 each of the three, the others being fixed."""
    if toy:
        return [(shape, 17, 4) for shape in _TOY] + [(_TOY[0], 33, 4), (_TOY[0], 17, 2)]
    main = shapes()[:2]
    points = [(shape, tokens, 4) for shape in main for tokens in (77, 231, 154, 16, 512)]
    points += [(shape, 77, 4) for shape in shapes()[2:]]
    points += [(shape, 77, entities) for shape in main for entities in (1, 2, 8, 16, 32)]
    return points + [(replace(shape, batch=batch), 77, 4) for shape in main for batch in (1, 8)]


def random_operands(
    shape: Shape, tokens: int | None, dtype: torch.dtype, device: torch.device, copies: int = 3
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """copies of (q, k, v) as views of projections; tokens None is self-attention. Scores of about one nat."""
    generator = torch.Generator(device).manual_seed(0)
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for _ in range(copies):
        operands: list[Tensor] = []
        for length in (shape.queries, tokens or shape.queries, tokens or shape.queries):
            size = (shape.batch, length, shape.heads, shape.head_dim)
            operands.append(torch.randn(size, generator=generator, device=device).to(dtype).transpose(1, 2))
        q, k, v = operands
        found.append((q, k, v))
    return found


# The UNet of SDXL, as `UNet2DConditionModel` takes it.
SDXL_UNET: dict[str, Any] = dict(
    sample_size=128,
    in_channels=4,
    out_channels=4,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    block_out_channels=(320, 640, 1280),
    transformer_layers_per_block=[1, 2, 10],
    attention_head_dim=[5, 10, 20],
    cross_attention_dim=2048,
    use_linear_projection=True,
    addition_embed_type="text_time",
    addition_time_embed_dim=256,
    projection_class_embeddings_input_dim=2816,
)
