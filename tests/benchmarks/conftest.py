"""What several tests of the benchmarks use; made once, and only read."""

import pytest


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """The folder of a finished toy training."""
    from attnmod.benchmarks.miniature.train import train
    from tests.benchmarks.toy_training import CPU, TOY

    folder = tmp_path_factory.mktemp("run")
    train(TOY, folder, CPU)
    return folder
