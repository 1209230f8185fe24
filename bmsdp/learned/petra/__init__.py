"""PETRA: parallel training of reversible networks (arXiv:2406.02052), and its relatives, with one semantics on every executor.

Needs torch: ``pip install "bmsdp[learn]"``.
"""

try:
    import torch as torch
except ImportError:
    raise ImportError('bmsdp.learned.petra needs torch, which is not installed: pip install "bmsdp[learn]"') from None

from .batchnorm import BatchNorm2d
from .modes import APPROXIMATE, BACKPROP, BUFFER, MODES, PETRA, REVERSIBLE, REVSTASH, STASH, Mode, Plan
from .pipeline import Pipeline, simulate
from .segment import Batches, Link, Observer, Segment
from .stage import Checkpointed, Coupling, Head, Stage, Streams
from .worker import Worker

__all__ = [
    "APPROXIMATE",
    "BACKPROP",
    "BUFFER",
    "MODES",
    "PETRA",
    "REVERSIBLE",
    "REVSTASH",
    "STASH",
    "BatchNorm2d",
    "Batches",
    "Checkpointed",
    "Coupling",
    "Head",
    "Link",
    "Mode",
    "Observer",
    "Pipeline",
    "Plan",
    "Segment",
    "Stage",
    "Streams",
    "Worker",
    "simulate",
]
