"""A GPU that is not there: Triton's launches go all the way to a CUDA driver that does nothing.

So host time per call can be measured on any machine, kernels are compiled for sm_90 and land in Triton's cache as they
would on the device, and the real launch path is walked by the tests. The tensors are on the CPU, and what the kernels
should have written stays as it was.
"""

import contextlib
import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import torch

_SOURCE = Path(__file__).with_name("stub_libcuda.c")


def obstacle() -> str:
    """Why the stub cannot be used here, in a line; "" where it can."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        return "TRITON_INTERPRET=1 is set: kernels are interpreted, not launched"
    if torch.cuda.is_available():
        return "there is a real CUDA device"
    if not has_compiler():
        return "there is no C compiler (gcc, clang or cc)"
    return ""


@contextlib.contextmanager
def stub_gpu() -> Iterator[ctypes.CDLL]:
    """Within it CPU tensors count as tensors on an H100, and launches do nothing; gives the library, whose `launches`
    counts them. For the rest of the process Triton's driver stays the stub: it can be loaded only once.

    Raises:
        RuntimeError: the stub cannot be used here; the message says why.
    """
    if reason := obstacle():
        raise RuntimeError(f"no stub driver: {reason}")
    from attnmod.kernels import configs, ops

    library = _install()
    # plain functions, for a mock's call costs more than all that is timed here
    patches = (
        mock.patch.object(configs, "ACCELERATOR", "cpu"),
        mock.patch.object(torch.cuda, "get_device_capability", lambda device=None: (9, 0)),  # noqa: PT008
        mock.patch.object(torch.cuda, "current_device", lambda: -1),  # noqa: PT008 - the index of the CPU's tensors
    )
    caches = (configs.architecture, ops._triton_obstacle, ops._faster_self_attention)
    with contextlib.ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        for cache in caches:
            cache.cache_clear()
        try:
            yield library
        finally:
            for cache in caches:
                cache.cache_clear()


def has_compiler() -> bool:
    return _compiler() is not None


@functools.cache
def load_library() -> ctypes.CDLL:
    """Build and load the stub of libcuda, which Triton then links its launchers with."""
    folder = tempfile.mkdtemp(prefix="attnmod-stub-")
    built = os.path.join(folder, "libcuda.so.1")
    compiler = _compiler()
    assert compiler is not None
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-w", "-Wl,-soname,libcuda.so.1", "-o", built, str(_SOURCE)], check=True
    )
    os.symlink("libcuda.so.1", os.path.join(folder, "libcuda.so"))
    os.environ["TRITON_LIBCUDA_PATH"] = folder
    return ctypes.CDLL(built, mode=ctypes.RTLD_GLOBAL)  # before anything can load another


@functools.cache
def _install() -> ctypes.CDLL:
    """Load the library and make it Triton's driver."""
    library = load_library()

    from triton.backends.compiler import GPUTarget
    from triton.backends.nvidia import driver as nvidia
    from triton.runtime import driver

    class StubDriver(nvidia.CudaDriver):
        def __init__(self):
            self.utils = nvidia.CudaUtils()
            self.launcher_cls = nvidia.CudaLauncher
            self.get_current_device = lambda: 0
            self.get_current_stream = lambda device: 0
            self.set_current_device = lambda device: None
            self.get_device_capability = lambda device=0: (9, 0)

        def get_current_target(self):
            return GPUTarget("cuda", 90, 32)

        def get_active_torch_device(self):
            return torch.device("cpu")

    driver.set_active(StubDriver())
    return library


def _compiler() -> str | None:
    return next((path for name in ("gcc", "clang", "cc") if (path := shutil.which(name))), None)
