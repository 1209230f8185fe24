"""The recipe's numbers, and what they are for: PETRA reaches what backpropagation reaches."""

import statistics

import pytest

pytest.importorskip("torch", reason='learned solvers need torch: pip install "bmsdp[learn]"')

import torch

from bmsdp.learned.petra import BACKPROP, PETRA, REVERSIBLE, Head, threads
from bmsdp.learned.vision import ImageBatches, Images, accuracy, digits, digits_stem, merged, predict, rates, small, train


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def double():
    """Float64: rounding, which differs from machine to machine, then does not show in the accuracies."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def images():
    """All 1797 digits, 1152 to train on: more are left to test than the usual split has, so that differences are less noisy."""
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn, which is not installed")
    whole = digits()
    x, y = torch.cat([whole.x, whole.x_test]), torch.cat([whole.y, whole.y_test])
    return Images(x[:1152], y[:1152], x[1152:], y[1152:])


def trained(images, mode, seed=0, epochs=24, build=small, **options):
    torch.manual_seed(seed)
    stages = build(digits_stem, blocks=(1, 2))
    pipeline = train(stages, ImageBatches(images, 32, seed), epochs, mode, **options)
    return stages, pipeline


@pytest.mark.timeout(600)  # the longest default test: a minute of one core
def test_petra_reaches_backpropagation(double, images, one_thread):
    """J = 5, 864 updates, delays up to 8: within half a point in the mean of 3 seeds, and both know the digits."""
    found = {mode: [accuracy(trained(images, mode, seed)[0], images) for seed in range(3)] for mode in (BACKPROP, PETRA)}
    means = {mode.name: statistics.fmean(values) for mode, values in found.items()}
    assert means["backprop"] > 97, found
    assert means["petra"] >= means["backprop"] - 0.5, found


def test_the_schedule_is_the_papers():
    """CIFAR-10: 300 epochs of 781 batches of 64, k = 2; warm-up over 5 epochs, a tenth after 150 and after 225."""
    factor = rates(781, 300, k=2)
    epoch = 781 / 2
    assert factor(0) == pytest.approx(1 / (5 * epoch), rel=1e-3) and factor(round(2.5 * epoch)) == pytest.approx(0.5, rel=2e-3)
    for at, value in ((6, 1), (149.9, 1), (150.1, 0.1), (224.9, 0.1), (225.1, 0.01), (299, 0.01)):
        assert factor(round(at * epoch)) == pytest.approx(value)


def test_short_schedules_warm_up_for_an_eighth():
    factor = rates(100, 8)
    assert factor(0) == 0.01 and factor(98) < 1 == factor(99) == factor(399) and factor(400) == pytest.approx(0.1)
    assert rates(100, 8, warm_up=0)(0) == 1


def test_the_optimizers_are_the_papers(images):
    _, pipeline = trained(images, PETRA, epochs=0, k=4)
    for worker in pipeline.workers:
        for group in worker.optimizer.param_groups:
            assert group["momentum"] == 0.9 and group["nesterov"] and group["lr"] == pytest.approx(0.1 * 32 * 4 / 256)
            assert all(group["weight_decay"] == (5e-4 if p.dim() > 1 else 0) for p in group["params"])
    held = sum(p.numel() for worker in pipeline.workers for group in worker.optimizer.param_groups for p in group["params"])
    assert held == sum(p.numel() for stage in pipeline.stages for p in stage.parameters())


def test_reversible_backpropagation_is_backpropagation(images, one_thread):
    """Up to round-off, which training amplifies: so only some batches of it."""
    short = Images(images.x[:160], images.y[:160], images.x_test, images.y_test)
    losses = [[loss for _, loss in trained(short, mode, epochs=1)[1].losses] for mode in (BACKPROP, REVERSIBLE)]
    assert len(losses[0]) == 5 and losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_executors_and_seeds(images, one_thread):
    short = Images(images.x[:160], images.y[:160], images.x_test, images.y_test)
    one, two, other = (trained(short, PETRA, seed, 1, **how)[1] for seed, how in ((0, {}), (0, {"execute": threads}), (1, {})))
    assert one.losses == two.losses != other.losses
    for a, b in zip(one.stages, two.stages, strict=True):
        assert all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_merged_stages_are_the_same_network_with_shorter_delays(images, one_thread):
    short = Images(images.x[:160], images.y[:160], images.x_test, images.y_test)

    def chains(*args, **kwargs):
        return merged(small(*args, **{**kwargs, "blocks": (2, 3)}))

    def plain(*args, **kwargs):
        return small(*args, **{**kwargs, "blocks": (2, 3)})

    losses, delays = [], []
    for build, mode in ((plain, BACKPROP), (chains, BACKPROP), (chains, REVERSIBLE), (chains, PETRA), (plain, PETRA)):
        _, pipeline = trained(short, mode, epochs=4, build=build)
        losses.append([loss for _, loss in pipeline.losses])
        delays.append(max(worker.delays for worker in pipeline.workers))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6) and losses[0][:5] == pytest.approx(losses[2][:5], rel=1e-4)
    assert delays == [0, 0, 0, 8, 12]


def test_prediction_uses_running_statistics_and_leaves_the_stages_as_they_were(images):
    stages, _ = trained(images, PETRA, epochs=0)
    x = images.normalise(images.x_test)
    before = [b.clone() for stage in stages for b in stage.buffers()]
    whole, parts = predict(stages, x), torch.cat([predict(stages, part, batch=7) for part in x.split(100)])
    assert torch.equal(whole, parts) and whole.shape == images.y_test.shape  # batches of any size: no batch statistics
    assert all(torch.equal(a, b) for a, b in zip(before, [b for stage in stages for b in stage.buffers()], strict=True))
    assert all(stage.training for stage in stages)
    share = 100 * float((whole == images.y_test).float().mean())
    assert accuracy(stages, images) == pytest.approx(share)


def test_only_classifiers_predict(images):
    with pytest.raises(TypeError, match="the last stage is a Head; needed: a Classifier"):
        predict([Head()], images.normalise(images.x_test))


def test_a_rate_that_is_far_too_large_is_reported(images, one_thread):
    with pytest.raises(FloatingPointError, match="smaller rate") as caught:
        trained(images, PETRA, epochs=8, rate=1e30, warm_up=0)
    assert "Classifier" in caught.value.__notes__[0]
