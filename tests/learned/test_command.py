"""`bmsdp train`, and `bmsdp solve` with what it wrote."""

import sys

import pytest

from bmsdp import gallery, learned
from bmsdp.io.matrix_market import write_matrix_market
from bmsdp.io.rudy import write_rudy
from bmsdp.learned import MixingWeights, load
from bmsdp.learned.command import FAMILIES
from bmsdp.solvers.mixing import sweeper


@pytest.fixture
def graph(tmp_path):
    path = tmp_path / "graph.rud"
    write_rudy(path, gallery.gnp(30, 0.2, rng=0))
    return path


@pytest.fixture
def matrix(tmp_path):
    path = tmp_path / "goe.mtx"
    write_matrix_market(path, gallery.goe(20, rng=1))
    return path


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "weights.npz"
    MixingWeights.from_schedule([1.4, 1.7, 1.5]).save(path)
    return path


def refused(outcome, *words):
    """Bad input: code 2, nothing on stdout, one line on stderr that holds ``words``."""
    code, out, err = outcome
    assert code == 2 and out == "" and err.startswith("bmsdp") and err.count("\n") == 1, (code, out, err)
    assert "Traceback" not in err
    for word in words:
        assert word in err, err
    return True


def test_files_to_a_schedule_to_a_certificate(run, graph, matrix, tmp_path):
    out = tmp_path / "learned.npz"
    code, text, err = run("train", graph, matrix, "--schedule", "--sweeps", 3, "--seed", 1, "--out", out)
    assert code == 0 and err == ""
    found = load(out)
    assert found.L == 3 and found.is_schedule and found.meta["source"] == [str(graph), str(matrix)] and found.meta["seed"] == 1
    assert "3 sweeps, seed 1" in text and f"--solver learned --weights {out}" in text
    assert all(f"{omega:.3f}" in text for omega in found.omega)
    code, text, err = run("solve", graph, "--solver", "learned", "--weights", out, "--seed", 1)
    assert code == 0 and err == "" and "CERTIFIED" in text


def test_family_and_seed_decide(run, tmp_path):
    same = ("train", "--family", "gnp", "--size", 20, "--schedule", "--sweeps", 2)
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        assert run(*same, "--seed", seed, "--out", tmp_path / name)[0] == 0
    a, b, c = (load(tmp_path / name) for name in "abc")
    assert a.omega.tolist() == b.omega.tolist() != c.omega.tolist()
    assert a.meta["source"] == "gnp"


def test_a_network(run, graph, tmp_path):
    pytest.importorskip("torch", reason='learned solvers need torch: pip install "bmsdp[learn]"')
    out = tmp_path / "network.npz"
    code, text, err = run("train", graph, "--sweeps", 2, "--steps", 2, "--rank", 4, "--seed", 1, "--out", out)
    assert code == 0 and err == "" and "network of width" in text
    assert not load(out).is_schedule and load(out).meta["rank"] == 4
    assert run("solve", graph, "--solver", "learned", "--weights", out, "--seed", 1)[0] == 0


def test_without_torch_it_says_what_to_install(run, graph, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.startswith(("torch", "bmsdp.learned.networks", "bmsdp.learned.petra"))]:
        monkeypatch.delitem(sys.modules, name)
    for room in ("networks", "petra"):
        monkeypatch.delattr(learned, room, raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert refused(run("train", graph, "--sweeps", 2, "--out", tmp_path / "w.npz"), 'pip install "bmsdp[learn]"')
    assert not (tmp_path / "w.npz").exists()


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_draws_problems_with_a_step(name, rng):
    draw = FAMILIES[name](24)
    one, two = draw(rng), draw(rng)
    assert 20 <= one.n <= 28 and abs(one.C.matrix() - two.C.matrix()).sum() > 0
    assert sweeper(one.manifold, one, one.random_point(6, rng)) is not None


def test_what_cannot_be_trained_on_is_refused(run, graph, tmp_path):
    out = ("--out", tmp_path / "w.npz")
    assert refused(run("train", *out), "neither given", "--family")
    assert refused(run("train", graph, "--family", "gnp", *out), "both given")
    assert refused(run("train", tmp_path / "absent.rud", *out), "absent.rud", "check the path")
    assert refused(run("train", graph, "--family", "nothing", *out), "invalid choice")
    assert refused(run("train", graph), "--out")
    assert refused(run("train", graph, "--out", tmp_path / "no" / "w.npz"), "no folder")
    assert refused(run("train", graph, "--sweeps", 0, *out), "an integer >= 1")
    sdp = tmp_path / "small.dat-s"
    sdp.write_text("1\n1\n2\n1.0\n0 1 1 1 1.0\n1 1 1 1 1.0\n1 1 2 2 1.0\n")
    assert refused(run("train", sdp, *out), "small.dat-s", "unit diagonal")
    (tmp_path / "empty.rud").write_text("3 0\n")
    assert refused(run("train", tmp_path / "empty.rud", "--schedule", *out), "every point is optimal")
    assert not (tmp_path / "w.npz").exists()


def test_weights_and_solver_go_together(run, graph, weights, tmp_path):
    assert refused(run("solve", graph, "--solver", "learned"), "--weights PATH", "bmsdp train")
    assert refused(run("solve", graph, "--weights", weights), "--solver learned")
    assert refused(run("solve", graph, "--solver", "mixing", "--weights", weights), "--solver learned")
    assert refused(run("solve", graph, "--solver", "learned", "--weights", tmp_path / "absent.npz"), "absent.npz", "check the path")
    assert refused(run("solve", graph, "--solver", "learned", "--weights", graph), str(graph), "no weights")
    code, text, _ = run("solve", graph, "--solver", "learned", "--weights", weights, "--json", "--seed", 1)
    assert code == 0 and '"CERTIFIED"' in text


def test_a_problem_without_rows_is_solved_by_the_rest_of_the_default(run, weights, tmp_path):
    sdp = tmp_path / "small.dat-s"
    sdp.write_text("1\n1\n2\n1.0\n0 1 1 1 1.0\n0 1 1 2 0.5\n1 1 1 1 1.0\n1 1 2 2 1.0\n")
    assert run("solve", sdp, "--solver", "learned", "--weights", weights, "--seed", 1)[0] == 0
