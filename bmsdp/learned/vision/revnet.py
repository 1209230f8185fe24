"""Reversible residual networks as lists of stages (RevNet: Gomez et al. 2017; in the form of PETRA: arXiv:2406.02052, section 4).

All channel counts of a ResNet are doubled and split into two streams, so that a residual branch is that of the ResNet.  One residual
block is one stage.  Where the size of the streams changes, a block has no inverse.  A branch ends in a ReLU and has no skip of its own:

    reversible   (x1, x2) -> (x2 + F(x1), x1)
    otherwise    (x1, x2) -> (S(x2) + F(x1), P(x1)),  S and P being learned
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from torch import Tensor, cat, nn

from ..petra import BatchNorm2d, Coupling, Head, Stage, Streams

Stem = Callable[[int], Stage]  # from the width of one stream


def convolution(channels: int, filters: int, size: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution (no bias, size kept where the stride is 1) and batch normalisation; He initialisation by the fan out."""
    conv = nn.Conv2d(channels, filters, size, stride, size // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, BatchNorm2d(filters))


class Entry(Stage):
    """The first stage: an image (batch, channels, height, width) to two streams of ``width`` channels each; not reversible."""

    def __init__(self, channels: int, width: int, size: int = 3, stride: int = 1, pool: bool = False) -> None:
        super().__init__()
        self.enter = convolution(channels, 2 * width, size, stride)
        self.pool = nn.MaxPool2d(3, 2, 1) if pool else nn.Identity()

    def forward(self, x: Streams, context: Any) -> Streams:
        y1, y2 = self.pool(self.enter(x[0]).relu()).chunk(2, dim=1)
        return y1.contiguous(), y2.contiguous()


def cifar_stem(width: int) -> Stage:
    """3 x 3, no pooling: for colour images of 32 x 32."""
    return Entry(3, width)


def imagenet_stem(width: int) -> Stage:
    """7 x 7 with stride 2 and max pooling: for colour images of 224 x 224."""
    return Entry(3, width, 7, 2, pool=True)


def digits_stem(width: int) -> Stage:
    """3 x 3: for grey images of 8 x 8."""
    return Entry(1, width)


def silhouettes_stem(width: int) -> Stage:
    """3 x 3 with stride 2: for grey images of 28 x 28."""
    return Entry(1, width, 3, 2)


def basic(width: int) -> nn.Module:
    """Two 3 x 3 convolutions."""
    return nn.Sequential(convolution(width, width), nn.ReLU(), convolution(width, width), nn.ReLU())


def bottleneck(channels: int, hidden: int, width: int, stride: int = 1) -> nn.Module:
    """1 x 1 to ``hidden`` channels, 3 x 3, 1 x 1 to ``width``."""
    first, second = convolution(channels, hidden, 1), convolution(hidden, hidden, 3, stride)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), convolution(hidden, width, 1), nn.ReLU())


class BasicDown(Stage):
    """A basic block that halves the size; P is the first half of F, before its ReLU, so P costs nothing."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.P = convolution(channels, width, 3, 2)
        self.rest = nn.Sequential(nn.ReLU(), convolution(width, width), nn.ReLU())
        self.S = convolution(channels, width, 1, 2)

    def forward(self, x: Streams, context: Any) -> Streams:
        x1, x2 = x
        y2 = self.P(x1)
        return self.S(x2) + self.rest(y2), y2


class BottleneckDown(Stage):
    """A bottleneck block that changes the number of channels, and with stride 2 the size; S and P are 1 x 1 convolutions."""

    def __init__(self, channels: int, hidden: int, width: int, stride: int) -> None:
        super().__init__()
        self.F = bottleneck(channels, hidden, width, stride)
        self.S = convolution(channels, width, 1, stride)
        self.P = convolution(channels, width, 1, stride)

    def forward(self, x: Streams, context: Any) -> Streams:
        x1, x2 = x
        return self.S(x2) + self.F(x1), self.P(x1)


class Classifier(Head):
    """Both streams averaged over the image, a linear map to the classes, cross entropy; the context is the labels (batch,)."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * width, classes)

    def logits(self, x: Streams) -> Tensor:
        """(batch, classes)."""
        return self.linear(cat(x, dim=1).mean((2, 3)))

    def forward(self, x: Streams, context: Any) -> Tensor:
        return nn.functional.cross_entropy(self.logits(x), context)


class Chain(Stage):
    """Several reversible stages as one: fewer and larger steps of the pipeline, so shorter delays, for the same network."""

    invertible = True

    def __init__(self, stages: Sequence[Stage]) -> None:
        super().__init__()
        if not all(stage.invertible for stage in stages):
            raise ValueError(f"{[type(stage).__name__ for stage in stages]}: a chain is reversible where all of its stages are")
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Streams, context: Any) -> Streams:
        for stage in self.stages:
            x = stage(x, context)
        return x

    def inverse(self, y: Streams, context: Any) -> Streams:
        for stage in reversed(self.stages):
            y = stage.inverse(y, context)
        return y

    def reverse_vjp(self, y: Streams, g: Streams, context: Any) -> tuple[Streams, Streams, list[Tensor]]:
        """Stage by stage, each with its own short graph."""
        params: list[Tensor] = []
        for stage in reversed(self.stages):
            y, g, own = stage.reverse_vjp(y, g, context)
            params = own + params
        return y, g, params


def merged(stages: Sequence[Stage]) -> list[Stage]:
    """The same network with neighbouring reversible stages made one stage each."""
    found: list[Stage] = []
    for invertible, run in groupby(stages, lambda stage: stage.invertible):
        some = list(run)
        found += [Chain(some)] if invertible else some
    return found


def revnet(blocks: Sequence[int], stem: Stem, width: int, classes: int) -> list[Stage]:
    """Basic blocks: ``blocks[i]`` of width ``2^i width`` per stream.

    The first block of every group but the first is not reversible.  ``J = 2 + sum(blocks)`` stages.  Weights are drawn from torch's
    global generator: call ``torch.manual_seed`` before.
    """
    stages = [stem(width)]
    for i, count in enumerate(blocks):
        if i:
            stages.append(BasicDown(width, 2 * width))
            width *= 2
        stages += [Coupling(basic(width)) for _ in range(count - (i > 0))]
    return [*stages, Classifier(width, classes)]


def revnet18(classes: int = 10, stem: Stem = cifar_stem, width: int = 64) -> list[Stage]:
    """J = 10; 12.2 M parameters with 1000 classes and the ImageNet stem."""
    return revnet((2, 2, 2, 2), stem, width, classes)


def revnet34(classes: int = 10, stem: Stem = cifar_stem, width: int = 64) -> list[Stage]:
    """J = 18; 22.3 M parameters with 1000 classes and the ImageNet stem."""
    return revnet((3, 4, 6, 3), stem, width, classes)


def revnet50(classes: int = 10, stem: Stem = cifar_stem, width: int = 64) -> list[Stage]:
    """J = 18, bottlenecks; 30.4 M parameters with 1000 classes and the ImageNet stem.  The first block is not reversible either."""
    stages = [stem(width)]
    channels = width
    for i, count in enumerate((3, 4, 6, 3)):
        hidden, out = width * 2**i, 4 * width * 2**i
        stages.append(BottleneckDown(channels, hidden, out, stride=2 if i else 1))
        stages += [Coupling(bottleneck(out, hidden, out)) for _ in range(count - 1)]
        channels = out
    return [*stages, Classifier(channels, classes)]


def small(stem: Stem, blocks: Sequence[int] = (3, 4), width: int = 8, classes: int = 10) -> list[Stage]:
    """For images that come with packages; by default J = 9: stem, 3 reversible stages, 1 that is not, 3 reversible ones, head."""
    return revnet(blocks, stem, width, classes)
