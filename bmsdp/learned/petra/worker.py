"""One stage at work: forward, backward, update, and what it holds meanwhile (section 1.5 of the paper's Algorithm 1, corrected).

The order within a tick is forward, backward, update; forward and backward use the parameters that the tick began with.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .modes import Mode
from .stage import Head, Stage, Streams, leaves, pullback

Optimize = Callable[[Stage], torch.optim.Optimizer]


def place(a: Tensor) -> int:
    """Which memory a tensor views; sparse tensors are never written in place here, and have no number."""
    return a.untyped_storage().data_ptr() if a.layout == torch.strided else id(a)


@dataclass
class Held:
    """What a stage keeps of one batch in flight: two numbers, and the tensors that the mode asks for."""

    batch: int
    updates: int  # made when the forward ran
    x: Streams | None = None
    y: Streams | None = None  # with its graph
    params: tuple[Tensor, ...] | None = None


class Worker:
    """Stage j of J with its optimizer, accumulator and FIFO.

    Attributes
    ----------
    t : int or None
        The tick that comes next; None inside a tick, and for good where a tick was broken off.
    updates : int
        Optimizer steps made.
    delays : int
        The largest number of own updates between forward and backward of one batch so far; at most ``ceil(2 (J - j) / k)``.
    peak : int
        The largest number of batches in flight here so far: ``2 (J - j) + 1`` inside a tick of a full pipeline.
    gradient, x : list of Tensor or None, tuple of Tensor or None
        Gradient of this tick and, where the stage inverts, its reconstructed input: for observers, gone after the update.
    losses : list of (batch, loss)
        The head's.
    """

    def __init__(
        self, stage: Stage, j: int, J: int, mode: Mode, optimize: Optimize, k: int,
        schedule: Callable[[int], float] | None = None, clip: float | None = None, wants_output: bool = False,
    ) -> None:  # fmt: skip
        self.stage, self.j, self.J, self.mode, self.k = stage, j, J, mode, k
        self.optimizer: torch.optim.Optimizer | None = optimize(stage) if stage.params else None
        self.rates = [group["lr"] for group in self.optimizer.param_groups] if self.optimizer else []
        self.schedule, self.clip = schedule, clip
        self.wants_output = wants_output  # the stage before inverts, so it needs the activation as well as the gradient
        self.held: deque[Held] = deque()
        self.sum: list[Tensor] | None = None
        self.gradient: list[Tensor] | None = None
        self.x: Streams | None = None
        self.version: tuple[Tensor, ...] | None = None
        self.t: int | None = 0
        self.count = self.updates = self.delays = self.peak = 0
        self.losses: list[tuple[int, float]] = []

    def check(self, t: int) -> None:
        """Refuse to be taken for a stage that is before tick t, when an error has left it elsewhere.

        Raises
        ------
        ValueError
        """
        if self.t != t:
            where = "inside a tick" if self.t is None else f"before tick {self.t}"
            raise ValueError(
                f"stage {self.j} is {where} and the pipeline before tick {t}: a run was broken off, or trained other stages only; "
                "go on from a checkpoint (load), or from a new pipeline"
            )

    @property
    def keeps_input(self) -> bool:
        """Whether the input of a batch in flight is held here."""
        return not self.mode.graph and (self.mode.inputs or not self.stage.invertible)

    @property
    def inverts(self) -> bool:
        """Whether the backward reconstructs its input from the output that the next stage sends."""
        return self.j < self.J and not self.mode.graph and not self.keeps_input

    def forward(self, batch: int, x: Streams, context: Any) -> Streams:
        """The message for the next stage; the head returns none."""
        held = Held(batch, self.updates)
        self.held.append(held)
        self.peak = max(self.peak, len(self.held))
        if isinstance(self.stage, Head):
            held.x = x
            return ()
        if self.keeps_input:
            held.x = x
        if self.mode.params:
            if self.version is None:
                self.version = tuple(p.detach().clone() for p in self.stage.params)
            held.params = self.version
        if self.mode.graph:
            held.x = leaves(x) if self.j > 1 else x
            with torch.enable_grad():
                held.y = self.stage(held.x, context)
            return self._message(held.y)
        with torch.no_grad():
            return self._message(self.stage(x, context))

    def _message(self, y: Streams) -> Streams:
        """``y`` without graph, and without memory that the optimizer writes to while the message is under way."""
        if not isinstance(y, tuple):
            raise TypeError(f"{type(self.stage).__name__} returned {type(y).__name__}; a stage returns a tuple of tensors: (y,) for one")
        own = {place(a) for a in (*self.stage.parameters(), *self.stage.buffers())}
        return tuple(a.detach().clone() if place(a) in own else a.detach() for a in y)

    def backward(self, batch: int, message: Streams, context: Any) -> Streams:
        """``(activation, cotangent)`` streams for the stage before, from those of the stage after (none for the head)."""
        held = self.held.popleft() if self.held else None
        if held is None or held.batch != batch:
            holds = "nothing" if held is None else f"batch {held.batch}"
            raise RuntimeError(f"stage {self.j} holds {holds} where batch {batch} comes back: messages were lost or reordered")
        self.delays = max(self.delays, self.updates - held.updates)
        x, gx, self.gradient = self._pull(held, batch, message, context)
        self.x = x if self.inverts else None
        return (*x, *gx) if self.wants_output else gx

    def _pull(self, held: Held, batch: int, message: Streams, context: Any) -> tuple[Streams, Streams, list[Tensor]]:
        if isinstance(self.stage, Head):
            assert held.x is not None
            loss, gx, gparams = self.stage.value_and_grad(held.x, context)
            self.losses.append((batch, loss))
            if not math.isfinite(loss):
                raise FloatingPointError(f"the loss is {loss}; a smaller rate, a longer warm-up, averaging (k) or clipping may help")
            return held.x, gx, gparams
        if held.y is not None and held.x is not None:
            return held.x, *pullback(held.y, message, held.x, self.stage.params)
        if not self.inverts:
            assert held.x is not None
            with self._using(held.params):
                if self.j == 1:
                    return held.x, (), self.stage.gradients(held.x, message, context)
                return held.x, *self.stage.vjp(held.x, message, context)
        half = len(message) // 2
        y, g = message[:half], message[half:]
        if self.mode.current_inverse:
            with torch.no_grad():
                x = self.stage.inverse(y, context)
            with self._using(held.params):
                return x, *self.stage.vjp(x, g, context)
        with self._using(held.params):
            return self.stage.reverse_vjp(y, g, context)

    @contextmanager
    def _using(self, params: tuple[Tensor, ...] | None) -> Iterator[None]:
        """The stage with earlier parameters."""
        if params is None or params is self.version:
            yield
            return
        current = [p.data for p in self.stage.params]
        for p, old in zip(self.stage.params, params, strict=True):
            p.data = old
        try:
            yield
        finally:
            for p, new in zip(self.stage.params, current, strict=True):
                p.data = new

    def update(self) -> None:
        """Add this tick's gradient, divided by k, and step on every k-th."""
        gradient, self.gradient, self.x = self.gradient, None, None
        if gradient is None or self.optimizer is None:
            return
        shares = [g / self.k for g in gradient]
        self.sum = shares if self.sum is None else [a + b for a, b in zip(self.sum, shares, strict=True)]
        self.count += 1
        if self.count % self.k:
            return
        for p, g in zip(self.stage.params, self.sum, strict=True):
            p.grad = g
        if self.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.stage.params, self.clip)
        factor = self.schedule(self.updates) if self.schedule else 1.0
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        self.optimizer.step()
        for p in self.stage.params:
            p.grad = None
        self.sum = self.version = None
        self.updates += 1
