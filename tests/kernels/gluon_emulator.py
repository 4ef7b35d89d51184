"""Runs kernels written in Gluon on a CPU: Triton's own interpreter cannot.

Values are torch tensors. Every partition of `warp_specialize` is a thread, one of which runs at a time; which, a seeded
draw decides at every barrier, copy and product. Copies by TMA come about in pieces, some time after they are issued.
So what a kernel must not rely on differs from seed to seed, and what it does wrong is an error that says so:

- Deadlock: nothing can go on; told with what each partition waits for.
- Hazard: shared memory that is read while a copy is writing it, or written while a product or a copy is reading it;
  what ordinary stores wrote and the copy engine reads without a fence; a product's result before its wait; more
  arrivals at a barrier than it was made for; copies that nobody waited for at the end.

Layouts and registers are the compiler's business, and left out. Only what the kernels of this project use is there.
"""

import ast
import math
import random
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from attnmod.kernels.plan import Launch


class Value(Tensor):
    """A tensor that has no layout."""

    type = SimpleNamespace(layout=None)


class Deadlock(Exception):
    pass


class Hazard(Exception):
    pass


class _Stopped(BaseException):
    """Unwinds a partition after another has failed."""


@dataclass(eq=False)
class Descriptor:
    """A tensor as the copy engine addresses it: blocks of block_shape; what lies outside reads as zero."""

    tensor: Tensor
    block_shape: list[int]
    layout: Any = None

    @property
    def dtype(self) -> torch.dtype:
        return self.tensor.dtype


@dataclass(frozen=True)
class Pointer:
    memory: Tensor
    offset: int = 0

    def __add__(self, offset) -> "Pointer":
        return Pointer(self.memory, self.offset + int(offset))


@dataclass(eq=False)
class _Barrier:
    count: int
    pending: int
    fenced: bool = False
    phase: int = 0
    bytes: int = 0

    def arrive(self, count: int) -> None:
        self.pending -= count
        if self.pending < 0:
            raise Hazard(f"{count} arrivals at a barrier of {self.count}, whose phase {self.phase} lacked fewer")
        self.turn()

    def turn(self) -> None:
        if self.pending == 0 and self.bytes == 0:
            self.phase, self.pending = self.phase + 1, self.count


@dataclass(eq=False)
class _Use:
    """What is being done with a stretch of an allocation: who, and whether it writes."""

    memory: "_Memory"
    start: int
    stop: int
    writes: bool
    who: str

    def overlaps(self, other: "_Use") -> bool:
        return self.memory is other.memory and self.start < other.stop and other.start < self.stop


@dataclass(eq=False)
class _Memory:
    values: Tensor
    barriers: dict[int, _Barrier] = field(default_factory=dict)


class Shared:
    """A view of shared memory."""

    def __init__(self, program: "_Program", memory: _Memory, view: Tensor):
        self._program, self._memory, self.view = program, memory, view
        self.shape, self.dtype = list(view.shape), view.dtype

    def index(self, index) -> "Shared":
        if not 0 <= int(index) < self.shape[0]:
            raise Hazard(f"index {int(index)} of {self.shape[0]} buffers")
        return self._like(self.view[int(index)])

    def slice(self, start, length) -> "Shared":
        return self._like(self.view[start : start + length])

    def permute(self, order) -> "Shared":
        return self._like(self.view.permute(*order))

    def reshape(self, shape) -> "Shared":
        return self._like(self.view.view(*shape))

    def load(self, layout=None) -> Tensor:
        self._program.check(self.use("a load", writes=False))
        return self.view.clone()

    def store(self, value: Tensor) -> None:
        use = self.use("a store", writes=True)
        self._program.check(use)
        assert value.dtype == self.dtype, (value.dtype, self.dtype)
        assert value.shape == self.view.shape, (value.shape, self.view.shape)
        self.view.copy_(value)
        self._program.unfenced.append((threading.current_thread(), use))

    def use(self, what: str, writes: bool) -> _Use:
        start = self.view.storage_offset()
        who = f"{what} of {threading.current_thread().name}"
        return _Use(self._memory, start, start + self.view.numel(), writes, who)

    @property
    def barrier(self) -> _Barrier:
        try:
            return self._memory.barriers[self.view.storage_offset()]
        except KeyError:
            raise Hazard("a barrier that was never made") from None

    def make_barrier(self, count: int) -> None:
        self._memory.barriers[self.view.storage_offset()] = _Barrier(count, count)

    def _like(self, view: Tensor) -> "Shared":
        return Shared(self._program, self._memory, view)


@dataclass(eq=False)
class _Product:
    """A product under way; its value is there after the wait."""

    compute: Callable[[], Tensor]
    use: list[_Use]
    owner: threading.Thread
    value: Tensor | None = None


@dataclass(eq=False)
class _Partition:
    thread: threading.Thread
    go: threading.Semaphore
    ready: Callable[[], bool] = lambda: True
    waits_for: str = ""
    done: bool = False


class _Speeds(dict):
    """How fast a partition or a copy is: some are left behind by all others."""

    def __init__(self, draw: random.Random):
        self._draw = draw

    def __missing__(self, key) -> float:
        self[key] = self._draw.choice((1.0, 0.2, 0.01))
        return self[key]


class _Program:
    """One program of the grid: its shared memory, and what is under way in it."""

    def __init__(self, ids: tuple[int, int, int], seed: int):
        self.ids, self._draw = ids, random.Random(seed)
        self.unfenced: list[tuple[threading.Thread, _Use]] = []
        self._uses: list[_Use] = []
        self._copies: list[Any] = []  # generators: each step is a piece
        self._products: list[_Product] = []
        self._stores: list[tuple[threading.Thread, Any]] = []
        self._memories: list[_Memory] = []
        self._partitions: list[_Partition] = []
        self._speeds: dict[Any, float] = _Speeds(self._draw)
        self._control = threading.Semaphore(0)
        self._error: BaseException | None = None

    # what the kernel's functions come to

    def allocate(self, dtype: torch.dtype, shape) -> Shared:
        values = torch.full(tuple(int(n) for n in shape), -1 if not dtype.is_floating_point else torch.nan, dtype=dtype)
        self._memories.append(_Memory(values))
        return Shared(self, self._memories[-1], values)

    def check(self, use: _Use) -> None:
        for other in self._uses:
            if use.overlaps(other) and (use.writes or other.writes):
                raise Hazard(f"{use.who} meets {other.who}, which is under way")

    def begin(self, use: _Use) -> _Use:
        self.check(use)
        self._uses.append(use)
        return use

    def fence(self) -> None:
        own = threading.current_thread()
        self.unfenced = [(thread, use) for thread, use in self.unfenced if thread is not own]
        for memory in self._memories:
            for barrier in memory.barriers.values():
                barrier.fenced = True

    def load(self, descriptor: Descriptor, coordinates, barrier: Shared, buffer: Shared, pred=True) -> None:
        if not pred:
            return
        assert buffer.shape == list(descriptor.block_shape), (buffer.shape, descriptor.block_shape)
        assert buffer.dtype == descriptor.dtype
        if not barrier.barrier.fenced:
            raise Hazard("a copy signals a barrier that the copy engine has not been shown by a fence")
        use = self.begin(buffer.use("a copy", writes=True))
        buffer.view.fill_(torch.nan)  # whatever is there meanwhile
        block = _block(descriptor, coordinates)
        self._copies.append(self._arrives(block, buffer.view, barrier.barrier, use))
        self.pause()

    def _arrives(self, block: Tensor, view: Tensor, barrier: _Barrier, use: _Use):
        flat, source = view.view(-1), block.reshape(-1)
        half = flat.numel() // 2
        for piece in (slice(0, half), slice(half, None)):
            flat[piece] = source[piece]
            if piece.stop is None:
                self._uses.remove(use)
            barrier.bytes -= source[piece].numel() * source.element_size()
            barrier.turn()
            if piece.stop is not None:
                yield

    def save(self, descriptor: Descriptor, coordinates, buffer: Shared) -> None:
        assert buffer.shape == list(descriptor.block_shape), (buffer.shape, descriptor.block_shape)
        use = buffer.use("a copy to the tensor", writes=False)
        for _, written in self.unfenced:
            if use.overlaps(written):
                raise Hazard(f"{written.who} is not fenced from {use.who}")
        copy = self._leaves(descriptor, [int(c) for c in coordinates], buffer.view, self.begin(use))
        self._copies.append(copy)
        self._stores.append((threading.current_thread(), copy))
        self.pause()

    def _leaves(self, descriptor: Descriptor, coordinates: list[int], view: Tensor, use: _Use):
        yield
        outside, inside = _inside(descriptor, coordinates, view.shape)
        descriptor.tensor[outside] = view[inside]
        self._uses.remove(use)

    def wait_for_stores(self, pending: int) -> None:
        own = [copy for thread, copy in self._stores if thread is threading.current_thread()]
        must = own[: len(own) - pending]
        self.pause(lambda: not any(copy in self._copies for copy in must), "its copies to the tensor")

    def multiply(self, a, b: Shared, acc: Tensor, use_acc: bool, is_async: bool):
        operands = [x for x in (a, b) if isinstance(x, Shared)]
        uses = [self.begin(x.use("a product", writes=False)) for x in operands]
        for use in uses:
            if any(use.overlaps(written) for _, written in self.unfenced):
                raise Hazard("a product reads what was stored without a fence")

        def compute() -> Tensor:
            left, right = (x.view if isinstance(x, Shared) else x for x in (a, b))
            assert left.dtype == right.dtype, (left.dtype, right.dtype)
            result = left.float() @ right.float()
            return (result + acc if use_acc else result).as_subclass(Value)

        if isinstance(acc, _Product):
            raise Hazard("a product adds to a result that is still under way")
        product = _Product(compute, uses, threading.current_thread())
        self._products.append(product)
        self.pause()
        return product if is_async else self.wait_for_products(0, (product,))

    def wait_for_products(self, outstanding: int, deps: tuple):
        self.pause()
        own = [product for product in self._products if product.owner is threading.current_thread()]
        for product in own[: len(own) - outstanding]:
            product.value = product.compute()
            for use in product.use:
                self._uses.remove(use)
            self._products.remove(product)
        if any(isinstance(x, _Product) and x.value is None for x in deps):
            raise Hazard("a result is taken while its product is under way")
        results = tuple(x.value if isinstance(x, _Product) else x for x in deps)
        return results[0] if len(results) == 1 else results

    # who runs

    def run(self, function: Callable[[], None]) -> None:
        self._start([function])
        self._schedule()
        if self._copies or self._products:
            raise Hazard("the program ends before its copies or products")

    def specialize(self, functions: list[tuple[Callable, tuple]]) -> None:
        started = self._start([lambda f=f, a=a: f(*a) for f, a in functions])
        self.pause(lambda: all(partition.done for partition in started), "its partitions")

    def pause(self, ready: Callable[[], bool] = lambda: True, what: str = "") -> None:
        own = next(p for p in self._partitions if p.thread is threading.current_thread())
        own.ready, own.waits_for = ready, what
        self._control.release()
        own.go.acquire()
        if self._error is not None:
            raise _Stopped

    def _start(self, functions: list[Callable[[], None]]) -> list[_Partition]:
        started = []
        for function in functions:
            name = f"partition {len(self._partitions) + len(started)}"
            partition = _Partition(threading.Thread(name=name, daemon=True), threading.Semaphore(0))
            partition.thread.run = lambda f=function, p=partition: self._live(f, p)  # type: ignore[method-assign]
            started.append(partition)
        self._partitions += started
        for partition in started:
            partition.thread.start()
        return started

    def _live(self, function: Callable[[], None], partition: _Partition) -> None:
        partition.go.acquire()
        try:
            if self._error is None:
                function()
                if any(copy in self._copies for thread, copy in self._stores if thread is partition.thread):
                    raise Hazard(f"{partition.thread.name} ends before its copies to the tensor")
        except _Stopped:
            pass
        except BaseException as error:
            self._error = self._error or error
        partition.done = True
        self._control.release()

    def _schedule(self) -> None:
        while True:
            living = [p for p in self._partitions if not p.done]
            if self._error is not None:
                for partition in living:
                    partition.go.release()
                    self._control.acquire()
                raise self._error
            if not living:
                return
            options: list[Any] = [p for p in living if p.ready()] + self._copies
            if not options:
                self._error = Deadlock("; ".join(f"{p.thread.name} waits for {p.waits_for}" for p in living))
                continue
            chosen = self._draw.choices(options, [self._speeds[option] for option in options])[0]
            if isinstance(chosen, _Partition):
                chosen.go.release()
                self._control.acquire()
            else:
                self._piece(chosen)

    def _piece(self, copy) -> None:
        try:
            next(copy)
        except StopIteration:
            self._copies.remove(copy)
        except Exception as error:
            self._error = error


def _block(descriptor: Descriptor, coordinates) -> Tensor:
    block = torch.zeros(tuple(descriptor.block_shape), dtype=descriptor.dtype)
    outside, inside = _inside(descriptor, [int(c) for c in coordinates], block.shape)
    block[inside] = descriptor.tensor[outside]
    return block


def _inside(descriptor: Descriptor, coordinates: list[int], block) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """The part of a block that is in the tensor: where in the tensor, and where in the block."""
    sizes = [max(0, min(b, n - c)) for b, n, c in zip(block, descriptor.tensor.shape, coordinates, strict=True)]
    starts = [c if size else 0 for c, size in zip(coordinates, sizes, strict=True)]
    return (
        tuple(slice(start, start + size) for start, size in zip(starts, sizes, strict=True)),
        tuple(slice(0, size) for size in sizes),
    )


def emulate(launch: Launch, seed: int, text: str | None = None) -> None:
    """Every program of the launch, one after the other. text stands in for the source of the kernel's module."""
    module = sys.modules[launch.kernel.__module__]
    assert module.__file__ is not None
    tree = ast.parse(text or Path(module.__file__).read_text(encoding="utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.decorator_list]
    for node in functions:
        node.decorator_list = []
        for argument in node.args.args:
            argument.annotation = None
    code = compile(ast.Module(functions, []), module.__file__, "exec")
    constants = {name: getattr(value, "value", value) for name, value in vars(module).items()}
    arguments = {name: _emulated(launch.arguments[name]) for name in launch.kernel.arg_names}
    for number in range(math.prod(launch.grid)):
        x, y, _ = launch.grid
        program = _Program((number % x, number // x % y, number // x // y), seed * 1_000_003 + number)
        names = constants | _language(program)
        exec(code, names)
        program.run(lambda kernel=names[launch.kernel.__name__]: kernel(**arguments))


def _emulated(argument: Any) -> Any:
    if isinstance(argument, TensorDescriptor):
        tensor = torch.as_strided(argument.base, argument.shape, argument.strides)
        return Descriptor(tensor, list(argument.block_shape))
    return Pointer(argument) if isinstance(argument, Tensor) else argument


def _language(program: _Program) -> dict[str, Any]:
    """What a kernel's module imports."""

    def wait(bar: Shared, phase, pred=True) -> None:
        barrier, parity = bar.barrier, int(phase)
        if pred:
            program.pause(lambda: barrier.phase & 1 != parity, f"parity {parity} of a barrier in phase {barrier.phase}")

    def expect(bar: Shared, count, pred=True) -> None:
        if pred:
            bar.barrier.bytes += int(count)
            bar.barrier.arrive(1)

    def arrive(bar: Shared, *, count=1, pred=True) -> None:
        program.pause()
        if pred:
            bar.barrier.arrive(count)

    layouts = ("NVMMADistributedLayout", "DotOperandLayout", "SliceLayout", "BlockedLayout", "SwizzledSharedLayout")
    gl = SimpleNamespace(
        **dict.fromkeys(layouts, lambda *given: None),
        NVMMASharedLayout=SimpleNamespace(get_default_for=lambda *given: None),
        float16=torch.float16,
        bfloat16=torch.bfloat16,
        float32=torch.float32,
        int32=torch.int32,
        int64=torch.int64,
        full=lambda shape, value, dtype, layout=None: torch.full(tuple(shape), int(value), dtype=dtype),
        static_range=range,
        program_id=lambda axis: torch.tensor(program.ids[axis]),
        load=lambda pointer: pointer.memory.view(-1)[pointer.offset],
        cast=lambda value, dtype: torch.as_tensor(value, dtype=dtype),
        arange=lambda start, stop, layout=None: torch.arange(start, stop),
        zeros=lambda shape, dtype, layout=None: torch.zeros(*shape, dtype=dtype).as_subclass(Value),
        where=lambda condition, a, b: torch.where(torch.as_tensor(condition), a, b),
        minimum=lambda a, b: torch.minimum(torch.as_tensor(a), torch.as_tensor(b)),
        exp2=torch.exp2,
        max=lambda x, axis: x.amax(axis),
        sum=lambda x, axis: x.sum(axis),
        maximum=lambda a, b: torch.maximum(a, torch.as_tensor(b, dtype=a.dtype)),
        convert_layout=lambda value, layout: value,
        allocate_shared_memory=lambda dtype, shape, layout=None: program.allocate(dtype, shape),
        warp_specialize=lambda functions, warps, registers: program.specialize(functions),
    )
    return {
        "gl": gl,
        "mbarrier": SimpleNamespace(
            MBarrierLayout=lambda: None,
            init=lambda bar, count: bar.make_barrier(count),
            wait=wait,
            expect=expect,
            arrive=arrive,
        ),
        "tma": SimpleNamespace(store_wait=program.wait_for_stores),
        "_load": program.load,
        "_store": program.save,
        "_barrier": program.pause,
        "fence_async_shared": program.fence,
        "warpgroup_mma": lambda a, b, acc, *, use_acc=True, is_async=False: program.multiply(
            a, b, acc, use_acc, is_async
        ),
        "warpgroup_mma_wait": lambda outstanding=0, deps=(): program.wait_for_products(outstanding, deps),
    }
