"""Draw prompts for the blind part of the gold set: from the prompt files, none that is in the gold set already.

    python tests/data/gold/draw.py FOLDER

FOLDER holds the prompt files (cc500.txt, t2i_compbench_*_val.txt). Plain "a X and a Y" prompts are left out, since all
of them are checked by their pattern elsewhere and say little. What is drawn depends on the gold set as it was at the
time of the draw; `blind/` is not counted as part of it, so that the draw can be repeated.
"""

import argparse
import random
import re
from pathlib import Path

GOLD = Path(__file__).parent
# how many of each kind: most of where the parser has something to decide
DRAWN = {
    "cc500": 8, "color": 6, "shape": 8, "texture": 8, "complex": 20, "non_spatial": 8, "spatial": 4, "3d_spatial": 4,
    "numeracy": 6,
}  # fmt: skip
_SIDE = r"(?:an? )?(?:[\w-]+ ){0,2}[\w-]+"
_PLAIN = re.compile(rf"{_SIDE} and {_SIDE}", re.IGNORECASE)


def draw(folder: Path) -> dict[str, list[str]]:
    """The drawn prompts of each kind, in the order of the draw."""
    known = {
        line.strip().lower()
        for path in GOLD.glob("*.txt")
        for line in path.read_text(encoding="utf-8").splitlines()[::2]
    }
    drawn = {}
    for kind, number in DRAWN.items():
        path = folder / ("cc500.txt" if kind == "cc500" else f"t2i_compbench_{kind}_val.txt")
        lines = sorted({line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()})
        lines = [line for line in lines if line.lower() not in known and not _PLAIN.fullmatch(line)]
        drawn[kind] = random.Random(f"{path.name} blind").sample(lines, number)
    return drawn


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    for kind, lines in draw(parser.parse_args().folder).items():
        print(f"-- {kind}", *lines, sep="\n")
