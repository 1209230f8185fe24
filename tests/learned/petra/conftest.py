"""Fixtures of the engine's tests."""

import pytest

EXECUTORS = ["simulate", "threads", "one rank"]


@pytest.fixture(params=EXECUTORS)
def execute(request):
    """``execute(pipeline, batches, until=None, observer=None)`` on every executor, in this process.

    Invariants T2, T4, T5, T7, T8, T10, T11, T12 are tested with it.  What holds here holds on several ranks, which are the simulator bit
    for bit, delays, counts, losses and what is held included (T9, test_distributed.py).
    """
    torch = pytest.importorskip("torch", reason='learned solvers need torch: pip install "bmsdp[learn]"')
    from bmsdp.learned import petra

    def two_stages_a_thread(pipeline, batches, until=None, observer=None):
        J = len(pipeline.stages)
        return petra.threads(pipeline, batches, until, observer, cuts=range(1, J, 2))

    def one_rank(pipeline, batches, until=None, observer=None):
        dist = torch.distributed
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        try:
            return petra.distributed(pipeline, batches, until, observer, gather=False, threads=torch.get_num_threads())
        finally:
            dist.destroy_process_group()

    if request.param == "one rank" and not (torch.distributed.is_available() and torch.distributed.is_gloo_available()):
        pytest.skip("this torch has no gloo")
    return {"simulate": petra.simulate, "threads": two_stages_a_thread, "one rank": one_rank}[request.param]
