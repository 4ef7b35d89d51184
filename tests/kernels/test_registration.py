"""The registered ops: what torch.library, torch.compile and a process without Triton see."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from attnmod.kernels import ops
from attnmod.kernels.ops import cross_attention, self_attention
from attnmod.kernels.testing import BACKENDS, random_inputs

ROOT = Path(__file__).parents[2]


def run_python(code: str, **environment: str) -> str:
    """Runs code in a fresh interpreter that finds attnmod in this checkout."""
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture
def inputs(device):
    q, k, v = random_inputs(2, 3, 33, 20, 16, torch.float32, device)
    bits = torch.full((2, 20), -1, dtype=torch.int32, device=device)
    bits[0, 3], bits[0, 4] = 1, 2
    return q, k, v, bits


@pytest.mark.parametrize("backend", BACKENDS)
def test_opcheck_self_attention(backend, inputs):
    q, k, v, _ = inputs
    tau = torch.tensor([0.5, 1.0], device=q.device)
    torch.library.opcheck(torch.ops.attnmod.self_attention, (q, k, v, tau, None, backend))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("share", [False, True], ids=["per-head", "shared"])
def test_opcheck_cross_attention(backend, share, inputs):
    q, k, v, bits = inputs
    options = {"share_heads": share, "return_owner": True, "return_affinity": share, "backend": backend}
    torch.library.opcheck(torch.ops.attnmod.cross_attention, (q, k, v, bits), options)


def test_the_cross_attention_op_returns_what_was_asked_for(inputs):
    q, k, v, bits = inputs
    op = torch.ops.attnmod.cross_attention
    for owner in (False, True):
        for affinity in (False, True):
            results = op(q, k, v, bits, share_heads=True, return_owner=owner, return_affinity=affinity)
            dtypes = [torch.float32, *[torch.int8] * owner, *[torch.float32] * affinity]
            assert [result.dtype for result in results] == dtypes


class _NoLaunch:
    """In a kernel's place: takes the launch and does nothing."""

    def __getitem__(self, grid):
        return lambda **arguments: None


@pytest.mark.parametrize("share", [False, True], ids=["per-head", "shared"])
def test_nothing_is_allocated_but_the_outputs(share, monkeypatch):
    """Nor does anything else run on the device: no copy, no fill, no look at a value."""
    from torch.utils._python_dispatch import TorchDispatchMode

    from attnmod.kernels import cross_attention as cross
    from attnmod.kernels import self_attention as own

    for module, name in (
        (own, "_self_attention_kernel"),
        (cross, "_cross_attention_kernel"),
        (cross, "_swept_cross_attention_kernel"),
    ):
        monkeypatch.setattr(module, name, _NoLaunch())
    q, k, v = random_inputs(2, 3, 33, 90 if share else 20, 16, torch.float16, torch.device("cpu"))
    bits = torch.ones(2, k.shape[2], dtype=torch.int32)
    options = {"affinity": torch.ones(2, k.shape[2], 3), "log_weights": torch.zeros(2, k.shape[2])}
    options |= {"hidden_weight": torch.ones(2), "share_heads": share, "return_owner": True, "return_affinity": share}
    called = []

    class Recording(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
            called.append(function.overloadpacket.__name__)
            return function(*arguments, **(keywords or {}))

    tau = torch.ones(2)
    with Recording():  # the implementations: a mode does not see into an op
        ops._self_attention_impl(q, k, v, tau, None, "triton")
    assert called == ["new_empty_strided"]
    called.clear()
    with Recording():
        ops._cross_attention_impl(q, k, v, bits, **options, backend="triton")
    assert sorted(called) == [*["new_empty"] * (2 if share else 1), "new_empty_strided"]


def test_compiles_into_one_graph(inputs):
    """No graph break, and no other graph for other values of the same shapes."""
    q, k, v, bits = inputs
    graphs = []

    def count(graph, example_inputs):
        graphs.append(graph)
        return graph.forward

    def layer(q, k, v, tau, bits):
        x = self_attention(q, q, q, temperature=tau)
        x = torch.ops.attnmod.self_attention(x, q, q, tau)
        y, owner = cross_attention(x, k, v, entity_bits=bits, return_owner=True)
        return y + torch.ops.attnmod.cross_attention(x, k, v, bits)[0], owner

    compiled = torch.compile(layer, backend=count, fullgraph=True)
    for value in (0.5, 0.7):
        tau = torch.tensor([value, 1.0], device=q.device)
        for ours, expected in zip(compiled(q, k, v, tau, bits), layer(q, k, v, tau, bits), strict=True):
            assert torch.equal(ours, expected)
            assert ours.stride() == expected.stride()
    assert len(graphs) == 1


def test_compiles_through_aot_autograd(inputs):
    q, k, v, bits = inputs

    def layer(q, k, v):
        out, owner = cross_attention(q * 2, k, v, entity_bits=bits, return_owner=True)
        return out.transpose(1, 2).flatten(2), owner

    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for ours, expected in zip(compiled(q, k, v), layer(q, k, v), strict=True):
        assert torch.equal(ours, expected)


def test_compiling_refuses_gradients(inputs):
    q, k, v, _ = inputs
    compiled = torch.compile(lambda q: torch.ops.attnmod.self_attention(q * 2, k, v), backend="eager", fullgraph=True)
    with pytest.raises(Exception, match="requires grad"):
        compiled(q.clone().requires_grad_())


def test_importing_the_ops_needs_torch_alone():
    run_python(
        "import sys\n"
        "class Blocked:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('triton', 'spacy', 'diffusers', 'transformers'):\n"
        "            raise ImportError(name + ' is not installed')\n"
        "sys.modules['triton'] = None\n"
        "sys.meta_path.insert(0, Blocked())\n"
        "import torch\n"
        "from attnmod.kernels.ops import available_backends, cross_attention, self_attention\n"
        "q = torch.randn(1, 2, 5, 8)\n"
        "assert self_attention(q, q, q).shape == q.shape\n"
        "assert cross_attention(q, q, q).shape == q.shape\n"
        "assert available_backends()['triton'] == 'triton is not installed'\n"
        "try:\n"
        "    self_attention(q, q, q, backend='triton')\n"
        "except ValueError as error:\n"
        "    assert 'triton is not installed' in str(error)\n"
        "else:\n"
        "    raise AssertionError('triton cannot have run')\n"
    )


def test_without_the_interpreter_triton_refuses_cpu_tensors():
    out = run_python(
        "import sys, torch\n"
        "import attnmod.kernels.ops as ops\n"
        "assert 'triton' not in sys.modules\n"
        "q = torch.randn(1, 2, 5, 8)\n"
        "try:\n"
        "    ops.self_attention(q, q, q, backend='triton')\n"
        "except ValueError as error:\n"
        "    print(error)\n",
        TRITON_INTERPRET="0",
        CUDA_VISIBLE_DEVICES="",
    )
    assert "backend='triton' cannot run here" in out
    assert "TRITON_INTERPRET=1" in out
