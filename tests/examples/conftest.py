"""How the tests of this folder run an example: as a user does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def run_example():
    """Run a script of examples/ to its end, without a word on stderr; returns its output."""

    def run(script, *arguments):
        done = subprocess.run(
            [sys.executable, str(ROOT / "examples" / script), *map(str, arguments)],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr
        assert not done.stderr
        return done.stdout

    return run
