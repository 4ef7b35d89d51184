"""The table of tiles as data: the one that ships, and over it the one that a user's own card was tuned to.

A table is JSON: {"format": 1, "device": ..., "triton": ..., "entries": [...]}. An entry names the op, the architecture,
the padded head dim and the class of shape, and holds the tiles (`Tiles`). "backend": "sdpa" says that SDPA was measured
to be faster; "measured" names the card and the Triton of a measurement. "kernel": "gluon" stands beside the entry of
Triton's kernel for the same shapes, and is taken where that kernel can be launched. tile_table.json beside this file
ships; `attnmod bench tune` writes one for the card at hand, which is read at the next start.
"""

import functools
import json
import os
import re
import tempfile
import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

FORMAT = 1
ANY = "any"  # the architecture of entries for all that have none of their own
SHIPPED = Path(__file__).with_name("tile_table.json")
OPS = ("self_attention", "cross_attention")
# See `_self_attention_kernel`.
SOFTMAX_OPTIONS = ("overlap", "lazy_rescale", "polynomial", "skip")
# See `gluon/persistent.py`.
GLUON_OPTIONS = ("persistent", "steady")

Key = tuple[str, str, int, str]  # op, architecture, padded head dim, class of shape


@dataclass(frozen=True)
class Tiles:
    """What one program takes, and how.

    block_m queries; block_n keys of a step (self-attention) or columns of a group (cross-attention in sweeps, 0 for
    any number); blocks_per_program blocks of queries in turn (cross-attention in one piece); the registers of a thread
    beyond which the compiler must not go, 0 for any number; and how self-attention goes about its softmax, any of
    `SOFTMAX_OPTIONS`.

    kernel "gluon" is the one in `gluon/self_attention.py`: num_warps is 4 and takes 64 of the block's queries,
    max_registers is what a thread of these has, and the options are `GLUON_OPTIONS`.
    """

    block_m: int
    block_n: int
    num_warps: int
    num_stages: int
    blocks_per_program: int = 1
    max_registers: int = 0
    options: tuple[str, ...] = ()
    kernel: str = "triton"


@dataclass(frozen=True)
class Entry:
    """Tiles for one class of shapes on one architecture.

    backend is "triton" or, where SDPA was measured to be faster, "sdpa"; measured names the card and the Triton of the
    measurement that chose it, "" where arithmetic did.
    """

    op: str
    architecture: str
    head_dim: int
    shape: str
    tiles: Tiles
    backend: str = "triton"
    measured: str = ""

    @property
    def key(self) -> Key:
        shape = self.shape if self.tiles.kernel == "triton" else f"{self.tiles.kernel} {self.shape}"
        return self.op, self.architecture, self.head_dim, shape

    def was_measured_with(self, triton: str) -> bool:
        """Whether the measurement was with this minor version of Triton."""
        return bool(self.measured) and _minor(self.measured.rpartition("Triton ")[2]) == _minor(triton)


class TileTable:
    """Entries by key; `generation` grows when they change, so that what was made from them can be told to be old."""

    def __init__(self):
        self.entries: dict[Key, Entry] = {entry.key: entry for entry in read(SHIPPED)}
        self.generation = 0

    def find(self, op: str, architecture: str, head_dim: int, shape: str) -> Entry:
        """The architecture's own entry, else that of any."""
        return self.entries.get((op, architecture, head_dim, shape)) or self.entries[op, ANY, head_dim, shape]

    def install(self, entries: Iterable[Entry]) -> None:
        """Lay entries over those of the same key."""
        self.entries |= {entry.key: entry for entry in entries}
        self.generation += 1


@functools.cache
def table() -> TileTable:
    """The table of this process: the shipped entries, and the user's own over them."""
    found = TileTable()
    path = user_path()
    if path.exists() or os.environ.get("ATTNMOD_TILES"):
        obstacle = obstacle_to(path)
        if obstacle:
            warnings.warn(f"attnmod: the table of tiles {path} is ignored: {obstacle}", UserWarning, stacklevel=2)
        else:
            found.install(read(path))
    return found


def user_path() -> Path:
    """Where the user's own table is: ATTNMOD_TILES, else attnmod/tiles.json in the user's configuration folder."""
    given = os.environ.get("ATTNMOD_TILES")
    if given:
        return Path(given)
    configuration = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return Path(configuration) / "attnmod" / "tiles.json"


def obstacle_to(path: Path) -> str:
    """Why a user's table is of no use here, in a line; "" where it is."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        entries = read(path)
    except (OSError, ValueError, TypeError) as error:
        return " ".join(str(error).split())
    if not entries:
        return "it has no entries"
    if _minor(content.get("triton")) != _minor(triton_version()):
        made, here = content.get("triton"), triton_version()
        return f"it was made with Triton {made}, and here is {here}; attnmod bench tune makes a new one"
    cards = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    if content.get("device") not in cards:
        here = ", ".join(cards) or "no GPU"
        return f"it was made on {content.get('device')}, and here is {here}; attnmod bench tune makes a new one"
    return ""


def read(path: Path) -> list[Entry]:
    """The entries of a table's file.

    Raises:
        OSError: there is no such file.
        ValueError: it is no table, or of another format; what is wrong is named.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or not isinstance(content.get("entries"), list):
        raise ValueError(f"{path.name} is no table of tiles: it needs an object with a list of entries")
    if content.get("format") != FORMAT:
        raise ValueError(f"{path.name} has format {content.get('format')!r}; this attnmod reads {FORMAT}")
    return [_entry(item, f"{path.name}, entry {index}") for index, item in enumerate(content["entries"])]


def write(path: Path, entries: Iterable[Entry], device: str | None = None) -> None:
    """Write a table whole or not at all. device: the card it was measured on; the shipped table has none."""
    head: dict[str, Any] = {"format": FORMAT}
    if device is not None:
        head |= {"device": device, "triton": triton_version()}
    lines = ",\n".join(json.dumps(_as_json(entry)) for entry in entries)
    text = json.dumps(head)[:-1] + ', "entries": [\n' + lines + "\n]}\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        file.write(text)
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


@functools.cache
def triton_version() -> str:
    try:
        return version("triton")
    except PackageNotFoundError:
        return "none"


def _minor(text: Any) -> str:
    match = re.match(r"\d+\.\d+", str(text))
    return match[0] if match else ""


def _as_json(entry: Entry) -> dict[str, Any]:
    item: dict[str, Any] = asdict(entry)
    tiles = {name: value for name, value in item.pop("tiles").items() if value != _DEFAULTS.get(name)}
    for name in ("backend", "measured"):
        if item[name] == _DEFAULTS[name]:
            del item[name]
    return item | tiles


_DEFAULTS = {
    "blocks_per_program": 1,
    "max_registers": 0,
    "options": (),
    "kernel": "triton",
    "backend": "triton",
    "measured": "",
}
_WORDS = ("op", "architecture", "shape", "backend", "measured")
_TEXTS = (*_WORDS, "kernel")
_KERNELS = {"triton": SOFTMAX_OPTIONS, "gluon": GLUON_OPTIONS}  # and the options of each


def _entry(item: Any, where: str) -> Entry:
    """Raises ValueError where an item is no entry: a table may have been written by hand."""
    if not isinstance(item, dict):
        raise ValueError(f"{where}: an entry is an object; it was {item!r}")
    kernel, options = item.get("kernel", "triton"), item.get("options", [])
    if not isinstance(kernel, str) or kernel not in _KERNELS:
        raise ValueError(f"{where}: kernel is one of {', '.join(_KERNELS)}; it was {kernel!r}")
    if not isinstance(options, list) or not set(options) <= set(_KERNELS[kernel]):
        raise ValueError(f"{where}: options are some of {', '.join(_KERNELS[kernel])}; they were {options!r}")
    values = {name: value for name, value in item.items() if name != "options"}
    for name, value in values.items():
        if name in _TEXTS:
            if not isinstance(value, str):
                raise ValueError(f"{where}: {name} is a text; it was {value!r}")
        elif isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ValueError(f"{where}: {name} is a whole number, not negative; it was {value!r}")
    words = {name: values.pop(name) for name in _WORDS if name in values and name != "kernel"}
    try:
        head_dim = values.pop("head_dim")
        tiles = Tiles(**values, options=tuple(options))
        entry = Entry(head_dim=head_dim, tiles=tiles, **words)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{where}: {error}") from None
    if entry.op not in OPS:
        raise ValueError(f"{where}: op is one of {', '.join(OPS)}; it was {entry.op!r}")
    if entry.backend not in ("triton", "sdpa"):
        raise ValueError(f"{where}: backend is triton or sdpa; it was {entry.backend!r}")
    if kernel == "gluon":
        _check_gluon(entry, where)
        return entry
    tiles = entry.tiles
    powers = {"block_m": tiles.block_m, "num_warps": tiles.num_warps}
    if entry.op == "self_attention":
        powers["block_n"] = tiles.block_n
    for name, value in powers.items():
        if value < 1 or value & (value - 1):
            raise ValueError(f"{where}: {name} is a power of two; it was {value}")
    return entry


def _check_gluon(entry: Entry, where: str) -> None:
    tiles = entry.tiles
    rules = {
        "op": (entry.op, ("self_attention",)),
        "head_dim": (entry.head_dim, (64,)),
        "block_m": (tiles.block_m, (64, 128, 192)),
        "block_n": (tiles.block_n, (64, 128)),
        "num_warps": (tiles.num_warps, (4,)),
        "num_stages": (tiles.num_stages, (2, 3, 4, 5, 6)),
        "max_registers": (tiles.max_registers, range(88, 241, 8)),
    }
    for name, (value, allowed) in rules.items():
        if value not in allowed:
            allowed = f"{allowed[0]} to {allowed[-1]} in steps of 8" if isinstance(allowed, range) else allowed
            raise ValueError(f"{where}: with kernel gluon {name} is one of {allowed}; it was {value!r}")
