"""The bound of `certify` never lies above the optimum: at random, spurious, half-converged and optimal points alike."""

import os
import subprocess
import sys
import textwrap
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as spla

import bmsdp
from bmsdp import LowRankPlusSparse, Oblique, Problem, Product, Sphere, StiefelProduct, Unconstrained, certify, gallery
from bmsdp.applications.maxcut import laplacian_cost

UNIT = 2.0**-53


def hermitian(rng, n, complex_=False):
    return gallery.gue(n, rng) if complex_ else gallery.goe(n, rng) + np.diag(rng.standard_normal(n))


def sparse_hermitian(rng, n, complex_=False):
    C = sp.csr_array(hermitian(rng, n, complex_) * (np.add.outer(np.arange(n), np.arange(n)) % 3 != 1))
    C.eliminate_zeros()
    return C


def psd(rng, n, r, complex_=False):
    U = rng.standard_normal((n, r)) + (1j * rng.standard_normal((n, r)) if complex_ else 0)
    return LowRankPlusSparse(None, U / np.sqrt(n))


ONES = {
    "real": lambda rng: Problem(hermitian(rng, 9), Oblique(np.ones(9))),
    "complex": lambda rng: Problem(hermitian(rng, 8, True), Oblique(np.ones(8))),
    "sparse": lambda rng: Problem(sparse_hermitian(rng, 12), Oblique(np.ones(12))),
    "sparse_complex": lambda rng: Problem(sparse_hermitian(rng, 10, True), Oblique(np.ones(10))),
    "graph": lambda rng: Problem(laplacian_cost(gallery.gnp(25, 0.2, rng)), Oblique(np.ones(25))),
    "torus": lambda rng: Problem(laplacian_cost(gallery.toroidal_grid(4, 5, rng)), Oblique(np.ones(20))),
    "wide_weights": lambda rng: Problem(laplacian_cost(gallery.wide_weights(15, 0.4, 6, rng)), Oblique(np.ones(15))),
    "radii": lambda rng: Problem(hermitian(rng, 8), Oblique(gallery.random_radii(8, 4, rng))),
    "radii_complex": lambda rng: Problem(sparse_hermitian(rng, 9, True), Oblique(gallery.random_radii(9, 3, rng))),
    "operator": lambda rng: Problem(spla.aslinearoperator(hermitian(rng, 9)), Oblique(np.ones(9))),
    "operator_radii": lambda rng: Problem(spla.aslinearoperator(hermitian(rng, 9, True)), Oblique(gallery.random_radii(9, 2, rng))),
    "lowrank": lambda rng: Problem(
        LowRankPlusSparse(sparse_hermitian(rng, 9), rng.standard_normal((9, 2)), [1.0, -2.0]), Oblique(np.ones(9))
    ),
    "near_zero": lambda rng: Problem(psd(rng, 10, 4), Oblique(np.ones(10))),
    "near_zero_complex": lambda rng: Problem(psd(rng, 8, 4, True), Oblique(gallery.random_radii(8, 1, rng))),
    "trace": lambda rng: Problem(hermitian(rng, 8), Sphere(8, 3.5)),
    "trace_complex": lambda rng: Problem(sparse_hermitian(rng, 9, True), Sphere(9, 0.01)),
    "trace_operator": lambda rng: Problem(spla.aslinearoperator(hermitian(rng, 8)), Sphere(8, 20)),
    "stiefel": lambda rng: Problem(hermitian(rng, 9), StiefelProduct(3, 3)),
    "stiefel_complex": lambda rng: Problem(hermitian(rng, 8, True), StiefelProduct(4, 2, True)),
    "stiefel_sparse": lambda rng: Problem(
        sp.csr_array(gallery.orthogonal_synchronization(8, 2, 0.3, rng, p=0.5)[0]), StiefelProduct(8, 2)
    ),
    "product": lambda rng: Problem(
        hermitian(rng, 10), Product([Oblique([0.1, 1.0, 30.0]), Sphere(3, 2.0), StiefelProduct(2, 2)])
    ),
    "product_sparse_complex": lambda rng: Problem(
        sparse_hermitian(rng, 9, True), Product([StiefelProduct(2, 2, True), Sphere(3, 5.0), Oblique([2.0, 0.02])])
    ),
    "one_row": lambda rng: Problem(np.array([[rng.standard_normal()]]), Oblique([2.5])),
}  # fmt: skip


def dense(problem):
    C = problem.C.mul(np.eye(problem.n, dtype=problem.dtype))
    return (C + C.conj().T) / 2


def adjoint(problem, dual):
    return problem.manifold.adjoint_mul(dual, np.eye(problem.n, dtype=problem.dtype))


def size(problem):
    """A bound on |<C, X>|: the unit in which rounding is counted."""
    root = np.sqrt(problem.manifold.row_trace * (problem.n if problem.manifold.m == 1 else 1))
    return float(root @ np.abs(dense(problem)) @ root)


def reference(problem):
    """``(optimum, Y)`` from a full-rank run, bracketed by an eigenvalue bound of its own."""
    result = bmsdp.solve(problem, rank=problem.n, tol=1e-10, certify="probabilistic", rng=1)
    C, Y, weight = dense(problem), result.Y, 1 / problem.manifold.row_trace
    np.testing.assert_allclose(problem.manifold.apply(Y, Y), problem.manifold.b, rtol=1e-12, atol=1e-12)
    mu = problem.manifold.multipliers(Y, C @ Y)
    root = np.sqrt(weight)
    lowest = np.linalg.eigvalsh((C - adjoint(problem, mu)) / np.outer(root, root))[0]
    cost = float(np.vdot(C @ Y, Y).real)
    assert cost - (problem.manifold.b @ mu + problem.n * min(lowest, 0)) <= 1e-8 * size(problem), "the reference is not sharp"
    return cost, Y


def noisy(problem, Y, noise, rng):
    return problem.manifold.retract(Y, noise * np.linalg.norm(Y) * problem.random_point(Y.shape[1], rng) / np.sqrt(Y.size))


def points(problem, optimal, rng):
    """(name, Y): bad, half-converged, nearly optimal and optimal points."""
    k = problem.manifold.min_rank
    yield "random", problem.random_point(k, rng)
    yield "random_wide", problem.random_point(problem.n + 1, rng)
    yield "padded", np.hstack([problem.random_point(k, rng), np.zeros((problem.n, 2))])
    for steps in (1, 4):
        start = problem.random_point(k + 2, rng)
        yield f"after_{steps}", bmsdp.minimize(problem, bmsdp.solvers.GradientDescent(), start, max_iter=steps, tol=1e-14).Y
    for noise in (1e-1, 1e-3, 1e-6, 1e-10):
        yield f"noise_{noise}", noisy(problem, optimal, noise, rng)
    yield "optimal", optimal


@pytest.mark.parametrize("name", ONES)
def test_bound_never_exceeds_the_optimum(name, rng):
    problem = ONES[name](rng)
    optimum, optimal = reference(problem)
    C, unit = dense(problem), size(problem)
    rigors = ["auto", "probabilistic", "estimate"] + (["verified"] if problem.C.matrix() is not None else [])
    weight = 1 / problem.manifold.row_trace
    for where, Y in points(problem, optimal, rng):
        model = problem.at(np.ascontiguousarray(Y))
        for rigor in rigors:
            found = certify(model, 1e-6, rigor, rng)
            told = (name, where, rigor)
            slip = 4 * problem.n * UNIT * unit  # of <C, X> at the reference
            assert found.bound <= optimum + slip + (1e-9 * unit if rigor == "estimate" else 0), told
            assert np.isfinite(found.bound) and found.rigor == ("estimate" if rigor == "estimate" else found.rigor), told
            assert found.dual.shape == problem.manifold.b.shape
            # the dual attains the bound and is feasible
            assert abs(problem.manifold.b @ found.dual - found.bound) <= 1e-12 * (abs(found.bound) + unit), told
            lowest = np.linalg.eigvalsh((C - adjoint(problem, found.dual)) / np.sqrt(np.outer(weight, weight)))[0]
            assert lowest >= -1e-13 * unit - (1e-9 * unit if rigor == "estimate" else 0), told
            # the eigenvalue is bracketed, and the vector attains its Rayleigh quotient
            S = C - adjoint(problem, found.mu)
            exact = np.linalg.eigvalsh(S / np.sqrt(np.outer(weight, weight)))[0]
            assert found.eig_min_lower - 1e-12 * unit <= exact <= found.eig_min + 1e-12 * unit, told
            v = found.vector
            assert np.vdot(v, weight * v).real == pytest.approx(1, rel=1e-8), told
            assert abs(np.vdot(v, S @ v).real - found.eig_min) <= 1e-12 * unit, told


@pytest.mark.parametrize(
    "name", [name for name in ONES if "operator" not in name and "lowrank" not in name and "near" not in name]
)
def test_optimum_is_proved(name, rng):
    problem = ONES[name](rng)
    optimum, optimal = reference(problem)
    found = certify(problem.at(optimal), 1e-6, "verified", rng)
    assert found.gap <= 1e-6 and found.rigor == "verified" and found.failure_probability == 0
    assert found.gap >= 0 and found.bound == pytest.approx(optimum, rel=1e-6)


@pytest.mark.parametrize("tol", [1e-4, 1e-6, 1e-9, 1e-12])
@pytest.mark.parametrize(
    "make", [lambda: gallery.ocarroll(4), lambda: gallery.n_gon(7, 2.0), lambda: gallery.complex_triangle(2.0)]
)
def test_gap_at_an_exact_optimum(make, tol):
    C, _, optimum = make()
    problem = Problem(C, Oblique(np.ones(len(C))))
    found = certify(problem.at(np.ones((len(C), 1), problem.dtype)), tol, "verified", 0)
    assert 0 <= found.gap <= tol and found.bound <= optimum + 1e-14 * size(problem)


@pytest.mark.parametrize("name", ["real", "radii_complex", "trace", "stiefel", "product", "operator", "near_zero"])
def test_gap_definition(name, rng):
    problem = ONES[name](rng)
    model = problem.at(problem.random_point(3, rng))
    found = certify(model, rng=0)
    upper = found.bound + found.gap_abs
    assert upper >= model.cost - 1e-15 * size(problem) and upper == pytest.approx(model.cost, rel=1e-10)
    assert found.gap == pytest.approx(found.gap_abs / max(abs(upper), abs(found.bound), model.cost_scale), rel=1e-12)
    assert model.cost_scale == pytest.approx(1.5e-8 * problem.norm_C * np.sum(np.abs(model.Y) ** 2))
    scaled = Problem(problem.C, problem.manifold, cost_scale=1e3 * size(problem))
    again = certify(scaled.at(model.Y), rng=0)
    assert again.gap == pytest.approx(again.gap_abs / (1e3 * size(problem)))


def test_certificate_at_optimum_zero():
    """C >= 0 with C x = 0: the optimum is 0 and cost_scale keeps the gap from being 0/0."""
    x = np.array([1.0, -1, 1, 1, -1])
    C = np.eye(5) * 5 - np.outer(x, x)
    problem = Problem(C, Oblique(np.ones(5)))
    for rigor in ("verified", "probabilistic", "auto"):
        found = certify(problem.at(x[:, None].copy()), 1e-6, rigor, 0)
        assert -1e-12 <= found.bound <= 0 and np.isfinite(found.gap) and found.gap <= 1e-5


@pytest.mark.parametrize("rigor", ["auto", "verified", "probabilistic", "estimate"])
@pytest.mark.parametrize("manifold", [Oblique(np.ones(4)), Sphere(4, 2.0), StiefelProduct(2, 2), Oblique([1e-6, 1, 1, 1e6])])
def test_zero_cost(manifold, rigor, rng):
    for C in (np.zeros((4, 4)), sp.csr_array((4, 4)), np.zeros((4, 4), complex) if manifold.m == 4 else np.zeros((4, 4))):
        problem = Problem(C, manifold)
        found = certify(problem.at(problem.random_point(2, rng)), 1e-6, rigor, rng)
        assert found.bound == 0 and found.gap == 0 and found.gap_abs == 0 and not found.dual.any()


def test_zero_operator(rng):
    problem = Problem(spla.aslinearoperator(np.zeros((4, 4))), Oblique(np.ones(4)))
    found = certify(problem.at(problem.random_point(2, rng)), 1e-6, "auto", rng)
    assert found.bound == 0 and found.gap == 0


@pytest.mark.parametrize("rigor", ["auto", "verified", "probabilistic", "estimate"])
@pytest.mark.parametrize("c", [3.0, -2.0, 1e-100, -1e100])
def test_one_row(c, rigor):
    for manifold, b in ((Oblique([2.0]), 2.0), (Sphere(1, 0.5), 0.5), (StiefelProduct(1, 1), 1.0)):
        for k in (1, 2):
            problem = Problem(np.array([[c]]), manifold)
            found = certify(problem.at(problem.random_point(k, np.random.default_rng(0))), 1e-6, rigor, 0)
            assert found.bound <= c * b * (1 + 4 * UNIT * np.sign(c)) and found.gap <= 1e-6


@pytest.mark.parametrize("power", [20, -30])
@pytest.mark.parametrize("name", [name for name in ONES if "operator" not in name and name != "lowrank" and "near" not in name])
def test_scaling_by_powers_of_two_changes_nothing(name, power, rng):
    problem = ONES[name](rng)
    scaled = Problem(problem.C.matrix() * 2.0**power, problem.manifold)
    for Y in (problem.random_point(3, rng), reference(problem)[1]):
        for rigor in ("verified", "probabilistic"):
            one, two = (certify(p.at(Y), 1e-6, rigor, 5) for p in (problem, scaled))
            assert one.gap == two.gap and one.bound * 2.0**power == two.bound and one.rigor == two.rigor
            assert np.array_equal(one.dual * 2.0**power, two.dual) and one.eig_min * 2.0**power == two.eig_min


def test_rotation_and_padding_change_nothing(rng):
    """Fact 26: Y -> YQ and Y -> [Y 0] leave the certificate alone."""
    problem = ONES["real"](rng)
    Y = reference(problem)[1]
    Q = np.linalg.qr(rng.standard_normal((Y.shape[1],) * 2))[0]
    one = certify(problem.at(Y), rng=0)
    for Z in (Y @ Q, np.hstack([Y, np.zeros((len(Y), 3))])):
        two = certify(problem.at(np.ascontiguousarray(Z)), rng=0)
        assert two.bound == pytest.approx(one.bound, rel=1e-8) and two.gap <= 1e-6


def test_lower_bounds_of_a_half_converged_run(rng):
    """Fact 20: LB(random) and LB(half-converged) <= f* <= f, and never above what eigvalsh promises."""
    problem = Problem(gallery.goe(30, rng), Oblique(np.ones(30)))
    optimum, _ = reference(problem)
    C = dense(problem)
    for steps in (1, 3, 10, 30):
        Y = bmsdp.minimize(problem, bmsdp.solvers.GradientDescent(), problem.random_point(8, rng), max_iter=steps, tol=1e-14).Y
        model = problem.at(Y)
        exact = model.mu.sum() + 30 * np.linalg.eigvalsh(C - np.diag(model.mu))[0]
        for rigor in ("verified", "probabilistic"):
            found = certify(model, rigor=rigor, rng=rng)
            assert found.bound <= optimum <= model.cost
            assert exact - 1.5 * (model.mu.sum() - exact) - 1e-6 * abs(exact) <= found.bound <= exact + 1e-11


@pytest.mark.parametrize("rigor", ["verified", "probabilistic", "auto"])
def test_spurious_points_are_not_called_optimal(rigor):
    cases = [gallery.n_gon(n, 2.0) for n in (5, 7, 12)] + [gallery.ocarroll(k) for k in (2, 4, 10)]
    cases += [gallery.waldspurger_waters(10, 3, 1), gallery.complex_triangle(2.0)]
    for C, V, optimum in cases:
        problem = Problem(C, Oblique(np.ones(len(C))))
        model = problem.at(np.ascontiguousarray(V, problem.dtype))
        assert model.grad_norm <= 1e-10 * model.grad_scale and abs(model.cost) <= 1e-12 * size(problem)
        found = certify(model, 1e-6, rigor, 0)
        assert found.bound <= optimum + 1e-13 * size(problem) and found.gap > 0.5
        lowest = np.linalg.eigvalsh(C)[0]
        assert found.eig_min == pytest.approx(lowest, rel=1e-6)
        assert found.escape.shape[0] == len(C) and found.escape.shape[1] >= 1
        v = found.escape[:, 0]
        assert np.vdot(v, C @ v).real < 0.5 * lowest * np.vdot(v, v).real


def test_ocarroll_slack_eigenvalues():
    """Fact 10."""
    for k, value in ((2, -2.0), (4, -0.4), (10, -0.1176471), (25, -0.0425532)):
        C, V, _ = gallery.ocarroll(k)
        found = certify(Problem(C, Oblique(np.ones(2 * k))).at(V), rng=0)
        assert found.eig_min == pytest.approx(value, abs=1e-6)


def test_larger_sparse_and_dense(rng):
    """n beyond one block of Lanczos steps, with fill-in and a dense core."""
    C = laplacian_cost(gallery.gnp(200, 0.04, rng))
    best = bmsdp.solve(C, tol=1e-8, rng=0)
    assert best.success
    for cost in (C, C.toarray(), spla.aslinearoperator(C)):
        problem = Problem(cost, Oblique(np.ones(200)))
        for Y in (problem.random_point(3, rng), noisy(problem, best.Y, 1e-2, rng), noisy(problem, best.Y, 1e-5, rng)):
            for rigor in ("auto", "probabilistic"):
                found = certify(problem.at(Y), 1e-6, rigor, rng)
                assert found.bound <= best.cost + 1e-12 * abs(best.cost)
                lowest = np.linalg.eigvalsh(C.toarray() - np.diag(found.dual))[0]
                assert lowest >= -1e-12 * problem.norm_C


def test_lanczos_bound_holds_on_an_isolated_bottom_eigenvalue():
    """Fact 22: Chebyshev nodes and one eigenvalue below them, trace sphere, 60 seeds without a violation."""
    n = 400
    spectrum = np.r_[-1.001, np.cos(np.pi * (np.arange(n - 1) + 0.5) / (n - 1))]
    problem = Problem(spla.aslinearoperator(np.diag(spectrum)), Sphere(n, 1.0))
    for seed in range(60):
        rng = np.random.default_rng(seed)
        Y = problem.random_point(2, rng)
        found = certify(problem.at(Y), 1e-6, "probabilistic", rng)
        assert found.rigor == "probabilistic" and 0 < found.failure_probability <= 1e-6
        assert found.bound <= -1.001


def test_lanczos_start_does_not_depend_on_the_point():
    problem = Problem(spla.aslinearoperator(np.diag(np.arange(50.0))), Sphere(50, 1.0))
    seen = []
    mul = problem.C.mul
    problem.C.mul = lambda V: seen.append(V.copy()) or mul(V)
    for seed in (0, 0, 1):
        certify(problem.at(np.ascontiguousarray(np.ones((50, 1)) / np.sqrt(50))), 1e-6, "probabilistic", seed)
    starts = [V for V in seen if V.shape == (50, 1) and np.ptp(V) > 0.1]
    assert len(starts) > 3


def test_verified_needs_a_matrix(rng):
    C = hermitian(rng, 6)
    for cost in (spla.aslinearoperator(C), LowRankPlusSparse(spla.aslinearoperator(C), rng.standard_normal((6, 2)))):
        problem = Problem(cost, Oblique(np.ones(6)))
        with pytest.raises(ValueError, match="verified bound needs the entries of C.*pass C as an array"):
            certify(problem.at(problem.random_point(2, rng)), rigor="verified", rng=rng)
        assert certify(problem.at(problem.random_point(2, rng)), rng=rng).rigor == "probabilistic"


@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize("kind", ["arrow", "mixed"])
def test_low_rank_bounds_at_any_point(kind, complex_, rng):
    """Verified wherever there are entries, never above the optimum, and within rounding of the dense matrix's bound."""
    U = rng.standard_normal((9, 3)) + (1j * rng.standard_normal((9, 3)) if complex_ else 0)
    base = sp.diags_array(rng.standard_normal(9)).tocsr() if kind == "arrow" else sparse_hermitian(rng, 9, complex_)
    C = LowRankPlusSparse(base, U, [-1.0, -0.5, -2.0 if kind == "arrow" else 2.0])
    for manifold in (Oblique(gallery.random_radii(9, 2, rng)), Sphere(9, 4.0), StiefelProduct(3, 3, complex_)):
        low = Problem(C, manifold)
        full = Problem(dense(low), manifold)
        optimum, optimal = reference(full)
        for where, Y in points(low, optimal, rng):
            one, two = (certify(problem.at(np.ascontiguousarray(Y)), 1e-6, "auto", 3) for problem in (low, full))
            assert one.rigor == two.rigor == "verified" and one.gap_rigor == "verified", where
            assert max(one.bound, two.bound) <= optimum + 4 * 9 * UNIT * size(full), where
            assert one.bound == pytest.approx(two.bound, rel=1e-8, abs=1e-8 * size(full)), where
            lowest = np.linalg.eigvalsh(dense(low) - adjoint(low, one.dual))[0]
            assert lowest >= -1e-13 * size(full), where


def test_unknown_rigor(rng):
    problem = ONES["real"](rng)
    with pytest.raises(ValueError, match='rigor = \'proof\'; it must be "auto", "verified", "probabilistic" or "estimate"'):
        certify(problem.at(problem.random_point(2, rng)), rigor="proof")


def test_no_shift_no_bound(rng):
    problem = Problem(hermitian(rng, 5), Product([Oblique(np.ones(3)), Unconstrained(2)]))
    found = certify(problem.at(problem.random_point(2, rng)), rng=rng)
    assert found.bound == -np.inf and found.gap == np.inf and found.rigor == "estimate"


def test_same_seed_same_certificate(rng):
    for name in ("real", "sparse_complex", "operator", "stiefel_sparse"):
        problem = ONES[name](rng)
        model = problem.at(problem.random_point(3, rng))
        one, two = (certify(model, rng=3) for _ in range(2))
        assert one.bound == two.bound and np.array_equal(one.dual, two.dual) and np.array_equal(one.vector, two.vector)


def test_cost_with_a_large_diagonal(rng):
    """C + A*(nu) shifts every number by <b, nu> and nothing else (fact 3)."""
    C = hermitian(rng, 8)
    nu = 1e3 * rng.standard_normal(8)
    one, two = Problem(C, Oblique(np.ones(8))), Problem(C + np.diag(nu), Oblique(np.ones(8)))
    optimum, Y = reference(one)
    for at in (one.random_point(3, rng), Y):
        for rigor in ("verified", "probabilistic"):
            assert certify(two.at(at), 1e-6, rigor, 0).bound <= optimum + nu.sum() + 1e-10
    first, second = (certify(p.at(Y), 1e-9, "verified", 0) for p in (one, two))
    assert second.bound == pytest.approx(first.bound + nu.sum(), abs=1e-9 * np.abs(nu).sum())


# a pattern that depends on the point: blocks of A*(mu) with exact zeros at one Y and none at the next
PATTERN = """
    import numpy as np, scipy.sparse as sp
    from bmsdp import Problem, StiefelProduct, certify
    from bmsdp.certificate import Slack
    q, d = 30, 3
    path = sp.diags_array([np.ones(q - 1), np.ones(q - 1)], offsets=[1, -1])
    C = sp.csr_array(sp.kron(path, np.diag([-1.0, -2.0, -3.0])))
    C.eliminate_zeros()
    problem, rng = Problem(C, StiefelProduct(q, d)), np.random.default_rng(0)
    Y = np.ascontiguousarray(np.hstack([np.tile(np.eye(d), (q, 1)), np.zeros((q * d, 1))]))
    assert certify(problem.at(Y), 1e-6, "verified", 0).gap <= 1e-6
    for _ in range(20):
        model = problem.at(problem.random_point(4, rng))
        lowest = np.linalg.eigvalsh(model.slack_matrix().toarray())[0]
        for share in (1.2, 1.01, 0.99, 0.9, 0.5):
            factor, _ = Slack(model).factor(-share * lowest)
            assert factor.definite == (share > 1), (share, factor.definite)
    print("fine")
"""


def run(code):
    """Run a script in a fresh process: what it may do to memory stays there."""
    root = str(Path(bmsdp.__file__).resolve().parents[1])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, env=environment, timeout=240
    )  # fmt: skip


def test_factorisation_at_points_with_different_patterns():
    done = run(PATTERN)
    assert done.returncode == 0 and "fine" in done.stdout, done.stderr[-800:]


# exact rational arithmetic


def is_psd_exactly(S):
    """Whether a symmetric matrix of Fractions is positive semidefinite, by LDL^T; a zero pivot needs a zero column."""
    S = [list(row) for row in S]
    n = len(S)
    for j in range(n):
        if S[j][j] < 0 or (S[j][j] == 0 and any(S[i][j] for i in range(j + 1, n))):
            return False
        for i in range(j + 1, n):
            if S[i][j]:
                ratio = S[i][j] / S[j][j]
                for l in range(j + 1, n):
                    S[i][l] -= ratio * S[j][l]
    return True


def fractions(M):
    """Exact entries, complex matrices in the real embedding [[Re, -Im], [Im, Re]]."""
    M = np.asarray(M)
    M = np.block([[M.real, -M.imag], [M.imag, M.real]]) if np.iscomplexobj(M) else M
    return [[Fraction(float(v)) for v in row] for row in M]


def exact_slack(C, matrices, dual):
    S = fractions(C)
    for A, weight in zip(matrices, dual, strict=True):
        for i, row in enumerate(fractions(A.astype(np.result_type(A, C)))):
            for j, v in enumerate(row):
                S[i][j] -= v * Fraction(float(weight))
    return S


def exact_inner(b, dual):
    return sum((Fraction(float(u)) * Fraction(float(v)) for u, v in zip(b, dual, strict=True)), Fraction(0))


def unit_matrix(n, i, j, v=1.0):
    A = np.zeros((n, n), complex if np.iscomplexobj(v) else float)
    A[i, j] = v
    A[j, i] = np.conj(v)
    return A


def test_exact_psd_test_itself():
    assert is_psd_exactly(fractions(np.ones((3, 3)))) and not is_psd_exactly(fractions(np.ones((3, 3)) - 2.0**-50 * np.eye(3)))
    assert not is_psd_exactly(fractions(np.array([[0.0, 1], [1, 5]]))) and is_psd_exactly(
        fractions(np.array([[1, 1j], [-1j, 1]]))
    )


@pytest.mark.parametrize("complex_", [False, True])
def test_exact_dual_feasibility_on_integer_instances(complex_, rng):
    for trial in range(60):
        n = int(rng.integers(1, 7))
        C = np.triu(rng.integers(-3, 4, (n, n)) + (1j * rng.integers(-3, 4, (n, n)) if complex_ else 0), 1)
        C = (C + C.conj().T + np.diag(rng.integers(-3, 4, n))).astype(complex if complex_ else float)
        b = rng.integers(1, 5, n).astype(float) * 10.0 ** rng.integers(-3, 4, n) if trial % 2 else np.ones(n)
        problem = Problem(sp.csr_array(C) if trial % 3 == 0 else C, Oblique(b))
        solved = bmsdp.solve(problem, tol=1e-6, rng=trial).Y
        for Y in (problem.random_point(2, rng), solved):
            found = certify(problem.at(Y), 1e-6, "verified", rng)
            assert is_psd_exactly(exact_slack(C, [unit_matrix(n, i, i) for i in range(n)], found.dual))
            assert Fraction(found.bound) <= exact_inner(b, found.dual)


def test_exact_dual_feasibility_on_the_trace_sphere(rng):
    for trial in range(40):
        n = int(rng.integers(1, 7))
        C = rng.integers(-3, 4, (n, n)).astype(float)
        C += C.T
        problem = Problem(sp.csr_array(C) if trial % 3 == 0 else C, Sphere(n, 0.7))
        for Y in (problem.random_point(2, rng), reference(problem)[1]):
            found = certify(problem.at(np.ascontiguousarray(Y)), 1e-6, "verified", rng)
            assert is_psd_exactly(exact_slack(C, [np.eye(n)], found.dual))
            assert Fraction(found.bound) <= exact_inner([0.7], found.dual)


def test_exact_dual_feasibility_in_the_callers_rows(rng):
    """What `solve` returns holds for the caller's own data: scaled rows, unequal sphere coefficients, identity blocks."""
    for trial in range(25):
        n = 8
        C = rng.integers(-3, 4, (n, n)).astype(float)
        C += C.T
        s = rng.choice([-3.0, -0.1, 0.7, 1.0, 5.0], 20)
        rows = [(s[0] * unit_matrix(n, i, i), s[0] * v) for i, v in ((0, 0.3), (1, 7.0))]
        rows += [(s[2] * (unit_matrix(n, 2, 2, 2.0) + unit_matrix(n, 5, 5, 0.3)), s[2] * 1.1)]
        rows += [(s[3] * unit_matrix(n, i, i), s[3] * v) for i, v in ((3, 2.0), (7, 0.2))] + [(s[4] * unit_matrix(n, 3, 7), 0.0)]
        rows += [(s[5] * (unit_matrix(n, 4, 4) + unit_matrix(n, 6, 6)), s[5] * 3.0)]
        order = rng.permutation(len(rows))
        A, b = [rows[j][0] for j in order], np.array([rows[j][1] for j in order])
        for options in ({}, {"max_time": 1e-9}):  # converged, and cut off at the start
            result = bmsdp.solve(C, A, b, certify="verified", rng=trial, **options)
            assert result.certificate.rigor == "verified" and (options or result.success)
            assert is_psd_exactly(exact_slack(C, A, result.dual)), options
            assert Fraction(result.bound) <= exact_inner(b, result.dual), options


# random trials on planted optima, known exactly


def planted(rng):
    """``(problem, x, optimum)``: integer C = L + diag(d), L = sum w v v* with v* x = 0, so x x* is optimal with value <d, |x|^2>."""
    n, complex_ = int(rng.integers(2, 7)), rng.random() < 0.4
    x = rng.choice([-1.0, 1.0], n) * (rng.integers(1, 6, n) if rng.random() < 0.5 else 1)
    if complex_:
        x = x * rng.choice([1, 1j], n)
    L = np.zeros((n, n), x.dtype)
    for _ in range(int(rng.integers(1, 2 * n))):
        i, j = rng.choice(n, 2, replace=False)
        v = np.zeros(n, x.dtype)
        v[i], v[j] = np.conj(x[j]), -np.conj(x[i])
        L += int(rng.integers(0, 4)) * np.outer(v, v.conj())
    b = (np.abs(x) ** 2).round()
    power = 2.0 ** int(rng.integers(-40, 41))
    if rng.random() < 0.25:  # trace: lambda_min(L + shift) = shift
        shift = float(rng.integers(-4, 5))
        trace = float(rng.integers(1, 9))
        C, optimum, manifold = L + shift * np.eye(n), shift * trace, Sphere(n, trace)
        x = x * np.sqrt(trace / b.sum())
    else:
        d = rng.integers(-5, 6, n) if rng.random() < 0.7 else np.zeros(n)
        C, optimum, manifold = L + np.diag(d), float(d @ b), Oblique(b)
    C = power * C
    return Problem(sp.csr_array(C) if rng.random() < 0.3 else C, manifold), x, power * optimum


def pair(rng):
    """n = 2: ``b_1 C_11 + b_2 C_22 - 2 |C_12| sqrt(b_1 b_2)``."""
    r = rng.integers(1, 6, 2).astype(float)
    off = complex(*[(3, 4), (5, 12), (-8, 15), (0, 7)][rng.integers(4)]) if rng.random() < 0.5 else float(rng.integers(-9, 10))
    d = rng.integers(-5, 6, 2)
    C = np.array([[d[0], off], [np.conj(off), d[1]]])
    x = np.array([r[0], -r[1] * (np.conj(off) / abs(off) if off else 1)])[:, None]
    x = x[:, 0].astype(C.dtype)
    return Problem(C, Oblique(r**2)), x, float(d @ r**2 - 2 * abs(off) * r[0] * r[1])


def triangle(rng):
    """n = 3, equal couplings c > 0: -3 c, at 120 degrees."""
    c = float(rng.integers(1, 9))
    angle = 2 * np.pi * np.arange(3) / 3
    Y = np.column_stack([np.cos(angle), np.sin(angle)])
    return Problem(c * (np.ones((3, 3)) - np.eye(3)), Oblique(np.ones(3))), Y, -3 * c


def trials(count, seed, rigor):
    rng = np.random.default_rng(seed)
    worst = []
    for trial in range(count):
        problem, x, optimum = (planted, planted, planted, pair, triangle)[trial % 5](rng)
        Y = x[:, None] if x.ndim == 1 else x
        kind = int(rng.integers(5))
        if kind == 0:
            Y = problem.random_point(int(rng.integers(1, problem.n + 2)), rng)
        elif kind == 1:
            Y = np.hstack([Y, np.zeros((problem.n, int(rng.integers(1, 3))))])
        elif kind >= 3:
            wide = np.hstack([Y, np.zeros((problem.n, int(rng.integers(0, 3))))])
            Y = problem.manifold.retract(wide, 10.0 ** rng.uniform(-16, 1) * problem.random_point(wide.shape[1], rng))
        Y = np.ascontiguousarray(Y, problem.dtype)
        found = certify(problem.at(Y), 10.0 ** rng.uniform(-12, -1), rigor, rng)
        if not found.bound <= optimum:  # exact integers times a power of two: no tolerance
            excess = (found.bound - optimum) / size(problem)
            worst.append((trial, kind, problem.n, type(problem.manifold).__name__, found.bound, optimum, excess))
    return worst


@pytest.mark.parametrize("rigor, count", [("verified", 1_000), ("auto", 400), ("probabilistic", 600)])
def test_two_thousand_trials(rigor, count):
    assert trials(count, 0, rigor) == []


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("seed, rigor", list(enumerate(["verified"] * 5 + ["auto"] * 2 + ["probabilistic"] * 3, 1)))
def test_hundred_thousand_trials(seed, rigor):
    assert trials(10_000, seed, rigor) == []
