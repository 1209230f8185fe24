"""One run of a CVXPY solver in a process of its own: ``python guarded.py KIND NUMBER SOLVER TOL SECONDS`` prints a line of JSON.

Interior-point methods look at the clock between their iterations only, and one iteration may take minutes and tens of GB.
"""

import dataclasses
import json
import resource
import sys

import instances
import rivals

GIGABYTES = 8

if __name__ == "__main__":
    kind, number, solver, tol, limit = sys.argv[1:]
    instance = getattr(instances, kind)[int(number)]
    resource.setrlimit(resource.RLIMIT_AS, (GIGABYTES * 10**9,) * 2)
    run = rivals.cvxpy_solver(instance.problem(), solver, float(tol), float(limit))
    print(json.dumps(dataclasses.asdict(run)))
