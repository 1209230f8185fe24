import numpy as np
import pytest
import scipy.sparse as sp

from bmsdp.kernels.block_mixing import block_sweep

CASES = pytest.mark.parametrize(
    ("dtype", "d", "k"),
    [(np.float64, 1, 3), (np.float64, 2, 3), (np.float64, 3, 3), (np.complex128, 2, 4), (np.complex128, 3, 5)],
)


def gaussian(rng, shape, dtype):
    Y = rng.standard_normal(shape)
    return Y + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else Y


def polar(M):
    U, _, V = np.linalg.svd(M, full_matrices=False)
    return U @ V


def instance(dtype, d, k, q=12, seed=0):
    """(Hermitian CSR with one isolated block, feasible Y)."""
    rng = np.random.default_rng(seed)
    mask = np.kron(rng.random((q, q)) < 0.4, np.ones((d, d)))
    mask[4 * d : 5 * d], mask[:, 4 * d : 5 * d] = 0, 0
    mask += np.kron(np.eye(q), np.ones((d, d)))
    A = gaussian(rng, (q * d, q * d), dtype) * (mask > 0)
    Y = np.concatenate([polar(gaussian(rng, (d, k), dtype)) for _ in range(q)])
    return sp.csr_array(A + A.conj().T), Y


def sweep(C, d, omega, Y):
    return block_sweep(C.indptr, C.indices, C.data, d, omega, Y, np.empty((d, Y.shape[1]), Y.dtype))


def cost(C, Y):
    return np.vdot(Y, C @ Y).real


def twin(C, d, omega, Y):
    C = C * np.kron(1 - np.eye(len(Y) // d), np.ones((d, d)))
    for s in range(0, len(Y), d):
        i, G = slice(s, s + d), C[s : s + d] @ Y
        Y[i] = polar((1 - omega) * Y[i] - omega * polar(G)) if G.any() else Y[i]


@CASES
@pytest.mark.parametrize("omega", [0.6, 1.0, 1.7, 1.95])
def test_same_as_twin_and_descends(dtype, d, k, omega):
    C, Y = instance(dtype, d, k)
    Z, scale = Y.copy(), abs(C).sum()
    for _ in range(4):
        before = cost(C, Y)
        decrease, grad2 = sweep(C, d, omega, Y)
        twin(C.toarray(), d, omega, Z)
        np.testing.assert_allclose(Y, Z, atol=1e-9)
        assert decrease >= 0 and grad2 > 0
        assert abs(before - cost(C, Y) - decrease) <= 1e-14 * scale
    for s in range(0, len(Y), d):
        np.testing.assert_allclose(Y[s : s + d] @ Y[s : s + d].conj().T, np.eye(d), atol=1e-13)


@CASES
def test_isolated_block_and_diagonal_blocks(dtype, d, k):
    C, Y = instance(dtype, d, k)
    kept, Z = Y.copy(), Y.copy()
    B = np.random.default_rng(1).standard_normal((d, d))
    D = sp.csr_array((C + 30 * sp.block_diag([B + B.T] * 12)).astype(dtype))
    first, second = sweep(C, d, 1.5, Y), sweep(D, d, 1.5, Z)
    np.testing.assert_allclose(Y, Z, atol=1e-12)
    np.testing.assert_allclose(first, second, rtol=1e-10)
    assert np.array_equal(Y[4 * d : 5 * d], kept[4 * d : 5 * d])
    assert not np.array_equal(Y[:d], kept[:d])


@CASES
def test_limit_is_critical(dtype, d, k):
    C, Y = instance(dtype, d, k, seed=1)
    for _ in range(3000):
        _, grad2 = sweep(C, d, 1.5, Y)
    G, grad = C @ Y, np.empty_like(Y)
    for s in range(0, len(Y), d):
        i = slice(s, s + d)
        L = G[i] @ Y[i].conj().T
        grad[i] = 2 * (G[i] - (L + L.conj().T) / 2 @ Y[i])
    assert np.linalg.norm(grad) <= 1e-7 and grad2 <= 1e-14


def test_one_block_has_nothing_to_do():
    Y = np.eye(2, 3)
    C = sp.csr_array(np.array([[1.0, 2.0], [2.0, 3.0]]))
    assert sweep(C, 2, 1.5, Y) == (0, 0) and np.array_equal(Y, np.eye(2, 3))


def test_gradient_met_on_the_way():
    """With a step of almost nothing, the sweep meets the gradient at its start."""
    C, Y = instance(np.float64, 2, 3)
    G, expected = C @ Y, 0.0
    for s in range(0, len(Y), 2):
        L = G[s : s + 2] @ Y[s : s + 2].T
        expected += 4 * np.linalg.norm(G[s : s + 2] - (L + L.T) / 2 @ Y[s : s + 2]) ** 2
    _, grad2 = sweep(C, 2, 1e-9, Y)
    assert np.isclose(grad2, expected, rtol=1e-6)


@CASES
@pytest.mark.parametrize("omega", [0.1, 0.5, 1.3, 1.99])
def test_descends_where_the_polar_factor_is_not_unique(dtype, d, k, omega):
    """Square blocks of opposite determinants at omega = 1/2: the relaxed sum is singular."""
    for seed in range(10):
        C, Y = instance(dtype, d, k, seed=seed)
        scale = abs(C).sum()
        for _ in range(10):
            before = cost(C, Y)
            decrease, _ = sweep(C, d, omega, Y)
            assert decrease >= -1e-15 * scale and abs(before - cost(C, Y) - decrease) <= 1e-14 * scale
        assert np.allclose(np.linalg.norm(Y, axis=1), 1, atol=1e-13)
