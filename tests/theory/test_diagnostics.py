"""What the theory says at one point, against spectra and optima found in other ways."""

from math import inf, sqrt

import numpy as np
import pytest

import bmsdp
from bmsdp import Oblique, Problem, Product, Sphere, StiefelProduct, Term, Unconstrained, gallery, theory
from bmsdp.solvers import TrustRegion
from bmsdp.theory import conditioning, diagnostics, face_rank, gap_bound, sigma_k

RADII = np.array([0.25, 1.0, 9.0, 2.0, 4.0, 0.5, 1.0, 1.0])


def rank_one_cost(n, seed):
    return gallery.rank_one_optimal(n, seed, cond=3.0)[0]


CASES = {
    "oblique": (gallery.goe(16, 0), Oblique(np.ones(16)), (2, 3, 6)),
    "oblique, complex": (gallery.gue(12, 0), Oblique(np.ones(12)), (1, 2, 4)),
    "oblique, low rank": (rank_one_cost(12, 0), Oblique(np.ones(12)), (2, 4)),
    "oblique, radii": (gallery.goe(8, 1), Oblique(RADII), (2, 5)),
    "oblique, radii, complex": (gallery.gue(8, 1), Oblique(RADII), (2, 4)),
    "sphere": (gallery.goe(10, 2), Sphere(10, 3.0), (1, 3)),
    "sphere, complex": (gallery.gue(10, 2), Sphere(10, 0.5), (1, 2)),
    "stiefel": (gallery.goe(12, 3), StiefelProduct(6, 2), (2, 3, 6)),
    "stiefel, complex": (gallery.gue(9, 3), StiefelProduct(3, 3, True), (3, 5)),
    "product": (gallery.goe(11, 4), Product([Oblique(RADII[:4]), Sphere(3, 4.0), StiefelProduct(2, 2)]), (2, 5)),
}
UNIT = [name for name in CASES if name in ("oblique", "oblique, complex", "oblique, low rank")]


def points(name):
    """(problem, Y) at random, half-converged, converged and nearly rank-deficient points of every width."""
    C, manifold, ranks = CASES[name]
    problem, rng = Problem(C, manifold), np.random.default_rng(7)
    for k in ranks:
        Y = problem.random_point(k, rng)
        yield problem, Y
        for tol in (0.1, 1e-2, 1e-4, 1e-9):
            Y = bmsdp.minimize(problem, TrustRegion(), Y, tol=tol, max_iter=300).Y
            yield problem, Y
        if k > manifold.min_rank:
            Z = problem.random_point(k - 1, rng)
            for size in (0.0, 1e-9, 1e-2):
                Y = np.c_[Z, size * problem.random_point(k, rng)[:, :1]]
                yield problem, manifold.retract(np.ascontiguousarray(Y), np.zeros_like(Y))


def optimum(problem):
    result = bmsdp.solve(problem, rng=0, tol=1e-9)
    assert result.bound <= result.cost <= result.bound + 1e-6 * problem.norm_C * gap_trace(problem)
    return result.cost


def gap_trace(problem):
    return float(problem.manifold.row_trace.sum())


def dense_hessian(problem, Y):
    """The Hessian on an orthonormal basis of the tangent space, from matrices alone."""
    n, k = Y.shape
    complex_ = Y.dtype.kind == "c"
    A = [problem.manifold.adjoint_mul(e, np.eye(n, dtype=Y.dtype)) for e in np.eye(problem.manifold.m)]
    C = problem.C.mul(np.eye(n, dtype=Y.dtype))

    def flat(U):
        return np.r_[U.real.ravel(), U.imag.ravel()] if complex_ else U.ravel()

    normals = np.array([flat(a @ Y) for a in A]).T
    mu = np.linalg.lstsq(normals, flat(C @ Y), rcond=None)[0]
    S = C - sum(m * a for m, a in zip(mu, A, strict=True))
    big = np.kron(S.real, np.eye(k)) if not complex_ else np.kron(np.block([[S.real, -S.imag], [S.imag, S.real]]), np.eye(k))
    U, s, _ = np.linalg.svd(normals)
    T = U[:, (s > 1e-10 * s[0]).sum() :]
    return 2 * T.T @ big @ T, S


@pytest.mark.parametrize("name", CASES)
def test_gap_bounds_hold_everywhere(name):
    """Facts 4, 5, 6: (G1)-(G5) against the optimum, with every ingredient found in another way as well."""
    best = None
    finite = set()
    for problem, Y in points(name):
        best = optimum(problem) if best is None else best
        model = problem.at(Y)
        g = gap_bound(model)
        scale = problem.norm_C * gap_trace(problem)
        slip = 1e-10 * scale
        H, S = dense_hessian(problem, Y)
        eigenvalues = np.linalg.eigvalsh(S)
        if len(H):
            assert g.hess_min == pytest.approx(np.linalg.eigvalsh(H)[0], abs=1e-9 * problem.norm_C)
        assert (g.eig_min, g.eig_max) == pytest.approx((eigenvalues[0], eigenvalues[-1]), abs=1e-9 * problem.norm_C)
        k = Y.shape[1]
        assert g.tau == pytest.approx(np.sort(np.abs(eigenvalues))[k - 1], abs=1e-9 * problem.norm_C)
        assert g.trace == pytest.approx(gap_trace(problem)) and model.trace == pytest.approx(g.trace)
        assert abs(g.slackness) <= slip and g.grad_norm == pytest.approx(2 * np.linalg.norm(S @ Y), abs=1e-10 * scale)

        gap = model.cost - best
        bounds = [g.g1, g.g2, g.g3, g.g4, g.g5]
        assert all(bound >= gap - slip for bound in bounds) and g.best == min(bounds)
        assert all(bound >= g.g1 - slip for bound in bounds[:4])  # they bound -lambda_min(S) itself
        finite |= {j for j, bound in enumerate(bounds, 1) if bound < inf}

        s = sigma_k(model)
        assert s.value == g.sigma_k == pytest.approx(np.linalg.svd(Y)[1][-1]) and s.tau == g.tau
        assert s.value * s.tau <= s.residual + 1e-12 * scale and s.residual <= g.grad_norm / 2 * (1 + 1e-12)
        assert g.nu2 <= (g.kappa * g.sigma_k) ** 2 + 1e-12
        if g.g4 < inf:
            eta = max(-g.eig_min, g.eig_max) * g.kappa**2 / (2 * g.tau**2)
            assert g.kappa * g.grad_norm <= g.tau
            assert g.g4 == pytest.approx(g.slackness + g.trace * (g.eps_H + g.grad_norm**2 * eta), abs=slip)
    assert finite >= {1, 2, 3} and (5 in finite) == (name in UNIT)


def test_every_bound_is_finite_somewhere():
    g = [gap_bound(problem.at(Y)) for problem, Y in points("oblique")]
    assert all(any(getattr(at, f"g{j}") < inf for at in g) for j in range(1, 6))
    assert any(at.g4 < 1e-5 and at.g2 == inf for at in g)


@pytest.mark.parametrize("complex_", [False, True])
def test_bounds_are_attained_on_the_sphere(complex_):
    """At an eigenvector of C, f - f* = R (lambda_j - lambda_1), and so say (G1), (G2) and, with nu = 0, (G3)."""
    C, R = (gallery.gue(7, 0) if complex_ else gallery.goe(7, 0)), 2.5
    eigenvalues, V = np.linalg.eigh(C)
    for j in range(7):
        gap = R * (eigenvalues[j] - eigenvalues[0])
        y = sqrt(R) * V[:, [j]]
        g = gap_bound(Problem(C, Sphere(7, R)).at(y))
        assert g.g1 == pytest.approx(gap, abs=1e-12) and g.g2 == g.g4 == inf
        if j or complex_:  # for j = 0, x z* is Y itself, which is normal, and i Y, which is tangent
            assert (g.g3, g.nu2) == pytest.approx((gap, 0), abs=1e-12)
        else:
            assert g.g3 == inf and g.nu2 == pytest.approx(1)
        padded = gap_bound(Problem(C, Sphere(7, R)).at(np.ascontiguousarray(np.c_[y, 0 * y])))
        assert (padded.g1, padded.g2, padded.g3) == pytest.approx((gap, gap, gap), abs=1e-12)
        assert padded.g4 == pytest.approx(2 * gap, abs=1e-11)  # eps_H is counted twice there


@pytest.mark.parametrize(("name", "k"), [("oblique", 2), ("oblique", 3), ("oblique, complex", 1), ("oblique, complex", 2)])
def test_g5_at_second_order_points(name, k):
    """Fact 15, with both optima known."""
    C, manifold, _ = CASES[name]
    problem = Problem(C, manifold)
    best, worst = optimum(problem), -optimum(Problem(-C, manifold))
    p = 2 * k - 1 if problem.C.is_complex else k - 1
    for seed in range(5):
        Y = bmsdp.minimize(problem, TrustRegion(), rank=k, tol=1e-8, rng=seed).Y
        g = gap_bound(problem.at(Y), cost_max=worst)
        gap = problem.at(Y).cost - best
        assert g.hess_min >= -1e-6
        assert gap <= (worst - best) / p + problem.n * g.eps_H / 2 + 1e-8
        assert gap <= g.g5 and (g.g5 < inf) == (p > 1)
        assert p == 1 or g.g5 <= gap_bound(problem.at(Y)).g5


@pytest.mark.parametrize(("k", "complex_"), [(2, False), (3, False), (5, False), (1, True), (2, True), (4, True)])
def test_mean_curvature_behind_g5(k, complex_, rng):
    """Over a basis of all G, the tangent parts U of ZG have sum UU* = (p - 1) X* + M with M feasible, and sum |U|^2 = p n."""
    n, r = 6, 3
    manifold, dtype = Oblique(np.ones(n)), complex if complex_ else float
    Y, Z = manifold.random_point(k, rng, dtype), manifold.random_point(r, rng, dtype)
    Q = np.zeros((n, n), dtype)
    for e in np.eye(r * k):
        for unit in (1.0, 1j) if complex_ else (1.0,):
            G = unit * e.reshape(r, k)
            U = manifold.project(Y, np.ascontiguousarray(Z @ G))
            Q += U @ U.conj().T
    p = 1.0 if k == (1 if complex_ else 2) else theory.g5(0.0, 1.0, 0.0, n, k, complex=complex_) ** -1 + 1
    assert np.trace(Q).real == pytest.approx(p * n)
    M = Q - (p - 1) * Z @ Z.conj().T
    np.testing.assert_allclose(np.diag(M), 1, atol=1e-12)
    assert np.linalg.eigvalsh(M)[0] >= -1e-12


@pytest.mark.parametrize("name", CASES)
def test_kappa_is_attained_and_never_exceeded(name, rng):
    C, manifold, ranks = CASES[name]
    eye = np.eye(manifold.n, dtype=C.dtype)
    Y = manifold.random_point(ranks[-1], rng, C.dtype)
    candidates = [*np.eye(manifold.m), *rng.standard_normal((50, manifold.m))]
    ratios = [np.linalg.norm(manifold.adjoint_mul(mu, eye), 2) / np.linalg.norm(manifold.adjoint_mul(mu, Y)) for mu in candidates]
    assert max(ratios) == pytest.approx(manifold.kappa) == pytest.approx(gap_bound(Problem(C, manifold).at(Y)).kappa)


@pytest.mark.parametrize("name", ["oblique", "oblique, complex", "stiefel", "stiefel, complex", "product"])
def test_laws(name, rng):
    """Facts 2, 3, 26, 28: rotation of the columns, null columns, scale, shifts by A*(nu), gauge."""
    C, manifold, ranks = CASES[name]
    k = ranks[-1]
    problem = Problem(C, manifold)
    Y = bmsdp.minimize(problem, TrustRegion(), rank=k, tol=1e-2, rng=0).Y
    at = gap_bound(problem.at(Y))
    model = problem.at(Y)
    assert manifold.b @ model.mu == pytest.approx(model.cost)

    def same(other, scale=1.0, fields=("grad_norm", "hess_min", "eig_min", "eig_max", "tau", "g1", "g3", "g4", "g5")):
        for field in fields:
            assert getattr(other, field) == pytest.approx(scale * getattr(at, field), rel=1e-7, abs=1e-9), field
        assert (other.sigma_k, other.nu2) == pytest.approx((at.sigma_k, at.nu2), rel=1e-6, abs=1e-9)

    Q = np.linalg.qr(rng.standard_normal((k, k)) + (1j * rng.standard_normal((k, k)) if problem.C.is_complex else 0))[0]
    same(gap_bound(problem.at(np.ascontiguousarray(Y @ Q))))
    same(gap_bound(Problem(3 * C, manifold).at(Y)), 3.0)
    nu = rng.standard_normal(manifold.m)
    shifted = Problem(C + manifold.adjoint_mul(nu, np.eye(manifold.n, dtype=C.dtype)), manifold).at(Y)
    assert shifted.cost == pytest.approx(model.cost + manifold.b @ nu)
    same(gap_bound(shifted))
    d = np.exp(1j * rng.uniform(0, 7, manifold.n)) if problem.C.is_complex else rng.choice([-1.0, 1.0], manifold.n)
    if "oblique" in name:
        same(gap_bound(Problem(d[:, None] * C * d.conj(), manifold).at(np.ascontiguousarray(d[:, None] * Y))))
    padded = gap_bound(problem.at(np.ascontiguousarray(np.c_[Y, np.zeros(len(Y))])))
    assert (padded.g1, padded.grad_norm, padded.eig_min) == pytest.approx((at.g1, at.grad_norm, at.eig_min), abs=1e-9)
    assert padded.sigma_k == padded.nu2 == 0 and at.g1 - 1e-9 <= padded.g2 == padded.g3 < inf


@pytest.mark.parametrize("name", CASES)
def test_lanczos_agrees_with_dense_spectra(name, monkeypatch):
    C, manifold, ranks = CASES[name]
    problem = Problem(C, manifold)
    for tol, slip in ((0.5, 1e-6), (1e-6, 1e-6)):
        model = problem.at(bmsdp.minimize(problem, TrustRegion(), rank=ranks[-1], tol=tol, rng=0).Y)
        dense = gap_bound(model)
        with monkeypatch.context() as patch:
            patch.setattr(diagnostics, "DENSE", 2)
            sparse, s = gap_bound(model), sigma_k(model)
        for field in ("eig_min", "eig_max", "hess_min"):
            assert getattr(sparse, field) == pytest.approx(getattr(dense, field), abs=slip * problem.norm_C)
        assert sparse.eig_min <= dense.eig_min + 1e-12 * problem.norm_C and sparse.hess_min <= dense.hess_min + 1e-12 * problem.norm_C
        assert 0 <= sparse.tau == s.tau <= dense.tau + 1e-9 * problem.norm_C  # by Cauchy, from below
        if tol == 1e-6 and dense.sigma_k < 1e-3:
            assert sparse.tau > 0.1 * dense.tau and sparse.g4 < 1e-4 * problem.norm_C
        assert sparse.nu2 <= (sparse.kappa * sparse.sigma_k) ** 2 + 1e-12 and sparse.g1 >= dense.g1 - 1e-9 * problem.norm_C


def test_lanczos_that_does_not_converge_says_so(monkeypatch):
    import scipy.sparse.linalg

    def fail(*args, **kwargs):
        raise scipy.sparse.linalg.ArpackNoConvergence("no", np.zeros(0), np.zeros((0, 0)))

    problem = Problem(gallery.goe(8, 0), Oblique(np.ones(8)))
    monkeypatch.setattr(scipy.sparse.linalg, "eigsh", fail)
    monkeypatch.setattr(diagnostics, "DENSE", 2)
    with pytest.raises(RuntimeError, match="pass eig_min, eig_max and hess_min, or use bmsdp.certify"):
        gap_bound(problem.at(problem.random_point(3, np.random.default_rng(0))))


def test_near_kernels_too_large_for_a_small_residual():
    """Rank 6 of 16 at an optimum: a hundred Hessian eigenvalues near zero, among 1600."""
    problem = Problem(gallery.goe(100, 0), Oblique(np.ones(100)))
    result = bmsdp.solve(problem, rng=0, rank=16, tol=1e-7)
    at = gap_bound(problem.at(result.Y))
    assert -1e-4 <= at.hess_min <= 0 and at.g1 <= at.g3 <= 1e-5 * abs(result.cost)


def test_lanczos_starts_away_from_any_seeded_point(monkeypatch):
    """A start from a common seed would be normal to the random point of that seed, and see no tangent space."""
    monkeypatch.setattr(diagnostics, "DENSE", 2)
    problem = Problem(gallery.goe(8, 0), Oblique(np.ones(8)))
    for seed in (0, 1, 42, 180603763):
        assert np.isfinite(gap_bound(problem.at(problem.random_point(2, np.random.default_rng(seed)))).hess_min)


def test_spectra_that_are_given_are_used():
    problem = Problem(gallery.goe(9, 0), Oblique(np.ones(9)))
    model = problem.at(problem.random_point(4, np.random.default_rng(0)))
    at = gap_bound(model)
    given = gap_bound(model, hess_min=-40.0, eig_min=-50.0, eig_max=60.0, cost_max=1e3)
    assert (given.hess_min, given.eig_min, given.eig_max, given.tau, given.g4) == (-40, -50, 60, 0, inf)
    assert given.nu2 == pytest.approx(given.sigma_k**2) and given.g1 == pytest.approx(9 * 50)
    assert given.g5 == pytest.approx((1e3 - model.cost + 3 * 9 * 20) / 2)
    assert gap_bound(model, eig_min=-50.0).nu2 == at.nu2 and gap_bound(model, eig_min=-50.0).tau == at.tau
    assert gap_bound(model, hess_min=1.0).eps_H == 0
    assert gap_bound(model, eig_max=60.0, eig_min=-50.0, hess_min=-40.0).g5 == pytest.approx((9 * 60 + 3 * 9 * 20) / 2)
    assert at.g5 == pytest.approx((9 * at.eig_max + 3 * 9 * at.eps_H / 2) / 2)


def test_rows_without_a_bound_have_none_either():
    problem = Problem(gallery.goe(6, 0), Product([Unconstrained(2), Oblique(np.ones(4))]))
    model = problem.at(problem.random_point(3, np.random.default_rng(0)))
    at = gap_bound(model)
    assert at.trace == at.g1 == inf and at.slackness != 0 and at.kappa == 1
    assert at.slackness == pytest.approx(np.trace(model.slack_matrix() @ model.Y @ model.Y.T))
    bounded = gap_bound(model, trace=50.0)
    assert bounded.g1 == pytest.approx(at.slackness - 50 * at.eig_min) and bounded.g5 == inf
    with pytest.raises(ValueError, match="trace = 1.0 is below tr X"):
        gap_bound(model, trace=1.0)


def test_no_tangent_space_and_more_columns_than_rows():
    problem = Problem(gallery.goe(5, 0), Oblique(np.ones(5)))
    signs = gap_bound(problem.at(np.array([[1.0], [-1], [1], [1], [-1]])))
    assert signs.hess_min == inf and signs.eps_H == 0 and signs.g2 == signs.g5 == inf and signs.nu2 == pytest.approx(1)
    wide = problem.at(problem.random_point(7, np.random.default_rng(0)))
    at = gap_bound(wide)
    assert (at.sigma_k, at.tau) == (0, inf) and at.nu2 <= 1e-28 and at.g1 <= at.g2 <= at.g3 + 1e-9 and at.g2 <= at.g4 < inf
    assert sigma_k(wide).bound == 0


def test_zero_cost():
    problem = Problem(np.zeros((4, 4)), Oblique(np.ones(4)))
    at = gap_bound(problem.at(problem.random_point(2, np.random.default_rng(0))))
    assert (at.g1, at.g3, at.g4, at.hess_min, at.best) == (0, 0, inf, 0, 0)


class Nothing(Term):
    def value(self, Y):
        return 0.0

    def half_grad(self, Y):
        return 0 * Y


def test_models_and_numbers_that_are_refused():
    problem = Problem(gallery.goe(5, 0), Oblique(np.ones(5)))
    Y = problem.random_point(2, np.random.default_rng(0))
    with pytest.raises(ValueError, match="terms besides <C, X>"):
        gap_bound(Problem(problem.C, problem.manifold, [Nothing()]).at(Y))
    for name in ("hess_min", "eig_min", "eig_max", "cost_max"):
        with pytest.raises(ValueError, match=f"{name} = nan; a finite number is needed"):
            gap_bound(problem.at(Y), **{name: np.nan})
    with pytest.raises(ValueError, match="cost_max = -1000.0 is below the cost"):
        gap_bound(problem.at(Y), cost_max=-1000.0)
    with pytest.raises(ValueError, match="tol = 0"):
        face_rank(problem.at(Y), tol=0)


@pytest.mark.parametrize(("t", "smallest"), [(0.95, -0.05), (1.05, 0.0), (3.0, 0.0)])
@pytest.mark.parametrize("n", [5, 6, 9, 12])
def test_n_gon_is_spurious_exactly_where_the_ratio_says(n, t, smallest):
    """Facts 7, 8; the ratio is 1 + t / tau0, the rank 2."""
    C, V, best = gallery.n_gon(n, t)
    problem = Problem(C, Oblique(np.ones(n)))
    at = gap_bound(problem.at(V))
    assert at.hess_min == pytest.approx(smallest, abs=1e-12) and at.eig_min == pytest.approx(-1) and at.grad_norm <= 1e-12
    assert at.g1 == pytest.approx(-best) and at.best >= -best * (1 - 1e-12)
    ones = conditioning(problem.at(np.ones((n, 1))))
    assert ones.cond == pytest.approx(1 + t) and ones.benign(2) == (smallest < 0) and ones.benign_rank == int(1 + t) + 1
    if n == 5 and t == 3.0:
        np.testing.assert_allclose(np.linalg.eigvalsh(dense_hessian(problem, V)[0]), [0, 2, 2, 3, 3], atol=1e-12)


@pytest.mark.parametrize("lanczos", [False, True])
@pytest.mark.parametrize("cond", [1.5, 4.5, 30.2])
def test_conditioning_of_a_planted_solution(cond, lanczos, monkeypatch):
    if lanczos:
        monkeypatch.setattr(diagnostics, "DENSE", 2)
    C, x, best = gallery.rank_one_optimal(20, 1, cond)
    problem = Problem(C, Oblique(np.ones(20)))
    for Y in (x[:, None], -x[:, None] * [[0.6, 0.8]], bmsdp.solve(C, rng=0, rank=3).Y):
        found = conditioning(problem.at(np.ascontiguousarray(Y)))
        assert found.cond == pytest.approx(cond, rel=1e-6) and found.benign_rank == int(cond) + 1
        assert found.benign(int(cond) + 1) and not found.benign(int(cond))
    shifted = conditioning(Problem(C + np.diag(np.arange(20.0)), Oblique(np.ones(20))).at(x[:, None]))
    assert shifted.cond == pytest.approx(cond, rel=1e-6)
    other = x[:, None] * np.r_[-1.0, np.ones(19)][:, None]  # not optimal: S has a negative eigenvalue
    assert conditioning(problem.at(other)) == theory.Conditioning(inf, None) and not conditioning(problem.at(other)).benign(10**6)


def test_a_ratio_equal_to_k_is_not_below_it():
    for seed in range(10):
        C, x, _ = gallery.rank_one_optimal(12, seed, 3.0)
        found = conditioning(Problem(C, Oblique(np.ones(12))).at(x[:, None]))
        assert found.benign_rank == 4 and not found.benign(3)


def test_conditioning_knows_its_limits():
    real, unit = gallery.goe(6, 0), Oblique(np.ones(6))
    ones = np.ones((6, 1))
    assert conditioning(Problem(np.zeros((6, 6)), unit).at(ones)).cond == inf
    assert conditioning(Problem(np.ones((1, 1)), Oblique(np.ones(1))).at(np.ones((1, 1)))).benign(2)
    with pytest.raises(ValueError, match=r"Y has rank above one, sigma_2 / sigma_1 = 0\."):
        conditioning(Problem(real, unit).at(unit.random_point(3, np.random.default_rng(0))))
    for model in (
        Problem(gallery.gue(6, 0), unit).at(ones.astype(complex)),
        Problem(real, Oblique(4 * np.ones(6))).at(2 * ones),
        Problem(real, Sphere(6)).at(ones / sqrt(6)),
        Problem(real, unit, [Nothing()]).at(ones),
        Problem(gallery.goe(1, 0), Sphere(1, 2.0)).at(np.full((1, 1), sqrt(2))),
    ):
        with pytest.raises(ValueError, match="real C and unit diagonal only"):
            conditioning(model)
    C, x, _ = gallery.rank_one_optimal(12, 0, 2.5)
    assert conditioning(Problem(C, StiefelProduct(12, 1)).at(x[:, None])).cond == pytest.approx(2.5)


def test_face_of_the_elliptope():
    n = 6
    problem = Problem(gallery.goe(n, 0), Oblique(np.ones(n)))
    identity = face_rank(problem.at(np.eye(n)))
    assert (identity.rank, identity.columns, identity.dimension) == (n, n, n * (n - 1) // 2) and identity.optimal
    assert identity.kept == pytest.approx(1) and identity.dropped == 0
    cut = face_rank(problem.at(np.ones((n, 1))))
    assert (cut.rank, cut.columns, cut.dimension, cut.optimal) == (1, 1, 0, False)
    padded = face_rank(problem.at(np.ones((n, 3)) / sqrt(3)))
    assert (padded.rank, padded.columns, padded.dimension, padded.optimal) == (1, 1, 0, True)  # deficient: any such point is
    square = face_rank(problem.at(np.array([[1.0, 0], [0, 1], [1, 0], [0, -1], [-1, 0], [0, 1]])))
    assert (square.rank, square.dimension) == (2, 1) and square.dropped <= 1e-12


@pytest.mark.parametrize(
    ("manifold", "dtype", "threshold"),
    [
        (Oblique(np.ones(12)), float, 12 / 2),
        (Oblique(np.ones(12)), complex, 12 / 3),
        (StiefelProduct(5, 2), float, 10 * 3 / 5),
        (StiefelProduct(5, 2, True), complex, 10 * 2 / 4),
        (Sphere(6), float, 0),
        (Sphere(6), complex, 0),
    ],
)
def test_widths_beyond_which_the_face_decides(manifold, dtype, threshold, rng):
    """Fact 13: above these, whatever Y and C; the worst Y has orthogonal rows (blocks) repeated."""
    C = np.eye(manifold.n, dtype=dtype)
    d = manifold.min_rank
    for k in range(d, manifold.n + 1, d):
        worst = np.zeros((manifold.n, k), dtype)
        worst[np.arange(manifold.n), np.arange(manifold.n) % k] = 1
        worst = manifold.retract(worst, np.zeros_like(worst))
        random = face_rank(Problem(C, manifold).at(manifold.random_point(k, rng, dtype)))
        found = face_rank(Problem(C, manifold).at(worst))
        assert random.rank >= found.rank and found.columns == k
        assert found.optimal == (k > threshold) and (random.optimal or k <= threshold)


@pytest.mark.parametrize("name", ["n_gon", "ww 2", "ww 3", "ocarroll 2", "ocarroll 5", "triangle"])
def test_no_spurious_point_is_called_optimal(name):
    C, V, best = {
        "n_gon": lambda: gallery.n_gon(5, 3.0),
        "ww 2": lambda: gallery.waldspurger_waters(7, 2, 0),
        "ww 3": lambda: gallery.waldspurger_waters(10, 3, 0),
        "ocarroll 2": lambda: gallery.ocarroll(2),
        "ocarroll 5": lambda: gallery.ocarroll(5),
        "triangle": lambda: gallery.complex_triangle(2.0),
    }[name]()
    n, k = V.shape
    model = Problem(C, Oblique(np.ones(n))).at(np.ascontiguousarray(V))
    at, face = gap_bound(model), face_rank(model)
    assert at.hess_min >= -1e-9 * model.problem.norm_C and at.grad_norm <= 1e-9 and at.eig_min < -0.1
    assert not face.optimal and face.columns == k and all(g >= -best * (1 - 1e-9) for g in (at.g1, at.g2, at.g3, at.g4, at.g5))
    zeros = (np.abs(np.linalg.eigvalsh(dense_hessian(model.problem, model.Y)[0])) <= 1e-9).sum()
    gauge = k * k if name == "triangle" else k * (k - 1) // 2
    assert zeros == (k * (k - 1) if "ocarroll" in name else gauge)  # fact 27
    assert face.rank == (k if "ocarroll" in name or k == 1 else k * (k + 1) // 2)


def test_face_rank_is_free_of_the_basis(rng):
    """Invertible changes of columns leave r_Y alone; nearly dependent columns do not blur it."""
    manifold = Oblique(np.ones(9))
    problem = Problem(np.eye(9), manifold)
    Z = manifold.random_point(3, rng)
    Z[:, 2] *= 1e-3
    found = face_rank(problem.at(manifold.retract(Z, 0 * Z)))
    assert (found.rank, found.columns, found.dimension) == (6, 3, 0) and found.kept > 1e-3
    free = face_rank(Problem(np.eye(3), Unconstrained(3)).at(np.zeros((3, 2))))
    assert (free.rank, free.columns, free.dimension, free.optimal) == (0, 0, 0, True)
