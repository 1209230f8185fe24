"""Messages between neighbouring ranks over torch.distributed."""

from __future__ import annotations

import re
from collections import deque
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from .stage import Streams

DTYPES = (
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64, torch.complex128,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
)  # fmt: skip
ALIGN = 64  # bytes, as torch allocates: sums over an array depend in the last bit on how it lies in memory
GRACE = 5.0  # seconds for telling the neighbours why a rank stops
ARRAYS, STOP = 0, 1


class PipelineError(RuntimeError):
    """A rank cannot go on because another one died, failed or kept silent."""


class Peer:
    """The `Link` to a neighbouring rank: each message is a header of four numbers and one packet of bytes.

    Sending posts the message and returns.  A message's buffers are kept until it has arrived, which the other rank's headers
    tell (``received``): so nothing waits, and as much is kept as there is in flight.

    Raises
    ------
    PipelineError
        From all methods but `stop` and `leave`, if the other rank is gone, stopped, or silent for ``timeout`` seconds.
    """

    def __init__(self, rank: int, name: str, group: Any, place: torch.device, home: torch.device, timeout: float) -> None:
        self.rank, self.name, self.group, self.timeout = rank, name, group, timeout
        self.place, self.home = place, home  # where messages travel, and where the stage is that takes them
        self.sent = self.received = 0
        self.pending: deque[tuple[int, list[Any], list[Tensor]]] = deque()

    def send(self, message: Streams) -> None:
        self._post(ARRAYS, *pack(message, self.place))

    def receive(self) -> Streams:
        header = torch.empty(4, dtype=torch.int64, device=self.place)
        self._take(header)
        kind, acknowledged, entries, size = header.tolist()
        packet = torch.empty(size, dtype=torch.uint8, device=self.place)
        if size:
            self._take(packet)
        self.received += 1
        while self.pending and self.pending[0][0] <= acknowledged:
            self._wait(self.pending.popleft()[1])
        if kind == STOP:
            raise PipelineError(bytes(packet.tolist()).decode(errors="replace"))
        return tuple(a.to(self.home) for a in unpack(packet, entries))

    def finish(self) -> None:
        """Wait until all that was sent has arrived."""
        while self.pending:
            self._wait(self.pending.popleft()[1])

    def stop(self, reason: str) -> None:
        """Tell the other rank why it will get nothing more, if it still listens."""
        try:
            text = torch.tensor(list(reason.encode()), dtype=torch.uint8, device=self.place)
            self._post(STOP, text, 0)
        except PipelineError:
            self.pending.clear()

    def leave(self) -> None:
        """Give the last messages a moment to arrive."""
        self.timeout = min(self.timeout, GRACE)
        try:
            self.finish()
        except PipelineError:
            self.pending.clear()

    def _post(self, kind: int, packet: Tensor, entries: int) -> None:
        self.sent += 1
        header = torch.tensor([kind, self.received, entries, packet.numel()], dtype=torch.int64).to(self.place)
        parts = [header, packet] if packet.numel() else [header]
        try:
            works = [dist.isend(part, group=self.group, group_dst=self.rank) for part in parts]
        except RuntimeError as error:
            raise self._lost(error) from error
        self.pending.append((self.sent, works, parts))

    def _take(self, buffer: Tensor) -> None:
        try:
            work = dist.irecv(buffer, group=self.group, group_src=self.rank)
        except RuntimeError as error:
            raise self._lost(error) from error
        self._wait([work])

    def _wait(self, works: list[Any]) -> None:
        try:
            for work in works:
                work.wait(timedelta(seconds=self.timeout))
        except RuntimeError as error:
            raise self._lost(error) from error

    def _lost(self, error: RuntimeError) -> PipelineError:
        silent = "timed out" in str(error).lower()
        return PipelineError(f"{self.name} kept silent for {self.timeout:g} s" if silent else f"{self.name} is gone ({cause(error)})")


def cause(error: BaseException) -> str:
    """The first sentence of an error of torch.distributed, without the place in its source."""
    text = re.sub(r"^\[[^\]]*:\d+\]\s*", "", str(error).strip()).splitlines()
    return text[0].split(". ")[0].rstrip(".") if text else type(error).__name__


def pack(message: Streams, place: torch.device) -> tuple[Tensor, int]:
    """All tensors in one packet of bytes, which begins with their dtypes and shapes (that many int64)."""
    if unknown := [a.dtype for a in message if a.dtype not in DTYPES]:
        raise TypeError(f"a message of {unknown[0]} cannot travel between ranks; these can: {', '.join(str(d)[6:] for d in DTYPES)}")
    numbers = [number for a in message for number in (DTYPES.index(a.dtype), a.dim(), *a.shape)]
    arrays = [torch.tensor(numbers, dtype=torch.int64), *message]
    starts = [0]
    for a in arrays:
        starts.append(starts[-1] + _room(a.numel() * a.element_size()))
    packet = torch.empty(starts[-1], dtype=torch.uint8, device=place)
    for a, start in zip(arrays, starts[:-1], strict=True):
        if a.numel():
            _view(packet, start, a.dtype, a.shape).copy_(a.detach())
    return packet, len(numbers)


def unpack(packet: Tensor, entries: int) -> Streams:
    """The tensors of a packet, as views."""
    numbers = _view(packet, 0, torch.int64, (entries,)).tolist()
    start, message = _room(8 * entries), []
    while numbers:
        dtype, dim = DTYPES[numbers[0]], numbers[1]
        shape, numbers = numbers[2 : 2 + dim], numbers[2 + dim :]
        message.append(_view(packet, start, dtype, shape))
        start += _room(message[-1].numel() * message[-1].element_size())
    return tuple(message)


def _view(packet: Tensor, start: int, dtype: torch.dtype, shape: Any) -> Tensor:
    size = torch.Size(shape)
    stop = start + size.numel() * torch.empty(0, dtype=dtype).element_size()
    return packet[start:stop].view(dtype).view(size) if size.numel() else torch.empty(size, dtype=dtype, device=packet.device)


def _room(size: int) -> int:
    return -(-size // ALIGN) * ALIGN
