"""Preconditioners of tCG: what brings the Hessian on the tangent space closer to a multiple of the identity (floor L4)."""

from .base import Preconditioner, Run
from .cholesky import Cholesky
from .diagonal import Jacobi
from .multisecant import Multisecant

__all__ = ["Cholesky", "Jacobi", "Multisecant", "Preconditioner", "Run"]
