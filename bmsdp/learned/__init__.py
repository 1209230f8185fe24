"""Learned solvers, and PETRA, the engine that trains them (`bmsdp.learned.petra`).

Weights are used without torch; training networks needs it: ``pip install "bmsdp[learn]"``.

>>> from bmsdp import gallery, learned, solve
>>> weights = learned.MixingWeights.from_schedule([1.5, 1.8, 1.7, 1.2])
>>> solve(gallery.gnp(50, 0.2, rng=0), solver=learned.LearnedMixing(weights), rng=0).success
True
"""

from .fit import fit
from .solver import LearnedMixing
from .weights import MixingWeights, load, save

__all__ = ["LearnedMixing", "MixingWeights", "fit", "load", "save"]
