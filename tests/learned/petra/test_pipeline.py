"""The trainer as a whole, on every executor: T2, T4, T5, T8, T10, and what modes have in common."""

import pytest

torch = pytest.importorskip("torch", reason='learned solvers need torch: pip install "bmsdp[learn]"')

from bmsdp.learned.petra import (  # noqa: E402
    APPROXIMATE,
    BACKPROP,
    BUFFER,
    MODES,
    PETRA,
    REVERSIBLE,
    REVSTASH,
    STASH,
    Coupling,
    Pipeline,
    Plan,
    adam,
    save,
    sgd,
    simulate,
    spans,
)

from .networks import Classes, Data, Gradients, Real, apart, block, network, oracle, parameters, same  # noqa: E402

every_mode = pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)


@every_mode
def test_frozen_parameters_give_exact_gradients(mode, execute):
    """T2: 40 batches (fewer where they run one by one), ten stages, two without an inverse, one learned and one fixed carry."""
    J, batches = 10, 40 if mode.pipelined else 5
    stages, data = network(J, fifo=[1, 6]), Data(4)
    stages[2] = Coupling(block(seed=2), torch.nn.Parameter(torch.tensor(0.8, dtype=Real)))
    stages[7] = Coupling(block(seed=7), -0.9)
    pipeline = Pipeline(stages, data, sgd(0.0), mode)
    found = Gradients(pipeline).found
    execute(pipeline, batches)
    assert len(found) == J * batches
    worst = 0.0
    for b in range(batches):
        loss, exact = oracle(stages, data, b)
        assert pipeline.losses[b][0] == b and pipeline.losses[b][1] == pytest.approx(loss, rel=1e-14)
        worst = max(worst, *(apart(found[j, b], grads) for j, grads in enumerate(exact, 1)))
    assert worst < 1e-12


@pytest.mark.parametrize("mode", [PETRA, STASH], ids=lambda mode: mode.name)
def test_delays_and_fifos(mode, execute):
    """T4 and T10."""
    J, batches = 10, 30
    pipeline = Pipeline(network(J, fifo=[1, 5]), Data(2), sgd(0.01), mode)
    seen = Gradients(pipeline)
    assert pipeline.plan(batches).ticks == batches + 2 * (J - 1)
    execute(pipeline, batches)
    assert pipeline.t == batches + 2 * (J - 1) and not pipeline.forward_in and not pipeline.backward_in
    for w in pipeline.workers:
        delay = 2 * (J - w.j)
        assert seen.order[w.j] == list(range(batches))  # every batch once, in order
        assert seen.lag[w.j] == [min(delay, batches - 1 - b) for b in range(batches)]  # the drain has no new batches
        assert w.peak == delay + 1 and not w.held
    assert [b for b, _ in pipeline.losses] == list(range(batches))


@pytest.mark.parametrize("k", [1, 2])
@every_mode
def test_a_head_alone_is_sgd(mode, k, execute):
    """T5: bitwise torch's SGD with Nesterov's momentum, with the schedule's rates."""
    data, batches = Data(), 12
    rate, decay = 0.1, 1e-2
    pipeline = Pipeline([Classes(seed=5)], data, sgd(rate, weight_decay=decay), mode, k=k, schedule=lambda u: 1 / (1 + u))
    execute(pipeline, batches)
    ours = parameters(pipeline.stages)
    head = Classes(seed=5)
    groups = [{"params": [head.layer.weight], "weight_decay": decay}, {"params": [head.layer.bias]}]
    optimizer = torch.optim.SGD(groups, lr=rate, momentum=0.9, nesterov=True)
    for u in range(batches // k):
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 / (1 + u))
        optimizer.zero_grad()
        for b in range(k * u, k * u + k):
            (head(data.inputs(b), data.context(b)) / k).backward()
        optimizer.step()
    assert same(ours, parameters([head]))


@pytest.mark.parametrize("fifo", [(), (1, 4)], ids=["reversible", "with fifo"])
def test_unpipelined_modes_are_backprop(fifo, execute):
    J, batches, data = 6, 12, Data()

    def train(mode):
        return execute(Pipeline(network(J, fifo), data, sgd(0.1), mode, k=2), batches)

    stages = network(J, fifo)
    optimizer = torch.optim.SGD([p for stage in stages for p in stage.params], lr=0.1, momentum=0.9, nesterov=True)
    losses = []
    for u in range(batches // 2):
        pairs = [oracle(stages, data, b) for b in (2 * u, 2 * u + 1)]
        losses += [loss for loss, _ in pairs]
        for i, stage in enumerate(stages):
            for p, *grads in zip(stage.params, *(exact[i] for _, exact in pairs), strict=True):
                p.grad = sum(grads) / 2
        optimizer.step()
    plain, reversible = train(BACKPROP), train(REVERSIBLE)
    assert [loss for _, loss in plain.losses] == pytest.approx(losses, rel=1e-12)
    assert apart(parameters(plain.stages), parameters(stages)) < 1e-13
    assert apart(parameters(reversible.stages), parameters(plain.stages)) < 1e-12
    assert [w.delays for w in plain.workers] == [0] * J


def test_revstash_is_stash_without_inputs(execute):
    """T8: the gradients of delayed gradients to round-off, while modes that use other parameters or inputs differ."""
    found = {}
    for mode in (STASH, REVSTASH, APPROXIMATE, BUFFER, PETRA):
        pipeline = Pipeline(network(8, fifo=[3]), Data(), sgd(0.05), mode)
        found[mode.name] = Gradients(pipeline).found
        execute(pipeline, 30)

    def off(name):
        return max(apart(found[name][key], found["stash"][key]) for key in found["stash"])

    assert off("revstash") < 1e-11
    assert all(off(name) > 1e-3 for name in ("approximate", "buffer", "petra"))


@every_mode
def test_stopping_and_going_on_changes_nothing(mode, execute):
    def make():
        return Pipeline(network(5, fifo=[2]), Data(), adam(0.01), mode, k=2)

    whole = simulate(make(), 12)
    parts = make()
    for until in (1, 2, 9, 9, 4, 17, None):
        execute(parts, 12, until)
    assert parts.t == whole.t == whole.plan(12).ticks
    assert same(parameters(parts.stages), parameters(whole.stages)) and parts.losses == whole.losses
    execute(parts, 12)  # nothing left to do
    assert parts.t == whole.t and same(parameters(parts.stages), parameters(whole.stages))


def test_the_number_of_batches_stays(execute):
    pipeline = execute(Pipeline(network(4), Data(), sgd(0.1)), 10, until=5)
    execute(pipeline, 20, until=8)  # they had not begun to run out
    execute(pipeline, 20)
    with pytest.raises(ValueError, match=r"at tick 26 stage 1 holds batches \[\], and needs \[20, 21, 22, 23, 24, 25\].*until"):
        execute(pipeline, 40)


def test_a_run_that_broke_off_is_not_continued(execute):
    class Poor(Data):
        def context(self, batch):
            if batch == 3:
                raise KeyError("no labels")
            return super().context(batch)

    class Unread(Data):
        def inputs(self, batch):
            if batch == 3:
                raise OSError("no images")
            return super().inputs(batch)

    for data, words in ((Poor(), "no labels"), (Unread(), "no images")):
        pipeline = Pipeline(network(4), data, sgd(0.1))
        with pytest.raises((KeyError, OSError), match=words) as caught:
            execute(pipeline, 10)
        assert caught.value.__notes__ == ["in the forward of batch 3 at stage 1 of 4, Coupling"]
    with pytest.raises(ValueError, match="a run was broken off.*checkpoint"):
        execute(pipeline, 10)


@pytest.mark.parametrize(("J", "mode"), [(1, PETRA), (4, PETRA), (4, BACKPROP), (4, REVERSIBLE)], ids=lambda v: getattr(v, "name", v))
def test_a_run_that_broke_off_between_two_ticks_is_not_continued_either(J, mode, execute, tmp_path):
    """Ctrl-C while batch 3 is read: where nothing else is in flight, the stages hold what they hold before the first tick."""

    class Interrupted(Data):
        def inputs(self, batch):
            if batch == 3 and not asked:
                asked.append(batch)
                raise KeyboardInterrupt
            return super().inputs(batch)

    asked, pipeline = [], Pipeline(network(J), Interrupted(), sgd(0.1), mode)
    start = mode.period(J)
    execute(pipeline, 10, until=start)
    with pytest.raises(KeyboardInterrupt):
        execute(pipeline, 10)
    assert pipeline.t == start
    for again in (lambda: execute(pipeline, 10), lambda: save(pipeline, tmp_path)):
        with pytest.raises(ValueError, match=f"inside a tick and the pipeline before tick {start}: a run was broken off"):
            again()


@pytest.mark.parametrize("J", [1, 3])
def test_no_batches_and_more_ticks_than_there_are(J, execute):
    pipeline = execute(Pipeline(network(J), Data(), sgd(0.1)), 0)
    assert pipeline.t == 0 and pipeline.losses == []
    execute(pipeline, 2, until=-5)
    assert pipeline.t == 0
    execute(pipeline, 2, until=10**9)
    assert pipeline.t == 2 + 2 * (J - 1) and len(pipeline.losses) == 2


def test_training_learns(execute):
    """PETRA on the teacher's classes: the loss falls to well under that of guessing, and the network's output says the same."""
    data = Data(16)
    pipeline = execute(Pipeline(network(6, fifo=[1]), data, sgd(0.02), PETRA), 150)
    losses = [loss for _, loss in pipeline.losses]
    assert sum(losses[-20:]) < 0.6 * sum(losses[:20])
    x = pipeline.apply(data.inputs(1000), data.context(1000))
    hits = torch.cat(x, 1) @ pipeline.stages[-1].layer.weight.T + pipeline.stages[-1].layer.bias
    assert (hits.argmax(1) == data.context(1000)).double().mean() > 0.5


def test_plan():
    for period, J, batches in ((1, 4, 6), (7, 4, 3), (1, 1, 5)):
        plan = Plan(J, period, batches)
        for j in range(1, J + 1):
            held = []
            for t in range(plan.ticks):
                assert list(plan.held(j, t)) == held
                held += [] if plan.forward(j, t) is None else [plan.forward(j, t)]
                if (batch := plan.backward(j, t)) is not None:
                    assert held.pop(0) == batch
            assert not held and list(plan.held(j, plan.ticks)) == []
        assert plan.forward(1, plan.ticks) is None and plan.backward(1, plan.ticks - 1) == batches - 1
    assert Plan(4, 1, 0).ticks == 0


def test_spans():
    assert spans(4) == [(1, 1), (2, 2), (3, 3), (4, 4)]
    assert spans(9, [2, 5]) == [(1, 2), (3, 5), (6, 9)]
    assert spans(3, []) == [(1, 3)] and spans(1) == [(1, 1)]
    for cuts in ([0], [4], [2, 2], [3, 1]):
        with pytest.raises(ValueError, match="increasing numbers of stages, from 1 to 3"):
            spans(4, cuts)


def test_what_is_no_network_is_refused():
    shared = Coupling(block())
    for stages, message in (
        ([], "none; a network"),
        ([Coupling(block())], "Coupling; a network"),
        ([Classes(), Classes()], "one Head, which comes last"),
        ([shared, shared, Classes()], "stage 2 shares a parameter"),
        ([shared, Coupling(shared.F, 0.5), Classes()], "stage 2 shares a parameter"),
    ):
        with pytest.raises(ValueError, match=message):
            Pipeline(stages, Data(), sgd(0.1))
    with pytest.raises(ValueError, match="k = 0"):
        Pipeline(network(2), Data(), sgd(0.1), k=0)
