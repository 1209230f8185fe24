"""How PETRA trains RevNets (arXiv:2406.02052, section 4 and its appendix), for every mode and executor of the engine.

Batches of 64, gradients averaged over k of them, learning rate ``0.1 * 64 k / 256`` (Goyal et al. 2017), Nesterov momentum 0.9, weight
decay 5e-4 on weights only, linear warm-up, rate divided by 10 at 1/2 and 3/4 of the schedule (150 and 225 of 300 epochs on CIFAR-10).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..petra import PETRA, Mode, Pipeline, Stage, scaled_rate, sgd, simulate, warmup_steps
from .data import ImageBatches, Images
from .revnet import Classifier

Execute = Callable[[Pipeline, int], Pipeline]
DROPS = (1 / 2, 3 / 4)  # of the schedule


def rates(steps: int, epochs: int, k: int = 1, warm_up: float | None = None) -> Callable[[int], float]:
    """Factor on the rate for update u of a stage, with ``steps`` batches in an epoch.

    ``warm_up`` is in epochs; by default the paper's 5 where the schedule is long enough for it, else an eighth of the schedule.
    """
    warm_up = min(5, epochs / 8) if warm_up is None else warm_up
    return warmup_steps(round(warm_up * steps / k), [round(drop * epochs * steps / k) for drop in DROPS])


def train(
    stages: Sequence[Stage], batches: ImageBatches, epochs: int, mode: Mode = PETRA, k: int = 1, *, momentum: float = 0.9,
    decay: float = 5e-4, rate: float = 0.1, warm_up: float | None = None, execute: Execute = simulate,
) -> Pipeline:  # fmt: skip
    """Train a network from where it is, to the backward of its last batch.

    Parameters
    ----------
    epochs : int
    mode, k
        As in `Pipeline`.
    momentum, decay, rate, warm_up : float
        What is not given is the paper's.  ``rate`` is that for 256 images an update.  Momentum 0 is plain SGD.
    execute : callable
        ``execute(pipeline, batches)``: `simulate`, `threads`, `distributed` or one of them with its options.
    """
    optimize = sgd(scaled_rate(batches.batch, k, rate), momentum, weight_decay=decay)
    pipeline = Pipeline(stages, batches, optimize, mode, k, rates(batches.steps, epochs, k, warm_up))
    pipeline.train()
    return execute(pipeline, epochs * batches.steps)


@torch.no_grad()
def predict(stages: Sequence[Stage], x: Tensor, batch: int = 500) -> Tensor:
    """Classes (N,) of normalised images, with the running statistics of batch normalisation."""
    head = stages[-1]
    if not isinstance(head, Classifier):
        raise TypeError(f"the last stage is a {type(head).__name__}; needed: a Classifier, which has logits")
    training = [stage.training for stage in stages]
    for stage in stages:
        stage.eval()
    found = []
    for part in x.split(batch):
        y = (part,)
        for stage in stages[:-1]:
            y = stage(y, None)
        found.append(head.logits(y).argmax(1))
    for stage, on in zip(stages, training, strict=True):
        stage.train(on)
    return torch.cat(found)


def accuracy(stages: Sequence[Stage], images: Images) -> float:
    """Test images whose class is found, in percent."""
    return 100 * float((predict(stages, images.normalise(images.x_test)) == images.y_test).float().mean())
