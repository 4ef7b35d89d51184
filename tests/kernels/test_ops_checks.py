"""What bad input gets: a ValueError or TypeError that names the argument, what it was and what is allowed."""

import re

import pytest
import torch

from attnmod.kernels import ops
from attnmod.kernels.ops import available_backends, cross_attention, self_attention

NAN, INF = float("nan"), float("inf")
OPS = pytest.mark.parametrize("op", [self_attention, cross_attention], ids=["self", "cross"])


@pytest.fixture
def good():
    """q [2, 3, 5, 8], k and v [2, 3, 7, 8]."""
    return {"q": torch.randn(2, 3, 5, 8), "k": torch.randn(2, 3, 7, 8), "v": torch.randn(2, 3, 7, 8)}


def raises(kind, *words):
    """The error says every one of the words, in this order."""
    return pytest.raises(kind, match="(?s)" + ".*".join(re.escape(str(word)) for word in words))


@OPS
@pytest.mark.parametrize("name", ["q", "k", "v"])
def test_operands_are_tensors_of_a_known_dtype(op, name, good):
    with raises(TypeError, name, "tensor", "list"):
        op(**good | {name: [1.0]})
    with raises(TypeError, name, "float16", "float64"):
        op(**good | {name: good[name].double()})
    with raises(TypeError, name, "int32"):
        op(**good | {name: good[name].int()})


@OPS
@pytest.mark.parametrize("name", ["q", "k", "v"])
def test_operands_have_four_axes(op, name, good):
    with raises(ValueError, name, "[B, H,", "[3, "):
        op(**good | {name: good[name][0]})


@OPS
def test_operands_agree(op, good):
    with raises(TypeError, "k", "float32", "float16"):
        op(**good | {"k": good["k"].half()})
    with raises(ValueError, "v", "as many tokens as k", 7, 6):
        op(**good | {"v": good["v"][:, :, :6]})
    with raises(ValueError, "k", "[2, 3, T, 8]", "[2, 2, 7, 8]"):
        op(**good | {"k": good["k"][:, :2]})
    with raises(ValueError, "v", "[2, 3, T, 8]", "[2, 3, 7, 4]"):
        op(**good | {"v": good["v"][..., :4]})
    with raises(ValueError, "k", "[2, 3, T, 8]", "[1, 3, 7, 8]"):
        op(**good | {"k": good["k"][:1]})
    with raises(ValueError, "v", "device", "cpu", "meta"):
        op(**good | {"v": good["v"].to("meta")})
    with raises(ValueError, "k", "at least one token"):
        op(good["q"], good["k"][:, :, :0], good["v"][:, :, :0])


@OPS
@pytest.mark.parametrize("name", ["q", "k", "v"])
def test_the_last_dimension_is_contiguous(op, name, good):
    with raises(ValueError, name, "contiguous", "strides", "2)"):
        op(**good | {name: good[name].repeat_interleave(2, -1)[..., ::2]})


@OPS
def test_scale_and_backend(op, good):
    for scale in (0.0, -1.0, NAN, INF):
        with raises(ValueError, "scale", "above 0", scale):
            op(**good, scale=scale)
    with raises(TypeError, "scale", "number", "str"):
        op(**good, scale="1")
    with raises(ValueError, "backend", "auto, triton, sdpa, eager", "'cuda'"):
        op(**good, backend="cuda")


@pytest.mark.parametrize("tau", [0.0, -0.5, NAN, INF])
def test_temperature_values(tau, good):
    with raises(ValueError, "temperature", "above 0", tau):
        self_attention(**good, temperature=tau)
    with raises(ValueError, "temperature", "above 0", tau):
        self_attention(**good, temperature=torch.tensor([1.0, tau]))


def test_temperature_form(good):
    with raises(ValueError, "temperature", "[B] = [2] or [B, H] = [2, 3]", "[3]"):
        self_attention(**good, temperature=torch.ones(3))
    with raises(ValueError, "temperature", "[]"):
        self_attention(**good, temperature=torch.tensor(1.0))
    with raises(TypeError, "temperature", "float32", "float64"):
        self_attention(**good, temperature=torch.ones(2, dtype=torch.float64))
    with raises(ValueError, "temperature", "device", "meta"):
        self_attention(**good, temperature=torch.ones(2, device="meta"))
    with raises(TypeError, "temperature", "number", "str"):
        self_attention(**good, temperature="hot")


CONTROLS = {
    "entity_bits": torch.ones(2, 7, dtype=torch.int32),
    "affinity": torch.ones(2, 7, 3),
    "log_weights": torch.zeros(2, 7),
    "hidden_weight": torch.zeros(2),
    "owner": torch.zeros(2, 5, dtype=torch.int8),
}


@pytest.mark.parametrize("name", CONTROLS)
def test_control_tensors(name, good):
    needed = {"entity_bits": CONTROLS["entity_bits"]} if name == "affinity" else {}
    control = CONTROLS[name]
    cross_attention(**good, **needed | {name: control})
    with raises(TypeError, name, "tensor", "int"):
        cross_attention(**good, **needed | {name: 1})
    with raises(TypeError, name, "complex64"):
        cross_attention(**good, **needed | {name: control.to(torch.complex64)})
    with raises(ValueError, name, "device", "meta"):
        cross_attention(**good, **needed | {name: control.to("meta")})
    with raises(ValueError, name, "[B", [1, *control.shape[1:]]):
        cross_attention(**good, **needed | {name: control[:1]})
    with raises(ValueError, name, [*control.shape, 1]):
        cross_attention(**good, **needed | {name: control[..., None]})


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("affinity", -1.0, "not negative"),
        ("affinity", NAN, "not negative"),
        ("affinity", INF, "finite"),
        ("log_weights", INF, "finite"),
        ("log_weights", NAN, "finite"),
        ("hidden_weight", -0.1, "0 and 1"),
        ("hidden_weight", 1.5, "0 and 1"),
        ("hidden_weight", NAN, "0 and 1"),
        ("owner", -2, "-1 (nobody) and 31"),
        ("owner", 32, "-1 (nobody) and 31"),
    ],
)
def test_control_values(name, value, rule, good):
    needed = {"entity_bits": CONTROLS["entity_bits"]}
    control = CONTROLS[name].clone()
    control[1] = value
    with raises(ValueError, name, rule, str(value)[:4]):
        cross_attention(**good, **needed | {name: control})


def test_at_most_32_entities(good):
    bits = CONTROLS["entity_bits"]
    with raises(ValueError, "affinity", "1 to 32", 33):
        cross_attention(**good, entity_bits=bits, affinity=torch.ones(2, 7, 33))
    with raises(ValueError, "affinity", "1 to 32", 0):
        cross_attention(**good, entity_bits=bits, affinity=torch.ones(2, 7, 0))


def test_arguments_that_exclude_or_need_each_other(good):
    bits, affinity, owner = (CONTROLS[name] for name in ("entity_bits", "affinity", "owner"))
    with raises(ValueError, "owner", "affinity"):
        cross_attention(**good, entity_bits=bits, affinity=affinity, owner=owner)
    with raises(ValueError, "affinity", "entity_bits"):
        cross_attention(**good, affinity=affinity)
    with raises(ValueError, "share_heads", "entity_bits"):
        cross_attention(**good, share_heads=True)
    with raises(ValueError, "return_affinity", "share_heads"):
        cross_attention(**good, entity_bits=bits, return_affinity=True)
    with raises(ValueError, "return_affinity", "owner"):
        cross_attention(**good, entity_bits=bits, owner=owner, share_heads=True, return_affinity=True)
    with raises(TypeError, "share_heads", "True or False", 1):
        cross_attention(**good, entity_bits=bits, share_heads=1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_values_are_looked_at_only_when_asked(good, monkeypatch):
    good = {name: tensor.cuda() for name, tensor in good.items()}
    monkeypatch.delenv("ATTNMOD_CHECK", raising=False)
    self_attention(**good, temperature=torch.zeros(2, device="cuda"))
    monkeypatch.setenv("ATTNMOD_CHECK", "1")
    with raises(ValueError, "temperature", "above 0"):
        self_attention(**good, temperature=torch.zeros(2, device="cuda"))


@OPS
@pytest.mark.parametrize("backend", ["auto", "triton", "sdpa"])
def test_gradients_are_refused_where_there_are_none(op, backend, good, device):
    good = {name: tensor.to(device) for name, tensor in good.items()}
    good["k"].requires_grad_()
    with raises(ValueError, "k requires grad", "eager"):
        op(**good, backend=backend)
    with raises(ValueError, "k requires grad", "eager"):
        getattr(torch.ops.attnmod, op.__name__)(good["q"], good["k"], good["v"], backend=backend)
    with torch.no_grad():
        op(**good, backend=backend)


@OPS
def test_eager_has_gradients(op, good):
    for tensor in good.values():
        tensor.requires_grad_()
    op(**good, backend="eager").square().sum().backward()
    assert all(tensor.grad.isfinite().all() and tensor.grad.any() for tensor in good.values())


def test_triton_says_why_it_cannot_run(good, monkeypatch):
    monkeypatch.setattr(ops, "_triton_obstacle", lambda device: "on cpu it needs TRITON_INTERPRET=1")
    with raises(ValueError, "backend='triton'", "TRITON_INTERPRET=1", "'sdpa'"):
        self_attention(**good, backend="triton")
    assert available_backends()["triton"].endswith("TRITON_INTERPRET=1")


@pytest.mark.filterwarnings("ignore:attnmod. backend 'auto' uses sdpa")
def test_triton_names_its_limits(device):
    wide = torch.randn(1, 1, 4, 257, device=device)
    for op in (self_attention, cross_attention):
        with raises(ValueError, "backend='triton'", 256, 257):
            op(wide, wide, wide, backend="triton")
        assert op(wide, wide, wide).shape == wide.shape


def test_a_fallback_warns_once(monkeypatch):
    """`auto` on a GPU that Triton cannot serve uses sdpa and says so, one time."""
    q = torch.empty(1, 1, 1, 8, device="meta")
    monkeypatch.setattr(ops, "_triton_obstacle", lambda device: "it is a test")
    monkeypatch.setattr(torch.Tensor, "device", torch.device("cuda", 0))
    ops._warn_once.cache_clear()
    with pytest.warns(UserWarning, match="sdpa instead of triton: it is a test"):
        assert ops._choose_backend("auto", q) == "sdpa"
    assert ops._choose_backend("auto", q) == "sdpa"  # a second warning would be an error


def test_available_backends_here():
    assert available_backends() == {"triton": "", "sdpa": "", "eager": ""}
