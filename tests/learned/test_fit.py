"""Fitting: reproducible, better than its start, the same on every executor, and what it reports."""

import json
import sys

import numpy as np
import pytest

from bmsdp import Oblique, Problem, StiefelProduct, gallery, learned
from bmsdp.learned import MixingWeights, distil
from bmsdp.learned.fit import fit

LEARN = 'learned solvers need torch: pip install "bmsdp[learn]"'
SMALL = {"L": 4, "rank": 6, "size": 2, "hidden": 3, "rng": 0}


def family(rng):
    return Problem(gallery.gnp(30, 0.2, rng), Oblique(np.ones(30)))


@pytest.fixture(scope="module")
def problems():
    return [family(np.random.default_rng(seed)) for seed in range(12)]


def same(a, b):
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("a", "W1", "b1", "W2"))


def test_a_plain_schedule_without_torch(problems):
    found = fit(problems, steps=0, network=False, **SMALL)
    assert found.is_schedule and found.L == 4 and found.meta["steps"] == 0 and "mode" not in found.meta
    trials = distil.samples(problems[:9], 6, [0, 2])
    constant = [found.meta["constant"]] * 4
    assert distil.log_gap(found.omega, trials) < distil.log_gap(constant, trials)
    assert np.allclose(found.omega, found.meta["schedule"])
    assert set(found.meta["gaps"]) == {"constant", "schedule", "adaptive"} and all(gap > 0 for gap in found.meta["gaps"].values())
    json.dumps(found.meta)


def test_rank_and_hold_out_by_default(problems):
    found = fit(problems, L=2, steps=0, network=False, rng=0)
    assert found.meta["rank"] == 8 and found.meta["family"] == {"problems": 9, "n": [30], "manifold": "Oblique"}
    alone = fit(problems[:1], L=2, steps=0, network=False, rng=0)
    assert alone.meta["family"]["problems"] == 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"L": 0}, "L >= 1"), ({"L": 2.5}, "L = 2.5; an integer L"), ({"steps": -1}, "steps >= 0"), ({"size": 0}, "size >= 1"),
        ({"k": 0}, "k >= 1"), ({"hidden": -1}, "hidden >= 0"), ({"rank": 0}, "rank >= 1"), ({"rate": 0.0}, "rate > 0"),
        ({"rate": np.nan}, "rate > 0"), ({"steps": 3, "k": 4}, "steps >= k"),
    ],
)  # fmt: skip
def test_wrong_numbers(problems, wrong, message):
    with pytest.raises(ValueError, match=message):
        fit(problems, **(SMALL | wrong))


def test_no_problems():
    with pytest.raises(ValueError, match="at least one Problem"):
        fit([], **SMALL)


def test_what_is_no_problem_is_named(problems):
    with pytest.raises(TypeError, match=r"one Problem given; a list"):
        fit(problems[0], steps=0, **SMALL)
    for wrong in ([gallery.gnp(9, 0.5, rng=0)], lambda rng: gallery.gnp(9, 0.5, rng)):
        with pytest.raises(TypeError, match="csr_array given; a Problem is needed"):
            fit(wrong, steps=0, **SMALL)
    blocks = Problem(gallery.orthogonal_synchronization(6, 3, 0.5, 0, p=0.9)[0], StiefelProduct(6, 3))
    with pytest.raises(ValueError, match="rank = 2; blocks of 3 rows need rank >= 3"):
        fit([blocks], steps=0, **(SMALL | {"rank": 2}))


@pytest.mark.parametrize("C", [np.zeros((5, 5)), np.diag(np.arange(5.0)), np.ones((1, 1))], ids=["zero", "diagonal", "n = 1"])
def test_nothing_to_learn(C):
    with pytest.raises(ValueError, match="every point is optimal"):
        fit([Problem(C, Oblique(np.ones(len(C))))], steps=0, **SMALL)


def test_what_training_needs_is_known_before_the_work(problems, monkeypatch):
    pytest.importorskip("torch", reason=LEARN)
    monkeypatch.setattr(distil, "optimum", lambda problem: pytest.fail("solved a problem in vain"))
    mixed = [*problems, Problem(gallery.gue(9, 0), Oblique(np.ones(9)))]
    with pytest.raises(ValueError, match="d = 1, complex128; d = 1, float64"):
        fit(mixed, steps=4, **SMALL)
    with pytest.raises(ValueError, match="from 1 to 4"):
        fit(problems, steps=4, checkpoints=[5], **SMALL)
    with pytest.raises(ValueError, match="'all'; \"auto\" or the numbers"):
        fit(problems, steps=4, checkpoints="all", **SMALL)
    with pytest.raises(TypeError, match=r"mode = 'petra'; .*petra.REVSTASH"):
        fit(problems, steps=4, mode="petra", **SMALL)


def test_without_torch_no_problem_is_solved(problems, monkeypatch):
    for name in [name for name in sys.modules if name.startswith(("torch", "bmsdp.learned.networks", "bmsdp.learned.petra"))]:
        monkeypatch.delitem(sys.modules, name)
    for room in ("networks", "petra"):
        monkeypatch.delattr(learned, room, raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(distil, "optimum", lambda problem: pytest.fail("solved a problem in vain"))
    with pytest.raises(ImportError, match=r"pip install \"bmsdp\[learn\]\""):
        fit(problems, steps=4, **SMALL)


def test_a_plain_schedule_from_a_network_is_plain(problems):
    """Also where its perceptrons are not silent, and its relaxations at the ends of (1, 2)."""
    given = MixingWeights([-800.0, 0.0, 800.0], np.ones((3, 2, 3)), np.ones((3, 2)), np.ones((3, 2)))
    found = fit(problems, steps=0, network=False, start=given, **SMALL)
    assert found.is_schedule and found.L == 3 and np.allclose(found.omega, found.meta["schedule"])


def test_training_improves_and_is_a_function_of_the_seed(problems):
    pytest.importorskip("torch", reason=LEARN)
    bad = MixingWeights.from_schedule([1.9] * 4)
    found = fit(problems, steps=16, rate=0.1, start=bad, **SMALL)
    gaps = found.meta["gaps"]
    assert not found.is_schedule and found.W2.shape == (4, 3)
    assert gaps["network"] < 0.7 * gaps["network before"]
    assert found.meta["mode"] == "revstash" and found.meta["outside"] == 0 and "torch" in found.meta["versions"]
    json.dumps(found.meta)
    assert same(found, fit(problems, steps=16, rate=0.1, start=bad, **SMALL))
    assert not same(found, fit(problems, steps=16, rate=0.1, start=bad, **(SMALL | {"rng": 1})))


def test_threads_train_the_same_network(problems):
    pytest.importorskip("torch", reason=LEARN)
    from bmsdp.learned import petra

    def two(pipeline, batches):
        return petra.threads(pipeline, batches, cuts=[2])

    assert same(fit(problems, steps=6, **SMALL), fit(problems, steps=6, executor=two, **SMALL))


def test_a_schedule_is_trained_and_polished(problems):
    pytest.importorskip("torch", reason=LEARN)
    found = fit(problems, steps=10, network=False, **SMALL)
    assert found.is_schedule and found.W2.shape[1] == 0 and found.meta["mode"] == "revstash"
    plain = fit(problems, steps=0, network=False, **SMALL)
    assert found.meta["gaps"]["schedule"] == pytest.approx(plain.meta["gaps"]["schedule"], rel=0.02)  # one basin


def test_training_goes_on_from_weights(problems):
    pytest.importorskip("torch", reason=LEARN)
    first = fit(problems, steps=10, **SMALL)
    more = fit(problems, steps=10, start=first, **(SMALL | {"L": 99}))
    assert more.L == 4 and more.meta["gaps"]["network before"] == pytest.approx(first.meta["gaps"]["network"])
    same_start = fit(problems, steps=0, start=first, **SMALL)
    assert same(first, same_start)


def test_the_objective_alone(problems):
    pytest.importorskip("torch", reason=LEARN)
    found = fit(problems, steps=20, known=False, **SMALL)
    assert found.meta["gaps"]["network"] < found.meta["gaps"]["network before"] and found.meta["losses"][-1] < 0


def test_checkpoints_modes_and_accumulation(problems):
    """With one update, at the end, parameters are frozen meanwhile: all modes find the same gradient."""
    pytest.importorskip("torch", reason=LEARN)
    from bmsdp.learned.petra import BACKPROP, BUFFER, PETRA, REVERSIBLE, STASH

    base = fit(problems, steps=4, k=4, **SMALL)
    for mode in (BACKPROP, BUFFER, PETRA, REVERSIBLE, STASH):
        other = fit(problems, steps=4, k=4, mode=mode, **SMALL)
        assert other.meta["mode"] == mode.name
        for name in ("a", "W1", "b1", "W2"):
            assert np.allclose(getattr(other, name), getattr(base, name), atol=1e-8), (mode.name, name)
    kept = fit(problems, steps=4, k=4, checkpoints=[2], **SMALL)
    assert kept.meta["checkpoints"] == [2] and np.allclose(kept.a, base.a, atol=1e-8)
    with pytest.raises(ValueError, match="from 1 to 4"):
        fit(problems, steps=4, checkpoints=[9], **SMALL)


@pytest.mark.parametrize("field", ["complex", "blocks"])
def test_other_families(field):
    pytest.importorskip("torch", reason=LEARN)

    def draw(seed):
        if field == "complex":
            return Problem(gallery.gue(12, seed), Oblique(np.ones(12)))
        return Problem(gallery.orthogonal_synchronization(12, 2, 0.5, seed, p=0.4)[0], StiefelProduct(12, 2))

    found = fit([draw(seed) for seed in range(6)], steps=12, rate=0.03, **(SMALL | {"rank": None, "L": 3}))
    assert isinstance(found, MixingWeights) and found.meta["gaps"]["network"] < found.meta["gaps"]["network before"]
