"""The staircase: leaves spurious points by growing, keeps a rank that was asked for, and says what it did."""

import numpy as np
import pytest
import scipy.sparse as sp

import bmsdp
from bmsdp import Oblique, Problem, Product, Sphere, Status, StiefelProduct, Unconstrained, certify, gallery
from bmsdp.applications.maxcut import laplacian_cost
from bmsdp.staircase import escape, staircase, start_rank

SPURIOUS = {
    "pentagon": lambda: gallery.n_gon(5, 3.0),
    "hexagon": lambda: gallery.n_gon(6, 1.1),
    "9-gon": lambda: gallery.n_gon(9, 1.5),
    "12-gon": lambda: gallery.n_gon(12, 4.0, 2.0),
    "ww_2": lambda: gallery.waldspurger_waters(7, 2, 0),
    "ww_3": lambda: gallery.waldspurger_waters(10, 3, 0),
    "ww_4": lambda: gallery.waldspurger_waters(15, 4, 3),
    "ocarroll_2": lambda: gallery.ocarroll(2),
    "ocarroll_4": lambda: gallery.ocarroll(4),
    "ocarroll_10": lambda: gallery.ocarroll(10),
    "complex_triangle": lambda: gallery.complex_triangle(2.0),
}


def slack_min(C, dual):
    return np.linalg.eigvalsh(C - np.diag(dual))[0]


@pytest.mark.parametrize("name", SPURIOUS)
def test_kept_rank_stays_at_the_spurious_point_and_says_so(name):
    C, V, optimum = SPURIOUS[name]()
    for form in (C, sp.csr_array(C)):
        result = bmsdp.solve(form, rank=V.shape[1], warm_start=V, rng=0)
        assert result.status is Status.RANK_TOO_SMALL and not result.success
        assert "raise rank" in result.message and result.rank == V.shape[1]
        assert abs(result.cost) <= 1e-8 * abs(optimum) and result.bound <= optimum + 1e-12 * abs(optimum)
        assert result.certificate.eig_min == pytest.approx(np.linalg.eigvalsh(C)[0], rel=1e-5)
        v = result.certificate.vector
        assert np.vdot(v, C @ v).real < 0


@pytest.mark.parametrize("name", SPURIOUS)
def test_staircase_leaves_the_spurious_point(name):
    C, V, optimum = SPURIOUS[name]()
    for form in (C, sp.csr_array(C)):
        result = bmsdp.solve(form, warm_start=V, rng=0)
        assert result.status is Status.CERTIFIED and result.gap <= 1e-6 and result.rank > V.shape[1]
        assert result.cost == pytest.approx(optimum, rel=1e-6) and result.bound <= optimum + 1e-12 * abs(optimum)
        np.testing.assert_allclose(abs(result.X), 1, atol=1e-2)
        ranks = [stage["rank"] for stage in result.options["stages"]]
        assert ranks == sorted(ranks) and ranks[0] == V.shape[1] and ranks[-1] == result.rank


def test_pentagon():
    """Fact 7: t = 3, tau0 = 1."""
    C, V, _ = gallery.n_gon(5, 3.0)
    np.testing.assert_allclose(C[0], [1, -1.17082, 0.17082, 0.17082, -1.17082], atol=1e-5)
    model = Problem(C, Oblique(np.ones(5))).at(V)
    assert abs(model.cost) < 1e-14 and model.grad_norm < 1e-13
    found = certify(model, rng=0)
    assert found.eig_min == pytest.approx(-1) and found.gap > 0.5
    result = bmsdp.solve(C, warm_start=V, tol=1e-10, rng=0)
    assert result.success and result.cost == pytest.approx(-5, abs=1e-9)
    assert slack_min(C, result.dual) >= -1e-10
    below = gallery.n_gon(5, 0.9)  # t < tau0: V is a saddle, and rank 2 suffices from next to it
    result = bmsdp.solve(below[0], rank=2, warm_start=V + 1e-6 * np.arange(10).reshape(5, 2), rng=0)
    assert result.success and result.cost == pytest.approx(-5, rel=1e-6)


@pytest.mark.parametrize("n", range(5, 13))
def test_n_gons_change_at_their_threshold(n):
    """Fact 8, through the solver: V is left at rank 2 for t < tau0, and held for t > tau0."""
    push = 1e-3 * np.random.default_rng(n).standard_normal((n, 2))
    for t, held in ((0.8, False), (1.25, True)):
        C, V, optimum = gallery.n_gon(n, t)
        result = bmsdp.solve(C, rank=2, warm_start=V + push, rng=0, max_time=20)
        assert (result.status is Status.RANK_TOO_SMALL) == held, (t, result)
        assert held == (result.cost > 0.5 * optimum)


def test_random_starts_reach_the_optimum():
    """Facts 9 and 12: complex triangle at k = 2, Waldspurger-Waters at k = 5 and by staircase."""
    triangle, _, _ = gallery.complex_triangle(2.0)
    ww, _, optimum = gallery.waldspurger_waters(10, 3, 0)
    for seed in range(20):
        assert bmsdp.solve(triangle, rank=2, rng=seed).cost == pytest.approx(-3, rel=1e-6)
        for rank in (5, None):
            result = bmsdp.solve(ww, rank=rank, rng=seed)
            assert result.success and result.cost == pytest.approx(optimum, rel=1e-6)


def test_spurious_point_survives_small_noise_but_not_the_staircase(rng):
    """Fact 12: a strict local minimum persists under noise of size 1e-3 at its own rank."""
    C, V, optimum = gallery.waldspurger_waters(10, 3, 0, margin=2.0)
    C = C + 1e-3 * gallery.goe(10, rng)
    kept = bmsdp.solve(C, rank=3, warm_start=V, solver=bmsdp.solvers.TrustRegion(), rng=0)
    assert kept.status is Status.RANK_TOO_SMALL and kept.cost > optimum + 0.1
    free = bmsdp.solve(C, warm_start=V, rng=0)
    assert free.success and free.cost < kept.cost - 0.1 and free.bound >= kept.bound - 1e-6 * abs(optimum)


@pytest.mark.parametrize("sigma", [1e-6, 1e-3])
def test_noise_frees_the_axial_point(sigma):
    """Fact 11: O'Carroll's point at k = n/2 is left as soon as C is perturbed."""
    for k in (4, 10):
        C, V, _ = gallery.ocarroll(k)
        W = sigma * gallery.goe(2 * k, 1)
        reference = bmsdp.solve(C + W, tol=1e-8, rng=0)
        push = V + 1e-3 * np.random.default_rng(0).standard_normal(V.shape)
        result = bmsdp.solve(C + W, rank=k, warm_start=push, solver=bmsdp.solvers.TrustRegion(), tol=1e-9, rng=0)
        assert result.cost == pytest.approx(reference.cost, abs=2e-6 * abs(reference.cost))


@pytest.mark.parametrize("name", SPURIOUS)
def test_escape_lowers_the_merit(name, rng):
    C, V, _ = SPURIOUS[name]()
    problem = Problem(C, Oblique(np.ones(len(C))))
    V = np.ascontiguousarray(V, problem.dtype)
    k = V.shape[1]
    for Y in (V, np.hstack([V, np.zeros((len(V), 2))]), np.ascontiguousarray(V @ np.linalg.qr(rng.standard_normal((k, k)))[0])):
        model = problem.at(np.ascontiguousarray(Y))
        for vectors in (1, 8):
            found = certify(model, rng=rng, vectors=vectors)
            assert found.escape.shape[1] >= 1
            wide = escape(model, found, rng)
            assert wide.shape[0] == len(C) and Y.shape[1] <= wide.shape[1] <= len(C)
            assert wide.dtype == problem.dtype and wide.flags.c_contiguous
            np.testing.assert_allclose(np.linalg.norm(wide, axis=1), 1, rtol=1e-12)
            # quadratic model: s^2 lambda with |step|^2 a fraction of the trace
            assert problem.at(wide).merit < model.merit - 1e-3 * abs(found.eig_min)


@pytest.mark.parametrize("manifold", [StiefelProduct(4, 2), Product([Oblique(np.ones(4)), Sphere(4, 2.0)]), Sphere(8, 1.0)])
def test_escape_from_the_wrong_end(manifold, rng):
    """The maximiser of low rank is critical: negative curvature leads off every manifold's."""
    C = gallery.goe(8, rng)
    worst = bmsdp.solve(Problem(-C, manifold), rng=0, tol=1e-10)
    problem = Problem(C, manifold)
    model = problem.at(worst.Y)
    found = certify(model, rng=rng, vectors=4)
    wide = escape(model, found, rng)
    np.testing.assert_allclose(manifold.apply(wide, wide), manifold.b, atol=1e-12)
    assert problem.at(wide).merit < model.merit
    result = bmsdp.solve(problem, warm_start=worst.Y, rng=0)
    assert result.success and result.cost <= bmsdp.solve(problem, rng=1).cost + 1e-5 * abs(result.cost)


@pytest.mark.parametrize("seed", range(5))
def test_growth_from_one_column(seed):
    """``J + (I - J/n)/1000``: X 1 = 0 is optimal; from signs, a maximum, every growth is forced, and none may end the run."""
    n = 6
    C = np.ones((n, n)) + 1e-3 * (np.eye(n) - 1 / n)
    result = bmsdp.solve(C, warm_start=np.ones((n, 1)), rng=seed)
    assert result.success, result
    assert 1 < result.rank <= n and result.cost == pytest.approx(1e-3 * n, rel=1e-6)


def test_rank_reaches_n_when_the_optimum_needs_it():
    """X = I is the only optimum of ``<C, X>`` over blocks of size n: one Stiefel block, whatever C."""
    n = 4
    C = gallery.goe(n, 0) + 3 * np.eye(n)
    result = bmsdp.solve(Problem(C, StiefelProduct(1, n)), rng=0)
    assert result.success and result.rank == n and result.cost == pytest.approx(np.trace(C), abs=1e-6 * np.abs(C).sum())
    complex_triangle = gallery.complex_triangle(1.5)[0]
    result = bmsdp.solve(complex_triangle, warm_start=np.exp(2j * np.pi / 3 * np.arange(3))[:, None], rng=0)
    assert result.success and result.rank <= 3


@pytest.mark.parametrize("rank", [1, 2, 3, 7, 12])
def test_kept_rank_is_kept(rank, rng):
    C = gallery.goe(12, rng)
    result = bmsdp.solve(C, rank=rank, rng=0)
    assert result.rank == rank and result.options["rank"] == rank
    assert all(stage["rank"] == rank for stage in result.options["stages"]) and (result.history["rank"] == rank).all()
    if rank == 12:
        assert result.success
    else:
        assert result.success or result.status in (Status.RANK_TOO_SMALL, Status.STALLED)
    assert result.bound <= bmsdp.solve(C, rng=1).cost


def test_start_rank():
    for n in (1, 2, 3, 10, 100, 800, 5000):
        k = start_rank(Problem(sp.csr_array((n, n)), Oblique(np.ones(n))))
        assert min(n, 2) <= k <= n and k <= 2 * np.log(n + 1) + 9
    assert start_rank(Problem(np.zeros((12, 12)), StiefelProduct(3, 4))) >= 5
    assert start_rank(Problem(np.zeros((4, 4)), StiefelProduct(1, 4))) == 4
    assert start_rank(Problem(np.zeros((30, 30)), Sphere(30, 1.0))) == 2


def test_stages_and_history(rng):
    C = laplacian_cost(gallery.toroidal_grid(6, 7, rng))
    lines = []
    problem = Problem(C, Oblique(np.ones(42)))
    result = staircase(problem, tol=1e-6, rng=0, report=lines.append)
    assert lines[0].split()[:3] == ["rank", "products", "seconds"] and len(lines) == 2 + len(result.options["stages"])
    assert lines[1].strip() == "mixing: rows have a cheap step"
    stage = result.options["stages"][-1]
    assert stage["gap"] == result.gap and stage["bound"] == result.bound and stage["cost"] == result.cost
    assert {"rank", "products", "time", "eig_min", "rigor"} <= stage.keys()
    history = result.history
    assert set(history) == {"nit", "time", "products", "rank", "merit", "grad_norm", "gap"}
    assert len({len(v) for v in history.values()}) == 1 and history["gap"][-1] == result.gap
    assert (np.diff(history["products"]) >= 0).all() and (np.diff(history["time"]) >= 0).all()
    assert history["products"][-1] == result.products and history["nit"][-1] == result.nit
    scale = abs(result.cost)
    assert (np.diff(history["merit"]) <= 1e-9 * scale).all(), "mixing and escapes descend"


def test_no_certificate_on_request(rng):
    result = bmsdp.solve(gallery.goe(10, rng), certify=None, rng=0)
    assert result.certificate is None and result.bound == -np.inf and not result.success


def test_no_bound_is_locally_optimal(rng):
    """Unconstrained rows of no cost: no shift, hence no bound, and the status says what is missing."""
    C = gallery.goe(6, rng)
    C[4:, :] = C[:, 4:] = 0
    result = bmsdp.solve(Problem(C, Product([Oblique(np.ones(4)), Unconstrained(2)])), rng=0)
    assert result.status is Status.LOCALLY_OPTIMAL and result.bound == -np.inf and "trace_bound" in result.message


def test_estimate_is_estimated(rng):
    result = bmsdp.solve(gallery.goe(10, rng), certify="estimate", rng=0)
    assert result.status is Status.ESTIMATED and result.success and result.certificate.rigor == "estimate"
    assert np.isnan(result.certificate.failure_probability)


@pytest.mark.parametrize("solver", [None, bmsdp.solvers.TrustRegion(), bmsdp.solvers.LBFGS(), bmsdp.solvers.Mixing()])
def test_every_solver_climbs(solver):
    for name in ("pentagon", "ocarroll_4", "complex_triangle"):
        C, V, optimum = SPURIOUS[name]()
        result = bmsdp.solve(C, warm_start=V, solver=solver, rng=0)
        assert result.success and result.cost == pytest.approx(optimum, rel=1e-6), (name, result)
