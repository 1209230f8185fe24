"""`Procrustes`: the fit as an estimator in the style of scikit-learn, which need not be installed."""

from __future__ import annotations

from typing import Any

import numpy as np

from .detection import tail_mean
from .fit import ProcrustesFit, fit
from .gram import GramAccumulator

PARAMETERS = ("method", "sigma", "center", "special", "shrink", "tol", "random_state")


class Procrustes:
    """The cloud behind noisy copies after unknown rotations; samples are copies (d, k), so X is (n_samples, d, k).

    It follows scikit-learn's conventions (`get_params`, `set_params`, `clone`, pipelines, cross-validation) without importing it.
    Parameters are those of `bmsdp.applications.procrustes.fit`.

    Parameters
    ----------
    method : {"auto", "gram", "sync"}
    sigma : float, optional
    center, special, shrink : bool
    tol : float
    random_state : int or None

    Attributes
    ----------
    cloud_ : ndarray, (d, k)
    sigma_ : float
    gram_ : ndarray, (k, k)
    result_ : ProcrustesFit

    Examples
    --------
    >>> import numpy as np
    >>> from bmsdp.applications import procrustes
    >>> Y = procrustes.simulate(np.eye(3, 10), 0.3, 500, rng=0)
    >>> model = procrustes.Procrustes().fit(Y)
    >>> model.transform(Y).shape
    (500, 3, 10)
    """

    def __init__(
        self, method: str = "auto", *, sigma: float | None = None, center: bool = False, special: bool = False, shrink: bool = False,
        tol: float = 1e-8, random_state: Any = 0,
    ):  # fmt: skip
        self.method, self.sigma, self.center, self.special = method, sigma, center, special
        self.shrink, self.tol, self.random_state = shrink, tol, random_state

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        return {name: getattr(self, name) for name in PARAMETERS}

    def set_params(self, **parameters: Any) -> Procrustes:
        for name, value in parameters.items():
            if name not in PARAMETERS:
                raise ValueError(f"{name} is no parameter of Procrustes; there are {', '.join(PARAMETERS)}")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        return f"Procrustes({', '.join(f'{name}={value!r}' for name, value in self.get_params().items())})"

    def fit(self, X: Any, y: Any = None, *, mask: Any = None, sample_weight: Any = None) -> Procrustes:
        """Fit to copies X (n_samples, d, k); y is ignored."""
        self.result_ = fit(
            X, self.method, sigma=self.sigma, center=self.center, mask=mask, weights=sample_weight, special=self.special,
            shrink=self.shrink, tol=self.tol, rng=self.random_state,
        )  # fmt: skip
        self.cloud_, self.sigma_, self.gram_ = self.result_.X, self.result_.sigma, self.result_.gram
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Copies X (n_samples, d, k) turned onto the cloud."""
        return self._fitted().transform(X)

    def fit_transform(self, X: Any, y: Any = None, **fit_params: Any) -> np.ndarray:
        """`fit`, then `transform`."""
        return self.fit(X, y, **fit_params).transform(X)

    def score(self, X: Any, y: Any = None) -> float:
        """How well the cloud predicts the Gram matrix of other copies: ``1 - |M - s I - G|^2 / |M - s I|^2``, at most 1.

        M is the mean Gram matrix of X (n_samples, d, k) and s the level of its noise, estimated from the same where k > d. Its
        expectation is largest at the true cloud, in any noise; residuals after alignment have no such property.
        """
        result = self._fitted()
        d, k = result.X.shape
        sums = GramAccumulator(d, k, center=self.center).update(X)
        m = sums.moments()
        assert m.matrix is not None
        Z = result.X if m.basis is None else result.X @ m.basis
        level = d * result.sigma2
        if self.sigma is None and m.k > d:
            level = d * tail_mean(np.linalg.eigvalsh(m.matrix)[::-1], m.trace, d, m.k)
        seen = m.matrix - level * np.eye(m.k)
        size = float(np.sum(seen**2))
        left = float(np.sum((seen - Z.T @ Z) ** 2))
        return 1 - left / size if size > 0 else float(left == 0)

    def _fitted(self) -> ProcrustesFit:
        if not hasattr(self, "result_"):
            raise ValueError("this Procrustes is not fitted yet; call fit(X) first")
        return self.result_

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import InputTags, Tags, TargetTags, TransformerTags

        return Tags(
            estimator_type=None, target_tags=TargetTags(required=False), transformer_tags=TransformerTags(),
            input_tags=InputTags(two_d_array=False, three_d_array=True),
        )  # fmt: skip
