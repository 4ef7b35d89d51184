"""Who owns which patch, from the affinities that a run has seen so far.

After each UNet call the last cross-attention layer of each deciding size is asked once more how its patches attend to
the entities: one launch a step for SDXL by default, two if all sizes decide, whatever the number of layers. From the
running average follow the means that balance the next call's votes and, with `ownership="average"`, one owner map that
all its layers read: those then need no vote at all.
"""

import contextlib
import math
import warnings
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from attnmod.kernels.ops import trusted_cross_attention
from attnmod.sampler.conditioning import SMALLEST_MEAN_AFFINITY, RowConditioning
from attnmod.sampler.config import ModulationConfig


def halved(size: tuple[int, int], times: int) -> tuple[int, int]:
    """Height and width after so many halvings, rounded up as the UNet's strided convolutions do.

    >>> halved((104, 153), 2)
    (26, 39)
    """
    height, width = size
    for _ in range(times):
        height, width = (height + 1) // 2, (width + 1) // 2
    return height, width


def _pooled(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Means of an image [R, G, h, w] over the patches of a coarser level."""
    return image if image.shape[-2:] == size else F.adaptive_avg_pool2d(image, size)


def gaussian_rows(size: int, deviation: float, like: torch.Tensor) -> torch.Tensor:
    """The matrix [size, size] that smooths a line of so many patches; its edges go on beyond the edges.

    deviation: of the Gaussian, in patches; cut off at three of them.
    """
    offset = torch.arange(-math.ceil(3 * deviation), math.ceil(3 * deviation) + 1, device=like.device)
    weight = (-0.5 * (offset / deviation).square()).softmax(0).to(like.dtype)
    place = (torch.arange(size, device=like.device)[:, None] + offset).clamp(0, size - 1)
    return like.new_zeros(size, size).scatter_add_(1, place, weight.expand(size, -1))


def _without_autocast(device_type: str) -> contextlib.AbstractContextManager:
    if not torch.amp.is_autocast_available(device_type):  # as of the meta device
        return contextlib.nullcontext()
    return torch.autocast(device_type, enabled=False)


@dataclass
class AttentionLevel:
    """What the cross-attention layers of one size share.

    owner: a given map, int8 [R, M], instead of their votes. query [R, H, M, D] and key [R, H, T, D]: of the layer that
    ran last, where they are wanted.
    """

    owner: torch.Tensor | None = None
    query: torch.Tensor | None = None
    key: torch.Tensor | None = None


class RunningAffinity:
    """The affinity of every patch to every entity, averaged over a run's calls; for one conditioning tensor.

    Tensors are made once for a size of the latents and changed in place, so that a compiled UNet, or a captured CUDA
    graph, finds them at every step.

    Attributes:
        deciding: the levels whose affinities count.
        averages: deciding level -> float32 [R, M, G].
        owners: level -> int8 [R, M], slots of the rows; -1 is nobody. Only with `ownership="average"`.
    """

    def __init__(self, rows: RowConditioning, levels: tuple[int, ...], config: ModulationConfig):
        self.rows, self.levels, self.config = rows, levels, config
        chosen = {"all": levels, "finest": (min(levels),), "coarsest": (max(levels),)}
        self.deciding = chosen[config.deciding_sizes]
        self.averages: dict[int, torch.Tensor] = {}
        self.owners: dict[int, torch.Tensor] = {}
        self._latent_size = (0, 0)
        self._smoothing: tuple[torch.Tensor, torch.Tensor] | None = None  # down [h, h] and across [w, w]
        self._told = False  # that nobody decides

    def fit(self, latent_size: tuple[int, int]) -> None:
        """Height and width of the latents of this call; another size starts anew."""
        if latent_size == self._latent_size:
            return
        self._latent_size, like = latent_size, self.rows.mean_affinity  # [R, G]
        for level in self.levels:
            height, width = halved(latent_size, level)
            if level in self.deciding:
                self.averages[level] = like.new_zeros(like.shape[0], height * width, like.shape[1])
            if self.config.ownership == "average":
                self.owners[level] = like.new_full((like.shape[0], height * width), -1, dtype=torch.int8)
        finest = halved(latent_size, min(self.deciding))
        if deviation := self.config.average_smoothing * min(finest):
            height, width = finest
            self._smoothing = gaussian_rows(height, deviation, like), gaussian_rows(width, deviation, like)

    def restart(self, starts: torch.Tensor) -> None:
        """Forget what an earlier run has seen, in the rows that start, [R] bool. Decided on the device."""
        for average in self.averages.values():  # also what is no number, which a product with zero would keep
            average.masked_fill_(starts[:, None, None], 0.0)
        for owner in self.owners.values():
            owner.masked_fill_(starts[:, None], -1)

    def observe(self, attention: dict[int, AttentionLevel]) -> None:
        """Take in what the layers of a finished call left, and decide what holds for the next."""
        rows, config = self.rows, self.config
        merged, seen = False, False
        for level, average in self.averages.items():
            query, key = attention[level].query, attention[level].key
            if query is None:  # not run in this call
                continue
            if query.shape[2] != average.shape[1]:
                merged = True
                continue
            seen = True
            _, affinity = trusted_cross_attention(
                query,
                key,
                key,
                entity_bits=rows.entity_bits,
                affinity=rows.affinity,
                log_weights=rows.log_weights,
                share_heads=True,
                return_affinity=True,
                backend=config.backend,
            )
            average.lerp_(affinity, 1 - config.average_decay)
        if merged and not seen and not self._told:
            self._told = True
            warnings.warn(
                "another tool has merged the patches of all layers that decide who owns them: these vote for"
                ' themselves, and nobody owns the patches of the others; take ownership="layer", or other'
                " deciding_sizes",
                stacklevel=2,
            )
        # The levels' means add up; one that has seen nothing yet adds nothing. Only their relation matters.
        means = [average.mean(dim=1) for average in self.averages.values()]
        rows.mean_affinity.copy_(sum(means[1:], start=means[0]))
        if self.owners:
            self._decide()

    def _decide(self) -> None:
        """One owner map for all levels, from the sum of their averages."""
        sizes = {level: halved(self._latent_size, level) for level in self.levels}
        finest = max(sizes[level] for level in self.deciding)
        total = self.rows.mean_affinity.new_zeros(())
        for level, average in self.averages.items():
            image = average.transpose(1, 2).unflatten(2, sizes[level])  # [R, G, h, w]
            total = total + (image if sizes[level] == finest else F.interpolate(image, size=finest, mode="bilinear"))
        if self._smoothing is not None:
            down, across = self._smoothing
            with _without_autocast(total.device.type):  # few bits would decide who wins
                total = down @ total @ across.T
        relative = total / self.rows.mean_affinity.clamp_min(SMALLEST_MEAN_AFFINITY)[:, :, None, None]  # about 1
        votes = relative if self.config.balanced else total
        for level, owner in self.owners.items():
            most, slot = _pooled(votes, sizes[level]).max(dim=1)  # [R, h, w]; of equals the first
            if votes is not relative:
                most = _pooled(relative, sizes[level]).gather(1, slot[:, None])[:, 0]
            owner.copy_(torch.where(most > self.config.owned_above, slot, -1).flatten(1))
