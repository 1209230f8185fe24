"""Fixtures of the engine's tests."""

import pytest

EXECUTORS = ["simulate", "threads"]


@pytest.fixture(params=EXECUTORS)
def execute(request):
    """``execute(pipeline, batches, until=None, observer=None)`` on every executor that runs in one process."""
    from bmsdp.learned import petra

    def two_stages_a_thread(pipeline, batches, until=None, observer=None):
        J = len(pipeline.stages)
        return petra.threads(pipeline, batches, until, observer, cuts=range(1, J, 2))

    return {"simulate": petra.simulate, "threads": two_stages_a_thread}[request.param]
