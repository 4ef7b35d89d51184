"""The options of `attnmod parse`."""

import json
import sys

import pytest

from attnmod import Prompt
from attnmod.sampler import cli
from attnmod.sampler.untrained import CLIP_BPE

PROMPT = "a boy wearing a red hat"


def test_explain(capsys):
    assert cli.main(["parse", PROMPT, "--explain"]) == 0
    printed = capsys.readouterr().out
    assert "entity 1 (hat), inside 0 (boy), by worn" in printed
    assert "clothes belong to who wears them" in printed


def test_json_stays_json_when_it_is_explained(capsys):
    assert cli.main(["parse", PROMPT, "--json", "--explain"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["text"] == PROMPT
    assert "by worn" in printed.err


def test_weights(capsys):
    assert cli.main(["parse", "a (red hat:1.3)", "--weights", "--json", "--tokenizer", str(CLIP_BPE)]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["text"] == "a red hat"
    assert [token["weight"] for token in data["tokens"][:5]] == [1.0, 1.0, 1.3, 1.3, 1.0]


def test_places(capsys):
    for choice, heads in (("scene", ["cat"]), ("auto", ["cat", "hill"]), ("entity", ["cat", "hill"])):
        assert cli.main(["parse", "a cat on a hill", "--places", choice, "--json"]) == 0
        assert [entity["head"] for entity in json.loads(capsys.readouterr().out)["entities"]] == heads


def test_file_gives_one_json_object_a_line(tmp_path, capsys):
    path = tmp_path / "prompts.txt"
    path.write_text("a red cat\n\n  \na blue dog\n" + "a cat\n" * 100)
    assert cli.main(["parse", "--file", str(path), "--json"]) == 0
    printed = capsys.readouterr()
    prompts = [Prompt.from_json(line) for line in printed.out.splitlines()]
    assert len(prompts) == 102
    assert [prompt.text for prompt in prompts[:2]] == ["a red cat", "a blue dog"]
    assert printed.err == ""  # no progress bar where nobody looks


def test_progress_bar_on_a_terminal(tmp_path, capsys, monkeypatch):
    path = tmp_path / "prompts.txt"
    path.write_text("a cat\n" * 100)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert cli.main(["parse", "--file", str(path)]) == 0
    printed = capsys.readouterr()
    assert "100/100" in printed.err
    assert "prompts/s" in printed.err
    assert "100/100" not in printed.out


def test_standard_input(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdin, "read", lambda: "a red cat\n")
    assert cli.main(["parse", "--file", "-"]) == 0
    assert "a red cat" in capsys.readouterr().out


def test_png(tmp_path, capsys):
    out = tmp_path / "parse.png"
    assert cli.main(["parse", PROMPT, "--png", str(out)]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    assert cli.main(["parse", PROMPT, "--png", str(out)]) == 2
    assert "exists" in capsys.readouterr().err
    assert cli.main(["parse", PROMPT, "--png", str(out), "--force"]) == 0


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "a prompt"),
        (["x", "--file", "y"], "--file"),
        (["--file", "no_such_file"], "no_such_file"),
        (["--file", "x", "--png", "y"], "--png"),
    ],
)
def test_errors(arguments, named, capsys):
    assert cli.main(["parse", *arguments]) == 2
    assert named in capsys.readouterr().err


@pytest.mark.parametrize(
    ("terminal", "variables", "choice", "coloured"),
    [
        (True, {}, "auto", True),
        (False, {}, "auto", False),
        (True, {"NO_COLOR": "1"}, "auto", False),
        (True, {"NO_COLOR": ""}, "auto", True),  # the convention: set and not empty
        (True, {"TERM": "dumb"}, "auto", False),
        (True, {"NO_COLOR": "1"}, "always", True),
        (True, {}, "never", False),
    ],
)
def test_colours(terminal, variables, choice, coloured, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cli.main(["parse", PROMPT, "--explain", "--colour", choice]) == 0
    assert ("\x1b[" in capsys.readouterr().out) == coloured


def test_the_explanation_beside_json_asks_the_stream_that_it_goes_to(capsys, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert cli.main(["parse", PROMPT, "--explain", "--json"]) == 0
    printed = capsys.readouterr()
    assert "\x1b[" not in printed.out + printed.err


def test_spacy_model_by_name(capsys):
    assert cli.main(["parse", PROMPT, "--spacy-model", "no_such_model"]) == 2
    error = capsys.readouterr().err
    assert "no_such_model" in error
    assert "spacy download no_such_model" in error


def test_a_missing_tokenizer(tmp_path, capsys):
    assert cli.main(["parse", PROMPT, "--tokenizer", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_bad_choices_and_bytes(tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_info:
        cli.main(["parse", PROMPT, "--places", "somewhere"])
    assert exit_info.value.code == 2
    path = tmp_path / "latin1.txt"
    path.write_bytes(b"a caf\xe9\n")
    assert cli.main(["parse", "--file", str(path)]) == 2
    assert "utf-8" in capsys.readouterr().err.lower()
