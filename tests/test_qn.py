"""Multisecant updates against dense least squares, constrained minimisers and the classical formulas."""

import numpy as np
import pytest
import scipy.linalg as sla

import bmsdp
from bmsdp.qn import (
    Factored,
    GroupedMultisecant,
    LowRank,
    SymmetricMultisecant,
    Weighted,
    multisecant,
    symmetric_multisecant,
    weighted,
)

SHAPES = [(1, 1), (2, 1), (3, 2), (4, 4), (5, 3), (3, 6), (12, 4), (30, 5)]


def norm(X):
    return float(np.linalg.norm(X))


def spd(n, rng, cond=10.0):
    Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    return (Q * np.geomspace(1, cond, n)) @ Q.T


def symmetric_basis(n):
    """Orthonormal in the Frobenius inner product."""
    basis = []
    for i in range(n):
        for j in range(i + 1):
            E = np.zeros((n, n))
            E[i, j] = E[j, i] = 1
            basis.append(E / norm(E))
    return np.array(basis)


def oracle(A, D, theta, reg, symmetric=True):
    """Least squares in coordinates of H - theta I; of several solutions the one closest to theta I."""
    n = len(A)
    basis = symmetric_basis(n) if symmetric else np.eye(n * n).reshape(-1, n, n)
    system = (basis @ A).reshape(len(basis), -1).T
    right = (D - theta * A).ravel()
    if reg:
        system = np.vstack([system, np.sqrt(reg / 2) * basis.reshape(len(basis), -1).T])
        right = np.append(right, np.zeros(n * n))
    c = sla.lstsq(system, right, cond=1e-9)[0]
    return theta * np.eye(n) + np.tensordot(c, basis, 1)


def least_change(A, D, H0, W=None, symmetric=True):
    """argmin |W^1/2 (H - H0) W^1/2|_F over H A = D, by the null space of the constraints."""
    n = len(A)
    basis = symmetric_basis(n) if symmetric else np.eye(n * n).reshape(-1, n, n)
    root = np.eye(n) if W is None else sla.sqrtm(W).real
    constraints = (basis @ A).reshape(len(basis), -1).T
    c0 = sla.lstsq(constraints, (D - H0 @ A).ravel(), cond=1e-10)[0]
    assert norm(constraints @ c0 - (D - H0 @ A).ravel()) < 1e-9 * (1 + norm(D)), "the constraints have no solution"
    free = sla.null_space(constraints, rcond=1e-10)
    size = (root @ basis @ root).reshape(len(basis), -1).T
    c = c0 - free @ sla.lstsq(size @ free, size @ c0)[0] if free.size else c0
    return H0 + np.tensordot(c, basis, 1)


def pairs(n, m, rng, rank=None):
    A, D = rng.standard_normal((2, n, m))
    if rank is not None and rank < min(n, m):
        A = A[:, :rank] @ rng.standard_normal((rank, m))
    return A, D


# ---------------------------------------------------------------- the symmetric least-squares solution


@pytest.mark.parametrize(
    ("A", "D", "theta", "reg", "H", "residual2"),
    [
        ([1, 0], [2, 1], 0, 0, [[2, 1], [1, 0]], 0),
        ([1, 0], [2, 1], 0, 2, [[1, 1 / 3], [1 / 3, 0]], 13 / 9),
        (np.eye(2), [[1, 2], [0, 1]], 0, 0, [[1, 1], [1, 1]], 2),
        (np.diag([2, 1]), [[2, 0], [3, 1]], 0, 0, [[1, 1.2], [1.2, 1]], 1.8),
        (np.diag([2, 1]), [[2, 0], [3, 1]], 1, 1, [[1, 1], [1, 1]], 2),
    ],
)
def test_by_hand(A, D, theta, reg, H, residual2):
    found = symmetric_multisecant(A, D, theta, reg).dense()
    np.testing.assert_allclose(found, H, atol=1e-14)
    assert norm(found @ np.array(A) - D) ** 2 == pytest.approx(residual2, abs=1e-13)


@pytest.mark.parametrize(("n", "m"), SHAPES)
@pytest.mark.parametrize("reg", [0.0, 1e-3, 2.0])
@pytest.mark.parametrize("theta", [0.7, 0.0, -2.0])
def test_is_the_dense_least_squares_solution(n, m, reg, theta):
    if n > 12 and theta != 0.7:
        return
    rng = np.random.default_rng(n + 10 * m)
    for rank in (None, 1, 2):
        A, D = pairs(n, m, rng, rank)
        H = symmetric_multisecant(A, D, theta, reg)
        X, expected = H.dense(), oracle(A, D, theta, reg) if n <= 12 else None
        assert norm(X - X.T) <= 1e-14 * norm(X)
        if expected is not None:
            np.testing.assert_allclose(X, expected, atol=1e-9 * (1 + norm(expected)))
        K = D @ A.T + A @ D.T + reg * theta * np.eye(n)
        if reg:  # the normal equation, which is more accurate than the oracle
            assert norm(X @ A @ A.T + A @ A.T @ X + reg * X - K) <= 1e-12 * (1 + norm(A)) ** 2 * (1 + norm(X))
        r = min(n, m) if rank is None else min(rank, n, m)
        assert H.Q.shape[1] <= min(2 * r, n)
        np.testing.assert_allclose(H.Q.T @ H.Q, np.eye(H.Q.shape[1]), atol=1e-13)
        assert np.array_equal(H.T, H.T.T) or norm(H.T - H.T.T) < 1e-15 * norm(H.T)


def test_the_residual_without_regularisation_is_the_asymmetry_of_the_data():
    rng = np.random.default_rng(1)
    A, D = pairs(9, 4, rng)
    V, s, Ut = np.linalg.svd(A, full_matrices=False)
    M = V.T @ D @ Ut.T
    upper = np.triu(s[:, None] * M - (s[:, None] * M).T, 1)
    assert norm(symmetric_multisecant(A, D).mul(A) - D) ** 2 == pytest.approx(np.sum(upper**2 / (s[:, None] ** 2 + s**2)))
    C = spd(9, rng)
    assert norm(symmetric_multisecant(A, C @ A).mul(A) - C @ A) < 1e-12 * norm(C @ A)


@pytest.mark.parametrize("theta", [1.0, 0.0, -3.0])
def test_of_a_quadratic_it_has_all_secants_and_with_n_of_them_the_inverse(theta):
    rng = np.random.default_rng(2)
    C, S = spd(8, rng), rng.standard_normal((8, 8))
    for m in (1, 3, 8):
        H = symmetric_multisecant(C @ S[:, :m], S[:, :m], theta)
        assert norm(H.mul(C @ S[:, :m]) - S[:, :m]) < 1e-11 * norm(S)
    np.testing.assert_allclose(H.dense(), np.linalg.inv(C), atol=1e-11)


def test_mixing_the_secants():
    """An orthogonal mixture changes nothing; a general one nothing where the data are consistent."""
    rng = np.random.default_rng(3)
    A, D = pairs(10, 4, rng)
    O, X = np.linalg.qr(rng.standard_normal((4, 4)))[0], rng.standard_normal((4, 4))
    for reg in (0.0, 0.5):
        np.testing.assert_allclose(
            symmetric_multisecant(A @ O, D @ O, 1, reg).dense(), symmetric_multisecant(A, D, 1, reg).dense(), atol=1e-12
        )
    C = spd(10, rng)
    np.testing.assert_allclose(symmetric_multisecant(A @ X, C @ A @ X).dense(), symmetric_multisecant(A, C @ A).dense(), atol=1e-10)
    assert norm(symmetric_multisecant(A @ X, D @ X).dense() - symmetric_multisecant(A, D).dense()) > 0.1


def test_units():
    """(A, D) -> (a A, d D), reg -> a^2 reg, theta -> d/a theta scale H by d/a, at any magnitude."""
    rng = np.random.default_rng(4)
    A, D = pairs(7, 3, rng)
    for update in (symmetric_multisecant, multisecant):
        H = update(A, D, 0.8, 0.3).dense()
        for a, d in ((1e-200, 1e-190), (1e140, 1e150), (3.0, 1e-12)):
            scaled = update(a * A, d * D, 0.8 * (d / a), 0.3 * a * a if a > 1e-150 else 0.0).dense()
            expected = H if a > 1e-150 else update(A, D, 0.8).dense()
            np.testing.assert_allclose(scaled * (a / d), expected, rtol=1e-11, atol=1e-13)


def test_towards_infinite_regularisation():
    rng = np.random.default_rng(5)
    for _ in range(200):
        A, D = pairs(5, 3, rng)
        reg, theta = 10 ** rng.uniform(-2, 6), rng.standard_normal()
        distance = norm(symmetric_multisecant(A, D, theta, reg).dense() - theta * np.eye(5))
        assert distance <= norm(D @ A.T + A @ D.T - 2 * theta * A @ A.T) / reg * (1 + 1e-9)


def small_cases(number, rng):
    for _ in range(number):
        n, m = rng.integers(1, 4), rng.integers(1, 4)
        reg = 10 ** rng.uniform(-3, 1)
        yield *rng.standard_normal((2, n, m)) * 10 ** rng.uniform(-2, 1, (2, 1, 1)), rng.standard_normal(), reg


def test_robust_bound_by_the_residual_of_the_reference():
    """|H - theta I|_F <= |D - theta A|_F / sqrt(2 reg), whatever A; and nearly so somewhere."""
    worst = 0.0
    for A, D, theta, reg in small_cases(4000, np.random.default_rng(6)):
        H = symmetric_multisecant(A, D, theta, reg, rcond=0)
        worst = max(worst, norm(H.T - theta * np.eye(len(H.T))) * np.sqrt(2 * reg) / norm(D - theta * A))
    assert 0.98 <= worst <= 1 + 1e-10


@pytest.mark.parametrize("changed", ["A", "D", "both"])
def test_robust_bound_under_perturbation(changed):
    """|H~ - H|_F <= 2/reg |HA - D|_2 |dA|_F + |dD - H dA|_F / sqrt(2 reg), nearly attained by either term."""
    rng, worst = np.random.default_rng(7), 0.0
    for A, D, theta, reg in small_cases(4000, rng):
        dA, dD = rng.standard_normal((2, *A.shape)) * 10 ** rng.uniform(-3, 0, (2, 1, 1)) * norm(A)
        dA, dD = dA * (changed != "D"), dD * (changed != "A")
        H, other = (symmetric_multisecant(*data, theta, reg, rcond=0) for data in ((A, D), (A + dA, D + dD)))
        bound = 2 / reg * np.linalg.norm(H.mul(A) - D, 2) * norm(dA) + norm(dD - H.mul(dA)) / np.sqrt(2 * reg)
        worst = max(worst, norm(other.dense() - H.dense()) / bound)
    assert 0.9 <= worst <= 1 + 1e-9


def test_nearly_dependent_secants_are_harmless_with_regularisation_only():
    rng = np.random.default_rng(8)
    A, D = rng.standard_normal((2, 20, 2))
    A[:, 1] = A[:, 0] + 1e-7 * A[:, 1]
    assert norm(symmetric_multisecant(A, D).dense()) > 1e5
    assert norm(symmetric_multisecant(A, D, reg=1e-6 * np.linalg.norm(A, 2) ** 2).dense()) < 1e4
    exact = symmetric_multisecant(A, D, rcond=1e-5)  # truncated: one secant
    assert exact.Q.shape[1] == 2
    assert norm(exact.dense()) < 100


@pytest.mark.parametrize("reg", [0.0, 1e-3])
def test_factors_stay_orthonormal_where_the_data_nearly_span_an_invariant_space(reg):
    rng = np.random.default_rng(23)
    for tiny in np.geomspace(1e-17, 1e-3, 30):
        A = rng.standard_normal((20, 5))
        D = A @ rng.standard_normal((5, 5)) + rng.standard_normal((20, 5)) * tiny * np.geomspace(1, 1e-12, 5)
        H = symmetric_multisecant(A, D, 0.5, reg)
        np.testing.assert_allclose(H.Q.T @ H.Q, np.eye(H.Q.shape[1]), atol=1e-14)
        np.testing.assert_allclose(H.dense(), symmetric_multisecant(A, D, 0.5, reg, rcond=0).dense(), atol=1e-13)
        K = D @ A.T + A @ D.T + reg * 0.5 * np.eye(20)
        X = H.dense()
        assert norm(X @ A @ A.T + A @ A.T @ X + reg * X - K) <= 1e-13 * norm(A) ** 2 * norm(X)


# ---------------------------------------------------------------- what the factors give


@pytest.mark.parametrize(("n", "m"), [(3, 2), (4, 4), (12, 3)])
def test_solve_spectrum_clip_and_absolute_against_dense(n, m):
    rng = np.random.default_rng(n)
    H = symmetric_multisecant(*pairs(n, m, rng), -0.6, 0.1)
    X, v, V = H.dense(), rng.standard_normal(n), rng.standard_normal((n, 2))
    np.testing.assert_allclose(H.mul(V), X @ V, atol=1e-12)
    np.testing.assert_allclose(H.mul(v), X @ v, atol=1e-12)
    for shift in (0.0, 0.37, -0.8):
        np.testing.assert_allclose((X + shift * np.eye(n)) @ H.solve(V, shift), V, atol=1e-11)
        np.testing.assert_allclose((X + shift * np.eye(n)) @ H.solve(v, shift), v, atol=1e-11)
    q = H.Q.shape[1]
    inverse = Factored(1 / H.theta, H.Q, np.linalg.inv(H.T)).dense()
    np.testing.assert_allclose(inverse, np.linalg.inv(X), atol=1e-11 * norm(inverse))
    spectrum = np.sort(np.append(H.eigenvalues, np.full(n - q, H.theta)))
    lam, E = np.linalg.eigh(X)
    np.testing.assert_allclose(spectrum, lam, atol=1e-12)
    np.testing.assert_allclose(H.clip(0.2, 0.9).dense(), (E * np.clip(lam, 0.2, 0.9)) @ E.T, atol=1e-12)
    np.testing.assert_allclose(H.clip(0.0).dense(), (E * np.maximum(lam, 0)) @ E.T, atol=1e-12)
    np.testing.assert_allclose(H.absolute().dense(), sla.sqrtm(X @ X).real, atol=1e-7)
    np.testing.assert_allclose(H.absolute().dense(), (E * np.abs(lam)) @ E.T, atol=1e-12)
    assert H.eigenvalues is H.eigenvalues, "one eigendecomposition serves all"


def test_singular_systems_are_refused():
    H = symmetric_multisecant([1.0, 0, 0], [0.0, 0, 0])  # diag(0, 1, 1)
    with pytest.raises(np.linalg.LinAlgError, match=r"singular.*clip"):
        H.solve(np.ones(3))
    with pytest.raises(np.linalg.LinAlgError, match="singular"):
        H.solve(np.ones(3), shift=-1.0)
    np.testing.assert_allclose(H.solve(np.ones(3), 1.0), [1, 0.5, 0.5])
    zero = symmetric_multisecant([1.0, 0, 0], [2.0, 0, 0], theta=0.0)
    with pytest.raises(np.linalg.LinAlgError, match="singular"):
        zero.solve(np.ones(3))
    full = symmetric_multisecant(np.eye(2), np.diag([2.0, 3.0]), theta=0.0)  # theta is no eigenvalue: there is no complement
    np.testing.assert_allclose(full.solve(np.ones(2)), [1 / 2, 1 / 3])
    with pytest.raises(ValueError, match="low <= high"):
        H.clip(2.0, 1.0)
    with pytest.raises(np.linalg.LinAlgError, match="theta = 0"):
        multisecant([1.0, 0], [1.0, 0], theta=0.0).solve(np.ones(2))


def test_complex_columns_are_real_vectors_of_twice_the_length():
    rng = np.random.default_rng(9)
    A, D, V = rng.standard_normal((3, 6, 3)) + 1j * rng.standard_normal((3, 6, 3))
    v = V[:, 0]

    def real(X):
        return np.stack([X.real, X.imag], 1).reshape(2 * len(X), -1)

    for update in (symmetric_multisecant, weighted, multisecant):
        H, twin = update(A, D, 0.7, reg=0.2), update(real(A), real(D), 0.7, reg=0.2)
        np.testing.assert_allclose(real(H.mul(V)), twin.mul(real(V)), atol=1e-12)
        np.testing.assert_allclose(real(H.solve(V)), twin.solve(real(V)), atol=1e-11)
        assert H.mul(v).shape == (6,)
        np.testing.assert_allclose(H.mul(v), H.mul(V)[:, 0], atol=1e-13)
        np.testing.assert_allclose(H.dense(), twin.dense(), atol=1e-12)
    # symmetric in Re u* v
    H = symmetric_multisecant(A, D)
    assert np.vdot(V[:, 1], H.mul(v)).real == pytest.approx(np.vdot(H.mul(V[:, 1]), v).real)
    # one complex array makes both complex
    np.testing.assert_allclose(symmetric_multisecant(A.real, D).dense(), symmetric_multisecant(A.real + 0j, D).dense())
    # of a Hermitian matrix its secants are exact
    C = A @ A.conj().T
    assert norm(symmetric_multisecant(V, C @ V).mul(V) - C @ V) < 1e-11 * norm(C @ V)


def test_no_secants_at_all():
    for A in (np.zeros((4, 2)), np.zeros((4, 0))):
        H = symmetric_multisecant(A, A, -2.0, 0.5)
        np.testing.assert_array_equal(H.dense(), -2 * np.eye(4))
        np.testing.assert_array_equal(H.solve(np.ones(4)), -0.5 * np.ones(4))
        assert len(H.eigenvalues) == 0
        np.testing.assert_array_equal(weighted(A, A, 3.0).dense(), 3 * np.eye(4))
        np.testing.assert_array_equal(multisecant(A, A, 3.0).dense(), 3 * np.eye(4))


# ---------------------------------------------------------------- the classical updates


def test_broyden_good_and_bad():
    rng = np.random.default_rng(10)
    s, y = rng.standard_normal((2, 6))
    B = multisecant(s, y, 0.4)
    np.testing.assert_allclose(B.dense(), 0.4 * np.eye(6) + np.outer(y - 0.4 * s, s) / (s @ s), atol=1e-13)
    np.testing.assert_allclose(B.dense(), least_change(s[:, None], y[:, None], 0.4 * np.eye(6), symmetric=False), atol=1e-12)
    H = multisecant(y, s, 0.4)
    np.testing.assert_allclose(H.dense(), 0.4 * np.eye(6) + np.outer(s - 0.4 * y, y) / (y @ y), atol=1e-13)
    np.testing.assert_allclose(H.solve(H.mul(s)), s, atol=1e-12)


@pytest.mark.parametrize(("n", "m"), SHAPES[:6])
@pytest.mark.parametrize("reg", [0.0, 0.3])
def test_anderson_is_the_least_squares_solution_without_symmetry(n, m, reg):
    A, D = pairs(n, m, np.random.default_rng(m), rank=2)
    H = multisecant(A, D, 0.6, reg)
    assert isinstance(H, LowRank)
    np.testing.assert_allclose(H.dense(), oracle(A, D, 0.6, reg, symmetric=False), atol=1e-9)
    if not reg:
        np.testing.assert_allclose(H.dense(), 0.6 * np.eye(n) + (D - 0.6 * A) @ np.linalg.pinv(A, 1e-9), atol=1e-9)


@pytest.mark.parametrize("kind", ["PSB", "Greenstadt"])
def test_powell_symmetric_broyden(kind):
    rng = np.random.default_rng(11)
    s, y = rng.standard_normal((2, 6)) if kind == "PSB" else rng.standard_normal((2, 6))[::-1]
    r, ss = y - 1.3 * s, s @ s
    psb = 1.3 * np.eye(6) + (np.outer(r, s) + np.outer(s, r)) / ss - (r @ s) * np.outer(s, s) / ss**2
    np.testing.assert_allclose(symmetric_multisecant(s, y, 1.3).dense(), psb, atol=1e-13)
    np.testing.assert_allclose(psb, least_change(s[:, None], y[:, None], 1.3 * np.eye(6)), atol=1e-12)


@pytest.mark.parametrize("base", [False, True])
def test_bfgs_and_dfp(base):
    rng = np.random.default_rng(12)
    C, H0 = spd(6, rng), spd(6, rng) if base else 0.7 * np.eye(6)
    s = rng.standard_normal(6)
    y = C @ s
    rho, eye = 1 / (s @ y), np.eye(6)
    options = {"base": lambda V: H0 @ V} if base else {"theta": 0.7}
    bfgs = (eye - rho * np.outer(s, y)) @ H0 @ (eye - rho * np.outer(y, s)) + rho * np.outer(s, s)
    np.testing.assert_allclose(weighted(y, s, **options).dense(), bfgs, atol=1e-12)
    np.testing.assert_allclose(bfgs, least_change(y[:, None], s[:, None], H0, W=C), atol=1e-10)
    dfp = (eye - rho * np.outer(y, s)) @ H0 @ (eye - rho * np.outer(s, y)) + rho * np.outer(y, y)
    np.testing.assert_allclose(weighted(s, y, **options).dense(), dfp, atol=1e-12)
    np.testing.assert_allclose(dfp, least_change(s[:, None], y[:, None], H0, W=np.linalg.inv(C)), atol=1e-9)


def test_block_bfgs():
    rng = np.random.default_rng(13)
    C, S = spd(7, rng), rng.standard_normal((7, 3))
    Y, inverse = C @ S, np.linalg.inv(S.T @ C @ S)
    P = np.eye(7) - Y @ inverse @ S.T
    block = P.T @ (0.3 * P) + S @ inverse @ S.T
    H = weighted(Y, S, 0.3)
    np.testing.assert_allclose(H.dense(), block, atol=1e-12)
    np.testing.assert_allclose(block, least_change(Y, S, 0.3 * np.eye(7), W=C), atol=1e-9)
    assert H.discarded == 0
    np.testing.assert_allclose(weighted(Y, S, 0.3, reg=1e-6).dense(), block, atol=1e-4)


# ---------------------------------------------------------------- the weighted flavour


def test_weighted_is_positive_definite_whatever_the_pairs():
    rng, dropped = np.random.default_rng(14), 0
    for _ in range(200):
        n, m = rng.integers(2, 12), rng.integers(1, 7)
        A, D = pairs(n, m, rng)  # half of the curvatures are negative
        theta = 10 ** rng.uniform(-2, 2)
        H = weighted(A, D, theta, reg=rng.choice([0.0, 1e-6, 0.1]))
        X = H.dense()
        assert np.linalg.eigvalsh(X)[0] > 0
        assert norm(X - X.T) <= 1e-12 * norm(X)
        np.testing.assert_allclose(H.D.T @ H.A, np.eye(H.A.shape[1]), atol=1e-8 * (1 + norm(H.A) * norm(H.D)))
        assert norm(H.mul(H.A) - H.D) <= 1e-12 * (1 + norm(X)) * (1 + norm(H.A))
        assert H.discarded == m - H.A.shape[1]
        dropped += H.discarded
    assert dropped > 200


def test_weighted_drops_what_has_no_curvature():
    H = weighted([1.0, 0, 0], [0.0, 1, 0], 2.0)
    assert H.discarded == 1
    np.testing.assert_array_equal(H.dense(), 2 * np.eye(3))
    H = weighted(np.eye(3)[:, :2], np.array([[3.0, 0], [0, 0], [0, 1]]), 2.0)
    assert H.discarded == 1
    np.testing.assert_allclose(H.dense(), np.diag([3.0, 2, 2]), atol=1e-14)


def test_weighted_maps_the_secants_to_symmetrised_ones_by_the_symmetric_solution():
    rng = np.random.default_rng(15)
    C, A = spd(10, rng), rng.standard_normal((10, 3))
    D = C @ A + 0.1 * rng.standard_normal((10, 3))
    star = symmetric_multisecant(A, D, 0.5, 0.01)
    symmetrised = star.mul(A)
    assert norm(A.T @ symmetrised - symmetrised.T @ A) <= 1e-13 * norm(A.T @ symmetrised)
    H = weighted(A, D, 0.5, reg=0.01)
    np.testing.assert_allclose(H.mul(A), symmetrised, atol=1e-11)
    P = sla.null_space(symmetrised.T)  # H0 counts on the complement
    np.testing.assert_allclose(P.T @ H.dense() @ P, 0.5 * np.eye(7), atol=1e-12)


def test_weighted_inverse_spectrum_and_base():
    rng = np.random.default_rng(16)
    A, D = pairs(9, 3, rng)
    H = weighted(A, D, 0.4)
    X, V = H.dense(), rng.standard_normal((9, 2))
    scale = norm(np.linalg.inv(X)) * norm(X)
    np.testing.assert_allclose(H.mul(V), X @ V, atol=1e-12)
    np.testing.assert_allclose(X @ H.solve(V), V, atol=1e-14 * scale)
    np.testing.assert_allclose((X + 0.3 * np.eye(9)) @ H.solve(V, 0.3), V, atol=1e-14 * scale)
    np.testing.assert_allclose(H.factored.dense(), X, atol=1e-13 * norm(X))
    np.testing.assert_allclose(
        np.sort(np.append(H.eigenvalues, [0.4] * (9 - len(H.eigenvalues)))), np.linalg.eigvalsh(X), atol=1e-12 * norm(X)
    )
    assert len(H.eigenvalues) <= 6
    H0 = spd(9, rng)
    general = weighted(A, D, base=lambda V: H0 @ V)
    P = np.eye(9) - general.A @ general.D.T
    np.testing.assert_allclose(general.dense(), general.D @ general.D.T + P.T @ H0 @ P, atol=1e-11)
    for refused in (lambda: general.solve(V), lambda: general.factored, lambda: general.solve(V, 1.0), lambda: general.eigenvalues):
        with pytest.raises(ValueError, match="base"):
            refused()


# ---------------------------------------------------------------- the memory


def test_memory_gives_the_updates_of_its_pairs():
    rng = np.random.default_rng(17)
    C = spd(8, rng)
    S = rng.standard_normal((8, 5))
    Y = C @ S + 0.2 * rng.standard_normal((8, 5))
    v = rng.standard_normal(8)
    for kind in ("inverse", "hessian"):
        A, D = (Y, S) if kind == "inverse" else (S, Y)
        unit = 1 / np.linalg.norm(A[:, 2:], axis=0)
        A, D = A[:, 2:] * unit, D[:, 2:] * unit  # the last three
        reg = 1e-3 * np.linalg.norm(A, 2) ** 2
        bb = (S[:, -1] @ Y[:, -1]) / (Y[:, -1] @ Y[:, -1])
        theta = bb if kind == "inverse" else 1 / bb
        raw = symmetric_multisecant(A, D, theta, reg)
        for flavour, pd, expected in [
            ("weighted", "clip", weighted(A, D, theta, reg=reg)),
            ("frobenius", "none", raw),
            ("frobenius", "abs", raw.absolute()),
            ("frobenius", "clip", raw.clip(0.5 * theta, 2 * theta)),
        ]:
            H = SymmetricMultisecant(kind, flavour, memory=3, reg=1e-3, pd=pd, pd_bounds=(0.5, 2.0))
            H.push_block(S, Y)
            assert len(H) == 3
            assert H.theta == pytest.approx(theta, rel=1e-12)
            np.testing.assert_allclose(H.apply(v), expected.mul(v), atol=1e-11)
            np.testing.assert_allclose(H.solve(v, 0.2), expected.solve(v, 0.2), atol=1e-10)
            np.testing.assert_allclose(H.eigenvalues, expected.eigenvalues, atol=1e-11)
            assert H.residual == pytest.approx(norm(expected.mul(A) - D) / norm(D))
            G = A.T @ D
            assert H.asymmetry == pytest.approx(norm(G - G.T) / norm(G))
            tiny = SymmetricMultisecant(kind, flavour, memory=3, reg=1e-3, pd=pd, pd_bounds=(0.5, 2.0))
            tiny.push_block(1e-200 * S, 1e-200 * Y)  # the lengths of pairs mean nothing
            np.testing.assert_allclose(tiny.apply(v), H.apply(v), atol=1e-12)
            H.reset()
            assert (len(H), len(H.eigenvalues)) == (0, 0)


def test_memory_counts_what_it_leaves_out():
    H = SymmetricMultisecant(memory=4, base=2.0)
    H.push(np.zeros(3), np.ones(3))
    H.push(np.ones(3), np.zeros(3))
    assert (len(H), H.rejected) == (0, 2)
    np.testing.assert_array_equal(H.apply([1.0, 2, 3]), [2, 4, 6])
    np.testing.assert_array_equal(H.solve([1.0, 2, 3], 2.0), [0.25, 0.5, 0.75])
    assert (H.residual, H.asymmetry, H.discarded) == (0, 0, 0)
    H.push([1.0, 0, 0], [2.0, 0, 0])
    H.push([0.0, 1, 0], [0.0, -1, 0])
    assert H.discarded == 1  # the negative curvature
    H.push([3.0, 0, 0], [6.0, 0, 0])
    assert H.discarded == 2
    indefinite = SymmetricMultisecant("hessian", "frobenius", pd="none", base=2.0)
    indefinite.push([1.0, 0, 0], [2.0, 0, 0])
    indefinite.push([0.0, 1, 0], [0.0, -1, 0])
    indefinite.push([0.0, 5, 0], [0.0, -5, 0])
    assert indefinite.discarded == 1
    np.testing.assert_allclose(indefinite.apply(np.ones(3)), [2, -1, 2], atol=1e-6)


def test_scale_of_the_base_follows_the_last_pair_of_positive_curvature():
    H = SymmetricMultisecant()
    H.push([1.0, 0], [4.0, 0])
    assert H.theta == 0.25
    H.push([0.0, 1], [0.0, -1])
    assert H.theta == 0.25
    negative = SymmetricMultisecant()
    negative.push([0.0, 3], [0.0, -1])
    assert negative.theta == 3
    np.testing.assert_allclose(negative.apply([1.0, 1]), [3, 3])


@pytest.mark.parametrize("dtype", [float, complex])
def test_memory_on_tangent_spaces(dtype):
    """Projected lazily, from the stored originals: H maps the tangent space to itself, and is symmetric positive definite there."""
    rng = np.random.default_rng(18)
    manifold = bmsdp.Oblique(np.ones(6))

    def draw(*shape):
        X = rng.standard_normal(shape)
        return X if dtype is float else X + 1j * rng.standard_normal(shape)

    for flavour, kind in (("weighted", "inverse"), ("frobenius", "hessian")):
        H = SymmetricMultisecant(kind, flavour, memory=4)
        S, Y = draw(6, 3, 5), draw(6, 3, 5)
        H.push_block(S, Y)
        fresh = SymmetricMultisecant(kind, flavour, memory=4)
        for point in (draw(6, 3), draw(6, 3)):
            point = point / np.linalg.norm(point, axis=1, keepdims=True)
            H.update(lambda V, point=point: manifold.project(point, V))
            u, v = (manifold.project(point, draw(6, 3)) for _ in range(2))
            Hv = H.apply(v)
            assert norm(manifold.project(point, Hv) - Hv) <= 1e-13 * norm(Hv)
            assert np.vdot(u, Hv).real == pytest.approx(np.vdot(H.apply(u), v).real, rel=1e-10)
            assert np.vdot(v, Hv).real > 0
            np.testing.assert_allclose(H.solve(Hv), v, atol=1e-9)
        fresh.update(lambda V, point=point: manifold.project(point, V))
        fresh.push_block(S, Y)
        np.testing.assert_allclose(fresh.apply(v), Hv, atol=1e-12)
        H.update(None)
        plain = SymmetricMultisecant(kind, flavour, memory=4)
        plain.push_block(S, Y)
        np.testing.assert_allclose(H.apply(v), plain.apply(v), atol=1e-12)


def test_pairs_that_the_projection_kills_are_left_out():
    H = SymmetricMultisecant(base=2.0)
    H.push([1.0, 0, 0], [4.0, 0, 0])
    H.push([0.0, 0, 1], [0.0, 0, 1])
    H.update(lambda v: v * np.array([1.0, 1, 0]))
    np.testing.assert_allclose(H.apply(np.ones(3)), [0.25, 2, 2], atol=1e-7)
    assert H.discarded == 1


def test_memory_with_a_callable_base():
    rng = np.random.default_rng(19)
    weights = rng.uniform(1, 3, (4, 2))
    H = SymmetricMultisecant(memory=3, base=lambda V: weights * V, reg=0.0)
    v = rng.standard_normal((4, 2))
    np.testing.assert_array_equal(H.apply(v), weights * v)
    S, Y = rng.standard_normal((2, 4, 2))
    H.push(S, Y * np.sign(np.sum(S * Y)))
    twin = weighted(
        Y.ravel() * np.sign(np.sum(S * Y)), S.ravel(), base=lambda V: weights.ravel()[:, None] * V if V.ndim == 2 else weights.ravel() * V
    )
    np.testing.assert_allclose(H.apply(v).ravel(), twin.mul(v.ravel()), atol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "I"}, "kind = 'I'.*'inverse', 'hessian'"),
        ({"flavour": "plain"}, "flavour"),
        ({"pd": "project"}, "pd"),
        ({"memory": 0}, "memory = 0"),
        ({"memory": 2.5}, "memory = 2.5"),
        ({"memory": True}, "memory"),
        ({"reg": -1.0}, "reg = -1"),
        ({"reg": np.nan}, "reg = nan"),
        ({"base": -1.0}, "base = -1"),
        ({"base": "one"}, "base = 'one'"),
        ({"base": abs, "flavour": "frobenius"}, "weighted"),
        ({"pd_bounds": (2.0, 3.0)}, "pd_bounds"),
    ],
)
def test_memory_refuses_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        SymmetricMultisecant(**options)


def test_memory_refuses_bad_arrays():
    H = SymmetricMultisecant()
    with pytest.raises(ValueError, match="no pairs yet"):
        _ = H.eigenvalues
    with pytest.raises(ValueError, match="equal shapes"):
        H.push(np.ones(3), np.ones(4))
    with pytest.raises(ValueError, match="not finite"):
        H.push(np.ones(3), [1, np.nan, 1])
    H.push(np.ones(3), np.ones(3))
    for bad in (lambda: H.push(np.ones(4), np.ones(4)), lambda: H.apply(np.ones(4)), lambda: H.solve(np.ones((3, 1)))):
        with pytest.raises(ValueError, match=r"\(3,\) is needed"):
            bad()
    with pytest.raises(ValueError, match="complex"):
        H.apply(1j * np.ones(3))
    with pytest.raises(ValueError, match="last axis"):
        H.push_block(np.ones(3), np.ones(3))
    assert len(H) == 1


@pytest.mark.parametrize("update", [symmetric_multisecant, weighted, multisecant])
def test_updates_refuse_bad_input(update):
    A = np.ones((3, 2))
    for arguments, message in [
        ((A, np.ones((3, 1))), r"\(3, 2\) and D \(3, 1\)"),
        ((np.ones((3, 2, 1)),) * 2, "N x m"),
        ((A, np.where(np.eye(3, 2), np.inf, 1)), "D has entries that are not finite in column 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            update(*arguments)
    for options, message in [
        ({"reg": -1}, "reg"),
        ({"reg": np.nan}, "reg"),
        ({"rcond": 1}, "rcond"),
        ({"theta": np.inf}, "theta"),
        ({"theta": "bb"}, "theta"),
    ]:
        with pytest.raises(ValueError, match=message):
            update(A, A, **options)
    with pytest.raises(ValueError, match="3 real numbers"):
        update(A, A).mul(np.ones(4))
    with pytest.raises(ValueError, match="theta = 0"):
        weighted(A, A, 0.0)


# ---------------------------------------------------------------- groups of consistent secants


def lbfgs(steps, theta, v):
    """The two-loop recursion of Nocedal (1980)."""
    v, weights = np.array(v), []
    for s, y in reversed(steps):
        weights.append((s @ v) / (s @ y))
        v = v - weights[-1] * y
    v = theta * v
    for (s, y), a in zip(steps, reversed(weights), strict=True):
        v = v + (a - (y @ v) / (s @ y)) * s
    return v


def noisy_pairs(n, number, noise, rng):
    C = spd(n, rng)
    for _ in range(number):
        s = rng.standard_normal(n)
        yield s, C @ s + noise * rng.standard_normal(n)


def test_one_pair_a_group_is_lbfgs():
    rng = np.random.default_rng(20)
    H, held, v = GroupedMultisecant(10, 4, consistency=0), [], rng.standard_normal(10)
    for s, y in noisy_pairs(10, 11, 1.0, rng):
        if H.push(s, y):
            held = [*held, (s, y)][-4:]
        np.testing.assert_allclose(H.mul(v), lbfgs(held, H.theta, v), atol=1e-12)
    assert H.groups == [1, 1, 1, 1]


@pytest.mark.parametrize("consistency", [0.1, 2.0])
def test_groups_are_nested_weighted_updates(consistency):
    rng = np.random.default_rng(21)
    H, held, seen = GroupedMultisecant(12, 5, reg=1e-4, consistency=consistency), [], set()
    for s, y in noisy_pairs(12, 40, 0.6, rng):
        assert H.push(s, y) == (s @ y > 1e-10 * norm(s) * norm(y))
        held = [*held, (s, y)][-5:] if s @ y > 0 else held
        assert sum(H.groups) == len(H) == len(held)
        seen.add(tuple(H.groups))
        base, start = (lambda V, theta=H.theta: theta * V), 0
        for size in reversed(H.groups):
            S, Y = (np.array([pair[i] for pair in held[start : start + size]]).T for i in (0, 1))
            G = Y.T @ S
            d = np.sqrt(np.diag(G))
            assert np.all(np.abs(G - G.T) <= consistency * np.outer(d, d) * (1 + 1e-12))
            unit = 1 / np.linalg.norm(Y, axis=0)
            reg = 1e-4 * np.linalg.norm(Y * unit, 2) ** 2 if size > 1 else 0.0
            base = weighted(Y * unit, S * unit, H.theta, base, reg)._mul
            start += size
        X = np.stack([H.mul(e) for e in np.eye(12)], 1)
        np.testing.assert_allclose(X, base(np.eye(12)), atol=1e-9 * norm(X))
        assert np.linalg.eigvalsh(X)[0] > 0
    assert len(seen) >= (8 if consistency == 0.1 else 4), "groups of all kinds are to be met"


def test_a_quadratic_is_one_group_and_all_its_secants_hold():
    rng = np.random.default_rng(22)
    H = GroupedMultisecant(15, 6, reg=0.0)
    steps = list(noisy_pairs(15, 9, 0.0, rng))
    for s, y in steps:
        H.push(s, y)
    assert H.groups == [6]
    for s, y in steps[-6:]:
        assert norm(H.mul(y) - s) < 1e-10 * norm(s)


def test_groups_refuse_and_forget():
    H = GroupedMultisecant(3, 2)
    v = np.array([1.0, 2, 3])
    np.testing.assert_array_equal(H.mul(v), v)
    assert not H.push(np.ones(3), -np.ones(3))
    assert not H.push(np.zeros(3), np.ones(3))
    assert not H.push(1e-150 * np.ones(3), 1e-150 * np.ones(3))
    assert (len(H), H.rejected, H.groups) == (0, 3, [])
    assert H.push(np.ones(3), 2 * np.ones(3))
    H.clear()
    np.testing.assert_array_equal(H.mul(v), 0.5 * v)
    for options, message in [({"memory": 0}, "memory"), ({"reg": -1}, "reg"), ({"consistency": 3}, "consistency")]:
        with pytest.raises(ValueError, match=message):
            GroupedMultisecant(3, **options)


def test_types():
    A = np.eye(3)[:, :1]
    assert isinstance(symmetric_multisecant(A, A), Factored)
    assert isinstance(weighted(A, A), Weighted)
    with pytest.raises(AttributeError):
        symmetric_multisecant(A, A).theta = 2.0
