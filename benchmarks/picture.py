"""The README's picture: stock, modulated, and who owned which patch, on the hand-wired pipeline of the tests.

    python -m benchmarks.picture

It runs in a checkout only, since the pipeline belongs to the tests.
"""

from pathlib import Path
from typing import Any

from PIL import Image

from attnmod import modulate
from attnmod.sampler.maps import draw_entity_map
from tests.handwired import handwired_pipeline, wish_latents

PROMPT = "a red cube and a blue sphere on a green lawn"
SIZE = 32  # patches each way
PIXELS = 256  # of each panel
RESULT = Path(__file__).parent / "results" / "handwired.png"


def wishes() -> list[list[str]]:
    """What each patch wants: a red square and a blue disc on green."""

    def wish(x: int, y: int) -> str:
        if 4 <= x < 14 and 11 <= y < 21:
            return "red"
        return "blue" if (x - 22.5) ** 2 + (y - 15.5) ** 2 < 30 else "green"

    return [[wish(x, y) for x in range(SIZE)] for y in range(SIZE)]


def main() -> None:
    pipe: Any = handwired_pipeline()

    def draw() -> Image.Image:
        image = pipe(PROMPT, latents=wish_latents(wishes()), num_inference_steps=4, guidance_scale=4.0).images[0]
        return image.resize((PIXELS, PIXELS), Image.Resampling.NEAREST)

    stock = draw()
    with modulate(pipe, "mask", maps=True) as handle:
        modulated = draw()
        overlay = draw_entity_map(modulated, handle.entity_map()[0], handle.prompts[0], opacity=0.75)
    sheet = Image.new("RGB", (3 * PIXELS + 32, overlay.height), "white")
    for i, panel in enumerate((stock, modulated, overlay)):
        sheet.paste(panel, (i * (PIXELS + 16), 0))
    sheet.save(RESULT)
    print(RESULT)


if __name__ == "__main__":
    main()
