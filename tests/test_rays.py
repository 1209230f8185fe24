"""Rays: found where they exist, checked in plain NumPy, and never for a problem that has an optimum."""

import math
import sys

import numpy as np
import pytest
import scipy.sparse as sp

from bmsdp.cone import Given
from bmsdp.io.sdpa import read_sdpa
from bmsdp.least_squares import System, newton_dual
from bmsdp.rays import check_infeasibility_ray, check_unboundedness_ray, infeasibility_ray, unboundedness_ray


def hermitian(M):
    return (M + M.conj().T) / 2


def inner(M, X):
    return float(np.vdot(M, X).real)


def weighted(weights, matrices):
    return sum((w * M for w, M in zip(weights, matrices, strict=True)), np.zeros_like(matrices[0]) if matrices else 0)


def worst_infeasible(ray, A, b, G, g, blocks):
    """``(lambda_max on the cone, |free|, value)`` in plain NumPy."""
    M = weighted([*ray.dual, *ray.dual_geq], [*A, *G])
    at, top, free = 0, -math.inf, 0.0
    for kind, size in blocks:
        part = M[at : at + size, at : at + size]
        if kind == "psd":
            top = max(top, np.linalg.eigvalsh(part)[-1])
        elif kind == "nonneg":
            top = max(top, part.diagonal().real.max())
        else:
            free = max(free, np.abs(part.diagonal()).max())
        at += size
    return top, free, float(np.dot(b, ray.dual) + np.dot(g, ray.dual_geq))


def direction(ray, blocks):
    """ZZ* on the blocks, with the free variables on the diagonal."""
    n = len(ray.Y)
    Z, at, f = np.zeros((n, n), ray.Y.dtype), 0, 0
    for kind, size in blocks:
        rows = range(at, at + size)
        for s in [slice(at, at + size)] if kind == "psd" else [slice(i, i + 1) for i in rows]:
            Z[s, s] = ray.Y[s] @ ray.Y[s].conj().T
        if kind == "free":
            Z[rows, rows] = ray.free[f : f + size]
            f += size
        at += size
    return Z


# hand-made

I3 = np.eye(3)
INFEASIBLE = {
    "traces": ([I3, 2 * I3], [1.0, 3.0], None, None, None),
    "negative trace": ([I3], [-1.0], None, None, None),
    "semidefinite row": ([np.diag([1.0, 1, 0])], [-1.0], None, None, None),
    "rank one row": ([np.outer([1.0, 2, 3], [1.0, 2, 3])], [-1.0], None, None, None),
    "entry above trace": ([I3, np.array([[0, 1.0, 0], [1, 0, 0], [0, 0, 0]])], [1.0, 1.1], None, None, None),
    "imaginary entry": ([I3, np.array([[0, 1j, 0], [-1j, 0, 0], [0, 0, 0]])], [1.0, -1.1], None, None, None),
    "inequalities": ([], [], [np.diag([1.0, 1, 0]), -I3], [2.0, -1.0], [3]),
    "linear program": ([np.diag([1.0, 1, 1]), np.diag([1.0, -1, 1])], [1.0, 2.0], [np.diag([0.0, 1, 0])], [0.0], [-3]),
    # x1 + f = 0, x2 + f = 1, x2 <= 0.5: x1 = x2 - 1 < 0
    "free variables": (
        [np.diag([1.0, 0, 1]), np.diag([0.0, 1, 1])], [0.0, 1.0], [np.diag([0.0, -1, 0])], [-0.5], [-1, ("nonneg", 1), ("free", 1)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", INFEASIBLE)
def test_hand_made_infeasible(name):
    A, b, G, g, blocks = INFEASIBLE[name]
    n = len((A or G)[0])
    found = infeasibility_ray(np.eye(n), A, b, G, g, blocks, cvxpy=False)
    assert found is not None
    pairs = [("psd", n)] if blocks is None else [e if isinstance(e, tuple) else ("psd" if e > 0 else "nonneg", abs(e)) for e in blocks]
    top, free, value = worst_infeasible(found, A, b, G or [], [] if g is None else g, pairs)
    assert value == pytest.approx(1, rel=1e-9)
    assert max(top, free) <= 1e-12 * found.size
    assert (found.dual_geq >= 0).all()
    assert "no X is feasible" in str(found)
    assert found.parts.keys() == {"dual", "dual_geq"}
    if name != "free variables":  # C = I: bounded below wherever no variable is free
        assert unboundedness_ray(np.eye(n), A, b, G, g, blocks, cvxpy=False, max_iter=500) is None


UNBOUNDED = {
    "no row on it": (np.diag([1.0, 1, -1]), [np.diag([1.0, 1, 0])], [1.0], None, None, None),
    "imaginary": (np.array([[0, 1j, 0], [-1j, 0, 0], [0, 0, 0]]), [np.diag([0, 0, 1.0])], [1.0], None, None, None),
    "difference": (-np.eye(2), [np.diag([1.0, -1])], [1.0], None, None, None),
    "inequality": (np.diag([-1.0, 0.5]), [], [], [np.diag([-1.0, 1.0])], [0.0], [2]),
    "linear program": (np.diag([-1.0, 0, 0]), [np.diag([1.0, -1, 0])], [1.0], [np.diag([0, 1.0, 1])], [0.0], [-3]),
    "free variable": (np.diag([0.0, 1.0]), [np.diag([1.0, 1.0])], [1.0], None, None, [-1, ("free", 1)]),
}


@pytest.mark.parametrize("name", UNBOUNDED)
def test_hand_made_unbounded(name):
    C, A, b, G, g, blocks = UNBOUNDED[name]
    n = len(C)
    found = unboundedness_ray(C, A, b, G, g, blocks, cvxpy=False)
    assert found is not None
    pairs = [("psd", n)] if blocks is None else [e if isinstance(e, tuple) else ("psd" if e > 0 else "nonneg", abs(e)) for e in blocks]
    Z = direction(found, pairs)
    assert inner(C, Z) == pytest.approx(-1, rel=1e-12)
    assert max([abs(inner(M, Z)) for M in A], default=0) <= 1e-12 * found.trace
    assert min([inner(M, Z) for M in G or []], default=0) >= -1e-12 * found.trace
    assert found.parts.keys() == {"Y", "free"}
    assert "along a direction" in str(found)


@pytest.mark.parametrize("cvxpy", [False, True])
def test_sdplib(cvxpy, shared_data):
    if cvxpy:
        pytest.importorskip("cvxpy")
    for name, find, other in (("infd1", infeasibility_ray, unboundedness_ray), ("infp1", unboundedness_ray, infeasibility_ray)):
        C, A, b, meta = read_sdpa(shared_data / "sdplib" / f"{name}.dat-s")
        found = find(C, A, b, blocks=meta["blocks"], cvxpy=cvxpy)
        n = C.shape[0]
        assert found is not None
        assert found.proved
        if name == "infd1":
            M = (found.dual @ A).reshape(n, n)
            assert np.linalg.eigvalsh(M)[-1] < 0
            assert b @ found.dual == pytest.approx(1)
            assert other(C, A, b, blocks=meta["blocks"], cvxpy=cvxpy) is None
        else:
            Z = found.Y @ found.Y.T
            assert C.multiply(Z).sum() == pytest.approx(-1)
            assert np.abs(A @ Z.ravel()).max() <= 1e-12 * np.trace(Z) * np.sqrt(A.multiply(A).sum(axis=1)).max()


# random problems with known answers


def random_data(rng, complex_):
    """A point X, a slack S with ``<X, S> = 0`` and rows; blocks psd, nonneg, free."""
    sizes = [("psd", int(rng.integers(1, 7))), ("nonneg", int(rng.integers(1, 4))), ("free", int(rng.integers(1, 3)))]
    s, l, f = (size for _, size in sizes)
    n, dtype = s + l + f, complex if complex_ else float

    def gauss(*shape):
        return rng.standard_normal(shape) + (1j * rng.standard_normal(shape) if complex_ else 0)

    def matrix():
        M = np.zeros((n, n), dtype)
        M[:s, :s] = hermitian(gauss(s, s))
        M[range(s, n), range(s, n)] = rng.standard_normal(l + f)
        return M

    r = int(rng.integers(1, s + 1))
    Q = np.linalg.qr(gauss(s, s))[0]
    t = np.where(rng.random(l) < 0.5, 1.0, 0.0) * rng.uniform(0.5, 2, l)
    X, S = np.zeros((n, n), dtype), np.zeros((n, n), dtype)
    X[:s, :s] = hermitian(Q[:, :r] @ np.diag(rng.uniform(0.5, 2, r)) @ Q[:, :r].conj().T)
    S[:s, :s] = hermitian(Q[:, r:] @ Q[:, r:].conj().T)
    X[range(s, s + l), range(s, s + l)], S[range(s, s + l), range(s, s + l)] = t, t == 0
    X[range(s + l, n), range(s + l, n)] = rng.standard_normal(f)
    A, G = [matrix() for _ in range(int(rng.integers(1, 6)))], [matrix() for _ in range(int(rng.integers(1, 3)))]
    return sizes, A, G, X, S, rng.standard_normal(len(A)), rng.random(len(G))


@pytest.mark.parametrize("seed", range(14))
def test_never_for_a_problem_with_an_optimum(seed):
    """X feasible, ``C = S + A*(y) + A_geq*(z)`` with complementary slack: both optimal, so neither ray exists."""
    rng = np.random.default_rng(seed)
    sizes, A, G, X, S, y, z = random_data(rng, bool(seed % 2))
    C = hermitian(S + weighted([*y, *z], [*A, *G]))
    b, g = [inner(M, X) for M in A], [inner(M, X) for M in G]
    assert infeasibility_ray(C, A, b, G, g, sizes, cvxpy=False) is None
    assert unboundedness_ray(C, A, b, G, g, sizes, cvxpy=False) is None


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("strict", [False, True])
def test_random_infeasible(seed, strict):
    """``A_1`` chosen so that ``A*(y) + A_geq*(z) = -S``, or ``-S - I`` on the cone, and b so that the value is 1."""
    rng = np.random.default_rng(100 + seed)
    sizes, A, G, X, S, y, z = random_data(rng, bool(seed % 2))
    n, f = len(X), sizes[2][1]
    bounded = np.diag(np.arange(n) < n - f).astype(float)
    y[0] = 1.0
    A[0] = hermitian(-S - strict * bounded - weighted([*y[1:], *z], [*A[1:], *G]))
    b, g = rng.standard_normal(len(A)), rng.standard_normal(len(G))
    b[0] = 1 - b[1:] @ y[1:] - g @ z
    found = infeasibility_ray(np.eye(n), A, b, G, g, sizes, cvxpy=False)
    assert found is not None
    top, free, value = worst_infeasible(found, A, b, G, g, sizes)
    assert value == pytest.approx(1, rel=1e-9)
    assert max(top, free) <= 1e-11 * found.size
    assert (found.dual_geq >= 0).all()


@pytest.mark.parametrize("seed", range(8))
def test_random_unbounded(seed):
    """``<A_j, X> = 0``, ``<G_i, X> >= 0`` and ``<C, X> = -1`` for a known X."""
    rng = np.random.default_rng(200 + seed)
    sizes, A, G, X, S, y, _ = random_data(rng, bool(seed % 2))
    size = inner(X, X)
    A = [hermitian(M - inner(M, X) / size * X) for M in A]
    G = [hermitian(M + (abs(inner(M, X)) - inner(M, X)) / size * X) for M in G]
    C = hermitian(S + weighted(y, A))
    C = hermitian(C - (inner(C, X) + 1) / size * X)
    found = unboundedness_ray(C, A, np.ones(len(A)), G, np.ones(len(G)), sizes, cvxpy=False)
    assert found is not None
    Z = direction(found, sizes)
    assert inner(C, Z) == pytest.approx(-1, rel=1e-11)
    assert max(abs(inner(M, Z)) / np.linalg.norm(M) for M in A) <= 1e-11 * found.trace
    assert min(inner(M, Z) / np.linalg.norm(M) for M in G) >= -1e-11 * found.trace
    assert np.linalg.eigvalsh(Z[: sizes[0][1], : sizes[0][1]])[0] >= -1e-12 * found.trace


# the borderline: feasible far away, or infeasible without a ray


def entry(n, i, j):
    M = np.zeros((n, n))
    M[i, j] += 0.5
    M[j, i] += 0.5
    return M


@pytest.mark.parametrize(("d", "cvxpy"), [(0, False), (1e-2, False), (1e-4, False), (1e-7, False), (1e-10, False), (0, True), (1e-6, True)])
def test_says_nothing_on_the_borderline(d, cvxpy, rng):
    """X_22 = d, X_12 = 1 is feasible with X_11 = 1/d, and for d = 0 infeasible without a ray; and the dual of that."""
    if cvxpy:
        pytest.importorskip("cvxpy")
    T = rng.standard_normal((3, 3))
    rows = [hermitian(T.T @ entry(3, *ij) @ T) for ij in ((1, 1), (0, 1), (0, 0))]
    assert infeasibility_ray(np.eye(3), rows[:2], [d, 1.0], cvxpy=cvxpy, max_iter=500) is None
    # min X_12 + d X_11 over X_22 = 0: the optimum 0 is not attained by any dual for d = 0
    assert unboundedness_ray(rows[1] + d * rows[2], rows[:1], [0.0], cvxpy=cvxpy, max_iter=500) is None


@pytest.mark.parametrize("length", [6, 12])
def test_a_chain_to_a_far_feasible_point(length):
    """x_1 = 1, x_{k+1} = 10 x_k: feasible, with an entry 10^(length - 1)."""
    E = np.eye(length)
    A = [np.diag(E[0]), *(np.diag(E[k + 1] - 10 * E[k]) for k in range(length - 1))]
    assert infeasibility_ray(E, A, [1.0] + [0.0] * (length - 1), blocks=[-length], cvxpy=False) is None


@pytest.mark.parametrize("e", [1e-2, 1e-4, 1e-6])
def test_nearly_equal_traces(e):
    found = infeasibility_ray(I3, [I3, I3], [1.0, 1 + e], cvxpy=False)
    assert found is not None
    assert found.proved


# the checkers alone


def test_checker_of_infeasibility():
    A, b = [I3, np.diag([1.0, 0, 0])], [1.0, 1.5]
    good = check_infeasibility_ray(I3, A, b, dual=[-2.0, 2.0])  # X_11 <= tr X
    assert good.proved
    assert good.dual == pytest.approx([-2, 2])
    loose = check_infeasibility_ray(I3, A, b, dual=[-1.0, 1.1])  # value 0.65, largest eigenvalue 0.1
    assert loose.excess == pytest.approx(0.1 / 0.65)
    assert loose.proved  # the trace is known: 0.1 / 0.65 * 1 < 1
    A, b = [entry(2, 0, 1), np.diag([0.0, 1])], [1.0, 1e-3]
    weak = check_infeasibility_ray(np.eye(2), A, b, dual=[1.0, -100.0])
    assert 0 < weak.excess
    assert 1 / weak.excess <= 1000.1  # the trace of the feasible [[1000, 1], [1, 1e-3]]
    assert not weak.good
    assert check_infeasibility_ray(I3, [I3], [1.0], dual=[-1.0]) is None
    assert check_infeasibility_ray(I3, [I3], [1.0], dual=[0.0]) is None
    negative = check_infeasibility_ray(np.eye(2), [np.eye(2)], [1.0], [np.eye(2)], [3.0], dual=[2.0], dual_geq=[-1.0])
    assert not negative.good  # a negative multiplier counts as 0
    assert negative.dual_geq[0] == 0


def test_checker_of_unboundedness():
    C, A, b = np.diag([1.0, 1, -1]), [np.diag([1.0, 1, 0])], [1.0]
    good = check_unboundedness_ray(C, A, b, Y=np.array([[0.0], [0], [3]]))
    assert good.good
    assert good.residual == 0
    assert good.trace == pytest.approx(1)
    bad = check_unboundedness_ray(C, A, b, Y=np.array([[0.1], [0], [3]]))
    assert not bad.good
    assert bad.residual == pytest.approx(0.01 / math.sqrt(2) / 9.01)
    assert check_unboundedness_ray(C, A, b, Y=np.array([[1.0], [0], [0]])) is None
    broken = check_unboundedness_ray(C, A, b, [np.diag([0.0, 0, -1])], [0.0], Y=np.array([[0.0], [0], [3]]))
    assert broken.residual == pytest.approx(1)
    assert not broken.good


def test_polish_converges_quadratically(rng):
    """Near a singular ray the Newton steps reach rounding from 1e-4."""
    n, m = 8, 5
    Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    A = [hermitian(rng.standard_normal((n, n))) for _ in range(m)]
    y = rng.standard_normal(m)
    y[0] = 1
    A[0] = hermitian(-Q[:, :5] @ np.diag(rng.uniform(1, 2, 5)) @ Q[:, :5].T - weighted(y[1:], A[1:]))
    b = rng.standard_normal(m)
    b[0] = 1 - b[1:] @ y[1:]
    system = System.of(Given.of(np.eye(n), A, b))
    start = y * system.norms * (1 + 1e-5 * rng.standard_normal(m))
    found = newton_dual(system, start, 1e-3) / system.norms
    before, after = (np.linalg.eigvalsh(weighted(v, A))[-1] for v in (start / system.norms, found / (b @ found)))
    assert before > 1e-6
    assert abs(after) < 1e-13


def test_no_rows_no_cost_and_missing_cvxpy(monkeypatch):
    assert infeasibility_ray(I3, blocks=[3]) is None
    assert infeasibility_ray(I3, [I3], [0.0]) is None
    assert unboundedness_ray(sp.csr_array((3, 3)), [I3], [1.0]) is None
    monkeypatch.setitem(sys.modules, "cvxpy", None)
    assert unboundedness_ray(entry(2, 0, 1), [np.diag([0.0, 1])], [0.0], max_iter=300) is None
    with pytest.raises(ImportError, match=r'pip install "bmsdp\[cvxpy\]"'):
        unboundedness_ray(entry(2, 0, 1), [np.diag([0.0, 1])], [0.0], cvxpy=True, max_iter=300)
