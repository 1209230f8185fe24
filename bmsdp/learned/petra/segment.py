"""Neighbouring stages in one place, tick by tick: the semantics that all executors share.

A tick: receive what the neighbours sent in the tick before, all forwards, all backwards, (observer), all updates, send.
Messages leave at the end of a tick and are used in the next one, inside a segment and between segments alike, so the
result does not depend on where the segments are cut.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from .modes import Plan
from .stage import Streams
from .worker import Worker


class Batches(Protocol):
    """Where batches come from: functions of the batch's number, so that every worker can look them up."""

    def inputs(self, batch: int) -> Streams:
        """What the first stage is fed."""

    def context(self, batch: int) -> Any:
        """What all stages see of the batch: labels, problem data."""


class Link(Protocol):
    """The way to a neighbouring segment; sending never blocks, receiving waits."""

    def send(self, message: Streams) -> None: ...

    def receive(self) -> Streams: ...


Observer = Callable[[int, Sequence[Worker]], None]


class Segment:
    """Stages ``workers[0].j .. workers[-1].j``; ``left`` and ``right`` lead to the neighbours, None at the ends of the network.

    ``forward_in[j]`` and ``backward_in[j]`` hold the message that stage j uses next.
    """

    def __init__(
        self, workers: Sequence[Worker], plan: Plan, batches: Batches, left: Link | None = None, right: Link | None = None
    ) -> None:
        self.workers, self.plan, self.batches = list(workers), plan, batches
        self.left, self.right = left, right
        self.forward_in: dict[int, Streams] = {}
        self.backward_in: dict[int, Streams] = {}

    def receive(self, t: int) -> None:
        """Wait for the messages from the neighbours that tick t uses."""
        first, last = self.workers[0].j, self.workers[-1].j
        if self.left and first not in self.forward_in and self.plan.forward(first, t) is not None:
            self.forward_in[first] = self.left.receive()
        if self.right and last not in self.backward_in and self.plan.backward(last, t) is not None:
            self.backward_in[last] = self.right.receive()

    def tick(self, t: int, observer: Observer | None = None) -> None:
        """Tick t, its messages having been received."""
        plan, forward_out, backward_out = self.plan, {}, {}
        for w in self.workers:
            if (batch := plan.forward(w.j, t)) is not None:
                x = self.forward_in.pop(w.j) if w.j > 1 else self.batches.inputs(batch)
                forward_out[w.j + 1] = w.forward(batch, x, self.batches.context(batch))
        for w in self.workers:
            if (batch := plan.backward(w.j, t)) is not None:
                message = self.backward_in.pop(w.j) if w.j < plan.J else ()
                backward_out[w.j - 1] = w.backward(batch, message, self.batches.context(batch))
        if observer is not None:
            observer(t, self.workers)
        for w in self.workers:
            w.update()
        self._deliver(forward_out, backward_out)

    def _deliver(self, forward_out: dict[int, Streams], backward_out: dict[int, Streams]) -> None:
        first, last = self.workers[0].j, self.workers[-1].j
        for j, message in forward_out.items():
            if j <= last:
                self.forward_in[j] = message
            elif self.right:
                self.right.send(message)
        for j, message in backward_out.items():
            if j >= first:
                self.backward_in[j] = message
            elif self.left:
                self.left.send(message)
