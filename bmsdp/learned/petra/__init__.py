"""PETRA: parallel training of reversible networks (arXiv:2406.02052), and its relatives, with one semantics on every executor.

Needs torch: ``pip install "bmsdp[learn]"``.
"""

try:
    import torch as torch
except ImportError:
    raise ImportError('bmsdp.learned.petra needs torch, which is not installed: pip install "bmsdp[learn]"') from None

from .batchnorm import BatchNorm2d
from .checkpoint import Every, latest, load, save
from .distributed import distributed
from .modes import APPROXIMATE, BACKPROP, BUFFER, MODES, PETRA, REVERSIBLE, REVSTASH, STASH, Mode, Plan
from .monitor import GradientMonitor, Holdings, MemoryMonitor, Quality, exact_gradient, holdings
from .optimizers import adam, scaled_rate, sgd, warmup_cosine, warmup_steps
from .pipeline import Pipeline, simulate
from .post import PipelineError
from .segment import Batches, Link, Observer, Segment, spans
from .stage import Checkpointed, Coupling, Head, Stage, Streams
from .threads import threads
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
    "Every",
    "GradientMonitor",
    "Head",
    "Holdings",
    "Link",
    "MemoryMonitor",
    "Mode",
    "Observer",
    "Pipeline",
    "PipelineError",
    "Plan",
    "Quality",
    "Segment",
    "Stage",
    "Streams",
    "Worker",
    "adam",
    "distributed",
    "exact_gradient",
    "holdings",
    "latest",
    "load",
    "save",
    "scaled_rate",
    "sgd",
    "simulate",
    "spans",
    "threads",
    "warmup_cosine",
    "warmup_steps",
]
