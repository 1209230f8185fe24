"""Small networks and batches for the engine's tests, and gradients of plain autograd as the oracle."""

import torch
from torch import nn

from bmsdp.learned.petra import BatchNorm2d, Checkpointed, Coupling, Head, Stage

WIDTH, CLASSES = 6, 3
Real = torch.float64


def block(width=WIDTH, seed=0):
    """A map of one stream; Lipschitz constant of order 1."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(width, 2 * width), nn.Tanh(), nn.Linear(2 * width, width)).to(Real)


class Dense(Stage):
    """A stage without an inverse: both streams mixed by one layer."""

    def __init__(self, width=WIDTH, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.layer = nn.Linear(2 * width, 2 * width).to(Real)

    def forward(self, x, context):
        return torch.tanh(self.layer(torch.cat(x, 1))).chunk(2, 1)


class Classes(Head):
    def __init__(self, width=WIDTH, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.layer = nn.Linear(2 * width, CLASSES).to(Real)

    def forward(self, x, context):
        return nn.functional.cross_entropy(self.layer(torch.cat(x, 1)), context)


class Data:
    """Noise and the class that a fixed linear map of it has."""

    def __init__(self, instances=8, width=WIDTH):
        self.instances, self.width = instances, width

    def inputs(self, batch):
        both = torch.randn(self.instances, 2 * self.width, dtype=Real, generator=torch.Generator().manual_seed(batch))
        return both[:, : self.width], both[:, self.width :]

    def context(self, batch):
        teacher = torch.randn(2 * self.width, CLASSES, dtype=Real, generator=torch.Generator().manual_seed(-1))
        return (torch.cat(self.inputs(batch), 1) @ teacher).argmax(1)


def network(J=10, fifo=(), carry=1.0, seed=0):
    """J - 1 couplings and a head; the stages in ``fifo`` (from 1) have no inverse."""
    stages = [Dense(seed=100 * seed + j) if j in fifo else Coupling(block(seed=100 * seed + j), carry) for j in range(1, J)]
    return [*stages, Classes(seed=100 * seed + J)]


class Stem(Stage):
    """One image into two streams."""

    def __init__(self, channels=4):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(1, 2 * channels, 3, padding=1, bias=False), BatchNorm2d(2 * channels)

    def forward(self, x, context):
        return torch.relu(self.bn(self.conv(x[0]))).chunk(2, 1)


class Pooled(Head):
    def __init__(self, channels=4):
        super().__init__()
        self.layer = nn.Linear(2 * channels, CLASSES)

    def forward(self, x, context):
        return nn.functional.cross_entropy(self.layer(torch.cat(x, 1).mean((2, 3))), context)


class Images:
    def inputs(self, batch):
        return (torch.randn(4, 1, 6, 6, dtype=Real, generator=torch.Generator().manual_seed(batch)),)

    def context(self, batch):
        return torch.randint(CLASSES, (4,), generator=torch.Generator().manual_seed(batch))


def convolutional(couplings=3, channels=4):
    """Stem, couplings with batch normalisation of which the last keeps its input, head."""

    def residual():
        return nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), BatchNorm2d(channels), nn.ReLU())

    torch.manual_seed(0)
    stages = [Stem(channels), *(Coupling(residual()) for _ in range(couplings - 1)), Checkpointed(Coupling(residual())), Pooled(channels)]
    return [stage.to(Real) for stage in stages]


def oracle(stages, data, batch):
    """Loss, and the gradients of all stages, by autograd through the whole network."""
    x, context = data.inputs(batch), data.context(batch)
    for stage in stages:
        x = stage(x, context)
    grads = iter(torch.autograd.grad(x, [p for stage in stages for p in stage.params]))
    return float(x.detach()), [[next(grads) for _ in stage.params] for stage in stages]


def vector(parts):
    return torch.cat([torch.view_as_real(a).reshape(-1) if a.is_complex() else a.reshape(-1) for a in parts]).detach()


def apart(a, b):
    """Relative distance of two lists of tensors."""
    a, b = vector(a), vector(b)
    return float((a - b).norm() / b.norm())


def parameters(stages):
    return [p.detach().clone() for stage in stages for p in stage.parameters()]


def same(a, b):
    """Bitwise."""
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


class Gradients:
    """Observer: the gradient of every stage and batch, on any executor that runs in this process."""

    def __init__(self, pipeline):
        self.found, J = {}, len(pipeline.stages)
        self.order = {j: [] for j in range(1, J + 1)}  # batches in the order of their backwards
        self.lag = {j: [] for j in range(1, J + 1)}  # batches whose forward came between forward and backward of one
        for w in pipeline.workers:
            self._watch(w)

    def _watch(self, w):
        forward, backward, newest = w.forward, w.backward, {}

        def noted_forward(batch, x, context):
            newest["batch"] = batch
            return forward(batch, x, context)

        def noted_backward(batch, message, context):
            self.order[w.j].append(batch)
            self.lag[w.j].append(newest["batch"] - batch)
            out = backward(batch, message, context)
            self.found[w.j, batch] = [g.clone() for g in w.gradient]
            return out

        w.forward, w.backward = noted_forward, noted_backward
