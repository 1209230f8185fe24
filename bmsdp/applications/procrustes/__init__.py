r"""Clouds of points from noisy copies after unknown rotations: generalised orthogonal Procrustes, in low and in high noise.

The model: N copies ``Y_i = Q_i X + sigma E_i`` of k labelled points X (d, k), with Q_i in O(d) unknown and independent standard
Gaussian noise. X is determined up to O(d). If the noise is low one aligns: estimates the Q_i, and averages. If it is high
no method can, yet the Gram matrix does not mind: ``E (1/N) sum_i Y_i^T Y_i = X^T X + d sigma^2 I`` for any Q_i, so its leading
eigenvectors give X, with an error that falls like ``sigma / sqrt(N)`` in low and ``sigma^2 / sqrt(N)`` in high noise. Both are the
best possible (Pumir, Singer & Boumal, Information and Inference 2021).

>>> import numpy as np
>>> from bmsdp.applications import procrustes
>>> X = np.random.default_rng(0).standard_normal((3, 20))
>>> Y = procrustes.simulate(X, 2.0, 40_000, rng=1)  # twice as much noise as signal: no copy can be aligned
>>> found = procrustes.fit(Y)
>>> print(found.method, f"{procrustes.distance(X, found.X) / np.linalg.norm(X):.2f} {found.sigma:.2f}")
gram 0.01 2.00

Where what is derived: the estimator in `spectrum`, one-pass sums in `gram`, noise and rank in `detection`, the error in `risk`, least
squares and its relaxation in `alignment`, mirror images in `chirality`.
"""

from .alignment import Alignment, ascend, least_squares, problem, recover
from .chirality import chirality, chirality_second_moment
from .estimator import Procrustes
from .fit import ProcrustesFit, fit
from .geometry import Aligned, align, distance, haar, simulate
from .gram import GramAccumulator, GramSketch
from .intake import optimal_weights
from .risk import alignment_floor, alignment_limit, copies_needed, crossover, expected_mse, guaranteed_mse

__all__ = [
    "Aligned",
    "Alignment",
    "GramAccumulator",
    "GramSketch",
    "Procrustes",
    "ProcrustesFit",
    "align",
    "alignment_floor",
    "alignment_limit",
    "ascend",
    "chirality",
    "chirality_second_moment",
    "copies_needed",
    "crossover",
    "distance",
    "expected_mse",
    "fit",
    "guaranteed_mse",
    "haar",
    "least_squares",
    "optimal_weights",
    "problem",
    "recover",
    "simulate",
]
