"""Pictures of how a training goes: its loss curve, and what its averaged weights draw.

python -m benchmarks.miniature.sheet --run FOLDER      writes loss.png and sheet-STEP.png there
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from attnmod.benchmarks.miniature.autoencoder import require_autoencoder
from attnmod.benchmarks.miniature.checkpoint import TrainingState, load_checkpoint
from attnmod.benchmarks.miniature.prompts import write_prompt
from attnmod.benchmarks.miniature.train import CHECKPOINT, prepare, trained_weights
from attnmod.benchmarks.miniature.world import SIZE, SPLITS, draw_scene

_COLUMNS, _MARGIN = 8, 2
_INK, _PAPER, _LINE = (40, 40, 40), (255, 255, 255), (200, 60, 40)


def averaged_pipeline(run: Path, device: torch.device):
    """(pipeline with the averaged weights of the run's checkpoint, its state, its settings).

    Raises:
        FileNotFoundError: no checkpoint, or not the autoencoder that it was trained with.
        ValueError: one of them is damaged.
    """
    state, config = load_checkpoint(run / CHECKPOINT)
    require_autoencoder(config, run, decoder=True)
    pipe, _, _, _ = prepare(config, run, device)
    put_averaged(pipe, state)
    pipe.set_progress_bar_config(disable=True)
    return pipe, state, config


def put_averaged(pipe, state: TrainingState) -> None:
    with torch.no_grad():
        for name, weight in trained_weights(pipe).items():
            weight.copy_(state.averaged[name])
    for part in (pipe.unet, pipe.text_encoder, pipe.text_encoder_2):
        part.eval().requires_grad_(False)


def draw_samples(
    pipe, prompts: list[str], *, steps: int = 25, guidance_scale: float = 5.0, seed: int = 0, batch: int = 8
):
    """uint8 [N, 64, 64, 3]: one stock picture a prompt, picture i from noise of its own seed."""
    drawn = []
    for first in range(0, len(prompts), batch):
        some = prompts[first : first + batch]
        noises = [torch.Generator().manual_seed(seed + first + index) for index in range(len(some))]
        result = pipe(
            some, num_inference_steps=steps, guidance_scale=guidance_scale, generator=noises, output_type="np"
        ).images
        drawn.append(np.rint(255 * result).astype(np.uint8))
    return np.concatenate(drawn)


def fixed_prompts(split: str, per_count: int) -> list[str]:
    """Prompts of one, two, three and four things, the same at every call."""
    prompts = []
    for things in (1, 2, 3, 4):
        for index in range(per_count):
            rng = np.random.default_rng((9, things, index))
            prompts.append(write_prompt(draw_scene(rng, split, things), rng))
    return prompts


def contact_sheet(pictures: np.ndarray, scale: int = 2) -> Image.Image:
    """uint8 [N, 64, 64, 3] in rows of eight, enlarged without smoothing."""
    rows = -(-len(pictures) // _COLUMNS)
    step = SIZE + _MARGIN
    sheet = Image.new("RGB", (_COLUMNS * step, rows * step), _PAPER)
    for index, picture in enumerate(pictures):
        sheet.paste(Image.fromarray(picture), (index % _COLUMNS * step, index // _COLUMNS * step))
    return sheet.resize((sheet.width * scale, sheet.height * scale), Image.Resampling.NEAREST)


def loss_curve(losses: list[float], width: int = 640, height: int = 320) -> Image.Image:
    """The loss on a logarithmic axis, each column of pixels the mean of its steps."""
    image = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(image)
    left, bottom = 48, height - 24
    if losses:
        means = np.array(
            [part.mean() for part in np.array_split(np.asarray(losses), min(len(losses), width - left - 8))]
        )
        low, high = np.log(means.min()) - 0.05, np.log(means.max()) + 0.05
        x = left + np.linspace(0, width - left - 8, len(means))
        y = bottom - (np.log(means) - low) / (high - low) * (bottom - 8)
        draw.line([(float(a), float(b)) for a, b in zip(x, y, strict=True)], fill=_LINE)
        for value in (means.max(), means.min(), means[-1]):
            draw.text(
                (4, float(bottom - (np.log(value) - low) / (high - low) * (bottom - 8)) - 6), f"{value:.3f}", fill=_INK
            )
        draw.text((width - 70, bottom + 6), f"{len(losses)} steps", fill=_INK)
    draw.line([(left, 8), (left, bottom), (width - 8, bottom)], fill=_INK)
    return image


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.miniature.sheet", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--run", type=Path, required=True, metavar="FOLDER", help="of the training")
    parser.add_argument("--per-count", type=int, default=8, help="prompts of one, of two, three and four things (8)")
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument("--guidance-scale", type=float, default=5.0)
    options = parser.parse_args(arguments)
    if options.per_count < 1:
        parser.error(f"--per-count is {options.per_count}; it must be at least 1")
    try:
        pipe, state, _ = averaged_pipeline(options.run, torch.device("cpu"))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    prompts = fixed_prompts(options.split, options.per_count)
    pictures = draw_samples(pipe, prompts, guidance_scale=options.guidance_scale)
    path = options.run / f"sheet-{state.step:06d}.png"
    contact_sheet(pictures).save(path)
    loss_curve(state.losses).save(options.run / "loss.png")
    print(f"step {state.step}, loss of the last 200 steps {np.mean(state.losses[-200:]):.4f}: {path}")
    for number, prompt in enumerate(prompts):
        print(f"{number // _COLUMNS + 1}.{number % _COLUMNS + 1}  {prompt}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
