"""How well prompts are understood, and how fast: attnmod's parser beside spaCy's noun chunks, on the gold set.

    python -m benchmarks.parser [--kind KIND ...] [--failures development|held-out|blind] [--save]
    python -m benchmarks.parser --first      of a new blind draw: once, before anybody saw the parser's answers

Precision, recall and F1 of five things, for each kind of prompt, on the development prompts, on those held out and on
the blind draw (`tests/data/gold/draw.py`), whose first measurement is kept beside today's:
entities (head noun, and whether negated), attribute bindings (which word modifies which noun), counts (those that are
numbers), parents (which noun nests in which) and globals (each content word with its kind). Equal nouns of a prompt are
paired in order. tests/data/gold/README.md says what is right. With --save the figures go to benchmarks/results.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from attnmod.parser.lexicon import NUMBERS, words
from attnmod.parser.model import load_model
from attnmod.parser.prompt import Prompt
from attnmod.parser.syntax import parse_prompt, parse_prompts

GOLD = Path(__file__).parents[1] / "tests" / "data" / "gold"
RESULTS = Path(__file__).with_name("results")
FIRST = "parser_blind.json"  # the blind draw as it was measured before any rule was changed
SPLITS = ("development", "held-out", "blind", "field", "kept-back")
FACTS = ("entities", "bindings", "counts", "parents", "globals")
# the kinds that the goal speaks of: 0.97 on the simple ones, 0.92 on the others
SIMPLE = ("cc500", "color", "shape", "texture")
HARD = ("complex", "hand_made")

Facts = dict[str, Counter]


@dataclass(frozen=True, slots=True)
class Thing:
    """An entity of the gold set or of an answer, by its words."""

    head: str
    attributes: tuple[str, ...] = ()
    count: int | None = None
    parent: int | None = None
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt of the gold set with what it means."""

    kind: str
    split: str
    text: str
    things: tuple[Thing, ...]
    phrases: tuple[tuple[str, str], ...]  # (kind, words)


_THING = re.compile(
    r"(?P<negated>not )?(?P<head><[^\s>]+>|[^\s:;<]+)(?: x(?P<count>\d+))?"
    r"(?:: (?P<attributes>[^<]+?))?(?: < (?P<parent>\S+))?"
)
_PHRASE = re.compile(r"\[(?P<kind>\w+): (?P<words>[^\]]+)\]")


def read_gold(folder: Path = GOLD) -> list[Example]:
    """The gold set, in the notation of `attnmod.parser.describe.outline`.

    Every third prompt of a kind is held out; what is in the folder `blind` was annotated before the parser saw it, and
    so was what is in `field`, whose every third is kept back. A line break in a prompt is written as "\\n".

    Raises:
        FileNotFoundError: there is no gold set in the folder.
        ValueError: names a line that is not in the notation.
    """
    examples = []
    for path in sorted([*folder.glob("*.txt"), *folder.glob("blind/*.txt"), *folder.glob("field/*.txt")]):
        lines = path.read_text(encoding="utf-8").splitlines()
        if len(lines) % 2:
            raise ValueError(f"{path} has {len(lines)} lines: a prompt and its annotation take two")
        for number, (text, annotation) in enumerate(zip(lines[::2], lines[1::2], strict=True)):
            third = number % 3 == 2
            split = {"blind": "blind", "field": ("field", "kept-back")[third]}.get(path.parent.name, SPLITS[third])
            examples.append(Example(path.stem, split, text.replace("\\n", "\n"), *read_annotation(annotation)))
    if not examples:
        raise FileNotFoundError(f"no gold set in {folder}: it is in the repository, not in the installed package")
    return examples


def read_annotation(line: str) -> tuple[tuple[Thing, ...], tuple[tuple[str, str], ...]]:
    """
    >>> read_annotation("girl x1; hat x1: red < girl; [scene: at night]")[0][1]
    Thing(head='hat', attributes=('red',), count=1, parent=0, negated=False)
    """
    things: list[Thing] = []
    phrases = []
    for part in filter(None, (part.strip() for part in line.split(";"))):
        if match := _PHRASE.fullmatch(part):
            phrases.append((match["kind"], match["words"]))
            continue
        match = _THING.fullmatch(part)
        if match is None:
            raise ValueError(f"{part!r} in {line!r} is neither an entity nor a phrase")
        parent = None
        if match["parent"]:
            heads = [thing.head for thing in things]
            if match["parent"] not in heads:
                raise ValueError(f"{part!r} in {line!r}: no entity before it has the head {match['parent']!r}")
            # the first of equal nouns: in "cars x2; cars x1 < cars; cars x1 < cars" the whole
            parent = heads.index(match["parent"])
        attributes = tuple((match["attributes"] or "").split(", ")) if match["attributes"] else ()
        count = int(match["count"]) if match["count"] else None
        things.append(Thing(match["head"], attributes, count, parent, bool(match["negated"])))
    return tuple(things), tuple(phrases)


# words that carry no content: whether they stand in a phrase or between two says nothing
_UNSCORED = words(
    "a an the and or of to is are was were be been being that which who whose his her its their while as it them"
)


def facts(things: Iterable[Thing], phrases: Iterable[tuple[str, str]]) -> Facts:
    """What is scored, as countable items."""
    named: list[tuple[str, int]] = []
    seen: Counter = Counter()
    found = {fact: Counter() for fact in FACTS}
    for thing in things:
        head = thing.head.lower()
        name = (head, seen[head])
        seen[head] += 1
        named.append(name)
        found["entities"][(*name, thing.negated)] += 1
        for attribute in thing.attributes:
            found["bindings"][(*name, attribute.lower())] += 1
        if thing.count is not None:
            found["counts"][(*name, thing.count)] += 1
        if thing.parent is not None:
            found["parents"][(*name, *named[thing.parent])] += 1
    for kind, said in phrases:
        for word in re.findall(r"[^\s,;.\"]+", said.lower()):
            if word not in _UNSCORED and word[-1].isalnum():  # weight syntax is no word
                found["globals"][word, kind] += 1
    return found


def of_prompt(prompt: Prompt) -> Facts:
    things = (Thing(one.head, one.attributes, one.count, one.parent, one.negated) for one in prompt.entities)
    return facts(things, ((phrase.kind, phrase.text) for phrase in prompt.globals))


def of_noun_chunks(doc: Any) -> Facts:
    """What spaCy alone says: a noun chunk is an entity, its words before the noun are attributes."""
    things = []
    for chunk in doc.noun_chunks:
        before = [token for token in chunk if token.i < chunk.root.i]
        attributes = tuple(
            token.text
            for token in before
            if token.pos_ in ("ADJ", "ADV", "NOUN", "PROPN", "VERB") and not token.is_punct
        )
        numbers = [NUMBERS[token.lower_] for token in before if token.lower_ in NUMBERS]
        numbers += [int(token.text) for token in before if token.text.isdecimal()]
        singular = "Sing" in chunk.root.morph.get("Number") and any(token.pos_ == "DET" for token in before)
        things.append(Thing(chunk.root.text, attributes, numbers[0] if numbers else 1 if singular else None))
    return facts(things, ())


class Score(NamedTuple):
    """Items that were found and right, found, and right."""

    hits: int
    found: int
    gold: int

    @property
    def precision(self) -> float:
        return self.hits / self.found if self.found else 1.0

    @property
    def recall(self) -> float:
        return self.hits / self.gold if self.gold else 1.0

    @property
    def f1(self) -> float:
        return 2 * self.hits / (self.found + self.gold) if self.found + self.gold else 1.0


def score(examples: Iterable[Example], answers: Iterable[Facts]) -> dict[str, Score]:
    """Summed over prompts (micro-averaged)."""
    sums = {fact: [0, 0, 0] for fact in FACTS}
    for example, answer in zip(examples, answers, strict=True):
        gold = facts(example.things, example.phrases)
        for fact in FACTS:
            sums[fact][0] += (gold[fact] & answer[fact]).total()
            sums[fact][1] += answer[fact].total()
            sums[fact][2] += gold[fact].total()
    return {fact: Score(*numbers) for fact, numbers in sums.items()}


def measure(examples: list[Example], model: Any = None) -> list[dict[str, Any]]:
    """One row for each split, group of kinds and parser."""
    pipeline = load_model(model)
    texts = [example.text for example in examples]
    answers = {
        "attnmod": [of_prompt(prompt) for prompt in parse_prompts(texts, model=pipeline)],
        "noun_chunks": [of_noun_chunks(doc) for doc in pipeline.pipe(texts)],
    }
    kinds = sorted({example.kind for example in examples})
    groups = {**{kind: (kind,) for kind in kinds}, "simple": SIMPLE, "hard": HARD, "all": tuple(kinds)}
    rows = []
    for split in SPLITS:
        for group, members in groups.items():
            for provider, given in answers.items():
                chosen = [
                    (example, answer)
                    for example, answer in zip(examples, given, strict=True)
                    if example.split == split and example.kind in members
                ]
                if not chosen:
                    continue
                scores = score(*zip(*chosen, strict=True))
                rows.append({"split": split, "kind": group, "prompts": len(chosen), "provider": provider, **scores})
    return rows


def time_parser(texts: list[str]) -> dict[str, float]:
    """Milliseconds a prompt after loading, single and batched; seconds of importing and loading in a new process."""
    parse_prompts(texts)  # what is built at the first use is not what is measured
    single = [_milliseconds(lambda text=text: parse_prompt(text)) for text in texts]
    batched = min(_milliseconds(lambda: parse_prompts(texts)) for _ in range(3)) / len(texts)
    code = (
        "import time; start = time.perf_counter(); import spacy; imported = time.perf_counter(); "
        "from attnmod.parser.model import load_model; load_model(); "
        "print(imported - start, time.perf_counter() - imported)"
    )
    runs = [subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True) for _ in range(3)]
    imports, loads = zip(*(map(float, run.stdout.split()) for run in runs), strict=True)
    ordered = sorted(single)
    return {
        "single_ms": median(single),
        "single_p95_ms": ordered[int(0.95 * (len(ordered) - 1))],
        "batched_ms": batched,
        "import_s": median(imports),
        "load_s": median(loads),
        "load_average": round(os.getloadavg()[0], 1),
    }


def _milliseconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) * 1e3


def failures(examples: list[Example], split: str) -> Iterator[str]:
    """Each prompt of a split that is not understood wholly, with what is missing (-) and what is wrong (+)."""
    chosen = [example for example in examples if example.split == split]
    for example, prompt in zip(chosen, parse_prompts([one.text for one in chosen]), strict=True):
        gold, answer = facts(example.things, example.phrases), of_prompt(prompt)
        wrong = [
            f"    {fact}: "
            + ", ".join(
                [f"-{' '.join(map(str, item))}" for item in gold[fact] - answer[fact]]
                + [f"+{' '.join(map(str, item))}" for item in answer[fact] - gold[fact]]
            )
            for fact in FACTS
            if gold[fact] != answer[fact]
        ]
        if wrong:
            yield "\n".join([f"{example.kind}: {example.text}", *wrong])


def read_first(path: Path) -> tuple[list[dict[str, Any]], str]:
    """The rows of the first measurement of the blind draw, and what the parser was then; none if there is no file."""
    if not path.is_file():
        return [], ""
    data = json.loads(path.read_text(encoding="utf-8"))
    for row in data["rows"]:
        row |= {fact: Score(*(row[fact][key] for key in Score._fields)) for fact in FACTS}
    return data["rows"], data["versions"]["commit"]


def markdown(
    rows: list[dict[str, Any]],
    times: dict[str, Any],
    versions: dict[str, str],
    first: tuple[list[dict[str, Any]], str] = ([], ""),
) -> str:
    lines = [
        "F1 by kind of prompt, bindings also as precision / recall; globals are not noun_chunks' business.",
        "",
        *_table(rows),
    ]
    if first[0]:
        lines += [
            "",
            f"The blind draw at its first measurement, with the parser of commit {first[1]}: annotated before the "
            "parser had read it. Its failures were looked at afterwards and rules mended by them, so that the figures "
            "above for the same prompts are not blind any more.",
            "",
            *_table(first[0]),
        ]
    lines += [
        "",
        f"Time for one prompt: {times['single_ms']:.1f} ms (95th percentile {times['single_p95_ms']:.1f}); in a batch "
        f"{times['batched_ms']:.1f} ms each; loading the model {times['load_s']:.2f} s, after "
        f"importing spaCy, {times['import_s']:.2f} s. Measured {times.get('date', 'earlier')}; load of the machine: "
        f"{times.get('load_average', 'not recorded')}.",
        "",
        ", ".join(f"{name} {version}" for name, version in versions.items()) + ".",
    ]
    return "\n".join(lines) + "\n"


def _table(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| split | kind | prompts | parser | entities | bindings | (P / R) | counts | parents | globals |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        bindings = row["bindings"]
        others = [f"{row[fact].f1:.3f}" if row[fact].gold else "-" for fact in ("counts", "parents", "globals")]
        binding = f"{bindings.f1:.3f} | {bindings.precision:.3f} / {bindings.recall:.3f}" if bindings.gold else "- | -"
        lines.append(
            f"| {row['split']} | {row['kind']} | {row['prompts']} | {row['provider']} | {row['entities'].f1:.3f} | "
            f"{binding} | {' | '.join(others)} |"
        )
    return lines


def _versions() -> dict[str, str]:
    import spacy

    pipeline = load_model()
    return {
        "spaCy": spacy.__version__,
        f"{pipeline.meta['lang']}_{pipeline.meta['name']}": pipeline.meta["version"],
        "Python": platform.python_version(),
        "processor": platform.machine(),
        "date": time.strftime("%Y-%m-%d"),
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parser", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kind", action="append", metavar="KIND", help="only these kinds")
    parser.add_argument("--failures", choices=SPLITS, help="print what is wrong on one split, prompt by prompt")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/parser.json and parser.md")
    parser.add_argument("--gold", type=Path, default=GOLD, metavar="DIR", help="where the gold set is")
    parser.add_argument("--keep-times", action="store_true", help="on a busy machine: the times of the last saved run")
    parser.add_argument("--first", action="store_true", help="measure the blind draw and write its first measurement")
    options = parser.parse_args(arguments)
    examples = read_gold(options.gold)
    if options.first:
        _measure_first([example for example in examples if example.split == "blind"], RESULTS / FIRST)
        return
    if options.kind:
        known = sorted({example.kind for example in examples})
        if unknown := set(options.kind) - set(known):
            parser.error(f"no kind {', '.join(sorted(unknown))}: there are {', '.join(known)}")
        examples = [example for example in examples if example.kind in options.kind]
    if options.failures:
        print("\n".join(failures(examples, options.failures)))
        return
    rows = measure(examples)
    versions = _versions()
    if options.keep_times:
        times = json.loads((RESULTS / "parser.json").read_text(encoding="utf-8"))["times"]
    else:
        times = time_parser([example.text for example in examples]) | {"date": versions["date"]}
    text = markdown(rows, times, versions, read_first(RESULTS / FIRST))
    print(text, end="")
    if options.save:
        data = {"versions": versions, "times": times, "rows": _plain_rows(rows)}
        (RESULTS / "parser.json").write_text(json.dumps(data, indent=1) + "\n")
        (RESULTS / "parser.md").write_text(text)


def _measure_first(examples: list[Example], path: Path) -> None:
    if path.exists():
        raise FileExistsError(f"{path} exists: a draw is blind once; take it away together with the prompts it is of")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=GOLD, capture_output=True, text=True).stdout
    rows = measure(examples)
    data = {"versions": _versions() | {"commit": commit.strip()}, "rows": _plain_rows(rows)}
    path.write_text(json.dumps(data, indent=1) + "\n")
    print(*_table(rows), sep="\n")


def _plain_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: _plain(value) for key, value in row.items()} for row in rows]


def _plain(value: Any) -> Any:
    if not isinstance(value, Score):
        return value
    rates = {"precision": value.precision, "recall": value.recall, "f1": value.f1}
    return value._asdict() | {name: round(rate, 4) for name, rate in rates.items()}


if __name__ == "__main__":
    main()
