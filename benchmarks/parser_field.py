"""How well prompts are read as people type them: the gold set's field splits by kind, with intervals.

    python -m benchmarks.parser_field              the split that rules were improved on
    python -m benchmarks.parser_field --kept-back  the third that was kept back: for the end, not for mending rules
    python -m benchmarks.parser_field --times      milliseconds for a caption and for 100 words, seconds of loading

Precision and recall of entities, F1 of bindings, parents and counts, and how many prompts are read wholly right.
Intervals are 95 %, from 1,000 resamplings of the prompts.
"""

import argparse
import random
from collections.abc import Sequence

from attnmod.benchmarks.parser import Example, Facts, Score, facts, of_prompt, read_gold, score, time_parser
from attnmod.parser.syntax import parse_prompts

_SCORED = ("entities", "bindings", "parents", "counts")
_RESAMPLINGS = 1_000

Pairs = Sequence[tuple[Example, Facts]]


def answered(split: str) -> list[tuple[Example, Facts]]:
    examples = [example for example in read_gold() if example.split == split]
    prompts = parse_prompts([example.text for example in examples])
    return [(example, of_prompt(prompt)) for example, prompt in zip(examples, prompts, strict=True)]


def rates(scores: dict[str, Score]) -> tuple[float, ...]:
    entities = scores["entities"]
    return entities.precision, entities.recall, *(scores[fact].f1 for fact in _SCORED[1:])


def row(name: str, pairs: Pairs) -> str:
    """A line of the table."""
    examples, answers = zip(*pairs, strict=True)
    middle = rates(score(examples, answers))
    drawn = random.Random(name)
    # the facts of an example are compared once, and summed anew for every resampling
    single = [score([example], [answer]) for example, answer in pairs]
    samples = []
    for _ in range(_RESAMPLINGS):
        chosen = drawn.choices(single, k=len(single))
        samples.append(
            rates({fact: Score(*map(sum, zip(*(one[fact] for one in chosen), strict=True))) for fact in _SCORED})
        )
    cells = []
    for place, value in enumerate(middle):
        ordered = sorted(sample[place] for sample in samples)
        low, high = ordered[int(0.025 * len(ordered))], ordered[int(0.975 * len(ordered))]
        cells.append(f"{value:.3f} ({low:.3f}-{high:.3f})")
    right = sum(is_right(example, answer) for example, answer in pairs)
    return f"| {name} | {len(pairs)} | {' | '.join(cells)} | {right} |"


def is_right(example: Example, answer: Facts) -> bool:
    gold = facts(example.things, example.phrases)
    return all(gold[fact] == answer[fact] for fact in _SCORED)


def table(split: str) -> list[str]:
    pairs = answered(split)
    kinds = sorted({example.kind for example, _ in pairs})
    return [
        "| kind | prompts | entities: precision | recall | bindings | parents | counts | wholly right |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        *(row(kind, [pair for pair in pairs if pair[0].kind == kind]) for kind in kinds),
        row("all", pairs),
    ]


def times() -> list[str]:
    """The median caption, and the long captions, which have about 100 words."""
    examples = read_gold()
    said = []
    for kind, name in (("coco", "a caption"), ("long", "a caption of 100 words")):
        measured = time_parser([example.text for example in examples if example.kind == kind])
        said.append(f"{name}: {measured['single_ms']:.1f} ms (95th percentile {measured['single_p95_ms']:.1f})")
    return [*said, f"loading {measured['load_s']:.2f} s after importing spaCy, {measured['import_s']:.2f} s"]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.parser_field", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--kept-back", action="store_true", help="measure the third that was kept back")
    parser.add_argument("--times", action="store_true", help="measure times instead")
    options = parser.parse_args(arguments)
    print("\n".join(times() if options.times else table("kept-back" if options.kept_back else "field")))


if __name__ == "__main__":
    main()
