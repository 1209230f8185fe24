"""Fixtures shared by all tests."""

import os
from pathlib import Path

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # one worker a core; before NumPy is imported
    os.environ.setdefault(variable, "1")

import numpy as np  # noqa: E402
import pytest  # noqa: E402

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture
def rng():
    return np.random.default_rng(20180611)


@pytest.fixture(scope="session")
def shared_data():
    """The folder of public instances beside the project; tests that need it are skipped where it is absent."""
    if not DATA.is_dir():
        pytest.skip("public instances not found: ../shared/data is absent")
    return DATA


@pytest.fixture
def run(capsys):
    """(exit code, stdout, stderr) of one command line."""

    from bmsdp import cli

    def run(*argv):
        capsys.readouterr()
        code = cli.main([str(word) for word in argv])
        return (code, *capsys.readouterr())

    return run
