"""A run in rounds: every batch once, optimizers and schedule go on, checkpoints where reconstruction fails."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason='learned solvers need torch: pip install "bmsdp[learn]"')

from bmsdp.learned import MixingWeights, distil  # noqa: E402
from bmsdp.learned.networks import Draws, SweepStage  # noqa: E402
from bmsdp.learned.networks.training import ROUNDS, Training, reached, together  # noqa: E402
from bmsdp.learned.petra import simulate  # noqa: E402


@pytest.fixture
def parts(problem):
    problems = [problem("rows", 20, seed) for seed in range(4)]
    return problems, distil.samples(problems[:2], 5, 0)


def test_every_batch_once_and_optimizers_go_on(parts):
    problems, tests = parts
    seen, rates = [], []

    def execute(pipeline, count):
        seen.append((pipeline.batches.first, count))
        simulate(pipeline, count, observer=lambda t, workers: rates.append(workers[0].optimizer.param_groups[0]["lr"]))
        for worker in pipeline.workers[:-1]:
            state = worker.optimizer.state[worker.stage.params[0]]
            assert int(state["step"]) == sum(count for _, count in seen) // 3
        assert worker.optimizer.param_groups[0]["lr"] <= 0.01

    run = Training(k=3, rate=0.01, size=2, hidden=2, steps=25)
    weights, report = run(MixingWeights.from_schedule([1.4, 1.3]), problems, tests, 5, None, execute)
    assert len(seen) == ROUNDS and [first for first, _ in seen] == list(np.cumsum([0, *(count for _, count in seen)])[:-1])
    assert sum(count for _, count in seen) == 25 and all(count % 3 == 0 for _, count in seen[:-1])
    assert weights.L == 2 and set(report["gaps"]) == {"network", "network before"}


def test_stages_whose_reconstruction_failed_keep_their_input(parts):
    problems, _ = parts
    draws, sweeps = Draws(problems, 5, size=2), [SweepStage(1.6) for _ in range(4)]
    assert Training().chosen(sweeps, draws, 0) == set()
    sweeps[2].outside = 5
    assert Training().chosen(sweeps, draws, 0) == {3} and sweeps[2].outside == 5
    flat = [SweepStage(1.02) for _ in range(4)]
    assert Training().chosen(flat, draws, 0) >= {1} and 4 not in Training().chosen(flat, draws, 0)
    assert Training(checkpoints=[2, 4]).chosen(flat, draws, 0) == {2, 4}


def test_reached_is_the_mean_gap(parts):
    _, tests = parts
    here, x = together(tests)
    expected = [(test.problem.at(test.start).cost - test.optimum) / abs(test.optimum) for test in tests]
    assert reached([], tests) == pytest.approx(np.exp(np.mean(np.log(expected))), rel=1e-8)
