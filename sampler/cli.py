"""The command line: attnmod generate | parse | check | bench.

Every error is one line on stderr and exit code 2. ATTNMOD_TRACEBACK=1 shows where it came from.
"""

import argparse
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO

import attnmod

_DEFAULT_FOLDER = Path("generated")
_PARSED_AT_ONCE = 64


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        _say(f"{self.prog}: error: {message} (see {self.prog} --help)")
        raise SystemExit(2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = _make_parser().parse_args(arguments)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            options.run(options)
    except KeyboardInterrupt:
        print("attnmod: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `attnmod parse ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        if os.environ.get("ATTNMOD_TRACEBACK"):
            raise
        text = " ".join(str(error).split()) or type(error).__name__
        _say(f"attnmod {options.command}: error: {text}")
        return 2
    return 0


def _show_warning(message, category, *_args, **_kwargs) -> None:
    if issubclass(category, UserWarning):  # deprecations are for developers
        _say(f"attnmod: warning: {message}")


def _say(sentence: str) -> None:
    """On stderr, whatever a prompt, a path or a message of another library brings along."""
    from attnmod.parser.escapes import escaped, write

    write(escaped(sentence), sys.stderr)


def _make_parser() -> _Parser:
    parser = _Parser(prog="attnmod", description="Makes SDXL follow prompts that name several things.")
    parser.add_argument("--version", action="version", version=f"attnmod {attnmod.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    _add_generate(commands)
    _add_parse(commands)
    _add_check(commands)
    _add_bench(commands)
    return parser


def _add(commands, name: str, run, summary: str, example: str) -> _Parser:
    command = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"example:\n{example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=run)
    return command


# -- generate


def _add_generate(commands) -> None:
    command = _add(
        commands,
        "generate",
        _generate,
        "make an image, its entity map and a JSON record",
        '  attnmod generate "a boy in front of a girl" --model ./sdxl --seed 7 --out boy.png\n'
        "  attnmod generate --from boy.json --out again.png",
    )
    # Left out means: from the record if there is one, else the default. So argparse must not fill in defaults.
    command.add_argument("prompt", nargs="?", help="what to draw")
    command.add_argument("--from", dest="record", type=Path, metavar="RECORD", help="make a recorded image again")
    command.add_argument("--model", metavar="DIR_OR_ID", help="SDXL pipeline; left out, the shipped miniature")
    command.add_argument("--negative-prompt", metavar="TEXT")
    command.add_argument("--steps", type=int, help="denoising steps (20)")
    command.add_argument("--guidance-scale", type=float, metavar="SCALE", help="1 and below: no guidance (5)")
    command.add_argument("--seed", type=int, help="of the noise (0)")
    command.add_argument("--width", type=int, metavar="PIXELS", help="a multiple of 8 (the model's own)")
    command.add_argument("--height", type=int, metavar="PIXELS", help="a multiple of 8 (the model's own)")
    command.add_argument("--device", help="cpu, cuda, cuda:1 ... (cuda if there is one)")
    command.add_argument("--dtype", metavar="TYPE", help="float32, float16 or bfloat16 (float16 on cuda)")
    command.add_argument("--config", metavar="FILE", help="modulation settings as JSON, or a preset's name")
    command.add_argument("--no-modulation", action="store_true", help="the pipeline as it is")
    command.add_argument("--out", type=Path, metavar="FILE", help=f"the image (a new name in {_DEFAULT_FOLDER}/)")
    command.add_argument("--strip", action="store_true", help="also write the map step by step, as NAME.steps.png")
    command.add_argument("--force", action="store_true", help="overwrite files that exist")


def _generate(options: argparse.Namespace) -> None:
    from attnmod.parser.escapes import escaped, write
    from attnmod.sampler import generate as generation
    from attnmod.sampler.miniature import is_shipped

    settings = _settings(options)
    if options.out is None:
        _DEFAULT_FOLDER.mkdir(exist_ok=True)
    out = options.out or generation.free_name(settings.prompt, _DEFAULT_FOLDER)
    files = generation.output_files(out, settings, options.strip)
    if existing := [str(path) for path in files.values() if path.exists()]:
        if not options.force:
            raise ValueError(f"{', '.join(existing)} exists; choose another --out or overwrite it with --force")
        if directories := [name for name in existing if Path(name).is_dir()]:
            raise ValueError(f"output {directories[0]} is a folder")

    _quiet_libraries()
    result = generation.generate(settings)
    generation.save(result, settings, files)
    for kind, path in files.items():
        print(f"{kind:7} {path}")
    if result.prompt is not None:
        for entity in result.prompt.entities:
            write(f"entity  {escaped(entity.text)}{' (negated)' if entity.negated else ''}", sys.stdout)
        for warning in result.prompt.warnings:
            write(f"attnmod: warning: {escaped(warning)}", sys.stderr)
    if settings.model is None and not is_shipped():
        print("note    no trained model is installed: this picture is noise. --model takes a real SDXL pipeline.")


def _settings(options: argparse.Namespace):
    from attnmod.sampler.generate import Settings, read_record

    given: dict[str, Any] = {
        name: getattr(options, name)
        for name in (
            "prompt",
            "model",
            "negative_prompt",
            "steps",
            "guidance_scale",
            "seed",
            "width",
            "height",
            "device",
            "dtype",
        )
        if getattr(options, name) is not None
    }
    if options.no_modulation:
        given["modulation"] = False
    if options.config is not None:
        given["config"] = _config(options.config)
    if options.record is not None:
        return Settings.from_dict({**read_record(options.record).to_dict(), **given})
    if options.prompt is None:
        raise ValueError('a prompt is needed, as in attnmod generate "a red cube", or --from RECORD')
    return Settings(**given)


def _config(name: str):
    from attnmod.sampler.config import PRESETS, ModulationConfig

    if not Path(name).is_file():
        if name in PRESETS:
            return ModulationConfig.preset(name)
        raise ValueError(f"config {name!r} is neither a file nor a preset ({', '.join(PRESETS)})")
    return ModulationConfig.load(name)


def _quiet_libraries() -> None:
    """Keep the progress bar of the denoising, without what the libraries say while they load."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for library in ("TRANSFORMERS", "DIFFUSERS"):
        os.environ.setdefault(f"{library}_VERBOSITY", "critical")  # read at import; what fails is raised as well
    import diffusers
    import transformers

    transformers.utils.logging.disable_progress_bar()
    diffusers.utils.logging.disable_progress_bar()


# -- parse


def _add_parse(commands) -> None:
    command = _add(
        commands,
        "parse",
        _parse,
        "show the entities, attributes and global phrases of a prompt",
        '  attnmod parse "two striped cats on a red sofa"\n'
        '  attnmod parse "a (red hat:1.3) on a cat" --weights --explain --png parse.png\n'
        '  attnmod parse "a boy in a hat" --json --tokenizer ./sdxl/tokenizer\n'
        "  attnmod parse --file prompts.txt --json > prompts.jsonl",
    )
    command.add_argument("prompt", nargs="?", help="the text")
    command.add_argument("--file", metavar="FILE", help="prompts, one a line (- reads them from standard input)")
    command.add_argument("--json", action="store_true", help="print it as JSON; with --file one line a prompt")
    command.add_argument("--explain", action="store_true", help="also show where each word went, and by which rule")
    command.add_argument("--png", type=Path, metavar="FILE", help="also draw the prompt, underlined and linked")
    command.add_argument("--force", action="store_true", help="overwrite a picture that exists")
    command.add_argument("--weights", action="store_true", help='understand "(red hat:1.3)", "ball++" and "[cat]"')
    command.add_argument("--places", choices=("auto", "scene", "entity"), default="auto", help="what places are (auto)")
    command.add_argument("--tokenizer", metavar="DIR", help="also show the tokens of this CLIP tokenizer")
    command.add_argument("--spacy-model", metavar="NAME", help="spaCy pipeline that reads it (a small English one)")
    command.add_argument(
        "--colour", choices=("auto", "always", "never"), default="auto", help="auto: on a terminal without NO_COLOR"
    )


def _parse(options: argparse.Namespace) -> None:
    import json

    from attnmod.parser.describe import describe
    from attnmod.parser.escapes import escaped_json, write
    from attnmod.parser.explain import explain

    if (options.prompt is None) == (options.file is None):
        raise ValueError('one of a prompt, as in attnmod parse "a red cube", and --file FILE is needed')
    if options.png is not None and options.file is not None:
        raise ValueError("--png draws one prompt; it does not go with --file")
    if options.png is not None and options.png.exists() and not options.force:
        raise ValueError(f"{options.png} exists; choose another --png or overwrite it with --force")
    colour = _wants_colour(options.colour, sys.stdout)
    # with --json the explanation must not end up in it
    aside = sys.stderr if options.json else sys.stdout
    for number, prompt in enumerate(_parsed(options)):
        if options.json:
            indent = 2 if options.file is None else None
            written = escaped_json(
                json.dumps(prompt.to_dict(), indent=indent, ensure_ascii=not _is_unicode(sys.stdout))
            )
            write(written, sys.stdout)
        else:
            write(("\n" if number else "") + describe(prompt, colour=colour), sys.stdout)
        if options.explain:
            write("\n" + explain(prompt, colour=_wants_colour(options.colour, aside)), aside)
        if options.png is not None:
            from attnmod.sampler.prompt_picture import draw_prompt

            draw_prompt(prompt, crop=True).save(options.png, "PNG")


def _parsed(options: argparse.Namespace) -> Iterator[Any]:
    """The parsed prompts, in order; those of a file in batches, with a progress bar on a terminal."""
    from tqdm import tqdm

    from attnmod.parser.align import align_tokens, load_tokenizer
    from attnmod.parser.syntax import parse_prompts

    tokenizer = None
    if options.tokenizer:
        _quiet_libraries()
        tokenizer = load_tokenizer(options.tokenizer)
    texts = [options.prompt]
    if options.file is not None:
        read = sys.stdin.read() if options.file == "-" else Path(options.file).read_text(encoding="utf-8")
        texts = [line for line in read.splitlines() if line.strip()]
    # a bar only where somebody looks: disable=None leaves it to whether stderr is a terminal
    bar = tqdm(total=len(texts), unit=" prompts", disable=None if options.file is not None else True)
    with bar:
        for first in range(0, len(texts), _PARSED_AT_ONCE):
            batch = texts[first : first + _PARSED_AT_ONCE]
            batch = parse_prompts(batch, model=options.spacy_model, weights=options.weights, places=options.places)
            bar.clear()  # what is printed now shall not stand behind it
            for prompt in batch:
                yield prompt if tokenizer is None else align_tokens(prompt, tokenizer)
            bar.update(len(batch))


def _is_unicode(stream: TextIO) -> bool:
    return (stream.encoding or "utf-8").lower().replace("-", "").startswith("utf")


def _wants_colour(choice: str, stream: TextIO) -> bool:
    if choice == "auto":
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        return stream.isatty() and not plain
    return choice == "always"


# -- check


def _add_check(commands) -> None:
    _add(
        commands,
        "check",
        _check,
        "show versions, devices, and which backends work here",
        "  attnmod check",
    )


def _check(options: argparse.Namespace) -> None:
    from attnmod.sampler.check import report

    for title, lines in report():
        print(title)
        width = max(len(name) for name, _ in lines)
        for name, value in lines:
            print(f"  {name:{width}}  {value}")


# -- bench


def _add_bench(commands) -> None:
    command = _add(
        commands,
        "bench",
        _bench,
        "run one of the benchmarks, or list them",
        "  attnmod bench\n  attnmod bench parser --help",
    )
    command.add_argument("name", nargs="?", help="which; left out, all are listed")
    command.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="what it is to be given")


def _bench(options: argparse.Namespace) -> None:
    import importlib
    import runpy

    benchmarks = importlib.import_module("attnmod.benchmarks").BENCHMARKS  # the command knows of them, the sampler not
    if options.name is None:
        width = max(map(len, benchmarks))
        print("\n".join(f"{name:{width}}  {what}" for name, (_, what) in benchmarks.items()))
        return
    if options.name not in benchmarks:
        raise ValueError(f"there is no benchmark {options.name!r}; there are {', '.join(benchmarks)}")
    sys.argv = [f"attnmod bench {options.name}", *options.rest]
    runpy.run_module(f"attnmod.benchmarks.{benchmarks[options.name][0]}", run_name="__main__", alter_sys=True)
