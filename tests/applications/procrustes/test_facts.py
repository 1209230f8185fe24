"""What the theory of the Gram estimator says, against simulation."""

import numpy as np
import pytest

from bmsdp.applications import procrustes as pc
from bmsdp.applications.procrustes.gram import GramAccumulator
from bmsdp.applications.procrustes.risk import floor_of


def cloud(d, k, size, seed=0):
    X = np.random.default_rng(seed).standard_normal((d, k))
    return X * size / np.linalg.norm(X)


def fits(X, noise, N, reps, rng, **options):
    """Squared distances and noise estimates of repeated fits."""
    found = [pc.fit(pc.simulate(X, noise, N, rng), "gram", **options) for _ in range(reps)]
    return np.array([pc.distance(X, one.X) ** 2 for one in found]), np.array([one.sigma2 for one in found])


def test_one_copy_without_noise_is_enough():
    X = cloud(3, 8, 2.0)
    for method in ("gram", "sync", "auto"):
        found = pc.fit(pc.simulate(X, 0.0, 1, rng=1), method)
        assert pc.distance(X, found.X) <= 1e-12 and found.sigma2 <= 1e-12 and found.expected_mse == 0
        assert found.detected_rank == 3


@pytest.mark.parametrize("sigma", [0.05, 0.7])
def test_the_estimate_ignores_rotations_and_order_and_follows_the_points(sigma, rng):
    X = cloud(3, 8, 2.0)
    Y = pc.simulate(X, sigma, 40, rng)
    found, turned = pc.fit(Y, "gram"), pc.fit(pc.haar(40, 3, rng) @ Y, "gram")
    assert pc.distance(found.X, turned.X) <= 1e-10 and turned.sigma2 == pytest.approx(found.sigma2, rel=1e-12)
    order = rng.permutation(8)
    assert pc.distance(found.X[:, order], pc.fit(Y[:, :, order], "gram").X) <= 1e-10
    assert pc.distance(found.X, pc.fit(Y[rng.permutation(40)], "gram").X) <= 1e-10
    assert pc.distance(found.X, pc.fit(2 * Y, "gram").X / 2) <= 1e-10


def test_risk_is_the_formula_for_unit_singular_values(rng):
    X = np.eye(3, 10)
    assert pc.expected_mse(X, 1.0, 1) == pytest.approx(27 + 72) and pc.expected_mse(X, 1.0, 1, False) - 99 == pytest.approx(3 * 3 / 14)
    square, _ = fits(X, 1.0, 4000, 100, rng, sigma=1.0)
    assert 4000 * square.mean() == pytest.approx(99, rel=0.1)


@pytest.mark.parametrize(("sigma", "N", "reps"), [(0.05, 10, 300), (0.3, 100, 400), (0.7, 1000, 400), (1.0, 4000, 200), (2.0, 40_000, 40)])
def test_risk_is_within_ten_percent_of_the_formula(sigma, N, reps, rng):
    X = cloud(3, 8, 2.0)
    square, _ = fits(X, sigma, N, reps, rng)
    assert square.mean() == pytest.approx(pc.expected_mse(X, sigma, N, False), rel=0.1)
    assert square.mean() <= pc.guaranteed_mse(X, sigma, N)


def test_variance_of_the_mean_gram_matrix(rng):
    X, total = np.eye(3, 10), 0.0
    for _ in range(400):
        Y = pc.simulate(X, 1.0, 50, rng)
        total += np.sum((GramAccumulator(3, 10).update(Y).moments().matrix - X.T @ X - 3 * np.eye(10)) ** 2) / 400
    assert 50 * total == pytest.approx(2 * 11 * 3 + 3 * 110, rel=0.03)


def test_alignment_floor_and_limit(rng):
    X = np.eye(3, 10)
    assert pc.alignment_floor(X) == pytest.approx(0.75) and pc.alignment_limit(X) == pytest.approx(96)
    assert pc.alignment_floor(X[:1]) == 0 and pc.alignment_limit(X[:1]) == np.inf
    assert pc.crossover(X) == pytest.approx(np.sqrt(27 / 72))
    Y = pc.simulate(X, 0.15, 20_000, rng)
    Q = pc.align(Y, X).rotations
    for _ in range(20):  # alternating least squares, from the truth
        Q = pc.align(Y, np.einsum("nij,nik->jk", Q, Y) / len(Y)).rotations
    Z = np.einsum("nij,nik->jk", Q, Y) / len(Y)
    assert np.linalg.svd(Z, compute_uv=False).mean() == pytest.approx(1 + 0.15**2 / 2, abs=2e-3)
    assert pc.distance(X, Z) ** 2 > 0.5 * 0.75 * 0.15**4
    assert pc.distance(X, Z) ** 2 > 2 * pc.distance(X, pc.fit(Y, "gram").X) ** 2


def test_noise_estimate_has_the_variance_of_the_theory(rng):
    _, sigma2 = fits(cloud(3, 8, 2.0), 0.7, 400, 400, rng)
    assert sigma2.var() == pytest.approx(2 * 0.7**4 / (400 * 3 * 5), rel=0.25)


@pytest.mark.parametrize(("sigma", "N", "tolerance"), [(0.05, 3, 0.05), (0.05, 10, 0.01), (0.5, 100, 0.01), (1.0, 1000, 0.01)])
def test_noise_estimate_is_unbiased_where_the_raw_one_is_not(sigma, N, tolerance, rng):
    X = cloud(3, 8, 3.0)
    s2 = np.linalg.svd(X, compute_uv=False) ** 2
    raw, good = [], []
    for _ in range(300):
        Y = pc.simulate(X, sigma, N, rng)
        values = np.linalg.eigvalsh(GramAccumulator(3, 8).update(Y).moments().matrix)
        raw.append(values[:5].sum() / 15 / sigma**2)
        good.append(pc.fit(Y, "gram").sigma2 / sigma**2)
    assert np.mean(good) == pytest.approx(1, abs=tolerance)
    assert np.mean(raw) == pytest.approx(1 - (1 + sigma**2 * np.sum(1 / s2)) / N, abs=tolerance)


@pytest.mark.parametrize("N", [3, 10, 300])
def test_pure_noise_is_seen_as_such(N, rng):
    found = [pc.fit(pc.simulate(np.zeros((3, 12)), 2.0, N, rng)) for _ in range(100)]
    assert np.mean([one.sigma2 for one in found]) == pytest.approx(4, rel=0.03)
    assert sum(one.detected_rank > 0 for one in found) <= 3
    assert all(one.method == "gram" and one.expected_mse == np.inf and one.warnings for one in found if one.detected_rank == 0)


def test_distance_bounds_of_the_factor(rng):
    t = np.sqrt(np.sqrt(2) - 1)
    assert pc.distance([[1.0, 0]], [[0, t]]) ** 2 == pytest.approx(1 + t**2)
    constant, worst = 1 / np.sqrt(2 * (np.sqrt(2) - 1)), 0.0
    for trial in range(300):
        d, k = rng.integers(1, 4), rng.integers(4, 7)
        X = rng.standard_normal((d, k))
        small = trial % 2 == 0
        s = np.linalg.svd(X, compute_uv=False)[-1]
        Z = X + (1e-4 * s if small else 10 ** rng.uniform(-2, 1)) * rng.standard_normal((d, k)) / np.sqrt(d * k)
        ratio = pc.distance(X, Z) * s / np.linalg.norm(X.T @ X - Z.T @ Z)
        assert ratio <= (0.7072 if small else constant + 1e-9)
        worst = max(worst, ratio)
    U, _, Vt = np.linalg.svd(X)
    Z = X + 1e-5 * s * np.outer(U[:, -1], Vt[-1])
    assert pc.distance(X, Z) * s / np.linalg.norm(X.T @ X - Z.T @ Z) == pytest.approx(1 / np.sqrt(2), rel=1e-4)
    one = np.array([[1.0, 0]]), np.array([[0, t]])
    assert pc.distance(*one) / np.linalg.norm(one[0].T @ one[0] - one[1].T @ one[1]) == pytest.approx(constant)


def test_fixed_rotations_are_as_good_as_random_ones(rng):
    X = cloud(3, 8, 2.0)
    fixed = [pc.distance(X, pc.fit(X + rng.standard_normal((600, 3, 8)), "gram", sigma=1.0).X) ** 2 for _ in range(100)]
    assert np.mean(fixed) == pytest.approx(pc.expected_mse(X, 1.0, 600), rel=0.12)


def test_the_noise_that_can_be_borne_grows_like_the_fourth_root_of_n(rng):
    """Where rho^2 reaches |X|^2 / 2, for d = 3, k = 100: slope 1/2 for few copies, towards 1/4 for many."""
    X = cloud(3, 100, 1.0)

    def level(N, low, high, reps):
        for _ in range(6):
            middle = (low + high) / 2
            over = np.mean(
                [pc.distance(X, pc.fit(pc.simulate(X, 2.0**middle, N, rng), "gram", sigma=2.0**middle).X) ** 2 for _ in range(reps)]
            )
            low, high = (middle, high) if over < 0.5 else (low, middle)
        return (low + high) / 2

    few = (level(16, -3.3, -2.2, 12) - level(4, -4.2, -3.2, 12)) / 2
    many = (level(2048, -1.0, -0.2, 3) - level(512, -1.6, -0.7, 3)) / 2
    assert 0.38 <= few <= 0.53 and 0.22 <= many <= 0.34 and many < few


def test_floor_formula_of_a_flat_direction():
    assert floor_of(np.array([1.0, 0.0])) == pytest.approx(0.25)
    assert pc.expected_mse(np.eye(2, 4) * [[1], [0]], 0.1, 10) == np.inf
    assert pc.copies_needed(np.eye(3, 10), 1.0, 0.1) == 9900
