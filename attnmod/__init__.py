"""attnmod: SDXL that follows prompts with several entities, by attention modulation in fused kernels.

The public names below are imported when they are first used, so that `import attnmod` stays light:
the kernels bring in torch, the parser brings in spaCy only when it reads text, and only `modulate`
needs diffusers.
"""

import importlib
import os
from typing import TYPE_CHECKING

__version__ = "0.1.0"

# In a checkout kernels/, sampler/ and parser/ sit beside this folder; in a wheel setup.py puts them inside it.
if not os.path.isdir(os.path.join(__path__[0], "kernels")):
    __path__.append(os.path.dirname(__path__[0]))

if TYPE_CHECKING:
    from attnmod.kernels.ops import cross_attention, self_attention
    from attnmod.parser.align import align_tokens
    from attnmod.parser.prompt import Entity, Phrase, Prompt, Token
    from attnmod.parser.syntax import parse_prompt
    from attnmod.sampler.config import ModulationConfig
    from attnmod.sampler.patch import ModulationHandle, modulate
    from attnmod.sampler.schedule import Curve

# public name -> the module that defines it
_PUBLIC = {
    "modulate": "attnmod.sampler.patch",
    "ModulationHandle": "attnmod.sampler.patch",
    "ModulationConfig": "attnmod.sampler.config",
    "Curve": "attnmod.sampler.schedule",
    "parse_prompt": "attnmod.parser.syntax",
    "align_tokens": "attnmod.parser.align",
    "Prompt": "attnmod.parser.prompt",
    "Entity": "attnmod.parser.prompt",
    "Phrase": "attnmod.parser.prompt",
    "Token": "attnmod.parser.prompt",
    "self_attention": "attnmod.kernels.ops",
    "cross_attention": "attnmod.kernels.ops",
}

__all__ = [
    "Curve",
    "Entity",
    "ModulationConfig",
    "ModulationHandle",
    "Phrase",
    "Prompt",
    "Token",
    "__version__",
    "align_tokens",
    "cross_attention",
    "modulate",
    "parse_prompt",
    "self_attention",
]


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'attnmod' has no attribute {name!r}")
    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value  # the next access does not come here again
    return value


def __dir__():
    return sorted({*globals(), *_PUBLIC})
