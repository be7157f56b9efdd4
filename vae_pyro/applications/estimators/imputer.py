"""`VAEImputer`: imputation by a VAE behind scikit-learn's interface."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.base import OneToOneFeatureMixin

from vae_pyro.applications.estimators.base import Estimator
from vae_pyro.applications.imputation import impute
from vae_pyro.applications.imputation_result import Imputation
from vae_pyro.core.isolation import derive_seed

type Array = np.ndarray[Any, Any]

_IMPUTE_STREAM = 2


class VAEImputer(OneToOneFeatureMixin, Estimator):
    """Fills what is missing with E[x | x_observed], by importance sampling, see `impute`.

    The defaults are those of the benchmark on a table of which half is missing.

    Args:
        latent_dim: dimension of z.
        likelihood: p(x | z), see `vae_pyro.likelihoods`.
        hidden: widths of the encoder's hidden layers; the decoder mirrors them.
        objective: see `vae_pyro.objectives`.
        epochs: passes over the data.
        batch_size: data in a step.
        lr: learning rate of Adam.
        num_draws: draws of z for each datum.
        encode_mask: pass the mask of observed elements to the encoder.
        compile: compile the steps, which pays in long fits.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        random_state: of the fit and of the draws: an integer, a ``RandomState``, or ``None``
            for another at each fit.

    Attributes:
        vae_: the fitted VAE, in float64.
        history_: see `vae_pyro.training.fitting.FitResult`.
        n_features_in_: number of elements.
        seed_: what ``random_state`` gave.

    References:
        Mattei & Frellsen 2019, MIWAE: deep generative modelling and imputation of incomplete data sets.
        arXiv:1812.02633
    """

    def __init__(
        self,
        latent_dim: int = 10,
        *,
        likelihood: str | Mapping[str, Any] = "student_t:scale=predicted,min_scale=0.3",
        hidden: Sequence[int] = (128, 128),
        objective: str | Mapping[str, Any] = "miwae_missing:num_particles=20",
        epochs: int = 300,
        batch_size: int = 64,
        lr: float = 1e-3,
        num_draws: int = 1000,
        encode_mask: bool = False,
        compile: bool = False,  # noqa: A002 (the name that FitConfig has)
        device: str = "cpu",
        random_state: Any = None,
    ) -> None:
        self.latent_dim = latent_dim
        self.likelihood = likelihood
        self.hidden = hidden
        self.objective = objective
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.num_draws = num_draws
        self.encode_mask = encode_mask
        self.compile = compile
        self.device = device
        self.random_state = random_state

    def transform(self, X: Any) -> Array:  # noqa: N803
        """The data with their missing elements filled; what was observed stays as it is.

        Args:
            X: ``(datum, element)``; NaN is not observed.
        """
        x = self._checked(X)
        return self._impute(x).mean.astype(x.dtype) if np.isnan(x).any() else x.copy()

    def impute(self, X: Any, *, num_imputations: int = 0, level: float | None = 0.9) -> Imputation:  # noqa: N803
        """The same with standard deviations, intervals and several imputations.

        Args:
            X: ``(datum, element)``; NaN is not observed.
            num_imputations: complete data sets to draw.
            level: share that intervals hold; ``None`` leaves them out.
        """
        return self._impute(self._checked(X), num_imputations=num_imputations, level=level)

    def _impute(self, x: Array, *, num_imputations: int = 0, level: float | None = None) -> Imputation:
        return impute(
            self.vae_,
            x,
            num_draws=self.num_draws,
            num_imputations=num_imputations,
            level=level,
            seed=derive_seed(self.seed_, _IMPUTE_STREAM),
        )
