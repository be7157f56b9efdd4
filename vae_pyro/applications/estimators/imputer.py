"""`VAEImputer`: imputation by a VAE behind scikit-learn's interface."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from sklearn.base import OneToOneFeatureMixin

from vae_pyro.applications.estimators.base import Estimator
from vae_pyro.applications.imputation import impute
from vae_pyro.applications.imputation_result import Imputation
from vae_pyro.core.isolation import derive_seed

type Array = np.ndarray[Any, Any]

_IMPUTE_STREAM = 2


@dataclass(repr=False, eq=False, kw_only=True)
class VAEImputer(OneToOneFeatureMixin, Estimator):
    """Fills what is missing with E[x | x_observed], by importance sampling, see `impute`.

    Arguments and attributes are those of `vae_pyro.applications.estimators.base.Estimator`, with the defaults of the
    benchmark on a table of which half is missing.

    References:
        Mattei & Frellsen 2019, MIWAE: deep generative modelling and imputation of incomplete data sets.
        arXiv:1812.02633
    """

    latent_dim: int = field(default=10, kw_only=False)
    likelihood: str | Mapping[str, Any] = "student_t:scale=predicted,min_scale=0.3"
    hidden: int | Sequence[int] = (128, 128)
    objective: str | Mapping[str, Any] = "miwae_missing:num_particles=20"
    batch_size: int = 64
    num_draws: int = 1000

    def transform(self, X: Any) -> Array:  # noqa: N803
        """The data with their missing elements filled; what was observed stays as it is.

        Args:
            X: ``(datum, element)``; NaN is not observed.
        """
        x = self._checked(X)
        if not np.isnan(x).any():
            return x.copy()
        return np.where(np.isnan(x), self._impute(x).mean, x).astype(x.dtype)

    def impute(self, X: Any, *, num_imputations: int = 0, level: float | None = 0.9) -> Imputation:  # noqa: N803
        """The same with standard deviations, intervals and several imputations.

        Args:
            X: ``(datum, element)``; NaN is not observed.
            num_imputations: complete data sets to draw.
            level: share that intervals hold; ``None`` leaves them out.
        """
        return self._impute(self._checked(X), num_imputations=num_imputations, level=level)

    def _impute(self, x: Array, *, num_imputations: int = 0, level: float | None = None) -> Imputation:
        found = impute(
            self.vae_,
            self._moved(x),
            num_draws=self.num_draws,
            num_imputations=num_imputations,
            level=level,
            seed=derive_seed(self.seed_, _IMPUTE_STREAM),
        )
        if not self.offset_.any():
            return found
        return replace(
            found,
            mean=self._moved(found.mean, 1),
            lower=None if found.lower is None else self._moved(found.lower, 1),
            upper=None if found.upper is None else self._moved(found.upper, 1),
            imputations=self._moved(found.imputations, 1),
        )
