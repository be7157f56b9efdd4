"""Base of the scikit-learn estimators: options, validation and the fit."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from vae_pyro.core.isolation import derive_seed
from vae_pyro.data.resolution import offsets
from vae_pyro.models.config import VAEConfig
from vae_pyro.models.vae import VAE
from vae_pyro.training.config import FitConfig
from vae_pyro.training.fitting import fit

type Array = np.ndarray[Any, Any]

FLOATS = [np.float64, np.float32]
_VALIDATION_SHARE, _FEWEST_DEALT, _DEAL_STREAM = 0.1, 1000, 4


@dataclass(repr=False, eq=False)
class Estimator(TransformerMixin, BaseEstimator):
    """Base of the estimators: validates a table and fits a VAE to it.

    Args:
        latent_dim: dimension of z.
        likelihood: p(x | z), see `vae_pyro.likelihoods`: ``gaussian`` for real numbers, ``bernoulli`` for 0 and 1,
            ``poisson`` for counts.
        hidden: widths of the encoder's hidden layers, or that of a single one; the decoder mirrors them.
        objective: see `vae_pyro.objectives`.
        epochs: passes over the data. ``None`` takes as many as the data require, see `vae_pyro.training.length`: of
            1,000 data or more, a tenth is held out, chosen at random; the fit stops where its validation objective no
            longer rises, and keeps the best weights. Of fewer, each is worth more to the fit than to its end.
        batch_size: data in a step.
        lr: learning rate of Adam.
        num_draws: draws of z for each datum.
        encode_mask: pass the mask of observed elements to the encoder.
        compile: compile the steps, which pays in long fits.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        random_state: of the fit and of draws: an integer, a ``RandomState``, or ``None`` for another at each fit.

    Attributes:
        vae_: the fitted VAE, in float64, of the data less ``offset_``.
        offset_: what is subtracted from each element in float64 before the VAE sees it, ``(element,)``: about its mean,
            where it lies so far from zero that float32 would round its variation; 0 elsewhere.
        history_: see `vae_pyro.training.fitting.FitResult`.
        ending_: likewise, how the fit ended.
        n_features_in_: number of elements.
        seed_: what ``random_state`` gave.
    """

    latent_dim: int = 2
    _: KW_ONLY
    likelihood: str | Mapping[str, Any] = "gaussian"
    hidden: int | Sequence[int] = (64,)
    objective: str | Mapping[str, Any] = "elbo"
    epochs: int | None = None
    batch_size: int = 128
    lr: float = 1e-3
    num_draws: int = 200
    encode_mask: bool = False
    compile: bool = False
    device: str = "cpu"
    random_state: Any = None

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: N803 (scikit-learn's name)
        """Fit the VAE.

        Args:
            X: ``(datum, element)``; NaN, or what a masked array hides, is not observed.
            y: not used.

        Raises:
            ValueError: data outside the support of the likelihood, an element that is never observed, or an option that
                is not known.
        """
        x = validate_data(self, _unmasked(X), dtype=FLOATS, ensure_all_finite="allow-nan", force_writeable=True)
        empty = np.flatnonzero(np.isnan(x).all(0))
        if len(empty):
            raise ValueError(f"column {empty[0]} has no value that is observed; drop it before the fit")
        self.seed_ = seed_of(self.random_state)
        config = VAEConfig(
            x_shape=(x.shape[1],),
            latent_dim=self.latent_dim,
            likelihood=self.likelihood,
            encoder={"name": "mlp", "hidden": self._widths},
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
        vae = VAE(config, seed=self.seed_)
        self.offset_ = np.zeros(x.shape[1])
        if vae.model.likelihood.shift_invariant:
            self.offset_ = offsets(x.astype(np.float64))
        train, validation = self._dealt(self._moved(x))
        result = fit(vae, train, validation=validation, config=how, seed=self.seed_, progress=False)
        # In float64, sums do not depend on which other data are asked about; the draws of an imputation do.
        self.vae_ = result.vae.double()
        self.history_, self.ending_ = result.history, result.ending
        return self

    def _dealt(self, x: Array) -> tuple[Array, Array | None]:
        """Training data, and validation data where the data decide on the length and are many enough for some."""
        if self.epochs is not None or len(x) < _FEWEST_DEALT:
            return x, None
        held_out = round(_VALIDATION_SHARE * len(x))
        order = np.random.default_rng(derive_seed(self.seed_, _DEAL_STREAM)).permutation(len(x))
        train = x[order[held_out:]]
        if np.isnan(train).all(0).any():  # what an element is known by is among those held out
            return x, None
        return train, x[order[:held_out]]

    @property
    def _widths(self) -> list[int]:
        """Widths of the hidden layers; a number alone is one layer."""
        return (
            [int(self.hidden)] if isinstance(self.hidden, int | np.integer) else [int(width) for width in self.hidden]
        )

    def _checked(self, X: Any) -> Array:  # noqa: N803
        check_is_fitted(self)
        x = _unmasked(X)
        return validate_data(self, x, dtype=FLOATS, ensure_all_finite="allow-nan", force_writeable=True, reset=False)

    def _moved(self, x: Array, sign: int = -1) -> Array:
        """Data less ``offset_``, in float64 before they take their own type again; with it for a ``sign`` of 1."""
        if not self.offset_.any():
            return x
        return (x.astype(np.float64) + sign * self.offset_).astype(x.dtype)


def _unmasked(x: Any) -> Any:
    """NaN for what a masked array hides, which scikit-learn would take for observed."""
    if not isinstance(x, np.ma.MaskedArray) or x.dtype.kind not in "buif":
        return x
    kind = x.dtype if x.dtype.kind == "f" else np.float64
    return np.where(np.ma.getmaskarray(x), np.nan, x.data).astype(kind)


def seed_of(random_state: Any) -> int:
    """An integer seed from scikit-learn's ``random_state``; another at each call for ``None``."""
    if random_state is None:  # not NumPy's global generator, which belongs to the caller
        return int(np.random.default_rng().integers(2**31 - 1))
    return int(check_random_state(random_state).randint(2**31 - 1))
