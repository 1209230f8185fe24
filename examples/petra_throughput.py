"""Batches per second: backprop on one and two threads, and PETRA simulated, on two threads, and on two processes.

python examples/petra_throughput.py          eight blocks of width 512, batches of 256; some two minutes on an idle machine of two cores
python examples/petra_throughput.py --quick  small layers, few batches and splits, seconds: shows that it runs, and nothing about speed

The network is eight additive couplings (y1, y2) = (x2 + F(x1), x1), F = two linear layers around a ReLU, in two stages of 3 + 5 or
4 + 4 blocks; the second stage ends in the loss and needs no reconstruction.  In units of one forward of a block, backprop takes
3 a block, and PETRA 4 in the first stage (forward, reconstruction, backward twice) and 3 in the second: on two cores the slower
stage sets the pace, so that 8 * 3 / max(4 a, 3 b) is the most that PETRA can gain with a + b blocks.  The last line has nine stages,
a block each and the loss, and is cut into 4 + 5.  Backprop is a plain loop in torch.  Every process of the two is pinned to a core.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bmsdp.learned.petra import Coupling, Head, Pipeline, Stage, Streams, simulate
from bmsdp.learned.petra.distributed import distributed
from bmsdp.learned.petra.threads import threads

BLOCKS, FOREVER = 8, 1_000_000
SPLITS = {"3 + 5": (3, None), "4 + 4": (4, None), "4 + 5, nine stages": (None, (4,))}  # blocks of the first of two stages; cuts


class Blocks(Stage):
    """Several couplings in one stage, inverted and differentiated one by one."""

    invertible = True

    def __init__(self, blocks: list[Coupling]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Streams, context: Any) -> Streams:
        for block in self.blocks:
            x = block(x, context)
        return x

    def inverse(self, y: Streams, context: Any) -> Streams:
        for block in reversed(self.blocks):
            y = block.inverse(y, context)
        return y

    def reverse_vjp(self, y: Streams, g: Streams, context: Any) -> tuple[Streams, Streams, list[Tensor]]:
        params: list[Tensor] = []
        for block in reversed(self.blocks):
            y, g, own = block.reverse_vjp(y, g, context)
            params = [*own, *params]
        return y, g, params


class Loss(Head):
    """Couplings, and the mean square of what comes out."""

    def __init__(self, blocks: list[Coupling]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Streams, context: Any) -> Tensor:
        for block in self.blocks:
            x = block(x, context)
        return x[0].square().mean() + x[1].square().mean()


class Data:
    """A few random batches, again and again."""

    def __init__(self, batch: int, width: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.all = [tuple(torch.randn(batch, width, generator=generator) for _ in range(2)) for _ in range(8)]

    def inputs(self, batch: int) -> Streams:
        return self.all[batch % len(self.all)]

    def context(self, batch: int) -> None:
        return None


def blocks(width: int) -> list[Coupling]:
    torch.manual_seed(0)
    return [Coupling(nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))) for _ in range(BLOCKS)]


def sgd(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(module.parameters(), lr=1e-3, momentum=0.9, nesterov=True)


def pipeline(first: int | None, size: tuple[int, int]) -> Pipeline:
    all_of_them = blocks(size[1])
    stages = [Blocks(all_of_them[:first]), Loss(all_of_them[first:])] if first else [*all_of_them, Loss([])]
    return Pipeline(stages, Data(*size), sgd)


# ---------------------------------------------------------------- seconds a batch, in windows


def windows(step: Callable[[int], Any], ticks: int, repeat: int) -> list[float]:
    """``step(n)`` trains n batches more; seconds a batch of each window, after one that does not count."""
    found = []
    for _ in range(repeat + 1):
        start = time.perf_counter()
        step(ticks)
        found.append((time.perf_counter() - start) / ticks)
    return found[1:]


def backprop(size: tuple[int, int], intra_op: int, ticks: int, repeat: int) -> list[float]:
    net, data = Loss(blocks(size[1])), Data(*size)
    optimizer = sgd(net)

    def step(n: int) -> None:
        for batch in range(n):
            loss = net(data.inputs(batch), None)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            loss.item()

    torch.set_num_threads(intra_op)
    found = windows(step, ticks, repeat)
    torch.set_num_threads(1)
    return found


def in_process(
    execute: Callable[..., Pipeline], first: int | None, size: tuple[int, int], ticks: int, repeat: int, **more: Any
) -> list[float]:  # fmt: skip
    line = pipeline(first, size)
    execute(line, FOREVER, until=2 * len(line.stages), **more)  # the pipeline fills
    return windows(lambda n: execute(line, FOREVER, until=line.t + n, **more), ticks, repeat)


def two_processes(name: str, options: argparse.Namespace) -> list[float]:
    """This script on two ranks; the first one's answer."""
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        port = door.getsockname()[1]
    here = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--rank-of", name, *(["--quick"] if options.quick else [])]
    env = {key: value for key, value in os.environ.items() if key != "LOCAL_RANK"} | here
    ranks = [subprocess.Popen(command, env=env | {"RANK": str(rank)}, stdout=subprocess.PIPE, text=True) for rank in range(2)]
    answers = [rank.communicate()[0] for rank in ranks]
    if any(rank.returncode for rank in ranks):
        raise SystemExit(f"a rank failed: exit codes {[rank.returncode for rank in ranks]}")
    return json.loads(answers[0])


def one_rank(name: str, size: tuple[int, int], ticks: int, repeat: int) -> None:
    """Time stamps of every tick, in one run: starting a run takes time that a long one does not notice."""
    first, cuts = SPLITS[name]
    line, stamps = pipeline(first, size), []
    fill = 2 * len(line.stages)
    pin = hasattr(os, "sched_setaffinity")
    last = fill + ticks * (repeat + 1) + 1
    distributed(line, FOREVER, until=last, observer=lambda t, workers: stamps.append(time.perf_counter()), cuts=cuts, pin=pin, gather=False)
    marks = stamps[fill + ticks :: ticks]
    if os.environ["RANK"] == "0":
        print(json.dumps([(after - before) / ticks for before, after in zip(marks, marks[1:], strict=False)]))


# ---------------------------------------------------------------- report


def most(name: str) -> str:
    a = SPLITS[name][0]
    return f"{BLOCKS * 3 / (max(4 * a, 3 * (BLOCKS - a)) if a else 16):.2f}"


def report(options: argparse.Namespace, size: tuple[int, int], ticks: int, repeat: int) -> None:
    torch.set_num_threads(1)
    cores, load = os.cpu_count(), os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    print(f"{BLOCKS} blocks of width {size[1]}, batches of {size[0]}; median of {repeat} windows of {ticks} batches [fastest, slowest]")
    print(f"torch {torch.__version__}, {cores} cores, load average of the last minute before: {load:.2f}")
    print("\n                                              ms a batch    batches/s   x backprop, 1 thread   at most", flush=True)
    ways: list[tuple[str, Callable[[], list[float]], str]] = [
        ("backprop, 1 thread", lambda: backprop(size, 1, ticks, repeat), ""),
        ("backprop, 2 threads inside operations", lambda: backprop(size, 2, ticks, repeat), ""),
        ("PETRA 4 + 4, simulator", lambda: in_process(simulate, 4, size, ticks, repeat), f"{24 / 28:.2f}"),
    ]
    for name, (first, cuts) in SPLITS.items():
        where = {"cuts": cuts or (1,)}
        ways.append((f"PETRA {name}, 2 threads", partial(in_process, threads, first, size, ticks, repeat, **where), most(name)))
    for name in list(SPLITS)[-1:] if options.quick else SPLITS:
        ways.append((f"PETRA {name}, 2 processes", partial(two_processes, name, options), most(name)))
    base = 0.0
    for name, measure, bound in ways:
        seconds = measure()
        middle = statistics.median(seconds)
        base = base or middle
        spread = f"[{1e3 * min(seconds):.1f}, {1e3 * max(seconds):.1f}]"
        print(f"{name:40s} {1e3 * middle:8.1f} {spread:>16s} {1 / middle:8.1f} {base / middle:12.2f} {bound:>16s}", flush=True)
    if options.quick:
        print("\n--quick: the layers are too small for these numbers to say anything about speed.")
    elif base < 7.5e-3:
        print(f"\nA tick computes for {1e3 * base * 2 / 3:.1f} ms here, and messages take about one: PETRA on processes wants 5 or more.")
    if load > 0.3 or (cores or 1) < 2:
        print(f"\nWARNING: this machine was not idle (load {load:.2f}) or has one core: two threads and two processes had no core each.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small layers, few batches and splits")
    parser.add_argument("--rank-of", choices=SPLITS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    size, ticks, repeat = ((16, 32), 5, 3) if options.quick else ((256, 512), 10, 7)
    if options.rank_of:
        one_rank(options.rank_of, size, ticks, repeat)
    else:
        report(options, size, ticks, repeat)


if __name__ == "__main__":
    main()
