"""Where the kernel tests run: on the GPU if there is one, else in Triton's interpreter."""

import pytest
import torch


@pytest.fixture(scope="session")
def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def pytest_configure(config: pytest.Config) -> None:
    # on a GPU whose architecture nobody has measured, backend "auto" says so; that is no failure
    config.addinivalue_line("filterwarnings", "ignore:attnmod. nobody has measured:UserWarning")
