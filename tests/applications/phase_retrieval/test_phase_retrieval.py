import itertools
from fractions import Fraction

import numpy as np
import pytest
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, aslinearoperator

import bmsdp
from bmsdp.applications import phase_retrieval as pr
from bmsdp.applications.phase_retrieval import bound
from bmsdp.applications.phase_retrieval.bound import Exact, Pencil
from bmsdp.applications.phase_retrieval.fit import AmplitudeFit, flip_signs, row_norms, spectral_start
from bmsdp.applications.phase_retrieval.search import Search
from bmsdp.manifolds.base import inner
from bmsdp.minimize import minimize
from bmsdp.result import Status
from bmsdp.solvers import LBFGS, TrustRegion

FIELD = pytest.mark.parametrize("is_complex", [True, False], ids=["complex", "real"])


def normal(rng, shape, is_complex=True):
    return rng.standard_normal((*shape, 2)) @ [1, 1j] if is_complex else rng.standard_normal(shape)


def instance(n, d, is_complex=True, noise=0.0, seed=0):
    """(A, x, b) with Gaussian A and x, and noise of this size relative to the magnitudes."""
    rng = np.random.default_rng(seed)
    A, x = normal(rng, (n, d), is_complex), normal(rng, (d,), is_complex)
    b = np.abs(A @ x)
    return A, x, np.abs(b + noise * np.sqrt(np.mean(b**2)) * rng.standard_normal(n))


def diffraction(shape=(6, 5), masks=6, noise=0.0, seed=0, real=False):
    rng = np.random.default_rng(seed)
    A = pr.masked_fft(pr.coded_diffraction(shape, masks, rng))
    x = normal(rng, shape, not real)
    b = np.abs(A @ x.ravel())
    return A, x, np.abs(b + noise * np.sqrt(np.mean(b**2)) * rng.standard_normal(b.size))


def retrieve(*data, **options):
    return pr.retrieve(*data, **{"rng": 0, "progress": False} | options)


def bracket(*data, **options):
    return pr.bracket(*data, **{"rng": 0, "progress": False} | options)


def best_signs(A, b):
    """The global minimum of f for real A, by all signs."""
    Q = np.linalg.qr(A)[0]
    return min(b @ b - np.linalg.norm(Q.T @ (b * np.array([1, *s]))) ** 2 for s in itertools.product([-1, 1], repeat=len(b) - 1))


def f(A, b, x):
    return float(np.sum((np.abs(A @ x) - b) ** 2))


# PhaseCut


@FIELD
def test_phasecut_is_what_it_says(is_complex):
    """C = I - QQ* without the rows b_i = 0, for every kind of A; f* = 0 and C z = 0 at the true phases."""
    A, x, b = instance(24, 4, is_complex)
    A[[3, 8]] = A[[3, 8]] - np.outer(A[[3, 8]] @ x, x.conj()) / np.linalg.norm(x) ** 2
    b = np.abs(A @ x)
    b[[3, 8]] = 0
    kept = b > 0
    dense = (np.eye(24) - A @ np.linalg.pinv(A))[np.ix_(kept, kept)]
    z = (A @ x)[kept, None]
    rng = np.random.default_rng(1)
    Y = normal(rng, (22, 3), is_complex)
    for kind in (A, sparse.csr_array(A), aslinearoperator(A)):
        problem = pr.problem(kind, b)
        assert problem.n == 22 and problem.dtype == A.dtype and problem.cost_scale == b @ b
        np.testing.assert_array_equal(problem.manifold.b, b[kept] ** 2)
        np.testing.assert_allclose(problem.C.mul(Y), dense @ Y, rtol=0, atol=1e-12)
        np.testing.assert_allclose(problem.C.diagonal() if kind is A else dense.diagonal().real, dense.diagonal().real, atol=1e-13)
        assert np.linalg.norm(problem.C.mul(z)) <= 1e-12 * np.linalg.norm(z)
        model = problem.at(np.ascontiguousarray(z))
        assert abs(model.cost) <= 1e-13 * (b @ b) and np.abs(model.mu).max() <= 1e-12
    assert np.linalg.eigvalsh(dense)[0] >= -1e-13


@pytest.mark.parametrize("shape", [(9,), (4, 3), (2, 3, 2)], ids=str)
def test_phasecut_of_masked_fft(shape):
    A, x, b = diffraction(shape, 3)
    b[4] = 0
    kept = b > 0
    dense = A @ np.eye(A.shape[1])
    problem = pr.problem(A, b)
    C = (np.eye(len(b)) - dense @ np.linalg.pinv(dense))[np.ix_(kept, kept)]
    np.testing.assert_allclose(problem.C.mul(np.eye(len(C), dtype=complex)), C, rtol=0, atol=1e-13)
    np.testing.assert_allclose(problem.C.diagonal(), C.diagonal().real, atol=1e-13)
    assert problem.C.mul(np.ones(len(C), complex)).shape == (len(C),)


@FIELD
def test_solving_phasecut_and_recovering(is_complex):
    A, x, b = instance(64, 6, is_complex)
    result = bmsdp.solve(pr.problem(A, b), rng=0)
    found = pr.recover(result, A, b)
    assert result.success and abs(result.cost) <= 1e-6 * (b @ b)
    assert found.error(x) < 0.02 and found.bound == result.bound and found.rigor == result.certificate.rigor
    polished = retrieve(A, b, start=found.x, rank=1)
    assert polished.error(x) < 1e-9 and polished.attempts == 1
    noisy = instance(64, 6, is_complex, noise=0.1)
    result, both = bmsdp.solve(pr.problem(noisy[0], noisy[2]), tol=1e-5, rng=0), bracket(noisy[0], noisy[2], tol=1e-3)
    slack = 1e-5 * noisy[2] @ noisy[2]
    assert result.bound - 1e-12 <= both.relaxation and both.lower - 1e-12 <= result.cost
    assert abs(result.cost - both.relaxation) <= slack + 1e-3 * both.relaxation


def test_recover_wants_its_own_data():
    A, _, b = instance(40, 4)
    result = bmsdp.solve(pr.problem(A, b), rng=0, tol=1e-3)
    with pytest.raises(ValueError, match="40 rows but b has 39"):
        pr.recover(result, A, np.where(np.arange(40) == 3, 0, b))


# the rank-k fit


def fit_of(k=2, is_complex=True, real=False, zero=True, seed=0):
    A, x, b = instance(30, 5, is_complex, noise=0.2, seed=seed)
    if zero:
        b[:2] = 0
    fit = AmplitudeFit(pr.measurements(A, real=real), b)
    return fit, normal(np.random.default_rng(seed + 1), (5, k), is_complex and not real)


FITS = pytest.mark.parametrize("is_complex, real", [(True, False), (False, False), (True, True)], ids=["complex", "real", "real x"])
RANKS = pytest.mark.parametrize("k", [1, 3])


@FITS
@RANKS
def test_value_is_the_sum_of_squared_misfits(k, is_complex, real):
    fit, V = fit_of(k, is_complex, real)
    X = fit.measured.to_signal(V)
    expected = np.sum((np.linalg.norm(fit.measured.A @ X, axis=1) - fit.b) ** 2)
    assert fit.value(V) == pytest.approx(expected, rel=1e-12)
    assert fit.problem().at(V).merit == fit.value(V) and fit.products == 1
    np.testing.assert_allclose(row_norms(np.asfortranarray(V)), np.linalg.norm(V, axis=1), rtol=1e-14)


def derivative(g, h=1e-3):
    return (8 * (g(h) - g(-h)) - (g(2 * h) - g(-2 * h))) / (12 * h)


@FITS
@RANKS
@pytest.mark.parametrize("factor", [1.0, 1 + 1e-5])
def test_derivatives(k, is_complex, real, factor):
    """Central differences agree to 1e-8 with gradient and Hessian, and not with ones wrong by 1e-5."""
    fit, V = fit_of(k, is_complex, real)
    U = normal(np.random.default_rng(7), V.shape, V.dtype.kind == "c")
    G = fit.half_grad(V).copy()
    U = 0.3 * np.linalg.norm(V) * (U / np.linalg.norm(U) + G / np.linalg.norm(G))
    slope = derivative(lambda t: fit.value(V + t * U), 1e-4)
    wrong = abs(slope - factor * 2 * inner(G, U)) / (2 * np.linalg.norm(G) * np.linalg.norm(U))
    H = factor * fit.half_hess(V, U)
    field = derivative(lambda t: fit.half_grad(V + t * U), 1e-4)
    wrong_H = np.linalg.norm(H - field) / np.linalg.norm(field)
    assert (wrong <= 1e-8 and wrong_H <= 1e-8) if factor == 1 else (wrong > 1e-7 and wrong_H > 1e-7)


@FITS
def test_taylor(is_complex, real):
    fit, V = fit_of(2, is_complex, real)
    U = normal(np.random.default_rng(7), V.shape, V.dtype.kind == "c")
    g, H = 2 * inner(fit.half_grad(V), U), inner(fit.half_hess(V, U), U)
    rest = [abs(fit.value(V + h * U) - fit.value(V) - h * g - h * h * H) for h in (1e-3, 5e-4)]
    assert 6.5 < rest[0] / rest[1] < 9.5


@FITS
def test_a_step_of_alternating_projections_descends(is_complex, real):
    fit, V = fit_of(2, is_complex, real)
    for _ in range(20):
        G = fit.half_grad(V).copy()
        before = fit.value(V)
        assert fit.value(V - G) <= before - np.linalg.norm(G) ** 2 * (1 - 1e-9)
        U = normal(np.random.default_rng(9), V.shape, V.dtype.kind == "c")
        assert fit.value(V + U) <= before + 2 * inner(G, U) + np.linalg.norm(U) ** 2 + 1e-12
        V = V - G


def test_rotations_of_V_and_phases_of_rows_change_nothing():
    fit, V = fit_of(3)
    turn = np.linalg.qr(normal(np.random.default_rng(1), (3, 3)))[0]
    value, G = fit.value(V), fit.half_grad(V).copy()
    assert fit.value(V @ turn) == pytest.approx(value, rel=1e-13)
    np.testing.assert_allclose(fit.half_grad(V @ turn), G @ turn, atol=1e-12)
    phase = np.exp(1j * np.arange(30))
    other = AmplitudeFit(pr.measurements(phase[:, None] * fit.measured.A), fit.b)
    assert other.value(V) == pytest.approx(value, rel=1e-12)
    padded = np.concatenate([V, np.zeros((5, 1))], axis=1)
    assert fit.value(padded) == pytest.approx(value, rel=1e-14)


def test_one_pair_of_products_serves_value_and_gradient():
    fit, V = fit_of(2)
    fit.value(V), fit.half_grad(V), fit.value(V.copy())
    assert fit.products == 1
    V[0, 0] += 1  # the same array, other entries
    assert fit.value(V) == AmplitudeFit(fit.measured, fit.b).value(V) and fit.products == 2
    result = minimize(fit.problem(), LBFGS(), V, tol=1e-6, progress=False)
    assert fit.products == result.products + 1


def test_kinks_are_passed():
    """Rows with (QV)_i = 0 have a finite value and gradient, and descent leaves them."""
    A, x, b = instance(20, 3)
    V = normal(np.random.default_rng(0), (3, 1))
    A[4] = 0
    fit = AmplitudeFit(pr.measurements(A), b)
    Z = np.zeros((3, 1), complex)
    assert fit.value(Z) == pytest.approx(b @ b) and not fit.half_grad(Z).any()
    assert np.isfinite(fit.half_hess(Z, V)).all()
    found = retrieve(A, b)
    assert found.value == pytest.approx(b[4] ** 2, rel=1e-6)


def test_trust_regions_take_the_same_term():
    fit, V = fit_of(1)
    ours, theirs = (minimize(fit.problem(), s, V, tol=1e-8, progress=False) for s in (LBFGS(), TrustRegion()))
    assert fit.value(ours.Y) == pytest.approx(fit.value(theirs.Y), rel=1e-6)


@FIELD
def test_spectral_start_is_near(is_complex):
    A, x, b = instance(320, 20, is_complex)
    fit = AmplitudeFit(pr.measurements(A), b)
    v = spectral_start(fit, np.random.default_rng(0))
    true = fit.measured.from_signal(x[:, None])[:, 0]
    assert abs(np.vdot(v, true)) > 0.7 * np.linalg.norm(true)


def test_flips_end_where_no_sign_pays():
    A, x, b = instance(16, 4, False, noise=0.5, seed=3)
    fit = AmplitudeFit(pr.measurements(A), b)
    search = Search(fit, np.random.default_rng(0), progress=False)
    for seed in range(6):
        V = search.descend(normal(np.random.default_rng(seed), (4, 1), False), 1e-9)
        W = flip_signs(fit, V, lambda U: search.descend(U, 1e-9))
        assert fit.value(W) <= fit.value(V)
        z = b * np.sign(fit.measured.mul(W)[:, 0])
        costs = [b @ b - np.linalg.norm(fit.measured.adj((z * np.where(np.arange(16) == i, -1, 1))[:, None])) ** 2 for i in range(16)]
        assert min(costs) >= fit.value(W) * (1 - 1e-9)


# retrieval


@pytest.mark.parametrize("n, d", [(4, 1), (30, 3), (80, 10), (320, 40)])
@FIELD
def test_gaussian_signals_are_found(n, d, is_complex):
    for seed in range(3):
        A, x, b = instance(n, d, is_complex, seed=seed)
        found = retrieve(A, b, rng=seed)
        assert found.error(x) < 1e-10 and found.misfit < 1e-10 and found.status is Status.LOCALLY_OPTIMAL
        assert found.x.dtype == A.dtype and found.x.shape == (d,) and found.u.shape == (n,)
        np.testing.assert_allclose(np.abs(found.u), 1, rtol=1e-14)
        np.testing.assert_allclose(b * found.u, A @ found.x, atol=1e-9)


@pytest.mark.parametrize("shape", [(40,), (12, 9), (5, 4, 6)], ids=str)
@pytest.mark.parametrize("real", [False, True])
def test_images_are_found_in_their_shape(shape, real):
    A, x, b = diffraction(shape, 6, real=real)
    found = retrieve(A, b, real=real)
    assert found.x.shape == shape and found.error(x) < 1e-10
    assert found.x.dtype == (np.float64 if real else np.complex128)


@pytest.mark.parametrize("start", ["spectral", "random"])
def test_few_masks(start):
    for seed in range(3):
        A, x, b = diffraction((16, 16), 4, seed=seed)
        assert retrieve(A, b, start=start, rng=seed).error(x) < 1e-9


KINDS = {"array": lambda A: A, "sparse": sparse.csr_array, "operator": aslinearoperator, "made before": lambda A: pr.measurements(A)}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_A(kind):
    rng = np.random.default_rng(0)
    A = sparse.random_array((200, 20), density=0.3, rng=rng).toarray()
    A = A * normal(rng, A.shape)
    x = normal(rng, (20,))
    assert retrieve(KINDS[kind](A), np.abs(A @ x)).error(x) < 1e-10


def test_a_large_operator_without_a_factor():
    rng = np.random.default_rng(0)
    A = sparse.random_array((16800, 2100), density=3e-3, rng=rng, format="csr")
    x, b = rng.standard_normal(2100), None
    b = np.abs(A @ x)
    assert retrieve(aslinearoperator(A), b, tol=1e-10).error(x) < 1e-7
    for call in (lambda: pr.problem(aslinearoperator(A), b), lambda: bracket(A, b), lambda: retrieve(A, b, certify=True)):
        with pytest.raises(ValueError, match="2100 columns, more than 2048"):
            call()


def test_ill_conditioned():
    A, x, b = instance(100, 10)
    U, _, W = np.linalg.svd(A, full_matrices=False)
    A = (U * np.geomspace(1, 1e-6, 10)) @ W
    found = retrieve(A, np.abs(A @ x))
    assert found.misfit < 1e-11 and found.error(x) < 1e-5


def test_scaling_by_powers_of_two_is_exact():
    A, x, b = instance(60, 6, noise=0.05)
    plain = retrieve(A, b)
    for p, q in ((40, 0), (0, -30), (-300, 20)):
        scaled = retrieve(A * 2.0**q, b * 2.0**p)
        assert np.array_equal(scaled.x, plain.x * 2.0 ** (p - q)) and scaled.misfit == plain.misfit


def test_a_phase_on_every_row_changes_nothing():
    A, x, b = instance(60, 6, noise=0.05)
    turned = retrieve(np.exp(1j * np.arange(60))[:, None] * A, b)
    assert turned.value == pytest.approx(retrieve(A, b).value, rel=1e-9)


@FIELD
def test_noise_is_fitted_as_well_as_from_the_truth(is_complex):
    for seed in range(4):
        A, x, b = instance(160, 20, is_complex, noise=0.01, seed=seed)
        found, known = retrieve(A, b, rng=seed), retrieve(A, b, start=x, rank=1)
        assert found.error(x) <= 1.05 * known.error(x) and found.value <= known.value * (1 + 1e-6)
        assert found.value == pytest.approx(f(A, b, found.x), rel=1e-12)
        assert found.misfit == pytest.approx(np.sqrt(found.value) / np.linalg.norm(b))


def test_real_fits_reach_the_best_signs():
    for seed in range(4):
        A, x, b = instance(12, 3, False, noise=0.3, seed=seed)
        assert retrieve(A, b, attempts=6).value == pytest.approx(best_signs(A, b), rel=1e-9)


def test_zero_magnitudes():
    A, x, b = instance(60, 6)
    A[:5] = A[:5] - np.outer(A[:5] @ x, x.conj()) / np.linalg.norm(x) ** 2
    b = np.abs(A @ x)
    b[:5] = 0
    assert retrieve(A, b).error(x) < 1e-10
    nothing = retrieve(A, 0 * b, certify=True)
    assert not nothing.x.any() and nothing.value == nothing.misfit == nothing.bound == 0 and (nothing.u == 1).all()
    assert bracket(A, 0 * b).lower == bracket(A, 0 * b).upper == 0
    with pytest.raises(ValueError, match="all magnitudes b are 0"):
        pr.problem(A, 0 * b)


def test_starts():
    A, x, b = instance(60, 6)
    for start in (x, x[:, None], np.column_stack([x, np.ones(6)]), x.real, list(x)):
        assert retrieve(A, b, start=start).error(x) < 1e-10
    assert retrieve(A, b, start=x, rank=1).products <= 3
    M, image, c = diffraction()
    assert retrieve(M, c, start=image).error(image) < 1e-10 and retrieve(M, c, start=image.ravel()).error(image) < 1e-10


def test_more_attempts_only_help():
    A, x, b = instance(40, 14, seed=5, noise=0.1)
    values = [retrieve(A, b, attempts=k).value for k in (1, 2, 6)]
    assert values[0] >= values[1] * (1 - 1e-9) >= values[2] * (1 - 2e-9)
    assert retrieve(A, b, attempts=6).attempts > 1


def test_limits_and_callbacks():
    A, x, b = instance(60, 6)
    seen = []
    found = retrieve(A, b, callback=lambda model, info: seen.append(model.Y.shape))
    assert seen[0] == (6, 2) and seen[-1] == (6, 1) and len(seen) >= found.nit

    def stop(model, info):
        raise StopIteration

    stopped = retrieve(A, b, callback=stop)
    assert stopped.status is Status.INTERRUPTED and np.isfinite(stopped.value) and "interrupted" in stopped.message
    late = retrieve(A, b, max_time=1e-9)
    assert late.status is Status.MAX_TIME and late.x.shape == (6,)
    assert retrieve(A, b, max_iter=2).status is Status.MAX_ITER
    assert "converged" in found.message
    rushed = bracket(A, b + 1, max_time=1e-9)
    assert 0 <= rushed.lower <= rushed.upper and rushed.gap > 0


def test_a_seed_fixes_the_answer():
    A, x, b = instance(60, 6, noise=0.1)
    same, again = retrieve(A, b, rng=3), retrieve(A, b, rng=np.random.default_rng(3))
    assert np.array_equal(same.x, again.x)


# bounds


def test_any_weights_give_a_bound():
    """At bad V as well, the bound stays below the global minimum, and certainly below the relaxation's optimum."""
    for seed in range(3):
        A, x, b = instance(10, 3, False, noise=0.4, seed=seed)
        b[1] = 0
        measured = pr.measurements(A)
        optimum, upper = best_signs(A, b), bracket(A, b, tol=1e-4).relaxation
        exact = Exact(measured)
        for trial in range(6):
            V = normal(np.random.default_rng(trial), (3, 1 + trial % 3), False)
            pencil = Pencil(measured, b, V, measured.leverage())
            weight = pencil.weight
            true = np.linalg.eigvalsh((measured.Q.T * weight) @ measured.Q)[-1]
            lam, _ = pencil.top(3, np.random.default_rng(0), lambda: False)
            assert lam == pytest.approx(true, rel=1e-12)
            proved = exact.largest(pencil, lam, 1e-13)
            assert true * (1 - 1e-14) <= proved <= true * (1 + 1e-11)
            assert pencil.bound(proved) <= min(upper, optimum)


@pytest.mark.parametrize("shift", [0.0, -1e-9])
def test_verified_bounds_hold_in_exact_arithmetic(shift):
    """lambda A*A - A* diag(1/h) A, for Gaussian integers A and the very floats 1/h, has positive leading minors."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        A = (rng.integers(-9, 10, (12, 3)) + 1j * rng.integers(-9, 10, (12, 3))).astype(complex)
        b = rng.integers(1, 30, 12).astype(float)
        measured = pr.measurements(A)
        pencil = Pencil(measured, b, normal(rng, (3, 2)), measured.leverage())
        guess, _ = pencil.top(3, rng, lambda: False)
        proved = Exact(measured).largest(pencil, guess, 1e-13)
        positive = definite(A, pencil.weight, Fraction(proved + shift))
        assert positive == (shift == 0)
        value = sum(Fraction(float(s)) ** 2 * (1 - Fraction(proved) / Fraction(float(w))) for s, w in zip(b, pencil.weight, strict=True))
        assert Fraction(pencil.bound(proved)) <= value
        assert float(value) - pencil.bound(proved) <= 1e-13 * (b @ b)


def definite(A, weight, lam):
    """Whether A* diag(lam - weight) A is positive definite, by elimination in exact rational arithmetic over Q(i)."""
    rows = [[(Fraction(int(z.real)), Fraction(int(z.imag))) for z in row] for row in A]
    w, d = [lam - Fraction(float(v)) for v in weight], A.shape[1]
    M = [[[Fraction(0), Fraction(0)] for _ in range(d)] for _ in range(d)]
    for row, weight_i in zip(rows, w, strict=True):
        for p, q in itertools.product(range(d), repeat=2):
            (a, c), (e, g) = row[p], row[q]
            M[p][q][0] += weight_i * (a * e + c * g)
            M[p][q][1] += weight_i * (a * g - c * e)
    for j in range(d):
        pivot = M[j][j][0]
        if pivot <= 0:
            return False
        for p, q in itertools.product(range(j + 1, d), repeat=2):
            (a, c), (e, g) = M[p][j], M[j][q]
            M[p][q][0] -= (a * e - c * g) / pivot
            M[p][q][1] -= (a * g + c * e) / pivot
    return True


@pytest.mark.parametrize("kind", ["array", "sparse"])
@pytest.mark.parametrize("condition", [1, 1e3, 1e6])
@pytest.mark.parametrize("real", [False, True])
def test_verified_lambda_of_ill_conditioned_measurements(kind, condition, real):
    A, x, b = instance(40, 6, noise=0.1)
    U, _, W = np.linalg.svd(A, full_matrices=False)
    measured = pr.measurements(KINDS[kind]((U * np.geomspace(1, 1 / condition, 6)) @ W), real=real)
    pencil = Pencil(measured, b, normal(np.random.default_rng(1), (6, 2), not real), np.zeros(40))
    guess, _ = pencil.top(2, np.random.default_rng(0), lambda: False)
    proved = Exact(measured).largest(pencil, guess, 1e-13)
    assert guess * (1 - 1e-12 * condition) <= proved <= guess * (1 + 1e-11 * condition)


@FIELD
@pytest.mark.parametrize("noise", [0.01, 0.1])
def test_brackets(is_complex, noise):
    A, x, b = instance(80, 10, is_complex, noise)
    found = bracket(A, b)
    assert found.rigor == "verified" and found.failure_probability == 0
    assert 0 < found.lower <= found.relaxation <= found.upper * (1 + 1e-9) and found.gap <= 1e-2
    assert found.upper == found.recovery.value == pytest.approx(f(A, b, found.x), rel=1e-12)
    assert found.recovery.bound == found.lower and found.rank >= 1
    guessed = bracket(A, b, rigor="probabilistic")
    assert guessed.rigor == "probabilistic" and 0 < guessed.failure_probability < 1e-4
    assert abs(guessed.lower - found.lower) <= 0.02 * found.relaxation and guessed.gap <= 1e-2
    certified = retrieve(A, b, certify=True)
    assert certified.bound == pytest.approx(found.lower, rel=0.02) and certified.rigor == "verified"
    assert bracket(sparse.csr_array(A), b).lower == pytest.approx(found.lower, rel=0.02)
    again = bracket(A, b, x=found.x)
    assert again.upper == pytest.approx(found.upper, rel=1e-9) and again.recovery.attempts == 1


def test_brackets_without_noise_are_empty():
    A, x, b = instance(80, 10)
    found = bracket(A, b)
    assert found.lower == 0 and found.upper <= 1e-20 * (b @ b) and found.gap <= 1e-2 and found.rigor == "verified"


@pytest.mark.parametrize("real", [False, True])
def test_brackets_of_images(real):
    A, x, b = diffraction((6, 6), 6, noise=0.1, real=real)
    dense = A @ np.eye(36)
    found, known = bracket(A, b, real=real), bracket(dense, b, real=real)
    assert found.rigor == "probabilistic" and known.rigor == "verified" and found.gap <= 1e-2
    assert found.lower == pytest.approx(known.lower, rel=0.02) and found.upper == pytest.approx(known.upper, rel=1e-6)
    assert found.x.shape == (6, 6)
    if real:  # fewer signals: no lower minimum, and no lower bound of the relaxation
        assert bracket(A, b).relaxation <= found.relaxation * 1.01


def test_dense_and_lanczos_eigenvalues_agree(monkeypatch):
    A, x, b = instance(120, 12, noise=0.1)
    dense = bracket(A, b)
    monkeypatch.setattr(bound, "DENSE", 0)
    ritz = bracket(A, b)
    assert ritz.rigor == "verified" and ritz.gap <= 1e-2 and ritz.lower == pytest.approx(dense.lower, rel=0.02)


@pytest.mark.parametrize("is_complex, seed", [(True, 0), (True, 1), (False, 0)])
def test_cvxpy_finds_the_same_relaxation(is_complex, seed):
    cp = pytest.importorskip("cvxpy")
    A, x, b = instance(18, 4, is_complex, noise=0.3, seed=seed)
    C = np.eye(18) - A @ np.linalg.pinv(A)
    X = cp.Variable((18, 18), hermitian=True) if is_complex else cp.Variable((18, 18), PSD=True)
    real = cp.real if is_complex else lambda value: value
    constraints = [real(cp.diag(X)) == b**2] + ([X >> 0] if is_complex else [])
    reference = cp.Problem(cp.Minimize(real(cp.trace((C + C.conj().T) / 2 @ X))), constraints)
    reference.solve(solver=cp.SCS, eps=1e-7, max_iters=20000)
    found = bracket(A, b, tol=1e-4)
    assert found.relaxation == pytest.approx(reference.value, rel=1e-3)
    assert found.lower <= reference.value * (1 + 1e-5)


# small print


def test_alignment():
    rng = np.random.default_rng(0)
    x, y = normal(rng, (3, 4)), normal(rng, (3, 4))
    for phase in np.exp(1j * np.arange(7)):
        np.testing.assert_allclose(pr.align(phase * x, x), x, atol=1e-14)
        assert pr.relative_error(phase * y, x) == pytest.approx(pr.relative_error(y, x), rel=1e-12)
    best = min(np.linalg.norm(np.exp(1j * t) * y - x) for t in np.linspace(0, 2 * np.pi, 2000))
    assert pr.relative_error(y, x) * np.linalg.norm(x) == pytest.approx(best, rel=1e-5)
    assert pr.align(-x.real, x.real).dtype == float and pr.relative_error(-x.real, x.real) == 0
    assert pr.relative_error(x, 0 * x) == np.inf and pr.relative_error(0 * x, 0 * x) == 0
    assert np.array_equal(pr.align(0 * x, x), 0 * x)
    with pytest.raises(ValueError, match=r"\(3, 4\) but the reference has shape \(12,\)"):
        pr.align(x, x.ravel())


A0, X0, B0 = instance(20, 3)
BARE = aslinearoperator(A0)


@pytest.mark.parametrize(
    "b, needed",
    [
        (B0 + 0j, r"complex.*np.abs\(b\)"),
        (np.array(["a"] * 20), "dtype"),
        (B0[:-1], r"shape \(19,\) but A has 20 rows"),
        (B0[:, None], r"shape \(20, 1\)"),
        (np.where(np.arange(20) == 4, np.nan, B0), r"b\[4\] is NaN"),
        (np.where(np.arange(20) == 4, np.inf, B0), r"b\[4\] is NaN or infinite"),
        (B0 - 100, r"negative.*np.sqrt"),
    ],
)
def test_bad_magnitudes_are_refused(b, needed):
    for call in (pr.problem, retrieve, bracket):
        with pytest.raises(ValueError, match=needed):
            call(A0, b)


@pytest.mark.parametrize(
    "options, needed",
    [
        ({"rank": 0}, "rank = 0; an integer from 1 to d = 3"),
        ({"rank": 4}, "rank = 4"),
        ({"rank": 2.0}, "rank = 2.0"),
        ({"rank": True}, "rank = True"),
        ({"tol": 0}, "tol = 0"),
        ({"tol": 1}, "tol = 1"),
        ({"attempts": 0}, "attempts = 0"),
        ({"max_iter": 0}, "max_iter = 0"),
        ({"max_time": 0}, "max_time = 0"),
        ({"start": "zero"}, "'zero'.*spectral"),
        ({"start": np.ones(4)}, r"shape \(4,\).*3 x p"),
        ({"start": np.ones((3, 4))}, r"\(3, 4\)"),
        ({"start": np.zeros(3)}, "is 0"),
        ({"start": [1, 2, np.nan]}, "NaN"),
        ({"start": ["a", "b", "c"]}, "no numbers"),
        ({"start": X0, "real": True}, "start is complex but signals are real"),
    ],
)
def test_bad_options_are_refused(options, needed):
    with pytest.raises(ValueError, match=needed):
        retrieve(A0, B0, **options)


@pytest.mark.parametrize(
    "A, options, needed",
    [
        (A0, {"rigor": "certain"}, "'certain'.*verified"),
        (BARE, {"rigor": "verified"}, "only multiplies.*pass it as an array"),
        (diffraction((5, 4), 1)[0], {"rigor": "verified"}, "only multiplies"),
        (A0, {"tol": 2}, "tol = 2"),
        (A0, {"max_time": -1}, "max_time = -1"),
        (A0, {"x": np.ones(5)}, r"shape \(5,\)"),
        (A0[:2], {}, "2 rows and 3 columns"),
        (LinearOperator((20, 3), matvec=lambda x: A0 @ x, dtype=complex), {}, "rmatvec"),
    ],
)
def test_bad_brackets_are_refused(A, options, needed):
    with pytest.raises(ValueError, match=needed):
        bracket(A, B0, **options)


# the targets: minutes


@pytest.mark.slow
@pytest.mark.parametrize("d", [10, 20, 50, 100, 200, 400])
def test_gaussian_targets(d):
    for seed in range(20):
        A, x, b = instance(8 * d, d, seed=100 * d + seed)
        assert retrieve(A, b, rng=seed).error(x) < 1e-8


@pytest.mark.slow
@pytest.mark.parametrize("size, masks, start, wanted", [(128, 8, "spectral", 2), (128, 8, "random", 2), (64, 4, "random", 9)])
def test_image_targets(size, masks, start, wanted):
    count = 10 if wanted > 2 else 2
    data = [diffraction((size, size), masks, seed=seed) for seed in range(count)]
    assert sum(retrieve(A, b, start=start, rng=seed).error(x) <= 1e-8 for seed, (A, x, b) in enumerate(data)) >= wanted


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 0.01, 0.1])
@pytest.mark.parametrize("d", [50, 100, 200])
def test_bracket_targets(d, noise):
    A, x, b = instance(8 * d, d, noise=noise, seed=d)
    found = bracket(A, b)
    assert found.gap <= 1e-2 and found.rigor == "verified" and found.lower <= found.upper
    if noise:
        assert 0.3 < found.lower / found.upper < 0.9
