"""LearnedMixing: the laws of solvers, the network of the oracle, and the adaptive rule after the learned sweeps."""

import dataclasses
import itertools

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as spla

import bmsdp
from bmsdp import Oblique, Problem, StiefelProduct, gallery
from bmsdp.kernels.mixing import greedy_colouring
from bmsdp.learned import LearnedMixing, MixingWeights, save
from bmsdp.problem import LocalModel
from bmsdp.solvers import Default, Mixing

N, L = 24, 7


def gaussian(rng, shape, dtype):
    Y = rng.standard_normal(shape)
    return Y + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else Y


def hermitian(dtype=float, density=1.0, seed=0):
    rng = np.random.default_rng(seed)
    A = gaussian(rng, (N, N), dtype) * (rng.random((N, N)) < density)
    return A + A.conj().T


def network(h=8, seed=0):
    rng = np.random.default_rng(seed)
    return MixingWeights(1 + rng.standard_normal(L), *(rng.standard_normal(shape) for shape in ((L, h, 3), (L, h), (L, h))))


SCHEDULE = MixingWeights.from_schedule(np.linspace(1.4, 1.8, L))
WEIGHTS = pytest.mark.parametrize("weights", [network(), SCHEDULE], ids=["network", "schedule"])
PROBLEMS = {
    "dense": Problem(hermitian(), Oblique(np.ones(N))),
    "sparse": Problem(sp.csr_array(hermitian(density=0.2)), Oblique(np.ones(N))),
    "complex": Problem(hermitian(complex), Oblique(np.ones(N))),
    "complex sparse": Problem(sp.csr_array(hermitian(complex, 0.2)), Oblique(np.ones(N))),
    "radii": Problem(sp.csr_array(hermitian(density=0.3)), Oblique(np.linspace(0.5, 4, N))),
    "stiefel": Problem(hermitian(), StiefelProduct(8, 3)),
    "stiefel complex": Problem(sp.csr_array(hermitian(complex)), StiefelProduct(12, 2, True)),
    "stiefel d=1": Problem(hermitian(), StiefelProduct(N, 1)),
    "blocks": Problem(gallery.orthogonal_synchronization(9, 3, 0.5, 0, 0.4)[0], StiefelProduct(9, 3)),
    "zero": Problem(np.zeros((N, N)), Oblique(np.ones(N))),
}
EVERY = pytest.mark.parametrize("instance", PROBLEMS)


def run(solver, instance, steps, k=8):
    problem = PROBLEMS[instance]
    return itertools.islice(solver.iterates(problem, problem.random_point(k, np.random.default_rng(0))), steps)


@WEIGHTS
@EVERY
def test_models_belong_to_their_point_and_the_cost_falls(weights, instance):
    problem = PROBLEMS[instance]
    Y = problem.random_point(8, np.random.default_rng(0))
    kept, merit, products = Y.copy(), np.inf, 0
    for step, (model, info) in enumerate(itertools.islice(LearnedMixing(weights, Mixing(sweeps=1)).iterates(problem, Y), 3 * L)):
        assert isinstance(model, LocalModel) and info["products"] > products
        fresh = problem.at(model.Y.copy())
        noise = 1e-13 * fresh.problem.norm_C * fresh.trace
        assert abs(model.merit - fresh.merit) <= noise and abs(info["merit"] - fresh.merit) <= noise
        assert info["merit"] <= merit + noise
        np.testing.assert_allclose(problem.manifold.apply(model.Y, model.Y), problem.manifold.b, rtol=1e-12, atol=1e-12)
        merit, products = info["merit"], info["products"]
        if step == 0:
            assert np.array_equal(model.Y, kept)
    assert np.array_equal(Y, kept), "a solver works on a Y of its own"


@WEIGHTS
@pytest.mark.parametrize("instance", [name for name in PROBLEMS if name != "zero"])
def test_reaches_a_critical_point(weights, instance):
    for model, _ in run(LearnedMixing(weights), instance, 400):
        if model.grad_norm <= 1e-8 * model.grad_scale:
            return
    pytest.fail("no convergence")


def slerp_sweeps(problem, weights, Y, order):
    """The network as its definition says it, rows in the given order."""
    C, r = problem.C.matrix(), problem.manifold.radius
    off = (C if isinstance(C, np.ndarray) else C.toarray()).copy()
    np.fill_diagonal(off, 0)
    for a, W1, b1, W2 in zip(weights.a, weights.W1, weights.b1, weights.W2, strict=True):
        for i in order:
            g, parts = off[i] @ Y, np.abs(off[i]) * r
            if not g.any():
                continue
            size, c1, c2 = np.linalg.norm(g), parts.sum(), np.linalg.norm(parts)
            w = 1 + 1 / (1 + np.exp(-a - W2 @ np.tanh(W1 @ [size / c2, size / c1, 2 * np.log(c1 / c2)] + b1)))
            y, u = Y[i] / r[i], -g / size
            theta = np.arccos((u @ y.conj()).real)
            Y[i] = r[i] * (np.sin((1 - w) * theta) * y + np.sin(w * theta) * u) / np.sin(theta)
    return Y


@pytest.mark.parametrize("instance", ["dense", "sparse", "complex", "complex sparse", "radii"])
def test_rows_move_as_the_network_says(instance):
    problem, weights = PROBLEMS[instance], network(seed=3)
    Y = problem.random_point(6, np.random.default_rng(1))
    C = problem.C.matrix()
    order = range(N) if isinstance(C, np.ndarray) else greedy_colouring(C.indptr, C.indices)[0]
    iterates = LearnedMixing(weights, Mixing(sweeps=L)).iterates(problem, Y)
    next(iterates)
    model, info = next(iterates)
    np.testing.assert_allclose(model.Y, slerp_sweeps(problem, weights, Y.copy(), order), atol=1e-10)
    assert info["products"] == 1 + L


@pytest.mark.parametrize("instance", ["dense", "sparse", "stiefel", "stiefel complex", "stiefel d=1"])
def test_a_schedule_is_mixing_with_that_schedule(instance):
    """Bit for bit, in its sweeps and after them."""
    ours, plain = run(LearnedMixing(SCHEDULE), instance, 8), run(Mixing(schedule=tuple(SCHEDULE.omega)), instance, 8)
    for (one, a), (two, b) in zip(ours, plain, strict=True):
        assert np.array_equal(one.Y, two.Y) and a["omega"] == b["omega"] and a["merit"] == b["merit"]


@WEIGHTS
def test_neither_units_nor_bases_matter(weights):
    problem = PROBLEMS["sparse"]
    Y = problem.random_point(6, np.random.default_rng(1))
    Q = np.linalg.qr(np.random.default_rng(2).standard_normal((6, 6)))[0]
    scaled = Problem(2.0**20 * problem.C.matrix(), problem.manifold)
    three = [LearnedMixing(weights).iterates(p, start) for p, start in ((problem, Y), (scaled, Y), (problem, Y @ Q))]
    for (one, _), (two, _), (turned, _) in itertools.islice(zip(*three, strict=True), 4):
        assert np.array_equal(one.Y, two.Y)
        np.testing.assert_allclose(turned.Y, one.Y @ Q, atol=1e-11)


def test_nothing_to_do_stands_still():
    *_, (model, info) = run(LearnedMixing(network()), "zero", 400)
    assert model.grad_norm == 0 and info["stalled"]


def test_refuses_where_there_is_no_step():
    C = hermitian()
    operator = spla.LinearOperator(C.shape, matvec=lambda v: C @ v, matmat=lambda V: C @ V, dtype=float)
    for problem in (Problem(operator, Oblique(np.ones(N))), Problem(C, bmsdp.Sphere(N))):
        assert not LearnedMixing(SCHEDULE).applies(problem)
        with pytest.raises(TypeError, match=f"LearnedMixing has no step for {type(problem.manifold).__name__}.*LBFGS"):
            next(LearnedMixing(SCHEDULE).iterates(problem, problem.random_point(3, np.random.default_rng(0))))


@WEIGHTS
def test_solve_certifies_and_says_who_solved(weights, tmp_path):
    save(weights, tmp_path / "w.npz")
    C = gallery.gnp(60, 0.1, rng=0)
    alone = LearnedMixing.load(tmp_path / "w.npz")
    reference = bmsdp.solve(C, rng=0).cost
    for solver in (alone, Default(mixing=alone)):
        result = bmsdp.solve(C, solver=solver, rng=0)
        assert result.status is bmsdp.Status.CERTIFIED and result.cost == pytest.approx(reference, rel=2e-6)
        assert "LearnedMixing(weights=MixingWeights(L=7" in result.options["solver"]


def test_default_passes_over_learned_sweeps_that_have_no_step():
    C = hermitian()
    operator = spla.LinearOperator(C.shape, matvec=lambda v: C @ v, matmat=lambda V: C @ V, dtype=float)
    problem = Problem(operator, Oblique(np.ones(N)))
    result = bmsdp.minimize(problem, Default(mixing=LearnedMixing(SCHEDULE)), rank=8, rng=0)
    assert result.status is bmsdp.Status.LOCALLY_OPTIMAL


@pytest.mark.parametrize("given", ["weights.npz", [1.5, 1.7]])
def test_weights_are_no_path_and_no_list(given):
    with pytest.raises(TypeError, match=rf"weights is a {type(given).__name__}; MixingWeights are needed; LearnedMixing.load"):
        LearnedMixing(given)


def test_frozen():
    solver = LearnedMixing(SCHEDULE)
    with pytest.raises(dataclasses.FrozenInstanceError):
        solver.weights = network()
    assert repr(solver).startswith("LearnedMixing(weights=MixingWeights(L=7, schedule")
    assert len(repr(solver)) < 200, "options of a result hold no arrays"


@pytest.mark.parametrize("instance", ["sparse", "complex sparse", "radii", "stiefel", "stiefel complex", "blocks"])
def test_the_kernel_is_the_network_that_was_trained(instance):
    """To 1e-12 after all L sweeps, colours in the same order."""
    torch = pytest.importorskip("torch", reason='learned solvers need torch: pip install "bmsdp[learn]"')
    from bmsdp.learned import networks

    problem, weights = PROBLEMS[instance], network(seed=4)
    Y = problem.random_point(6, np.random.default_rng(1))
    data = networks.instance([problem])
    x = (data.into([Y]),)
    with torch.no_grad():
        for stage in networks.network(weights):
            x = stage(x, data)
    iterates = LearnedMixing(weights, Mixing(sweeps=L)).iterates(problem, Y)
    next(iterates)
    np.testing.assert_allclose(next(iterates)[0].Y, data.out(x[0])[0], rtol=0, atol=1e-12)
