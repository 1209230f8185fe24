"""The comparison of PETRA with backpropagation runs as a user runs it."""

import csv

import pytest

pytest.importorskip("torch", reason='learned solvers need torch: pip install "bmsdp[learn]"')
pytest.importorskip("matplotlib", reason="the examples draw with matplotlib, which is not installed")
pytest.importorskip("sklearn", reason="the digits come with scikit-learn, which is not installed")


def test_a_small_table_and_how_it_goes_on(tmp_path, run_example):
    arguments = ("petra_parity.py", "--small", "--seeds", 1, "--modes", "backprop", "reversible", "petra", "--out", tmp_path)
    out = run_example(*arguments, "--epochs", 1)
    assert out.count("epochs, seed 0") == 3 and "minus backprop" in out and "written" in out
    path = tmp_path / "petra-parity-digits.csv"
    with open(path, newline="") as file:
        rows = {row["mode"]: row for row in csv.DictReader(file)}
    assert rows.keys() == {"backprop", "reversible", "petra"}
    for row in rows.values():
        assert abs(float(row["formula_mb"]) - float(row["measured_mb"])) < 1e-3 * float(row["measured_mb"])
        assert float(row["measured_mb"]) < float(row["all_mb"]) and 0 < float(row["accuracy"]) <= 100
    assert float(rows["reversible"]["measured_mb"]) < float(rows["petra"]["measured_mb"]) < float(rows["backprop"]["measured_mb"])
    assert (tmp_path / "petra-parity-digits.png").read_bytes().startswith(b"\x89PNG")

    out = run_example(*arguments, "--epochs", 1, 2)
    assert out.count("epochs, seed 0") == 3 and "1 epochs, seed 0" not in out  # of the second schedule only
    assert len(path.read_text().splitlines()) == 1 + 6


def test_the_memory_of_the_papers_networks(run_example):
    out = run_example("petra_parity.py", "--memory")
    printed = next(line for line in out.splitlines() if line.startswith("revnet50") and "printed" in line).split()
    assert {round(float(size), 1) for size in printed[1:5]} == {20.3, 21.2, 43.6, 44.5}


def test_cifar10_needs_its_files_and_help_says_where(tmp_path, run_example):
    out = run_example("petra_parity.py", "--help")
    assert "--recipe cifar10" in out and "torchrun" in out
    with pytest.raises(AssertionError, match="CIFAR-10 is not shipped"):
        run_example("petra_parity.py", "--recipe", "cifar10", "--out", tmp_path)
