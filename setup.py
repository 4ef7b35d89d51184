"""Maps the folders at the top of the repository into the package attnmod.

kernels/, parser/ and sampler/ have no __init__.py on purpose: Hugging Face publishes a package called
`kernels`, and a regular package of that name in the working directory would shadow it. Everything else
about the distribution is in pyproject.toml.
"""

from setuptools import setup

FOLDERS = (
    "kernels",
    "kernels/gluon",
    "parser",
    "parser/data",
    "sampler",
    "sampler/data/clip_bpe",
    "sampler/data/miniature",
    "benchmarks",
    "benchmarks/miniature",
    "benchmarks/laboratory",
    "benchmarks/gpu",
)
PACKAGES = {f"attnmod.{folder.replace('/', '.')}": folder for folder in FOLDERS}

setup(
    packages=["attnmod", *PACKAGES],
    package_dir={"attnmod": "attnmod", **PACKAGES},
    package_data={
        "attnmod": ["py.typed"],
        "attnmod.kernels": ["*.json"],
        "attnmod.benchmarks": ["*.c"],
        "attnmod.parser.data": ["*.txt", "LICENSE.*"],
        "attnmod.sampler.data.clip_bpe": ["*.json", "*.txt", "*.md"],
        "attnmod.sampler.data.miniature": ["*.json", "*.md", "**/*.json", "**/*.txt", "**/*.safetensors"],
    },
)
