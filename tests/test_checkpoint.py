import os
import time

import numpy as np
import pytest

from bmsdp import Oblique, Problem, checkpoint, gallery, minimize
from bmsdp.solvers import LBFGS

PROBLEM = Problem(gallery.goe(12, 0), Oblique(np.ones(12)))


def model(seed=0):
    return PROBLEM.at(PROBLEM.random_point(3, np.random.default_rng(seed)))


@pytest.mark.parametrize("name", ["state.npy", "state", "state.dat"])
def test_writes_the_factor_under_the_name_given(tmp_path, name):
    callback = checkpoint(tmp_path / name, every=0)
    for seed in range(3):
        callback(model(seed), {})
        assert np.array_equal(np.load(tmp_path / name), model(seed).Y)
    assert os.listdir(tmp_path) == [name], "nothing half-written is left"


def test_accepts_a_string(tmp_path):
    checkpoint(str(tmp_path / "y.npy"), every=0)(model(), {})
    assert (tmp_path / "y.npy").exists()


def test_waits_between_writes(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    path = tmp_path / "y.npy"
    callback = checkpoint(path, every=60)
    callback(model(0), {})
    assert not path.exists()
    now[0] += 60
    callback(model(1), {})
    assert np.array_equal(np.load(path), model(1).Y)
    now[0] += 59
    callback(model(2), {})
    assert np.array_equal(np.load(path), model(1).Y)
    now[0] += 2
    callback(model(3), {})
    assert np.array_equal(np.load(path), model(3).Y)


def test_interrupted_write_leaves_the_one_before(tmp_path, monkeypatch):
    path = tmp_path / "y.npy"
    callback = checkpoint(path, every=0)
    callback(model(0), {})

    def fail(file, Y):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        callback(model(1), {})
    monkeypatch.undo()
    assert np.array_equal(np.load(path), model(0).Y)
    callback(model(2), {})
    assert np.array_equal(np.load(path), model(2).Y)


def test_resume(tmp_path):
    """Stop after a few iterates, load, go on: the same optimum as in one go."""
    path = tmp_path / "y.npy"
    start = PROBLEM.random_point(7, np.random.default_rng(0))
    first = minimize(PROBLEM, LBFGS(), start, max_iter=6, callback=checkpoint(path, every=0), progress=False)
    Y = np.load(path, allow_pickle=False)
    assert np.array_equal(Y, first.Y)
    second = minimize(PROBLEM, LBFGS(), Y, tol=1e-8, progress=False)
    whole = minimize(PROBLEM, LBFGS(), start, tol=1e-8, progress=False)
    assert second.cost == pytest.approx(whole.cost, rel=1e-9) and second.history["merit"][0] == pytest.approx(first.cost)
