"""Maps the folders at the top of the repository into the package attnmod.

kernels/, parser/ and sampler/ have no __init__.py on purpose: Hugging Face publishes a package called
`kernels`, and a regular package of that name in the working directory would shadow it. Everything else
about the distribution is in pyproject.toml.
"""

from setuptools import setup

FOLDERS = ("kernels", "parser", "sampler", "benchmarks")

setup(
    packages=["attnmod", *(f"attnmod.{folder}" for folder in FOLDERS)],
    package_dir={"attnmod": "attnmod", **{f"attnmod.{folder}": folder for folder in FOLDERS}},
    package_data={"attnmod": ["py.typed"], "attnmod.sampler": ["data/**/*"]},
)
