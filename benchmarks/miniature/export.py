"""Write the averaged weights of a training as a pipeline folder: fp16 safetensors, small enough for the package.

python -m benchmarks.miniature.export --run FOLDER [--out sampler/data/miniature]
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

import torch
from diffusers import StableDiffusionXLPipeline
from safetensors import SafetensorError

from attnmod.benchmarks.miniature.model import save_pipeline
from attnmod.benchmarks.miniature.prompts import vocabulary
from attnmod.benchmarks.miniature.sheet import averaged_pipeline

SIZE_LIMIT = 24 * 10**6  # bytes, of everything in the folder
DEFAULT_FOLDER = Path(__file__).parents[2] / "sampler" / "data" / "miniature"


def export(run: Path, out: Path) -> int:
    """Write it beside `out` first, load it once, and only then put it there; files that are not its own stay.

    Returns:
        The size of what was written, in bytes.

    Raises:
        FileNotFoundError: no checkpoint, or not the autoencoder that it was trained with.
        ValueError: a damaged checkpoint, or weights that take more than `SIZE_LIMIT`.
        OSError: it could not be written. Nothing of it is left behind then.
    """
    pipe, _, _ = averaged_pipeline(run, torch.device("cpu"))
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        size = save_pipeline(pipe, partial)
        words = json.dumps(vocabulary(), indent=1)
        size += (partial / "words.json").write_text(words + "\n", encoding="utf-8")
        if size > SIZE_LIMIT:
            raise ValueError(f"the pipeline takes {size / 1e6:.1f} MB; at most {SIZE_LIMIT / 1e6:.0f} MB are allowed")
        StableDiffusionXLPipeline.from_pretrained(partial, local_files_only=True)
        out.mkdir(parents=True, exist_ok=True)
        for path in sorted(partial.iterdir()):
            target = out / path.name
            if target.is_dir():
                shutil.rmtree(target)
            path.replace(target)
    except SafetensorError as error:
        raise OSError(f"{out} could not be written: {error}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return size


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.miniature.export", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--run", type=Path, required=True, metavar="FOLDER", help="of the training")
    parser.add_argument("--out", type=Path, default=DEFAULT_FOLDER, metavar="FOLDER")
    options = parser.parse_args(arguments)
    try:
        size = export(options.run, options.out)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{options.out}: {size / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
