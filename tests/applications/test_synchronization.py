"""Synchronization: laws, oracles (planted blocks, brute force, eigenvalues), outliers, causes, and what is refused."""

import functools
import itertools

import numpy as np
import pytest
from scipy import sparse
from scipy.linalg import expm, logm

import bmsdp
from bmsdp import gallery
from bmsdp.applications import synchronization as sync

GROUPS = ["SO(3)", "SO(2)", "O(3)", "SO(4)", "U(1)", "Z2", "U(2)"]


def orthogonal(rng, n, d, special=False, complex_=False):
    return sync.nearest(rng.standard_normal((n, d, d)) + (1j * rng.standard_normal((n, d, d)) if complex_ else 0), special)


def graph(rng, n, p):
    """A path and more pairs, in both orders."""
    i, j = np.triu_indices(n, 1)
    kept = (rng.random(i.size) < p) | (j == i + 1)
    swap = rng.random(kept.sum()) < 0.5
    return np.where(swap, j[kept], i[kept]), np.where(swap, i[kept], j[kept])


def instance(name, n=12, noise=0.0, seed=0, p=0.5):
    """(measurements, truth), the noise being about radians, or the probability of a flip."""
    rng = np.random.default_rng(seed)
    i, j = graph(rng, n, p)
    if name == "Z2":
        x = rng.choice([-1, 1], n)
        return sync.measurements(i, j, x[i] * x[j] * np.where(rng.random(i.size) < noise, -1, 1)), x
    if name == "U(1)":
        z = np.exp(2j * np.pi * rng.random(n))
        return sync.measurements(i, j, z[i] / z[j] * np.exp(1j * noise * rng.standard_normal(i.size))), z
    group, d = name[:-3], int(name[-2])
    R = orthogonal(rng, n, d, group == "SO", group == "U")
    N = noise * (rng.standard_normal((i.size, d, d)) + (1j * rng.standard_normal((i.size, d, d)) if group == "U" else 0))
    N = (N - N.conj().transpose(0, 2, 1)) / 2
    M = np.linalg.solve(np.eye(d) - N, np.eye(d) + N) @ R[i] @ R[j].conj().transpose(0, 2, 1)  # Cayley: determinant 1
    return sync.measurements(i, j, M, group=group), R


def special(data):
    return data.group == "SO"


def laplacian(data):
    return data.cost().mul(np.eye(data.cost().n, dtype=data.cost().dtype))


# Rounding


def test_nearest_is_the_polar_factor_and_special_is_best_among_rotations():
    rng = np.random.default_rng(0)
    M = rng.standard_normal((40, 3, 3))
    R, S = sync.nearest(M), sync.nearest(M, special=True)
    assert np.allclose(R @ R.transpose(0, 2, 1), np.eye(3), atol=1e-14) and np.allclose(np.linalg.det(S), 1)
    P = R.transpose(0, 2, 1) @ M  # polar: symmetric positive semidefinite
    assert np.allclose(P, P.transpose(0, 2, 1), atol=1e-13) and np.linalg.eigvalsh(P).min() > -1e-13
    trial = orthogonal(rng, 4000, 3, True)
    best = np.einsum("nab,eab->en", trial, M).max(axis=1)
    mine = np.einsum("eab,eab->e", S, M)
    assert (mine >= best - 1e-12).all() and (mine <= best + 0.3 * np.linalg.norm(M, axis=(1, 2))).all()
    assert (np.linalg.det(R) < 0).any()


@pytest.mark.parametrize("d, k", [(2, 2), (3, 3), (3, 5), (4, 6)])
def test_a_factor_of_rank_d_is_rounded_exactly_whatever_its_gauge(d, k):
    rng = np.random.default_rng(d + k)
    R = orthogonal(rng, 9, d, special=True)
    Y = R.reshape(-1, d) @ np.linalg.qr(rng.standard_normal((k, d)))[0].T
    for reflect in (1, -1):
        Z = Y @ np.diag(np.r_[reflect, np.ones(k - 1)])
        found = sync.round_to_rotations(Z, d)
        assert np.allclose(np.linalg.det(found), 1)
        assert sync.distance(found, R, special=reflect == 1 or d % 2 == 1) < 1e-12
        assert np.allclose(found.reshape(-1, d) @ found.reshape(-1, d).T, Y @ Y.T, atol=1e-12)
    free = sync.round_to_rotations(Y, d, special=False)
    assert np.allclose(free.reshape(-1, d) @ free.reshape(-1, d).T, Y @ Y.T, atol=1e-12)


def test_align_finds_the_common_factor():
    rng = np.random.default_rng(1)
    R, Q = orthogonal(rng, 6, 3), orthogonal(rng, 1, 3)[0]
    assert np.allclose(sync.align(R @ Q, R), R, atol=1e-13)
    z = np.exp(1j * rng.random(6))
    assert sync.distance(z * 1j, z) < 1e-14 and sync.distance(-np.ones(5, int), np.ones(5, int)) == 0
    Q = orthogonal(rng, 1, 3, True)[0] @ np.diag([1, 1, -1])
    assert sync.distance(R @ Q, R) < 1e-13 and sync.distance(R @ Q, R, special=True) > 0.1


@pytest.mark.parametrize(
    "call, needed",
    [
        (lambda: sync.round_to_rotations(np.ones((6, 2)), 3), "at least d columns"),
        (lambda: sync.round_to_rotations(np.ones((7, 3)), 3), "n d rows"),
        (lambda: sync.round_to_rotations(np.ones((6, 3)), 0), "positive integer"),
        (lambda: sync.round_to_rotations(np.full((6, 3), np.nan), 3), "NaN"),
        (lambda: sync.round_to_rotations(np.ones((6, 3)) * 1j, 3), "special=False"),
        (lambda: sync.nearest(np.eye(2) * 1j, True), "special=False"),
        (lambda: sync.align(np.ones(3), np.ones(4)), "both"),
    ],
)
def test_rounding_refuses(call, needed):
    with pytest.raises(ValueError, match=needed):
        call()


# The relaxation


@pytest.mark.parametrize("name", GROUPS)
def test_the_cost_is_the_misfit(name):
    data, _ = instance(name, noise=0.3)
    rng = np.random.default_rng(2)
    R = orthogonal(rng, data.n, data.d, special(data), data.group == "U")
    factor = R[:, :1, 0] + 1j * R[:, 1:, 0] if data.planar else R.reshape(-1, data.d)
    C = laplacian(data)
    assert np.allclose(C, C.conj().T)
    direct = sum(np.linalg.norm(R[a] - M @ R[b]) ** 2 * w for a, b, M, w in zip(data.i, data.j, data.blocks, data.weights, strict=True))
    assert np.isclose(np.vdot(factor, C @ factor).real, direct, rtol=1e-12) and np.isclose(data.misfit(R), direct, rtol=1e-12)
    assert np.linalg.eigvalsh(C)[0] > -1e-12


def test_sparse_and_dense_costs_agree_and_general_blocks_have_their_constant():
    rng = np.random.default_rng(3)
    i, j = graph(rng, 40, 0.02)
    M, w = rng.standard_normal((i.size, 3, 3)), rng.random(i.size) + 0.1
    data = sync.measurements(i, j, M, w, n=40, general=True, group="O")
    assert sparse.issparse(data.cost().matrix()) and isinstance(instance("SO(3)")[0].cost().matrix(), np.ndarray)
    R = orthogonal(rng, 40, 3)
    assert np.isclose(np.vdot(R, data.cost().mul(R.reshape(-1, 3))), np.sum(w * np.sum((R[i] @ R[j].transpose(0, 2, 1) - M) ** 2, (1, 2))))
    planar = sync.measurements(i, j, M[:, :2, :2], w, general=True, group="SO")
    R = orthogonal(rng, 40, 2, True)
    z = R[:, :1, 0] + 1j * R[:, 1:, 0]
    assert np.isclose(np.vdot(z, planar.cost().mul(z)).real, planar.misfit(R))


def test_clouds_are_the_complete_graph_of_their_products():
    rng = np.random.default_rng(4)
    Y, w = rng.standard_normal((5, 3, 7)), rng.random(5) + 0.5
    data = sync.clouds(Y, w)
    assert data.cost().matrix() is None
    R = orthogonal(rng, 5, 3)
    X = sum(w[i] * R[i].T @ Y[i] for i in range(5)) / w.sum()
    misfit = sum(w[i] * np.linalg.norm(Y[i] - R[i] @ X) ** 2 for i in range(5))
    assert np.allclose(data.mean(R), X) and np.isclose(data.misfit(R), misfit)
    assert np.isclose(np.vdot(R, data.cost().mul(R.reshape(-1, 3))), misfit)


def test_clouds_are_solved_through_their_operator_and_as_blocks_alike():
    rng = np.random.default_rng(5)
    X, R = rng.standard_normal((3, 12)), orthogonal(rng, 15, 3)
    Y = R @ X + 0.1 * rng.standard_normal((15, 3, 12))
    found = sync.synchronize(sync.clouds(Y), rng=0)
    F = Y.reshape(-1, 12)
    blocks = sync.synchronize(sync.from_matrix(F @ F.T, 3, group="O"), rng=0)
    assert found.tight and blocks.tight and sync.distance(found.R, blocks.R) < 1e-8
    assert abs(found.noise - 0.1) < 0.02 and found.residuals.shape == (15,)
    exact = sync.synchronize(sync.clouds(R @ X), rng=0)
    assert sync.distance(exact.R, R) < 1e-10 and exact.tight
    rotations = orthogonal(rng, 15, 3, True)
    proper = sync.synchronize(sync.clouds(rotations @ X, group="SO"), rng=0)
    assert np.allclose(np.linalg.det(proper.R), 1) and sync.distance(proper.R, rotations, special=True) < 1e-10


# Answers


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("p", [0.15, 1.0])
def test_without_noise_the_planted_blocks_come_back(name, p):
    data, truth = instance(name, n=20, p=p)
    found = sync.synchronize(data, rng=0)
    assert sync.distance(found.R, truth, special(data)) < 1e-10
    assert found.R.shape == truth.shape and found.R.dtype.kind == (np.int8(1) if name == "Z2" else truth).dtype.kind
    assert found.tight and found.cause is sync.Cause.TIGHT and found.rank == (1 if data.planar else data.d)
    assert found.results[0].success and 0 <= found.bound <= found.misfit < 1e-18 * data.scale() + 1e-20
    assert sync.distance(sync.spectral_blocks(data, rng=0), truth, special(data)) < 1e-10


@pytest.mark.parametrize("name", GROUPS)
def test_a_tight_answer_is_no_worse_than_the_truth_and_its_bound_holds_for_all(name):
    data, truth = instance(name, n=14, noise=0.1, seed=1)
    found = sync.synchronize(data, rng=0)
    planted = truth.reshape(-1, data.d, data.d)
    assert found.tight and found.bound <= found.misfit <= data.misfit(planted) + 1e-12
    rng = np.random.default_rng(0)
    others = [orthogonal(rng, data.n, data.d, special(data), data.group == "U") for _ in range(50)]
    assert min(map(data.misfit, others)) > found.bound
    assert np.isclose(found.misfit, data.misfit(found.R.reshape(planted.shape)))
    assert np.isclose(found.weights @ found.residuals**2, found.misfit)
    if name != "Z2":
        assert 0.3 < found.noise / 0.1 < 3


@pytest.mark.parametrize("seed", range(8))
def test_signs_against_brute_force(seed):
    rng = np.random.default_rng(seed)
    i, j = graph(rng, 9, 0.5)
    s, w = rng.choice([-1, 1], i.size), rng.integers(1, 5, i.size)
    data = sync.measurements(i, j, s, w)
    best = min(4 * np.sum(w[x[i] * x[j] != s]) for x in map(np.array, itertools.product([-1, 1], repeat=9)))
    found = sync.synchronize(data, rng=0)
    assert found.R.dtype == np.int8 and np.isin(found.R, (-1, 1)).all()
    assert found.bound <= best + 1e-9 and np.isclose(found.misfit, best)
    assert not found.tight or best - found.bound < 1e-5 * data.scale()


def test_phases_of_constant_modulus_eigenvector_are_the_optimum():
    """A circulant cost: the eigenvector of its smallest eigenvalue has constant modulus, so n lambda_min is the optimum."""
    n, rng = 12, np.random.default_rng(6)
    c = np.exp(2j * np.pi * rng.random(n))
    i, j = np.triu_indices(n, 1)
    row = np.where(np.arange(n) <= n // 2, c, 0)
    row[n // 2] = row[n // 2].real / abs(row[n // 2].real)
    data = sync.measurements(i, j, np.where(j - i <= n // 2, row[(j - i) % n], row[(i - j) % n].conj()))
    C = laplacian(data)
    lowest = n * np.linalg.eigvalsh(C)[0]
    found = sync.synchronize(data, rng=0)
    assert np.isclose(found.misfit, lowest, rtol=1e-9) and found.tight and abs(found.bound - lowest) < 1e-5 * lowest


def test_the_bound_holds_where_the_noise_is_large_and_descent_from_the_truth_stays_above_it():
    data, truth = instance("SO(3)", n=15, noise=3.0, seed=3)
    found = sync.synchronize(data, rng=0)
    assert not found.tight and found.rank > 3 and found.bound < found.misfit <= data.misfit(truth)
    assert found.cause is sync.Cause.NOISE and f"rank {found.rank} of X against 3" in found.why
    assert found.results[0].gap <= 1e-6 and found.gap > 1e-4
    assert np.isclose(found.spectrum.sum(), 3) and found.spectrum[3] > 1e-3


@pytest.mark.parametrize("name", GROUPS)
def test_equivariance_under_frames_and_order(name):
    data, _ = instance(name, n=12, noise=0.2, seed=4)
    found = sync.synchronize(data, rng=0)
    rng = np.random.default_rng(5)
    G = orthogonal(rng, data.n, data.d, special(data), data.group == "U")
    perm = rng.permutation(data.n)  # vertex v becomes perm[v], seen in the frame G_v
    M = G[data.i] @ data.blocks @ G[data.j].conj().transpose(0, 2, 1)
    flip = rng.random(data.i.size) < 0.5
    i, j = perm[np.where(flip, data.j, data.i)], perm[np.where(flip, data.i, data.j)]
    M = np.where(flip[:, None, None], M.conj().transpose(0, 2, 1), M)
    other = sync.synchronize(sync.measurements(i, j, M[:, 0, 0] if data.scalar else M, 7 * data.weights, group=data.group), rng=1)
    assert np.isclose(other.misfit, 7 * found.misfit, rtol=1e-8) and other.tight == found.tight
    moved = (G @ found.R.reshape(G.shape)).reshape(found.R.shape)
    assert sync.distance(other.R[perm], moved, special(data)) < 1e-6
    assert np.allclose(np.sort(other.residuals), np.sort(found.residuals), atol=1e-6)


def test_rotations_of_the_plane_are_phases():
    data, _ = instance("SO(2)", noise=0.3, seed=7)
    z = data.blocks[:, 0, 0] + 1j * data.blocks[:, 1, 0]
    plane, phase = sync.synchronize(data, rng=0), sync.synchronize((data.i, data.j, z), rng=0)
    angles = sync.synchronize((data.i, data.j, np.angle(z)), group="U(1)", rng=0)
    assert np.isclose(plane.misfit, 2 * phase.misfit) and np.isclose(angles.misfit, phase.misfit)
    assert np.isclose(plane.bound, 2 * phase.bound, rtol=1e-5)
    assert sync.distance(plane.R[:, 0, 0] + 1j * plane.R[:, 1, 0], phase.R) < 1e-6
    assert sync.problem(data).n == data.n and sync.problem(instance("O(3)")[0]).n == 3 * 12


def test_solve_and_recover_agree_with_synchronize_and_weights_matter():
    i, j, M, R, _ = gallery.rotation_graph(15, 3, 0.2, rng=0, p=0.4)
    w = np.random.default_rng(0).random(i.size) + 0.1
    data = sync.measurements(i, j, M, w)
    result = bmsdp.solve(sync.problem((i, j, M, w)), rng=0)
    found, other = sync.recover(result, (i, j, M, w)), sync.synchronize(data, rng=1)
    assert found.tight and np.isclose(found.misfit, other.misfit, rtol=1e-9) and sync.distance(found.R, other.R, True) < 1e-6
    assert abs(result.cost - found.misfit) < 1e-5 * found.misfit
    plain = sync.synchronize((i, j, M), rng=1)
    assert sync.distance(found.R, plain.R, True) > 1e-3
    again = sync.synchronize(data, start=plain.R, rng=2)
    assert np.isclose(again.misfit, found.misfit, rtol=1e-9)
    assert np.isclose(sync.synchronize(data, start="random", rng=2).misfit, found.misfit, rtol=1e-9)


def test_from_matrix_reads_weights_off_multiples_of_orthogonal_blocks():
    data, truth = instance("SO(3)", n=10, noise=0.1, seed=8)
    w = np.random.default_rng(1).random(data.i.size) + 0.5
    M = np.zeros((30, 30))
    for a, b, B, v in zip(data.i, data.j, data.blocks, w, strict=True):
        M[3 * a : 3 * a + 3, 3 * b : 3 * b + 3], M[3 * b : 3 * b + 3, 3 * a : 3 * a + 3] = v * B, v * B.T
    for kind in (np.asarray, sparse.csr_array):
        found = sync.synchronize(sync.from_matrix(kind(M), 3), rng=0)
        assert np.isclose(found.misfit, sync.synchronize(sync.measurements(data.i, data.j, data.blocks, w), rng=0).misfit, rtol=1e-8)
    C, R = gallery.orthogonal_synchronization(12, 3, 0.05, 0)
    noisy = sync.from_matrix(-C, 3)
    assert not noisy.orthogonal and sync.distance(sync.synchronize(noisy, rng=0).R, R.reshape(-1, 3, 3)) < 0.2
    signs = sync.from_matrix(np.array([[0, 2, -3], [2, 0, 0], [-3, 0, 0.0]]), 1)
    assert signs.weights.tolist() == [2, 3] and signs.blocks.ravel().tolist() == [1, -1]


# Outliers


@pytest.mark.parametrize("loss", ["tls", "gm"])
@pytest.mark.parametrize("seed", range(3))
def test_graduated_non_convexity_finds_forty_percent_of_outliers(loss, seed):
    i, j, M, R, bad = gallery.rotation_graph(40, 3, 0.05, 0.4, seed, p=0.5)
    plain, found = sync.synchronize((i, j, M), rng=0), sync.synchronize((i, j, M), robust=loss, threshold=0.5, rng=0)
    clean = sync.synchronize((i[~bad], j[~bad], M[~bad]), rng=0)
    error = [sync.distance(a.R, R, True) for a in (plain, found, clean)]
    assert error[1] < 0.06 and error[1] < 0.4 * error[0] and error[1] < 1.3 * error[2] + 0.01
    assert np.mean(found.inliers == ~bad) > 0.99 and found.tight and found.rounds > 3
    assert plain.rounds == 1 and plain.inliers.all()
    if loss == "gm":  # a stationary point of the loss itself
        assert np.allclose(found.weights, (0.25 / (found.residuals**2 + 0.25)) ** 2, atol=0.01)
    if loss == "tls":
        assert np.isin(found.weights, (0, 1)).all() and np.array_equal(found.weights > 0, found.inliers)


def test_truncated_least_squares_is_not_worse_than_the_planted_choice():
    i, j, M, R, bad = gallery.rotation_graph(30, 3, 0.05, 0.3, 7, p=0.5)
    found = sync.synchronize((i, j, M), robust="tls", threshold=0.4, rng=0)
    truncated = lambda B: np.minimum(np.sum((B[i] - M @ B[j]) ** 2, axis=(1, 2)), 0.16).sum()  # noqa: E731
    assert truncated(found.R) <= truncated(R)


@pytest.mark.parametrize("name", ["U(1)", "SO(2)", "SO(4)"])
def test_outliers_in_other_groups(name):
    data, truth = instance(name, n=30, noise=0.03, seed=9, p=0.6)
    rng = np.random.default_rng(9)
    bad = rng.random(data.i.size) < 0.3
    M = data.blocks.copy()
    M[bad] = orthogonal(rng, bad.sum(), data.d, special(data), data.group == "U")
    found = sync.synchronize((data.i, data.j, M[:, 0, 0] if data.scalar else M), robust="tls", threshold=0.3, rng=0)
    assert sync.distance(found.R, truth, special(data)) < 0.05 and np.mean(found.inliers == ~bad) > 0.95


def test_trusted_edges_are_kept_and_inliers_alone_reject_nothing():
    i, j, M, R, bad = gallery.rotation_graph(25, 3, 0.05, 0.5, 3, p=0.4)
    trusted = np.zeros(i.size, bool)
    trusted[np.flatnonzero(bad)[0]] = True
    found = sync.synchronize((i, j, M), robust="tls", threshold=0.5, trusted=trusted, rng=0)
    assert found.inliers[trusted].all() and found.weights[trusted] == 1
    assert not sync.synchronize((i, j, M), robust="tls", threshold=0.5, rng=0).inliers[trusted].any()
    clean = sync.synchronize((i[~bad], j[~bad], M[~bad]), robust="tls", threshold=1.0, rng=0)
    assert clean.inliers.all() and clean.rounds == 1


def test_a_vertex_that_only_outliers_hold_keeps_a_bridge_and_the_answer_says_so():
    i, j, M, R, _ = gallery.rotation_graph(12, 3, 0.01, rng=0, p=1.0)
    rng = np.random.default_rng(0)
    i, j, M = np.r_[i, 12, 12, 12], np.r_[j, 0, 1, 2], np.concatenate([M, orthogonal(rng, 3, 3, True)])
    found = sync.synchronize((i, j, M), robust="tls", threshold=0.2, rng=0)
    assert not found.inliers[-2:].all() and found.inliers[:-3].all()
    lonely = sync.synchronize((np.r_[0, 1, 0, 3], np.r_[1, 2, 2, 0], np.r_[1, 1, 1, -1]), robust="gm", rng=0)
    assert lonely.R.tolist() in ([1, 1, 1, -1], [-1, -1, -1, 1])


# Causes


def test_outliers_are_named_as_the_cause():
    i, j, M, _, bad = gallery.rotation_graph(40, 3, 0.05, 0.4, 0, p=0.2)
    found = sync.synchronize((i, j, M), rng=0)
    assert found.cause is sync.Cause.OUTLIERS and 'robust="tls"' in found.why and not found.tight
    clean = sync.synchronize((i[~bad], j[~bad], M[~bad]), rng=0)
    assert clean.tight and "residuals far" not in clean.why


def test_determinants_are_named_as_the_cause():
    rng = np.random.default_rng(0)
    R = orthogonal(rng, 6, 3, True) * np.array([1, 1, -1, 1, -1, 1])[:, None, None]
    i, j = np.triu_indices(6, 1)
    M = R[i] @ R[j].transpose(0, 2, 1)
    found = sync.synchronize(sync.measurements(i, j, M, group="SO", general=True), rng=0)
    assert found.cause is sync.Cause.REFLECTIONS and "2 of 6 blocks" in found.why and found.rank == 3
    assert np.allclose(np.linalg.det(found.R), 1) and found.bound < 1e-6 < found.misfit
    free = sync.synchronize((i, j, M), rng=0)
    assert free.tight and sorted(np.sign(np.linalg.det(free.R)).astype(int))[1:5] in ([-1, 1, 1, 1], [-1, -1, -1, 1])


def test_a_weak_graph_is_named_as_the_cause():
    rng = np.random.default_rng(0)
    n = 300
    R = orthogonal(rng, n, 2, True)
    i, j = np.r_[np.arange(n - 1), 0, 0, 100], np.r_[np.arange(1, n), n - 1, 150, 250]
    angle = 0.3 * rng.standard_normal(i.size)
    angle[-2:] += [2.0, -2.0]  # loops that do not close
    z = (R[:, 0, 0] + 1j * R[:, 1, 0])[:, None]
    found = sync.synchronize((i, j, (z[i] * z[j].conj()).ravel() * np.exp(1j * angle)), rng=0)
    assert found.cause is sync.Cause.WEAK_GRAPH and not found.tight and found.results[0].success
    from bmsdp.applications.synchronization.causes import connectivity, explain

    data = sync.measurements(i, j, np.ones(i.size))
    assert abs(connectivity(sync.measurements(i[:n], j[:n], np.ones(n)), np.ones(n)) - (2 - 2 * np.cos(2 * np.pi / n))) < 1e-10
    asked = {"rank": 2, "size": 1, "eigengap": 0.01, "residuals": found.residuals, "weights": np.ones(i.size), "tight": False}
    asked |= {"unfinished": None, "reflections": 0, "attained": False}
    phases = sync.measurements(i, j, np.ones(i.size, complex))
    assert explain(phases, noise=0.4, **asked)[0] is sync.Cause.WEAK_GRAPH
    assert explain(phases, noise=0.01, **asked)[0] is sync.Cause.NOISE and explain(data, noise=0.4, **asked)[0] is sync.Cause.NOISE


def test_an_unfinished_run_is_named_as_the_cause():
    data, _ = instance("SO(3)", n=30, noise=2.0, seed=2)
    result = bmsdp.minimize(sync.problem(data), bmsdp.solvers.LBFGS(), rank=5, max_iter=3, rng=0)
    found = sync.recover(result, data)
    assert found.cause is sync.Cause.UNFINISHED and "iteration limit" in found.why and found.bound == 0


def test_the_eigenvalue_gap_and_the_noise_are_measured():
    n, i, j = 30, *np.triu_indices(30, 1)
    gaps = []
    for level in (0.0, 0.1, 0.2):
        data, _ = instance("SO(3)", n=n, noise=level, p=1.0)
        found = sync.synchronize(data, rng=0)
        gaps.append(found.eigengap)
        assert abs(found.noise - level * np.sqrt(2)) < 0.15 * level + 1e-10  # Cayley: twice a matrix of deviation level / sqrt(2)
    assert np.isclose(gaps[0], 1 + 1 / (n - 1), atol=1e-8) and gaps[0] > gaps[1] > gaps[2]  # of K_n: 1 and -1/(n-1)
    signs = sync.synchronize((i, j, np.where(np.arange(i.size) < 43, -1, 1)), rng=0)
    assert signs.noise == np.mean(signs.residuals > 1)


# Components


def test_disconnected_graphs_are_refused_with_sizes_or_solved_in_parts():
    one, R1 = instance("SO(3)", n=7, noise=0.05, seed=1)
    two, R2 = instance("SO(3)", n=5, noise=0.05, seed=2)
    i, j = np.r_[one.i, two.i + 7], np.r_[one.j, two.j + 7]
    data = sync.measurements(i, j, np.concatenate([one.blocks, two.blocks]), n=13)
    for call in (sync.synchronize, sync.problem):
        with pytest.raises(ValueError, match="3 components, of 7, 5, 1 vertices"):
            call(data)
    found = sync.synchronize(data, components="each", rng=0)
    parts = [sync.synchronize(one, rng=0), sync.synchronize(two, rng=0)]
    assert np.isclose(found.misfit, sum(p.misfit for p in parts)) and found.tight and len(found.results) == 2
    assert found.component.tolist() == [0] * 7 + [1] * 5 + [2] and np.array_equal(found.R[12], np.eye(3))
    assert sync.distance(found.R[:7], parts[0].R, True) < 1e-6 and sync.distance(found.R[7:12], parts[1].R, True) < 1e-6
    assert found.bound <= found.misfit and found.residuals.shape == (i.size,)
    z = sync.synchronize((np.array([0, 2]), np.array([1, 3]), np.array([1, -1])), components="each", rng=0)
    assert z.R[0] == z.R[1] and z.R[2] == -z.R[3] and z.misfit == 0


# Long graphs


def test_a_long_ring_is_certified_by_preconditioned_newton_steps():
    from bmsdp.applications.synchronization.relaxation import default_solver

    i, j, M, R, _ = gallery.rotation_graph(120, 3, 0.05, rng=2, p=0.002)
    found = sync.synchronize((i, j, M), rng=0)
    assert found.tight and found.eigengap < 0.02 and "preconditioner" in found.results[0].options["solver"]
    problem = sync.problem((i, j, M))
    solver = default_solver(problem, 0.99)
    rng = np.random.default_rng(0)
    model = problem.at(problem.random_point(4, rng))
    apply = solver.preconditioner(model)
    U, V = (problem.manifold.project(model.Y, rng.standard_normal(model.Y.shape), model.factor) for _ in range(2))
    assert np.isclose(np.vdot(U, apply(V)), np.vdot(apply(U), V)) and np.vdot(U, apply(U)) > 0
    dense = problem.C.mul(np.eye(360)) / problem.norm_C + 1e-6 * np.eye(360)
    assert np.allclose(apply(V), problem.manifold.project(model.Y, np.linalg.solve(dense, V), model.factor), rtol=1e-6, atol=1e-6)


# What is refused

I3 = np.tile(np.eye(3), (2, 1, 1))


@pytest.mark.parametrize(
    "call, needed",
    [
        (lambda: sync.measurements([0, 1], [1, 2], 2 * I3), r"blocks\[0\] is not orthogonal.*general=True"),
        (lambda: sync.measurements([0, 1], [1, 2], np.where(np.arange(2)[:, None, None] == 1, np.nan, I3)), r"blocks\[1\] .*NaN"),
        (lambda: sync.measurements([0, 1], [1, 2], -I3, group="SO"), r"blocks\[0\] is a reflection"),
        (lambda: sync.measurements([0, 1], [1, 2], I3, n=2), r"j\[1\] = 2 is out of range; vertices are 0 .. 1"),
        (lambda: sync.measurements([-1, 1], [1, 2], I3), r"i\[0\] = -1"),
        (lambda: sync.measurements([0, 1], [1, 1], I3), "joins vertex 1 to itself"),
        (lambda: sync.measurements([0, 1], [1, 0], I3), "edges 0 and 1 both join 0 and 1.*merge"),
        (lambda: sync.measurements([0.0, 1.0], [1, 2], I3), "integer array"),
        (lambda: sync.measurements([0], [1, 2], I3), "integer array"),
        (lambda: sync.measurements([0, 1], [1, 2], I3, [1, 0]), r"weights\[1\] = 0; positive"),
        (lambda: sync.measurements([0, 1], [1, 2], I3, [1, np.nan]), r"weights\[1\]"),
        (lambda: sync.measurements([0, 1], [1, 2], I3, [1]), "weights has shape"),
        (lambda: sync.measurements([0, 1], [1, 2], I3[:, :2]), "blocks has shape"),
        (lambda: sync.measurements([0, 1], [1, 2], [0.3, 0.2]), "angles in radians"),
        (lambda: sync.measurements([0, 1], [1, 2], [1, 2j]), r"blocks\[1\] is not orthogonal"),
        (lambda: sync.measurements([0, 1], [1, 2], [1, -1], group="SO"), "d >= 2"),
        (lambda: sync.measurements([0, 1], [1, 2], I3, group="Z2"), "one number an edge"),
        (lambda: sync.measurements([0, 1], [1, 2], I3 + 0j, group="SO"), "complex"),
        (lambda: sync.measurements([0, 1], [1, 2], I3, group="SU"), "one of SO, O, U"),
        (lambda: sync.measurements([], [], np.zeros((0, 3, 3))), "no measurements|integer array"),
        (lambda: sync.measurements(np.zeros(0, int), np.zeros(0, int), np.zeros((0, 3, 3))), "no measurements"),
        (lambda: sync.measurements([0, 1], [1, 2], I3, n=0), "positive integer"),
        (lambda: sync.from_matrix(np.eye(6), 3), "no block other than 0"),
        (lambda: sync.from_matrix(np.eye(7), 3), "blocks of d = 3"),
        (lambda: sync.from_matrix(np.triu(np.ones((6, 6))), 3), "not symmetric"),
        (lambda: sync.from_matrix(np.eye(6), 0), "positive integer"),
        (lambda: sync.clouds(np.ones((1, 3, 4))), "n >= 2"),
        (lambda: sync.clouds(np.full((2, 3, 4), np.inf)), "NaN or infinite"),
        (lambda: sync.clouds(np.zeros((2, 3, 4))), "all clouds are 0"),
        (lambda: sync.clouds(np.ones((2, 3, 4)) * 1j), '"U" for complex'),
        (lambda: sync.synchronize(np.eye(4)), "from_matrix"),
        (lambda: sync.synchronize(([0], [1], I3[:1]), robust="huber"), '"tls" or "gm"'),
        (lambda: sync.synchronize(sync.clouds(np.ones((2, 3, 4))), robust="tls"), "for Clouds"),
        (lambda: sync.synchronize(([0], [1], I3[:1]), threshold=0.0), "positive number"),
        (lambda: sync.synchronize(([0], [1], I3[:1]), threshold=[1, 2]), "one for each of 1 edges"),
        (lambda: sync.synchronize(([0], [1], I3[:1]), trusted=[1]), "a bool for each"),
        (lambda: sync.synchronize(([0], [1], I3[:1]), components="all"), "refuse"),
        (lambda: sync.synchronize(([0], [1], I3[:1]), start="zero"), "spectral"),
        (lambda: sync.synchronize(([0], [1], I3[:1]), start=np.eye(3)), "finite blocks of shape"),
        (lambda: sync.synchronize(sync.measurements([0], [1], I3[:1]), group="O"), "leave group None"),
        (lambda: sync.recover(bmsdp.solve(np.eye(4), rng=0), ([0], [1], I3[:1])), "6 rows"),
    ],
)
def test_refused(call, needed):
    with pytest.raises(ValueError, match=needed):
        call()


def test_rotation_graph_plants_what_it_says():
    i, j, M, R, bad = gallery.rotation_graph(60, 4, 0.02, 0.3, 5, p=0.3)
    assert np.allclose(np.linalg.det(R), 1) and np.allclose(np.linalg.det(M), 1)
    assert np.allclose(M @ M.transpose(0, 2, 1), np.eye(4)) and len(np.unique(i * 60 + j)) == i.size and (i < j).all()
    residual = np.linalg.norm(R[i] - M @ R[j], axis=(1, 2))
    assert residual[~bad].max() < 0.2 and residual[bad].min() > 0.2 and not bad[:59].any() and abs(bad[59:].mean() - 0.3) < 0.1
    assert abs(np.sqrt(np.mean(residual[~bad] ** 2) / 12) - 0.02) < 0.002


def test_a_ring_that_winds_is_no_optimum():
    """A point at which 64 Lanczos steps see no negative curvature, and a negative pivot does: the staircase has to leave it."""
    rng = np.random.default_rng(1)
    n = 300
    R = np.linalg.qr(rng.standard_normal((n, 3, 3)))[0]
    R *= np.sign(np.linalg.det(R))[:, None, None]
    i, j = np.r_[np.arange(n - 1), 0], np.r_[np.arange(1, n), n - 1]
    W = rng.standard_normal((n, 3, 3)) * 0.1 / np.sqrt(2)
    M = expm(W - W.transpose(0, 2, 1)) @ R[i] @ R[j].transpose(0, 2, 1)
    answer = sync.synchronize((i, j, M), rng=0)
    result = answer.results[0]
    assert result.status is bmsdp.Status.CERTIFIED and result.certificate.rigor == "verified"
    drift = np.linalg.norm(logm(functools.reduce(np.matmul, [*M[:-1], M[-1].T])))  # the loop's error, spread evenly, is the least there is
    assert answer.misfit <= 1.01 * drift**2 / n
