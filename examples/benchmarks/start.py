"""The first solve of a fresh process: ``python start.py [G1.rud]`` prints a line of JSON."""

import json
import sys
import time

begin = time.perf_counter()
import bmsdp  # noqa: E402

imported = time.perf_counter() - begin

from bmsdp.io.rudy import read_rudy  # noqa: E402

begin = time.perf_counter()
if len(sys.argv) > 1 and sys.argv[1]:
    C = read_rudy(sys.argv[1])[0]
else:
    from bmsdp.applications.maxcut import laplacian_cost

    C = laplacian_cost(bmsdp.gallery.gnp(800, 0.06, rng=0))
result = bmsdp.solve(C, rng=0, progress=False)
out = {"import": imported, "seconds": time.perf_counter() - begin, "n": C.shape[0], "gap": result.gap, "rank": result.rank}
print(json.dumps(out | {"rigor": result.certificate.rigor, "success": result.success}))
