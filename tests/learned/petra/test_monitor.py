"""T3: how far the applied gradients are from exact ones; what workers hold.

Exact gradients need all stages in one place, so this is the simulator; the others carry it over by being bitwise equal to it (T9).
"""

import math

import pytest

torch = pytest.importorskip("torch", reason='learned solvers need torch: pip install "bmsdp[learn]"')

from bmsdp.learned.petra import (  # noqa: E402
    BACKPROP,
    BUFFER,
    PETRA,
    REVERSIBLE,
    REVSTASH,
    STASH,
    GradientMonitor,
    MemoryMonitor,
    Pipeline,
    adam,
    exact_gradient,
    holdings,
    sgd,
    simulate,
    threads,
)

from .networks import Data, Images, apart, convolutional, network, oracle, parameters, same  # noqa: E402


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def quality(mode, lr, stages=(1,), J=10, batches=40, **options):
    """Mean error, cosine, ratio and reconstruction error by stage, once the pipeline is full."""
    pipeline = Pipeline(network(J), Data(), sgd(lr, momentum=0.0), mode)
    monitor = GradientMonitor(pipeline, stages, **options)
    simulate(pipeline, batches, until=batches, observer=monitor)
    found = {}
    for j in stages:
        records = [q for q in monitor.records if q.stage == j and q.batch >= 2]
        assert records
        rebuilt = [q.reconstruction for q in records if q.reconstruction is not None]
        found[j] = [mean(getattr(q, name) for q in records) for name in ("error", "cosine", "ratio")]
        found[j].append(mean(rebuilt) if rebuilt else None)
    return found


def test_errors_are_of_the_order_of_the_rate():
    """T3: slope 1 over decades at stage 1 (delay 18), in the gradient and in the reconstruction; delayed gradients alike."""
    rates = [1e-4, 1e-3, 1e-2]
    petra = [quality(PETRA, lr)[1] for lr in rates]
    stash = [quality(STASH, lr)[1] for lr in rates]
    for small, large in zip(petra, petra[1:], strict=False):
        assert math.log10(large[0] / small[0]) == pytest.approx(1, abs=0.1)
        assert math.log10(large[3] / small[3]) == pytest.approx(1, abs=0.1)
    for small, large in zip(stash, stash[1:], strict=False):
        assert math.log10(large[0] / small[0]) == pytest.approx(1, abs=0.1)
    for one, other in zip(petra, stash, strict=True):
        assert 0.5 < one[0] / other[0] < 1.5 and other[3] is None
    assert 0.999 < petra[0][1] <= 1 + 1e-12 and petra[0][2] == pytest.approx(1, abs=0.01)


def test_large_rates_turn_the_gradient():
    cosines = [quality(PETRA, lr)[1][1] for lr in (1e-2, 1e-1, 0.3)]
    assert cosines[0] > 0.99 and cosines[0] > cosines[1] > cosines[2]


def test_errors_grow_with_the_delay():
    found = quality(PETRA, 1e-2, stages=(1, 5, 9, 10))
    errors = [found[j][0] for j in (1, 5, 9, 10)]
    assert errors[0] > errors[1] > errors[2] > errors[3] > 0  # even the head's: its input was made with older parameters
    assert quality(PETRA, 1e-2, stages=(10,), forward_time=True)[10][0] < 1e-14


def test_delayed_gradients_are_exact_at_forward_time_parameters():
    for mode, bound in ((STASH, 1e-13), (REVSTASH, 1e-11)):
        for error, cosine, ratio, rebuilt in quality(mode, 0.05, stages=(1, 4, 10), forward_time=True).values():
            assert error < bound and cosine == pytest.approx(1) and ratio == pytest.approx(1)
            assert rebuilt is None or rebuilt < bound
    assert quality(PETRA, 0.05, forward_time=True)[1][0] > 1e-3
    assert quality(BUFFER, 0.05, forward_time=True)[1][0] > 1e-3


@pytest.mark.parametrize("mode", [BACKPROP, REVERSIBLE], ids=lambda mode: mode.name)
def test_backprop_is_exact(mode):
    pipeline = Pipeline(network(4, fifo=[2]), Data(), sgd(0.1), mode)
    monitor = GradientMonitor(pipeline, forward_time=True)  # the stages behind have moved when the gradient comes to those in front
    simulate(pipeline, 5, observer=monitor)
    assert len(monitor.records) == 5 * 4 and max(q.error for q in monitor.records) < 1e-12


def test_averages():
    """The mean over k batches is what an update applies; the exact ones are averaged alike."""
    k, J = 4, 5
    pipeline = Pipeline(network(J), Data(), sgd(0.02), PETRA, k=k)
    one, mean_of_k = GradientMonitor(pipeline, [2]), GradientMonitor(pipeline, [2], average=k)
    simulate(pipeline, 16, observer=lambda t, workers: (one(t, workers), mean_of_k(t, workers)))
    assert [q.batch for q in one.records] == list(range(16)) and [q.batch for q in mean_of_k.records] == [3, 7, 11, 15]
    assert mean_of_k.records[0].error != one.records[3].error
    frozen = Pipeline(network(J), Data(), sgd(0.0), PETRA, k=k)
    monitor = GradientMonitor(frozen, average=k)
    simulate(frozen, 8, observer=monitor)
    assert len(monitor.records) == 2 * J and max(q.error for q in monitor.records) < 1e-13


def test_monitors_change_nothing():
    def train(*options):
        pipeline = Pipeline(convolutional(), Images(), adam(1e-2), PETRA)
        simulate(pipeline, 12, observer=GradientMonitor(pipeline, **options[0]) if options else None)
        return [*parameters(pipeline.stages), *(b for stage in pipeline.stages for b in stage.buffers())]

    plain = train()
    assert same(train({}), plain) and same(train({"forward_time": True}), plain)


def test_exact_gradients_are_autograds():
    stages, data = convolutional(), Images()
    pipeline = Pipeline(stages, data, sgd(0.1))
    x = data.inputs(3)
    for j, grads in enumerate(oracle(convolutional(), data, 3)[1], 1):
        found, at = exact_gradient(pipeline, j, 3)
        assert apart(found, grads) < 1e-14 and apart(at, x) == 0
        if j < len(stages):
            with torch.no_grad():
                x = stages[j - 1](x, data.context(3))


def test_a_gradient_monitor_needs_all_stages():
    pipeline = Pipeline(network(4), Data(), sgd(0.1))
    with pytest.raises(ValueError, match="1 of 4 stages"):
        threads(pipeline, 4, observer=GradientMonitor(pipeline))


BYTES = 8


@pytest.mark.parametrize("mode", [PETRA, REVSTASH, BUFFER, STASH], ids=lambda mode: mode.name)
def test_holdings_are_the_formula(mode):
    """Bytes by kind of a full pipeline: 2 (J - j) inputs and versions where they are kept, whatever else once."""
    J, data, fifo = 6, Data(5), 3
    pipeline = Pipeline(network(J, fifo=[fifo]), data, sgd(0.01), mode)
    monitor = MemoryMonitor()
    simulate(pipeline, 100, until=40, observer=monitor)
    for w in pipeline.workers:
        params = BYTES * sum(p.numel() for p in w.stage.params)
        both = BYTES * 2 * data.instances * data.width
        delay, keeps = 2 * (J - w.j), w.j < J and (mode.inputs or w.j == fifo)
        now = holdings(w)
        assert (now.params, now.optimizer, now.accumulator, now.graphs) == (params, params, 0, 0)
        assert now.stashed_params == (delay * params if mode.params else 0)
        if not keeps:
            assert now.stashed_inputs == 0
        elif w.j in (1, fifo):  # behind a coupling one stream of each input is a new tensor, the other one belongs to an earlier stage too
            assert now.stashed_inputs == pytest.approx(delay * both, abs=0)
        assert monitor.peaks[w.j].total >= monitor.most[w.j] >= now.params + now.stashed_inputs
    if not mode.inputs and not mode.params:
        assert monitor.most[1] == monitor.most[2] == 2 * BYTES * sum(p.numel() for p in pipeline.stages[0].params)


def test_holdings_of_accumulators_and_graphs():
    J = 4
    pipeline = simulate(Pipeline(network(J), Data(), adam(0.01), PETRA, k=3), 100, until=2 * J + 2)
    now = holdings(pipeline.workers[0])
    assert now.accumulator == now.params and 2 * now.params < now.optimizer < 2.2 * now.params
    pipeline = simulate(Pipeline(network(J), Data(8), sgd(0.01), BACKPROP), 10, until=J - 1)
    one = Data(8).inputs(0)[0].numel() * BYTES
    for w in pipeline.workers[: J - 1]:
        now = holdings(w)
        assert now.graphs - 2 * one in (0, BYTES)  # the hidden layer, twice as wide, which tanh saved, and perhaps the carry
        assert now.stashed_inputs in (2 * one, 3 * one)
    threads(Pipeline(network(J), Data(), sgd(0.01)), 5, observer=(monitor := MemoryMonitor()))
    assert set(monitor.peaks) == {1, 2, 3, 4}
