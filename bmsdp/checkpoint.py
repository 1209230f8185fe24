"""Keep the state of a long run on disk (floor L4)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .problem import LocalModel


def checkpoint(path: str | os.PathLike[str], every: float = 60.0) -> Callable[[LocalModel, dict[str, Any]], None]:
    """A callback that writes Y to ``path`` (.npy) at most once in ``every`` seconds.

    Resume with ``solve(..., warm_start=numpy.load(path))``.  The file is replaced at once, so an interrupted write leaves the
    one before.  Y is in the solver's coordinates: the caller's own, unless rows of A were not unit spheres in order.
    """
    target, last = Path(path), [time.monotonic()]

    def callback(model: LocalModel, info: dict[str, Any]) -> None:
        if time.monotonic() - last[0] < every:
            return
        partial = target.with_name(target.name + ".part")
        with open(partial, "wb") as file:
            np.save(file, model.Y)
        os.replace(partial, target)
        last[0] = time.monotonic()

    return callback
