"""One large graph in a process of its own: ``python million.py N TOL SECONDS`` prints a line of JSON."""

import json
import resource
import sys
import time
from pathlib import Path

import bmsdp
from bmsdp.applications import maxcut


def gigabytes() -> float:
    """Peak memory of this process so far.  (On Linux getrusage would include the process that started this one.)"""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e9 if sys.platform == "darwin" else 1e6)


n, tol, limit = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
C = maxcut.laplacian_cost(bmsdp.gallery.gnp(n, 10 / n, rng=0))
compiling = maxcut.laplacian_cost(bmsdp.gallery.toroidal_grid(150, 150, rng=0))  # large enough for the parallel kernels
bmsdp.solve(compiling, rng=0, threads=2, tol=0.5, progress=False)
before, begin = gigabytes(), time.perf_counter()
result = bmsdp.solve(C, tol=tol, max_time=limit, threads=2, rng=0, progress=False)
out = {"seconds": time.perf_counter() - begin, "gap": result.gap, "rigor": result.certificate.rigor, "rank": result.rank}
out |= {"success": result.success, "note": result.status.name, "before": before, "peak": gigabytes()}
print(json.dumps(out))
