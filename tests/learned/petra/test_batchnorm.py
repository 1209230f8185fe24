"""T12: running statistics move in the backward phase, once a batch."""

import pytest

torch = pytest.importorskip("torch", reason='learned solvers need torch: pip install "bmsdp[learn]"')

from torch import nn  # noqa: E402

from bmsdp.learned.petra import BACKPROP, MODES, PETRA, BatchNorm2d, Pipeline, sgd, simulate  # noqa: E402

from .networks import Gradients, Images, Real, apart, convolutional, oracle, parameters  # noqa: E402


def statistics(stages):
    return [b.clone() for stage in stages for name, b in stage.named_buffers() if name.endswith(("mean", "var"))]


def counts(stages):
    return [int(b) for stage in stages for name, b in stage.named_buffers() if name.endswith("tracked")]


def image(seed=0):
    return torch.randn(4, 3, 5, 5, dtype=Real, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("options", [{}, {"momentum": None}, {"track_running_stats": False}, {"affine": False}], ids=str)
def test_values_are_torchs(options):
    ours, theirs = BatchNorm2d(3, **options).to(Real), nn.BatchNorm2d(3, **options).to(Real)
    for training in (True, False):
        ours.train(training), theirs.train(training)
        with torch.no_grad():
            quiet = ours(image(1))
        assert torch.equal(ours(image(1)), theirs(image(1)))
        if training:
            assert torch.allclose(quiet, theirs(image(1)), rtol=0, atol=1e-14)
            ours(image(1))  # theirs has seen it twice
        for a, b in zip(ours.buffers(), theirs.buffers(), strict=True):
            assert torch.equal(a, b)


def test_a_forward_without_graph_moves_nothing():
    bn = BatchNorm2d(3).to(Real)
    with torch.no_grad():
        bn(image())
    assert not bn.running_mean.any() and int(bn.num_batches_tracked) == 0
    bn(image())
    assert bn.running_mean.any() and int(bn.num_batches_tracked) == 1


def test_forward_ticks_move_nothing(execute):
    stages = convolutional()
    J = len(stages)
    pipeline = Pipeline(stages, Images(), sgd(0.0), PETRA)
    start = statistics(stages)
    execute(pipeline, 20, until=J - 1)
    assert counts(stages) == [0] * (J - 1) and apart(statistics(stages), start) == 0
    execute(pipeline, 20, until=J + 1)
    assert counts(stages) == [0] * (J - 2) + [1]  # one backward of the stage before the head
    execute(pipeline, 20)
    assert counts(stages) == [20] * (J - 1)


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_frozen_parameters_give_torchs_gradients_and_statistics(mode, execute):
    stages, twin, data = convolutional(), convolutional(), Images()
    pipeline = Pipeline(stages, data, sgd(0.0), mode)
    found = Gradients(pipeline).found
    execute(pipeline, 10)
    for b in range(10):
        for j, grads in enumerate(oracle(twin, data, b)[1], 1):
            assert apart(found[j, b], grads) < 1e-12
    assert apart(statistics(stages), statistics(twin)) < 1e-13
    assert counts(stages) == counts(twin) == [10] * (len(stages) - 1)


def test_evaluation_uses_the_running_statistics(execute):
    stages, data = convolutional(), Images()
    pipeline = execute(Pipeline(stages, data, sgd(0.01), PETRA), 20)
    before = statistics(stages)
    batch = pipeline.apply(data.inputs(50), data.context(50))
    pipeline.train(False)
    running = pipeline.apply(data.inputs(50), data.context(50))
    alone = pipeline.apply((data.inputs(50)[0][:1],), data.context(50)[:1])
    assert apart([a[:1] for a in running], alone) < 1e-13 and apart(batch, running) > 1e-3
    assert apart(statistics(stages), before) == 0


def test_backprop_counts_every_batch_once():
    stages = convolutional()
    simulate(Pipeline(stages, Images(), sgd(0.01), BACKPROP), 7)
    assert counts(stages) == [7] * (len(stages) - 1)
    assert all(p.isfinite().all() for p in parameters(stages))
