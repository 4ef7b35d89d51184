"""The house as it is drawn: who may import whom, and what an import costs."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import attnmod

ROOT = Path(__file__).parent.parent
FOLDERS = ("kernels", "parser", "sampler")

# What the code of each folder may import; the standard library is free to all.
ALLOWED = {
    "kernels": {"torch", "triton", "attnmod.kernels"},
    "parser": {"spacy", "transformers", "attnmod.parser"},
    "sampler": {
        "torch",
        "diffusers",
        "transformers",
        "PIL",
        "numpy",
        "tqdm",
        "attnmod",
        "attnmod.sampler",
        "attnmod.parser",
        "attnmod.kernels.ops",
    },
}


def imported_modules(path: Path) -> set[str]:
    """Every module that a file imports, at the top or inside a function, by its full name."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports break where a folder is mapped into attnmod"
            module = node.module or ""
            # `from attnmod.kernels import ops` names a module of its own
            inner = [f"{module}.{alias.name}" for alias in node.names] if module.startswith("attnmod") else []
            names |= {name for name in inner if (ROOT / Path(*name.split(".")[1:])).with_suffix(".py").is_file()}
            names |= set() if names & set(inner) else {module}
    return {name for name in names if name.split(".")[0] not in sys.stdlib_module_names}


def is_allowed(module: str, allowed: set[str]) -> bool:
    if module == "attnmod":
        return module in allowed
    return any(module == name or module.startswith(f"{name}.") for name in allowed - {"attnmod"})


@pytest.mark.parametrize("folder", FOLDERS)
def test_import_arrows(folder):
    files = sorted((ROOT / folder).glob("**/*.py"))
    assert files
    wrong = {
        f"{path.relative_to(ROOT)}: {module}"
        for path in files
        for module in imported_modules(path)
        if not is_allowed(module, ALLOWED[folder])
    }
    assert not wrong


def test_benchmarks_import_the_product_and_never_tests():
    # picture.py draws the pipeline that the tests know the picture of
    files = [path for path in (ROOT / "benchmarks").glob("**/*.py") if path.name != "picture.py"]
    assert files
    wrong = {
        f"{path.name}: {name}" for path in files for name in imported_modules(path) if name.split(".")[0] == "tests"
    }
    assert not wrong


def test_the_arrow_check_can_fail(tmp_path):
    file = tmp_path / "wrong.py"
    file.write_text("def f():\n    import spacy\n    from attnmod.kernels import reference\n")
    assert imported_modules(file) == {"spacy", "attnmod.kernels.reference"}
    assert not is_allowed("attnmod.kernels.reference", ALLOWED["sampler"])
    assert not is_allowed("spacy", ALLOWED["kernels"])


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_init_file(folder):
    """A regular package called kernels here would shadow Hugging Face's."""
    assert not (ROOT / folder / "__init__.py").exists()


def loaded_by(code: str) -> set[str]:
    """Top-level names of the modules that a fresh interpreter has after running this."""
    script = f"{code}\nimport sys, json; print(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(json.loads(run.stdout.splitlines()[-1]))


HAND_BUILT = """
import attnmod.parser
from attnmod import Prompt, Token, align_tokens
prompt = Prompt.from_entities("a red cube", [["a red cube"]])

class Tokenizer:  # one token per word
    is_fast, model_max_length = True, 8
    bos_token_id, eos_token_id, pad_token_id = 0, 1, 1
    bos_token, eos_token, pad_token = "<bos>", "<eos>", "<eos>"

    def __call__(self, text, **options):
        import re
        words = [match.span() for match in re.finditer(r"\\S+", text)]
        return {"input_ids": [0, *range(2, 2 + len(words)), 1], "offset_mapping": [(0, 0), *words, (0, 0)]}

kinds = [token.kind for token in align_tokens(prompt, Tokenizer()).tokens]
assert kinds == ["bos", "entity", "entity", "entity", "eos", "pad", "pad", "pad"], kinds
"""


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        (
            "import attnmod; dir(attnmod); attnmod.__version__",
            {"torch", "spacy", "diffusers", "transformers", "triton"},
        ),
        ("import attnmod.kernels.ops", {"spacy", "diffusers", "transformers", "triton"}),
        ("from attnmod import self_attention, cross_attention", {"spacy", "diffusers", "transformers"}),
        (HAND_BUILT, {"torch", "spacy", "diffusers", "transformers"}),
        ("from attnmod import ModulationConfig, Curve; ModulationConfig()", {"torch", "spacy", "diffusers"}),
        ("from attnmod.sampler import cli", {"torch", "spacy", "diffusers", "transformers"}),
    ],
    ids=["attnmod", "kernels", "ops", "parser", "config", "cli"],
)
def test_what_an_import_does_not_load(code, absent):
    assert not loaded_by(code) & absent


def test_the_public_names():
    assert set(attnmod.__all__) == {"__version__", *attnmod._PUBLIC}
    for name in attnmod.__all__:
        assert getattr(attnmod, name) is not None
    assert set(attnmod.__all__) <= set(dir(attnmod))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        attnmod.nothing  # noqa: B018
