"""Batches: the algebra of the problems, in the order of colours."""

import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason='learned solvers need torch: pip install "bmsdp[learn]"')

import scipy.sparse as sp  # noqa: E402

from bmsdp import Oblique, Problem, Sphere  # noqa: E402
from bmsdp.learned.networks import Draws, instance  # noqa: E402


def constant(problem, d):
    C = problem.C.matrix()
    C = C.toarray() if sp.issparse(C) else C
    r2 = problem.manifold.b if isinstance(problem.manifold, Oblique) else np.ones(problem.n)
    return sum(float(C[i, i].real * r2[i]) for i in range(problem.n))


def test_costs_are_those_of_the_problems(kind, problem):
    problems, rng = [problem(kind, 60, 0), problem(kind, 30, 1)], np.random.default_rng(2)
    here = instance(problems, optimum=[-5.0, -7.0])
    Ys = [p.random_point(4, rng) for p in problems]
    state = here.into(Ys)
    for Y, back in zip(Ys, here.out(state), strict=True):
        assert np.array_equal(Y, back)
    expected = [p.at(Y).cost - constant(p, here.d) for p, Y in zip(problems, Ys, strict=True)]
    assert np.allclose(here.costs(state), expected, rtol=1e-12)
    assert np.allclose(here.optimum, [f - constant(p, here.d) for f, p in zip([-5.0, -7.0], problems, strict=True)])


def test_colours_are_independent_and_cover_what_is_coupled(kind, problem):
    here = instance([problem(kind), problem(kind, 30, 1)])
    C, d = here.C.to_dense().numpy(), here.d
    covered = np.zeros(here.n, bool)
    for colour in here.colours:
        assert not C[colour.rows, colour.rows].any() and not covered[colour.rows].any()
        covered[colour.rows] = True
        assert np.array_equal(colour.C.to_dense().numpy(), C[colour.rows])
        assert np.array_equal(colour.adjoint.to_dense().numpy(), C[colour.rows].conj().T)
    assert np.array_equal(covered, np.repeat(np.abs(C).reshape(-1, d * here.n).sum(1) > 0, d))


def test_bounds_on_products(kind, problem):
    """``|g| <= c1``, and ``E |g|^2 = c2^2`` over random points."""
    p = problem(kind)
    here, rng = instance([p]), np.random.default_rng(3)
    squares = [[] for _ in here.colours]
    for _ in range(200):
        Y = here.into([p.random_point(6, rng)])
        for colour, found in zip(here.colours, squares, strict=True):
            g = torch.linalg.norm((colour.C @ Y).reshape(len(colour.c1), -1), dim=1, keepdim=True) / here.d**0.5
            assert (g <= colour.c1 * (1 + 1e-12)).all()
            found.append(g**2)
    ratio = torch.cat([torch.stack(found).mean(0) / colour.c2**2 for colour, found in zip(here.colours, squares, strict=True)])
    assert float((ratio - 1).abs().max()) < 0.5 and abs(float(ratio.mean()) - 1) < 0.05


def test_what_has_no_step_is_refused(problem):
    C = np.eye(4)
    with pytest.raises(TypeError, match="no step for Sphere"):
        instance([Problem(C, Sphere(4))])
    with pytest.raises(ValueError, match="one block size and one number type"):
        instance([problem("rows"), problem("complex")])
    with pytest.raises(ValueError, match="got none"):
        instance([])


def test_draws_are_functions_of_seed_and_batch(problem):
    made = []

    def draw(rng):
        made.append(problem("rows", 30, int(rng.integers(2**31))))
        return made[-1]

    draws = Draws(draw, 3, size=2, pool=3, seed=7, optimum=lambda p: -1.0)
    x4 = draws.inputs(4)[0]
    assert draws.context(4) is draws.context(1) and draws.context(4) is not draws.context(2)
    assert not torch.equal(draws.inputs(1)[0], x4)
    again = Draws(draw, 3, size=2, pool=3, seed=7)
    assert torch.equal(again.inputs(4)[0], x4) and again.context(0).optimum is None
    other = Draws(draw, 3, size=2, pool=3, seed=8)
    assert not torch.equal(other.inputs(4)[0], x4)
    assert len(made) == 10  # every entry of a pool once, when it is needed
    listed = Draws(made[:5], 3, size=2)
    assert listed.pool == 3 and [p is made[0] for p in listed.context(2).problems] == [False, True]
    assert torch.equal(pickle.loads(pickle.dumps(listed)).inputs(5)[0], listed.inputs(5)[0])
    with pytest.raises(ValueError, match="at least one Problem"):
        Draws([], 3)
