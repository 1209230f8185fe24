"""Theory: functions of numbers (`rank`, `smoothed`) and of one point (`diagnostics`).

>>> from bmsdp import theory
>>> theory.barvinok_pataki(100), theory.generic_rank(100), theory.required_rank(100, 100, sigma=1e-4, norm_C=1.0)
(13, 14, 77)
"""

from .diagnostics import (
    Conditioning,
    FaceRank,
    GapBounds,
    SigmaK,
    conditioning,
    face_rank,
    gap_bound,
    nu2,
    sigma_k,
)
from .rank import barvinok_pataki, dim_sym, generic_rank
from .smoothed import (
    Guarantee,
    SmallEigenvalues,
    Tradeoff,
    g1,
    g2,
    g3,
    g4,
    g5,
    required_rank,
    small_eigenvalue_probability,
    smoothed_guarantee,
    tradeoff,
)

__all__ = [
    "Conditioning",
    "FaceRank",
    "GapBounds",
    "Guarantee",
    "SigmaK",
    "SmallEigenvalues",
    "Tradeoff",
    "barvinok_pataki",
    "conditioning",
    "dim_sym",
    "face_rank",
    "g1",
    "g2",
    "g3",
    "g4",
    "g5",
    "gap_bound",
    "generic_rank",
    "nu2",
    "required_rank",
    "sigma_k",
    "small_eigenvalue_probability",
    "smoothed_guarantee",
    "tradeoff",
]
