"""Preconditioners of tCG: definite and self-adjoint maps of the tangent space, exact pairs, fewer products."""

import dataclasses

import numpy as np
import pytest
import scipy.sparse as sp

from bmsdp import Oblique, Problem, Sphere, StiefelProduct, gallery
from bmsdp.linear_maps import as_linear_map
from bmsdp.manifolds import Product, Unconstrained
from bmsdp.manifolds.base import gaussian, inner
from bmsdp.operators import LowRankPlusSparse, as_operator
from bmsdp.penalty import Penalty
from bmsdp.preconditioners import Cholesky, Jacobi, Multisecant, base, column
from bmsdp.problem import Term
from bmsdp.solvers import TrustRegion

from .laws.registry import REGISTRY


def hermitian(n, dtype, rng, density=1.0):
    C = gaussian(rng, (n, n), dtype) * (rng.random((n, n)) < density)
    return C + C.conj().T


def descend(problem, preconditioner, k, *, tol=1e-7, seed=0, limit=20_000, start=None, **options):
    """(model, info, all infos of outer steps) where the gradient is small relative to its scale."""
    Y, infos = problem.random_point(k, np.random.default_rng(seed)) if start is None else start, []
    for model, info in TrustRegion(preconditioner=preconditioner, **options).iterates(problem, Y):
        info["target"] = tol * model.grad_scale
        if not info.get("inner"):
            infos.append(info)
        if model.grad_norm <= tol * model.grad_scale or info["products"] > limit:
            return model, info, infos


def matrix_of(apply, model, rng, count=8):
    """Gram matrices <u_i, P u_j> of random tangent u, and the largest distance of the P u from the tangent space."""
    manifold, Y = model.problem.manifold, model.Y
    U = [manifold.project(Y, gaussian(rng, Y.shape, Y.dtype), model.factor) for _ in range(count)]
    kept = [u.copy() for u in U]
    PU = [apply(u) for u in U]
    assert all(np.array_equal(u, v) for u, v in zip(U, kept, strict=True)), "the argument is not to be written to"
    off = max(float(np.linalg.norm(p - manifold.project(Y, p, model.factor)) / np.linalg.norm(p)) for p in PU)
    return np.array([[inner(u, p) for p in PU] for u in U]), off


def after_a_run(problem, preconditioner, k, steps=12, seed=0):
    """The run of a preconditioner, its map and model after some steps of the solver that it saw."""
    run = preconditioner.start(problem)
    held = dataclasses.make_dataclass("Held", [])()
    held.start = lambda problem: run
    Y = problem.random_point(k, np.random.default_rng(seed))
    for step, (model, _) in enumerate(TrustRegion(preconditioner=held).iterates(problem, Y)):
        if step >= steps or model.grad_norm <= 1e-9 * max(model.grad_scale, 1e-300):
            break
    model = problem.at(model.Y)
    return run, run.at(model), model


MAPS = {
    "column": Multisecant(memory=4, gate="always"),
    "column, jacobi": Multisecant(memory=4, base="jacobi", gate="always"),
    "block": Multisecant(memory=4, mode="block", gate="always"),
    "block, jacobi": Multisecant(memory=4, mode="block", base="jacobi", gate="always"),
    "jacobi": Jacobi(gate="always"),
    "cholesky": Cholesky(gate="always"),
}
PLACES = [name for name in REGISTRY if "quadratic" not in name and "one row" not in name and "unconstrained" not in name]


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("place", [*PLACES, "quadratic, sparse rows", "quadratic, sparse rows, complex"])
def test_definite_and_self_adjoint_on_the_tangent_space(name, place):
    manifold, dtype, k = REGISTRY[place]
    rng = np.random.default_rng(3)
    problem = Problem(hermitian(manifold.n, dtype, rng) - 3 * np.eye(manifold.n), manifold)
    if "free rows" in place:  # bounded below
        C = hermitian(manifold.n, dtype, rng)
        problem = Problem(C @ C.conj().T / manifold.n, manifold)
    run, apply, model = after_a_run(problem, MAPS[name], k)
    if apply is None:
        assert name.startswith(("column", "cholesky")), "only these wait for a definite slack"
        pytest.skip("S is not definite enough here")
    G, off = matrix_of(apply, model, rng)
    np.testing.assert_allclose(G, G.T, atol=1e-11 * np.abs(G).max())
    assert off <= 1e-11
    tangent = model.Y.size * (1 + (dtype is np.complex128)) - manifold.m
    if tangent >= 1:
        top = np.linalg.eigvalsh(G)
        assert (np.diag(G) > 0).all() and top[0] > -1e-11 * top[-1]
    assert run.info["preconditioned"] is True and run.info["preconditioned_steps"] >= 1


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("kind", ["dense", "sparse", "low rank + sparse", "operator"])
def test_column_pairs_stay_exact_as_the_point_moves(dtype, kind):
    """S V = C V - A*(mu) V with the mu of a point that the pairs have not seen, and Ritz vectors are orthonormal."""
    n, rng = 60, np.random.default_rng(1)
    C = hermitian(n, dtype, rng, 1.0 if kind == "dense" else 0.15)
    U = gaussian(rng, (n, 2), dtype)
    C = {
        "dense": lambda: C, "sparse": lambda: sp.csr_array(C),
        "low rank + sparse": lambda: LowRankPlusSparse(sp.csr_array(C), U, [2.0, -1.0]),
        "operator": lambda: sp.linalg.aslinearoperator(C),
    }[kind]()  # fmt: skip
    problem = Problem(as_operator(C), Oblique(np.ones(n)))
    run, _, _ = after_a_run(problem, Multisecant(memory=6, gate="always"), 4)
    fresh = problem.at(problem.random_point(4, rng))
    S = fresh.slack_mul(np.eye(n, dtype=dtype))
    scale = np.linalg.norm(S, 2)
    assert run.V.shape[1] >= 6
    np.testing.assert_allclose(run.V.conj().T @ run.V, np.eye(run.V.shape[1]), atol=1e-12)
    np.testing.assert_allclose(fresh.slack_mul(run.V, run.CV), S @ run.V, atol=1e-10 * scale)
    theta = run.update(fresh)
    assert len(theta) and (np.linalg.eigvalsh(S)[: len(theta)] <= theta + 1e-10 * scale).all(), "Cauchy interlacing"


def test_terms_move_the_slack_of_the_pairs():
    """Multipliers of an augmented Lagrangian enter S at each point anew."""
    n, rng = 40, np.random.default_rng(5)
    penalty = Penalty(as_linear_map([sp.csr_array(hermitian(n, float, rng, 0.1))], n), [0.5])
    problem = Problem(hermitian(n, float, rng), Oblique(np.ones(n)), [penalty])
    run, _, _ = after_a_run(problem, Multisecant(memory=6, gate="always"), 4)
    fresh = problem.at(problem.random_point(4, rng))
    bare = Problem(problem.C, problem.manifold).at(fresh.Y).with_multipliers(fresh.mu)
    np.testing.assert_allclose(fresh.slack_mul(run.V, run.CV), fresh.slack_mul(run.V), atol=1e-9)
    assert np.abs(fresh.slack_mul(run.V, run.CV) - bare.slack_mul(run.V)).max() > 1e-3


@pytest.mark.parametrize("place", ["oblique", "oblique, radii", "oblique, radii, complex", "stiefel d=2", "sphere", "product, complex"])
def test_with_all_ritz_vectors_it_inverts_the_compressed_slack(place, monkeypatch):
    """For a definite S in full, P = (2 S_TT)^-1 on the tangent space: the Woodbury formula of the module, with its normal parts."""
    manifold, dtype, k = REGISTRY[place]
    rng = np.random.default_rng(2)
    Y = manifold.random_point(k, rng, dtype)
    C = hermitian(manifold.n, dtype, rng)
    mu = Problem(C, manifold).at(Y).mu
    shift = np.eye(manifold.n) * (1.0 - np.linalg.eigvalsh(C - manifold.adjoint_mul(mu, np.eye(manifold.n, dtype=dtype)))[0])
    problem = Problem(C + shift, manifold)
    model = problem.at(Y).with_multipliers(mu)
    S = model.slack_mul(np.eye(manifold.n, dtype=dtype))
    theta, V = np.linalg.eigh(S)
    monkeypatch.setattr(column, "COUPLED", 1000)
    # the largest eigenvalue is the complement: sigma = s
    run = Multisecant(memory=manifold.n, delta=1e-6, gate="always").start(problem)
    run.V, run.CV, run.length, run.step_cost = V, problem.C.mul(V), 1, 1e12
    apply = run._map(model)
    for _ in range(3):
        U = manifold.project(Y, gaussian(rng, Y.shape, dtype), model.factor)
        image = manifold.project(Y, 2 * model.slack_mul(apply(U)), model.factor)
        np.testing.assert_allclose(image, U, atol=1e-2 * np.abs(U).max())


def test_oblique_gram_is_the_general_one():
    for place in ("oblique, radii", "oblique, radii, complex"):
        manifold, dtype, k = REGISTRY[place]
        rng = np.random.default_rng(4)
        problem = Problem(hermitian(manifold.n, dtype, rng), manifold)
        model = problem.at(problem.random_point(k, rng))
        V = np.linalg.qr(gaussian(rng, (manifold.n, 3), dtype))[0]
        R = np.linalg.qr(gaussian(rng, (k, k), dtype))[0]
        np.testing.assert_allclose(column.oblique_gram(model, V, R), column.normal_gram(model, V, R), atol=1e-12)


def test_cholesky_solves_with_the_shifted_slack():
    problem = Problem(gallery.toroidal_grid(8, 8, 0), Oblique(np.ones(64)))
    run, apply, model = after_a_run(problem, Cholesky(gate="always"), 4, steps=30)
    assert apply is not None
    form = run._form(model)
    for complex_too in (False, True):
        rng = np.random.default_rng(0)
        U = gaussian(rng, (64, 3), np.complex128 if complex_too else float)
        M = gallery.toroidal_grid(8, 8, 0) + 5 * sp.eye_array(64)
        if complex_too:
            M = M + 1j * (sp.triu(M, 1) - sp.tril(M, -1))
        M = sp.csr_array(M)
        from bmsdp.factorization import Elimination
        from bmsdp.preconditioners.cholesky import solve

        factor = Elimination.analyse(M).factor(M, M.diagonal().real)
        assert factor.definite
        np.testing.assert_allclose(2 * (M @ solve(factor, U)), U, atol=1e-11)
    assert form is not None


def test_cholesky_on_a_low_rank_cost_and_where_there_is_no_matrix():
    rng = np.random.default_rng(0)
    U = rng.standard_normal((5000, 2))
    C = LowRankPlusSparse(sp.csr_array(gallery.toroidal_grid(50, 100, 0)), U, np.array([1e-3, -1e-3]))
    problem = Problem(C, Oblique(np.ones(5000)))
    run = Cholesky(gate="always").start(problem)
    model = problem.at(problem.random_point(3, rng))
    run.shift = 0.1
    run.at(model)
    assert not run.refused
    free = Problem(sp.linalg.aslinearoperator(np.eye(30)), Oblique(np.ones(30)))
    run = Cholesky(gate="always").start(free)
    assert run.at(free.at(free.random_point(3, rng))) is None and run.refused


def pose_graph(q, d, rng, noise=0.02):
    """``sum w |Y_j - R' Y_i|^2 + v |t_j - t_i - p' Y_i|^2`` on a chain with loop closures, weights over 4 decades; rotations, then t."""
    n = q * d
    R = np.linalg.qr(rng.standard_normal((q, d, d)))[0]
    t = np.cumsum(rng.standard_normal((q, d)), axis=0)
    i = np.r_[np.arange(q - 1), rng.integers(0, q, q // 3)]
    j = np.r_[np.arange(1, q), (i[q - 1 :] + rng.integers(2, q - 1, q // 3)) % q]
    blocks = []
    for a, c in zip(i, j, strict=True):
        rotation, weight = np.zeros((d, n + q)), 10.0 ** rng.uniform(-2, 2, 2)
        rotation[:, d * c : d * c + d] = np.eye(d)
        rotation[:, d * a : d * a + d] = -(R[c] @ R[a].T + noise * rng.standard_normal((d, d)))
        shift = np.zeros((1, n + q))
        shift[0, n + c], shift[0, n + a] = 1, -1
        shift[0, d * a : d * a + d] = -(R[a] @ (t[c] - t[a]) + noise * rng.standard_normal(d))
        blocks += [np.sqrt(weight[0]) * rotation, np.sqrt(weight[1]) * shift]
    B = np.concatenate(blocks)
    return sp.csr_array(B.T @ B), Product([StiefelProduct(q, d), Unconstrained(q)])


def test_cholesky_on_pose_graphs():
    """Rows that nothing bounds, a slack of condition 1e6: a fraction of the products."""
    C, manifold = pose_graph(40, 3, np.random.default_rng(0))
    problem = Problem(C, manifold)
    start = problem.random_point(4, np.random.default_rng(1))
    _, plain, _ = descend(problem, None, 4, start=start, tol=1e-8)
    model, helped, _ = descend(problem, Cholesky(1e-8, gate="always"), 4, start=start, tol=1e-8)
    assert model.grad_norm <= 1e-8 * model.grad_scale and helped["preconditioned_steps"] > 0
    assert helped["products"] < 0.5 * plain["products"]


@pytest.mark.parametrize(
    ("weights", "preconditioner", "left"),
    [
        ("pm1", Multisecant(), 0.7), ("pm1", Multisecant(gate="always"), 0.6), ("gaussian", Multisecant(), 0.6),
        ("pm1", Cholesky(gate="always"), 0.6), ("lognormal", Jacobi(gate="always"), 0.85),
        ("pm1", Multisecant(mode="block", gate="always"), 0.9),
    ],
)  # fmt: skip
def test_products_fall_on_a_torus(weights, preconditioner, left):
    """Means over seeds; the optimum is the same."""
    spent, helped = 0, 0
    for seed in range(3):
        problem = Problem(gallery.toroidal_grid(10, 20, seed, weights=weights) / 4, Oblique(np.ones(200)))
        model, info, _ = descend(problem, None, 12, seed=seed, tol=1e-8)
        other, after, _ = descend(problem, preconditioner, 12, seed=seed, tol=1e-8)
        spent, helped = spent + info["products"], helped + after["products"]
        assert other.grad_norm <= 1e-8 * other.grad_scale
        assert other.cost == pytest.approx(model.cost, rel=1e-8)
        assert after["preconditioned_steps"] > 0
    assert helped < left * spent


def test_gates():
    problem = Problem(gallery.toroidal_grid(8, 8, 0), Oblique(np.ones(64)))
    model = problem.at(problem.random_point(6, np.random.default_rng(0)))

    def opened(gate, iterations, boundary):
        run = base.Gated(problem, gate, lambda model: abs)
        run.info["preconditioned"] = False
        run.ended(iterations, boundary)
        return run.at(model) is not None

    assert opened("always", 1, True) and opened("always", 0, False)
    assert opened("local", 5, False) and not opened("local", 500, True)
    assert opened("auto", base.LONG, True) and not opened("auto", base.LONG - 1, False)

    class Dear(base.Gated):
        def costs(self, model):
            return 0.0, 1e9

    run = Dear(problem, "auto", lambda model: abs)
    run.ended(1000, False)
    assert run.at(model) is None, "its making costs more than it can save"
    run.ended(10**7, False)
    assert run.at(model) is not None


def test_preconditioned_lengths_count_for_more():
    problem = Problem(np.eye(4), Oblique(np.ones(4)))
    run = base.Gated(problem, "auto", lambda model: abs)
    run.ended(10, False)
    assert run.length == 10
    run.info["preconditioned"] = True
    run.ended(10, False)
    assert run.length == 25


class Opaque(Term):
    def value(self, Y):
        return 0.05 * float(np.sum(Y**4))

    def half_grad(self, Y):
        return 0.1 * Y**3

    def half_hess(self, Y, U):
        return 0.3 * Y**2 * U


def test_where_there_is_no_slack():
    problem = Problem(hermitian(30, float, np.random.default_rng(0)), Oblique(np.ones(30)), [Opaque()])
    with pytest.raises(TypeError, match='Opaque does not act on X.*mode="block"'):
        Multisecant().start(problem)
    assert Cholesky(gate="always").start(problem).at(problem.at(problem.random_point(4, np.random.default_rng(0)))) is None
    model, info, _ = descend(problem, Multisecant(mode="block", gate="always"), 4)
    assert model.grad_norm <= 1e-7 * model.grad_scale and info["preconditioned_steps"] > 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Multisecant(memory=0), "memory = 0; a positive number of pairs"),
        (lambda: Multisecant(memory=True), "memory = True"),
        (lambda: Multisecant(memory=2.5), "memory = 2.5"),
        (lambda: Multisecant(mode="row"), "mode = 'row'.*column.*block"),
        (lambda: Multisecant(base="diag"), "base = 'diag'.*identity.*jacobi.*callable"),
        (lambda: Multisecant(gate="open"), "gate = 'open'.*auto.*always.*local"),
        (lambda: Multisecant(delta=0.0), r"delta = 0.0; a number in \(0, 1\)"),
        (lambda: Multisecant(delta=1.0), r"delta = 1.0"),
        (lambda: Jacobi(gate=None), "gate = None"),
        (lambda: Cholesky(shift=0), "shift = 0"),
        (lambda: Cholesky(shift=0.5), r"shift = 0.5; a number in \(0, 0.1\]"),
        (lambda: Cholesky(gate="x"), "gate = 'x'"),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_bad_preconditioners_are_refused():
    problem = Problem(np.eye(4), Oblique(np.ones(4)))
    Y = problem.random_point(2, np.random.default_rng(0))
    with pytest.raises(TypeError, match="preconditioner = 3; one of bmsdp.preconditioners"):
        next(TrustRegion(preconditioner=3).iterates(problem, Y))
    operator = Problem(sp.linalg.aslinearoperator(np.diag([1.0, 2, 3, 4])), Oblique(np.ones(4)))
    with pytest.raises(TypeError, match='base = "jacobi" needs a C'):
        Multisecant(base="jacobi").start(operator).base(operator.at(Y))
    assert Jacobi().start(operator).at(operator.at(Y)) is None


@pytest.mark.parametrize("preconditioner", MAPS.values(), ids=MAPS)
def test_frozen_hashable_and_deterministic(preconditioner):
    assert hash(preconditioner) == hash(dataclasses.replace(preconditioner))
    with pytest.raises(dataclasses.FrozenInstanceError):
        preconditioner.gate = "auto"
    problem = Problem(gallery.toroidal_grid(6, 6, 0), Oblique(np.ones(36)))
    first, second = (descend(problem, preconditioner, 4)[0].Y for _ in range(2))
    assert np.array_equal(first, second)


@pytest.mark.parametrize(
    "preconditioner", [Multisecant(memory=4, gate="always"), Multisecant(mode="block", memory=4, gate="always"), Jacobi()]
)
def test_power_of_two_scaling_gives_the_same_iterates(preconditioner):
    W = gallery.toroidal_grid(6, 6, 0)
    runs = []
    for scale in (1.0, 2.0**20):
        problem = Problem(scale * W, Oblique(np.ones(36)), norm_C=4 * scale)
        runs.append(descend(problem, preconditioner, 4)[0].Y)
    assert np.array_equal(*runs)


def test_sphere_reaches_the_smallest_eigenvalue():
    C = hermitian(80, float, np.random.default_rng(0))
    model, _, _ = descend(Problem(C, Sphere(80, 1.0)), Multisecant(gate="always"), 2)
    assert model.cost == pytest.approx(np.linalg.eigvalsh(C)[0], rel=1e-9)
