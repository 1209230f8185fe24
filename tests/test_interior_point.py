"""Clarabel through CVXPY: published values, bounds on the right side, signs, and a primal form written in other words."""

import sys

import numpy as np
import pytest

from bmsdp.dimacs import dimacs
from bmsdp.interior_point import interior_point
from bmsdp.io.sdpa import read_sdpa

cp = pytest.importorskip("cvxpy")

# SDPLIB's table: value, half a unit of its last digit, gap wanted
PUBLISHED = {
    "truss1": (-8.999996, 5e-7, 1e-6),
    "truss4": (-9.009996, 5e-7, 1e-6),
    "control1": (17.78463, 5e-6, 1e-6),
    "control2": (8.3, 5e-7, 1e-6),
    "control3": (13.63327, 5e-6, 1e-6),
    "qap5": (-436.0, 5e-2, 1e-6),
    "hinf1": (2.0326, 5e-5, 1e-5),
}
LARGER = {"arch0": (0.566517, 5e-7, 1e-6)}


def solved(name, shared_data):
    C, A, b, meta = read_sdpa(shared_data / "sdplib" / f"{name}.dat-s")
    found = interior_point(C, A, b, blocks=meta["blocks"])
    errors = dimacs(C, A, b, Y=found.Y, free=found.free, dual=found.dual, blocks=meta["blocks"])
    return found, errors, float(C.multiply(found.Y @ found.Y.T).sum())


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_values(name, shared_data):
    value, digits, gap = PUBLISHED[name]
    found, errors, cost = solved(name, shared_data)
    assert found.status in ("solved", "inaccurate")
    assert -cost == pytest.approx(value, abs=digits + gap * abs(value))
    assert -found.bound >= value - digits, "the bound is on the wrong side of the published optimum"
    assert abs(cost - found.bound) <= gap * abs(cost)
    assert errors.worst <= gap
    assert errors.err4 <= 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGER)
def test_published_values_of_larger_ones(name, shared_data):
    value, digits, gap = LARGER[name]
    found, errors, cost = solved(name, shared_data)
    assert -cost == pytest.approx(value, abs=digits + gap * abs(value))
    assert -found.bound >= value - digits
    assert abs(cost - found.bound) <= gap * abs(cost)
    assert errors.worst <= 1e-5


@pytest.mark.parametrize(("name", "word"), [("infd1", "infeasible"), ("infp1", "unbounded")])
def test_infeasible_and_unbounded(name, word, shared_data):
    C, A, b, meta = read_sdpa(shared_data / "sdplib" / f"{name}.dat-s")
    found = interior_point(C, A, b, blocks=meta["blocks"])
    assert (found.status, found.bound) == (word, -np.inf)


def random_problem(rng, complex_, with_free):
    """Strictly feasible on both sides; blocks psd 4, nonneg 2, psd 3, free 2."""
    sizes = [("psd", 4), ("nonneg", 2), ("psd", 3)] + ([("free", 2)] if with_free else [])
    n = sum(size for _, size in sizes)

    def matrix():
        M, at = np.zeros((n, n), complex if complex_ else float), 0
        for kind, size in sizes:
            N = rng.standard_normal((size, size)) + (1j * rng.standard_normal((size, size)) if complex_ else 0)
            N = (N + N.conj().T) / 2
            M[at : at + size, at : at + size] = N if kind == "psd" else np.diag(N.diagonal().real)
            at += size
        return M

    A, G = [matrix() for _ in range(4)], [matrix() for _ in range(2)]
    X = np.eye(n)
    b, g = [np.trace(M).real for M in A], [np.trace(M).real - 0.3 for M in G]
    S = np.eye(n)
    S[range(9, n), range(9, n)] = 0
    y, z = rng.standard_normal(4), np.array([0.5, 1.0])
    C = S + sum(v * M for v, M in zip([*y, *z], [*A, *G], strict=True))
    return sizes, n, C, A, b, G, g, X


def primal_value(sizes, C, A, b, G, g):
    """CVXPY's optimum of the primal form, a variable per block."""
    at, parts = 0, []
    for kind, size in sizes:
        rows = slice(at, at + size)
        complex_ = np.iscomplexobj(C)
        variable = cp.Variable(size) if kind != "psd" else cp.Variable((size, size), hermitian=complex_, symmetric=not complex_)
        parts.append((kind, rows, variable))
        at += size

    def inner(M):
        total = 0
        for kind, rows, x in parts:
            if kind == "psd":
                term = cp.sum(cp.multiply(M[rows, rows].conj(), x))
                total += cp.real(term) if np.iscomplexobj(M) else term
            else:
                total += M[rows, rows].diagonal().real @ x
        return total

    cone = [x >> 0 if kind == "psd" else x >= 0 for kind, _, x in parts if kind != "free"]
    rows = [inner(M) == v for M, v in zip(A, b, strict=True)] + [inner(M) >= v for M, v in zip(G, g, strict=True)]
    problem = cp.Problem(cp.Minimize(inner(C)), rows + cone)
    return problem.solve(solver=cp.CLARABEL)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize("with_free", [False, True])
def test_blocks_inequalities_and_signs(seed, complex_, with_free):
    rng = np.random.default_rng(seed)
    sizes, _, C, A, b, G, g, _ = random_problem(rng, complex_, with_free)
    found = interior_point(C, A, b, G, g, sizes)
    errors = dimacs(
        C, A, b, Y=found.Y, free=found.free, dual=found.dual, A_geq=G, b_geq=g, dual_geq=found.dual_geq, blocks=sizes
    )  # fmt: skip
    want = primal_value(sizes, C, A, b, G, g)
    value = b @ found.dual + g @ found.dual_geq
    assert found.status in ("solved", "inaccurate")
    assert np.iscomplexobj(found.Y) == complex_
    assert errors.worst < 1e-6
    assert value == pytest.approx(want, rel=1e-6)
    assert (found.dual_geq >= 0).all()
    if not with_free:  # equations of free variables hold up to rounding only, which nothing need pay for
        assert want - 1e-6 * abs(want) <= found.bound <= want + 1e-6 * abs(want)
    assert found.bound <= want + 1e-6 * abs(want)


def test_unit_diagonal_and_manifold():
    from bmsdp import Oblique

    C = np.random.default_rng(1).standard_normal((8, 8))
    C = C + C.T
    found, other = interior_point(C), interior_point(C, Oblique(np.ones(8)))
    y = cp.Variable(8)
    want = cp.Problem(cp.Maximize(cp.sum(y)), [C - cp.diag(y) >> 0]).solve(solver=cp.CLARABEL)
    assert found.bound == pytest.approx(want, rel=1e-7)
    assert other.bound == pytest.approx(want, rel=1e-7)
    assert np.einsum("ij,ij->i", found.Y, found.Y) == pytest.approx(np.ones(8), abs=1e-8)


@pytest.mark.parametrize("scale", [(1e-6, 1e5), (1e7, 1e-4)])
def test_scales_do_not_matter(scale):
    rng = np.random.default_rng(5)
    sizes, _, C, A, b, G, g, _ = random_problem(rng, False, False)
    base = interior_point(C, A, b, G, g, sizes)
    found = interior_point(scale[0] * C, A, scale[1] * np.array(b), G, scale[1] * np.array(g), sizes)
    assert found.bound == pytest.approx(scale[0] * scale[1] * base.bound, rel=1e-6)


def test_a_bound_without_room():
    """Only one y is dual feasible, with a singular slack: X_22 has cost 0 and no row.  The bound stays a bound."""
    found = interior_point(np.diag([1.0, 0.0]), [np.diag([1.0, 0.0])], [1.0])
    assert found.status in ("solved", "inaccurate")
    assert found.bound <= 1


def test_no_rows_at_all():
    found = interior_point(np.eye(3), blocks=[3])
    assert found.bound == pytest.approx(0, abs=1e-7)
    assert found.bound <= 0


def test_time_limit():
    C = np.random.default_rng(0).standard_normal((30, 30))
    assert interior_point(C + C.T, tol=1e-14, attempts=3).solves == 3
    assert interior_point(C + C.T, tol=1e-14, attempts=3, max_time=1e-9).solves < 3


def test_missing_cvxpy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cvxpy", None)
    with pytest.raises(ImportError, match=r'pip install "bmsdp\[cvxpy\]"'):
        interior_point(np.eye(2))
