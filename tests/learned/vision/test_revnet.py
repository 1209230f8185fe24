"""RevNets: sizes as published, streams that invert, gradients that are autograd's."""

import pytest

pytest.importorskip("torch", reason='learned solvers need torch: pip install "bmsdp[learn]"')

import torch

from bmsdp.learned.petra import BACKPROP, BUFFER, PETRA, REVERSIBLE, STASH, Coupling, Pipeline, exact_gradient, sgd, simulate
from bmsdp.learned.vision import (
    Chain,
    cifar_stem,
    digits_stem,
    imagenet_stem,
    merged,
    revnet18,
    revnet34,
    revnet50,
    silhouettes_stem,
    small,
)


def parameters(stages):
    return sum(p.numel() for stage in stages for p in stage.parameters())


@pytest.mark.parametrize(
    ("build", "J", "irreversible", "millions"), [(revnet18, 10, 4, 12.2), (revnet34, 18, 4, 22.3), (revnet50, 18, 5, 30.4)]
)
def test_sizes_of_the_paper(build, J, irreversible, millions):
    """Table 2, and section 4: one block a stage; the stem and 3 (RevNet-50: 4) blocks are not reversible."""
    with torch.device("meta"):
        stages = build(1000, imagenet_stem)
        assert len(stages) == J and round(parameters(stages) / 1e6, 1) == millions
        assert sum(not stage.invertible for stage in stages[:-1]) == irreversible
        x = (torch.empty(2, 3, 224, 224),)
        for stage in stages[:-1]:
            x = stage(x, None)
        assert x[0].shape == x[1].shape == (2, 2048 if build is revnet50 else 512, 7, 7)
        y = (torch.empty(2, 3, 32, 32),)
        for stage in build(10, cifar_stem)[:-1]:
            y = stage(y, None)
        assert y[0].shape[2:] == (4, 4)


def test_the_branch_of_a_stage_is_that_of_the_resnet():
    """ResNet-18 has 11,689,512 parameters; wider are the stem (twice as many filters) and the head (both streams)."""
    with torch.device("meta"):
        assert parameters(revnet18(1000, imagenet_stem)) == 11_689_512 + (3 * 49 + 2) * 64 + 512 * 1000


@pytest.fixture(params=[(digits_stem, 8), (silhouettes_stem, 28)], ids=["digits", "silhouettes"])
def network(request):
    stem, side = request.param
    torch.manual_seed(0)
    stages = [stage.double() for stage in small(stem)]
    return stages, torch.randn(6, 1, side, side, dtype=torch.float64)


def test_the_small_network_and_its_inverses(network):
    stages, x = network
    assert [stage.invertible for stage in stages] == [False] + [True] * 3 + [False] + [True] * 3 + [False]
    y = (x,)
    for stage in stages[:-1]:
        x, y = y, stage(y, None)
        assert len(y) == 2 and y[0].shape == y[1].shape and all(a.is_contiguous() for a in y)
        if isinstance(stage, Coupling):
            back = stage.inverse(y, None)
            assert all(torch.allclose(a, b, rtol=0, atol=1e-13) for a, b in zip(back, x, strict=True))
    assert y[0].shape[1] == 16


class Fixed:
    def __init__(self, x):
        self.x = x

    def inputs(self, batch):
        return (self.x.roll(batch, 0) * (1 + batch),)

    def context(self, batch):
        return (torch.arange(len(self.x)) * (batch + 1)) % 10


@pytest.mark.parametrize("mode", [PETRA, REVERSIBLE, BUFFER, STASH, BACKPROP], ids=lambda mode: mode.name)
def test_with_frozen_parameters_all_modes_give_the_gradient_of_autograd(network, mode):
    stages, x = network
    pipeline = Pipeline(stages, Fixed(x), sgd(0.0), mode)
    applied = {}

    def note(t, workers):
        for w in workers:
            if w.gradient is not None:
                applied[w.j, pipeline.plan(3).backward(w.j, t)] = w.gradient

    simulate(pipeline, 3, observer=note)
    for (j, batch), gradient in applied.items():
        exact, _ = exact_gradient(pipeline, j, batch)
        scale = max(float(g.abs().max()) for g in exact)
        assert all(torch.allclose(a, b, rtol=0, atol=1e-12 * scale) for a, b in zip(gradient, exact, strict=True))
    assert len(applied) == 3 * len(stages)


def test_running_statistics_count_each_batch_once(network):
    """In every mode, and alike where the parameters stay."""
    stages, x = network
    start = [{name: b.clone() for name, b in stage.named_buffers()} for stage in stages]
    found = []
    for mode in (BACKPROP, PETRA):
        for stage, buffers in zip(stages, start, strict=True):
            stage.load_state_dict(buffers, strict=False)
        simulate(Pipeline(stages, Fixed(x), sgd(0.0), mode), 4)
        found.append([{name: b.clone() for name, b in stage.named_buffers()} for stage in stages])
    counted = 0
    for one, two in zip(*found, strict=True):
        for name in one:
            assert torch.allclose(one[name], two[name], rtol=1e-10)
            counted += name.endswith("num_batches_tracked") and int(one[name]) == 4
    assert counted == 1 + 6 * 2 + 3


def test_a_chain_is_one_reversible_stage(network):
    stages, x = network
    short = merged(stages)
    assert [type(stage).__name__ for stage in short] == ["Entry", "Chain", "BasicDown", "Chain", "Classifier"]
    x = short[0]((x,), None)
    x = tuple(a.detach() for a in x)
    y = tuple(a.detach() for a in short[1](x, None))
    one_by_one = x
    for stage in stages[1:4]:
        one_by_one = stage(one_by_one, None)
    assert all(torch.equal(a, b) for a, b in zip(y, one_by_one, strict=True))
    g = tuple(torch.randn_like(a) for a in y)
    found, expected = short[1].reverse_vjp(y, g, None), (x, *short[1].vjp(x, g, None))
    for a, b in zip((*found[0], *found[1], *found[2]), (*expected[0], *expected[1], *expected[2]), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-11)
    assert all(torch.allclose(a, b, rtol=0, atol=1e-12) for a, b in zip(short[1].inverse(y, None), x, strict=True))
    with pytest.raises(ValueError, match="reversible where all of its stages are"):
        Chain(stages[3:6])
