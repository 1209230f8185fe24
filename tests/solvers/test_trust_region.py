"""Trust regions: where tCG stops, how it meets the ball, what a rejected step costs, and who may precondition it."""

import itertools

import numpy as np
import pytest

from bmsdp import Oblique, Problem, gallery
from bmsdp.preconditioners import Multisecant, Run
from bmsdp.solvers import TrustRegion, trust_region

PROBLEM = Problem(gallery.toroidal_grid(10, 20, 1) / 4, Oblique(np.ones(200)))


def start(k=8, seed=0):
    return PROBLEM.random_point(k, np.random.default_rng(seed))


def descend(solver, target=0.0, tol=1e-7, limit=30_000, k=8):
    """(model, info) where the gradient norm is below tol, the caller writing its target."""
    for model, info in solver.iterates(PROBLEM, start(k)):
        if target:
            info["target"] = target
        if model.grad_norm <= tol or info["products"] > limit:
            return model, info


class Recorder(Run):
    """No preconditioner, or that of a row scaling; keeps what tCG told it."""

    def __init__(self, scale=None):
        super().__init__()
        self.scale, self.runs, self.models = scale, [], []

    def start(self, problem):
        return self

    def at(self, model):
        self.models.append(model)
        if self.scale is None:
            return None
        return lambda U: PROBLEM.manifold.project(model.Y, self.scale * U)

    def ended(self, iterations, boundary):
        self.runs.append((iterations, boundary))


def test_target_is_a_floor_of_tcg():
    """With the caller's target fewer products are spent for the same gradient norm, and no step solves below 0.3 of it."""
    _, free = descend(TrustRegion())
    model, told = descend(TrustRegion(), target=1e-7)
    assert model.grad_norm <= 1e-7 and told["products"] < free["products"]
    far = PROBLEM.at(descend(TrustRegion(), target=1e-2, tol=1e-2)[0].Y.copy())
    for wanted, steps in ((10 * far.grad_norm, 1), (1e-9, 2)):
        generator = TrustRegion(preconditioner=(recorder := Recorder())).iterates(PROBLEM, far.Y)
        _, info = next(generator)
        info["target"] = wanted
        while next(generator)[1].get("inner"):
            pass
        assert (recorder.runs[0][0] >= steps) and (steps > 1 or recorder.runs[0][0] == 1)


def test_the_answer_to_a_written_target_is_the_residual():
    """The step's model gradient is below 0.3 target where tCG ended inside the ball, and was above it without the last product."""
    far = PROBLEM.at(descend(TrustRegion(), target=1e-3, tol=1e-3)[0].Y.copy())
    for wanted in (0.5 * far.grad_norm, 0.1 * far.grad_norm):
        recorder, solver = Recorder(), TrustRegion(radius=1.0, kappa=1e-9)
        tcg = solver._tcg(far, 1e3, 1, recorder, 1e-3, wanted)
        try:
            while True:
                next(tcg)
        except StopIteration as ended:
            step, _, spent = ended.value
        residual = np.linalg.norm(far.grad + far.hess(step.eta))
        assert not step.boundary and spent == recorder.runs[0][0]
        assert residual <= 0.3 * wanted * (1 + 1e-6)
        assert step.predicted == pytest.approx(-np.vdot(far.grad, step.eta) - 0.5 * np.vdot(step.eta, far.hess(step.eta)), rel=1e-8)


@pytest.mark.parametrize("scale", [None, 1.0, 1e3, np.geomspace(1e-2, 1e2, 200)[:, None]])
def test_steps_stay_in_the_euclidean_ball(scale):
    """Preconditioned or not, a step at the boundary has the length of the radius, whatever the units of the preconditioner."""
    model = PROBLEM.at(start())
    tcg = TrustRegion(radius=0.1)._tcg(model, 0.37, 1, Recorder(scale), 1.0, 0.0)
    with pytest.raises(StopIteration) as ended:
        while True:
            next(tcg)
    step, short, _ = ended.value.value
    assert step.boundary and np.linalg.norm(step.eta) == pytest.approx(0.37, rel=1e-9)
    assert np.linalg.norm(short.eta) == pytest.approx(0.37 / 4, rel=1e-9) and short.boundary
    for part in (step, short):
        assert part.predicted == pytest.approx(-np.vdot(model.grad, part.eta) - 0.5 * np.vdot(part.eta, model.hess(part.eta)), rel=1e-9)


def test_multiples_of_the_identity_change_nothing():
    plain = [model.merit for model, _ in itertools.islice(TrustRegion().iterates(PROBLEM, start()), 12)]
    for factor in (1.0, 1e-4, 1e4):
        scaled = TrustRegion(preconditioner=lambda model, f=factor: lambda U: f * U)
        np.testing.assert_allclose([m.merit for m, _ in itertools.islice(scaled.iterates(PROBLEM, start()), 12)], plain, rtol=1e-9)


def test_a_rejected_step_is_shortened_without_products(monkeypatch):
    """The shorter step is what tCG in a ball of a quarter of the radius finds, for one product."""
    model = PROBLEM.at(start())
    judge, calls = TrustRegion._judge, []

    def refuse_first(self, model, trial, predicted):
        calls.append((trial.Y.copy(), predicted))
        return (0.0, False) if len(calls) == 1 else judge(self, model, trial, predicted)

    monkeypatch.setattr(TrustRegion, "_judge", refuse_first)
    infos = [info for _, info in itertools.islice(TrustRegion().iterates(PROBLEM, model.Y), 3)]
    assert infos[1]["radius"] == pytest.approx(infos[0]["radius"] / 4)
    assert infos[2]["products"] == infos[1]["products"] + 1
    calls.insert(0, None)  # nothing is refused any more
    next(generator := TrustRegion(radius=0.125 / 4).iterates(PROBLEM, model.Y))
    next(generator)
    np.testing.assert_allclose(calls[-1][0], calls[2][0], atol=1e-12)
    assert calls[-1][1] == pytest.approx(calls[2][1], rel=1e-10)


def test_steps_rejected_twice_go_on(monkeypatch):
    """Ten refusals in a row: the radius falls every time, and it converges afterwards."""
    judge, count = TrustRegion._judge, itertools.count()
    monkeypatch.setattr(TrustRegion, "_judge", lambda self, *a: (0.0, False) if next(count) < 10 else judge(self, *a))
    radii = [info["radius"] for _, info in itertools.islice(TrustRegion().iterates(PROBLEM, start()), 11)]
    assert all(b < 0.3 * a for a, b in itertools.pairwise(radii))
    assert descend(TrustRegion(), tol=1e-5)[0].grad_norm <= 1e-5


def test_plain_callables_and_info():
    """A callable is asked at every step; None leaves that one unpreconditioned, and the info says so."""
    asked = []

    def every_other(model):
        asked.append(model)
        return (lambda U: 2.0 * U) if len(asked) % 2 == 0 else None

    infos = [i for _, i in itertools.islice(TrustRegion(preconditioner=every_other).iterates(PROBLEM, start()), 6) if not i.get("inner")]
    assert [info["preconditioned"] for info in infos[1:5]] == [False, True, False, True]
    assert infos[4]["preconditioned_steps"] == 2
    assert "preconditioned" not in next(TrustRegion().iterates(PROBLEM, start()))[1]


def test_counts_every_product(monkeypatch):
    """What info says is what C was asked for, recorded directions included."""
    count = itertools.count()
    mul = type(PROBLEM.C).mul
    monkeypatch.setattr(type(PROBLEM.C), "mul", lambda self, Y: (next(count), mul(self, Y))[1])
    problem = Problem(PROBLEM.C.C, Oblique(np.ones(200)))
    PROBLEM.norm_C, problem.norm_C  # Lanczos is not counted
    monkeypatch.setattr(Problem, "is_fused", False)
    before = next(count)
    for model, info in TrustRegion(preconditioner=Multisecant(gate="always")).iterates(problem, start()):
        spent = info["products"]
        if model.grad_norm <= 1e-6:
            break
    assert next(count) - before - 1 == spent


def test_convergence_does_not_depend_on_the_size_of_y():
    """Radii s times as long: the same iterates, scaled; tCG's accuracy is relative."""
    lengths = []
    for s in (1.0, 64.0):
        problem = Problem(PROBLEM.C.C, Oblique(np.full(200, s**2)), norm_C=PROBLEM.norm_C)
        models = [model.Y / s for model, _ in itertools.islice(TrustRegion().iterates(problem, s * start()), 15)]
        lengths.append(models[-1])
    np.testing.assert_allclose(*lengths, atol=1e-9)


def test_constants():
    assert trust_region.FLOOR == 0.3
