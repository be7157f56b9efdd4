"""`VAETransformer`: posterior means, log densities and samples of a VAE behind scikit-learn's interface."""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from vae_pyro.applications.estimators.base import FLOATS, Estimator, seed_of
from vae_pyro.core.isolation import derive_seed, isolated
from vae_pyro.densities.moments import WeightSums
from vae_pyro.densities.sites import score_latents
from vae_pyro.densities.walk import ELEMENTS_AT_ONCE

type Array = np.ndarray[Any, Any]

_SCORE_STREAM, _SAMPLE_STREAM = 1, 3


class VAETransformer(ClassNamePrefixFeaturesOutMixin, Estimator):
    """Latents of a VAE: ``transform`` gives the means of q(z | x), ``score_samples`` log p(x).

    Arguments and attributes are those of `vae_pyro.applications.estimators.base.Estimator`.
    """

    @property
    def _n_features_out(self) -> int:
        return self.vae_.config.latent_dim

    def transform(self, X: Any) -> Array:  # noqa: N803
        """Means of q(z | x), ``(datum, latent_dim)``.

        Args:
            X: ``(datum, element)``; NaN is not observed.
        """
        x = self._moved(self._checked(X))
        loc, _ = self.vae_.posterior_moments(np.nan_to_num(x), mask=_mask(x))
        return loc.cpu().numpy().astype(x.dtype)

    def inverse_transform(self, X: Any) -> Array:  # noqa: N803
        """E[x | z], ``(datum, element)``.

        Args:
            X: latents, ``(datum, latent_dim)``.

        Raises:
            ValueError: another number of latents.
        """
        check_is_fitted(self)
        z = check_array(X, dtype=FLOATS)
        with torch.no_grad():
            return self._moved(self.vae_.expectation(z).cpu().numpy(), 1).astype(z.dtype)

    def score_samples(self, X: Any) -> Array:  # noqa: N803
        """log p(x) of the observed elements, by importance sampling, nats, ``(datum,)``.

        The noise of a datum comes from ``random_state`` and its own values, so that its score does not depend on the
        others, and errors average out over them. 0 where nothing is observed. Below log p(x) on average, by less for
        more ``num_draws``.

        Args:
            X: ``(datum, element)``; NaN is not observed.

        References:
            Burda et al. 2016, Importance weighted autoencoders, eq. 8. arXiv:1509.00519
        """
        if self.num_draws < 1:
            raise ValueError(f"num_draws must be at least 1, got {self.num_draws!r}")
        x = self._moved(self._checked(X))
        return np.concatenate([self._score(x[rows]) for rows in self._blocks(len(x))])

    def score(self, X: Any, y: Any = None) -> float:  # noqa: N803
        """Mean of `score_samples`: what ``GridSearchCV`` maximises.

        Args:
            X: ``(datum, element)``; NaN is not observed.
            y: not used.
        """
        return float(self.score_samples(X).mean())

    def sample(self, n_samples: int = 1, random_state: Any = None) -> Array:
        """Draw data from the prior predictive, ``(n_samples, element)``.

        Args:
            n_samples: how many.
            random_state: of the draws; ``None`` takes that of the fit.

        Raises:
            ValueError: fewer than 1.
        """
        check_is_fitted(self)
        seed = self.seed_ if random_state is None else seed_of(random_state)
        return self._moved(self.vae_.sample(n_samples, seed=derive_seed(seed, _SAMPLE_STREAM)).cpu().numpy(), 1)

    def _blocks(self, size: int) -> Iterator[slice]:
        held = self.num_draws * max(self.n_features_in_, self.latent_dim, *self._widths)
        count = max(ELEMENTS_AT_ONCE // held, 1)
        for start in range(0, size, count):
            yield slice(start, start + count)

    @torch.no_grad()
    def _score(self, rows: Array) -> Array:
        x, mask = self.vae_.as_input(np.nan_to_num(rows)), _mask(rows)
        given = {} if mask is None else {"mask": mask.to(x.device)}
        noise = np.stack([_noise(self.seed_, row, (self.num_draws, self.vae_.config.latent_dim)) for row in rows], 1)
        with isolated(derive_seed(self.seed_, _SCORE_STREAM)):
            posterior = self.vae_.encode(x, **given)
            z = posterior.mean + posterior.variance.sqrt() * torch.from_numpy(noise).to(x)
            log_likelihood, log_prior = score_latents(self.vae_.model, x, {"z": z}, **given)
            log_px, _ = WeightSums.of(log_likelihood + log_prior - posterior.log_prob(z)).log_evidence()
        return np.where(np.isnan(rows).all(1), 0.0, log_px.cpu().numpy())


def _mask(x: Array) -> Tensor | None:
    missing = np.isnan(x)
    return torch.from_numpy(~missing) if missing.any() else None


def _noise(seed: int, row: Array, shape: tuple[int, ...]) -> Array:
    """Standard normal numbers that depend on a seed and on the observed values of a datum."""
    seen = np.ascontiguousarray(np.where(np.isnan(row), np.nan, row), dtype=np.float64)  # one NaN of the many
    words = np.frombuffer(hashlib.blake2b(seen.tobytes(), digest_size=16).digest(), np.uint32)
    return np.random.default_rng([seed, *words]).standard_normal(shape)
