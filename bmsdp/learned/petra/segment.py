"""Neighbouring stages in one place, tick by tick: the semantics that all executors share.

A tick: receive what the neighbours sent in the tick before, all forwards, all backwards, (observer), all updates, send.
Messages leave at the end of a tick and are used in the next one, inside a segment and between segments alike, so the
result does not depend on where the segments are cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch

from .modes import Plan
from .stage import Streams
from .worker import Worker


class Batches(Protocol):
    """Where batches come from: functions of the batch's number, so that every worker can look them up.

    The context is asked for twice a batch by every stage; the tensors of a batch in flight must not change.
    """

    def inputs(self, batch: int) -> Streams:
        """What the first stage is fed."""

    def context(self, batch: int) -> Any:
        """What all stages see of the batch: labels, problem data."""


class Link(Protocol):
    """The way to a neighbouring segment; sending never blocks, receiving waits."""

    def send(self, message: Streams) -> None: ...

    def receive(self) -> Streams: ...


Observer = Callable[[int, Sequence[Worker]], None]


def spans(J: int, cuts: Sequence[int] | None = None) -> list[tuple[int, int]]:
    """(first, last) stage of every segment; ``cuts`` are the last stages of all segments but the last, by default 1, 2, .., J - 1."""
    ends = list(range(1, J)) if cuts is None else list(cuts)
    if ends != sorted(set(ends)) or not all(1 <= end < J for end in ends):
        raise ValueError(f"cuts = {tuple(ends)}; needs increasing numbers of stages, from 1 to {J - 1}, the last ones of their segments")
    return list(zip([1, *(end + 1 for end in ends)], [*ends, J], strict=True))


def plain(message: Streams) -> Streams:
    """Contiguous and at the start of its memory, as a message is that has travelled or comes from a file.

    Sums depend in their last bits on how an array lies in memory, and no result may depend on where the network is cut.
    """
    if any(a.layout != torch.strided for a in message):
        return message
    resolved = [a.resolve_conj().resolve_neg() for a in message]
    return tuple(
        a if a.is_contiguous() and not a.storage_offset() else a.clone(memory_format=torch.contiguous_format) for a in resolved
    )  # fmt: skip


@contextmanager
def named(worker: Worker, batch: int, phase: str) -> Iterator[None]:
    """Errors say which stage and batch they come from."""
    try:
        yield
    except Exception as error:
        error.add_note(f"in the {phase} of batch {batch} at stage {worker.j} of {worker.J}, {type(worker.stage).__name__}")
        raise


class Segment:
    """Stages ``workers[0].j .. workers[-1].j``; ``left`` and ``right`` lead to the neighbours, None at the ends of the network.

    ``forward_in[j]`` and ``backward_in[j]`` hold the message that stage j uses next.  A run that stops before tick t with batches
    in flight ends in ``receive(t)``: what the neighbours sent last is then here, and no message is left between segments.
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
        if self.left is not None and first not in self.forward_in and self.plan.forward(first, t) is not None:
            self.forward_in[first] = self.left.receive()
        if self.right is not None and last not in self.backward_in and self.plan.backward(last, t) is not None:
            self.backward_in[last] = self.right.receive()

    def tick(self, t: int, observer: Observer | None = None) -> None:
        """Tick t, its messages having been received."""
        plan, forward_out, backward_out = self.plan, {}, {}
        for w in self.workers:
            w.t = None
        for w in self.workers:
            if (batch := plan.forward(w.j, t)) is not None:
                with named(w, batch, "forward"):
                    x = self.forward_in.pop(w.j) if w.j > 1 else plain(self.batches.inputs(batch))
                    forward_out[w.j + 1] = w.forward(batch, x, self.batches.context(batch))
        for w in self.workers:
            if (batch := plan.backward(w.j, t)) is not None:
                message = self.backward_in.pop(w.j) if w.j < plan.J else ()
                with named(w, batch, "backward"):
                    backward_out[w.j - 1] = w.backward(batch, message, self.batches.context(batch))
        if observer is not None:
            observer(t, self.workers)
        for w in self.workers:
            w.update()
        self._deliver(forward_out, backward_out)
        for w in self.workers:
            w.t = t + 1

    def _deliver(self, forward_out: dict[int, Streams], backward_out: dict[int, Streams]) -> None:
        first, last = self.workers[0].j, self.workers[-1].j
        for j, message in ((j, plain(message)) for j, message in forward_out.items()):
            if j <= last:
                self.forward_in[j] = message
            elif self.right is not None:
                self.right.send(message)
        for j, message in ((j, plain(message)) for j, message in backward_out.items()):
            if j >= first:
                self.backward_in[j] = message
            elif self.left is not None:
                self.left.send(message)
