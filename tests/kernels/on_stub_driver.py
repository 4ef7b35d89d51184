"""Launches through plans, on a driver that does nothing; run by test_plan.py in a process that does not interpret."""

import ctypes
import threading
import warnings

import pytest
import torch
from triton import knobs
from triton.runtime import driver

from attnmod.kernels import cross_attention as cross
from attnmod.kernels import ops, plan, tile_table
from attnmod.kernels import self_attention as own
from benchmarks.stub_driver import stub_gpu


@pytest.fixture(scope="module")
def library():
    with stub_gpu() as library, torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "attnmod: nobody has measured")
        yield library


@pytest.fixture(autouse=True)
def launches(library, monkeypatch):
    """How many launches have reached the driver; every test begins without plans."""
    monkeypatch.setattr(own, "_plans", plan.Plans())
    monkeypatch.setattr(cross, "_plans", plan.Plans())
    counter = ctypes.c_long.in_dll(library, "launches")
    before = counter.value
    return lambda: counter.value - before


def projected(length: int = 16, heads: int = 2, padding: int = 0) -> torch.Tensor:
    """[2, heads, length, 64] as a view of a projection, whose rows may be padded."""
    storage = torch.zeros(2, length, heads * 64 + padding, dtype=torch.float16)
    return storage[:, :, : heads * 64].unflatten(2, (heads, 64)).transpose(1, 2)


def unaligned() -> torch.Tensor:
    return torch.zeros(2 * 16 * 128 + 1, dtype=torch.float16)[1:].view(2, 16, 2, 64).transpose(1, 2)


def attend(q=None, k=None, tau=None):
    q = projected() if q is None else q
    k = projected() if k is None else k
    return ops.trusted_self_attention(q, k, k, torch.ones(2) if tau is None else tau, backend="triton")


def attend_to_text(**options):
    k = projected(20)
    bits = torch.ones(2, 20, dtype=torch.int32)
    return ops.trusted_cross_attention(projected(), k, k, entity_bits=bits, **options, backend="triton")


@pytest.fixture
def triton_is_out_of_reach(monkeypatch):
    """From the call of this on a launch through Triton is an error."""

    def forbid() -> None:
        def run(self, *arguments, **options):
            raise AssertionError("the launch went through Triton")

        monkeypatch.setattr(type(own._self_attention_kernel), "run", run)

    return forbid


OWNER = torch.zeros(2, 16, dtype=torch.int8)


@pytest.mark.parametrize(
    "call",
    [attend, lambda: attend_to_text(owner=OWNER), lambda: attend_to_text(share_heads=True, return_affinity=True)],
    ids=["self", "owner", "swept"],
)
def test_the_second_launch_is_made_by_the_plan(call, launches, triton_is_out_of_reach):
    call()
    assert launches() == 1
    triton_is_out_of_reach()
    call()
    assert launches() == 2


def test_a_plan_launches_what_triton_would():
    """The same grid, kernel and arguments, of which the pointers are given as numbers."""
    attend_to_text(owner=OWNER)
    (known,) = cross._plans._plans.values()
    seen = []
    known.run = lambda *arguments: seen.append(arguments)
    q, k, bits = projected(), projected(20), torch.ones(2, 20, dtype=torch.int32)
    options = {"entity_bits": bits, "owner": OWNER, "scale": 0.3}
    (out,) = ops.trusted_cross_attention(q, k, k, **options, backend="triton")
    launch = cross.describe_cross_attention(
        q=q, k=k, v=k, **options, out=out, affinity=None, log_weights=None, hidden_weight=None, share_heads=False,
        renormalize=True, owner_out=None, affinity_out=None,
    )  # fmt: skip
    expected = [launch.arguments[name] for name in launch.kernel.arg_names]
    expected = [value.data_ptr() if isinstance(value, torch.Tensor) else value for value in expected]
    kernel = known.compiled
    assert seen == [(*launch.grid, 0, kernel.function, kernel.packed_metadata, None, None, None, *expected)]


@pytest.mark.parametrize(
    "other",
    [
        lambda: attend(q=projected(padding=64)),
        lambda: attend(k=projected(17)),
        lambda: attend(k=projected()[:, :, :9]),
        lambda: attend(q=projected(length=17)),
        lambda: attend(q=unaligned()),
        lambda: attend(tau=torch.ones(2, 2)),
        lambda: attend(q=projected().float(), k=projected().float()),
        lambda: ops.trusted_self_attention(projected(), projected(), projected(), backend="triton"),
    ],
    ids=["strides", "keys", "fewer keys", "queries", "alignment", "temperature", "dtype", "none"],
)
def test_what_decides_the_kernel_makes_another_plan(other, launches):
    attend()
    other()
    assert len(own._plans) == 2
    other()
    attend()
    assert len(own._plans) == 2
    assert launches() == 4


def test_an_unaligned_pointer_gets_a_kernel_that_expects_it():
    attend()
    attend(q=unaligned())
    aligned, odd = own._plans._plans.values()
    assert aligned.compiled is not odd.compiled


def test_the_scale_is_no_part_of_the_key(launches):
    q = projected()
    for scale in (0.1, 0.2, 1):  # a whole number, too
        ops.trusted_self_attention(q, q, q, scale=scale, backend="triton")
    assert len(own._plans) == 1
    assert launches() == 3


def test_a_changed_table_makes_another_plan(monkeypatch):
    attend()
    table = tile_table.table()
    monkeypatch.setattr(table, "entries", dict(table.entries))
    monkeypatch.setattr(table, "generation", table.generation)
    entry = tile_table.Entry("self_attention", "sm_90", 64, "short", tile_table.Tiles(16, 32, 4, 1))
    table.install([entry])
    attend()
    before, after = own._plans._plans.values()
    assert before.grid != after.grid or before.compiled is not after.compiled


@pytest.mark.parametrize("whole", [True, False])
def test_a_cleared_cache_of_triton_makes_another_plan(whole, launches):
    attend()
    (before,) = own._plans._plans.values()
    (before.caches if whole else before.cache[0]).clear()
    attend()
    (after,) = own._plans._plans.values()
    assert after is not before
    assert launches() == 2


def test_plans_are_bounded_in_number(monkeypatch, launches):
    monkeypatch.setattr(plan, "LIMIT", 3)
    for length in range(16, 22):
        attend(q=projected(length))
    assert len(own._plans) == 3
    assert launches() == 6


def test_the_launch_goes_to_the_current_stream(monkeypatch):
    attend()
    (known,) = own._plans._plans.values()
    streams = []
    known.run = lambda x, y, z, stream, *rest: streams.append(stream)
    for stream in (7, 0):
        monkeypatch.setattr(driver.active, "get_current_stream", lambda device, stream=stream: stream)
        attend()
    assert streams == [7, 0]


def test_a_profiler_s_hooks_see_every_launch(launches, monkeypatch):
    attend()
    seen = []

    def hook(*arguments):
        seen.append(arguments)

    chain = knobs.runtime.launch_enter_hook
    if hasattr(chain, "add"):
        chain.add(hook)
    else:
        monkeypatch.setattr(knobs.runtime, "launch_enter_hook", hook)
    attend()
    if hasattr(chain, "remove"):
        chain.remove(hook)
    assert len(seen) == 1
    assert launches() == 2


def test_where_triton_is_not_as_expected_it_says_so_once_and_launches(monkeypatch, launches):
    def unexpected(self, launch, compiled):
        raise AttributeError("no such thing")

    monkeypatch.setattr(plan.Plan, "__init__", unexpected)
    with pytest.warns(UserWarning, match="insides are not as expected .AttributeError: no such thing."):
        attend()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attend()
    assert launches() == 2
    assert len(own._plans) == 0


def test_threads_share_plans(launches, monkeypatch):
    monkeypatch.setattr(plan, "LIMIT", 2)  # so that some are thrown out while others are looked up
    failures = []

    def work() -> None:
        try:
            with torch.no_grad():
                for turn in range(30):
                    attend(q=projected(16 + turn % 3))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert launches() == 120
    assert len(own._plans) <= 2


def test_a_mode_sees_the_op(launches):
    from torch.utils._python_dispatch import TorchDispatchMode

    class Recording(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
            called.append(function.overloadpacket.__name__)
            return function(*arguments, **(keywords or {}))

    called = []
    with Recording():
        attend()
    assert called.count("self_attention") == 1
    assert launches() == 1


def test_the_short_way_passes_by_the_dispatcher(monkeypatch):
    def unused(*arguments):
        raise AssertionError("the dispatcher was asked")

    monkeypatch.setattr(torch.ops.attnmod, "self_attention", unused)
    attend()
    with pytest.raises(AssertionError, match="the dispatcher was asked"), torch.device("cpu"):  # a function mode
        attend()


def test_gradients_are_refused_on_the_short_way_too():
    q = projected().clone().requires_grad_()
    with torch.enable_grad(), pytest.raises(ValueError, match="q requires grad"):
        attend(q=q)


# Four descriptors and a temperature: each descriptor is followed by its sizes and strides.
DESCRIPTORS = {"q": 0, "k": 9, "v": 18, "out": 28}


@pytest.fixture
def descriptors(library):
    """What the last launch was given for each of the four."""
    ctypes.c_int.in_dll(library, "asked_for").value = len(DESCRIPTORS)
    (ctypes.c_int * 8).in_dll(library, "asked")[: len(DESCRIPTORS)] = list(DESCRIPTORS.values())
    maps = (ctypes.c_uint64 * 16 * 8).in_dll(library, "launched")
    yield lambda: {name: list(maps[i]) for i, name in enumerate(DESCRIPTORS)}
    ctypes.c_int.in_dll(library, "asked_for").value = 0


@pytest.fixture(params=[(), ("persistent", "steady")], ids=["shipped", "persistent"])
def hopper_tiles(request, monkeypatch):
    """The table prefers a Gluon kernel."""
    tiles = tile_table.Tiles(128, 64, 4, 2, max_registers=160, options=request.param, kernel="gluon")
    table = tile_table.table()
    monkeypatch.setattr(table, "entries", dict(table.entries))
    monkeypatch.setattr(table, "generation", table.generation)
    measured = f"a card, Triton {tile_table.triton_version()}"
    table.install([tile_table.Entry("self_attention", "sm_90", 64, "short", tiles, measured=measured)])
    return tiles


def described(x: torch.Tensor, rows: int) -> list[int]:
    """A descriptor of [B, length, H, D], innermost first."""
    batch, heads, length, head_dim = x.shape
    strides = [2 * x.stride(i) for i in (1, 2, 0)]
    return [x.data_ptr(), 4, head_dim, heads, length, batch, 0, *strides, 0, head_dim, 1, rows, 1, 0]


def test_descriptors_of_a_plan(hopper_tiles, descriptors, triton_is_out_of_reach, launches):
    """Of other addresses than the plan was made with, and of strides of their own."""
    attend(projected(100), projected(70))
    triton_is_out_of_reach()
    for _ in range(2):
        q, k = projected(100), projected(70)
        out = attend(q, k)
        assert descriptors() == {
            "q": described(q, 64), "k": described(k, 64), "v": described(k, 64), "out": described(out, 64),
        }  # fmt: skip
    assert launches() == 3
    assert len(own._plans) == 1


def test_what_a_descriptor_cannot_say_goes_to_triton_s_kernel(hopper_tiles):
    attend(projected(100))
    attend(unaligned())
    attend(projected().expand(2, 2, 16, 64)[:, :1].expand(2, 2, 16, 64))
    ops.trusted_self_attention(*[projected().float()] * 3, backend="triton")
    hopper, *others = own._plans._plans.values()
    assert hopper.descriptors
    assert len(others) == 3
    assert not any(other.descriptors for other in others)


def test_many_addresses_do_not_add_up(hopper_tiles, monkeypatch):
    monkeypatch.setattr(plan, "LIMIT", 3)
    tensors = [projected() for _ in range(8)]
    for q in tensors:
        attend(q)
    (known,) = own._plans._plans.values()
    assert 1 <= len(known.descriptors[0].ready) <= 3
