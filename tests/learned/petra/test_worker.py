"""What one stage holds, when it updates, and what it refuses."""

import gc
import math

import pytest

torch = pytest.importorskip("torch", reason='learned solvers need torch: pip install "bmsdp[learn]"')

from torch import nn  # noqa: E402

from bmsdp.learned.petra import (  # noqa: E402
    APPROXIMATE,
    BACKPROP,
    BUFFER,
    MODES,
    PETRA,
    REVSTASH,
    STASH,
    Coupling,
    Head,
    Mode,
    Pipeline,
    Stage,
    sgd,
    simulate,
)

from .networks import WIDTH, Classes, Data, Gradients, Real, apart, block, network, oracle, parameters, same  # noqa: E402


def tensors():
    gc.collect()
    return sum(issubclass(type(item), torch.Tensor) for item in gc.get_objects())


@pytest.mark.parametrize(("J", "k"), [(3, 1), (9, 1), (9, 3)])
def test_between_ticks_a_reversible_stage_holds_parameters_optimizer_and_accumulator(J, k):
    """T6: live tensors, counted; whatever the number of stages and of batches in flight.

    In the simulator, where all live tensors are the engine's; what workers hold between ticks is the same on ranks (T9).
    """
    before = tensors()
    stages = network(J)
    count = sum(len(stage.params) for stage in stages)
    pipeline = Pipeline(stages, Data(), sgd(0.01), PETRA, k=k)
    for t in (J, 2 * J + 1, 3 * J + 5):
        simulate(pipeline, 1000, until=t)
        momenta = sum(len(w.optimizer.state) for w in pipeline.workers)
        sums = sum(len(w.stage.params) for w in pipeline.workers if w.count % k)
        messages = 2 * len(pipeline.forward_in) + 4 * len(pipeline.backward_in)
        assert tensors() - before == count + momenta + sums + messages
        assert len(pipeline.forward_in) <= J - 1 and len(pipeline.backward_in) <= J - 1
    assert momenta == count and len(pipeline.workers[0].held) == 2 * (J - 1)  # full: 2 (J - 1) batches in flight at stage 1


@pytest.mark.parametrize(
    ("mode", "inputs", "versions"),
    [(PETRA, False, False), (REVSTASH, False, True), (BUFFER, True, False), (STASH, True, True), (APPROXIMATE, False, True)],
    ids=lambda value: getattr(value, "name", value),
)
def test_what_every_mode_keeps(mode, inputs, versions):
    J = 5
    pipeline = simulate(Pipeline(network(J, fifo=[2]), Data(), sgd(0.01), mode), 100, until=30)
    for w in pipeline.workers[:-1]:
        assert len(w.held) == 2 * (J - w.j)
        assert all((item.x is not None) == (inputs or w.j == 2) and item.y is None for item in w.held)
        different = {id(item.params) for item in w.held if item.params is not None}
        assert len(different) == (2 * (J - w.j) if versions else 0)
    assert not pipeline.workers[-1].held


def test_versions_are_shared_between_updates():
    J, k = 5, 4
    pipeline = simulate(Pipeline(network(J), Data(), sgd(0.01), REVSTASH, k=k), 100, until=40)
    for w in pipeline.workers[:-1]:
        assert len({id(item.params) for item in w.held}) <= math.ceil(2 * (J - w.j) / k) + 1


@pytest.mark.parametrize("k", [1, 2, 4, 8, 32])
def test_updates_between_forward_and_backward(k, execute):
    """T7."""
    J = 10
    pipeline = execute(Pipeline(network(J), Data(2), sgd(0.0), PETRA, k=k), 40)
    assert [w.delays for w in pipeline.workers] == [math.ceil(2 * (J - j) / k) for j in range(1, J + 1)]
    assert [w.updates for w in pipeline.workers] == [40 // k] * J


def test_an_update_applies_the_mean_over_k_batches(execute):
    """T11: with frozen parameters, the mean of the exact gradients; the rest of a division by k is not applied."""
    seen = []

    class Noting(torch.optim.SGD):
        def step(self):
            seen.append((id(self), [p.grad.clone() for group in self.param_groups for p in group["params"]]))
            super().step()

    stages, data, k = network(4, fifo=[1]), Data(), 3
    pipeline = execute(Pipeline(stages, data, lambda stage: Noting(stage.params, lr=0.0), PETRA, k=k), 8)
    exact = [oracle(stages, data, b)[1] for b in range(6)]
    for i, w in enumerate(pipeline.workers):
        applied = [grads for who, grads in seen if who == id(w.optimizer)]
        assert len(applied) == 2 and w.count == 8
        for u, grads in enumerate(applied):
            mean = [sum(parts) / k for parts in zip(*(exact[b][i] for b in range(k * u, k * u + k)), strict=True)]
            assert apart(grads, mean) < 1e-12
        assert all(p.grad is None for p in w.stage.params)


def test_schedule_and_clipping():
    rates, norms = [], []

    class Noting(torch.optim.SGD):
        def step(self):
            rates.append(self.param_groups[0]["lr"])
            norms.append(math.sqrt(sum(float(p.grad.norm()) ** 2 for p in self.param_groups[0]["params"])))

    pipeline = Pipeline(network(1), Data(), lambda s: Noting(s.params, lr=0.5), k=2, schedule=lambda u: 1 / (1 + u), clip=1e-3)
    simulate(pipeline, 6)
    assert rates == [0.5, 0.25, 0.5 / 3]
    assert norms == pytest.approx([1e-3] * 3, rel=1e-2)


class Learned(Stage):
    """Adds a parameter, and hands another one on as it is."""

    def __init__(self):
        super().__init__()
        self.a, self.b = (nn.Parameter(torch.full((8, WIDTH), value, dtype=Real)) for value in (0.1, 0.2))

    def forward(self, x, context):
        return x[0] + x[1] + self.a, self.b


def test_messages_do_not_share_memory_with_parameters():
    pipeline = simulate(Pipeline([Learned(), Coupling(block()), Classes()], Data(), sgd(1.0)), 10, until=3)
    (_, b) = pipeline.forward_in[2]
    kept = b.clone()
    for _ in range(3):
        simulate(pipeline, 10, until=pipeline.t + 1)
    assert torch.equal(b, kept) and not torch.equal(pipeline.stages[0].b, kept)


class Words(Stage):
    """Integers in, streams out."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(5, 2 * WIDTH).to(Real)

    def forward(self, x, context):
        return self.table(x[0]).chunk(2, 1)


class Passing(Stage):
    """No parameters, integers beside floats."""

    invertible = True

    def forward(self, x, context):
        return x

    def inverse(self, y, context):
        return y


class Integers:
    def inputs(self, batch):
        return (torch.randint(5, (8,), generator=torch.Generator().manual_seed(batch)),)

    def context(self, batch):
        return self.inputs(batch)[0] % 3


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_integers_and_stages_without_parameters(mode, execute):
    frozen = Coupling(block(seed=3))
    for p in list(frozen.parameters())[:2]:
        p.requires_grad_(False)
    stages = [Passing(), Words(), Passing(), Coupling(nn.Tanh()), frozen, Classes()]
    start = parameters(stages)
    pipeline = Pipeline(stages, Integers(), sgd(0.0), mode)
    found = Gradients(pipeline).found
    execute(pipeline, 12)
    assert same(parameters(stages), start)
    for b in range(12):
        for j, grads in enumerate(oracle(stages, Integers(), b)[1], 1):
            assert len(found[j, b]) == len(grads) and (not grads or apart(found[j, b], grads) < 1e-12)
    assert pipeline.workers[0].optimizer is None and pipeline.workers[0].updates == 0


def test_a_head_alone_without_parameters():
    class Bare(Head):
        def forward(self, x, context):
            return (x[0] ** 2).mean()

    assert len(simulate(Pipeline([Bare()], Data(), sgd(0.1)), 3).losses) == 3


def test_a_loss_that_is_not_a_number_stops_the_run(execute):
    class Broken(Classes):
        def forward(self, x, context):
            return super().forward(x, context) * float("nan")

    with pytest.raises(FloatingPointError, match="the loss is nan; a smaller rate") as caught:
        execute(Pipeline([Coupling(block()), Broken()], Data(), sgd(0.1)), 3)
    assert caught.value.__notes__ == ["in the backward of batch 0 at stage 2 of 2, Broken"]


def test_a_tensor_is_not_a_tuple_of_tensors(execute):
    class Single(Stage):
        def forward(self, x, context):
            return x[0]

    with pytest.raises(TypeError, match=r"Single returned Tensor; .*\(y,\)"):
        execute(Pipeline([Single(), Classes()], Data(), sgd(0.1)), 3)


def test_lost_messages_are_noticed():
    pipeline = simulate(Pipeline(network(3), Data(), sgd(0.1)), 10, until=6)
    with pytest.raises(RuntimeError, match="stage 1 holds batch 2 where batch 4 comes back"):
        pipeline.workers[0].backward(4, (), None)
    with pytest.raises(RuntimeError, match="stage 3 holds nothing"):
        pipeline.workers[2].backward(4, (), None)


@pytest.mark.parametrize("options", [{"graph": True}, {"graph": True, "pipelined": False, "params": True}, {"current_inverse": True}])
def test_modes_that_contradict_themselves(options):
    with pytest.raises(ValueError, match="mode 'mine'"):
        Mode("mine", **options)


def test_a_graph_holds_no_version():
    pipeline = simulate(Pipeline(network(3), Data(), sgd(0.1), BACKPROP), 10, until=2)
    assert pipeline.workers[0].held[0].y is not None and pipeline.workers[0].version is None
