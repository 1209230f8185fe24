"""Fixtures shared by all tests."""

from pathlib import Path

import numpy as np
import pytest

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
