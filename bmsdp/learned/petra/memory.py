"""How much memory training takes, from shapes alone: Table 3 of PETRA (arXiv:2406.02052), and what this engine holds.

Shapes come from torch's meta device: nothing is allocated and nothing computed, and the network may be on the meta device itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from .modes import PETRA, Mode
from .stage import Head, Stage, Streams, leaves


@dataclass(frozen=True)
class StageMemory:
    """Stage j of J, in numbers of values.

    Attributes
    ----------
    params, statistics, input : int
        Parameters; running statistics of batch normalisations; one batch of inputs.
    inputs, versions : int
        Inputs and copies of the parameters that wait for a backward; at most, between two ticks.
    graph : int
        Where the forward records its graph: what the graph keeps for one backward beyond the input.
    """

    name: str
    params: int
    statistics: int
    input: int
    inputs: int = 0
    versions: int = 0
    graph: int = 0

    @property
    def model(self) -> int:
        """Parameters, statistics and the input in work."""
        return self.params + self.statistics + self.input

    @property
    def buffers(self) -> int:
        """What waits for a backward."""
        return self.inputs * self.input + self.versions * self.params + self.graph

    @property
    def values(self) -> int:
        return self.model + self.buffers


def footprint(
    stages: Sequence[Stage], x: Streams, context: Any = None, mode: Mode = PETRA, k: int = 1, as_printed: bool = False
) -> list[StageMemory]:
    """Memory of each stage in training; 4 bytes a value in single precision.

    Parameters
    ----------
    x : Streams
        A batch of inputs of the network: only its shape and type matter; ``torch.empty(shape, device="meta")`` will do.
    context : object, optional
        What the stages are called with; the head is not called.
    as_printed : bool
        Count as the paper's Table 3 does: reversible stages and the head have one of the two streams as input, and the FIFO of the
        first stage is left out where reversible stages keep no inputs (its batches can be read again).  Otherwise all streams and
        all FIFOs, as this engine has them.

    Notes
    -----
    Left out: gradients, the optimizer's state, the accumulator (``params`` values each), work space, and messages.
    """
    J, found = len(stages), []
    with torch.no_grad():
        x = tuple(a.to("meta") for a in x)
        for j, stage in enumerate(stages, 1):
            head = isinstance(stage, Head)
            one = as_printed and (stage.invertible or head)
            size = sum(a.numel() for a in x)
            flight = 2 * (J - j) if mode.pipelined else min(1, J - j)  # batches between forward and backward, between two ticks
            keeps = mode.graph or mode.inputs or not (stage.invertible or (as_printed and j == 1))
            old = -(-flight // k) if as_printed else -(-(flight - 1) // k) + 1  # batches may straddle one update more
            found.append(
                StageMemory(
                    type(stage).__name__,
                    sum(p.numel() for p in stage.parameters()),
                    sum(b.numel() for b in stage.buffers() if b.is_floating_point()),
                    size // len(x) if one else size,
                    inputs=flight if keeps else 0,
                    versions=old if mode.params and flight else 0,
                    graph=recorded(stage, x, context) if mode.graph and not head else 0,
                )
            )
            if not head:
                x = _call(stage, x, context)
    return found


def gigabytes(parts: Sequence[StageMemory], itemsize: int = 4) -> float:
    """1e9 bytes of all stages."""
    return sum(part.values for part in parts) * itemsize / 1e9


def recorded(stage: Stage, x: Streams, context: Any = None) -> int:
    """What the graph of one forward keeps for its backward, in values of x's type; not counted are x, parameters and statistics."""
    abstract, inputs = _abstract(stage), leaves(tuple(a.to("meta") for a in x))
    kept: dict[int, Tensor] = {}

    def pack(t: Tensor) -> Tensor:
        kept[t.untyped_storage()._cdata] = t
        return t

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        functional_call(stage, abstract, (inputs, context))
    for t in (*abstract.values(), *inputs):
        kept.pop(t.untyped_storage()._cdata, None)
    return sum(t.untyped_storage().nbytes() for t in kept.values()) // x[0].element_size()


def _abstract(stage: Stage) -> dict[str, Tensor]:
    """Parameters and statistics of a stage without values."""
    named = [*stage.named_parameters(), *stage.named_buffers()]
    return {name: t.detach().to("meta").requires_grad_(t.requires_grad) for name, t in named}


def _call(stage: Stage, x: Streams, context: Any) -> Streams:
    return functional_call(stage, _abstract(stage), (x, context))
