"""What a stage keeps of a batch between its forward and its backward, and when each of them happens."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mode:
    """What is kept between forward and backward of a batch; stages without an inverse keep their input in every mode.

    Attributes
    ----------
    name : str
    pipelined : bool
        A new batch enters every tick.  Otherwise it enters when the one before has left: exact gradients, nothing in parallel.
    inputs : bool
        Reversible stages keep their inputs too.
    params : bool
        Forward-time parameters are kept; inverse and Jacobian use them.
    graph : bool
        The forward records its graph, and the backward runs on it: nothing is computed twice.
    current_inverse : bool
        Kept parameters serve the Jacobian only, the inverse uses the current ones: an ablation.
    """

    name: str
    pipelined: bool = True
    inputs: bool = False
    params: bool = False
    graph: bool = False
    current_inverse: bool = False

    def __post_init__(self) -> None:
        if self.graph and (self.pipelined or self.inputs or self.params):
            raise ValueError(f"mode {self.name!r}: a graph needs parameters that stay and no other copies: pipelined=False, nothing else")
        if self.current_inverse and (self.inputs or not self.params):
            raise ValueError(f"mode {self.name!r}: current_inverse needs params=True and inputs=False, or there is nothing it changes")

    def period(self, J: int) -> int:
        """Ticks between two batches that enter a pipeline of J stages."""
        return 1 if self.pipelined else 2 * J - 1


PETRA = Mode("petra")  # nothing is kept
REVSTASH = Mode("revstash", params=True)  # exact delayed gradients without activations
BUFFER = Mode("buffer", inputs=True)  # current parameters at kept inputs (DSP, PipeMare)
STASH = Mode("stash", inputs=True, params=True)  # delayed gradients (PipeDream, ADL)
APPROXIMATE = Mode("approximate", params=True, current_inverse=True)
BACKPROP = Mode("backprop", pipelined=False, graph=True)
REVERSIBLE = Mode("reversible", pipelined=False)  # backprop that keeps no activations of reversible stages
MODES = (PETRA, REVSTASH, BUFFER, STASH, APPROXIMATE, BACKPROP, REVERSIBLE)


@dataclass(frozen=True)
class Plan:
    """Which batch stage j of J (from 1) sees at tick t, forward and backward; the delay between the two is ``2 (J - j)`` ticks."""

    J: int
    period: int
    batches: int

    def forward(self, j: int, t: int) -> int | None:
        """The batch whose forward stage j does at tick t."""
        return self._batch(t - (j - 1))

    def backward(self, j: int, t: int) -> int | None:
        """The batch whose backward stage j does at tick t."""
        return self._batch(t - (2 * self.J - 1 - j))

    @property
    def ticks(self) -> int:
        """Ticks until the last batch has left: ``batches + 2 (J - 1)`` in a pipeline."""
        return (self.batches - 1) * self.period + 2 * self.J - 1 if self.batches > 0 else 0

    def held(self, j: int, t: int) -> range:
        """Batches whose forward stage j has done before tick t, and whose backward it has not."""
        return range(self._before(t - (2 * self.J - 1 - j)), self._before(t - (j - 1)))

    def _before(self, since: int) -> int:
        return min(max(-(-since // self.period), 0), max(self.batches, 0))

    def _batch(self, since: int) -> int | None:
        batch, rest = divmod(since, self.period)
        return batch if rest == 0 and 0 <= batch < self.batches else None
