"""The shapes that are measured: what a UNet calls its attention with."""

from dataclasses import dataclass

import torch


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


def shapes(toy: bool, batches: tuple[int, ...] = (2,)) -> list[Shape]:
    """SDXL's two resolutions of attention at three image sizes, and SD 1.5's four at 512x512; or two tiny ones."""
    if toy:
        return [Shape("toy", 2, 2, 48, 64), Shape("toy", 1, 2, 33, 40)]
    found = []
    for batch in batches:
        for size, (large, small) in _SDXL.items():
            found += [Shape(f"sdxl-{size}", batch, 10, large, 64), Shape(f"sdxl-{size}", batch, 20, small, 64)]
        for queries, head_dim in ((4096, 40), (1024, 80), (256, 160), (64, 160)):
            found.append(Shape("sd15-512x512", batch, 8, queries, head_dim))
    return found


def random_operands(shape: Shape, tokens: int | None, dtype: torch.dtype, device: torch.device, copies: int = 3):
    """copies of (q, k, v) as views of projections; tokens None is self-attention. Scores of about one nat."""
    generator = torch.Generator(device).manual_seed(0)
    found = []
    for _ in range(copies):
        operands = []
        for length in (shape.queries, tokens or shape.queries, tokens or shape.queries):
            size = (shape.batch, length, shape.heads, shape.head_dim)
            operands.append(torch.randn(size, generator=generator, device=device).to(dtype).transpose(1, 2))
        found.append(tuple(operands))
    return found
