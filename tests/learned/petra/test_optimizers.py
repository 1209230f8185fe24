"""Optimizers and schedules."""

import math

import pytest

torch = pytest.importorskip("torch", reason='learned solvers need torch: pip install "bmsdp[learn]"')

from bmsdp.learned.petra import Coupling, adam, scaled_rate, sgd, warmup_cosine, warmup_steps  # noqa: E402

from .networks import Real, block, convolutional  # noqa: E402


def decays(optimizer):
    return {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}


@pytest.mark.parametrize("optimize", [sgd(0.1, weight_decay=5e-4), adam(0.1, weight_decay=5e-4)], ids=["sgd", "adam"])
def test_no_weight_decay_on_biases_normalisation_and_carries(optimize):
    for stage in [*convolutional(), Coupling(block(), torch.nn.Parameter(torch.tensor(0.9, dtype=Real)))]:
        found = decays(optimize(stage))
        assert set(found) == {id(p) for p in stage.params}
        for name, p in stage.named_parameters():
            matrix = name.endswith("weight") and "bn" not in name and p.dim() > 1
            assert found[id(p)] == (5e-4 if matrix else 0.0), name


def test_frozen_parameters_are_left_out():
    stage = Coupling(block())
    first = next(stage.parameters())
    first.requires_grad_(False)
    assert id(first) not in decays(sgd(0.1)(stage))


def test_defaults_are_the_papers():
    (group, *_) = sgd(0.1)(Coupling(block())).param_groups
    assert (group["momentum"], group["nesterov"], group["dampening"]) == (0.9, True, 0)
    (group, *_) = sgd(0.1, momentum=0.0)(Coupling(block())).param_groups
    assert not group["nesterov"]


def test_adam_without_decay_is_torchs():
    ours, theirs = block(seed=1), block(seed=1)
    optimizers = adam(0.01)(Coupling(ours)), torch.optim.Adam(theirs.parameters(), lr=0.01)
    for step in range(5):
        x = torch.randn(4, 6, dtype=Real, generator=torch.Generator().manual_seed(step))
        for net, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            net(x).square().sum().backward()
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_scaled_rate():
    assert scaled_rate(256) == 0.1 and scaled_rate(64, 4) == 0.1 and scaled_rate(64) == 0.025
    assert scaled_rate(64, 2, rate=0.2, reference=128) == 0.2


def test_warmup_steps():
    factor = warmup_steps(4, [10, 20])
    assert [factor(u) for u in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert [factor(u) for u in (9, 10, 19, 20, 99)] == pytest.approx([1, 0.1, 0.1, 0.01, 0.01])
    assert warmup_steps(0, [])(0) == 1.0


def test_warmup_cosine():
    factor = warmup_cosine(4, 24, floor=0.1)
    assert [factor(u) for u in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert factor(14) == pytest.approx(0.55) and factor(24) == factor(100) == pytest.approx(0.1)
    assert factor(9) == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2)
    assert all(factor(u) >= factor(u + 1) for u in range(4, 30))


def test_schedules_that_cannot_be():
    with pytest.raises(ValueError, match="warmup = -1"):
        warmup_steps(-1, [])
    with pytest.raises(ValueError, match="updates = 5; the cosine"):
        warmup_cosine(5, 5)
