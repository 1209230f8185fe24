"""Reversible networks that are solvers: over-relaxed mixing sweeps with learned relaxations.

Needs torch: ``pip install "bmsdp[learn]"``.
"""

from .. import petra as petra  # names the missing package, if it is missing
from .instances import Draws, Instance, Product, instance
from .sweep import LogGap, Objective, SweepStage, checkpointed, gaps, network, weights_of

__all__ = [
    "Draws",
    "Instance",
    "LogGap",
    "Objective",
    "Product",
    "SweepStage",
    "checkpointed",
    "gaps",
    "instance",
    "network",
    "weights_of",
]
