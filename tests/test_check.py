"""`bmsdp.check`: right of a right result, and sharp on a spoilt one."""

import dataclasses
import math
import sys

import numpy as np
import pytest

import bmsdp
from bmsdp.check import check, primal_of
from bmsdp.cone import Given
from bmsdp.result import Data, Result


def symmetric(n, seed=0, complex_=False):
    rng = np.random.default_rng(seed)
    C = rng.standard_normal((n, n)) + (1j * rng.standard_normal((n, n)) if complex_ else 0)
    return (C + C.conj().T) / 2


@pytest.fixture(scope="module")
def result():
    return bmsdp.solve(symmetric(15), rng=0, tol=1e-8)


@pytest.mark.parametrize("complex_", [False, True])
def test_agrees_with_cvxpy(complex_):
    pytest.importorskip("cvxpy")
    C = symmetric(12, 3, complex_)
    found = bmsdp.solve(C, rng=0, tol=1e-8)
    report = check(found, cvxpy=True)
    assert report.ok(1e-7)
    assert report.reference.status == "solved"
    assert abs(report.difference) < 1e-7
    assert report.errors.worst < 1e-7
    assert report.bound == pytest.approx(found.bound, rel=1e-12)
    assert report.bound <= report.cost <= report.reference_cost + 1e-6
    assert report.slack_eig_min > -1e-12
    for word in ("DimacsErrors", "proved bound", "CVXPY (Clarabel): solved"):
        assert word in str(report)


def test_every_claim_is_looked_at(result):
    """A spoilt Y, dual or cost shows in its own figure."""
    report = check(result, cvxpy=False)
    assert report.ok(1e-7)
    assert report.reference is None
    assert math.isnan(report.difference)
    wrong = check(dataclasses.replace(result, Y=1.001 * result.Y), cvxpy=False)
    assert not wrong.ok()
    assert wrong.errors.err1 == pytest.approx((1.001**2 - 1) * math.sqrt(15) / 2, rel=1e-6)
    wrong = check(dataclasses.replace(result, dual=result.dual + 0.01), cvxpy=False)
    assert wrong.slack_eig_min == pytest.approx(report.slack_eig_min - 0.01, abs=1e-9)
    assert wrong.errors.err4 > 1e-3
    assert report.bound - 0.15 * 0.02 <= wrong.bound <= report.bound + 1e-9  # the bound repairs the dual, to 2 % of what it lacks
    wrong = check(dataclasses.replace(result, dual=result.dual - 0.01), cvxpy=False)
    assert wrong.errors.err5 == pytest.approx(0.15 / (1 + 2 * abs(result.cost)), rel=1e-2)
    assert not wrong.ok()


def test_a_worse_point_differs_from_cvxpy(result):
    pytest.importorskip("cvxpy")
    Y = np.random.default_rng(0).standard_normal((15, 3))
    report = check(dataclasses.replace(result, Y=Y / np.linalg.norm(Y, axis=1)[:, None]), cvxpy=True)
    assert report.difference > 0.1
    assert not report.ok()


def test_a_given_point_of_a_general_problem():
    """Rows >=, nonnegative and free variables, from a hand-made optimum: min x + 2 f, x + f = 1, f >= -3."""
    C, A, G = np.diag([1.0, 2]), [np.eye(2)], [np.diag([0.0, 1])]
    blocks = [-1, ("free", 1)]
    given = Given.of(C, A, [1.0], G, [-3.0], blocks)
    base = bmsdp.solve(np.eye(2), rng=0)
    data = Data(given.C, given.A, given.b, given.A_geq, given.b_geq, blocks)
    found = dataclasses.replace(
        base, Y=np.array([[2.0], [0]]), free=np.array([-3.0]), dual=np.array([1.0]), dual_geq=np.array([1.0]), data=data
    )
    report = check(found)
    assert report.errors.worst == 0
    assert report.cost == -2 == report.dual_value
    assert report.free_residual == 0
    assert report.ok(1e-7)
    assert not check(dataclasses.replace(found, dual_geq=np.array([1.2])), cvxpy=False).ok()


def test_primal_of():
    given = Given.of(np.diag([1.0, 2]), [np.eye(2)], [1.0], [np.diag([0.0, 1])], [-3.0], [-1, ("free", 1)])
    assert primal_of(given, np.array([[2.0], [0]]), [-3.0]) == (-2.0, 0.0)
    cost, violation = primal_of(given, np.array([[2.0], [0]]), [-4.0])
    assert (cost, violation) == pytest.approx((-4.0, math.sqrt(2) / 4))


def test_without_data_or_cvxpy(result, tmp_path, monkeypatch):
    result.save(tmp_path / "r.npz")
    with pytest.raises(ValueError, match="loaded from a file and holds no data"):
        check(Result.load(tmp_path / "r.npz"))
    monkeypatch.setitem(sys.modules, "cvxpy", None)
    assert check(result).reference is None
    with pytest.raises(ImportError, match=r'pip install "bmsdp\[cvxpy\]"'):
        check(result, cvxpy=True)
