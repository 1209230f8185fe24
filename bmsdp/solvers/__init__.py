"""Solvers are frozen dataclasses with a generator `iterates(problem, Y)` that never stops (floor L4)."""

from .default import Default
from .gradient_descent import GradientDescent
from .lbfgs import LBFGS
from .mixing import Mixing
from .multisecant import Multisecant
from .trust_region import TrustRegion

__all__ = ["LBFGS", "Default", "GradientDescent", "Mixing", "Multisecant", "TrustRegion"]
