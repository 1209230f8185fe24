"""The phase-retrieval examples run as a user runs them."""

import csv

import pytest

pytest.importorskip("matplotlib", reason="the examples draw with matplotlib, which is not installed")


@pytest.fixture
def run(run_example):
    """(stdout, rows of the table); the picture is one."""

    def run(script, folder, *arguments):
        out = run_example(f"{script}.py", "--small", "--out", folder, *arguments)
        assert (folder / f"{script}.png").read_bytes().startswith(b"\x89PNG")
        with open(folder / f"{script}.csv", newline="") as file:
            return out, list(csv.DictReader(file))

    return run


def test_scaling(tmp_path, run):
    _, rows = run("phase_retrieval", tmp_path / "new")
    ours = {row["n"]: row for row in rows if row["method"] == "bmsdp, retrieve"}
    relaxed = [row for row in rows if row["method"].startswith("bmsdp, PhaseCut")]
    assert set(ours) == {"16", "24", "32"} and len(relaxed) == 3
    assert all(float(row["worst_error"]) < 1e-8 for row in ours.values())
    assert all(1e-10 < float(row["worst_error"]) < 1e-3 for row in relaxed)  # a gap of 1e-8 is worth its root in the signal
    assert all(float(row["worst_error"]) < 0.05 for row in rows if row["method"].startswith("CVXPY"))


def test_coded_diffraction(tmp_path, run):
    out, rows = run("coded_diffraction", tmp_path, "--masks", "6")
    assert "converged" in out and len(rows) == 1
    assert rows[0]["n"] == str(6 * 32**2) and float(rows[0]["error"]) < 1e-8


def test_coded_diffraction_with_noise(tmp_path, run):
    _, rows = run("coded_diffraction", tmp_path, "--noise", "0.01", "--start", "random")
    assert 1e-4 < float(rows[0]["error"]) < 0.02
