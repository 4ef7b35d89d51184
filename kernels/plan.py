"""Launches made once: what Triton works out anew at every call is worked out at the first and kept.

A launch through `kernel[grid](...)` binds and inspects every argument to find the compiled kernel that fits: some 20
microseconds of host time, for kernels that run for 8. All of it follows from shapes, strides, dtypes, alignments and
options, so those are the key of a plan. The plan holds the compiled kernel, its grid and all arguments but the pointers
and the scale, and goes straight to the launcher of Triton's own backend, on the current stream, also under graph
capture.

A descriptor, by which Hopper's copies address a tensor, is made once for every address that it has: four of them are
most of the host time of a launch through Triton.

A plan is used only while Triton's own cache still holds its kernel, and never while launches are hooked, as by a
profiler: then the launch goes through Triton as ever. Plans live in memory alone, so none meets another Triton. Where
Triton's insides are not as expected (3.6 and 3.9 were looked at), a warning says so once and launches go through it.
"""

import copy
import threading
import warnings
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from triton import knobs
from triton.runtime import driver

# Kinds of call that are remembered: SDXL has a handful for each size of picture.
LIMIT = 512


@dataclass(frozen=True)
class Launch:
    """A kernel, its grid, and its arguments by name: the pointers or descriptors first, as in every kernel here."""

    kernel: Any
    grid: tuple[int, int, int]
    arguments: dict[str, Any]


class Plan:
    """A launch without its pointers and its scale."""

    __slots__ = (
        "after",
        "before",
        "cache",
        "cached_as",
        "caches",
        "compiled",
        "descriptors",
        "device",
        "driver",
        "function",
        "grid",
        "hooks",
        "metadata",
        "pointers",
        "run",
    )

    def __init__(self, launch: Launch, compiled: Any):
        """Raises AttributeError, KeyError, ValueError or TypeError where Triton's insides are not as expected."""
        self.driver = driver.active
        self.device = self.driver.get_current_device()
        self.caches = launch.kernel.device_caches
        self.cache = self.caches[self.device]
        self.cached_as = next(key for key, kernel in self.cache[0].items() if kernel is compiled)
        self.hooks = launch.kernel.pre_run_hooks
        self.compiled = compiled
        self.run, self.function, self.metadata = compiled.run, compiled.function, compiled.packed_metadata
        self.grid = launch.grid
        names = launch.kernel.arg_names
        values = [launch.arguments[name] for name in names]
        self.pointers = pointers = sum(name.endswith(("_ptr", "_desc")) for name in names)
        scale = names.index("scale")
        if not all(name.endswith(("_ptr", "_desc")) for name in names[:pointers]):
            raise ValueError(f"{launch.kernel.__name__} does not begin with its pointers")
        self.before, self.after = tuple(values[pointers:scale]), tuple(values[scale + 1 :])
        self.descriptors: list[_Descriptor | None] = []
        if any(name.endswith("_desc") for name in names):
            kinds = iter(compiled.metadata.tensordesc_meta)
            self.descriptors = [
                _Descriptor(value, next(kinds)) if name.endswith("_desc") else None
                for name, value in zip(names[:pointers], values[:pointers], strict=True)
            ]
            self.run = _without_descriptors(self.run)

    def start(self, pointers: tuple[int | None, ...], scale: float) -> bool:
        """Launch, or say that Triton must: its cache was cleared, or launches are watched."""
        if self.caches.get(self.device) is not self.cache or self.cache[0].get(self.cached_as) is not self.compiled:
            return False
        if self.hooks or _is_watched():
            return False
        stream = self.driver.get_current_stream(self.device)
        given: Any = pointers[: self.pointers]
        if self.descriptors:
            addresses, given = given, []
            for address, descriptor in zip(addresses, self.descriptors, strict=True):
                given += (address,) if descriptor is None else descriptor.at(address)
        arguments = (*given, *self.before, scale, *self.after)
        self.run(*self.grid, stream, self.function, self.metadata, None, None, None, *arguments)
        return True


class _Descriptor:
    """What Triton's launcher makes of a descriptor, for every address that it has had."""

    __slots__ = ("kind", "ready", "template")

    def __init__(self, template: Any, kind: Any):
        self.template, self.kind = template, kind
        self.ready: dict[int, tuple] = {}

    def at(self, address: int) -> tuple:
        found = self.ready.get(address)
        if found is None:
            from triton.backends.nvidia.driver import make_tensordesc_arg as make

            moved = copy.copy(self.template)
            moved.base = SimpleNamespace(data_ptr=lambda: address)
            # Triton 3.9 hands over what stands before the kernel's own arguments, and does not look at it
            given = (moved, self.kind, None)[: make.__code__.co_argcount]
            found = tuple(make(*given))
            if len(self.ready) >= LIMIT:
                self.ready.clear()
            self.ready[address] = found
        return found


def _without_descriptors(run: Any) -> Any:
    """Triton's launcher, without the step that makes its descriptors anew at every launch."""
    launcher = copy.copy(run)
    cells = dict(zip(run.launch.__code__.co_freevars, run.launch.__closure__, strict=True))
    launcher.launch = cells["launcher"].cell_contents
    return launcher


class Plans:
    """The plans of one op, at most LIMIT; safe to use from several threads."""

    def __init__(self):
        self._plans: dict[tuple, Plan] = {}
        self._lock = threading.Lock()
        self._unexpected = False

    def __len__(self) -> int:
        return len(self._plans)

    def launch(self, key: tuple, pointers: tuple[int | None, ...], scale: float) -> bool:
        """Launch by the plan of this key; False where there is none that holds.

        Args:
            key: everything that decides which kernel is compiled and which arguments it gets, but pointers and scale.
            pointers: addresses on the current device in the kernel's order, None for a tensor that is left out; a
                kernel takes as many of them as it has pointers.
            scale: the kernel's argument of that name.
        """
        plan = self._plans.get(key)
        return plan is not None and plan.start(pointers, float(scale))

    def make(self, key: tuple, launch: Launch) -> None:
        """Launch as Triton does, and keep a plan for the next call of this key."""
        compiled = launch.kernel[launch.grid](**launch.arguments)
        if compiled is not None and not self._unexpected and not _is_watched():  # interpreted kernels return nothing
            self._keep(key, launch, compiled)

    def _keep(self, key: tuple, launch: Launch, compiled: Any) -> None:
        if driver.active.get_current_target().backend != "cuda":
            return  # on AMD the size of a tensor's storage takes part in choosing the kernel
        try:
            plan = Plan(launch, compiled)
        except (AttributeError, KeyError, TypeError, ValueError, StopIteration) as error:
            self._unexpected = True
            warnings.warn(
                f"attnmod: this Triton's insides are not as expected ({type(error).__name__}: {error}); launches go"
                " through Triton and cost some 20 microseconds each",
                UserWarning,
                stacklevel=2,
            )
            return
        with self._lock:
            while len(self._plans) >= LIMIT:
                del self._plans[next(iter(self._plans))]
            self._plans[key] = plan


def alignment(pointers: tuple[int | None, ...]) -> tuple[bool, ...] | None:
    """Which pointers are no multiples of 16, of which Triton compiles a kernel of their own; None where all are."""
    together = 0
    for pointer in pointers:
        if pointer is not None:
            together |= pointer
    return None if together % 16 == 0 else tuple(bool(pointer and pointer % 16) for pointer in pointers)


def _is_watched() -> bool:
    """Whether a launch has hooks. Where there may be several of them they are a chain, which is there when empty."""
    enter, leave = knobs.runtime.launch_enter_hook, knobs.runtime.launch_exit_hook
    return bool(getattr(enter, "calls", enter is not None) or getattr(leave, "calls", leave is not None))
