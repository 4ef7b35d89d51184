"""README is true: its Python runs, its files exist, its commands are the Makefile's."""

import json
import re
from pathlib import Path

import pytest
import torch

from attnmod import modulate
from attnmod.benchmarks import numbers
from attnmod.sampler.untrained import sdxl_shaped_pipeline

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sdxl")
    sdxl_shaped_pipeline(channels=(64, 64), transformer_layers=(1, 1), sample_size=16).save_pretrained(folder)
    return folder


def test_its_python_runs_from_top_to_bottom(model, capsys, tmp_path, monkeypatch):
    """On a small model, on the CPU and at a small size; everything else as it stands."""
    monkeypatch.chdir(tmp_path)
    q = torch.randn(1, 2, 16, 8)
    names = {
        "q": q,
        "k": q,
        "v": q,
        "tau": torch.full((1,), 0.5),
        "bits": torch.tensor([[-1] + [1] * 7 + [2] * 8], dtype=torch.int32),
        "hidden": torch.zeros(1),
        "left": torch.ones(8, 8),
        "right": torch.zeros(8, 8),
        "prompt_embeds": torch.zeros(1, 77, 128),
        "requests": ["a cat", "a red cube and a blue sphere"],
        "modulate": modulate,
    }
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 5
    for block in blocks:
        block = block.replace("path/to/sdxl", str(model)).replace("float16", "float32").replace('"cuda"', '"cpu"')
        block = block.replace("(1024, 1024), (1216, 832)", "(16, 16)").replace("steps=30", "steps=2")
        block = block.replace("fullgraph=True", 'fullgraph=True, backend="eager"')  # no C++ compiler is asked for
        if "handle.set_prompt" in block:
            block = f"handle = modulate(pipe)\n{block}\nhandle.remove()"
        if "map_strip" in block:
            run = 'pipe("a boy wearing a red hat", num_inference_steps=4)'
            block = f"handle = modulate(pipe, maps=True)\n{run}\n{block}\nhandle.remove()"
        exec(compile(block, "README.md", "exec"), names)
    assert "a red hat" in capsys.readouterr().out
    assert names["owner"].shape == (1, 2, 16)
    assert (tmp_path / "steps.png").is_file()
    assert "encode_prompt" not in vars(names["pipe"])


def test_its_ledger_is_the_committed_one():
    rows = json.loads((ROOT / "benchmarks" / "results" / "ledger.json").read_text(encoding="utf-8"))
    for name, row in rows.items():
        assert f"| {name} | " + " | ".join(f"{value:,}" for value in row.values()) + " |" in README


def test_the_gpu_s_numbers_are_the_committed_ones():
    text = numbers.DOCUMENT.read_text(encoding="utf-8")
    assert numbers.document(text) == text
    assert "| graph | " in text


def test_what_it_links_and_lists_exists():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links
    files = re.findall(r"`((?:attnmod|kernels|parser|sampler|benchmarks|tests)/[\w./]*)`", README)
    assert files
    for name in (*links, *files):
        assert (ROOT / name).exists(), name


def test_its_commands_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"(?:^|`)make (\w+)", README, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    shell = "".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL))
    for command in set(re.findall(r"^attnmod (\w+)", shell, re.MULTILINE)):
        assert command in ("generate", "parse", "check", "bench")


def test_the_public_names_it_imports_are_public():
    import attnmod

    for names in re.findall(r"from attnmod import (.+)", README):
        assert set(names.split(", ")) <= set(attnmod.__all__)
