"""`attnmod parse`, `attnmod check`, and how the command behaves."""

import importlib.util
import json
import subprocess
import sys

import pytest

from attnmod import Prompt, __version__
from attnmod.benchmarks import BENCHMARKS
from attnmod.sampler.cli import main
from attnmod.sampler.untrained import CLIP_BPE

PROMPT = "a boy wearing a red hat in front of two cats"


def test_parse_as_json(capsys):
    assert main(["parse", PROMPT, "--json"]) == 0
    prompt = Prompt.from_dict(json.loads(capsys.readouterr().out))
    assert [entity.head for entity in prompt.entities] == ["boy", "hat", "cats"]
    assert prompt.tokens == ()


def test_parse_with_tokens(capsys):
    assert main(["parse", PROMPT, "--json", "--tokenizer", str(CLIP_BPE)]) == 0
    tokens = json.loads(capsys.readouterr().out)["tokens"]
    assert len(tokens) == 77
    assert tokens[1]["text"] == "a"
    assert tokens[1]["entities"] == [0]


def test_parse_for_a_reader(capsys):
    assert main(["parse", PROMPT, "--colour", "never"]) == 0
    plain = capsys.readouterr().out
    assert "\033[" not in plain
    assert "a red hat" in plain
    assert "in front of" in plain
    assert main(["parse", PROMPT, "--colour", "always"]) == 0
    assert "\033[" in capsys.readouterr().out


def test_check(capsys):
    assert main(["check"]) == 0
    printed = capsys.readouterr().out
    for word in (__version__, "torch", "cuda", "triton", "sdpa", "eager", "the ones that ship", "English model"):
        assert word in printed


def test_bench_lists_and_runs(tmp_path, capsys, monkeypatch):
    assert main(["bench"]) == 0
    assert set(BENCHMARKS) <= set(capsys.readouterr().out.split())
    assert all(importlib.util.find_spec(f"attnmod.benchmarks.{module}") for module, _ in BENCHMARKS.values())
    monkeypatch.setattr(sys, "argv", sys.argv)
    with pytest.raises(SystemExit) as stop:
        main(["bench", "unet", "--help"])
    assert stop.value.code == 0
    assert "--rounds" in capsys.readouterr().out
    assert main(["bench", "nothing"]) == 2
    assert "no benchmark 'nothing'" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["generate", "parse", "check", "bench"])
def test_help_has_an_example(capsys, command):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f"example:\n  attnmod {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "COMMAND"),
        (["fly"], "fly"),
        (["parse"], "prompt"),
        (["parse", "x", "--tokenizer", "nowhere"], "nowhere"),
        (["parse", "x", "--spacy-model", "no_such_model"], "no_such_model"),
    ],
)
def test_errors_are_one_line_and_exit_code_2(arguments, named):
    run = subprocess.run([sys.executable, "-m", "attnmod", *arguments], capture_output=True, text=True)
    assert run.returncode == 2
    assert len(run.stderr.splitlines()) == 1
    assert named in run.stderr
    assert not run.stdout


def test_a_reader_that_stops_reading():
    command = f"{sys.executable} -m attnmod parse '{PROMPT}' --json --tokenizer {CLIP_BPE} | head -1"
    run = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert run.stdout == "{\n"
    assert "Traceback" not in run.stderr
