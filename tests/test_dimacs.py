"""DIMACS errors: by hand, by a dense twin in other words, at optimal pairs of another solver, and at spoilt ones."""

import math
import tracemalloc

import numpy as np
import pytest
import scipy.sparse as sp

import bmsdp
from bmsdp import LowRankPlusSparse, Oblique, gallery
from bmsdp.applications import maxcut
from bmsdp.cone import as_cone
from bmsdp.dimacs import DimacsErrors, dimacs
from bmsdp.linear_maps import as_linear_map


def hermitian(rng, n, complex_=False):
    M = rng.standard_normal((n, n)) + (1j * rng.standard_normal((n, n)) if complex_ else 0)
    return (M + M.conj().T) / 2


def block_diagonal(rng, blocks, complex_=False):
    """A random matrix that keeps to the blocks: pairs (kind, size)."""
    n = sum(size for _, size in blocks)
    M, at = np.zeros((n, n), complex if complex_ else float), 0
    for kind, size in blocks:
        rows = slice(at, at + size)
        M[rows, rows] = hermitian(rng, size, complex_) if kind == "psd" else np.diag(rng.standard_normal(size))
        at += size
    return M


def twin(C, A, b, X, y, G, g, z, blocks, Z=None):
    """The six errors written out: each inequality as one more nonnegative variable, each free one as a pair of them."""
    S = C - sum((y[j] * A[j] for j in range(len(A))), np.zeros_like(C)) - sum((z[i] * G[i] for i in range(len(G))), np.zeros_like(C))
    given = S if Z is None else Z
    inner = lambda M, N: np.trace(M.conj().T @ N).real  # noqa: E731
    parts, at = [], 0
    for kind, size in blocks:
        parts.append((kind, slice(at, at + size)))
        at += size
    residual = [inner(A[j], X) - b[j] for j in range(len(A))]
    room = [inner(G[i], X) - g[i] for i in range(len(G))]
    residual += [min(r, 0) for r in room]
    one_b = 1 + max([abs(v) for v in [*b, *g]], default=0)
    one_C = 1 + np.abs(C).max()
    eig_X, eig_Z, off, XZ = [0.0], [min([*z, 0.0])], 0.0, sum(max(r, 0) * v for r, v in zip(room, z, strict=True))
    for kind, rows in parts:
        if kind == "free":
            off += sum(abs(S[i, i]) ** 2 for i in range(rows.start, rows.stop))
            continue
        off += np.sum(np.abs(S[rows, rows] - given[rows, rows]) ** 2)
        XZ += inner(X[rows, rows], given[rows, rows])
        for M, least in ((X, eig_X), (given, eig_Z)):
            least.append(np.linalg.eigvalsh(M[rows, rows]).min())
    cost, value = inner(C, X), float(np.dot(y, b) + np.dot(z, g))
    scale = 1 + abs(cost) + abs(value)
    return [
        math.sqrt(sum(r * r for r in residual)) / one_b, max(0.0, -min(eig_X)) / one_b, math.sqrt(off) / one_C,
        max(0.0, -min(eig_Z)) / one_C, (cost - value) / scale, XZ / scale,
    ]  # fmt: skip


def test_by_hand():
    """Min 2 X_12, X_11 = X_22 = 1: X = [[1, -1], [-1, 1]], y = (-1, -1); then X_11 = 1.5 and y_2 = 0."""
    C = np.array([[0.0, 1], [1, 0]])
    assert dimacs(C, Y=np.array([[1.0], [-1]]), dual=[-1, -1]) == (0, 0, 0, 0, 0, 0)
    X = np.array([[1.5, -1], [-1, 1]])
    found = dimacs(C, X=X, dual=[-1, 0])  # S = [[1, 1], [1, 0]]
    assert found == pytest.approx((0.5 / 2, 0, 0, (math.sqrt(5) - 1) / 4, (-2 + 1) / 4, -0.5 / 4), abs=1e-15)
    found = dimacs(C, X=np.array([[1, -2], [-2, 1]]), dual=[-1, -1])
    assert found == pytest.approx((0, 1 / 2, 0, 0, -2 / 7, -2 / 7), abs=1e-15)


def test_variables_and_inequalities_by_hand():
    """Min x + 2 f over x >= 0, f free: x + f = 1, f >= -3; optimum x = 4, f = -3 with y = 1, z = 1, cost -2 = 1 - 3."""
    C, A, G = np.diag([1.0, 2]), [np.eye(2)], [np.diag([0.0, 1])]
    data = {"A_geq": G, "b_geq": [-3.0], "blocks": [-1, ("free", 1)]}
    Y = np.array([[2.0], [0]])
    assert dimacs(C, A, [1.0], Y=Y, free=[-3.0], dual=[1.0], dual_geq=[1.0], **data).worst == 0
    found = dimacs(C, A, [1.0], Y=Y, free=[-4.0], dual=[1.0], dual_geq=[1.5], **data)
    # rows: x + f - 1 = -1 and f + 3 = -1; S_ff = 2 - 1 - 1.5 = -0.5; <C, X> = -4, value 1 - 4.5 = -3.5
    assert found == pytest.approx((math.sqrt(2) / 4, 0, 0.5 / 3, 0, -0.5 / 8.5, 0), abs=1e-15)
    found = dimacs(C, A, [1.0], Y=Y, free=[-2.0], dual=[2.0], dual_geq=[-0.5], **data)
    # S_xx = -1, S_ff = 0.5, z < 0; slack variable s = 1: <X, Z> = 4 * -1 + 1 * -0.5; <C, X> = 0, value 2 + 1.5
    assert found == pytest.approx((1 / 4, 0, 0.5 / 3, 1 / 3, -3.5 / 4.5, -4.5 / 4.5), abs=1e-15)


@pytest.mark.parametrize("seed", range(24))
def test_dense_twin(seed):
    rng = np.random.default_rng(seed)
    complex_ = bool(seed % 2)
    blocks = [("psd", 3), ("nonneg", 2), ("free", 2), ("psd", 4)] if seed % 3 else [("psd", 5)]
    n = sum(size for _, size in blocks)
    m, k, r = int(rng.integers(1, 5)), int(rng.integers(0, 4)), 3
    C = block_diagonal(rng, blocks, complex_)
    A, G = ([block_diagonal(rng, blocks, complex_) for _ in range(c)] for c in (m, k))
    b, g, y, z = (rng.standard_normal(c) for c in (m, k, m, k))
    cone = as_cone(blocks, n)
    Y = rng.standard_normal((n, r)) + (1j * rng.standard_normal((n, r)) if complex_ else 0)
    Y[cone.free] = 0
    free = rng.standard_normal(len(cone.free))
    X = np.zeros((n, n), Y.dtype)
    for rows in [*cone.psd, *(slice(i, i + 1) for i in cone.nonneg)]:
        X[rows, rows] = Y[rows] @ Y[rows].conj().T
    X[cone.free, cone.free] = free
    data = {"A_geq": G or None, "b_geq": g if k else None, "blocks": blocks, "dual": y, "dual_geq": z}
    want = twin(C, A, b, X, y, G, g, z, blocks)
    assert dimacs(C, A, b, Y=Y, free=free, **data) == pytest.approx(want, rel=1e-11, abs=1e-13)
    assert dimacs(C, A, b, X=X, **data) == pytest.approx(want, rel=1e-11, abs=1e-13)
    sparse = data | {"A_geq": [sp.csr_array(M) for M in G] or None}
    assert dimacs(sp.csr_array(C), [sp.csr_array(M) for M in A], b, Y=Y, free=free, **sparse) == pytest.approx(want, rel=1e-11, abs=1e-13)
    Z, X = block_diagonal(rng, blocks, complex_), block_diagonal(rng, blocks, complex_)
    want = twin(C, A, b, X, y, G, g, z, blocks, Z)
    assert want[1] > 0
    assert want[2] > 0
    assert dimacs(C, A, b, X=X, Z=Z, **data) == pytest.approx(want, rel=1e-11, abs=1e-13)
    assert dimacs(C, A, b, X=sp.csr_array(X), Z=sp.csr_array(Z), **data) == pytest.approx(want, rel=1e-11, abs=1e-13)


@pytest.mark.parametrize("seed", range(6))
def test_gap_is_complementarity_and_residuals(seed):
    """``<C, X> - <b, y> = <X, S> + <y, A(X) - b>``, for any pair."""
    rng = np.random.default_rng(seed)
    C, A = hermitian(rng, 6), [hermitian(rng, 6) for _ in range(3)]
    Y, y, b = rng.standard_normal((6, 2)), rng.standard_normal(3), rng.standard_normal(3)
    found = dimacs(C, A, b, Y=Y, dual=y)
    X = Y @ Y.T
    scale = 1 + abs(np.vdot(C, X)) + abs(b @ y)
    rest = y @ (np.array([np.vdot(M, X) for M in A]) - b)
    assert (found.err5 - found.err6) * scale == pytest.approx(rest, rel=1e-10)


def optimal_pair(complex_, rng):
    """Clarabel's X and duals of a random problem with inequalities and two blocks, through CVXPY's primal form."""
    cp = pytest.importorskip("cvxpy")
    sizes, n = (4, 3), 7
    blocks = [("psd", s) for s in sizes]
    C = block_diagonal(rng, blocks, complex_) + 3 * np.eye(n)
    A = [np.eye(n), block_diagonal(rng, blocks, complex_)]
    G = [block_diagonal(rng, blocks, complex_)]
    X = [cp.Variable((s, s), hermitian=True) if complex_ else cp.Variable((s, s), symmetric=True) for s in sizes]

    def inner(M):
        terms = [cp.sum(cp.multiply(M[r, r].conj(), x)) for r, x in zip((slice(0, 4), slice(4, 7)), X, strict=True)]
        return sum(cp.real(t) if complex_ else t for t in terms)

    b, g = [2.0, np.trace(A[1]).real / 4], [np.trace(G[0]).real / 4 - 0.1]
    rows = [inner(M) == v for M, v in zip(A, b, strict=True)] + [inner(G[0]) >= g[0]]
    problem = cp.Problem(cp.Minimize(inner(C)), rows + [x >> 0 for x in X])
    problem.solve(solver=cp.CLARABEL)
    full = np.zeros((n, n), complex if complex_ else float)
    full[:4, :4], full[4:, 4:] = X[0].value, X[1].value
    y, z = -np.array([float(r.dual_value) for r in rows[:2]]), np.array([float(rows[2].dual_value)])
    return C, A, b, (full + full.conj().T) / 2, y, {"A_geq": G, "b_geq": g, "dual_geq": z, "blocks": list(sizes)}


@pytest.mark.parametrize("complex_", [False, True])
def test_optimal_pairs_and_spoilt_ones(complex_, rng):
    C, A, b, X, y, data = optimal_pair(complex_, rng)
    found = dimacs(C, A, b, X=X, dual=y, **data)
    assert found.worst < 1e-7
    values, vectors = np.linalg.eigh(X)
    Y = vectors * np.sqrt(np.maximum(values, 0))
    assert dimacs(C, A, b, Y=Y, dual=y, **data).worst < 1e-6
    assert dimacs(C, A, b, X=1.01 * X, dual=y, **data).err1 > 1e-3
    v = np.linalg.eigh(X[:4, :4])[1][:, :1]
    worse = X.copy()
    worse[:4, :4] -= 0.1 * v @ v.conj().T
    assert dimacs(C, A, b, X=worse, dual=y, **data).err2 == pytest.approx(0.1 / 3, abs=1e-4)
    low = dimacs(C, A, b, X=X, dual=y + np.array([0.1, 0]), **data)  # S - 0.1 I
    assert low.err4 == pytest.approx(0.1 / (1 + np.abs(C).max()), rel=1e-4)
    assert low.err5 < -1e-3
    S = C - y[0] * A[0] - y[1] * A[1] - data["dual_geq"][0] * data["A_geq"][0]
    assert dimacs(C, A, b, X=X, dual=y, Z=S + 0.1 * np.eye(7), **data).err3 == pytest.approx(0.1 * math.sqrt(7) / (1 + np.abs(C).max()))
    assert dimacs(C, A, b, X=X, dual=y, **data | {"dual_geq": np.array([-0.1])}).err4 >= 0.1 / (1 + np.abs(C).max())


def test_invariance(rng):
    """Rotated factors and permuted rows give the same errors, bit patterns aside."""
    C, A, y, b = hermitian(rng, 8), [hermitian(rng, 8) for _ in range(3)], rng.standard_normal(3), rng.standard_normal(3)
    Y = rng.standard_normal((8, 3))
    want = dimacs(C, A, b, Y=Y, dual=y)
    Q = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    assert dimacs(C, A, b, Y=Y @ Q, dual=y) == pytest.approx(want, rel=1e-11)
    p = rng.permutation(8)
    assert dimacs(C[np.ix_(p, p)], [M[np.ix_(p, p)] for M in A], b, Y=Y[p], dual=y) == pytest.approx(want, rel=1e-11)


def test_maps_manifolds_and_operators(rng):
    n = 30
    C, Y, y = hermitian(rng, n), rng.standard_normal((n, 3)), rng.standard_normal(n)
    want = dimacs(C, [np.diag(e) for e in np.eye(n)], np.ones(n), Y=Y, dual=y)
    assert dimacs(C, Y=Y, dual=y) == pytest.approx(want, rel=1e-12)
    assert dimacs(C, Oblique(np.ones(n)), Y=Y, dual=y) == pytest.approx(want, rel=1e-12)
    assert dimacs(C, Oblique(np.ones(n)), X=Y @ Y.T, dual=y) == pytest.approx(want, rel=1e-11, abs=1e-12)
    linear = as_linear_map([np.diag(e) for e in np.eye(n)], n)
    assert dimacs(C, linear, np.ones(n), Y=Y, dual=y) == pytest.approx(want, rel=1e-12)
    U, d = rng.standard_normal((n, 2)), np.array([1.0, -2])
    low = LowRankPlusSparse(None, U, d)
    assert dimacs(low, Y=Y, dual=y) == pytest.approx(dimacs((U * d) @ U.T, Y=Y, dual=y), rel=1e-10)


def test_large_sparse_needs_no_square_array():
    """S = L - t I with L the Laplacian of a ring: the least eigenvalue is -t."""
    n, t = 20_000, 1e-3
    i = np.arange(n)
    ring = sp.coo_array((np.ones(n), (i, (i + 1) % n)), shape=(n, n)).tocsr()
    C = sp.csr_array(2 * sp.eye_array(n) - ring - ring.T)
    Y = np.ones((n, 1))
    tracemalloc.start()
    found = dimacs(C, Y=Y, dual=np.full(n, t))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert t / 3 <= found.err4 <= 2.1 * t / 3
    assert found.err5 == pytest.approx(-n * t / (1 + n * t))
    assert peak < 500 * n * 8
    assert dimacs(C, Y=Y, dual=np.full(n, -1e-9)).err4 <= 1e-10


@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize("kind", ["dense", "low rank", "operator"])
def test_large_without_a_factorisation(kind, complex_, rng):
    n = 1100
    U = rng.standard_normal((n, 5)) + (1j * rng.standard_normal((n, 5)) if complex_ else 0)
    d = np.array([3.0, 2, 1, -1, -2]) / n
    full = (U * d) @ U.conj().T + np.diag(np.linspace(1, 2, n))
    full = (full + full.conj().T) / 2
    low = LowRankPlusSparse(sp.diags_array(np.linspace(1, 2, n)).tocsr(), U, d)
    C = {"dense": full, "low rank": low, "operator": sp.linalg.aslinearoperator(full)}[kind]
    y = rng.uniform(0.5, 0.6, n)
    exact = np.linalg.eigvalsh(full - np.diag(y))[0]
    found = dimacs(C, Y=U[:, :2], dual=y)
    most = 1 + np.abs(full).max() if kind != "operator" else 1 + bmsdp.operators.spectral_norm(bmsdp.operators.as_operator(C))
    assert exact < 0
    assert -exact <= found.err4 * most * (1 + 1e-9) <= -exact * (1 + 1e-6)


def test_a_solved_instance():
    W = gallery.toroidal_grid(40, 40, rng=0)
    result = bmsdp.solve(maxcut.problem(W), rng=0, tol=1e-7)
    found = dimacs(result.data.C, result.data.A, result.data.b, Y=result.Y, dual=result.dual)
    assert found.worst < 1e-7
    assert found.err5 >= -1e-15


def test_refusals():
    C, Y = np.eye(3), np.ones((3, 1))
    with pytest.raises(ValueError, match="either the factor Y or the matrix X"):
        dimacs(C, dual=np.zeros(3))
    with pytest.raises(ValueError, match="either the factor Y or the matrix X"):
        dimacs(C, dual=np.zeros(3), Y=Y, X=np.eye(3))
    with pytest.raises(ValueError, match=r"Y has shape \(2, 1\); 3 rows"):
        dimacs(C, dual=np.zeros(3), Y=np.ones((2, 1)))
    with pytest.raises(ValueError, match=r"dual has shape \(2,\) but A has 3 rows"):
        dimacs(C, dual=np.zeros(2), Y=Y)
    with pytest.raises(ValueError, match=r"blocks has 2 rows in all but C has 3"):
        dimacs(C, [np.eye(3)], [1.0], dual=[0.0], Y=Y, blocks=[2])
    with pytest.raises(ValueError, match=r"A_0 has an entry at \(0, 2\), outside the blocks"):
        dimacs(C, [np.ones((3, 3))], [1.0], dual=[0.0], Y=Y, blocks=[2, 1])
    with pytest.raises(ValueError, match=r"C has an entry at \(0, 2\), outside the blocks"):
        dimacs(np.ones((3, 3)), [np.eye(3)], [1.0], dual=[0.0], Y=Y, blocks=[2, 1])
    for entry in (0, ("cone", 3), ("free", 1.5)):
        with pytest.raises(ValueError, match="blocks has the entry"):
            dimacs(C, [np.eye(3)], [1.0], dual=[0.0], Y=Y, blocks=[entry])


def test_errors_speak():
    found = DimacsErrors(1e-9, 0.0, 2e-8, 0.0, -3e-7, 1e-8)
    assert found.worst == 3e-7
    assert repr(found).startswith("DimacsErrors(err1 1.0e-09 [A(X)-b], ")
    assert "err5 -3.0e-07 [gap]" in repr(found)
    assert math.isnan(found._replace(err2=math.nan).worst)
