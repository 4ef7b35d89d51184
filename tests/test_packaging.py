"""A wheel of attnmod, installed into a fresh environment beside Hugging Face's package `kernels`."""

import shutil
import subprocess
import sys
import venv
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent

IMPORTS = """
import attnmod, kernels
import attnmod.kernels.ops, attnmod.parser.prompt, attnmod.sampler.config
from transformers import CLIPTextModel
from attnmod import modulate, parse_prompt
import torch
q = torch.randn(1, 2, 5, 8)
assert attnmod.self_attention(q, q, q, temperature=0.5).shape == q.shape
assert [entity.head for entity in parse_prompt("a red cube").entities] == ["cube"]
assert kernels.get_kernel, "this is not Hugging Face's kernels"
print(attnmod.__file__)
print(attnmod.kernels.ops.__file__)
print(kernels.__file__)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, so that no build folder is left in the checkout."""
    source = tmp_path_factory.mktemp("source") / "attnmod"
    ignore = shutil.ignore_patterns(".git", ".venv", "__pycache__", "*.egg-info", "build", ".*_cache", "tests")
    shutil.copytree(ROOT, source, ignore=ignore)
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, source]
    subprocess.run(build, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """Its own site-packages hold attnmod's wheel and Hugging Face's kernels; the rest comes from this environment."""
    home = tmp_path_factory.mktemp("venv")
    venv.create(home, with_pip=False, symlinks=True)
    site = next(home.glob("lib/python*/site-packages"))
    install = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
    ]
    subprocess.run([*install, site, wheel], check=True, capture_output=True)
    installed = distribution("kernels")
    for file in installed.files or ():
        if file.parts[0].startswith("kernels"):
            (site / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(installed.locate_file(file), site / file)
    (site / "rest.pth").write_text(str(Path(torch.__file__).parent.parent))
    return home / "bin" / "python", site


def test_what_the_wheel_holds(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {
        "attnmod",
        next(n for n in names if "dist-info" in n).split("/")[0],
    }
    for name in ("py.typed", "kernels/ops.py", "parser/prompt.py", "sampler/data/clip_bpe/vocab.json"):
        assert f"attnmod/{name}" in names
    assert not [name for name in names if name.endswith(("kernels/__init__.py", "parser/__init__.py"))]


def test_installed_beside_hugging_faces_kernels(environment, tmp_path):
    python, site = environment
    run = subprocess.run([python, "-c", IMPORTS], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == [
        str(site / "attnmod/__init__.py"),
        str(site / "attnmod/kernels/ops.py"),
        str(site / "kernels/__init__.py"),
    ]


def test_from_the_root_of_the_checkout_too(environment):
    """There the checkout's attnmod comes first, and its folder kernels/ must not hide the other package."""
    python, site = environment
    run = subprocess.run([python, "-c", IMPORTS], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == [
        str(ROOT / "attnmod/__init__.py"),
        str(ROOT / "kernels/ops.py"),
        str(site / "kernels/__init__.py"),
    ]


def test_the_command_is_installed(environment, tmp_path):
    python, _ = environment
    run = subprocess.run([python, "-m", "attnmod", "--version"], cwd=tmp_path, capture_output=True, text=True)
    assert (run.returncode, run.stdout.split()[0]) == (0, "attnmod")
