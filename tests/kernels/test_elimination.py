import numpy as np
import pytest
import scipy.sparse as sp

from bmsdp import gallery
from bmsdp.kernels import elimination as kernel

BUDGET = 1e9


def path(n):
    return sp.csr_array(sp.diags_array([np.ones(n - 1), np.ones(n - 1)], offsets=[-1, 1]))


def star(n):
    W = sp.lil_array((n, n))
    W[0, 1:], W[1:, 0] = 1, 1
    return sp.csr_array(W)


def grid(n):
    return sp.csr_array(sp.kron(path(n), sp.eye_array(n)) + sp.kron(sp.eye_array(n), path(n)))


def random_pattern(n, density, seed):
    A = sp.random_array((n, n), density=density, rng=np.random.default_rng(seed))
    return sp.csr_array(A + A.T)


GRAPHS = {
    "one vertex": sp.csr_array((1, 1)),
    "one edge": path(2),
    "empty": sp.csr_array((6, 6)),
    "path": path(40),
    "star": star(30),
    "complete": sp.csr_array(np.ones((12, 12)) - np.eye(12)),
    "grid": grid(9),
    "torus": gallery.toroidal_grid(7, 8, 0),
    "hubs": gallery.hubs(150, 0),
    "sparse random": random_pattern(100, 0.02, 0),
    "denser random": random_pattern(80, 0.15, 1),
    "disconnected": sp.csr_array(sp.block_diag([grid(4), sp.csr_array((3, 3)), star(6), np.ones((5, 5)) - np.eye(5)])),
}
EVERY = pytest.mark.parametrize("name", GRAPHS)


def definite(name, dtype, index=np.int32, seed=0):
    """A positive definite Hermitian matrix on the graph, and its diagonal, which is stored in some rows only."""
    rng = np.random.default_rng(seed)
    W = sp.triu(GRAPHS[name], 1).tocoo()
    values = rng.standard_normal(W.nnz) + (1j * rng.standard_normal(W.nnz) if dtype == np.complex128 else 0)
    A = sp.coo_array((values, (W.row, W.col)), shape=W.shape)
    S = sp.csr_array(A + A.conj().T + sp.diags_array((np.arange(W.shape[0]) % 2).astype(float))).astype(dtype)
    S.eliminate_zeros()
    S.indptr, S.indices = S.indptr.astype(index), S.indices.astype(index)
    return S, np.asarray(abs(S).sum(axis=1)).ravel() + rng.random(W.shape[0]) + 0.1


def full(S, diagonal):
    A = S.toarray()
    A[np.diag_indices_from(A)] = diagonal
    return A


def order(S, budget=BUDGET):
    """(perm, pivots before the core, flops)."""
    n = S.shape[0]
    perm, slot, work = np.full(n, -7, np.int64), np.empty(S.nnz, np.int64), np.zeros((13, n + 1), np.int64)
    return perm, *kernel.minimum_degree(S.indptr, S.indices, budget, perm, slot, work, 0)


def analyse(S):
    perm, sparse, flops = order(S)
    return perm, sparse, flops, *kernel.symbolic(S.indptr, S.indices, perm, sparse)


def factor(S, diagonal, perm, sparse, inverse, parent, pointer):
    rows, values = np.zeros(pointer[-1], np.int32), np.zeros(pointer[-1], S.dtype)
    D, core = np.zeros(sparse), np.zeros((len(perm) - sparse,) * 2, S.dtype)
    stop = kernel.factor(S.indptr, S.indices, S.data, diagonal, perm, inverse, parent, pointer, rows, values, D, core)
    return stop, rows, values, D, core


def lower(pointer, rows, values, n):
    """The sparse columns of L (n x sparse) with their unit diagonal."""
    L = np.eye(n, len(pointer) - 1, dtype=values.dtype)
    for j in range(len(pointer) - 1):
        L[rows[pointer[j] : pointer[j + 1]], j] = values[pointer[j] : pointer[j + 1]]
    return L


@pytest.mark.parametrize(("dtype", "index"), [(np.float64, np.int32), (np.float64, np.int64), (np.complex128, np.int32)])
@EVERY
def test_reconstruction(name, dtype, index):
    """``P S P* = L D L* + core``."""
    S, diagonal = definite(name, dtype, index)
    perm, sparse, _, inverse, parent, pointer, _ = analyse(S)
    stop, rows, values, D, core = factor(S, diagonal, perm, sparse, inverse, parent, pointer)
    A, L = full(S, diagonal)[np.ix_(perm, perm)], lower(pointer, rows, values, len(perm))
    rest = A - L * D @ L.conj().T
    core = np.tril(core) + np.tril(core, -1).conj().T
    assert stop == -1 and np.all(D > 0)
    np.testing.assert_allclose(rest[sparse:, sparse:], core, atol=1e-13 * diagonal.max())
    rest[sparse:, sparse:] = 0
    assert np.abs(rest).max(initial=0) <= 1e-14 * diagonal.max()


@EVERY
def test_ordering_is_a_permutation(name):
    S = GRAPHS[name]
    perm, sparse, flops, inverse, *_ = analyse(S)
    n = S.shape[0]
    assert np.array_equal(np.sort(perm), np.arange(n)) and np.array_equal(perm[inverse], np.arange(n))
    assert 0 <= sparse <= n and flops >= 0
    assert np.array_equal(perm[sparse:], np.sort(perm[sparse:]))


def fill_twin(S, perm, sparse):
    """The pattern of L by eliminating one vertex after the other."""
    A = (S.toarray() != 0)[np.ix_(perm, perm)]
    for j in range(sparse):
        below = np.flatnonzero(A[:, j])
        below = below[below > j]
        A[np.ix_(below, below)] = True
    return np.tril(A, -1)[:, :sparse]


@EVERY
def test_symbolic_counts_are_the_fill(name):
    S = GRAPHS[name]
    perm, sparse, flops, _, parent, pointer, terms = analyse(S)
    L = fill_twin(S, perm, sparse)
    n = S.shape[0]
    assert np.array_equal(np.diff(pointer), L.sum(axis=0))
    assert np.array_equal(terms, L.sum(axis=1))
    assert np.array_equal(parent, [np.append(np.flatnonzero(L[:, j]), n)[0] for j in range(sparse)])
    assert flops >= 0 and np.isclose(flops, (L.sum(axis=0) ** 2.0).sum(), rtol=1e-12)


@EVERY
def test_numerical_pattern_is_the_symbolic_one(name):
    S, diagonal = definite(name, np.float64)
    perm, sparse, _, inverse, parent, pointer, _ = analyse(S)
    _, rows, values, _, _ = factor(S, diagonal, perm, sparse, inverse, parent, pointer)
    pattern = fill_twin(S - sp.diags_array(S.diagonal()), perm, sparse)
    assert np.array_equal(lower(pointer, rows, values + 10, len(perm)) - np.eye(len(perm), sparse) != 0, pattern)
    for s, t in zip(pointer[:-1], pointer[1:], strict=True):
        assert np.all(np.diff(rows[s:t]) > 0)


def test_trees_have_no_fill():
    for S in (path(500), star(500)):
        perm, sparse, flops, *_, pointer, _ = analyse(S)
        assert sparse >= 495 and pointer[-1] <= 499 and flops <= 500


def test_core_of_complete_and_empty_graphs():
    assert analyse(GRAPHS["complete"])[1] == 0
    assert analyse(GRAPHS["empty"])[1] == 6
    assert analyse(GRAPHS["one vertex"])[1] == 1


def test_hubs_go_last():
    S = gallery.hubs(1000, 0)
    degree = np.diff(S.indptr)
    perm, _, flops, *_ = analyse(S)
    position = np.empty(1000, int)
    position[perm] = np.arange(1000)
    assert np.all(position[np.argsort(degree)[-3:]] > 500)
    assert flops < 1e7


def test_grid_is_ordered_well():
    """Natural order fills a 40 x 40 grid with 40^3 entries; minimum degree with less than half of that."""
    S = grid(40)
    _, sparse, _, *_, pointer, _ = analyse(S)
    core = 1600 - sparse
    assert pointer[-1] + core * (core - 1) / 2 <= 40**3 / 2


def test_budget_stops_the_ordering():
    S = random_pattern(300, 0.05, 3)
    _, sparse, flops = order(S, 100.0)
    assert sparse == -1 and flops > 100


def test_diagonal_entries_do_not_change_the_ordering():
    S = grid(6)
    D = sp.csr_array(S + sp.eye_array(36))
    assert np.array_equal(analyse(S)[0], analyse(D)[0])


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("name", ["path", "grid", "hubs", "denser random", "complete", "empty"])
def test_stops_at_the_first_bad_pivot(name, dtype):
    S, diagonal = definite(name, dtype)
    perm, sparse, _, inverse, parent, pointer, _ = analyse(S)
    for bad in (0, sparse // 2, sparse - 1):
        if not 0 <= bad < sparse:
            continue
        broken = diagonal.copy()
        broken[perm[bad]] = -1.0
        stop, rows, values, D, _ = factor(S, broken, perm, sparse, inverse, parent, pointer)
        assert stop == bad and D[bad] <= 0 and np.all(D[:bad] > 0)


def test_nan_is_no_pivot():
    S, diagonal = definite("path", np.float64)
    diagonal[3] = np.nan
    perm, sparse, _, inverse, parent, pointer, _ = analyse(S)
    assert factor(S, diagonal, perm, sparse, inverse, parent, pointer)[0] >= 0


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@EVERY
def test_triangular_solves(name, dtype):
    S, diagonal = definite(name, dtype)
    perm, sparse, _, inverse, parent, pointer, _ = analyse(S)
    _, rows, values, _, _ = factor(S, diagonal, perm, sparse, inverse, parent, pointer)
    n = len(perm)
    L = np.eye(n, dtype=dtype)
    L[:, :sparse] = lower(pointer, rows, values, n)
    v = np.random.default_rng(0).standard_normal(n).astype(dtype)
    x = v.copy()
    kernel.solve_forward(pointer, rows, values, x)
    np.testing.assert_allclose(L @ x, v, atol=1e-12)
    x = v.copy()
    kernel.solve_transposed(pointer, rows, values, x)
    np.testing.assert_allclose(L.conj().T @ x, v, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@EVERY
def test_absolute_row_sums(name, dtype):
    S, diagonal = definite(name, dtype)
    perm, sparse, _, inverse, parent, pointer, _ = analyse(S)
    _, rows, values, D, core = factor(S, diagonal, perm, sparse, inverse, parent, pointer)
    L = np.abs(lower(pointer, rows, values, len(perm)))
    core_sums, out = np.arange(1.0, len(core) + 1), np.empty(len(perm))
    kernel.absolute_row_sums(pointer, rows, values, D, core_sums, out)
    expected = (L * D @ L.T).sum(axis=1)
    expected[sparse:] += core_sums
    np.testing.assert_allclose(out, expected, rtol=1e-13)


def test_many_random_graphs_against_dense():
    """Sizes and densities from empty to full: the ordering absorbs elements in every way."""
    for seed in range(150):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(1, 40))
        W = np.triu(rng.random((n, n)) < rng.random() ** 2, 1)
        S = sp.csr_array((W + W.T).astype(float))
        perm, sparse, flops, inverse, parent, pointer, terms = analyse(S)
        assert np.array_equal(np.sort(perm), np.arange(n))
        pattern = fill_twin(S, perm, sparse)
        assert np.array_equal(np.diff(pointer), pattern.sum(axis=0)) and np.array_equal(terms, pattern.sum(axis=1))
        diagonal = S.sum(axis=1) + 1.0
        stop, rows, values, D, core = factor(S, diagonal, perm, sparse, inverse, parent, pointer)
        L = lower(pointer, rows, values, n)
        rest = full(S, diagonal)[np.ix_(perm, perm)] - L * D @ L.T
        rest[sparse:, sparse:] -= np.tril(core) + np.tril(core, -1).T
        assert stop == -1 and np.abs(rest).max() <= 1e-13 * n
