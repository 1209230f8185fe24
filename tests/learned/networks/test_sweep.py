"""A sweep as a reversible stage: invariants T13 and T14, round trips, the derivative against autograd, and its compiled relatives."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason='learned solvers need torch: pip install "bmsdp[learn]"')

import scipy.sparse as sp  # noqa: E402

from bmsdp import Oblique, Problem, gallery  # noqa: E402
from bmsdp.learned import MixingWeights  # noqa: E402
from bmsdp.learned.networks import LogGap, Objective, SweepStage, checkpointed, gaps, instance, network, weights_of  # noqa: E402
from bmsdp.learned.petra import Checkpointed  # noqa: E402
from bmsdp.solvers.mixing import sweeper  # noqa: E402


def stages(L, seed=0, spread=0.7, omega=1.5, hidden=8):
    generator = torch.Generator().manual_seed(seed)
    out = [SweepStage(omega, hidden, generator) for _ in range(L)]
    for stage in out if hidden else []:
        stage.W2.data = spread * torch.randn(hidden, dtype=torch.float64, generator=generator)
    return out


def batch(problem, kind, k=7, seed=5):
    problems, rng = [problem(kind, 60, 0), problem(kind, 30, 1)], np.random.default_rng(seed)
    here = instance(problems)
    return here, (here.into([p.random_point(k, rng) for p in problems]),)


def test_equivariant_under_rotations_of_the_columns(kind, problem):
    here, (Y,) = batch(problem, kind)
    Q = torch.linalg.qr(torch.randn(7, 7, dtype=Y.dtype, generator=torch.Generator().manual_seed(1)))[0]
    stage = stages(1)[0]
    with torch.no_grad():
        assert float((stage((Y @ Q,), here)[0] - stage((Y,), here)[0] @ Q).abs().max()) < 1e-13
        wide = torch.cat([Y, torch.zeros_like(Y[:, :2])], 1)  # nor does it see the number of columns
        assert float((stage((wide,), here)[0][:, :7] - stage((Y,), here)[0]).abs().max()) < 1e-13


def test_units_of_the_cost_change_nothing():
    C, rng = gallery.gnp(40, 0.15, 0), np.random.default_rng(1)
    one, two = (instance([Problem(c * C, Oblique(np.ones(40)))]) for c in (1.0, 37.0))
    Y = torch.from_numpy(rng.standard_normal((40, 5)))
    Y /= torch.linalg.norm(Y, dim=1, keepdim=True)
    with torch.no_grad():
        assert float((stages(1)[0]((Y,), one)[0] - stages(1)[0]((Y,), two)[0]).abs().max()) < 1e-13
    assert torch.allclose(Objective()((Y,), one), Objective()((Y,), two), rtol=1e-13)


def test_feasible_descending_and_isolated_rows_untouched(problem):
    C = gallery.gnp(40, 0.1, 0).tolil()
    C[[3, 17], :] = 0
    C[:, [3, 17]] = 0
    radii = gallery.random_radii(40, 1, 2)
    p = Problem(sp.csr_array(C), Oblique(radii))
    here, rng = instance([p]), np.random.default_rng(1)
    x = Y = p.random_point(5, rng)
    costs = [p.at(Y).cost]
    for stage in stages(4):
        with torch.no_grad():
            Y = here.out(stage((here.into([Y]),), here)[0])[0]
        costs.append(p.at(Y).cost)
    assert np.allclose((Y**2).sum(1), radii, rtol=1e-13)
    assert np.array_equal(Y[[3, 17]], x[[3, 17]]) and not np.isclose(Y, x).all(1)[[0, 1, 2]].any()
    assert np.all(np.diff(costs) < 0)


def test_every_sweep_descends(kind, problem):
    here, x = batch(problem, kind)
    costs = [here.costs(x[0])]
    with torch.no_grad():
        for stage in stages(3, omega=1.7):
            x = stage(x, here)
            costs.append(here.costs(x[0]))
    assert (torch.stack(costs).diff(dim=0) < 0).all()


def test_round_trip_and_growth_of_errors(kind, problem):
    here, x = batch(problem, kind)
    chain = stages(3, spread=0.2)
    kept, growth = checkpointed(chain, x, here)
    with torch.no_grad():
        y = chain[0](x, here)
        assert float((chain[0].inverse(y, here)[0] - x[0]).abs().max()) < 1e-10 and chain[0].outside == 0
    assert not any(isinstance(stage, Checkpointed) for stage in kept)
    assert growth[0] > growth[1] > growth[2] > 1 / 0.6  # inverses of a solver expand
    assert growth[0] > 3 * chain[0].amplification(x, here)


def test_one_sweep_of_rows_comes_back_to_rounding(problem):
    here, x = batch(problem, "rows", k=12)
    (stage,) = stages(1)
    with torch.no_grad():
        assert float((stage.inverse(stage(x, here), here)[0] - x[0]).abs().max()) < 1e-11


def test_checkpoints_where_errors_grow_too_far(problem):
    here, x = batch(problem, "rows")
    chain = stages(12, omega=1.3)
    kept, growth = checkpointed(chain, x, here, limit=1e-10)
    where = [isinstance(stage, Checkpointed) for stage in kept]
    assert any(where) and not all(where) and not where[-1]
    free = [g for g, stop in zip(growth, where, strict=True) if not stop]
    assert max(free) * torch.finfo(torch.float64).eps <= 1e-10
    assert all(stage.outside == 0 for stage in chain)
    assert [stage.stage if stop else stage for stage, stop in zip(kept, where, strict=True)] == chain


@pytest.mark.parametrize("hidden", [8, 0])
def test_the_fused_backward_is_autograd(kind, problem, hidden):
    here, x = batch(problem, kind)
    (stage,) = stages(1, hidden=hidden)
    g = (torch.randn(x[0].shape, dtype=x[0].dtype, generator=torch.Generator().manual_seed(2)),)
    gx, gparams = stage.vjp(x, g, here)
    with torch.no_grad():
        y = stage(x, here)
    kept = [a.clone() for a in (*y, *g)]
    found, gx_found, gparams_found = stage.reverse_vjp(y, g, here)
    assert all(torch.equal(a, b) for a, b in zip(kept, (*y, *g), strict=True))
    assert len(gparams) == (4 if hidden else 1)
    tol = 1e-12 if here.d == 1 and kind != "complex" else 1e-9  # relative; blocks and few columns: the input itself is known to no more
    for a, b in zip((*found, *gx_found, *gparams_found), (*x, *gx, *gparams), strict=True):
        assert not a.requires_grad and float((a - b).abs().max()) <= tol * float(b.abs().max()) * 10


def test_the_recorded_forward_is_the_fast_one(kind, problem):
    here, x = batch(problem, kind)
    (stage,) = stages(1)
    y = stage(x, here)[0]
    with torch.no_grad():
        assert y.requires_grad and torch.equal(y, stage(x, here)[0])


def test_near_an_optimum_it_is_the_compiled_sweep(problem):
    """There the great circle and the chord agree; n = 40 in one colour order."""
    p = problem("rows", 40)
    here = instance([p])
    inner = Problem(sp.csr_array(here.C.to_dense().numpy()), Oblique(np.ones(40)))  # rows in the order of colours
    Y = inner.random_point(6, np.random.default_rng(0))
    sweep = sweeper(inner.manifold, inner, Y)
    for _ in range(300):
        sweep(1.5)
    start = inner.manifold.retract(Y, 1e-5 * np.random.default_rng(1).standard_normal(Y.shape))
    Y[:] = start
    sweep(1.6)
    with torch.no_grad():
        found = stages(1, omega=1.6, hidden=0)[0]((torch.from_numpy(start),), here)[0]
    assert np.abs(found.numpy() - Y).max() < 1e-8 < np.abs(start - Y).max()


def test_weights_there_and_back():
    rng = np.random.default_rng(0)
    weights = MixingWeights(*(rng.standard_normal(shape) for shape in (3, (3, 8, 3), (3, 8), (3, 8))))
    chain = network(weights)
    again = weights_of([chain[0], Checkpointed(chain[1]), chain[2], Objective()], {"L": 3})
    assert again.meta == {"L": 3}
    for name in ("a", "W1", "b1", "W2"):
        assert np.array_equal(getattr(again, name), getattr(weights, name))
    plain = weights_of(network(MixingWeights.from_schedule([1.2, 1.9])))
    assert plain.is_schedule and np.allclose(plain.omega, [1.2, 1.9], rtol=1e-15)


def test_heads(problem):
    p, rng = problem("rows"), np.random.default_rng(0)
    here = instance([p, p], optimum=[-100.0, -50.0])
    x = (here.into([p.random_point(4, rng) for _ in range(2)]),)
    costs = here.costs(x[0])
    expected = (costs + torch.tensor([100.0, 50.0], dtype=torch.float64)) / torch.tensor([100.0, 50.0], dtype=torch.float64)
    assert torch.allclose(gaps(x[0], here), expected)
    assert torch.allclose(LogGap(1e-3)(x, here), torch.log(expected + 1e-3).mean())
    assert torch.allclose(Objective()(x, here), (costs / here.scale).mean())
    loss, (gx,), _ = LogGap()(x, here), *LogGap().value_and_grad(x, here)[1:]
    assert torch.isfinite(loss) and torch.isfinite(gx).all()
    with pytest.raises(ValueError, match="optimal values"):
        gaps(x[0], instance([p]))


def test_a_relaxation_without_inverse_is_refused():
    with pytest.raises(ValueError, match="1 < omega < 2"):
        SweepStage(2.0)
