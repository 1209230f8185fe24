"""The command line on pose graphs: poses out, pictures, JSON, parts, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from bmsdp.applications import slam
from bmsdp.io.g2o import read_g2o, write_g2o


def write(path, graph, vertices=True):
    """A graph with information matrices of its precisions."""
    d, m = graph.d, graph.m
    p = 3 if d == 2 else 6
    information = np.zeros((m, p, p))
    information[:, range(d), range(d)] = graph.tau[:, None]
    information[:, range(d, p), range(d, p)] = ((1 if d == 2 else 2) * graph.kappa)[:, None]
    write_g2o(path, *graph.poses, edges=(graph.edges, graph.R, graph.t, information))
    if not vertices:
        path.write_text("".join(line for line in path.read_text().splitlines(True) if line.startswith("EDGE")))
    return str(path)


@pytest.fixture
def sphere(tmp_path):
    return write(tmp_path / "sphere.g2o", slam.sphere(5, 8, rng=0))


@pytest.fixture
def plane(tmp_path):
    return write(tmp_path / "plane.g2o", slam.manhattan(60, 0.8, rng=0), vertices=False)


@pytest.mark.parametrize("name", ["sphere", "plane"])
def test_solved_written_drawn_and_certified(run, tmp_path, request, name):
    pytest.importorskip("matplotlib", reason="pictures need matplotlib, which is not installed")
    path = request.getfixturevalue(name)
    out, saved = tmp_path / "poses.g2o", tmp_path / "poses.npz"
    code, text, error = run("solve", path, "--out", out, "--out", saved, "--plot", "--seed", 0)
    assert code == 0 and not error and "CERTIFIED" in text and "the relaxation is tight" in text and "verified" in text
    assert (tmp_path / "poses.png").stat().st_size > 10_000
    graph, poses = slam.read(path), out.read_text().splitlines()
    assert len(poses) == graph.n and all(line.startswith("VERTEX_SE") for line in poses)
    both = tmp_path / "both.g2o"
    both.write_text("\n".join(poses) + "\n" + "".join(line for line in Path(path).read_text().splitlines(True) if line.startswith("EDGE")))
    value = float(text.split("value")[1].split()[0])
    assert graph.objective(*slam.read(both).poses) == pytest.approx(value, rel=1e-6)
    code, text, _ = run("certify", path, saved)
    assert code == 0 and "verified" in text and float(text.split("value")[1].split()[0]) == pytest.approx(value, rel=1e-9)


def test_json(run, plane):
    code, text, _ = run("solve", plane, "--json", "--seed", 0)
    found = json.loads(text)
    assert code == 0 and found["format"] == "g2o" and found["dimension"] == 2 and found["n"] == 60 and found["status"] == "CERTIFIED"
    assert found["bound"] <= found["value"] and found["gap"] <= 1e-6 and found["rigor"] == "verified" and found["components"] == 1


def test_info(run, sphere, plane):
    code, text, _ = run("info", sphere)
    assert code == 0 and "pose graph in space, 40 poses" in text and "with initial values" in text and "components  1" in text
    assert "the plane" in run("info", plane)[1]


def test_parts(run, tmp_path, plane):
    path = tmp_path / "two.g2o"
    path.write_text(Path(plane).read_text() + "EDGE_SE2 1000 1001 1 0 0 1 0 0 1 0 1\n")
    code, text, _ = run("solve", path, "--out", tmp_path / "a.g2o", "--seed", 0)
    assert code == 0 and "parts   2, of 60, 2 poses, each in a frame of its own" in text
    (tmp_path / "b.g2o").write_text((tmp_path / "a.g2o").read_text() + "EDGE_SE2 0 1 1 0 0 1 0 0 1 0 1\n")
    assert read_g2o(tmp_path / "b.g2o").ids.tolist() == [*range(60), 1000, 1001]
    code, _, error = run("solve", path, "--out", tmp_path / "a.npz")
    assert code == 2 and "2 components have a solution each" in error


def test_told_by_its_first_tag(run, tmp_path, plane):
    path = tmp_path / "graph.txt"
    path.write_text(Path(plane).read_text())
    assert run("info", path)[0] == 0


def test_not_certified(run, sphere):
    code, text, _ = run("solve", sphere, "--certify", "none", "--seed", 0)
    assert code == 3 and "bound   none (nothing is known)" in text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--method", "manifold"), "--method has no meaning for pose graphs"),
        (("--solver", "mixing"), "--solver has no meaning"),
        (("--trace-bound", "3"), "--trace-bound has no meaning"),
        (("--rank", "1"), "rank = 1"),
        (("--out", "a.sol"), "poses are written as .g2o"),
    ],
)
def test_refused(run, tmp_path, monkeypatch, plane, options, said):
    monkeypatch.chdir(tmp_path)
    code, text, error = run("solve", plane, *options)
    assert code == 2 and not text and said in error and error.count("\n") == 1


def test_a_bad_line_is_named(run, tmp_path, plane):
    path = tmp_path / "bad.g2o"
    path.write_text("# nothing\n" + Path(plane).read_text() + "EDGE_SE2 1 2 nan 0 0 1 0 0 1 0 1\n")
    code, _, error = run("solve", path)
    lines = path.read_text().count("\n")
    assert code == 2 and f"bad.g2o:{lines}: `nan`" in error


def test_a_result_of_another_graph(run, tmp_path, sphere, plane):
    run("solve", plane, "--out", tmp_path / "plane.npz", "--seed", 0)
    code, _, error = run("certify", sphere, tmp_path / "plane.npz")
    assert code == 2 and "take its own result" in error
