"""Standardised errors of the truth: is the guide centred on the posterior, and as wide?"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from typing import Any

import numpy as np
from scipy.special import ndtr, stdtr

type Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False, repr=False)
class ZScores:
    """z-scores of true latents among draws of the guide, with tests of bias and of width for each latent.

    Attributes:
        z_score: (truth - mean) / sd of the draws, shape ``(simulation, latent)``; NaN for discrete latents.
        contraction: 1 - variance of the draws / variance of the prior, same shape; 0 where x is uninformative.
        expected_square: mean square of the z-score that the guide's draws have among themselves, shape ``(latent,)``.
        expected_fourth: the mean fourth power, likewise.

    References:
        Schad, Betancourt & Vasishth 2021, Toward a principled Bayesian workflow in cognitive science, z-score and
        contraction. arXiv:1904.12765
    """

    z_score: Array
    contraction: Array
    expected_square: Array
    expected_fourth: Array

    @cached_property
    def bias(self) -> Array:
        """Mean z-score: how far the truth lies above the guide's mean, in the guide's sd, shape ``(latent,)``."""
        return quietly(lambda: self.z_score.mean(0))

    @cached_property
    def bias_se(self) -> Array:
        """Standard error of `bias`."""
        return quietly(lambda: self.z_score.std(0, ddof=1) / sqrt(len(self.z_score)))

    @cached_property
    def spread(self) -> Array:
        """Sd of the z-score over what it is for the guide's own draws, ``(latent,)``: above 1 the guide is narrow."""
        spread = quietly(lambda: np.sqrt((self._centred**2).sum(0) / (len(self.z_score) - 1)))
        return np.where(np.isinf(self.z_score).any(0), np.inf, spread)

    @cached_property
    def spread_se(self) -> Array:
        """Standard error of `spread`, by the delta method."""
        return quietly(lambda: (self._centred**2).std(0, ddof=1) / sqrt(len(self.z_score)) / (2 * self.spread))

    @cached_property
    def p_bias(self) -> Array:
        """Of a mean z-score of 0 (t test), not adjusted, ``(latent,)``; 1 for discrete latents."""
        t = quietly(lambda: self.bias / self.bias_se)
        return np.where(np.isfinite(t), 2 * stdtr(len(self.z_score) - 1, -np.abs(np.nan_to_num(t))), 1.0)

    @cached_property
    def p_width(self) -> Array:
        """Of a spread of 1, not adjusted, ``(latent,)``; 1 for discrete latents, 0 where the guide has no width.

        The cube root of a variance is nearly normal (Wilson & Hilferty 1931); its degrees of freedom are those that
        the kurtosis of the guide's own draws leaves.
        """
        kurtosis = quietly(lambda: self.expected_fourth / self.expected_square**2)
        variance = self.spread**2
        usable = np.isfinite(kurtosis) & np.isfinite(variance) & (kurtosis > 1)
        error = 2 / 9 * (np.where(usable, kurtosis, 3.0) - 1) / (2 * (len(self.z_score) - 1))
        z = (np.cbrt(np.where(usable, variance, 1.0)) - (1 - error)) / np.sqrt(error)
        return np.where(usable, 2 * ndtr(-np.abs(z)), np.where(np.isinf(self.z_score).any(0), 0.0, 1.0))

    @property
    def _centred(self) -> Array:
        return (self.z_score - self.z_score.mean(0)) / np.sqrt(self.expected_square)


def quietly(compute: Callable[[], Array]) -> Array:
    """Compute without warnings about NaN and infinity, which discrete and degenerate latents have."""
    with np.errstate(all="ignore"):
        return np.asarray(compute())
