"""The result of scoring a denoiser: PSNR beside those of classical filters, and calibration of its posterior."""

from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING, Any

from analysis.results.estimate import plus_minus
from analysis.results.result import Result
from analysis.results.text import screen
from analysis.results.verdict import Verdict, graded
from analysis.tasks.denoising.calibration_result import DenoisingCalibration, p_of_difference
from analysis.tasks.denoising.filters import TunedFilter
from analysis.tasks.denoising.psnr import PSNR
from vae_pyro.applications.denoising_result import Denoised

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_SMALL_SIZE = 10.0


@dataclass(frozen=True, eq=False, repr=False)
class DenoisingCheck(Result):
    """A VAE beside classical filters on noisy data whose truth is known.

    Attributes:
        denoised: what the VAE found.
        vae: its PSNR.
        noisy: PSNR of the noisy data as they are.
        filters: each filter, with the options that it was given, and its PSNR.
        calibration: of the VAE's posterior; filters state no uncertainty.
    """

    denoised: Denoised
    vae: PSNR
    noisy: PSNR
    filters: tuple[tuple[TunedFilter, PSNR], ...]
    calibration: DenoisingCalibration

    @property
    def best_filter(self) -> tuple[TunedFilter, PSNR] | None:
        """The filter with the greatest PSNR on these data, which favours it once more; ``None`` without filters."""
        return max(self.filters, key=lambda pair: pair[1].value, default=None)

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Of calibration, of the importance weights, and of the comparison with the best filter."""
        sizes = self.denoised.effective_sample_size
        share = float((sizes < _SMALL_SIZE).mean())
        outcome = graded(share, 0.05, 0.5)
        rows = [
            *self.calibration.verdicts,
            Verdict(
                question=f"Is the effective sample size large enough (share of data below {_SMALL_SIZE:g})?",
                value=share,
                error=sqrt(share * (1 - share) / len(sizes)),
                unit="",
                threshold="at most 0.05; fails above 0.5",
                source="convention: with 10 effective draws the error of the mean is a third of a posterior sd",
                outcome=outcome,
                remedy="raise num_draws, or fit a guide that is closer to the posterior",
                name="denoising_effective_sample_size",
            ),
        ]
        best = self.best_filter
        if best is not None:
            more, error = self.vae.minus(best[1])
            lost = more < 0 and p_of_difference(more, error, len(self.vae.squared_error)) < 0.05
            rows.append(
                Verdict(
                    question=f"Is the posterior mean closer to the clean data than {best[0]}?",
                    value=more,
                    error=error,
                    unit="dB",
                    threshold="above 0, within its error",
                    source="the filter had its options from clean data, and was chosen on these",
                    outcome="warn" if lost else "pass",
                    advice="the filter is closer: more data, more epochs or another network" if lost else "",
                    name="denoising_psnr",
                )
            )
        return tuple(rows)

    def rows(self) -> list[tuple[str, PSNR, float, float]]:
        """Method, PSNR, and the VAE's PSNR minus it with its standard error; the best first."""
        others = [(self.noisy.method, self.noisy), *((str(tuned), score) for tuned, score in self.filters)]
        rows = [(self.vae.method, self.vae, 0.0, 0.0)]
        rows += [(name, score, *self.vae.minus(score)) for name, score in others]
        return sorted(rows, key=lambda row: -row[1].value)

    def summary(self) -> dict[str, Any]:
        """Scalars for a report."""
        values: dict[str, Any] = {"data_range": self.vae.data_range, **self.calibration.summary()}
        for key, score in (("psnr", self.vae), ("psnr_noisy", self.noisy)):
            values[key], values[f"{key}_se"] = score.value, score.error
        values["psnr_monte_carlo_share"] = self.vae.monte_carlo
        for tuned, score in self.filters:
            values[f"psnr_{tuned.name}"], values[f"psnr_{tuned.name}_se"] = score.value, score.error
        return values

    def to_dataframe(self) -> "pd.DataFrame":
        """One row a method, the best first: PSNR with its error, and the VAE's PSNR minus it with its error, in dB."""
        import pandas as pd

        rows = [(name, score.value, score.error, more, error) for name, score, more, error in self.rows()]
        columns = ["method", "psnr", "psnr_se", "vae_minus", "vae_minus_se"]
        return pd.DataFrame(rows, columns=columns).set_index("method")

    def plot(self) -> "Figure":
        """PSNR of each method with its standard error."""
        from analysis.plotting import plot_bars

        frame = self.to_dataframe()
        return plot_bars(list(frame.index), frame["psnr"], frame["psnr_se"], xlabel="PSNR, dB, ± one standard error")

    def __str__(self) -> str:
        lines = [f"PSNR at a data range of {self.vae.data_range:g}, {len(self.denoised):,} data, in dB:"]
        for name, score, more, error in self.rows():
            against = "" if name == self.vae.method else f"; VAE {'+' if more >= 0 else ''}{plus_minus(more, error)}"
            lines.append(f"  {name}: {plus_minus(score.value, score.error)}{against}")
        return screen([*lines, *str(self.calibration).splitlines()])
