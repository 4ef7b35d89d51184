"""Other labels than the English model's: Universal Dependencies, and another language."""

import importlib.util

import pytest
import spacy
from spacy.tokens import Doc

from attnmod.parser.describe import outline
from attnmod.parser.syntax import parse_prompt


class Pipeline:
    """A spaCy pipeline that parses one text, by hand.

    The sentence: "word/POS/label/head" with heads counted from 1, 0 for the root.
    """

    pipe_names = ("morphologizer", "parser")

    def __init__(self, sentence, lang="en", morphs=None):
        self.lang = lang
        rows = [word.rsplit("/", 3) for word in sentence.split()]
        words, tags, labels, heads = zip(*rows, strict=True)
        vocab = spacy.blank(lang).vocab
        heads = [number if head == "0" else int(head) - 1 for number, head in enumerate(heads)]
        morphs = [(morphs or {}).get(word, "") for word in words]
        self.doc = Doc(vocab, list(words), pos=list(tags), deps=list(labels), heads=heads, morphs=morphs)
        self.text = self.doc.text

    def __call__(self, text):
        assert text.strip() == self.text.strip()
        return self.doc

    def pipe(self, texts):
        return map(self, texts)


CASES = {
    "a/DET/det/3 red/ADJ/amod/3 cube/NOUN/root/0 and/CCONJ/cc/7 a/DET/det/7 blue/ADJ/amod/7 sphere/NOUN/conj/3": (
        "cube x1: red; sphere x1: blue"
    ),
    # the subject hangs on the adjective, "is" on it too
    "the/DET/det/2 man/NOUN/nsubj/8 with/ADP/case/6 the/DET/det/6 red/ADJ/amod/6 umbrella/NOUN/nmod/2 is/AUX/cop/8 "
    "tall/ADJ/root/0": "man x1: tall; umbrella x1: red < man",
    "a/DET/det/2 woman/NOUN/nsubj/3 holds/VERB/root/0 up/ADP/compound:prt/3 a/DET/det/7 pink/ADJ/amod/7 "
    "umbrella/NOUN/obj/3": "woman x1; umbrella x1: pink < woman",
    "a/DET/det/2 dog/NOUN/nsubj:pass/4 was/AUX/aux:pass/4 hidden/VERB/root/0 by/ADP/case/7 a/DET/det/7 "
    "tree/NOUN/obl/4": "dog x1; tree x1; [action: was hidden]; [relation: by]",
    "a/DET/det/2 bike/NOUN/nsubj/8 next/ADV/case/6 to/ADP/fixed/3 a/DET/det/6 car/NOUN/nmod/2 is/AUX/cop/8 "
    "green/ADJ/root/0": "bike x1: green; car x1; [relation: next to]",
    "a/DET/det/2 rock/NOUN/nsubj/3 jutted/VERB/root/0 up/ADP/compound:prt/3 into/ADP/case/7 the/DET/det/7 "
    "sky/NOUN/obl/3": "rock x1; [action: jutted up]; [scene: into the sky]",
}


@pytest.mark.parametrize(("sentence", "said"), CASES.items(), ids=lambda value: value[:20])
def test_universal_dependencies(sentence, said):
    pipeline = Pipeline(sentence)
    assert outline(parse_prompt(pipeline.text.strip(), model=pipeline)) == said


def test_german_by_hand():
    pipeline = Pipeline(
        "ein/DET/det/3 roter/ADJ/amod/3 Würfel/NOUN/root/0 und/CCONJ/cc/7 eine/DET/det/7 blaue/ADJ/amod/7 "
        "Kugel/NOUN/conj/3",
        lang="de",
    )
    prompt = parse_prompt(pipeline.text.strip(), model=pipeline)
    assert [(entity.head, entity.attributes) for entity in prompt.entities] == [
        ("Würfel", ("roter",)),
        ("Kugel", ("blaue",)),
    ]


@pytest.mark.skipif(importlib.util.find_spec("fr_core_news_sm") is None, reason="the French model is not installed")
def test_french():
    """Nouns and adjectives on both sides; counts and prepositions are read in English only."""
    text = "une petite fille et une grande table noire"
    prompt = parse_prompt(text, model="fr_core_news_sm")
    assert [(entity.head, entity.attributes) for entity in prompt.entities] == [
        ("fille", ("petite",)),
        ("table", ("grande", "noire")),
    ]


def test_french_order_by_hand():
    pipeline = Pipeline(
        "une/DET/det/2 voiture/NOUN/root/0 rouge/ADJ/amod/2 et/CCONJ/cc/6 une/DET/det/6 chaise/NOUN/conj/2 "
        "bleue/ADJ/amod/6",
        lang="fr",
    )
    prompt = parse_prompt(pipeline.text.strip(), model=pipeline)
    assert [(entity.head, entity.attributes) for entity in prompt.entities] == [
        ("voiture", ("rouge",)),
        ("chaise", ("bleue",)),
    ]
