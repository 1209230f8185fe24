"""Symmetric multisecant quasi-Newton updates, and what they solve, for any smooth problem."""

from .equations import fixed_point, root
from .grouped import GroupedMultisecant
from .memory import SymmetricMultisecant
from .updates import Factored, LowRank, Weighted, multisecant, symmetric_multisecant, weighted

__all__ = [
    "Factored",
    "GroupedMultisecant",
    "LowRank",
    "SymmetricMultisecant",
    "Weighted",
    "fixed_point",
    "multisecant",
    "root",
    "symmetric_multisecant",
    "weighted",
]
