"""The command line: every exit code, one line for what is wrong, one JSON object, and nothing said that is not so."""

import dataclasses
import gzip
import json
import os
import signal
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

import bmsdp
from bmsdp import cli, gallery
from bmsdp.applications import maxcut
from bmsdp.io.matrix_market import write_matrix_market
from bmsdp.io.rudy import write_rudy
from bmsdp.report import rounded

ROOT = Path(__file__).resolve().parents[1]
KEYS = """file format sense n m status message means value bound gap rigor gap_rigor tol method rank seconds products cut
perturbation seed version""".split()


@pytest.fixture
def torus(tmp_path):
    path = tmp_path / "torus.rud"
    write_rudy(path, gallery.toroidal_grid(8, 8, rng=1))
    return str(path)


@pytest.fixture
def matrix(tmp_path):
    path = tmp_path / "goe.mtx"
    write_matrix_market(path, gallery.goe(20, rng=1))
    return str(path)


def write(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def refused(outcome, *words):
    """Bad input: code 2, nothing on stdout, one line on stderr that holds ``words``."""
    code, out, err = outcome
    assert code == 2 and out == "" and err.startswith("bmsdp") and err.count("\n") == 1, (code, out, err)
    assert "Traceback" not in err
    for word in words:
        assert word in err, err
    return True


# ---- solve


def test_solve_certifies_a_graph_in_its_own_sense(run, torus):
    code, out, err = run("solve", torus, "--seed", 1)
    assert code == 0 and err == ""
    lines = dict(line.split(None, 1) for line in out.splitlines()[1:])
    assert list(lines) == ["status", "value", "bound", "gap", "rank", "time", "cut"]
    assert lines["status"].startswith("CERTIFIED") and "seed 1" in lines["time"]
    value, bound, cut = (float(lines[key].split()[0].rstrip(",")) for key in ("value", "bound", "cut"))
    assert 0 < cut <= value <= bound <= value * (1 + 2e-6)
    assert "nothing is above; verified" in lines["bound"] and 0 < float(lines["gap"].split()[0]) <= 1e-6


def test_json_is_one_object_and_all_of_stdout(run, torus):
    code, out, err = run("solve", torus, "--json", "--seed", 1, "-v")
    report = json.loads(out, parse_constant=pytest.fail)
    assert code == 0 and list(report) == KEYS and out.count("\n") == 1
    assert "products" in err and "CERTIFIED" in err  # the table goes where it does no harm
    assert report["status"] == "CERTIFIED" and report["sense"] == "max" and report["n"] == 64 and report["seed"] == 1
    assert report["rigor"] == report["gap_rigor"] == "verified" and report["version"] == bmsdp.__version__
    assert 0 <= report["gap"] <= report["tol"] == 1e-6 and report["value"] <= report["bound"]
    assert 0 < report["cut"]["value"] <= report["cut"]["bound"] and report["cut"]["ratio"] <= 1


def test_matrix_market_is_minimised(run, matrix):
    code, out, _ = run("solve", matrix, "--json", "--seed", 0)
    report = json.loads(out)
    exact = bmsdp.solve(gallery.goe(20, rng=1), rng=0)
    assert code == 0 and report["sense"] == "min" and report["format"] == "matrix-market" and report["cut"] is None
    assert report["bound"] <= report["value"] < 0 and report["value"] == pytest.approx(exact.cost, rel=2e-6)
    assert "nothing is below" in run("solve", matrix)[1]


def test_solve_is_reproducible_with_the_seed_it_shows(run, torus):
    first = json.loads(run("solve", torus, "--json")[1])
    again = json.loads(run("solve", torus, "--json", "--seed", first["seed"])[1])
    different = json.loads(run("solve", torus, "--json")[1])
    first.pop("seconds"), again.pop("seconds")
    assert first == again and different["seed"] != first["seed"]


@pytest.mark.parametrize("solver", cli.SOLVERS)
def test_every_solver_has_a_name(run, matrix, solver):
    code, out, _ = run("solve", matrix, "--solver", solver, "--tol", 1e-4, "--json", "--seed", 0, "--max-time", 60)
    assert code == 0 and json.loads(out)["gap"] <= 1e-4


def test_verbose_prints_the_table_and_leaves_the_logger_alone(run, torus):
    code, out, err = run("solve", torus, "-v")
    assert code == 0 and err == "" and " rank  products" in out and "manifold Oblique" in out
    assert " rank  products" not in run("solve", torus)[1]


def test_no_cut(run, torus):
    assert "\ncut" not in run("solve", torus, "--no-cut")[1]
    assert json.loads(run("solve", torus, "--no-cut", "--json")[1])["cut"] is None


def test_options_reach_solve(run, torus, monkeypatch):
    seen = {}
    monkeypatch.setattr(cli, "solve", lambda C, **options: seen.update(options) or bmsdp.solve(C, rng=0))
    options = "--rank 5 --tol 1e-3 --max-time 7 --solver lbfgs --seed 3 --threads 2 --certify probabilistic --perturbation 0.5".split()
    options += "--method augmented-lagrangian --trace-bound 9".split()
    assert run("solve", torus, *options)[0] == 0
    assert seen == {
        "rank": 5, "tol": 1e-3, "max_time": 7.0, "solver": bmsdp.solvers.LBFGS(), "rng": 3, "threads": 2,
        "certify": "probabilistic", "progress": None, "perturbation": 0.5, "method": "augmented_lagrangian", "trace_bound": 9.0,
    }  # fmt: skip


@pytest.mark.parametrize("edges", ["3 0\n", "1 0\n", "4 1\n1 2 0\n", "5 2\n1 2 -1\n4 5 2.5\n"])
def test_degenerate_graphs_just_work(run, tmp_path, edges):
    path = write(tmp_path / "g.rud", edges)
    code, out, _ = run("solve", path, "--json")
    report = json.loads(out)
    assert code == 0 and report["cut"]["value"] <= report["cut"]["bound"]
    assert run("solve", path)[0] == 0 and run("info", path)[0] == 0


# ---- what is not certified


def test_a_rank_that_is_too_small_is_3(run, matrix):
    code, out, _ = run("solve", matrix, "--rank", 1, "--json", "--seed", 0)
    report = json.loads(out)
    assert code == 3 and report["status"] in ("RANK_TOO_SMALL", "STALLED") and report["rank"] == 1
    assert report["bound"] < report["value"] and report["gap"] > report["tol"]


def test_without_certificate_is_3_and_null(run, torus):
    code, out, _ = run("solve", torus, "--certify", "none", "--json")
    report = json.loads(out, parse_constant=pytest.fail)
    assert code == 3 and report["bound"] is report["gap"] is report["rigor"] is report["gap_rigor"] is None
    assert report["cut"]["bound"] is report["cut"]["ratio"] is None and report["cut"]["value"] > 0
    code, out, _ = run("solve", torus, "--certify", "none")
    assert code == 3 and "bound   none" in out and "gap     none" in out


def test_an_estimate_is_no_proof(run, torus):
    code, out, _ = run("solve", torus, "--certify", "estimate")
    assert code == 3 and "ESTIMATED" in out and "an estimate, no proof" in out


@pytest.mark.parametrize(("status", "wanted"), [("INFEASIBLE", 4), ("UNBOUNDED", 4), ("MAX_ITER", 5), ("STALLED", 3)])
def test_exit_codes_of_the_rarer_ends(run, torus, monkeypatch, status, wanted):
    end = bmsdp.Status[status]
    monkeypatch.setattr(cli, "solve", lambda C, **options: dataclasses.replace(bmsdp.solve(C, rng=0), status=end))
    assert run("solve", torus)[0] == wanted


def test_every_status_has_an_exit_code():
    assert set(cli.EXIT) < {status.name for status in bmsdp.Status}
    assert cli.EXIT["CERTIFIED"] == 0 and 0 not in {cli.EXIT[name] for name in cli.EXIT if name != "CERTIFIED"}


def test_a_time_limit_is_5(run, tmp_path):
    path = tmp_path / "large.rud"
    write_rudy(path, gallery.toroidal_grid(40, 40, rng=0))
    code, out, _ = run("solve", path, "--max-time", 1e-6, "--tol", 1e-9)
    assert code == 5 and "MAX_TIME" in out and "\ncut" in out


# ---- interruptions


def test_ctrl_c_inside_a_solver_returns_the_point_and_130(run, torus, tmp_path, monkeypatch):
    good = bmsdp.solvers.Default.iterates

    def interrupted(self, problem, Y):
        for step, item in enumerate(good(self, problem, Y)):
            if step == 3:
                raise KeyboardInterrupt
            yield item

    monkeypatch.setattr(bmsdp.solvers.Default, "iterates", interrupted)
    saved = tmp_path / "r.npz"
    code, out, err = run("solve", torus, "--tol", 1e-12, "--out", saved)
    assert code == 130 and "INTERRUPTED" in out and err == "" and len(bmsdp.Result.load(saved).Y) == 64


def test_ctrl_c_elsewhere_is_130(run, torus, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "solve", interrupted)
    assert run("solve", torus) == (130, "", "bmsdp: interrupted\n")


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_ctrl_c_in_a_process(tmp_path):
    path = tmp_path / "large.rud"
    write_rudy(path, gallery.toroidal_grid(60, 60, rng=0))
    command = [sys.executable, "-m", "bmsdp", "solve", str(path), "-v", "--tol", "1e-12", "--solver", "gradient-descent"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
    # a shell's background jobs inherit SIGINT ignored: undo that for the child
    with subprocess.Popen(command, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **pipes) as process:
        while " rank  products" not in process.stdout.readline():  # the table begins: it runs
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err
    assert "INTERRUPTED" in out or "interrupted" in err


# ---- bad input


RUDY = {
    "text in the header": ("hello world\n", ":1:", "`n m`"),
    "header of one number": ("3\n1 2 1\n", ":1:"),
    "no vertices": ("0 0\n", ":1:"),
    "empty file": ("", ":1:", "empty"),
    "truncated": ("3 3\n1 2 1\n2 3 1\n", ":3:", "ends after 2 of 3"),
    "too many edges": ("3 1\n1 2 1\n2 3 1\n", ":3:"),
    "index too large": ("3 2\n1 2 1\n2 4 1\n", ":3:", "from 1 to n = 3"),
    "index zero": ("3 1\n0 2 1\n", ":2:"),
    "token that is no number": ("3 2\n1 2 1\n2 x 1\n", ":3:", "`x`"),
    "weight NaN": ("3 1\n1 2 nan\n", ":2:", "finite"),
    "four tokens": ("3 1\n1 2 3 4\n", ":2:"),
    "binary": (b"3 1\n1 2 \xff\n", ":2:"),
}


@pytest.mark.parametrize("case", RUDY)
@pytest.mark.parametrize("command", ["solve", "info"])
def test_malformed_graphs_name_file_and_line(run, tmp_path, command, case):
    text, *words = RUDY[case]
    path = write(tmp_path / "bad graph.rud", text)
    assert refused(run(command, path), path, *words)


MARKET = {
    "no header": ("1 2 3\n",),
    "asymmetric": ("%%MatrixMarket matrix coordinate real general\n2 2 1\n1 2 1.0\n", "symmetric"),
    "not square": ("%%MatrixMarket matrix coordinate real general\n2 3 1\n1 2 1.0\n", "2 × 3"),
    "bad token": ("%%MatrixMarket matrix coordinate real symmetric\n2 2 1\n2 1 oops\n", ":3:"),
    "truncated": ("%%MatrixMarket matrix coordinate real symmetric\n2 2 2\n2 1 1.0\n", "."),
    "empty": ("", "empty"),
}


@pytest.mark.parametrize("case", MARKET)
def test_malformed_matrices_name_the_file(run, tmp_path, case):
    text, *words = MARKET[case]
    path = write(tmp_path / "bad.mtx", text)
    assert refused(run("solve", path), path, *words)


def test_json_leaves_stdout_empty_on_bad_input(run, tmp_path):
    assert refused(run("solve", tmp_path / "absent.rud", "--json"), "absent.rud")


@pytest.mark.parametrize("name", ["absent.rud", "absent", "absent.mtx", "absent.foo", "absent.npz"])
@pytest.mark.parametrize("command", ["solve", "info"])
def test_a_missing_file(run, tmp_path, command, name):
    assert refused(run(command, tmp_path / name), name, "No such file", "check the path")


def test_a_folder_is_no_file(run, tmp_path):
    assert refused(run("solve", tmp_path), str(tmp_path), "readable file")


def test_formats_of_later_parts(run, tmp_path):
    path = write(tmp_path / "x.xyz", "VERTEX 0 0 0 0\n")
    assert refused(run("solve", path), "unknown format '.xyz'", "rudy", "Matrix Market", "SDPA", "SeDuMi", "g2o")


def test_unknown_formats_list_the_known_ones(run, tmp_path):
    assert refused(run("info", write(tmp_path / "x.docx", "words")), "'.docx'", "rudy", "Matrix Market", "SDPA")


def test_duplicate_edges_and_loops_are_one_line_each_on_stderr(run, tmp_path):
    path = write(tmp_path / "g.rud", "3 4\n1 2 1\n2 1 1\n3 3 1\n2 3 1\n")
    code, out, err = run("solve", path, "--json")
    assert code == 0 and json.loads(out)["value"] == pytest.approx(3, rel=1e-5)
    assert [line.startswith("bmsdp: warning: ") for line in err.splitlines()] == [True, True]
    assert f"{path}:3: 1 duplicate" in err and f"{path}:4: 1 self-loop" in err


@pytest.mark.parametrize(
    "words",
    [
        (), ("solve",), ("nonsense",), ("solve", "FILE", "--nonsense"), ("solve", "FILE", "--rank", "0"),
        ("solve", "FILE", "--rank", "2.5"), ("solve", "FILE", "--max-time", "-1"), ("solve", "FILE", "--max-time", "nan"),
        ("solve", "FILE", "--seed", "-1"), ("solve", "FILE", "--threads", "0"), ("solve", "FILE", "--solver", "simplex"),
        ("solve", "FILE", "--method", "simplex"), ("solve", "FILE", "--trace-bound", "0"),
        ("solve", "FILE", "--certify", "maybe"), ("solve", "FILE", "--tol", "x"), ("demo", "--size", "2"),
        ("demo", "--size", "3x4x5"), ("certify", "FILE"), ("certify", "FILE", "R", "--rigor", "estimate"),
        ("solve", "FILE", "--ou", "x"),
    ],
)  # fmt: skip
def test_wrong_options_are_one_line(run, words):
    assert refused(run(*words), "--help")


@pytest.mark.parametrize("option", [("--rank", 65), ("--tol", 0), ("--tol", 1.5), ("--tol", "nan")])
def test_options_out_of_range_for_the_file(run, torus, option):
    assert refused(run("solve", torus, *option), torus, option[0].strip("-"))


def test_targets_are_checked_before_the_work(run, torus, tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "solve", lambda *arguments, **options: pytest.fail("solved all the same"))
    assert refused(run("solve", torus, "--out", tmp_path / "no" / "r.npz"), "there is no folder")
    assert refused(run("solve", torus, "--out", tmp_path), "a folder")
    assert refused(run("solve", torus, "--plot", tmp_path / "no" / "p.png"), "there is no folder")
    assert refused(run("solve", torus, "--plot", tmp_path / "p.doc"), ".doc is no picture format", ".png")


def test_out_of_memory_is_one_line(run, torus, monkeypatch):
    def exhausted(*arguments, **options):
        raise MemoryError("Unable to allocate 3 EiB")

    monkeypatch.setattr(cli, "solve", exhausted)
    assert refused(run("solve", torus), "3 EiB", "smaller")


# ---- formats


@pytest.mark.parametrize("name", ["G1", "g.rudy", "g.txt", "g.mc", "G1.gz", "g.rud.gz", "g.sparse.v7"])
def test_graphs_by_ending_or_content(run, tmp_path, name):
    text = b"\n 3 2\n1 2 1\n2 3 4\n"
    path = write(tmp_path / name, gzip.compress(text) if name.endswith(".gz") else text)
    code, out, _ = run("info", path)
    assert code == 0 and "max-cut graph" in out and "1 to 4" in out


def test_matrix_market_by_ending_or_content(run, tmp_path, matrix):
    content = Path(matrix).read_bytes()
    for name, data in {
        "a": content,
        "b.txt": content,
        "c.mtx.gz": gzip.compress(content),
        "d.gz": gzip.compress(content),
    }.items():
        code, out, _ = run("info", write(tmp_path / name, data))
        assert code == 0 and "real symmetric dense matrix" in out and "nonzeros    380" in out


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX pipes")
def test_a_pipe_is_read_once(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    command = [sys.executable, "-m", "bmsdp", "info", str(pipe)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        pipe.write_bytes(b"3 2\n1 2 1\n2 3 4\n")
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and "edges       2" in out


# ---- info


def test_info_of_a_graph(run, tmp_path):
    path = write(tmp_path / "g.rud", "6 3\n1 2 -2\n2 3 5.5\n5 6 0\n")
    code, out, _ = run("info", path)
    facts = dict(line.split(None, 1) for line in out.splitlines()[1:])
    assert code == 0 and "-0 " not in out
    assert facts == {
        "n": "6", "edges": "2", "weights": "-2 to 5.5", "degrees": "-2 to 5.5", "isolated": "3", "components": "4",
    }  # fmt: skip


def test_info_of_a_complex_matrix(run, tmp_path):
    C = sparse.csr_array(np.array([[2, 3 + 4j, 0], [3 - 4j, 0, 0], [0, 0, -1]]))
    write_matrix_market(tmp_path / "c.mtx", C)
    code, out, _ = run("info", tmp_path / "c.mtx")
    facts = dict(line.split(None, 1) for line in out.splitlines()[1:])
    assert code == 0 and "complex Hermitian sparse" in out
    assert facts == {
        "n": "3", "nonzeros": "4", "off-diag.": "5 to 5 (moduli)", "diagonal": "-1 to 2", "isolated": "1", "components": "2",
    }  # fmt: skip
    assert run("solve", tmp_path / "c.mtx")[0] == 0


def test_info_of_a_result(run, matrix, tmp_path):
    saved = tmp_path / "r.npz"
    assert run("solve", matrix, "--out", saved, "--seed", 4)[0] == 0
    code, out, _ = run("info", saved)
    assert code == 0 and "CERTIFIED" in out and "seed 4" in out and "nothing is below; verified" in out


# ---- certify


@pytest.fixture
def solved(run, torus, tmp_path):
    saved = tmp_path / "r.npz"
    assert run("solve", torus, "--out", saved, "--seed", 0)[0] == 0
    return saved


def tampered(saved, **changes):
    """A copy of a saved result with some of its arrays replaced."""
    with np.load(saved) as file:
        arrays = {name: file[name] for name in file.files}
    path = saved.with_name("tampered.npz")
    np.savez(path, **(arrays | changes))
    return path


@pytest.mark.parametrize("rigor", ["auto", "verified", "probabilistic"])
def test_out_then_certify(run, torus, solved, rigor):
    code, out, err = run("certify", torus, solved, "--rigor", rigor, "--seed", 0, "--tol", 1e-5)
    known = "probabilistic" if rigor == "probabilistic" else "verified"
    assert code == 0 and err == "" and known in out and "nothing is above" in out


@pytest.mark.parametrize("name", ["torus", "matrix"])
def test_verified_again_from_the_saved_dual(run, request, tmp_path, name):
    path, out = request.getfixturevalue(name), tmp_path / "result.npz"
    assert run("solve", path, "--out", out, "--seed", 1)[0] == 0
    code, text, err = run("certify", path, out, "--verified", "--tol", 2e-6)
    lines = dict(line.split(maxsplit=1) for line in text.splitlines()[1:])
    assert code == 0 and not err and set(lines) == {"value", "bound", "estimate", "gap", "work"}
    value, bound, estimate = (float(lines[key].split()[0]) for key in ("value", "bound", "estimate"))
    saved = bmsdp.Result.load(out)
    sign = -1 if name == "torus" else 1
    assert sign * bound <= sign * value and abs(bound - estimate) <= 1e-9 * abs(value)
    assert sign * bound == pytest.approx(saved.bound, rel=1e-9) and "1 error-bounded factorisation" in lines["work"]
    assert run("certify", path, out, "--verified", "--tol", 1e-12)[0] == 3


def test_verified_again_with_another_dual(run, torus, solved):
    """Any dual proves something; one that does not fit is refused."""
    dual = bmsdp.Result.load(solved).dual
    bound = [float(run("certify", torus, tampered(solved, dual=y), "--verified")[1].split("bound")[1].split()[0]) for y in (dual, 0 * dual)]
    assert bound[0] < bound[1]  # an upper bound on cuts
    assert refused(run("certify", torus, tampered(solved, dual=dual[1:]), "--verified"), "dual", "64")
    assert refused(run("certify", torus, tampered(solved, dual=dual * np.nan), "--verified"), "dual", "finite")


def test_perturbation(run, torus):
    code, out, _ = run("solve", torus, "--perturbation", "auto", "--seed", 1)
    assert code == 0 and "noise   sigma" in out and "(original cost)" in out
    report = json.loads(run("solve", torus, "--perturbation", "1e-3", "--seed", 1, "--json")[1])
    assert report["status"] == "CERTIFIED" and report["perturbation"]["sigma"] == 1e-3
    for bad in ("0", "-1", "nan", "much"):
        assert run("solve", torus, "--perturbation", bad)[0] == 2


def test_certify_holds_whatever_the_file_claims(run, torus, solved):
    """The bound comes from the instance and Y alone: lies about the dual change nothing, and a bad Y is not certified."""
    saved = bmsdp.Result.load(solved)
    honest = run("certify", torus, solved)[1].splitlines()[1:]
    lies = tampered(solved, dual=np.zeros_like(saved.dual), certificate_dual=saved.dual * 0.5)
    assert run("certify", torus, lies)[1].splitlines()[1:] == honest
    Y = np.random.default_rng(0).standard_normal(saved.Y.shape)
    code, out, _ = run("certify", torus, tampered(solved, Y=Y / np.linalg.norm(Y, axis=1, keepdims=True)))
    bound = float(out.splitlines()[1].split()[1])
    assert code == 3 and bound > -saved.cost


def test_certify_refuses_what_is_no_factor_of_the_instance(run, torus, matrix, solved):
    Y = bmsdp.Result.load(solved).Y
    assert refused(run("certify", matrix, solved), str(solved), "64", "20 rows")
    assert refused(run("certify", torus, tampered(solved, Y=Y * (1 + 1e-7))), "tampered.npz", "row", "1e-08")
    for bad in (Y[:, 0], Y[:, :0], Y[:60], Y + 0j, np.where(np.arange(64)[:, None] == 7, np.nan, Y)):
        assert refused(run("certify", torus, tampered(solved, Y=bad)), "tampered.npz")
    assert "row 7" in run("certify", torus, tampered(solved, Y=bad))[2]
    assert run("certify", torus, tampered(solved, Y=Y * (1 + 1e-10)), "--tol", 1e-5)[0] == 0


def test_certify_of_results_that_are_none(run, torus, solved, tmp_path):
    files = {"absent.npz": None, "empty.npz": b"", "text.npz": b"certified, trust me\n", "other.npz": None, "y.npy": None}
    np.savez(tmp_path / "other.npz", Y=np.eye(3))
    np.save(tmp_path / "y.npy", np.eye(3))
    for name, content in files.items():
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        assert refused(run("certify", torus, path), name)
    assert refused(run("solve", solved), "r.npz", "an instance is needed")


def test_certify_of_damaged_results(run, torus, solved):
    """Truncated, or any byte flipped: an error of one line, or an honest answer; never a traceback."""
    data = bytearray(solved.read_bytes())
    damaged = solved.with_name("damaged.npz")
    for part in (3, 100, len(data) // 2, len(data) - 1):
        damaged.write_bytes(data[:part])
        assert refused(run("certify", torus, damaged), "damaged.npz") and refused(run("info", damaged), "damaged.npz")
    for at in np.random.default_rng(0).integers(0, len(data), 40):
        data[at] ^= 0xFF
        damaged.write_bytes(data)
        data[at] ^= 0xFF
        code, out, err = run("certify", torus, damaged)
        assert code == 0 or refused((code, out, err), "damaged.npz")


# ---- demo, version, help, processes


def test_demo_explains_its_certificate(run):
    code, out, err = run("demo", "--size", "12x9")
    assert code == 0 and err == ""
    for words in ("12 x 9 torus", "108 vertices", " rank  products", "Certificate", "rigor", "It is proved", "of the bound"):
        assert words in out
    result = bmsdp.solve(maxcut.problem(gallery.toroidal_grid(12, 9, rng=0)), rng=0, tol=1e-9)
    shown = float(out.split("weighs more than ")[1].split()[0].rstrip("."))
    assert -result.cost <= shown <= -result.cost * (1 + 3e-6)


def test_printed_bounds_are_on_the_safe_side():
    rng = np.random.default_rng(0)
    for value in [*rng.standard_normal(300) * 10.0 ** rng.integers(-20, 20, 300), 0.0, 6000.0, 1 / 3, -2 / 3]:
        for digits in (2, 12):
            low, high = (Decimal(rounded(value, up, digits)) for up in (False, True))
            assert low <= Decimal(value) <= high and float(high - low) <= 2 * 10.0 ** (1 - digits) * abs(value)
    assert rounded(6000.0, True) == "6000" and rounded(-np.inf, True) == "none" == rounded(np.nan, True)


@pytest.mark.parametrize("words", [("--version",), ("--help",), ("solve", "--help")])
def test_version_and_help(run, words):
    code, out, _ = run(*words)
    assert code == 0 and (bmsdp.__version__ in out or "exit codes" in out)


def process(*words, **options):
    command = [sys.executable, "-m", "bmsdp", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120, check=False, **options)


def test_as_a_process(torus, tmp_path):
    """Exit code, JSON alone on stdout, no progress bar where stderr is no terminal, a warning in one line."""
    good = process("solve", torus, "--json")
    assert good.returncode == 0 and json.loads(good.stdout)["status"] == "CERTIFIED" and good.stderr == ""
    bad = process("solve", write(tmp_path / "bad.rud", "3 1\n1 2 1 1\n"))
    assert bad.returncode == 2 and bad.stdout == "" and bad.stderr.count("\n") == 1 and "bad.rud:2:" in bad.stderr
    assert process().returncode == 2


@pytest.mark.skipif(os.name == "nt", reason="POSIX pipes")
def test_a_reader_that_goes_away_is_no_traceback(torus):
    for words in (("solve", torus, "-v"), ("info", torus)):
        command = [sys.executable, "-m", "bmsdp", *words]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
            process.stdout.close()
            err = process.stderr.read()
            process.wait(timeout=60)
        assert process.returncode == 141 and err == ""
