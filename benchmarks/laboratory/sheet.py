"""Contact sheets: stock, modulated and who owns which patch, of the first prompts, whatever they look like."""

import textwrap
from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from attnmod.benchmarks.laboratory.arms import Arm
from attnmod.benchmarks.laboratory.runs import call
from attnmod.benchmarks.laboratory.tasks import Task
from attnmod.benchmarks.miniature.judge import Verdict, judge
from attnmod.benchmarks.miniature.scorer import read_picture

_SIDE = 256  # pixels of a picture on the sheet
_GAP, _TEXT = 8, 58


def draw_sheet(pipe: Any, arm: Arm, tasks: Sequence[Task], columns: int = 2) -> Image.Image:
    """For each task a picture by the stock pipeline, one by the arm from the same noise, and the arm's entity map.

    A frame tells whether the scorer finds the whole prompt right (green) or not (red).
    """
    cells = [_draw_cell(pipe, arm, task) for task in tasks]
    width, height = cells[0].width, max(cell.height for cell in cells)  # legends differ in length
    rows = -(-len(cells) // columns)
    sheet = Image.new("RGB", (columns * (width + _GAP) + _GAP, rows * (height + _GAP) + _GAP), "white")
    for place, cell in enumerate(cells):
        row, column = divmod(place, columns)
        sheet.paste(cell, (_GAP + column * (width + _GAP), _GAP + row * (height + _GAP)))
    return sheet


def _draw_cell(pipe: Any, arm: Arm, task: Task) -> Image.Image:
    from attnmod.sampler.maps import draw_entity_map
    from attnmod.sampler.patch import modulate

    seed = task.noise_seed(0)
    stock = call(pipe, arm, [task], [seed])[0]
    with modulate(pipe, arm.config, maps=True) as handle:
        modulated = call(pipe, arm, [task], [seed])[0]
        large = Image.fromarray(modulated).resize((_SIDE, _SIDE), Image.Resampling.NEAREST)
        try:
            owned = draw_entity_map(large, handle.entity_map()[0], handle.prompts[0])
        except RuntimeError:  # this arm owns nothing
            owned = large
    pictures = [(stock, judge(task.scene, read_picture(stock)))]
    pictures.append((modulated, judge(task.scene, read_picture(modulated))))

    font = ImageFont.load_default(13)
    cell = Image.new("RGB", (3 * (_SIDE + _GAP), max(_SIDE, owned.height) + _TEXT), "white")
    draw = ImageDraw.Draw(cell)
    draw.text((0, 0), textwrap.fill(task.prompt, 110), fill="black", font=font)
    for place, (pixels, verdict) in enumerate(pictures):
        image = Image.fromarray(pixels).resize((_SIDE, _SIDE), Image.Resampling.NEAREST)
        left = place * (_SIDE + _GAP)
        cell.paste(image, (left, _TEXT))
        colour = (0, 140, 60) if verdict.whole else (200, 0, 0)
        draw.rectangle((left, _TEXT, left + _SIDE - 1, _TEXT + _SIDE - 1), outline=colour, width=3)
        label = f"{('stock', 'modulated')[place]}: {_in_words(verdict)}"
        draw.text((left, _TEXT - 20), label, fill=colour, font=font)
    cell.paste(owned, (2 * (_SIDE + _GAP), _TEXT))
    return cell


def _in_words(verdict: Verdict) -> str:
    if verdict.whole:
        return "right"
    wrong = [name for name, right in verdict.categories.items() if right is False]
    return ", ".join(wrong or ["extra objects"])
