"""Held-out estimates of a fitted pair: for each datum, in nats, each with its Monte Carlo standard error."""

from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from math import erfc, log, prod, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from vae_pyro.core.renamed import renamed
from vae_pyro.data.split import Split
from vae_pyro.densities.moments import LogDensityMoments
from vae_pyro.densities.pair import PairLike
from vae_pyro.densities.walk import Block, PairData, bind

if TYPE_CHECKING:
    import pandas as pd

ACTIVE_VARIANCE = 0.01


@dataclass(frozen=True, repr=False)
class Evaluation:
    """Estimates for each datum, and their averages.

    Attributes:
        elbo: E_q[log p(x, z) - log q(z | x)], nats, shape ``(datum,)``.
        log_px: log p(x) by importance sampling, nats, shape ``(datum,)``: a lower bound on average, which rises to
            log p(x) with the number of draws; 0 where nothing is observed.
        kl: E_q[log q(z | x) - log p(z)], nats; ``elbo = reconstruction - kl``, draw by draw.
        reconstruction: E_q[log p(x | z)], nats.
        elbo_se: Monte Carlo standard error of ``elbo``; likewise ``log_px_se``, ``kl_se``, ``reconstruction_se``.
        effective_sample_size: of the importance weights, between 1 and the number of draws.
        activity: variance over data of the posterior mean of each latent, with its Monte Carlo standard error; several
            sites stand one after the other, without classes and missing data
            (`vae_pyro.densities.sites.draw_sites`).
        num_elements: observed elements of each datum, which bits per dimension divide by.
        num_draws: draws for each datum.
        discrete: whether log p(x) is the log of a probability; if not, of a density in the units of x.
    """

    elbo: np.ndarray[Any, Any]
    elbo_se: np.ndarray[Any, Any]
    log_px: np.ndarray[Any, Any]
    log_px_se: np.ndarray[Any, Any]
    kl: np.ndarray[Any, Any]
    kl_se: np.ndarray[Any, Any]
    reconstruction: np.ndarray[Any, Any]
    reconstruction_se: np.ndarray[Any, Any]
    effective_sample_size: np.ndarray[Any, Any]
    activity: np.ndarray[Any, Any]
    activity_se: np.ndarray[Any, Any]
    num_elements: np.ndarray[Any, Any]
    num_draws: int
    discrete: bool | None = None

    def __len__(self) -> int:
        return len(self.elbo)

    @property
    def active_units(self) -> int:
        """Latents whose posterior mean varies over data with a variance above 0.01.

        References:
            Burda et al. 2016, Importance weighted autoencoders, sec. 5. arXiv:1509.00519
        """
        return int((self.activity > ACTIVE_VARIANCE).sum())

    @property
    def active_units_se(self) -> float:
        """Monte Carlo standard error of `active_units`: each latent may be on the wrong side of the threshold."""
        distance = np.abs(self.activity - ACTIVE_VARIANCE) / np.maximum(self.activity_se, 1e-300)
        wrong = np.array([erfc(d / sqrt(2)) / 2 for d in distance.ravel()])
        return float(np.sqrt((wrong * (1 - wrong)).sum()))

    def summary(self) -> dict[str, Any]:
        """Averages over data, in nats, each with ``<key>_se``, the Monte Carlo standard error of the average.

        ``sampling_se`` holds the other error: how far the averages would move with another test set of this size
        (``None`` for a single datum).
        """
        n = len(self)
        estimates: dict[str, Any] = {}
        sampling: dict[str, float | None] = {}
        for key in ("elbo", "log_px", "kl", "reconstruction"):
            values, errors = getattr(self, key), getattr(self, f"{key}_se")
            estimates[key] = float(values.mean())
            estimates[f"{key}_se"] = float(np.sqrt((errors**2).sum()) / n)
            sampling[key] = float(values.std(ddof=1) / np.sqrt(n)) if n > 1 else None
        to_bits = float(1 / (log(2) * self.num_elements.mean()))
        estimates["bits_per_dim"] = -estimates["log_px"] * to_bits
        estimates["bits_per_dim_se"] = estimates["log_px_se"] * to_bits
        moved = sampling["log_px"]
        sampling["bits_per_dim"] = None if moved is None else moved * to_bits
        estimates["active_units"] = self.active_units
        estimates["active_units_se"] = self.active_units_se
        estimates["num_draws"] = self.num_draws
        estimates["n"] = n
        estimates["sampling_se"] = sampling
        return estimates

    def to_dataframe(self) -> "pd.DataFrame":
        """A row for each datum: every estimate with its Monte Carlo standard error, in nats."""
        import pandas as pd

        names = ("elbo", "log_px", "kl", "reconstruction")
        columns = [column for name in names for column in (name, f"{name}_se")]
        return pd.DataFrame(
            {column: getattr(self, column) for column in (*columns, "effective_sample_size", "num_elements")}
        )

    def __str__(self) -> str:
        values = self.summary()
        names = {"elbo": "ELBO", "log_px": "log p(x)", "kl": "KL", "reconstruction": "E log p(x|z)"}
        lines = [f"{len(self):,} data, {self.num_draws:,} draws each; nats per datum ± Monte Carlo (± sampling)"]
        for key, name in names.items():
            sampling = values["sampling_se"][key]
            beside = "" if sampling is None else f" (± {sampling:.2g})"
            lines.append(f"  {name:<12} {values[key]:10.3f} ± {values[f'{key}_se']:.2g}{beside}")
        lines.append(f"  active units {values['active_units']} of {self.activity.size}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {str(self).splitlines()[0]}>"

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


class EvaluationReducer:
    """Collects what `evaluate` estimates from the blocks of a walk; several reducers can share one.

    Args:
        data: the pair and its data.
        num_draws: draws for each datum, at least 2.
    """

    def __init__(self, data: PairData, num_draws: int) -> None:
        self._data, self._num_draws = data, num_draws
        # Filled in place: parts kept between blocks would hold the heap open, which then grows with their number.
        self._estimates: dict[str, np.ndarray[Any, Any]] = {}

    def add(self, block: Block) -> None:
        """Add the data of a block."""
        moments = LogDensityMoments()
        for scores in block.scores():
            moments.update(scores.log_densities())
        found: dict[str, Tensor] = {}
        for key in ("elbo", "kl", "reconstruction"):
            found[key], found[f"{key}_se"] = moments.term(key)
        found["log_px"], found["log_px_se"] = moments.weights.log_evidence()
        found["effective_sample_size"] = moments.weights.effective_sample_size()
        latents = [moments.latent(name) for name in moments.latent_names]
        none = torch.empty(len(block), 0, dtype=torch.float64)
        found["mean"] = torch.cat([none, *(mean.reshape(len(mean), -1) for mean, _ in latents)], 1)
        found["variance"] = torch.cat([none, *(spread.reshape(len(spread), -1) for _, spread in latents)], 1)
        for key, value in found.items():
            if key not in self._estimates:
                self._estimates[key] = np.empty((len(self._data), *value.shape[1:]), value.numpy().dtype)
            self._estimates[key][block.rows] = value

    def result(self) -> Evaluation:
        """The estimates, once every block was added."""
        estimates = dict(self._estimates)
        activity, activity_se = activity_of(estimates.pop("mean"), estimates.pop("variance"), self._num_draws)
        split, measure = self._data.split, self._data.pair.measure
        elements = torch.full((len(split),), prod(split.x_shape))
        counts = (elements if split.mask is None else split.mask.flatten(1).sum(1)).cpu().numpy()
        # The probability of nothing is 1, where no draw says otherwise: a model of what is missing does.
        nothing = (counts == 0) & (estimates["reconstruction"] == 0) & (estimates["reconstruction_se"] == 0)
        for key in ("log_px", "log_px_se"):
            estimates[key] = np.where(nothing, 0.0, estimates[key])
        return Evaluation(
            **estimates,
            activity=activity,
            activity_se=activity_se,
            num_elements=counts,
            num_draws=self._num_draws,
            discrete=None if measure is None else not measure.dense,
        )


@renamed(num_samples="num_draws")
def evaluate(
    pair: PairLike,
    x: Split | Tensor | np.ndarray[Any, Any],
    *,
    num_draws: int = 1000,
    seed: int = 0,
    mask: Tensor | None = None,
    y: Any = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Estimate ELBO, log p(x), KL, reconstruction and active units on held-out data.

    Streams over data and particles; memory does not grow with either.

    Args:
        pair: a `VAE`, or any Pyro ``(model, guide)`` that keeps the contract of `vae_pyro.Pair`.
        x: ``(datum, *x_shape)``. A split whose observations are random is fixed with ``seed`` first.
        num_draws: draws for each datum, at least 2.
        seed: of the draws. The same seed and sizes give the same draws, so that runs can be compared.
        mask: boolean, shape of ``x``, true where observed; NaN is not observed.
        y: classes ``(datum,)`` that the programs are given; all densities are conditional on them.
        progress: called after each block with the numbers of data that are done, and of all.

    Returns:
        Estimates for each datum.

    Raises:
        ValueError: fewer than 2 draws, or data outside the support of the likelihood.
    """
    if num_draws < 2:
        raise ValueError(f"num_draws must be at least 2 for a standard error, got {num_draws}")
    data = bind(pair, x, seed=seed, mask=mask, y=y)
    reducer = EvaluationReducer(data, num_draws)
    for block in data.walk(num_draws, seed=seed):
        reducer.add(block)
        progress(block.rows.stop, len(data))
    return reducer.result()


def activity_of(mean: Any, variance: Any, num_draws: int) -> tuple[Any, Any]:
    """Variance over data of the posterior mean of each latent, and its Monte Carlo standard error, each ``(latent,)``.

    Args:
        mean: estimates of the posterior means, ``(datum, latent)``.
        variance: of the draws that each is the mean of, likewise; 0 where the mean is exact.
        num_draws: draws for each datum.
    """
    # A posterior mean estimated from K draws carries noise v / K, which adds to its variance over data and is taken
    # off again; the error is that of the variance of a noisy sample to first order, plus that of the noise's own.
    noise = variance / num_draws
    n = len(mean)
    centred = mean - mean.mean(0)
    activity = (centred**2).sum(0) / max(n - 1, 1) - noise.mean(0)
    error = np.sqrt(4 * (centred**2 * noise).sum(0) + 2 * (noise**2).sum(0)) / max(n - 1, 1)
    return np.maximum(activity, 0.0), error
