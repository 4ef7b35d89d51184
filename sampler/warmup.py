"""Run a modulated pipeline before the first request, so that whatever is compiled is compiled by then."""

from collections.abc import Iterable
from typing import Any

import torch

from attnmod.parser.prompt import Prompt

_STEPS = 2  # the second step of a run is what repeats; the first also projects the text


def warm_up(
    pipe: Any, given: dict[str, Prompt], sizes: Iterable[tuple[int, int]] | None, batch: int, call: dict[str, Any]
) -> None:
    """Run the pipeline with entities, without, and with an empty prompt, at each size; see `ModulationHandle.warmup`.

    Args:
        pipe: a modulated pipeline.
        given: takes the prompts of this run, by their text.
        sizes, batch, call: as in `ModulationHandle.warmup`.
    """
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise ValueError(f"batch is {batch!r}; it must be a whole number, 1 or more")
    places = [{}] if sizes is None else [{"height": height, "width": width} for height, width in _checked(sizes)]
    with_entities = Prompt.from_entities("a red cube and a blue sphere", [["a red cube"], ["a blue sphere"]])
    without = Prompt.from_entities("red and blue", [])
    prompts = with_entities, without, Prompt.from_entities("", [])
    for prompt in prompts:
        given[prompt.text] = prompt
        for place in places:
            # a generator of its own: the caller's random numbers stay what they are
            options = dict(generator=torch.Generator().manual_seed(0), num_inference_steps=_STEPS)
            options |= dict(output_type="latent") | place | call
            pipe(prompt=[prompt.text] * batch, **options)


def _checked(sizes: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    checked = []
    for size in sizes:
        if not (isinstance(size, tuple | list) and len(size) == 2 and all(isinstance(n, int) for n in size)):
            raise ValueError(f"sizes has {size!r}; each is a height and a width in pixels")
        checked.append((size[0], size[1]))
    if not checked:
        raise ValueError("sizes is empty; leave it out for the pipeline's own size")
    return checked
