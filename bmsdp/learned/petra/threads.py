"""The executor with one thread a segment: torch's operations release the interpreter's lock, so segments run side by side."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from queue import SimpleQueue

from .pipeline import Pipeline
from .segment import Observer, Segment, spans
from .stage import Streams


class Stopped(Exception):
    """Another segment failed: nobody will send what is waited for."""


class QueueLink:
    """One end of two queues; `None` in a queue says that no message will follow."""

    def __init__(self, out: SimpleQueue[Streams | None], into: SimpleQueue[Streams | None]) -> None:
        self.out, self.into = out, into

    def send(self, message: Streams) -> None:
        self.out.put(message)

    def receive(self) -> Streams:
        if (message := self.into.get()) is None:
            raise Stopped
        return message

    def stop(self) -> None:
        """Wake whoever waits at either end."""
        self.out.put(None)
        self.into.put(None)


def link() -> tuple[QueueLink, QueueLink]:
    """The right link of a segment, and the left link of its right neighbour."""
    forward: SimpleQueue[Streams | None] = SimpleQueue()
    backward: SimpleQueue[Streams | None] = SimpleQueue()
    return QueueLink(forward, backward), QueueLink(backward, forward)


class _Run:
    """The threads of one run, and the first thing that went wrong in any of them."""

    def __init__(self, parts: Sequence[Segment], start: int, end: int, observer: Observer | None) -> None:
        self.parts, self.start, self.end, self.observer = parts, start, end, observer
        self.failed: BaseException | None = None
        self.stopping = threading.Event()

    def work(self, part: Segment, ended: threading.Event) -> None:
        try:
            for t in range(self.start, self.end):
                if self.stopping.is_set():
                    return
                part.receive(t)
                part.tick(t, self.observer)
            part.receive(self.end)
        except Stopped:
            return
        except BaseException as error:  # whatever it is, the main thread raises it
            if not self.stopping.is_set():
                self.failed = error
            self.stop()
        finally:
            ended.set()

    def stop(self) -> None:
        self.stopping.set()
        for part in self.parts:
            for end in (part.left, part.right):
                if isinstance(end, QueueLink):
                    end.stop()


def threads(
    pipeline: Pipeline, batches: int, until: int | None = None, observer: Observer | None = None, cuts: Sequence[int] | None = None
) -> Pipeline:
    """Train in one thread for every segment of neighbouring stages; bitwise equal to `simulate`.

    Parameters
    ----------
    pipeline, batches, until
        As in `simulate`.
    observer : callable, optional
        ``observer(t, workers)`` in every thread with the workers of its segment, several at a time.
    cuts : sequence of int, optional
        Numbers of the stages after which the network is cut; by default after each.  The slowest segment sets the pace.

    Raises
    ------
    Exception
        The first error of any thread, when all of them have stopped, at most a tick later; Ctrl-C likewise.  The pipeline is
        then in the middle of a tick, and goes on from a checkpoint only.

    Notes
    -----
    Every thread runs torch's operations in up to ``torch.get_num_threads()`` threads of its own.  Set that to cores / segments
    (``torch.set_num_threads(1)`` for one stage a core) before the run: more of them wait for one another.  It is left as it
    is here, because sums depend on it in their last bits, and equality with `simulate` holds for equal settings.  Settings that
    torch keeps for each thread (autocast, default device, anomaly mode) start from their defaults in the new ones.
    A segment runs ahead of its right neighbour by at most ``2 (J - j)`` messages, while the pipeline fills.
    """
    parts = [pipeline.segment(batches, first, last) for first, last in spans(len(pipeline.stages), cuts)]
    for before, after in zip(parts, parts[1:], strict=False):
        before.right, after.left = link()
    end = max(pipeline.t, parts[0].plan.ticks if until is None else min(until, parts[0].plan.ticks))
    run = _Run(parts, pipeline.t, end, observer)
    names = [f"stages {part.workers[0].j}-{part.workers[-1].j}" for part in parts]
    ends = [threading.Event() for _ in parts]  # a join that Ctrl-C interrupts takes a running thread for a stopped one in Python 3.11
    jobs = zip(parts, ends, names, strict=True)
    workers = [threading.Thread(target=run.work, args=(part, ended), name=name, daemon=True) for part, ended, name in jobs]
    try:
        for worker in workers:
            worker.start()
        for ended in ends:
            while not ended.wait(0.1):  # a wait without end may not see Ctrl-C
                pass
    except BaseException:  # Ctrl-C reaches the main thread alone
        run.stop()
        raise
    finally:
        for worker in workers:
            if worker.ident is not None:
                worker.join()
    if run.failed is not None:
        raise run.failed
    pipeline.keep(parts, end)
    return pipeline
