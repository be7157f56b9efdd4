"""Held-out results of one run, datum by datum, stored in its folder so that runs can be compared."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from analysis.density.result import ELPD
from analysis.experiments import held_out_file
from analysis.results.estimate import plus_minus
from analysis.results.result import Result, finite_or_none
from analysis.results.text import screen
from analysis.results.verdict import Verdict
from vae_pyro.core.means import mean_and_error
from vae_pyro.densities.measure import Measure
from vae_pyro.evaluation.evaluation import ACTIVE_VARIANCE

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

type Array = np.ndarray[Any, Any]


@dataclass(frozen=True, repr=False)
class HeldOut(Result):
    """Held-out results of one run for each datum: nats, float64, ``(datum,)`` unless stated otherwise.

    All of them come from the same draws of the guide: ``elbo = reconstruction - kl``, draw by draw.

    Attributes:
        log_px: log p(x) by importance sampling, with ``log_px_mcse``, its Monte Carlo standard error.
        elbo: mean log weight, with ``elbo_mcse``.
        kl: E_q[log q(z | x) - log p(z)], with ``kl_mcse``.
        reconstruction: E_q[log p(x | z)].
        pareto_k: tail index of the importance weights.
        rise: see `analysis.density.elpd.ELPD`; likewise ``smoothed`` and ``upper``.
        activity: variance over data of the posterior mean of each latent, ``(latent,)``, with ``activity_se``, its
            Monte Carlo standard error: 0 where the mean has a closed form.
        codes: posterior means, ``(datum, latent)``, in the dtype of the weights.
        code_kl: mean over data of KL(q(z_j | x) || p(z_j)), ``(latent,)``, of a Gaussian posterior's marginals and a
            standard normal prior; NaN where it has no closed form.
        ids: of the data.
        num_draws: K, draws for each datum.
        space: observation space of the data, in words.
        measure: ``probability``, ``probability given the total`` of x, or ``density``.
        fingerprint: of the observed values.
        epochs: number of epochs in the history of the fit; 0 without a history.
        seconds: duration of the fit, the sum over its history; NaN without a history.
        of: target of the density, see `analysis.density.elpd.ELPD`; ``None`` in files written before it was stored.
    """

    log_px: Array
    log_px_mcse: Array
    elbo: Array
    elbo_mcse: Array
    kl: Array
    kl_mcse: Array
    reconstruction: Array
    pareto_k: Array
    rise: Array
    smoothed: Array
    upper: Array
    activity: Array
    activity_se: Array
    codes: Array
    code_kl: Array
    ids: Array
    num_draws: int
    space: str = "the values as given"
    measure: Measure | None = None
    fingerprint: str = ""
    epochs: int = 0
    seconds: float = float("nan")
    of: str | None = None

    def __len__(self) -> int:
        return len(self.log_px)

    @property
    def elpd(self) -> ELPD:
        """The same log p(x) as the result of `analysis.density.elpd.elpd_of`."""
        return ELPD(
            pointwise=self.log_px,
            pointwise_mcse=self.log_px_mcse,
            pareto_k=self.pareto_k,
            num_draws=self.num_draws,
            rise=self.rise,
            smoothed=self.smoothed,
            elbo=self.elbo,
            upper=self.upper,
            ids=self.ids,
            space=self.space,
            measure=self.measure,
            fingerprint=self.fingerprint,
            of=self.of,
        )

    @property
    def active(self) -> Array:
        """Latents whose posterior mean varies over data with a variance above 0.01; boolean, ``(latent,)``.

        References:
            Burda et al. 2016, Importance weighted autoencoders, sec. 5. arXiv:1509.00519
        """
        return np.asarray(self.activity > ACTIVE_VARIANCE)

    @property
    def share_bad(self) -> float:
        """Share of data whose weights are too uneven, see `analysis.density.result.ELPD.bad`."""
        return float(self.elpd.bad.mean())

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Whether the estimates of log p(x) can be trusted."""
        return self.elpd.verdicts

    def summary(self) -> dict[str, Any]:
        """Totals and averages over data in nats, JSON-able; see `analysis.density.elpd.ELPD.summary`."""
        return {
            **self.elpd.summary(),
            "kl": float(self.kl.mean()),
            "reconstruction": float(self.reconstruction.mean()),
            "active_units": int(self.active.sum()),
            "share_bad": self.share_bad,
            "epochs": self.epochs,
            "seconds": finite_or_none(self.seconds),
            "fingerprint": self.fingerprint,
        }

    def to_xarray(self) -> xr.Dataset:
        """All results by ``datum`` and ``latent``; the scalars are attributes."""
        return held_out_file.to_dataset(self)

    def to_dataframe(self) -> "pd.DataFrame":
        """A row for each datum."""
        per_datum = [name for name, values in self.to_xarray().items() if values.dims == ("datum",)]
        return self.to_xarray()[per_datum].to_dataframe()

    def plot(self) -> "Figure":
        """k-hat of each datum."""
        from analysis.density.plot import plot_khat

        return plot_khat(self.pareto_k, self.elpd.good_k)

    def __str__(self) -> str:
        means = ", ".join(
            f"{name} {plus_minus(*mean_and_error(values))}"
            for name, values in (("ELBO", self.elbo), ("reconstruction", self.reconstruction), ("KL", self.kl))
        )
        lines = [
            *str(self.elpd).splitlines(),
            f"  {means} nats per datum ± standard error",
            f"  {int(self.active.sum())} of {len(self.activity)} latents active; fitted for {self.epochs:,} epochs",
        ]
        return screen(lines)
