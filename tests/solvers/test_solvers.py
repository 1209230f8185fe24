"""Laws of solvers, over all of them: models that belong to Y, descent, critical points, no units, no end."""

import dataclasses
import inspect
import itertools
import tracemalloc

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as spla

from bmsdp import gallery, operators
from bmsdp.manifolds import Oblique, Product, Sphere, StiefelProduct, Unconstrained
from bmsdp.problem import LocalModel, Problem
from bmsdp.solvers import LBFGS, Default, GradientDescent, Mixing, Multisecant, TrustRegion, mixing

SOLVERS = {
    "trust region": TrustRegion(),
    "L-BFGS": LBFGS(),
    "multisecant": Multisecant(),
    "multisecant frobenius": Multisecant(flavour="frobenius"),
    "gradient descent": GradientDescent(),
    "mixing": Mixing(),
    "plain mixing": Mixing(omega=1.0),
    "default": Default(window=60),
}
EVERY = pytest.mark.parametrize("name", SOLVERS)
N = 24


def gaussian(rng, shape, dtype):
    Y = rng.standard_normal(shape)
    return Y + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else Y


def hermitian(dtype=float, n=N, seed=0, density=1.0):
    rng = np.random.default_rng(seed)
    A = gaussian(rng, (n, n), dtype) * (rng.random((n, n)) < density)
    return A + A.conj().T


def operator(C):
    return spla.LinearOperator(C.shape, matvec=lambda v: C @ v, matmat=lambda V: C @ V, dtype=C.dtype)


def psd(n):
    C = hermitian(n=n)
    return C @ C / n


PROBLEMS = {  # (problem, columns)
    "dense": (Problem(hermitian(), Oblique(np.ones(N))), 8),
    "sparse": (Problem(sp.csr_array(hermitian(density=0.2)), Oblique(np.ones(N))), 8),
    "complex": (Problem(hermitian(complex), Oblique(np.ones(N))), 6),
    "complex sparse": (Problem(sp.csr_array(hermitian(complex, density=0.2)), Oblique(np.ones(N))), 6),
    "radii": (Problem(hermitian(), Oblique(np.linspace(0.5, 4, N))), 8),
    "torus": (Problem(gallery.toroidal_grid(6, 6, 0), Oblique(np.ones(36))), 9),
    "operator": (Problem(operator(hermitian()), Oblique(np.ones(N))), 8),
    "low rank": (Problem(operators.LowRankPlusSparse(hermitian(), np.ones((N, 1))), Oblique(np.ones(N))), 8),
    "stiefel": (Problem(hermitian(), StiefelProduct(8, 3)), 9),
    "stiefel d=1": (Problem(hermitian(), StiefelProduct(N, 1)), 8),
    "stiefel complex": (Problem(sp.csr_array(hermitian(complex)), StiefelProduct(12, 2, True)), 7),
    "sphere": (Problem(hermitian(), Sphere(N, 3.0)), 3),
    "sphere complex": (Problem(hermitian(complex), Sphere(N)), 2),
    "product": (Problem(hermitian(), Product([Oblique(np.ones(10)), Sphere(5, 2.0), StiefelProduct(3, 3)])), 8),
    "product complex": (Problem(hermitian(complex), Product([Sphere(4), StiefelProduct(10, 2, True)])), 6),
    "free rows": (Problem(psd(N), Product([Unconstrained(4), Oblique(np.ones(N - 4))])), 6),
    "unconstrained": (Problem(psd(N) + np.eye(N), Unconstrained(N)), 2),
    "zero": (Problem(np.zeros((N, N)), Oblique(np.ones(N))), 3),
    "one row": (Problem([[-2.0]], Oblique([3.0])), 2),
    "one row, one column": (Problem([[2.0]], Oblique([1.0])), 1),
    "one column": (Problem(hermitian(), Oblique(np.ones(N))), 1),
    "one complex column": (Problem(hermitian(complex), Oblique(np.ones(N))), 1),
}
PAIRS = [
    (name, instance)
    for name, solver in SOLVERS.items()
    for instance, (problem, _) in PROBLEMS.items()
    if not isinstance(solver, Mixing) or solver.applies(problem)
]
PAIR = pytest.mark.parametrize(("name", "instance"), PAIRS)


def run(name, instance, steps, seed=0):
    problem, k = PROBLEMS[instance]
    Y = problem.random_point(k, np.random.default_rng(seed))
    return itertools.islice((SOLVERS[name] if isinstance(name, str) else name).iterates(problem, Y), steps)


def compare_with(model):
    """A size for merits: what the cost could be."""
    return model.problem.norm_C * model.trace


# every solver on every problem


@PAIR
def test_yields_models_that_belong_to_their_point(name, instance):
    problem, k = PROBLEMS[instance]
    Y = problem.random_point(k, np.random.default_rng(0))
    kept, products = Y.copy(), 0
    generator = SOLVERS[name].iterates(problem, Y)
    assert inspect.isgenerator(generator)
    for step, (model, info) in enumerate(itertools.islice(generator, 12)):
        assert isinstance(model, LocalModel) and isinstance(info, dict)
        if step == 0:
            assert np.array_equal(model.Y, kept)
        fresh = problem.at(model.Y.copy())
        scale = 1e-12 * compare_with(fresh) + 1e-300
        assert abs(model.cost - fresh.cost) <= scale and abs(model.merit - fresh.merit) <= scale
        assert abs(info.get("merit", model.merit) - fresh.merit) <= scale
        np.testing.assert_allclose(model.grad, fresh.grad, atol=1e-12 * fresh.grad_scale + 1e-300)
        np.testing.assert_allclose(model.mu, fresh.mu, atol=1e-12 * max(problem.norm_C, 1e-300) * N)
        np.testing.assert_allclose(problem.manifold.apply(model.Y, model.Y), problem.manifold.b, rtol=1e-12, atol=1e-12)
        assert info["products"] >= products
        products = info["products"]
    assert np.array_equal(Y, kept), "a solver works on a Y of its own"


@PAIR
def test_reaches_a_critical_point_and_never_ends(name, instance):
    """To 1e-6 of the gradient's scale, 1e-3 for the slow ones; then it goes on as long as it is asked."""
    slow = name in ("gradient descent", "plain mixing")
    tol, limit = (1e-3, 4000) if slow else (1e-6, 1500)
    reached, merit = None, np.inf
    for step, (model, info) in enumerate(run(name, instance, limit + 1)):
        if not info.get("inner") and model.grad_norm <= tol * model.grad_scale:
            reached = step if reached is None else reached
        if reached is not None and step > reached + 40:
            break
        assert model.merit <= merit + 2e-13 * compare_with(model)
        merit = model.merit if not info.get("inner") else merit
        assert np.isfinite(model.merit) and np.isfinite(model.grad_norm)
    assert reached is not None and step > reached


@pytest.mark.parametrize("name", ["mixing", "plain mixing", "gradient descent", "trust region", "L-BFGS", "multisecant"])
@pytest.mark.parametrize("instance", ["dense", "sparse", "complex", "radii", "torus", "stiefel", "stiefel complex", "operator"])
def test_merit_never_rises(name, instance):
    problem, _ = PROBLEMS[instance]
    if isinstance(SOLVERS[name], Mixing) and not SOLVERS[name].applies(problem):
        pytest.skip("mixing has no step here")
    merits = [(info.get("merit", model.merit), model.merit) for model, info in run(name, instance, 120)]
    model = problem.at(problem.random_point(2 if problem.manifold.min_rank < 2 else 3, np.random.default_rng(0)))
    noise = 0 if name == "gradient descent" else (1e-12 if name == "trust region" else 1e-14) * compare_with(model)
    for kind in range(2 if name != "trust region" else 1):
        values = np.array([m[kind] for m in merits])
        assert np.all(np.diff(values) <= noise)
    assert merits[-1][1] < merits[0][1]


@pytest.mark.parametrize("instance", ["dense", "sparse", "complex", "operator", "stiefel", "sphere", "product", "radii"])
@pytest.mark.parametrize("name", ["trust region", "L-BFGS", "multisecant", "gradient descent", "mixing", "default"])
def test_power_of_two_scaling_gives_the_same_iterates(name, instance):
    """``C -> 2^20 C`` changes no bit of any iterate."""
    problem, k = PROBLEMS[instance]
    if isinstance(SOLVERS[name], Mixing) and not SOLVERS[name].applies(problem):
        pytest.skip("mixing has no step here")
    C = problem.C.matrix()
    scaled = Problem(2.0**20 * C if C is not None else operator(2.0**20 * hermitian()), problem.manifold)
    assert scaled.norm_C == 2.0**20 * problem.norm_C
    Y = problem.random_point(k, np.random.default_rng(1))
    for (one, a), (two, b) in itertools.islice(
        zip(SOLVERS[name].iterates(problem, Y), SOLVERS[name].iterates(scaled, Y), strict=False), 40
    ):
        assert np.array_equal(one.Y, two.Y) and a["products"] == b["products"]


@EVERY
def test_zero_cost_stands_still(name):
    *_, (model, info) = run(name, "zero", 400)
    problem, k = PROBLEMS["zero"]
    assert model.grad_norm == 0 and info["stalled"]
    np.testing.assert_allclose(model.Y, problem.random_point(k, np.random.default_rng(0)), atol=1e-13)


@EVERY
def test_is_a_frozen_dataclass(name):
    solver = SOLVERS[name]
    assert dataclasses.is_dataclass(solver)
    field = dataclasses.fields(solver)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(solver, field, 1)
    assert repr(solver).startswith(type(solver).__name__)


@EVERY
def test_same_start_same_iterates(name):
    first, second = ([model.Y.copy() for model, _ in run(name, "sparse", 30)] for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("name", ["mixing", "L-BFGS", "multisecant", "trust region", "default"])
def test_solvers_agree_on_the_optimum(name):
    """At a rank that admits no spurious point (k > n/2) all end at the same cost."""
    for dtype, k in ((float, 13), (complex, 9)):
        problem = Problem(hermitian(dtype), Oblique(np.ones(N)))
        Y = problem.random_point(k, np.random.default_rng(0))
        for model, _ in itertools.islice(SOLVERS[name].iterates(problem, Y), 400):
            if model.grad_norm <= 3e-7 * model.grad_scale:
                break
        S = model.slack_matrix()
        assert np.linalg.eigvalsh(S)[0] >= -1e-6 * problem.norm_C


def test_trust_region_converges_quadratically():
    """The smallest eigenvalue on a sphere, one column: the error is squared until rounding."""
    problem = Problem(hermitian(), Sphere(N, 3.0))
    Y = problem.random_point(1, np.random.default_rng(0))
    ratios = [model.grad_norm / model.grad_scale for model, _ in itertools.islice(TrustRegion().iterates(problem, Y), 40)]
    first = next(i for i, r in enumerate(ratios) if r <= 1e-2)
    assert min(ratios[first : first + 4]) <= 1e-12


def test_trust_region_stays_where_it_arrived():
    """Steps within the rounding of the merit must not undo what the gradient has reached."""
    ratios = np.array([model.grad_norm / model.grad_scale for model, info in run("trust region", "sphere", 80) if "inner" not in info])
    best = np.minimum.accumulate(ratios)
    assert np.all(ratios[best <= 1e-9] <= 1e-9)


@pytest.mark.parametrize("dtype", [float, complex])
def test_trust_region_where_the_hessian_is_singular(dtype):
    """k > rank of the optimum: tCG meets directions without curvature, stays in its ball, and still gets there."""
    problem = Problem(hermitian(dtype), Oblique(np.ones(N)))
    Y = problem.random_point(13 if dtype is float else 9, np.random.default_rng(0))
    before, radius = None, np.inf
    for model, info in TrustRegion().iterates(problem, Y):
        if info.get("inner"):
            continue
        assert info["radius"] <= radius if model is before else info["radius"] <= 2 * radius, "a rejected step grew the ball"
        before, radius = model, info["radius"]
        if model.grad_norm <= 1e-8 * model.grad_scale:
            break
        assert info["products"] <= 5000, "Newton steps crawl"


def test_trust_region_yields_inside_long_inner_solves():
    problem = Problem(gallery.toroidal_grid(30, 30, 0), Oblique(np.ones(900)))
    Y = problem.random_point(5, np.random.default_rng(0))
    before = 0
    for _, info in itertools.islice(TrustRegion().iterates(problem, Y), 150):
        assert info["products"] - before <= 51
        before = info["products"]
    inner = [i for _, i in itertools.islice(TrustRegion().iterates(problem, Y), 150) if i.get("inner")]
    assert inner and all("merit" in i and "grad_norm" in i for i in inner)


def test_trust_region_with_a_preconditioner():
    problem, k = PROBLEMS["radii"]

    def inverse_diagonal(model):
        scale = 1 / (2 * np.abs(model.mu) + problem.norm_C)
        return lambda V: problem.manifold.project(model.Y, scale[:, None] * problem.manifold.project(model.Y, V))

    for model, _ in run(TrustRegion(preconditioner=inverse_diagonal), "radii", 200):
        if model.grad_norm <= 1e-9 * model.grad_scale:
            return
    pytest.fail("no convergence")


# memory and threads


@pytest.mark.parametrize("manifold", [Oblique(np.ones(2000)), Sphere(2000, 1.0)], ids=["oblique", "sphere"])
def test_trust_region_peak_memory(manifold):
    """At most the 12 arrays of n k numbers that its docstring states, beyond the data and the start."""
    n, k = 2000, 60
    problem = Problem(gallery.toroidal_grid(20, 100, 0), manifold)
    Y = problem.random_point(k, np.random.default_rng(0))
    for _ in itertools.islice(TrustRegion().iterates(problem, Y), 1):
        problem.norm_C, problem.at(Y).hess(Y)
    tracemalloc.start()
    try:
        base, _ = tracemalloc.get_traced_memory()
        for model, _ in itertools.islice(TrustRegion().iterates(problem, Y), 8):
            model.grad_norm
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (peak - base) / (8 * n * k) <= 12


def test_mixing_peak_memory():
    """Y and one row, and the gradient where it is asked for."""
    n, k = 4000, 60
    problem = Problem(gallery.toroidal_grid(40, 100, 0), Oblique(np.ones(n)))
    Y = problem.random_point(k, np.random.default_rng(0))
    for _ in itertools.islice(Mixing().iterates(problem, Y), 2):
        problem.norm_C
    tracemalloc.start()
    try:
        for _ in itertools.islice(Mixing().iterates(problem, Y), 8):
            pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak / (8 * n * k) <= 4


@pytest.mark.parametrize("dtype", [float, complex])
@pytest.mark.parametrize("name", ["mixing", "trust region"])
def test_two_threads_are_deterministic(name, dtype, monkeypatch):
    """The result depends on input, rng and the number of threads alone."""
    monkeypatch.setattr(mixing, "COLOURED_ROWS", 0)
    monkeypatch.setattr(operators, "SMALL_PRODUCT", 0)
    C = gallery.toroidal_grid(15, 15, 0).astype(dtype)
    ends = []
    for threads in (2, 2, 1):
        problem = Problem(C, Oblique(np.ones(225)), threads=threads)
        Y = problem.random_point(6, np.random.default_rng(0))
        merits = []
        for model, info in itertools.islice(SOLVERS[name].iterates(problem, Y), 6):
            merits.append(info.get("merit", model.merit))
        ends.append((model.Y.copy(), merits))
    assert np.array_equal(ends[0][0], ends[1][0]) and ends[0][1] == ends[1][1]
    assert np.all(np.diff(ends[0][1]) <= 1e-12 * 225) and np.isclose(ends[0][1][-1], ends[2][1][-1], rtol=0.1)


# mixing


def test_mixing_refuses_where_there_is_no_step():
    for instance in ("sphere", "product", "unconstrained"):
        problem, k = PROBLEMS[instance]
        assert not Mixing().applies(problem)
        with pytest.raises(TypeError, match=f"Mixing has no step for {type(problem.manifold).__name__}.*TrustRegion"):
            next(Mixing().iterates(problem, problem.random_point(k, np.random.default_rng(0))))
    problem = Problem(operator(hermitian()), StiefelProduct(12, 2))
    with pytest.raises(TypeError, match="no step"):
        next(Mixing().iterates(problem, problem.random_point(4, np.random.default_rng(0))))


def test_mixing_with_terms_is_refused():
    class Nothing:
        value = staticmethod(lambda Y: 0.0)

    assert not Mixing().applies(Problem(hermitian(), Oblique(np.ones(N)), [Nothing()]))


@pytest.mark.parametrize("omega", [0, 2, -1, 2.5, np.nan])
def test_mixing_refuses_relaxation_outside_its_range(omega):
    with pytest.raises(ValueError, match="0 < omega < 2"):
        Mixing(omega=omega)


@pytest.mark.parametrize("dtype", [float, complex])
@pytest.mark.parametrize("shift", [0.0, -50.0, 50.0])
def test_majorised_step_ends_where_the_row_step_does(dtype, shift):
    """An operator C against its own matrix, at a rank without spurious points; the diagonal only changes the majoriser."""
    C = hermitian(dtype) + shift * np.eye(N)
    costs = []
    for form in (C, sp.csr_array(C), operator(C)):
        problem = Problem(form, Oblique(np.ones(N)))
        Y = problem.random_point(13, np.random.default_rng(0))
        for model, _ in itertools.islice(Mixing().iterates(problem, Y), 6000):
            if model.grad_norm <= 1e-7 * problem.norm_C:
                break
        costs.append(model.cost)
    np.testing.assert_allclose(costs, costs[0], rtol=1e-9)


@pytest.mark.parametrize("C", [np.eye(4), -np.eye(4), 0.5 * np.eye(4), np.diag([1.0, 2, 3, 4])], ids=["I", "-I", "I/2", "diagonal"])
def test_majorised_step_on_diagonal_operators(C):
    """The cost is constant: rows ``g_i - c y_i`` that vanish keep their row."""
    problem = Problem(operator(C), Oblique(np.ones(4)))
    Y = problem.random_point(2, np.random.default_rng(0))
    for model, _ in itertools.islice(Mixing().iterates(problem, Y), 60):
        assert np.isclose(model.cost, np.trace(C)) and np.allclose(np.linalg.norm(model.Y, axis=1), 1)


@pytest.mark.parametrize("form", [np.array, sp.csr_array, operator])
def test_isolated_rows_and_big_diagonals(form):
    C = hermitian(density=0.3)
    C[[3, 9]], C[:, [3, 9]] = 0, 0
    problem, other = Problem(form(C), Oblique(np.ones(N))), Problem(form(C + 50 * np.eye(N)), Oblique(np.ones(N)))
    Y = problem.random_point(13, np.random.default_rng(0))
    ends = []
    for p in (problem, other):
        for model, _ in itertools.islice(Mixing().iterates(p, Y), 4000):
            if model.grad_norm <= 1e-6 * problem.norm_C:
                break
        ends.append(model.cost - np.trace(C + 50 * np.eye(N) if p is other else C))
        np.testing.assert_allclose(model.Y[[3, 9]], Y[[3, 9]], atol=1e-12)
    assert np.isclose(ends[0], ends[1], rtol=1e-8)


@pytest.mark.parametrize("dtype", [float, complex])
def test_mixing_on_blocks_of_one_row_keeps_what_the_problem_says(dtype):
    """StiefelProduct with d = 1 is rerouted to rows; blocks, threads and manifold stay those of the caller."""
    blocks = [slice(0, 10), slice(10, N)]
    manifold = StiefelProduct(N, 1, dtype is complex)
    problem = Problem(sp.csr_array(hermitian(dtype)), manifold, blocks=blocks, threads=2, cost_scale=3.0)
    Y = problem.random_point(3, np.random.default_rng(0))
    model, _ = next(Mixing().iterates(problem, Y))
    assert model.problem.blocks == blocks and model.problem.C.threads == 2 and model.cost_scale == 3


def test_fixed_relaxation_is_used():
    omegas = {info["omega"] for _, info in run(Mixing(omega=1.3), "sparse", 10)}
    assert omegas == {1.3}
    rising = [info["omega"] for _, info in run(Mixing(), "torus", 60)]
    assert max(rising) <= 1.995 and max(rising) > 1.5


def test_free_gradient_norm_tends_to_the_true_one():
    *_, (model, info) = run("mixing", "dense", 300)
    assert info["grad_norm"] <= 1e-6 * model.grad_scale
    assert model.grad_norm <= 10 * info["grad_norm"] + 1e-12 * model.grad_scale


# default


def test_default_starts_with_mixing_and_may_polish():
    kinds = ["omega" in info for _, info in run(Default(window=20), "torus", 400)]
    assert kinds[0] and not kinds[-1], "the window is short: L-BFGS takes over"
    products = [info["products"] for _, info in run(Default(window=20), "torus", 400)]
    assert products == sorted(products)


def test_default_without_row_step():
    assert all("omega" not in info for _, info in run("default", "sphere", 5))
