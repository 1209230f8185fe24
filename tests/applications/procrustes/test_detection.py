"""Where noise ends, and how often it passes for a direction."""

import numpy as np
import pytest

from bmsdp.applications import procrustes as pc
from bmsdp.applications.procrustes.detection import estimated_noise, known_noise, lower_mean


@pytest.mark.parametrize(("n", "p"), [(300, 60), (60, 60), (40, 80)])
@pytest.mark.parametrize("share", [0.5, 0.9, 1.0])
def test_mean_of_the_smallest_eigenvalues_of_noise(n, p, share, rng):
    found = []
    for _ in range(30):
        E = rng.standard_normal((n, p))
        found.append(np.linalg.eigvalsh(E.T @ E / n)[: int(share * p)].mean())
    assert lower_mean(p / n, share) == pytest.approx(np.mean(found), abs=0.02)


def test_noise_passes_once_in_a_hundred(rng):
    d, k, N, known, unknown = 2, 30, 40, 0, 0
    for _ in range(1000):
        F = 3 * rng.standard_normal((N * d, k))
        values = np.linalg.eigvalsh(F.T @ F / N)[::-1]
        known += known_noise(values, d, k, d * 9.0, 9 / N, 81 / N, 9.0).rank > 0
        unknown += estimated_noise(values, values.sum(), d, k, 1 / N).rank > 0
    assert 1 <= known <= 25 and unknown <= 25


def test_equal_directions_do_not_hide_each_other(rng):
    """Eight points, three equal directions: what is left for the noise level is small."""
    found = [pc.fit(pc.simulate(np.eye(3, 8), 1.0, 1500, rng), "gram") for _ in range(40)]
    assert np.mean([one.detected_rank for one in found]) > 2.9
    assert np.mean([one.sigma2 for one in found]) == pytest.approx(1, rel=0.01)


def test_rank_of_low_noise_and_of_none():
    values = np.array([5.0, 2.0, 1e-16, 0.0])
    assert known_noise(values, 2, 4, 0.0, 0.0, 0.0, 0.0).rank == 2
    assert estimated_noise(values, values.sum(), 2, 4, 1.0) == (0.0, 2, 0.0)


def test_gaps_push_the_edge_up(rng):
    """Entries of M from different copies do not fit together: more eigenvalues leave the bulk, none is taken for a direction."""
    X = 20 * np.eye(3, 40)
    Y, mask = pc.simulate(X, 1.0, 60, rng), rng.random((60, 40)) < 0.8
    whole, gaps = pc.fit(Y, "gram"), pc.fit(Y, "gram", mask=mask)
    assert gaps.noise_edge > 2 * whole.noise_edge and gaps.eigenvalues[3] < gaps.noise_edge
    assert gaps.detected_rank == 3 and gaps.warnings == () and gaps.eigenvalues[3] > whole.noise_edge
