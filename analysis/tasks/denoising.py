"""Is the clean signal found? A VAE's posterior mean beside classical filters, and whether its uncertainty is right."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
import torch

from analysis.results.estimate import plus_minus
from analysis.results.verdict import Outcome, Verdict
from analysis.tasks.denoising_calibration import (
    DenoisingCalibration,
    calibrate_denoising,
    denoise_and_calibrate,
    p_of_difference,
)
from analysis.tasks.filters import TunedFilter, available_filters, tune_filter
from analysis.tasks.psnr import PSNR, psnr
from vae_pyro.applications.denoising import Denoised, noise_of
from vae_pyro.core.isolation import derive_seed
from vae_pyro.data.dataset import as_split
from vae_pyro.data.split import Split
from vae_pyro.models.vae import VAE

__all__ = ["PSNR", "DenoisingCalibration", "DenoisingCheck", "calibrate_denoising", "check_denoising", "psnr"]

type Array = np.ndarray[Any, Any]

_SMALL_SIZE = 10.0


@dataclass(frozen=True, eq=False)
class DenoisingCheck:
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
        outcome: Outcome = "pass" if share <= 0.05 else "warn" if share <= 0.5 else "fail"
        rows = [
            *self.calibration.verdicts,
            Verdict(
                question=f"Do enough draws carry the posterior (share of data with fewer than {_SMALL_SIZE:g})?",
                figure=share,
                error=sqrt(share * (1 - share) / len(sizes)),
                unit="",
                threshold="at most 0.05; fails above 0.5",
                source="convention: with 10 effective draws the mean is known to a third of a posterior sd",
                outcome=outcome,
                advice="" if outcome == "pass" else "raise num_draws, or fit a guide that is closer to the posterior",
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
                    figure=more,
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
        figures: dict[str, Any] = {"data_range": self.vae.data_range, **self.calibration.summary()}
        for key, score in (("psnr", self.vae), ("psnr_noisy", self.noisy)):
            figures[key], figures[f"{key}_se"] = score.value, score.error
        figures["psnr_monte_carlo_share"] = self.vae.monte_carlo
        for tuned, score in self.filters:
            figures[f"psnr_{tuned.name}"], figures[f"psnr_{tuned.name}_se"] = score.value, score.error
        return figures

    def __str__(self) -> str:
        lines = [f"PSNR at a data range of {self.vae.data_range:g}, {len(self.denoised):,} data, in dB:"]
        for name, score, more, error in self.rows():
            against = "" if name == self.vae.method else f"; VAE {'+' if more >= 0 else ''}{plus_minus(more, error)}"
            lines.append(f"  {name}: {plus_minus(score.value, score.error)}{against}")
        return "\n".join([*lines, str(self.calibration)])


def check_denoising(
    vae: VAE,
    noisy: Split | torch.Tensor | Array,
    clean: torch.Tensor | Array,
    *,
    data_range: float,
    validation: tuple[Array, Array] | None = None,
    filters: Sequence[str] | None = None,
    level: float = 0.9,
    num_draws: int = 500,
    seed: int = 0,
) -> DenoisingCheck:
    """Score a VAE's posterior of the clean signal on data whose truth is known, beside classical filters.

    The VAE sees no clean data. The filters have the options that were best on ``validation``.

    Args:
        vae: with a stated noise.
        noisy: held-out noisy data, ``(datum, *x_shape)``, all of them observed: filters know of no missing elements.
        clean: their truth, same shape, in units of the clean signal.
        data_range: full intensity of clean data, see `psnr`.
        validation: noisy and clean images that the filters' options are chosen on; ``None`` for no filters.
        filters: names; all that can be used here if not given.
        level: of the intervals.
        num_draws: for each datum.
        seed: of the draws.

    Raises:
        ValueError: a VAE without noise, data of another shape, missing or not finite elements, too few data (see
            `calibrate_denoising`), or filters without scikit-image.
    """
    noise = noise_of(vae)
    # Mean count at full intensity; the noise's own peak is that of a clean signal of 1.
    peak = None if noise.peak is None else noise.peak * data_range
    split = as_split(noisy).fixed(derive_seed(seed, 0))
    truth = np.asarray(clean, dtype=np.float64)

    def images(x: Any) -> Array:
        return noise.rescaled(torch.as_tensor(np.asarray(x), dtype=torch.float64)).numpy()

    x, given = split.batch(slice(None), torch.float64)
    if "mask" in given and not given["mask"].all():
        # Filters and the PSNR of noisy data would use what stands in the place of a missing element.
        raise ValueError(
            f"the comparison with filters wants complete data, and {int((~given['mask']).sum())} elements are missing; "
            "leave incomplete data out, or call denoise() or calibrate_denoising(), which take them"
        )
    seen = images(x.cpu())
    denoised, calibration = denoise_and_calibrate(vae, split, truth, level=level, num_draws=num_draws, seed=seed)
    scored = []
    if validation is not None:
        for name in available_filters() if filters is None else filters:
            tuned = tune_filter(
                name, images(validation[0]), np.asarray(validation[1]), data_range=data_range, peak=peak
            )
            scored.append((tuned, psnr(truth, tuned(seen), data_range=data_range, method=name)))
    return DenoisingCheck(
        denoised=denoised,
        vae=psnr(truth, denoised.mean, data_range=data_range, method="VAE, posterior mean", mean_se=denoised.mean_se),
        noisy=psnr(truth, seen, data_range=data_range, method="the noisy data"),
        filters=tuple(scored),
        calibration=calibration,
    )
