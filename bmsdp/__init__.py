"""Certified low-rank semidefinite programming: ``min <C, X>  s.t.  A(X) = b, X >= 0`` with ``X = YY*``.

>>> import numpy as np, bmsdp
>>> C = np.array([[0.0, 1, 1], [1, 0, 1], [1, 1, 0]])
>>> result = bmsdp.solve(C, rng=0)  # unit diagonal
>>> result.status.name, round(result.bound, 4)
('CERTIFIED', -3.0)
"""

from . import cuts, gallery, manifolds, preconditioners, qn, rank_reduction, solvers, theory
from ._version import __version__
from .certificate import certify
from .check import check
from .checkpoint import checkpoint
from .interfaces.scipy import multisecant
from .manifolds import Oblique, ObliqueFace, Product, Quadratic, Sphere, SphereProduct, StiefelProduct, Unconstrained
from .minimize import minimize
from .operators import LowRankPlusSparse
from .penalty import Penalty
from .perturbation import Perturbation
from .problem import LocalModel, Problem, Term
from .result import Certificate, Result, Status
from .sdp import solve

__all__ = [
    "Certificate",
    "LocalModel",
    "LowRankPlusSparse",
    "Oblique",
    "ObliqueFace",
    "Penalty",
    "Perturbation",
    "Problem",
    "Product",
    "Quadratic",
    "Result",
    "Sphere",
    "SphereProduct",
    "Status",
    "StiefelProduct",
    "Term",
    "Unconstrained",
    "__version__",
    "certify",
    "check",
    "checkpoint",
    "cuts",
    "gallery",
    "manifolds",
    "minimize",
    "multisecant",
    "preconditioners",
    "qn",
    "rank_reduction",
    "solve",
    "solvers",
    "theory",
]
