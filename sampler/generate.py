"""One image from one set of settings: load a pipeline, modulate it, run it, and keep a record of how.

This is what `attnmod generate` does; it is a function of `Settings`, so that an application can call it too.
"""

import contextlib
import dataclasses
import json
import math
import os
import re
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import attnmod
from attnmod.parser.prompt import Prompt
from attnmod.sampler.config import ModulationConfig
from attnmod.sampler.miniature import MINIATURE, beyond_the_world, is_shipped

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
DTYPES = ("auto", "float32", "float16", "bfloat16")
RECORD_FORMAT = 1
_RECORDED_PACKAGES = ("torch", "diffusers", "transformers", "spacy")
# what fields of Settings may be, and how that is said; True and False count as bool alone
_TYPES: tuple[tuple[tuple[str, ...], Any, str], ...] = (
    (("prompt", "device", "dtype"), str, "text"),
    (("negative_prompt", "model"), str | None, "text or None"),
    (("steps", "seed"), int, "a whole number"),
    (("width", "height"), int | None, "a whole number or None"),
    (("guidance_scale",), int | float, "a number"),
    (("modulation",), bool, "true or false"),
    (("config",), ModulationConfig, "a ModulationConfig"),
)
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@dataclass(frozen=True)
class Settings:
    """Everything that an image depends on.

    Attributes:
        prompt: the text; "(red hat:1.3)", "ball++" and "[cat]" weigh words.
        negative_prompt: left out, the model's own empty one.
        model: a folder or an id of a model hub; None is the shipped miniature (an untrained pipeline where an
            installation lacks it).
        steps: denoising steps, at least 1.
        guidance_scale: of classifier-free guidance; 1 and below turn it off.
        seed: of the noise, drawn on the CPU whatever the device.
        width, height: pixels, multiples of 8; None is the model's own size.
        device: "auto" is cuda where there is one, else cpu.
        dtype: "auto" is float16 on cuda, else float32.
        modulation: False leaves the pipeline as it is.
        config: settings of the modulation.

    Raises:
        ValueError, TypeError: a value outside these; the message names it.
    """

    prompt: str
    negative_prompt: str | None = None
    model: str | None = None
    steps: int = 20
    guidance_scale: float = 5.0
    seed: int = 0
    width: int | None = None
    height: int | None = None
    device: str = "auto"
    dtype: str = "auto"
    modulation: bool = True
    config: ModulationConfig = dataclasses.field(default=ModulationConfig())  # frozen: one serves them all

    def __post_init__(self):
        for names, allowed, wanted in _TYPES:
            for name in names:
                value = getattr(self, name)
                if not isinstance(value, allowed) or (isinstance(value, bool) and allowed is not bool):
                    raise TypeError(f"{name} is {value!r}; it must be {wanted}")
        if not 1 <= self.steps <= 1000:
            raise ValueError(f"steps is {self.steps}; it must lie in 1 to 1000")
        if not (math.isfinite(self.guidance_scale) and self.guidance_scale >= 0):
            raise ValueError(f"guidance_scale is {self.guidance_scale}; it must be a finite number, zero or above")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed is {self.seed}; it must lie in 0 to 2^63 - 1")
        for name in ("width", "height"):
            size = getattr(self, name)
            if size is not None and (size % 8 or not 8 <= size <= 8192):
                raise ValueError(f"{name} is {size}; it must be a multiple of 8, from 8 to 8192")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype is {self.dtype!r}; allowed are {', '.join(DTYPES)}")

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "config": self.config.to_dict()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Settings":
        """The inverse of `to_dict`. Raises ValueError for unknown keys, TypeError for what is no dict."""
        if not isinstance(values, dict):
            raise TypeError(f"settings are a dict, not {type(values).__name__}")
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"settings have unknown keys {unknown}; known are {sorted(known)}")
        if isinstance(values.get("config"), dict):
            values = {**values, "config": ModulationConfig.from_dict(values["config"])}
        return cls(**values)


@dataclass(frozen=True)
class Generated:
    """An image and, if it was modulated, its overlay, prompt, owner map and the strip of maps over the steps."""

    image: Any
    overlay: Any = None
    prompt: Prompt | None = None
    owners: list[list[int]] | None = None
    strip: Any = None


def generate(settings: Settings, pipe: Any = None) -> Generated:
    """Make the image. Warns of weights in the prompt that these settings leave without effect.

    Args:
        settings: what to make.
        pipe: a loaded pipeline to use instead of settings.model.

    Raises:
        FileNotFoundError, ValueError: the model folder is missing, or is not one that can be loaded.
    """
    import torch

    from attnmod.parser.syntax import parse_prompt
    from attnmod.sampler.maps import draw_entity_map
    from attnmod.sampler.patch import modulate

    # The text that is encoded is the one without weight syntax: a tokenizer would take "(hat:1.3)" for words.
    understood = parse_prompt(settings.prompt, weights=True)
    if understood.weights and not (settings.modulation and settings.config.modulates_cross_attention):
        warnings.warn(
            "word weights have no effect: they weigh in cross-attention, which these settings leave as it is",
            stacklevel=2,
        )
    if pipe is None:
        pipe = load_pipeline(settings)
        if settings.model is None and is_shipped() and (warning := beyond_the_world(understood.text)):
            warnings.warn(warning, stacklevel=2)
    call: dict[str, Any] = dict(
        prompt=understood.text,
        negative_prompt=settings.negative_prompt,
        num_inference_steps=settings.steps,
        guidance_scale=settings.guidance_scale,
        width=settings.width,
        height=settings.height,
        generator=torch.Generator("cpu").manual_seed(settings.seed),
    )
    if not settings.modulation:
        return Generated(pipe(**call).images[0])
    with modulate(pipe, settings.config, maps=not settings.config.is_neutral) as handle:
        handle.set_prompt(understood)
        image = pipe(**call).images[0]
        if settings.config.is_neutral:
            return Generated(image)
        owners = handle.entity_map()[0]
        prompt, strip = handle.prompts[0], handle.map_strip()
    return Generated(image, draw_entity_map(image, owners, prompt), prompt, owners.tolist(), strip)


def load_pipeline(settings: Settings) -> Any:
    """The pipeline that the settings name, on its device.

    Only safetensors are read.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: a folder that is no SDXL pipeline, or has pickled weights only; an unknown device.
    """
    import torch

    device = settings.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device is {settings.device!r}, which does not work here: {_first_line(error)}") from None
    dtype = settings.dtype
    if dtype == "auto":
        dtype = "float16" if torch.device(device).type == "cuda" else "float32"
    if settings.model is not None:
        pipe = _load_model(settings.model, getattr(torch, dtype))
    elif is_shipped():
        pipe = _load_model(str(MINIATURE), getattr(torch, dtype))
    else:
        from attnmod.sampler.untrained import sdxl_shaped_pipeline

        pipe = sdxl_shaped_pipeline()
    return pipe.to(device=device, dtype=getattr(torch, dtype))


def _load_model(model: str, dtype) -> Any:
    from diffusers import StableDiffusionXLPipeline

    options: dict[str, Any] = {"dtype": dtype, "use_safetensors": True, "add_watermarker": False}
    if Path(model).is_dir():
        options["variant"] = _check_model_folder(Path(model))
        options["local_files_only"] = True
    elif not _HUB_ID.fullmatch(model) or Path(model).exists():
        raise FileNotFoundError(f"model {model!r} is neither a folder nor an id like 'owner/name' of a model hub")
    try:
        return StableDiffusionXLPipeline.from_pretrained(model, **options)
    except OSError as error:
        raise ValueError(f"model {model!r} could not be loaded: {_first_line(error)}") from error


def _check_model_folder(folder: Path) -> str | None:
    """The variant to load (such as fp16), or None for the plain weights.

    Raises:
        ValueError: not an SDXL pipeline, or nothing but pickled weights.
    """
    index = folder / "model_index.json"
    if not index.is_file():
        raise ValueError(f"model folder {folder} has no model_index.json: it is not a diffusers pipeline")
    try:
        name = json.loads(index.read_text(encoding="utf-8")).get("_class_name")
    except (json.JSONDecodeError, AttributeError):
        raise ValueError(f"model folder {folder}: model_index.json cannot be read") from None
    if name != "StableDiffusionXLPipeline":
        raise ValueError(f"model folder {folder} holds a {name}; generate needs a StableDiffusionXLPipeline")
    weights = [path.name for path in folder.glob("unet/*.safetensors")]
    if not weights:
        pickled = [path.name for pattern in ("*.bin", "*.ckpt", "*.pt") for path in folder.glob(f"unet/{pattern}")]
        kept = f"pickled weights only ({pickled[0]})" if pickled else "no weights"
        raise ValueError(f"model folder {folder} has {kept} in unet/; attnmod loads safetensors and nothing else")
    variants = {match.group(1) for name in weights if (match := re.search(r"\.(fp16|bf16)[.-]", name))}
    plain = [name for name in weights if not re.search(r"\.(fp16|bf16)[.-]", name)]
    return None if plain or not variants else sorted(variants)[0]


# -- files


def output_files(out: Path, settings: Settings, strip: bool = False) -> dict[str, Path]:
    """The files that a run writes: image, record and, where there is one, the map; with strip, its steps too.

    Raises:
        ValueError: a suffix that is no picture's, or a folder that is not there.
    """
    if out.suffix.lower() not in IMAGE_SUFFIXES:
        raise ValueError(f"output {out} is no picture's name; it must end in {', '.join(IMAGE_SUFFIXES)}")
    if not out.parent.is_dir():
        raise ValueError(f"output {out} lies in a folder that does not exist")
    files = {"image": out, "record": out.with_suffix(".json")}
    if settings.modulation and not settings.config.is_neutral:
        files["map"] = out.with_suffix(".map.png")
        if strip:
            files["strip"] = out.with_suffix(".steps.png")
    return files


def free_name(prompt: str, folder: Path) -> Path:
    """A name made of the prompt's first words, numbered so that nothing is overwritten."""
    stem = "-".join(re.findall(r"\w+", prompt.lower())[:8])[:60] or "image"
    number = 1
    while any((folder / f"{stem}-{number}{suffix}").exists() for suffix in (".png", ".map.png", ".steps.png", ".json")):
        number += 1
    return folder / f"{stem}-{number}.png"


def save(result: Generated, settings: Settings, files: dict[str, Path]) -> None:
    """Write all files or, where one cannot be written, none."""
    record = {
        "attnmod": attnmod.__version__,
        "format": RECORD_FORMAT,
        "settings": settings.to_dict(),
        "prompt": result.prompt.to_dict() if result.prompt else None,
        "entity_map": result.owners,
        "versions": {package: version(package) for package in _RECORDED_PACKAGES},
    }
    with _written_together(files) as temporary:
        result.image.save(temporary["image"])
        if "map" in temporary:
            result.overlay.save(temporary["map"])
        if "strip" in temporary:
            result.strip.save(temporary["strip"])
        temporary["record"].write_text(json.dumps(record, ensure_ascii=False) + "\n", encoding="utf-8")


def read_record(path: Path) -> Settings:
    """The settings that a record was made with.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a record of this version.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no record {path}")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"record {path} is not JSON: {error}") from None
    if not isinstance(record, dict) or record.get("format") != RECORD_FORMAT or "settings" not in record:
        raise ValueError(f"{path} is not a record that `attnmod generate` of this version wrote")
    try:
        return Settings.from_dict(record["settings"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"record {path}: {error}") from None


@contextlib.contextmanager
def _written_together(files: dict[str, Path]) -> Iterator[dict[str, Path]]:
    """Temporary paths beside the final ones; moved into place at the end, removed on an error."""
    with tempfile.TemporaryDirectory(prefix=".attnmod-", dir=files["image"].parent) as folder:
        temporary = {kind: Path(folder) / path.name for kind, path in files.items()}
        yield temporary
        for kind, path in temporary.items():
            os.replace(path, files[kind])


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
