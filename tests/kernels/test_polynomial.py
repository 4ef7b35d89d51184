"""The exponentials by multiply-adds, beside exact ones: softmax averages an error of a percent away, this does not."""

import pytest
import torch

triton = pytest.importorskip("triton", reason="triton is a Linux dependency")
tl = pytest.importorskip("triton.language")
kernel = pytest.importorskip("attnmod.kernels.self_attention")

LENGTH = 1024
_exp2 = kernel._exp2


@triton.jit
def _exponentials(x_ptr, out_ptr, LENGTH: tl.constexpr):
    offs_n = tl.arange(0, LENGTH)[None, :]
    tl.store(out_ptr + offs_n, _exp2(tl.load(x_ptr + offs_n), True))


def test_relative_error(device):
    """2^x for x up to 8, the most under a lazy rescale, down to the least normal number; then zero and -inf."""
    x = torch.linspace(8, -125.9, LENGTH, device=device)
    out = torch.empty_like(x)
    _exponentials[(1,)](x, out, LENGTH=LENGTH)
    exact = torch.exp2(x.double())
    assert ((out.double() - exact).abs() / exact).max() < 1e-4
    low = torch.full_like(x, -1e4)
    low[::2] = -float("inf")
    _exponentials[(1,)](low, out, LENGTH=LENGTH)
    assert out.isfinite().all()
    assert out.max() < 1e-37
