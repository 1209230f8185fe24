"""scikit-learn: `CommunityDetection`, a clusterer with a bound on the modularity it could have reached (floor L8).

The class is built when it is first asked for, because scikit-learn is optional: ``pip install "bmsdp[sklearn]"``.

>>> from bmsdp.interfaces.sklearn import CommunityDetection  # doctest: +SKIP
>>> CommunityDetection(n_communities=3, random_state=0).fit_predict(X)  # doctest: +SKIP
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from scipy import sparse

from ..applications import community
from ..sdp import solve


def __getattr__(name: str) -> Any:
    if name == "CommunityDetection":
        return _community_detection()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it offers CommunityDetection")


def __dir__() -> list[str]:
    return ["CommunityDetection"]


AFFINITIES = ("rbf", "nearest_neighbors", "precomputed")


def affinity_of(X: Any, affinity: str, gamma: float | str, n_neighbors: int) -> Any:
    """Symmetric affinity without a diagonal (ndarray, or CSR where X or the affinity is sparse) of points X or of itself."""
    from sklearn.metrics.pairwise import rbf_kernel
    from sklearn.neighbors import kneighbors_graph

    if affinity == "precomputed":
        if X.shape[0] != X.shape[1]:
            raise ValueError(f"X has shape {X.shape}; a precomputed affinity must be square, samples by samples")
        W = sparse.csr_array(X) if sparse.issparse(X) else X.copy()
    elif affinity == "nearest_neighbors":
        near = kneighbors_graph(X, min(n_neighbors, X.shape[0] - 1), include_self=False)
        W = sparse.csr_array((near + near.T) / 2)
    else:
        W = rbf_kernel(X, gamma=_width(X) if gamma == "scale" else gamma)
        W = (W + W.T) / 2
    if isinstance(W, np.ndarray):
        np.fill_diagonal(W, 0.0)
        return W
    return sparse.csr_array(W - sparse.diags_array(W.diagonal()))


def _width(X: Any) -> float:
    """``1 / (n_features Var X)``, as in `sklearn.svm.SVC`; 1 for constant X."""
    mean = X.mean()
    variance = float((X.multiply(X) if sparse.issparse(X) else X * X).mean() - mean**2)
    return 1.0 / (X.shape[1] * variance) if variance > 0 else 1.0


def _check(parameters: dict[str, Any]) -> None:
    affinity, gamma, neighbors = (parameters[name] for name in ("affinity", "gamma", "n_neighbors"))
    if affinity not in AFFINITIES:
        raise ValueError(f"affinity = {affinity!r}; it must be one of {', '.join(map(repr, AFFINITIES))}")
    if gamma != "scale" and not (isinstance(gamma, (int, float, np.number)) and 0 < gamma < np.inf):
        raise ValueError(f'gamma = {gamma!r}; a positive number is needed, or "scale"')
    if isinstance(neighbors, bool) or not isinstance(neighbors, (int, np.integer)) or neighbors < 1:
        raise ValueError(f"n_neighbors = {neighbors!r}; a positive integer is needed")


class _CommunityDetection:
    """Communities of largest modularity by a semidefinite relaxation, with an upper bound on what any could have.

    See `bmsdp.applications.community`.

    Parameters
    ----------
    n_communities : int, optional
        At most so many; the best of 2 to 10 when None.
    affinity : {"rbf", "nearest_neighbors", "precomputed"}
        How X (n_samples, n_features) becomes a graph; "precomputed": X is its symmetric matrix of nonnegative weights.
    gamma : float or "scale"
        Of the rbf kernel ``exp(-gamma |x - y|^2)``; "scale" is ``1 / (n_features Var X)``.
    n_neighbors : int
    resolution : float
        Larger values favour smaller communities.
    tol : float
        Relative gap of the relaxation.
    random_state : int, RandomState or None

    Attributes
    ----------
    labels_ : ndarray of int, (n_samples,)
    affinity_matrix_ : ndarray or csr_array, without its diagonal
    n_communities_ : int
        How many were found.
    modularity_ : float
    bound_ : float
        No partition (into at most n_communities parts) has a larger modularity, as surely as ``result_.certificate.rigor`` says.
    result_ : bmsdp.Result
    """

    def __init__(
        self, n_communities: int | None = None, *, affinity: str = "rbf", gamma: float | str = "scale", n_neighbors: int = 10,
        resolution: float = 1.0, tol: float = 1e-4, random_state: Any = None,
    ):  # fmt: skip
        self.n_communities, self.affinity, self.gamma, self.n_neighbors = n_communities, affinity, gamma, n_neighbors
        self.resolution, self.tol, self.random_state = resolution, tol, random_state

    def fit(self, X: Any, y: Any = None) -> Any:
        """Find the communities of X (n_samples, n_features), or of the affinity X; y is ignored."""
        from sklearn.utils import check_random_state
        from sklearn.utils.validation import validate_data

        X = validate_data(self, X, accept_sparse=["csr", "csc", "coo"], dtype=np.float64, ensure_min_samples=2)
        _check(vars(self))
        W = affinity_of(X, self.affinity, self.gamma, self.n_neighbors)
        rng = np.random.default_rng(check_random_state(self.random_state).randint(2**31 - 1))
        problem = community.problem(W, self.n_communities, resolution=self.resolution)
        self.result_ = solve(problem, tol=self.tol, rng=rng, progress=False)
        found = community.recover(self.result_, self.n_communities, rng=rng)
        self.affinity_matrix_, self.labels_, self.n_communities_ = W, found.labels, found.count
        self.modularity_, self.bound_ = found.modularity, found.bound
        return self

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()  # type: ignore[misc]
        tags.input_tags.sparse = True
        tags.input_tags.pairwise = self.affinity == "precomputed"
        return tags


@functools.cache
def _community_detection() -> type:
    """`_CommunityDetection` as an estimator of scikit-learn."""
    try:
        from sklearn.base import BaseEstimator, ClusterMixin
        from sklearn.utils.validation import validate_data  # noqa: F401 (new in 1.6)
    except ImportError as error:
        raise ImportError(f'CommunityDetection needs scikit-learn 1.6 or newer ({error}): pip install "bmsdp[sklearn]"') from None
    members = {"__module__": __name__, "__doc__": _CommunityDetection.__doc__}  # where pickle finds it
    return type("CommunityDetection", (_CommunityDetection, ClusterMixin, BaseEstimator), members)
