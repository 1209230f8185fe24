"""The command line on semidefinite programs: .dat-s and .mat in, .npz and .sol out, in the sense of the file."""

import dataclasses
import gzip
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

import bmsdp
from bmsdp import cli, gallery
from bmsdp.applications import maxcut
from bmsdp.io.matrix_market import write_matrix_market
from bmsdp.io.sdpa import read_sdpa, write_sdpa
from bmsdp.io.sedumi import write_sedumi
from bmsdp.io.solution import read_solution

from .io.test_sdpa import BAD, EXAMPLE
from .test_cli import refused, write

PUBLISHED = {"mcp100": 226.1574, "mcp250-1": 317.2643, "theta1": 23.0}


def unit_diagonal(n):
    return sparse.csr_array((np.ones(n), (np.arange(n), np.arange(n) * (n + 1))), shape=(n, n * n))


@pytest.fixture
def cost():
    """Of a max-cut relaxation."""
    return maxcut.problem(gallery.toroidal_grid(8, 8, rng=1)).C.matrix()


@pytest.fixture
def sdpa(tmp_path, cost):
    path = tmp_path / "torus.dat-s"
    write_sdpa(path, cost, unit_diagonal(64), np.ones(64))
    return str(path)


@pytest.fixture
def sedumi(tmp_path, cost):
    path = tmp_path / "torus.mat"
    write_sedumi(path, cost, unit_diagonal(64), np.ones(64))
    return str(path)


def lines_of(out):
    return dict(line.split(None, 1) for line in out.splitlines()[1:])


# ---- solve


def test_values_are_in_the_sense_of_the_file(run, sdpa, sedumi, cost):  # noqa: F811
    """(D) of SDPA is a maximum, SeDuMi's problem a minimum: one is minus the other."""
    exact = bmsdp.solve(cost, rng=0, tol=1e-9).cost
    for path, sign, side, title in ((sdpa, -1, "above", "max <F_0, X>"), (sedumi, 1, "below", "min <c, x>")):
        code, out, err = run("solve", path, "--seed", 1)
        lines = lines_of(out)
        value, bound = (float(lines[key].split()[0]) for key in ("value", "bound"))
        assert code == 0 and err == "" and title in out and "m = 64" in out and f"nothing is {side}; verified" in lines["bound"]
        assert sign * bound <= exact * (1 - 1e-9 * np.sign(exact)) and value == pytest.approx(sign * exact, rel=2e-6)
        report = json.loads(run("solve", path, "--seed", 1, "--json")[1])
        assert report["value"] == pytest.approx(value, rel=1e-10) and report["m"] == report["n"] == 64 and report["means"] is None
        assert report["sense"] == ("max" if sign < 0 else "min") and report["format"] == ("sdpa" if sign < 0 else "sedumi")


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_values(run, shared_data, name):  # noqa: F811
    code, out, err = run("solve", shared_data / "sdplib" / f"{name}.dat-s", "--json", "--seed", 0)
    report = json.loads(out)
    assert code == 0 and err == "" and report["status"] == "CERTIFIED" and report["rigor"] == "verified"
    assert report["value"] == pytest.approx(PUBLISHED[name], rel=1e-6) and report["bound"] >= PUBLISHED[name] * (1 - 3e-7)


def test_compressed_files_and_content_without_an_ending(run, sdpa, sedumi, tmp_path):  # noqa: F811
    values = []
    for name, source in (("t.dat-s.gz", sdpa), ("T.DAT-S", sdpa), ("t.mat.gz", sedumi), ("t", sedumi)):
        data = Path(source).read_bytes()
        code, out, _ = run("solve", write(tmp_path / name, gzip.compress(data) if name.endswith("gz") else data), "--json", "--seed", 0)
        values.append(json.loads(out)["value"] * (1 if source == sdpa else -1))
        assert code == 0
    assert np.ptp(values) <= 2e-6 * abs(values[0])


# ---- out and certify


def test_both_kinds_of_results_prove_the_bound_again(run, sdpa, sedumi, tmp_path):  # noqa: F811
    for path, sign in ((sdpa, -1), (sedumi, 1)):
        saved = [tmp_path / name for name in ("r.npz", "r.sol", "r.sol.gz")]
        assert run("solve", path, "--seed", 0, *(word for out in saved for word in ("--out", out)))[0] == 0
        result = bmsdp.Result.load(saved[0])
        y, Z, X = read_solution(saved[1], 64, [64], 64)
        assert np.array_equal(y, sign * result.dual) and X.toarray() == pytest.approx(result.X, rel=1e-12, abs=1e-12)
        for out in saved:
            code, text, err = run("certify", path, out, "--tol", 2e-6)
            lines = lines_of(text)
            value, bound = (float(lines[key].split()[0]) for key in ("value", "bound"))
            assert code == 0 and not err and sign * bound <= sign * value and "verified, from the saved dual" in lines["bound"]
            assert value == pytest.approx(sign * result.cost, rel=1e-11) and sign * bound == pytest.approx(result.bound, rel=1e-9)
            assert max(float(error) for error in lines["DIMACS"].split()) <= 2e-6
            assert run("certify", path, out, "--verified", "--tol", 1e-12)[0] == 3


def test_the_slack_that_is_written_is_the_slack(run, sdpa, tmp_path, cost):  # noqa: F811
    assert run("solve", sdpa, "--seed", 0, "--out", tmp_path / "r.sol")[0] == 0
    y, Z, _ = read_solution(tmp_path / "r.sol", 64, [64], 64)
    assert Z.toarray() == pytest.approx(cost.toarray() + np.diag(y), abs=1e-14)
    assert np.linalg.eigvalsh(Z.toarray()).min() >= -1e-12


def test_graphs_have_solution_files_too(run, tmp_path, cost):  # noqa: F811
    path = tmp_path / "m.mtx"
    write_matrix_market(path, cost)
    assert run("solve", path, "--seed", 0, "--out", tmp_path / "r.sol")[0] == 0
    y, Z, X = read_solution(tmp_path / "r.sol", 64, [64], 64)
    assert Z.toarray() == pytest.approx(cost.toarray() - np.diag(y), abs=1e-14) and X.diagonal() == pytest.approx(np.ones(64))


@pytest.mark.parametrize(("name", "options"), [("mcp100", ()), ("truss1", ("--trace-bound", "100"))])
def test_another_solvers_solution_is_certified(run, shared_data, tmp_path, name, options):  # noqa: F811
    csdp = shutil.which("csdp")
    if csdp is None:
        pytest.skip("csdp is not installed")
    path = shared_data / "sdplib" / f"{name}.dat-s"
    subprocess.run([csdp, str(path), str(tmp_path / "c.sol")], capture_output=True, check=True, cwd=tmp_path, timeout=100)
    code, out, err = run("certify", path, tmp_path / "c.sol", *options)
    bound = float(lines_of(out)["bound"].split()[0])
    optimum = {"mcp100": 226.15735, "truss1": -8.999996}[name]
    assert code == 0 and err == "" and optimum - 1e-6 <= bound <= optimum + 1e-4
    if options:
        code, out, _ = run("certify", path, tmp_path / "c.sol")
        assert (code, "where tr X" in out) in ((3, False), (0, False))  # without a trace bound, only an exactly feasible dual proves one


def test_certify_believes_the_dual_alone(run, sdpa, tmp_path):  # noqa: F811
    saved = tmp_path / "r.npz"
    assert run("solve", sdpa, "--seed", 0, "--out", saved)[0] == 0
    with np.load(saved) as file:
        arrays = {name: file[name] for name in file.files}

    def with_changes(**changes):
        np.savez(tmp_path / "t.npz", **(arrays | changes))
        return run("certify", sdpa, tmp_path / "t.npz")

    honest = float(lines_of(with_changes()[1])["bound"].split()[0])
    code, out, _ = with_changes(dual=0 * arrays["dual"])
    assert code == 3 and float(lines_of(out)["bound"].split()[0]) > honest
    code, out, _ = with_changes(Y=1.01 * arrays["Y"])  # a better value, of a point that is not feasible
    assert code == 3 and float(lines_of(out)["DIMACS"].split()[0]) > 1e-3
    assert refused(with_changes(dual=arrays["dual"][1:]), "dual", "64") and refused(with_changes(dual=np.nan * arrays["dual"]), "finite")
    assert refused(with_changes(Y=arrays["Y"][:9]), "t.npz", "64 rows") and refused(with_changes(Y=np.nan * arrays["Y"]), "t.npz")
    assert refused(run("certify", sdpa, saved, "--rigor", "probabilistic"), "leave it out")
    assert refused(run("certify", sdpa, write(tmp_path / "bad.sol", "1 2 3\n")), "bad.sol:1:", "numbers of y")
    assert refused(run("certify", sdpa, tmp_path / "none.sol"), "none.sol", "No such file")


def test_solution_files_are_refused_before_the_work(run, sdpa, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(cli, "solve", lambda *arguments, **options: pytest.fail("solved all the same"))
    write_matrix_market(tmp_path / "c.mtx", np.array([[1, 1j], [-1j, 1]]))
    assert refused(run("solve", tmp_path / "c.mtx", "--out", tmp_path / "r.sol"), "complex", ".npz")
    monkeypatch.setattr("bmsdp.io.solution.LIMIT", 10_000)
    assert refused(run("solve", sdpa, "--out", tmp_path / "r.sol"), "GB as text", ".npz")
    assert refused(run("solve", sdpa, "--out", tmp_path / "no" / "r.sol"), "there is no folder")


# ---- infeasible, unbounded


@pytest.mark.parametrize(("status", "sdpa_says", "sedumi_says"), [("INFEASIBLE", "(D) of", "primal"), ("UNBOUNDED", "(P) of", "dual")])
def test_the_word_and_which_of_the_pair(run, sdpa, sedumi, tmp_path, monkeypatch, status, sdpa_says, sedumi_says):  # noqa: F811
    end = bmsdp.Status[status]
    monkeypatch.setattr(cli, "solve", lambda C, **options: dataclasses.replace(bmsdp.solve(C, rng=0), status=end))
    for path, words in ((sdpa, f"{sdpa_says} the SDPA format is infeasible"), (sedumi, f"the {sedumi_says} problem is infeasible")):
        out_file = tmp_path / "r.sol"
        code, out, err = run("solve", path, "--out", out_file)
        assert code == 4 and f"status  {status}" in out and words in out and "value" not in out and "bound" not in out
        assert "no solution to write" in err and err.count("\n") == 1 and not out_file.exists()
        code, out, _ = run("solve", path, "--json")
        report = json.loads(out)
        assert code == 4 and report["status"] == status and words in report["means"]
        assert report["value"] is report["bound"] is report["gap"] is None


@pytest.mark.parametrize(("name", "status", "words"), [("infd1", "INFEASIBLE", "(D) of"), ("infp1", "UNBOUNDED", "(P) of")])
def test_sdplibs_problems_without_solution(run, shared_data, name, status, words):  # noqa: F811
    """SDPLIB calls infp1 primal infeasible: (P) of the SDPA format, for which our problem is the dual."""
    code, out, _ = run("solve", shared_data / "sdplib" / f"{name}.dat-s", "--seed", 0, "--max-time", 100)
    assert code == 4 and f"status  {status}" in out and f"{words} the SDPA format is infeasible" in out


# ---- general constraints


def test_blocks_and_general_rows(run, shared_data, tmp_path):  # noqa: F811
    """truss1: six blocks of two rows and one of one."""
    path = shared_data / "sdplib" / "truss1.dat-s"
    code, out, _ = run("solve", path, "--seed", 0, "--json", "--out", tmp_path / "r.npz", "--out", tmp_path / "r.sol")
    report = json.loads(out)
    assert code == 0 and report["m"] == 6 and report["n"] == 13
    assert report["value"] == pytest.approx(-8.999996, rel=1e-6) and report["bound"] >= -8.999997
    C, A, b, meta = read_sdpa(path)
    y, Z, X = read_solution(tmp_path / "r.sol", 6, meta["blocks"], 13)
    assert np.abs(A @ X.toarray().ravel() - b).max() <= 1e-6 and b @ y == pytest.approx(-8.999996, rel=1e-6)
    assert abs(Z - C - sparse.csr_array((A.T @ y).reshape(13, 13))).max() <= 1e-9
    assert np.linalg.eigvalsh(Z.toarray()).min() >= -1e-7 and np.linalg.eigvalsh(X.toarray()).min() >= -1e-9


def test_free_and_nonnegative_variables_of_sedumi(run, tmp_path):  # noqa: F811
    """By hand: min -x_12 - x_21 + f + 3 u with X_11 = X_22 = 1, f + u = 1, f - u = -1: X of ones, u = 1, f = 0, and the value 1."""
    C = np.zeros((4, 4))
    C[0, 0], C[1, 1], C[2, 3] = 1, 3, -1
    C[3, 2] = C[2, 3]
    rows = [np.diag(d) for d in np.array([[0.0, 0, 1, 0], [0, 0, 0, 1], [1, 1, 0, 0], [1, -1, 0, 0]])]
    write_sedumi(tmp_path / "f.mat", C, rows, [1, 1, 1, -1], [("free", 1), ("nonneg", 1), 2])
    code, out, _ = run("solve", tmp_path / "f.mat", "--seed", 0, "--json", "--out", tmp_path / "r.sol")
    report = json.loads(out)
    # nothing bounds the free variable, whose slack is 0 up to rounding
    assert (code, report["status"]) in ((0, "CERTIFIED"), (3, "ESTIMATED"))
    assert report["value"] == pytest.approx(1, abs=1e-5) and report["bound"] <= 1 + 1e-9
    y, Z, X = read_solution(tmp_path / "r.sol", 4, [("free", 1), ("nonneg", 1), 2], 4)
    assert X.toarray() == pytest.approx(sparse.block_diag([[[0.0]], [[1.0]], np.ones((2, 2))]).toarray(), abs=1e-3)
    assert y == pytest.approx([-1, -1, 2, -1], abs=1e-3) and abs(Z[0, 0]) <= 1e-6


@pytest.mark.parametrize("method", cli.METHODS)
def test_every_method_has_a_name(run, sdpa, method):  # noqa: F811
    if method == "interior-point":
        pytest.importorskip("cvxpy")
    code, out, _ = run("solve", sdpa, "--method", method, "--tol", 1e-4, "--json", "--seed", 0, "--max-time", 60)
    report = json.loads(out)
    assert code in (0, 3) and report["value"] <= report["bound"] * (1 + 1e-9) and report["gap"] <= 1e-3


# ---- bad files, info


@pytest.mark.filterwarnings("ignore:.*given twice")
@pytest.mark.parametrize("case", [case for case in BAD if case != "overflowing duplicates"])
@pytest.mark.parametrize("command", ["solve", "info"])
def test_malformed_files_name_file_and_line(run, tmp_path, command, case):  # noqa: F811
    text, line, _ = BAD[case]
    path = write(tmp_path / "bad.dat-s", text)
    assert refused(run(command, path), path + (f":{line}: " if line else ": "))


def test_other_bad_files(run, tmp_path):  # noqa: F811
    assert refused(run("solve", write(tmp_path / "x.mat", b"not MATLAB")), "x.mat", "MATLAB file")
    assert refused(run("solve", write(tmp_path / "x.dat", EXAMPLE)), "x.dat", "dense SDPA", "convert")
    for name in ("none.dat-s", "none.mat", "none.dat-s.gz"):
        assert refused(run("solve", tmp_path / name), name, "No such file")


def test_duplicates_are_one_line_on_stderr(run, sdpa, cost, tmp_path):  # noqa: F811
    path = write(tmp_path / "twice.dat-s", Path(sdpa).read_text() + "1 1 1 1 0\n")
    code, out, err = run("solve", path, "--json", "--seed", 0)
    assert code == 0 and err.startswith("bmsdp: warning: ") and "1 entries given twice" in err and err.count("\n") == 1


def test_info(run, tmp_path):  # noqa: F811
    code, out, _ = run("info", write(tmp_path / "x.dat-s", EXAMPLE))
    assert code == 0 and "sdpa, semidefinite program, maximised in the file's sense" in out
    assert lines_of(out) == {
        "n": "5", "m": "3", "blocks": "2, 1, 2 nonnegative", "nonzeros": "3 in the cost, 7 in the constraints (upper triangles)",
        "per": "row     2 to 3", "rows": "1 diagonal, 3 dense (above 10%)", "b": "-8 to 48",
    }  # fmt: skip
    write_sedumi(tmp_path / "x.mat", np.eye(4), [np.diag([1.0, 0, 0, 0]), np.eye(4)], [1, 1], [1, ("free", 2), ("nonneg", 1)])
    code, out, _ = run("info", tmp_path / "x.mat")
    assert code == 0 and "minimised" in out and lines_of(out)["blocks"] == "1, 1 nonnegative, 2 free"


def test_info_of_sdplib(run, shared_data):  # noqa: F811
    facts = {
        "gpp100": ("101", "100", "100 of one entry, 100 diagonal, 101 rank one, 1 dense (above 10%)"),
        "theta3": ("1106", "150", "1105 of one entry, 1 diagonal"), "truss8": ("496", "33 of 19, 1", "19 diagonal"),
        "mcp100": ("100", "100", "100 of one entry, 100 diagonal, 100 rank one"),
    }  # fmt: skip
    for name, (m, blocks, rows) in facts.items():
        lines = lines_of(run("info", shared_data / "sdplib" / f"{name}.dat-s")[1])
        assert (lines["m"], lines["blocks"], lines["rows"]) == (m, blocks, rows)


def test_free_variables_are_certified_from_a_file(run, tmp_path):  # noqa: F811
    """min 2 x + f, x + f = 3, x >= 0, f free: 3 at x = 0, with y = 1. By hand; the free variable comes first in the file."""
    write_sedumi(tmp_path / "f.mat", np.diag([2.0, 1]), [np.eye(2)], [3], [1, ("free", 1)])
    write(tmp_path / "f.sol", "1\n1 2 1 1 1\n2 1 1 1 3\n")
    code, out, _ = run("certify", tmp_path / "f.mat", tmp_path / "f.sol", "--trace-bound", 10)
    lines = lines_of(out)
    assert code == 0 and lines["value"].startswith("3 ") and 3 - 1e-10 <= float(lines["bound"].split()[0]) <= 3
    assert "where tr X <= 10" in lines["bound"]
    write(tmp_path / "f.sol", "1\n1 2 1 1 1\n2 1 1 1 2\n")  # does not satisfy the row
    assert run("certify", tmp_path / "f.mat", tmp_path / "f.sol", "--trace-bound", 10)[0] == 3


def test_sdpa_and_the_command_line_agree_on_the_data(shared_data):
    """What `solve` is given is what the reader returns: one block of all rows is no list of blocks."""
    for name, blocks in {"mcp100": None, "truss1": [2, 2, 2, 2, 2, 2, 1], "arch0": [161, -174]}.items():
        path = str(shared_data / "sdplib" / f"{name}.dat-s")
        given, (C, A, b, _) = cli._read(path), read_sdpa(path)
        assert given.data["blocks"] == blocks and (given.C != C).nnz == (given.data["A"] != A).nnz == 0
        assert np.array_equal(given.data["b"], b)
