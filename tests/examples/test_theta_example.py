"""The example on Lovasz' theta runs as a user runs it."""

import pytest

pytest.importorskip("matplotlib", reason="the examples draw with matplotlib, which is not installed")


def test_theta_of_the_kneser_graph(tmp_path, run_example):
    out = run_example("theta.py", "--out", tmp_path / "new")
    assert "21 vertices, 105 edges" in out and "CERTIFIED" in out
    assert "theta is at most  6.0000" in out
    assert "no independent set has more than 6 vertices; this one has 6: it is maximum" in out
    assert (tmp_path / "new" / "theta-kneser-7-2.png").read_bytes().startswith(b"\x89PNG")


def test_cliques_of_a_file(tmp_path, run_example):
    path = tmp_path / "house.rud"
    path.write_text("5 6\n1 2 1\n2 3 1\n3 4 1\n4 1 -1\n3 5 1\n4 5 1\n")
    out = run_example("theta.py", path, "--complement", "--nonnegative", "--out", tmp_path)
    assert "no clique has more than 3 vertices; this one has 3: it is maximum" in out and "2 3 4" in out
    assert (tmp_path / "theta-house.png").exists()


def test_help(run_example):
    assert "independence number" in run_example("theta.py", "--help")
