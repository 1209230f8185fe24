"""`bmsdp` as a solver of CVXPY problems.

    from bmsdp.interfaces.cvxpy import BMSDP
    problem.solve(solver=BMSDP(), rank=20)

    bmsdp.interfaces.cvxpy.register()
    problem.solve(method="bmsdp", rank=20)      # reads the problem without compiling it: for large X

Needs cvxpy 1.8 or newer: ``pip install "bmsdp[cvxpy]"``.
"""

from importlib.util import find_spec

if find_spec("cvxpy") is None:
    raise ImportError('bmsdp.interfaces.cvxpy needs cvxpy, which is not installed: pip install "bmsdp[cvxpy]"')

from .plugin import BMSDP
from .registered import register

__all__ = ["BMSDP", "register"]
