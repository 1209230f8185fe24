"""The benchmark runs, ours is certified, and a rival's gap is what it is.  No time is asserted."""

import csv
import math
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pymanopt", reason="the benchmark compares with pymanopt, which is not installed")
ROOT = Path(__file__).resolve().parents[2]


def run(tmp_path, *arguments):
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "benchmarks" / "run.py"), *arguments, "--csv", str(tmp_path / "rows.csv")],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "rows.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(row["method"] in done.stdout and row["instance"] in done.stdout for row in rows)
    for row in rows:
        gap, tol, reached = float(row["gap"]), float(row["tol"]), row["reached"] == "True"
        assert float(row["seconds"]) > 0 and not math.isnan(gap)
        assert reached == (gap <= tol)
        assert row["rigor"] in ("verified", "probabilistic", "signal error", "gradient norm") or not reached
    assert done.stdout.count("NOT REACHED") == sum(row["reached"] == "False" for row in rows)
    return rows, done.stdout


def ours(rows):
    return [row for row in rows if row["method"].startswith("bmsdp")]


def test_one_instance(tmp_path):
    rows, out = run(tmp_path, "--small", "--part", "gallery", "--only", "StiefelProduct(15, 3)")
    assert {"bmsdp", "pymanopt TR"} <= {row["method"] for row in rows}
    assert len(ours(rows)) == 1 and all(row["reached"] == "True" for row in ours(rows))
    assert "geometric mean" in out


def test_absent_files_are_named(tmp_path):
    rows, out = run(tmp_path, "--small", "--part", "gset", "--only", "G48", "--data", str(tmp_path))
    assert not rows and "G48 not found" in out and "--data" in out


@pytest.mark.slow
@pytest.mark.parametrize("part", ["gset", "gallery", "million", "start", "verified", "phase", "sdplib", "secants", "solvers"])
def test_small(tmp_path, part):
    rows, _ = run(tmp_path, "--small", "--part", part)
    assert ours(rows) and all(row["reached"] == "True" for row in ours(rows))
