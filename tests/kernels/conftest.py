"""Where the kernel tests run: on the GPU if there is one, else in Triton's interpreter."""

import pytest
import torch

from attnmod.kernels import tile_table


@pytest.fixture(scope="session")
def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def pytest_configure(config: pytest.Config) -> None:
    # on a GPU whose architecture nobody has measured, backend "auto" says so; that is no failure
    config.addinivalue_line("filterwarnings", "ignore:attnmod. nobody has measured:UserWarning")


@pytest.fixture
def self_attention_in():
    """self_attention_in(tiles): from here to the end of the test self-attention takes these tiles."""
    table, patch = tile_table.table(), pytest.MonkeyPatch()

    def choose(tiles: tile_table.Tiles) -> None:
        patch.setattr(table, "find", lambda *_: tile_table.Entry("self_attention", "any", 16, "short", tiles))
        table.generation += 1

    yield choose
    patch.undo()
    table.generation += 1
