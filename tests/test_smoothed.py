"""`solve(perturbation=...)`: what comes out in between, for both costs, and what the caller gets."""

import itertools

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as spla

import bmsdp
from bmsdp import LowRankPlusSparse, Oblique, Perturbation, Problem, Product, Result, Sphere, Status, StiefelProduct, Unconstrained, gallery
from bmsdp.solvers import LBFGS, TrustRegion
from bmsdp.verified import lower_bound

KEYS = {
    "sigma", "seed", "pattern", "continuation", "norm_W", "eps_g", "eps_H", "grad_norm", "second_order", "status", "rank", "perturbed",
    "original", "guarantee",
}  # fmt: skip
FIGURES = {"cost", "bound", "gap", "rigor"}


class Watch:
    """A callback that keeps the noise, the last perturbed point and the costs met."""

    def __init__(self):
        self.noise = self.Y = None
        self.first = self.second = 0

    def __call__(self, model, info):
        if model.problem.noise is None:
            self.second += 1
        else:
            assert not self.second, "first the perturbed problem, then the original one"
            self.noise, self.first = model.problem.noise, self.first + 1
            self.Y, self.noisy = model.Y.copy(), model.problem


def watched(C, *arguments, **keywords):
    watch = Watch()
    return bmsdp.solve(C, *arguments, callback=watch, **keywords), watch


def dense(C, n=None):
    return C.toarray() if sp.issparse(C) else C.mul(np.eye(C.n, dtype=C.dtype)) if hasattr(C, "mul") else np.asarray(C)


# Theory, section 8


@pytest.mark.parametrize("sigma", [1e-6, 1e-3])
@pytest.mark.parametrize("k", [2, 4, 10])
def test_axial_points(k, sigma):
    """Fact 11: a degenerate spurious point at rank n/2; started there nothing moves, with noise it is gone."""
    C, Y, optimum = gallery.ocarroll(k)
    stays = bmsdp.solve(C, rank=k, warm_start=Y, rng=0)
    assert stays.status is Status.RANK_TOO_SMALL and stays.cost == 0 and stays.perturbation is None
    for solver in (None, TrustRegion()):
        result, watch = watched(C, rank=k, warm_start=Y, solver=solver, perturbation=sigma, rng=1)
        assert result.status is Status.CERTIFIED and result.rank == k and result.cost == pytest.approx(optimum, abs=1e-5)
        best = bmsdp.solve(C + watch.noise.matrix(), tol=1e-9, rng=0)
        facts = result.perturbation
        assert facts["perturbed"]["cost"] == pytest.approx(best.cost, abs=1e-5) and facts["status"] == "CERTIFIED"
        assert facts["original"]["cost"] == pytest.approx(optimum, abs=max(1e-5, 40 * sigma))
        assert result.perturbation["norm_W"] <= 3 * sigma * np.sqrt(2 * k)


@pytest.mark.parametrize("seed", [2, 7])
def test_strict_points(seed):
    """Fact 12: a strict spurious point survives a small noise; the certificate says so, rank 5 and the staircase pass by."""
    C, V, optimum = gallery.waldspurger_waters(10, 3, seed)
    start = np.ascontiguousarray(V)
    noisy = Problem(C, Oblique(np.ones(10))).perturbed(1e-3, seed)
    trapped = bmsdp.minimize(noisy, TrustRegion(), start, eps_g=1e-8, eps_H=1e-4, rng=seed)
    assert trapped.status is Status.LOCALLY_OPTIMAL and trapped.cost > optimum + 0.1
    assert bmsdp.certify(noisy.at(trapped.Y), rng=0).gap > 0.5
    kept = bmsdp.solve(C, rank=3, warm_start=V, solver=TrustRegion(), perturbation=1e-3, rng=seed)
    assert kept.status is Status.CERTIFIED or kept.cost > optimum + 0.1 and kept.status is Status.RANK_TOO_SMALL
    for keywords in ({"rank": 5}, {}):
        result = bmsdp.solve(C, perturbation=1e-3, rng=seed, **keywords)
        assert result.status is Status.CERTIFIED and result.cost == pytest.approx(optimum, rel=2e-6)


CASES = {
    "real": lambda: (gallery.goe(20, 0), Oblique(np.ones(20))),
    "complex": lambda: (gallery.gue(14, 0), Oblique(np.ones(14))),
    "radii": lambda: (gallery.goe(12, 0), Oblique(gallery.random_radii(12, 2, 0))),
    "sparse": lambda: (gallery.toroidal_grid(4, 5, 0), Oblique(np.ones(20))),
    "stiefel": lambda: (gallery.goe(12, 1), StiefelProduct(6, 2)),
    "stiefel, complex": lambda: (gallery.gue(9, 1), StiefelProduct(3, 3, True)),
    "sphere": lambda: (gallery.goe(10, 2), Sphere(10, 3.0)),
    "product": lambda: (gallery.goe(12, 3), Product([Oblique(np.ones(5)), Sphere(3, 2.0), StiefelProduct(2, 2)])),
    "operator": lambda: (spla.aslinearoperator(gallery.goe(15, 0)), Oblique(np.ones(15))),
    "low rank": lambda: (LowRankPlusSparse(gallery.toroidal_grid(4, 4, 0), np.ones((16, 2)), [1.0, -1.0]), Oblique(np.ones(16))),
}


@pytest.mark.parametrize("sigma", [1e-5, 0.3])
@pytest.mark.parametrize("name", CASES)
def test_both_gaps(name, sigma):
    """Fact 19 and the reported figures, from the noise itself: costs, bounds, gaps, ``|W|`` and ``0 <= f - f* <= 2 |W| R``."""
    C, manifold = CASES[name]()
    certify = "probabilistic" if name == "operator" else "verified"
    kind = {"certify": None if name in ("operator", "low rank") else "verified"}
    result, watch = watched(C, manifold, perturbation=sigma, rng=3)
    facts, problem = result.perturbation, Problem(C, manifold)
    assert facts.keys() == KEYS and facts["perturbed"].keys() == facts["original"].keys() == FIGURES
    assert facts["sigma"] == sigma and facts["pattern"] is False and facts["continuation"] is True
    assert result.status is Status.CERTIFIED and watch.first and watch.second and facts["status"] == "CERTIFIED"
    full = problem.C.mul(np.eye(problem.n, dtype=problem.dtype))
    W, trace = watch.noise.mul(np.eye(problem.n, dtype=problem.dtype)), float(manifold.row_trace.sum())
    norm = np.linalg.norm(W, 2)
    assert 0.8 * norm <= facts["norm_W"] <= norm * (1 + 1e-10)
    Y = watch.Y
    f, g = float(np.vdot(full @ Y, Y).real), float(np.vdot((full + W) @ Y, Y).real)
    size = problem.norm_C * trace
    assert facts["original"]["cost"] == pytest.approx(f, abs=1e-12 * size)
    assert facts["perturbed"]["cost"] == pytest.approx(g, abs=1e-12 * size)
    assert facts["grad_norm"] == pytest.approx(watch.noisy.at(Y).grad_norm, abs=1e-12 * size)
    again = problem.perturbed(sigma, facts["seed"]).noise.mul(np.eye(problem.n, dtype=problem.dtype))
    assert np.array_equal(W, again), "the seed gives the noise again"
    best, noisy = (bmsdp.solve(Problem(M, manifold), tol=1e-9, rng=0) for M in (full, (full + W + (full + W).conj().T) / 2))
    for figures, optimum, cost in ((facts["original"], best, f), (facts["perturbed"], noisy, g)):
        assert figures["bound"] <= optimum.cost + 1e-12 * size and figures["cost"] >= optimum.bound - 1e-12 * size
        scale = max(abs(cost), abs(figures["bound"]))
        assert figures["gap"] == pytest.approx((cost - figures["bound"]) / scale, abs=1e-9)
        assert figures["rigor"] in ("verified", certify if kind["certify"] else "probabilistic")
    assert facts["perturbed"]["gap"] <= 1e-6
    assert -1e-9 * size <= f - best.cost <= 2 * norm * trace + 1e-6 * size, "fact 19"
    assert f - best.cost <= 12 * sigma * np.sqrt(problem.n) * trace
    # the answer is that of the original problem
    assert result.cost == pytest.approx(best.cost, rel=2e-6) and result.bound <= best.cost + 1e-12 * size
    assert result.cost <= f + 1e-9 * size, "the continuation descends"


def test_small_noise_moves_little():
    """The bias is at most linear in sigma, and below tol for sigma = "auto"."""
    C = gallery.goe(25, 0)
    best = bmsdp.solve(C, tol=1e-10, rng=0).cost
    for sigma in (1e-2, 1e-4, 1e-6):
        result = bmsdp.solve(C, perturbation=Perturbation(sigma, continuation=False), tol=1e-9, rng=0)
        assert 0 <= result.cost - best + 1e-9 * abs(best) <= 0.1 * 12 * sigma * np.sqrt(25) * 25
    auto = bmsdp.solve(C, perturbation=Perturbation("auto", continuation=False), tol=1e-4, rng=0)
    assert auto.status is Status.CERTIFIED and auto.cost - best <= 1e-4 * abs(best)


# sigma


def test_auto():
    """``sigma = tol norm_C / (12 sqrt n)`` for any trace, in the units of C."""
    for manifold, n in ((Oblique(np.ones(20)), 20), (Sphere(20, 7.0), 20), (Oblique(np.linspace(0.1, 5, 20)), 20)):
        problem = Problem(gallery.goe(n, 0), manifold)
        for tol in (1e-4, 1e-6):
            facts = bmsdp.solve(problem, perturbation="auto", tol=tol, rng=0).perturbation
            assert facts["sigma"] == pytest.approx(tol * problem.norm_C / (12 * np.sqrt(n)), rel=1e-12)
            assert 0 < facts["eps_H"] <= tol * problem.norm_C / 4 * (1 + 1e-12)
            trace = float(manifold.row_trace.sum())
            assert 0 < facts["eps_g"] <= tol * problem.norm_C * np.sqrt(trace) / 4 * (1 + 1e-12)
    one, two = (bmsdp.solve(s * gallery.goe(10, 0), perturbation="auto", rng=0) for s in (1.0, 2.0**20))
    assert two.perturbation["sigma"] == 2.0**20 * one.perturbation["sigma"]
    assert two.perturbation["eps_H"] == pytest.approx(2.0**20 * one.perturbation["eps_H"], rel=1e-12)
    assert np.array_equal(one.Y, two.Y) and two.cost == 2.0**20 * one.cost


def test_given_sigma_sets_the_tolerances():
    """Those that an accuracy of ``12 sigma sqrt(n) trace`` needs."""
    C, n = gallery.goe(20, 0), 20
    for sigma in (1e-3, 0.1):
        facts = bmsdp.solve(C, perturbation=sigma, rng=0).perturbation
        assert facts["eps_H"] == pytest.approx(12 * sigma * np.sqrt(n) / 4, rel=1e-9)
        assert 0 < facts["eps_g"] <= 12 * sigma * np.sqrt(n) * np.sqrt(n) / 4 * (1 + 1e-9)
    tiny = bmsdp.solve(C, perturbation=1e-200, rng=0).perturbation
    assert tiny["eps_g"] >= 1e-14 and tiny["eps_H"] >= 1e-14, "raised to what floating point resolves"


def test_a_kept_rank_is_solved_to_second_order():
    """At rank 2, where no gap can be proved, both conditions hold at what comes back."""
    C = gallery.goe(20, 0)
    result, watch = watched(C, rank=2, perturbation=0.1, rng=5)
    assert result.status is Status.RANK_TOO_SMALL and result.rank == 2 and result.second_order is not None
    facts = result.second_order
    assert facts["grad_norm"] <= facts["eps_g"] and facts["hess_min_lower"] >= -facts["eps_H"]
    assert facts["grad_norm"] == pytest.approx(Problem(C, Oblique(np.ones(20))).at(result.Y).grad_norm, abs=1e-10)
    held = bmsdp.solve(C, rank=2, perturbation=Perturbation(0.1, continuation=False), rng=5)
    facts, wanted = held.second_order, held.perturbation
    assert facts["eps_g"] == wanted["eps_g"] and facts["eps_H"] == wanted["eps_H"] and facts["hess_min_lower"] >= -wanted["eps_H"]
    assert watch.noisy.at(held.Y).grad_norm <= wanted["eps_g"], "of the perturbed cost"


def test_second_order_belongs_to_the_point_returned():
    """Where the original problem is certified, what was found at the perturbed one's point is no longer its second order."""
    C, _, _ = gallery.rank_one_optimal(20, 0, cond=1.5)
    for seed in range(4):
        result = bmsdp.solve(C, rank=2, perturbation=1.0, rng=seed)
        if result.second_order is not None:
            model = Problem(C, Oblique(np.ones(20))).at(result.Y)
            assert result.second_order["grad_norm"] == pytest.approx(model.grad_norm, abs=1e-9)


# without continuation


def test_without_continuation():
    C = gallery.goe(20, 0)
    result, watch = watched(C, perturbation=Perturbation(0.1, continuation=False), rng=0)
    facts = result.perturbation
    assert watch.second == 0 and facts["continuation"] is False and np.array_equal(result.Y, watch.Y)
    assert result.cost == facts["original"]["cost"] == pytest.approx(np.vdot(C @ result.Y, result.Y))
    assert result.bound == facts["original"]["bound"] and result.gap == facts["original"]["gap"] == result.certificate.gap > 1e-6
    assert result.status is Status.STALLED and result.message.startswith("optimal for the perturbed cost") and not result.success
    assert np.linalg.eigvalsh(C - np.diag(result.dual))[0] >= -1e-12 and result.dual.sum() == pytest.approx(result.bound)
    v = np.ones(20)
    np.testing.assert_allclose(result.slack() @ v, C @ v - result.dual * v)
    tiny = bmsdp.solve(C, perturbation=Perturbation(1e-12, continuation=False), rng=0)
    assert tiny.status is Status.CERTIFIED and tiny.gap <= 1e-6 and tiny.message == Status.CERTIFIED.value
    guess = bmsdp.solve(C, perturbation=Perturbation(1e-12, continuation=False), certify="estimate", rng=0)
    assert guess.status is Status.ESTIMATED and guess.perturbation["original"]["rigor"] == "estimate"
    low = bmsdp.solve(C, rank=2, perturbation=Perturbation(0.01, continuation=False), rng=0)
    assert low.status is Status.RANK_TOO_SMALL and low.gap > 1e-3


@pytest.mark.parametrize("continuation", [False, True])
def test_without_certificate(continuation):
    C = gallery.goe(15, 0)
    result = bmsdp.solve(C, perturbation=Perturbation(0.1, continuation=continuation), certify=None, rng=0)
    assert result.certificate is None and result.bound == -np.inf and result.gap == np.inf and result.status is Status.LOCALLY_OPTIMAL
    nothing = {"bound": -np.inf, "gap": np.inf, "rigor": None}
    for figures in (result.perturbation["perturbed"], result.perturbation["original"]):
        assert {key: figures[key] for key in nothing} == nothing and np.isfinite(figures["cost"])
    assert result.cost == pytest.approx(np.vdot(C @ result.Y, result.Y))


# forms of the noise


def test_pattern():
    C = sp.csr_array(gallery.toroidal_grid(6, 6, 0))
    result, watch = watched(C, perturbation=Perturbation(0.2, pattern=True), rng=0)
    facts = result.perturbation
    assert result.status is Status.CERTIFIED and facts["pattern"] is True and facts["guarantee"] is None
    W = watch.noise.matrix()
    assert sp.issparse(W) and np.array_equal(W.indices, C.indices) and sp.issparse(watch.noisy.C.matrix())
    assert facts["perturbed"]["rigor"] == "verified" and facts["norm_W"] == pytest.approx(np.linalg.norm(W.toarray(), 2), rel=0.1)
    assert result.cost == pytest.approx(bmsdp.solve(C, rng=0).cost, rel=2e-6)


def test_the_noise_leaves_out_what_is_absorbed():
    for manifold, zero in (
        (Oblique(np.ones(8)), np.eye(8)), (StiefelProduct(4, 2), np.kron(np.eye(4), np.ones((2, 2)))), (Sphere(8), np.zeros((8, 8)))
    ):  # fmt: skip
        watch = watched(gallery.goe(8, 0), manifold, perturbation=0.1, rng=0)[1]
        assert np.array_equal(watch.noise.matrix() == 0, zero > 0)


def test_large_problems_draw_the_noise_again(monkeypatch):
    """Above the limit of storage: the same result up to rounding, the bound now probabilistic."""
    from bmsdp import perturbation as module
    from bmsdp.perturbation import Wigner

    C = gallery.goe(40, 0)
    stored, one = watched(C, perturbation=0.01, rng=2)
    monkeypatch.setattr(module, "DENSE_LIMIT", 39)
    drawn, two = watched(C, perturbation=0.01, rng=2)
    assert isinstance(two.noise, Wigner) and np.array_equal(two.noise.toarray(), one.noise.matrix())
    a, b = stored.perturbation, drawn.perturbation
    assert a["perturbed"]["rigor"] == "verified" and b["perturbed"]["rigor"] == "probabilistic" and b["original"]["rigor"] == "verified"
    assert b["perturbed"]["cost"] == pytest.approx(a["perturbed"]["cost"], rel=2e-6) and b["norm_W"] == pytest.approx(a["norm_W"], rel=0.05)
    assert drawn.status is Status.CERTIFIED and drawn.cost == pytest.approx(stored.cost, rel=2e-6)


def test_guarantee():
    """At the required rank it holds, with a bound that the gap keeps; below it does not."""
    n, sigma = 60, 0.5
    C = gallery.goe(n, 0)
    few = bmsdp.solve(C, perturbation=sigma, rng=0)
    promise = few.perturbation["guarantee"]
    assert promise.keys() == {"holds", "required_rank", "probability", "gap_abs"}
    assert promise["holds"] is False and promise["gap_abs"] == np.inf and promise["probability"] == 0
    assert few.rank < promise["required_rank"] <= n
    assert promise["required_rank"] >= bmsdp.theory.required_rank(n, n, sigma=sigma, norm_C=np.linalg.norm(C, 2)), "of |C| or more"
    enough = bmsdp.solve(C, rank=promise["required_rank"], perturbation=sigma, rng=0)
    told = enough.perturbation["guarantee"]
    assert told["holds"] is True and told["required_rank"] == promise["required_rank"] and 0.9 < told["probability"] < 1
    best = bmsdp.solve(C, tol=1e-8, rng=0)
    assert enough.perturbation["original"]["cost"] - best.cost <= told["gap_abs"]
    complex_ = bmsdp.solve(gallery.gue(n, 0), perturbation=sigma, rng=0).perturbation["guarantee"]
    assert complex_["required_rank"] < promise["required_rank"]


# the caller's coordinates


def test_rows_in_the_callers_order():
    """Rescaled, permuted, negative and repeated rows, radii, blocks: points and duals are the caller's."""
    rng = np.random.default_rng(0)
    for trial in range(12):
        n, complex_ = 6, bool(trial % 2)
        C = gallery.gue(n, trial) if complex_ else gallery.goe(n, trial)
        A, b = [], []

        def add(s, i, j, value, right):
            M = np.zeros((n, n), complex if complex_ else float)  # noqa: B023
            M[i, j] = s * value
            M[j, i] = np.conj(s * value)
            A.append(M)  # noqa: B023
            b.append(right * s)  # noqa: B023

        radii = rng.random(n) + 0.2
        for i in range(n):
            add(rng.choice([-3.0, 0.1, 1.0]), i, i, 1.0, radii[i])
        add(1.0, 2, 2, 1.0, radii[2])
        for value in (1.0, 1j) if complex_ else (1.0,):
            add(rng.choice([-2.0, 5.0]), 1, 4, value, 0.0)
        order = rng.permutation(len(A))
        A, b = [A[j] for j in order], np.array(b)[order]
        for options in ({}, {"continuation": False}):
            result = bmsdp.solve(C, A, b, perturbation=Perturbation(1e-4, **options), rng=trial)
            X = result.X
            np.testing.assert_allclose([np.vdot(M, X).real for M in A], b, atol=1e-12)
            S = C - sum(y * M for y, M in zip(result.dual, A, strict=True))
            assert np.linalg.eigvalsh(S)[0] >= -1e-11 and b @ result.dual == pytest.approx(result.bound, abs=1e-10)
            assert np.vdot(C, X).real == pytest.approx(result.cost)
            assert lower_bound(C, A, b, result.dual).bound == pytest.approx(result.bound, rel=1e-9)
            np.testing.assert_allclose(result.slack() @ np.ones(n), S @ np.ones(n), atol=1e-12)
            assert result.success or options


# seeds, limits, callbacks, files


def test_seeds():
    C = gallery.goe(20, 0)
    one, again, other = (bmsdp.solve(C, perturbation=0.1, rng=seed) for seed in (3, 3, 4))
    assert np.array_equal(one.Y, again.Y) and one.perturbation == again.perturbation and one.options["rng"] == 3
    assert one.perturbation["norm_W"] != other.perturbation["norm_W"] and not np.array_equal(one.Y, other.Y)
    fresh = bmsdp.solve(C, perturbation=0.1)
    repeated = bmsdp.solve(C, perturbation=0.1, rng=fresh.options["rng"])
    assert np.array_equal(fresh.Y, repeated.Y) and fresh.perturbation == repeated.perturbation
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    bmsdp.solve(C, perturbation=0.1)
    assert np.array_equal(np.random.get_state()[1], state), "no global state"  # noqa: NPY002


def test_one_history_of_two_runs():
    C = gallery.goe(30, 0)
    result, watch = watched(C, perturbation=0.1, rng=0)
    history = result.history
    assert len(history["nit"]) == watch.first + watch.second
    for name in ("nit", "time", "products"):
        assert np.all(np.diff(history[name]) >= 0), name
    assert result.nit == history["nit"][-1] and result.products >= history["products"][-1] and result.time >= history["time"][-1]
    assert history["gap"][-1] == result.gap
    stages = result.options["stages"]
    assert any(stage["cost"] == result.perturbation["perturbed"]["cost"] for stage in stages) and stages[-1]["cost"] == result.cost


def test_stages_are_one_table():
    """As the history does, the products and seconds of the table go on after the first run."""
    stages = bmsdp.solve(gallery.goe(30, 0), perturbation=0.1, rng=0).options["stages"]
    assert np.all(np.diff([stage["products"] for stage in stages]) >= 0) and np.all(np.diff([stage["time"] for stage in stages]) >= 0)


def test_max_time():
    C = gallery.toroidal_grid(20, 20, 0)
    for continuation in (True, False):
        result = bmsdp.solve(C, perturbation=Perturbation(0.01, continuation=continuation), tol=1e-13, max_time=0.3, rng=0)
        assert result.status in (Status.MAX_TIME, Status.STALLED, Status.CERTIFIED) and result.perturbation is not None
        assert result.bound <= result.cost and result.time >= 0 and result.options["max_time"] == 0.3
    cut = bmsdp.solve(C, perturbation=0.01, max_time=1e-9, rng=0)
    assert cut.perturbation["status"] == "MAX_TIME" and cut.bound <= cut.cost


@pytest.mark.parametrize("when", [1, 4])
def test_stopped_in_the_perturbed_problem(when):
    """The point so far, judged for the original cost; nothing is continued."""
    C, seen = gallery.goe(30, 0), itertools.count(1)
    problems = []

    def stop(model, info):
        problems.append(model.problem)
        if next(seen) >= when:
            raise StopIteration

    result = bmsdp.solve(C, perturbation=0.1, callback=stop, rng=0)
    assert len(problems) == when and all(problem.noise is not None for problem in problems)
    assert result.status is Status.INTERRUPTED and result.perturbation["status"] == "INTERRUPTED"
    assert result.cost == pytest.approx(np.vdot(C @ result.Y, result.Y)) and result.bound <= bmsdp.solve(C, rng=0).cost
    more = bmsdp.solve(C, warm_start=result, rng=0)
    assert more.success


def test_stopped_in_the_original_problem():
    def stop(model, info):
        if model.problem.noise is None:
            raise StopIteration

    C = gallery.goe(30, 0)
    result = bmsdp.solve(C, perturbation=0.1, callback=stop, rng=0)
    assert result.status is Status.INTERRUPTED and result.perturbation["status"] == "CERTIFIED"
    assert result.cost == pytest.approx(result.perturbation["original"]["cost"])


def test_solvers_and_starts():
    C = gallery.goe(20, 0)
    Y = np.random.default_rng(0).standard_normal((20, 4))
    for solver in (LBFGS(), TrustRegion()):
        result = bmsdp.solve(C, perturbation=0.01, solver=solver, warm_start=Y, rng=0)
        assert result.status is Status.CERTIFIED and type(solver).__name__ in result.options["solver"] and result.options["warm_start"]
    again = bmsdp.solve(C, perturbation=1e-6, warm_start=result, rng=0)
    assert again.success and again.perturbation["original"]["cost"] == pytest.approx(result.cost, rel=1e-5)
    for rank in (1, 2, 6, 20):
        kept = bmsdp.solve(C, perturbation=0.01, rank=rank, rng=0)
        assert kept.rank == rank == kept.perturbation["rank"]
        assert kept.status in (Status.CERTIFIED, Status.RANK_TOO_SMALL) and (kept.success or rank < 6)


def test_one_row():
    for manifold in (Oblique([2.0]), Sphere(1, 2.0), StiefelProduct(1, 1)):
        result = bmsdp.solve(np.array([[3.0]]), manifold, perturbation=0.1, rng=0)
        assert result.success and result.perturbation["norm_W"] == 0 and result.cost == pytest.approx(3 * manifold.b[0])
    pair = bmsdp.solve(np.array([[2.0, 1.0], [1.0, 1.0]]), perturbation="auto", rng=0)
    assert pair.cost == pytest.approx(1.0)


def test_verbose(capsys):
    C = sp.csr_array(gallery.toroidal_grid(4, 4, 0))
    bmsdp.solve(C, perturbation=Perturbation(0.25, pattern=True), rng=0, verbose=1)
    out = capsys.readouterr().out
    assert "perturbed: sigma = 0.25 on the pattern of C\n" in out and out.count(" rank  products  seconds") == 2
    assert "perturbed: gap " in out and "; the same point in the original problem: gap " in out
    assert out.index("sigma = ") < out.index("the same point") < out.index("bmsdp: CERTIFIED")
    bmsdp.solve(C, perturbation=Perturbation(0.25, continuation=False), rng=0, verbose=1)
    out = capsys.readouterr().out
    assert "perturbed: sigma = 0.25\n" in out and out.count(" rank  products  seconds") == 1
    bmsdp.solve(C, perturbation=0.25, rng=0)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("options", [{}, {"continuation": False}, {"pattern": True}])
def test_saved_and_loaded(options, tmp_path):
    C = sp.csr_array(gallery.toroidal_grid(4, 4, 0))
    result = bmsdp.solve(C, rank=2, perturbation=Perturbation(0.1, **options), rng=0)
    result.save(tmp_path / "run.npz")
    loaded = Result.load(tmp_path / "run.npz")
    assert loaded.perturbation == result.perturbation and loaded.second_order == result.second_order
    assert loaded.status is result.status and np.array_equal(loaded.Y, result.Y) and loaded.gap == result.gap
    bare = bmsdp.solve(C, perturbation=Perturbation(0.1), certify=None, rng=0)
    bare.save(tmp_path / "bare.npz")
    assert Result.load(tmp_path / "bare.npz").perturbation == bare.perturbation


def test_the_callers_data_is_left_alone():
    C = gallery.goe(12, 0)
    kept, problem = C.copy(), Problem(C, Oblique(np.ones(12)))
    result = bmsdp.solve(problem, perturbation=0.5, rng=0)
    assert np.array_equal(C, kept) and problem.noise is None and result.data.C is problem.C
    assert bmsdp.solve(problem, rng=0).perturbation is None


# what is refused


@pytest.mark.parametrize("sigma", [0, -1.0, np.nan, np.inf, True, "small", [0.1]], ids=repr)
def test_bad_sigma(sigma):
    with pytest.raises(ValueError, match="positive finite standard deviation in the units of C"):
        bmsdp.solve(gallery.goe(4, 0), perturbation=sigma)


def test_refused():
    C = gallery.goe(5, 0)
    with pytest.raises(ValueError, match=r'perturbation = "auto" takes its size from that of C, and C = 0; pass a number'):
        bmsdp.solve(np.zeros((5, 5)), perturbation="auto")
    assert bmsdp.solve(np.zeros((5, 5)), perturbation=0.1, rng=0).cost == 0
    for manifold in (Product([Oblique(np.ones(3)), Unconstrained(2)]), Unconstrained(5)):
        with pytest.raises(ValueError, match="a perturbation needs a compact feasible set: rows that fix the trace of X"):
            bmsdp.solve(C @ C, manifold, perturbation=0.1)
    with pytest.raises(ValueError, match="pattern of C needs a sparse C"):
        bmsdp.solve(C, perturbation=Perturbation(0.1, pattern=True))
    with pytest.raises(ValueError, match="verified bound needs the entries of C"):
        bmsdp.solve(spla.aslinearoperator(C), perturbation=0.1, certify="verified")
