"""The example on synchronization runs as a user runs it."""

import csv

import pytest

pytest.importorskip("matplotlib", reason="the examples draw with matplotlib, which is not installed")


def table(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_the_quick_run(tmp_path, run_example):
    out = run_example("synchronization.py", "--quick", "--out", tmp_path)
    assert "outliers rejected" in out and "tight: the blocks attain the bound" in out
    assert (tmp_path / "synchronization.png").read_bytes().startswith(b"\x89PNG")
    noise, outliers = (table(tmp_path / f"synchronization-{name}.csv") for name in ("noise", "outliers"))
    share = {(row["group"], float(row["noise"])): float(row["tight"]) for row in noise if row["method"] == "relaxation"}
    for group in ("SO(3)", "U(1)", "Z2"):
        assert share[group, 0.02] == 1 and share[group, 1.0] < 1
    errors = {(float(row["outliers"]), row["method"]): float(row["error"]) for row in outliers}
    assert errors[0.4, "truncated (GNC)"] < 0.5 * errors[0.4, "least squares"]


def test_help(run_example):
    assert "synchronization" in run_example("synchronization.py", "--help").lower()
