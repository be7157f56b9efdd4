"""A VAE as scikit-learn estimators: `VAETransformer` to its latents, `VAEImputer` of what is missing.

Import them from here; the package itself does not load scikit-learn. Both take NaN for what was not observed, and go
into a ``Pipeline`` or ``GridSearchCV``.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from vae_pyro.applications.imputation import Imputation, impute
from vae_pyro.core.isolation import derive_seed, isolated
from vae_pyro.densities.moments import WeightSums
from vae_pyro.densities.sites import score_latents
from vae_pyro.densities.walk import ELEMENTS_AT_ONCE
from vae_pyro.models.config import VAEConfig
from vae_pyro.models.vae import VAE
from vae_pyro.training.config import FitConfig
from vae_pyro.training.fitting import fit

type Array = np.ndarray[Any, Any]

_SCORE_STREAM, _IMPUTE_STREAM, _SAMPLE_STREAM = 1, 2, 3
_FLOATS = [np.float64, np.float32]


class _Estimator(TransformerMixin, BaseEstimator):
    """What both estimators do: validate a table and fit a VAE to it."""

    latent_dim: int
    likelihood: str | Mapping[str, Any]
    hidden: Sequence[int]
    objective: str | Mapping[str, Any]
    epochs: int
    batch_size: int
    lr: float
    num_draws: int
    encode_mask: bool
    compile: bool
    device: str
    random_state: Any

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: N803 (scikit-learn's name)
        """Fit the VAE.

        Args:
            X: ``(datum, element)``; NaN is not observed.
            y: not used.

        Raises:
            ValueError: data outside the support of the likelihood, an element that is never observed, or an option that
                is not known.
        """
        x = validate_data(self, X, dtype=_FLOATS, ensure_all_finite="allow-nan", force_writeable=True)
        empty = np.flatnonzero(np.isnan(x).all(0))
        if len(empty):
            raise ValueError(f"column {empty[0]} has no value that is observed; drop it before the fit")
        self.seed_ = _seed(self.random_state)
        config = VAEConfig(
            x_shape=(x.shape[1],),
            latent_dim=self.latent_dim,
            likelihood=self.likelihood,
            encoder={"name": "mlp", "hidden": list(self.hidden)},
            encode_mask=self.encode_mask,
        )
        how = FitConfig(
            epochs=self.epochs,
            batch_size=self.batch_size,
            objective=self.objective,
            optimizer={"name": "adam", "lr": self.lr},
            compile=self.compile,
            device=self.device,
        )
        result = fit(VAE(config, seed=self.seed_), x, config=how, seed=self.seed_, progress=False)
        # In float64, sums do not depend on which other data are asked about; the draws of an imputation do.
        self.vae_ = result.vae.double()
        self.history_ = result.history
        return self

    def _checked(self, X: Any) -> Array:  # noqa: N803
        check_is_fitted(self)
        return validate_data(self, X, dtype=_FLOATS, ensure_all_finite="allow-nan", force_writeable=True, reset=False)


class VAETransformer(ClassNamePrefixFeaturesOutMixin, _Estimator):
    """Latents of a VAE: ``transform`` gives the means of q(z | x), ``score_samples`` log p(x).

    Args:
        latent_dim: dimension of z.
        likelihood: p(x | z), see `vae_pyro.likelihoods`: ``gaussian`` for real numbers, ``bernoulli`` for 0 and 1,
            ``poisson`` for counts.
        hidden: widths of the encoder's hidden layers; the decoder mirrors them.
        objective: see `vae_pyro.objectives`.
        epochs: passes over the data.
        batch_size: data in a step.
        lr: learning rate of Adam.
        num_draws: draws of z for each datum in ``score_samples``.
        encode_mask: the encoder is told which elements are observed.
        compile: compile the steps, which pays in long fits.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        random_state: of the fit, of scores and samples: an integer, a ``RandomState``, or ``None``
            for another at each fit.

    Attributes:
        vae_: the fitted VAE, in float64.
        history_: see `vae_pyro.training.fitting.FitResult`.
        n_features_in_: number of elements.
        seed_: what ``random_state`` gave.
    """

    def __init__(
        self,
        latent_dim: int = 2,
        *,
        likelihood: str | Mapping[str, Any] = "gaussian",
        hidden: Sequence[int] = (64,),
        objective: str | Mapping[str, Any] = "elbo",
        epochs: int = 100,
        batch_size: int = 128,
        lr: float = 1e-3,
        num_draws: int = 200,
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

    @property
    def _n_features_out(self) -> int:
        return self.vae_.config.latent_dim

    def transform(self, X: Any) -> Array:  # noqa: N803
        """Means of q(z | x), ``(datum, latent_dim)``.

        Args:
            X: ``(datum, element)``; NaN is not observed.
        """
        x = self._checked(X)
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
        z = check_array(X, dtype=_FLOATS)
        with torch.no_grad():
            return self.vae_.expectation(z).cpu().numpy().astype(z.dtype)

    def score_samples(self, X: Any) -> Array:  # noqa: N803
        """log p(x) of the observed elements, by importance sampling, nats, ``(datum,)``.

        The noise of a datum comes from ``random_state`` and its own values, so that its score does not depend on the
        others, and errors average out over them. Below log p(x) on average, by less for more ``num_draws``.

        Args:
            X: ``(datum, element)``; NaN is not observed.

        References:
            Burda et al. 2016, Importance weighted autoencoders, eq. 8. arXiv:1509.00519
        """
        if self.num_draws < 1:
            raise ValueError(f"num_draws must be at least 1, got {self.num_draws!r}")
        x = self._checked(X)
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
        seed = self.seed_ if random_state is None else _seed(random_state)
        return self.vae_.sample(n_samples, seed=derive_seed(seed, _SAMPLE_STREAM)).cpu().numpy()

    def _blocks(self, size: int) -> Iterator[slice]:
        held = self.num_draws * max(self.n_features_in_, self.latent_dim, *self.hidden)
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
        return log_px.cpu().numpy()


class VAEImputer(OneToOneFeatureMixin, _Estimator):
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
        encode_mask: the encoder is told which elements are observed.
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


def _seed(random_state: Any) -> int:
    """An integer of what scikit-learn takes for a source of randomness; another at each call for ``None``."""
    if random_state is None:  # not NumPy's global generator, which belongs to the caller
        return int(np.random.default_rng().integers(2**31 - 1))
    return int(check_random_state(random_state).randint(2**31 - 1))


def _mask(x: Array) -> Tensor | None:
    missing = np.isnan(x)
    return torch.from_numpy(~missing) if missing.any() else None


def _noise(seed: int, row: Array, shape: tuple[int, ...]) -> Array:
    """Standard normal numbers that depend on a seed and on the observed values of a datum."""
    seen = np.ascontiguousarray(np.where(np.isnan(row), np.nan, row), dtype=np.float64)  # one NaN of the many
    words = np.frombuffer(hashlib.blake2b(seen.tobytes(), digest_size=16).digest(), np.uint32)
    return np.random.default_rng([seed, *words]).standard_normal(shape)
