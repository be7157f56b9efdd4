"""Can the guide be trusted? Draw latents and data from the model, and see where the truth falls in the guide's draws.

For an exact posterior the rank of the truth among independent draws is uniform, whatever the model. What is tested is
the guide on data of the fitted model, not the model on the data of the world.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from typing import Any

import numpy as np
import torch
from pyro import poutine
from scipy.special import ndtr, stdtr
from torch import Tensor

from analysis.results.verdict import Outcome, Verdict, worst
from analysis.stats.ecdf_bands import EcdfBand, ecdf_band, uniformity_p_value
from vae_pyro.core.isolation import derive_seed, isolated
from vae_pyro.data.split import Given, Split
from vae_pyro.densities.log_densities import Program, draw_latents, score_latents
from vae_pyro.densities.pair import PairLike, as_pair
from vae_pyro.densities.walk import ELEMENTS_AT_ONCE

type Array = np.ndarray[Any, Any]
# (latents {site: (particle, datum, *event)}, x (datum, *event)) -> (particle, datum)
type Quantity = Callable[[dict[str, Tensor], Tensor], Tensor]

HIGHEST_DENSITY, TARP = "highest density", "tarp"
_NAMED = ("log_likelihood", "log_prior", "log_joint")
# Latent numbers (particles x data x latents) held at once.
_NUMBERS_AT_ONCE = 2_000_000
# A departure is grave where 90 % intervals miss twice as often as they should, or half as often. For a Gaussian that is
# a width off by these factors, or a mean off by this many standard deviations.
_NARROW, _WIDE, _SHIFT = 1.645 / 1.282, 1.645 / 1.960, 0.679
_CONVENTION = "convention: 90 % intervals then miss twice, or half, as often as they promise"
_TRAIN = "train the guide longer or with a larger encoder"
_RICHER = "choose a richer family (full_rank, flow), or weight its draws by importance"


@dataclass(frozen=True, eq=False)
class Calibration:
    """Ranks of the truth among draws of the guide, and what follows from them.

    Tests: one of uniform ranks for each name, one of bias and one of width for each latent. Their p-values are
    multiplied by their number (Bonferroni), so that an exact posterior is rejected anywhere with a probability of at
    most ``1 - level``. With enough simulations every approximation is rejected; `verdicts` tell the grave ones apart.

    Attributes:
        names: of the columns of ``ranks``: latents, quantities, ``highest density``, ``tarp``.
        ranks: draws below the truth, in ``0..num_draws``, shape ``(simulation, name)``. For ``highest density``, draws
            of a higher log q(z | x) than the truth; for ``tarp``, draws closer to a random point than the truth.
        num_latents: how many of the names are latents, the first ones.
        num_draws: draws of the guide for each simulation.
        z_score: (truth - mean) / sd of the draws, shape ``(simulation, latent)``; NaN for discrete latents.
        contraction: 1 - variance of the draws / variance of the prior, same shape; 0 where x says nothing.
        expected_square: mean square of the z-score that the guide's draws have among themselves, shape ``(latent,)``.
        expected_fourth: the mean fourth power, likewise.
        level: probability that an exact posterior passes every test, at least.

    References:
        Talts et al. 2018, Validating Bayesian inference algorithms with simulation-based calibration.
        arXiv:1804.06788
        Schad, Betancourt & Vasishth 2021, Toward a principled Bayesian workflow in cognitive science, z-score and
        contraction. arXiv:1904.12765
    """

    names: tuple[str, ...]
    ranks: Array
    num_latents: int
    num_draws: int
    z_score: Array
    contraction: Array
    expected_square: Array
    expected_fourth: Array
    level: float = 0.95

    @property
    def num_simulations(self) -> int:
        """Latents and data drawn from the model."""
        return len(self.ranks)

    @property
    def num_tests(self) -> int:
        """What p-values are multiplied by."""
        return len(self.names) + 2 * self.num_latents

    @cached_property
    def band(self) -> EcdfBand:
        """Band of every column's ECDF; any column outside has an adjusted p-value of at most ``1 - level``."""
        level = 1 - (1 - self.level) / self.num_tests
        return ecdf_band(self.num_simulations, level=level, num_ranks=self.num_draws + 1)

    @property
    def ecdf_difference(self) -> Array:
        """ECDF of the ranks minus uniform on `band`'s grid, shape ``(point, name)``; the band minus grid bounds it."""
        return self.band.difference(self.ranks)

    @cached_property
    def p_values(self) -> Array:
        """Of uniform ranks, each on its own (not adjusted), shape ``(name,)``."""
        return np.asarray(uniformity_p_value(self.ranks, num_ranks=self.num_draws + 1))

    @property
    def adjusted_p_values(self) -> Array:
        """`p_values` times `num_tests`, at most 1."""
        return np.minimum(self.p_values * self.num_tests, 1.0)

    @property
    def coverage(self) -> tuple[Array, Array]:
        """Nominal levels ``(level,)`` of central intervals, and how often they hold the truth, ``(level, latent)``."""
        return coverage(self.ranks[:, : self.num_latents], self.num_draws)

    @cached_property
    def coverage_band(self) -> EcdfBand:
        """Band of each latent's coverage curve, simultaneous over levels and (as `band`) over tests."""
        level = 1 - (1 - self.level) / self.num_tests
        return ecdf_band(self.num_simulations, level=level, grid=self.coverage[0])

    @property
    def highest_density_coverage(self) -> tuple[Array, Array]:
        """Nominal levels (`band`'s grid) of highest-density regions of the guide, and how often they hold the truth.

        References:
            Hermans et al. 2022, A trust crisis in simulation-based inference? arXiv:2110.06581
        """
        return self.band.grid, self.band.ecdf(self.ranks[:, -2])

    @property
    def tarp_coverage(self) -> tuple[Array, Array]:
        """Nominal levels (`band`'s grid) of balls around random points, and how often they hold the truth.

        References:
            Lemos et al. 2023, Sampling-based accuracy testing of posterior estimators for general inference.
            arXiv:2302.03026
        """
        return self.band.grid, self.band.ecdf(self.ranks[:, -1])

    @cached_property
    def bias(self) -> Array:
        """Mean z-score: how far the truth lies above the guide's mean, in the guide's sd, shape ``(latent,)``."""
        return _quietly(lambda: self.z_score.mean(0))

    @cached_property
    def bias_se(self) -> Array:
        """Standard error of `bias`."""
        return _quietly(lambda: self.z_score.std(0, ddof=1) / sqrt(self.num_simulations))

    @cached_property
    def spread(self) -> Array:
        """Sd of the z-score over what it is for the guide's own draws, ``(latent,)``: above 1 the guide is narrow."""
        spread = _quietly(lambda: self._spread(self._centred**2))
        return np.where(np.isinf(self.z_score).any(0), np.inf, spread)

    @cached_property
    def spread_se(self) -> Array:
        """Standard error of `spread`, by the delta method."""
        return _quietly(lambda: self._spread_se(self._centred**2))

    @property
    def overall_spread(self) -> float:
        """Root mean square of `spread` over latents."""
        return float(_quietly(lambda: self._spread(self._squares_over_latents)))

    @property
    def overall_spread_se(self) -> float:
        """Standard error of `overall_spread`; latents of one simulation count as one."""
        return float(_quietly(lambda: self._spread_se(self._squares_over_latents)))

    @cached_property
    def p_bias(self) -> Array:
        """Of a mean z-score of 0 (t test), not adjusted, ``(latent,)``; 1 for discrete latents."""
        t = _quietly(lambda: self.bias / self.bias_se)
        return np.where(np.isfinite(t), 2 * stdtr(self.num_simulations - 1, -np.abs(np.nan_to_num(t))), 1.0)

    @cached_property
    def p_width(self) -> Array:
        """Of a spread of 1, not adjusted, ``(latent,)``; 1 for discrete latents, 0 where the guide has no width.

        The cube root of a variance is nearly normal (Wilson & Hilferty 1931); its degrees of freedom are those that
        the kurtosis of the guide's own draws leaves.
        """
        kurtosis = _quietly(lambda: self.expected_fourth / self.expected_square**2)
        variance = self.spread**2
        usable = np.isfinite(kurtosis) & np.isfinite(variance) & (kurtosis > 1)
        error = 2 / 9 * (np.where(usable, kurtosis, 3.0) - 1) / (2 * (self.num_simulations - 1))
        z = (np.cbrt(np.where(usable, variance, 1.0)) - (1 - error)) / np.sqrt(error)
        return np.where(usable, 2 * ndtr(-np.abs(z)), np.where(np.isinf(self.z_score).any(0), 0.0, 1.0))

    @property
    def rejected(self) -> bool:
        """Whether any test says that the guide is not the posterior."""
        p = np.concatenate([self.p_values, self.p_bias, self.p_width])
        return bool(p.min() * self.num_tests <= 1 - self.level)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Of each latent: ``calibrated``, ``too narrow``, ``too wide``, ``biased``, two of them, or ``misshapen``.

        ``misshapen`` is a latent whose ranks are not uniform while bias and width are in order. A bias that changes
        sign from datum to datum makes the guide too narrow for its error, and is called so.
        """
        found = []
        for index in range(self.num_latents):
            words = []
            if self._significant(self.p_width[index]):
                words.append("too wide" if self.spread[index] < 1 else "too narrow")
            if self._significant(self.p_bias[index]):
                words.append("biased")
            if not words:
                words.append("misshapen" if self._significant(self.p_values[index]) else "calibrated")
            found.append(" and ".join(words))
        return tuple(found)

    @property
    def statement(self) -> str:
        """What is wrong with the guide, in a sentence, with the worst latents and by how much."""
        labels = self.labels
        wrong = [index for index, label in enumerate(labels) if label != "calibrated"]
        if not wrong:
            joint = [name for name, p in zip(self.names, self.p_values, strict=True) if self._significant(p)]
            if not joint:
                return f"no departure from the posterior found in {self.num_simulations:,} simulations"
            return (
                f"each latent on its own looks right, but not all together ({', '.join(joint)}): the guide misses how "
                "they depend on each other or on x"
            )
        words = ("too narrow", "too wide", "biased", "misshapen")
        overall = " and ".join(word for word in words if any(word in label for label in labels))
        order = sorted(wrong, key=lambda index: self._smallest[index])
        details = "; ".join(self._detail(index) for index in order[:3])
        rest = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        return f"the guide is {overall} ({len(wrong)} of {self.num_latents} latents): {details}{rest}"

    def coverage_at(self, nominal: float = 0.9) -> tuple[float, Array, Array]:
        """Coverage of the central intervals of the nearest level that the number of draws allows.

        Returns:
            That level, the coverage of each latent, and its binomial standard error, each ``(latent,)``.
        """
        levels, curve = self.coverage
        nearest = int(np.abs(levels - nominal).argmin())
        share = curve[nearest]
        return float(levels[nearest]), share, _binomial_se(share, self.num_simulations)

    def histogram(self, num_bins: int | None = None) -> tuple[Array, Array, float, float]:
        """Rank histogram of every name.

        Args:
            num_bins: must divide ``num_draws + 1``; ``None`` takes the largest such number up to 20.

        Returns:
            Edges ``(num_bins + 1,)``, counts ``(bin, name)``, and the counts between which a single bin of uniform
            ranks lies with a probability of 0.95.

        Raises:
            ValueError: bins that would hold different numbers of ranks.

        References:
            Talts et al. 2018. arXiv:1804.06788
        """
        possible = self.num_draws + 1
        divisors = [bins for bins in range(1, possible + 1) if possible % bins == 0]
        if num_bins is None:
            num_bins = max(bins for bins in divisors if bins <= 20)
        if num_bins not in divisors:
            raise ValueError(
                f"num_bins must divide num_draws + 1 = {possible}, got {num_bins}; choose from "
                f"{', '.join(map(str, divisors))}"
            )
        width = possible // num_bins
        counts = np.stack([np.bincount(column // width, minlength=num_bins) for column in self.ranks.T], axis=1)
        edges = np.arange(num_bins + 1) * width
        if num_bins == 1:
            return edges, counts, float(self.num_simulations), float(self.num_simulations)
        single = ecdf_band(self.num_simulations, grid=np.array([1 / num_bins]))
        low, high = (float(bound[0]) * self.num_simulations for bound in (single.lower, single.upper))
        return edges, counts, low, high

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Ranks, width and bias of the worst latent, joint coverage, and TARP, all at one family-wise level."""
        promised = f"family-wise p above {1 - self.level:.2g}"
        bands = "with the bands of Säilynoja et al. 2022"
        level, cover, _ = self.coverage_at(0.9)
        joint_level, joint, joint_se = self._joint_coverage
        sbc, p_density, p_tarp = float(self.p_values[:-2].min()), *(float(p) for p in self.p_values[-2:])
        off = float(np.abs(self.tarp_coverage[1] - self.band.grid).max())
        question = "Is the truth like any other draw of the guide (simulation-based calibration)?"
        figure, grave = min(sbc * self.num_tests, 1.0), bool(_grave(cover, level).any() or _grave(joint, joint_level))
        source = f"Talts et al. 2018, theorem 1, {bands}"
        wanted = f"{promised}; by convention grave where intervals miss twice, or half, as often as promised"
        rows = [self._verdict(sbc, grave, question, figure, None, "", wanted, source, self.statement, "sbc")]
        if np.isfinite(self.bias).any():
            row = int(np.argmin(self.p_width))
            spread, error = float(self.spread[row]), float(self.spread_se[row])
            question = f"Is the guide as wide as the posterior (worst latent, {self.names[row]})?"
            wanted = f"1, {promised}; grave outside {_WIDE:.2f} to {_NARROW:.2f}"
            advice = f"too wide: {_TRAIN}" if spread < 1 else f"too narrow: {_TRAIN}, or {_RICHER}"
            grave, unit = not _WIDE <= spread <= _NARROW, "widths of the guide"
            rows.append(
                self._verdict(
                    self.p_width[row], grave, question, spread, error, unit, wanted, _CONVENTION, advice, "guide_width"
                )
            )
            row = int(np.argmin(self.p_bias))
            bias, error = float(self.bias[row]), float(self.bias_se[row])
            question = f"Is the guide centred on the posterior (worst latent, {self.names[row]})?"
            wanted, unit = f"0, {promised}; grave beyond {_SHIFT:.2f}", "standard deviations of the guide"
            advice, grave = f"biased: {_TRAIN}", abs(bias) > _SHIFT
            rows.append(
                self._verdict(
                    self.p_bias[row], grave, question, bias, error, unit, wanted, _CONVENTION, advice, "guide_bias"
                )
            )
        question = f"Do {joint_level:.0%} highest-density regions of the guide hold the truth as often?"
        source = f"Hermans et al. 2022, {bands}"
        wanted = f"{joint_level:.2f}, {promised}; by convention grave where they miss twice, or half, as often"
        grave = bool(_grave(joint, joint_level))
        advice = f"overconfident: {_RICHER}" if joint < joint_level else f"larger than they need be: {_TRAIN}"
        rows.append(
            self._verdict(p_density, grave, question, joint, joint_se, "", wanted, source, advice, "joint_coverage")
        )
        question = "Do balls around random points hold the truth as often as draws of the guide (TARP)?"
        figure, source = min(p_tarp * self.num_tests, 1.0), f"Lemos et al. 2023, {bands}"
        advice = f"coverage is off by up to {off:.2f}; the other rows say in what way"
        wanted = f"{promised}; by convention grave where coverage is off by more than 0.1"
        rows.append(self._verdict(p_tarp, off > 0.1, question, figure, None, "", wanted, source, advice, "tarp"))
        return tuple(rows)

    def summary(self) -> dict[str, Any]:
        """Scalars, by latent where there is one for each; JSON-able."""
        level, cover, cover_se = self.coverage_at(0.9)
        joint_level, joint, joint_se = self._joint_coverage
        latents = self.names[: self.num_latents]

        def by_latent(values: Array) -> dict[str, float | None]:
            return {n: float(v) if np.isfinite(v) else None for n, v in zip(latents, values, strict=True)}

        return {
            "num_simulations": self.num_simulations,
            "num_draws": self.num_draws,
            "num_tests": self.num_tests,
            "level": self.level,
            "rejected": self.rejected,
            "outcome": worst(*(verdict.outcome for verdict in self.verdicts)),
            "statement": self.statement,
            "labels": dict(zip(latents, self.labels, strict=True)),
            "p_values": dict(zip(self.names, map(float, self.p_values), strict=True)),
            "bias": by_latent(self.bias),
            "bias_se": by_latent(self.bias_se),
            "spread": by_latent(self.spread),
            "spread_se": by_latent(self.spread_se),
            "contraction": by_latent(_quietly(lambda: self.contraction.mean(0))),
            "coverage_level": level,
            "coverage": by_latent(cover),
            "coverage_se": by_latent(cover_se),
            "highest_density_level": joint_level,
            "highest_density_coverage": joint,
            "highest_density_coverage_se": joint_se,
        }

    def __str__(self) -> str:
        level, cover, error = self.coverage_at(0.9)
        low = int(np.argmin(cover))
        return (
            f"calibration of the guide: {self.num_simulations:,} simulations, {self.num_draws:,} draws each\n"
            f"  smallest family-wise p of {self.num_tests} tests: "
            f"{min(float(np.concatenate([self.p_values, self.p_bias, self.p_width]).min()) * self.num_tests, 1):.2g} "
            f"(wanted above {1 - self.level:.2g})\n"
            f"  {level:.0%} intervals hold the truth in {cover.mean():.1%} on average, least in "
            f"{self.names[low]}: {cover[low]:.1%} ± {error[low]:.1%}\n"
            f"  {self.statement}"
        )

    @property
    def _centred(self) -> Array:
        return (self.z_score - self.z_score.mean(0)) / np.sqrt(self.expected_square)

    @property
    def _squares_over_latents(self) -> Array:
        usable = np.isfinite(self.z_score).all(0)
        squares = self._centred[:, usable] ** 2
        return squares.mean(1) if usable.any() else np.full(self.num_simulations, np.nan)

    def _spread(self, squares: Array) -> Array:
        return np.sqrt(squares.sum(0) / (self.num_simulations - 1))

    def _spread_se(self, squares: Array) -> Array:
        return squares.std(0, ddof=1) / sqrt(self.num_simulations) / (2 * self._spread(squares))

    @property
    def _smallest(self) -> Array:
        return np.minimum(np.minimum(self.p_values[: self.num_latents], self.p_bias), self.p_width)

    def _significant(self, p_value: float) -> bool:
        return bool(p_value * self.num_tests <= 1 - self.level)

    def _verdict(
        self,
        p_value: float,
        grave: bool,
        question: str,
        figure: float,
        error: float | None,
        unit: str,
        wanted: str,
        source: str,
        advice: str,
        name: str,
    ) -> Verdict:
        significant = self._significant(p_value)
        outcome: Outcome = "pass" if not significant else "fail" if grave else "warn"
        return Verdict(question, figure, error, unit, wanted, source, outcome, advice if significant else "", name)

    @property
    def _joint_coverage(self) -> tuple[float, float, float]:
        nearest = int(np.abs(self.band.grid - 0.9).argmin())
        joint = self.highest_density_coverage[1][nearest]
        return float(self.band.grid[nearest]), float(joint), float(_binomial_se(joint, self.num_simulations))

    def _detail(self, index: int) -> str:
        parts = []
        if self._significant(self.p_width[index]):
            parts.append(f"posterior {self.spread[index]:.2f} ± {self.spread_se[index]:.2f} times as wide")
        if self._significant(self.p_bias[index]):
            side = "low" if self.bias[index] > 0 else "high"
            parts.append(f"too {side} by {abs(self.bias[index]):.2f} ± {self.bias_se[index]:.2f} sd")
        return f"{self.names[index]} {', '.join(parts) or 'ranks not uniform'}"


@torch.no_grad()
def calibrate(
    pair: PairLike,
    *,
    num_simulations: int = 500,
    num_draws: int = 99,
    seed: int = 0,
    x_like: Tensor | None = None,
    y: Tensor | None = None,
    quantities: Sequence[str | Quantity] = ("log_likelihood", "log_joint"),
    level: float = 0.95,
) -> Calibration:
    """Simulation-based calibration of a guide through its fitted model.

    Draws z from p(z) and x from p(x | z) (``model(size=n)``), then draws of the guide at x, and takes the rank of the
    true z among them: for each latent; for quantities of latents and data, which see a guide that ignores x while no
    single latent does; for log q(z | x), which gives the coverage of highest-density regions; and for the distance to
    a random point (TARP). Streams over simulations and particles in bounded memory.

    Args:
        pair: a `VAE`, or any Pyro ``(model, guide)`` that keeps the contract of `vae_pyro.densities.log_densities`.
        num_simulations: latents and data to draw, at least 20.
        num_draws: independent draws of the guide at each datum, at least 19. ``num_draws + 1`` should have divisors,
            for histograms: 99 gives 100 ranks.
        seed: of everything that is drawn.
        x_like: a tensor whose type the guide gets its data in; ``None`` leaves them as the model draws them.
        y: classes ``(any,)``, such as those of test data; each simulation is given one of them, drawn at random.
        quantities: ``log_likelihood``, ``log_prior``, ``log_joint``, or functions of ``{site: (particle, datum,
            *event)}`` and ``x`` that return ``(particle, datum)``.
        level: probability that an exact posterior passes all tests, at least.

    Raises:
        ValueError: too few simulations or draws, an unknown quantity, a model without latents or the site ``x``, other
            latents in the guide than in the model, a quantity that is NaN.

    References:
        Talts et al. 2018, algorithm 1. arXiv:1804.06788
        Modrák et al. 2023, Simulation-based calibration checking for Bayesian computation: the choice of test
        quantities shapes sensitivity. arXiv:2211.02383
        Hermans et al. 2022. arXiv:2110.06581
        Lemos et al. 2023. arXiv:2302.03026
    """
    if num_simulations < 20 or num_draws < 19:
        raise ValueError(
            f"at least 20 simulations of 19 draws are wanted, got num_simulations={num_simulations} and "
            f"num_draws={num_draws}; 500 and 99 are usual"
        )
    unknown = [quantity for quantity in quantities if isinstance(quantity, str) and quantity not in _NAMED]
    if unknown:
        raise ValueError(f"unknown quantity {unknown[0]!r}; choose from {', '.join(_NAMED)}, or pass a function")
    pair = as_pair(pair)
    model, guide = pair.model, pair.guide
    random = np.random.default_rng(derive_seed(seed, 2))

    with isolated(derive_seed(seed, 0)):
        latents, x, discrete, _ = _simulate(model, 1, y)
        size, held = sum(z.numel() for z in latents.values()), pair.width(Split(x))
        at_once = min(_NUMBERS_AT_ONCE // ((num_draws + 1) * size), ELEMENTS_AT_ONCE // held, num_simulations)
        at_once = max(at_once, 1)
        particles = max(ELEMENTS_AT_ONCE // (held * at_once), 1)
        # Points for TARP that no true latent has a part in.
        points = np.concatenate([_flat(_simulate(model, n, y)[0], 1) for n in _sizes(num_simulations, at_once)])
    scale = points.std(0)
    scale[scale == 0] = 1.0

    names = [f"{name}{index}" for name, z in latents.items() for index in _indices(z.shape[1:])]
    names += [
        quantity if isinstance(quantity, str) else getattr(quantity, "__name__", "quantity") for quantity in quantities
    ]
    parts: list[tuple[Array, ...]] = []
    squares, fourths = np.zeros(size), np.zeros(size)
    with isolated(derive_seed(seed, 1)):
        for n in _sizes(num_simulations, at_once):
            truth, x, _, given = _simulate(model, n, y)
            x = x if x_like is None else x.to(x_like.dtype)
            draws, log_q = draw_latents(guide, x, num_particles=num_draws, **given)
            if set(draws) != set(truth):
                raise ValueError(f"the latents of the model are {sorted(truth)}, those of the guide {sorted(draws)}")
            both = {name: torch.cat([z.unsqueeze(0).to(draws[name]), draws[name]]) for name, z in truth.items()}
            _, log_q_truth = score_latents(guide, x, {name: z[:1] for name, z in both.items()}, **given)
            values = [_flat(both, 2)]
            values += [value[..., None] for value in _quantities(model, x, given, both, quantities, particles)]
            stacked = np.concatenate(values, axis=-1)
            density = num_draws - ranks(_array(log_q_truth[0]), _array(log_q), random)
            if np.isnan(stacked).any():
                column = int(np.isnan(stacked).any((0, 1)).argmax())
                raise ValueError(
                    f"{names[column]} is NaN at {int(np.isnan(stacked[..., column]).sum())} draws; ranks want numbers"
                )
            first = sum(len(part[0]) for part in parts)
            near = tarp(
                stacked[0, :, :size] / scale, stacked[1:, :, :size] / scale, points[first : first + n] / scale, random
            )
            score, variance, square, fourth = _standardize(stacked[0, :, :size], stacked[1:, :, :size])
            squares, fourths = squares + square, fourths + fourth
            placed = ranks(stacked[0], stacked[1:], random)
            parts.append(
                (
                    np.concatenate([placed, density[:, None], near[:, None]], axis=1),
                    score,
                    variance,
                    stacked[0, :, :size],
                )
            )
    all_ranks, scores, variances, truths = (np.concatenate(column) for column in zip(*parts, strict=True))
    prior_variance = np.concatenate([points, truths]).var(0)
    scores[:, discrete], squares[discrete], fourths[discrete] = np.nan, np.nan, np.nan
    total = num_simulations * num_draws
    return Calibration(
        names=(*names, HIGHEST_DENSITY, TARP),
        ranks=all_ranks,
        num_latents=size,
        num_draws=num_draws,
        z_score=scores,
        contraction=1 - variances / np.where(prior_variance > 0, prior_variance, np.nan),
        expected_square=squares / total,
        expected_fourth=fourths / total,
        level=level,
    )


def ranks(z: Array, draws: Array, random: np.random.Generator | int = 0) -> Array:
    """How many draws are below the truth; ties are broken at random, so that ranks of an exact posterior are uniform.

    Args:
        z: the truth, shape ``(simulation, *rest)``.
        draws: independent draws for each, shape ``(particle, simulation, *rest)``.
        random: generator or seed for the ties.

    Returns:
        Whole numbers ``0..particle``, shape ``(simulation, *rest)``.

    Raises:
        ValueError: shapes do not fit, or a value is NaN.

    References:
        Talts et al. 2018, theorem 1. arXiv:1804.06788
        Modrák et al. 2023 (ties). arXiv:2211.02383
    """
    z, draws = np.asarray(z), np.asarray(draws)
    if draws.shape[1:] != z.shape:
        raise ValueError(f"draws of shape (particle, {', '.join(map(str, z.shape))}) are wanted, got {draws.shape}")
    if np.isnan(z).any() or np.isnan(draws).any():
        raise ValueError(
            f"ranks of NaN: {int(np.isnan(z).sum())} true values and {int(np.isnan(draws).sum())} draws are NaN"
        )
    below, equal = (draws < z).sum(0), (draws == z).sum(0)
    placed: Array = below + np.random.default_rng(random).integers(0, equal + 1)
    return placed


def coverage(ranks: Array, num_draws: int) -> tuple[Array, Array]:
    """How often central intervals of the draws hold the truth, at every level that their number allows.

    An interval that leaves out the j lowest and the j highest of ``num_draws + 1`` places has the level
    ``1 - 2 j / (num_draws + 1)``, exactly, for any number of draws.

    Args:
        ranks: of the truth among draws, in ``0..num_draws``, shape ``(simulation, *rest)``.
        num_draws: number of draws.

    Returns:
        Nominal levels, rising and below 1, shape ``(level,)``, and coverage, ``(level, *rest)``.

    Raises:
        ValueError: a rank outside ``0..num_draws``.
    """
    if np.min(ranks) < 0 or np.max(ranks) > num_draws:
        raise ValueError(f"ranks in 0..{num_draws} are wanted, got {np.min(ranks)}..{np.max(ranks)}")
    left_out = np.arange(num_draws // 2, 0, -1)
    depth = np.minimum(ranks, num_draws - np.asarray(ranks))
    share = np.stack([(depth >= j).mean(0) for j in left_out])
    return 1 - 2 * left_out / (num_draws + 1), share


def tarp(z: Array, draws: Array, points: Array, random: np.random.Generator | int = 0) -> Array:
    """Tests of accuracy with random points: how many draws are closer to a point than the truth is.

    The ball around the point that reaches the truth has, under the guide, the probability of the draws inside; its
    distribution function over simulations is the expected coverage, that of an exact posterior the diagonal. Points
    that do not depend on x leave a guide that is the prior undetected; quantities of x find it.

    Args:
        z: the truth, shape ``(simulation, latent)``, in units in which distances make sense.
        draws: shape ``(particle, simulation, latent)``.
        points: shape ``(simulation, latent)``, drawn without regard to the truth.
        random: generator or seed for ties.

    Returns:
        Whole numbers ``0..particle``, shape ``(simulation,)``.

    Raises:
        ValueError: shapes do not fit, or a value is NaN.

    References:
        Lemos et al. 2023. arXiv:2302.03026
    """
    return ranks(((z - points) ** 2).sum(-1), ((draws - points) ** 2).sum(-1), random)


def _simulate(model: Program, size: int, y: Tensor | None) -> tuple[dict[str, Tensor], Tensor, Array, Given]:
    """Latents and data of the prior predictive, which latent numbers are discrete, and what the programs were given."""
    given: Given = {} if y is None else {"y": y[torch.randint(len(y), (size,), device=y.device)]}
    trace = poutine.trace(model).get_trace(size=size, **given)
    sites = {
        name: site
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and not poutine.util.site_is_subsample(site) and not site["is_observed"]
    }
    if "x" not in sites or len(sites) == 1:
        raise ValueError(f"model(size=n) must draw latents and the site 'x'; it draws {sorted(sites) or 'nothing'}")
    x = sites.pop("x")["value"]
    for name, site in sites.items():
        if site["value"].shape[:1] != (size,):
            raise ValueError(
                f"latent site {name!r} has shape {tuple(site['value'].shape)} for {size} data; latents are local, "
                "inside pyro.plate('data', n)"
            )
    discrete = [np.full(site["value"][0].numel(), site["fn"].support.is_discrete) for site in sites.values()]
    return {name: site["value"] for name, site in sites.items()}, x, np.concatenate(discrete), given


def _quantities(
    model: Program,
    x: Tensor,
    given: Given,
    latents: dict[str, Tensor],
    quantities: Sequence[str | Quantity],
    particles: int,
) -> Iterator[Array]:
    named: dict[str, Array] = {}
    if any(isinstance(quantity, str) for quantity in quantities):
        num = len(next(iter(latents.values())))
        pieces = []
        for start in range(0, num, particles):
            some = {name: z[start : start + particles] for name, z in latents.items()}
            pieces.append([_array(part) for part in score_latents(model, x, some, **given)])
        likelihood, prior = (np.concatenate(piece) for piece in zip(*pieces, strict=True))
        named = dict(zip(_NAMED, (likelihood, prior, likelihood + prior), strict=True))
    for quantity in quantities:
        yield named[quantity] if isinstance(quantity, str) else _array(quantity(latents, x))


def _standardize(z: Array, draws: Array) -> tuple[Array, Array, Array, Array]:
    """z-scores of the truth, variance of the draws, and sums of powers of the z-score of each draw among the others."""
    n = len(draws)
    variance = draws.var(0, ddof=1)
    centred = draws - draws.mean(0)
    # Mean and variance of the draws without one of them.
    others = np.maximum(((n - 1) * variance - centred**2 * n / (n - 1)) / (n - 2), 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        score = (z - draws.mean(0)) / np.sqrt(variance)
        square = (centred * n / (n - 1)) ** 2 / others
    return score, variance, square.sum((0, 1)), (square**2).sum((0, 1))


def _quietly(compute: Callable[[], Array]) -> Array:
    """NaN and infinity of discrete and of degenerate latents pass without a remark."""
    with np.errstate(all="ignore"):
        return np.asarray(compute())


def _grave(share: Any, level: float) -> Any:
    return (share < 1 - 2 * (1 - level)) | (share > 1 - (1 - level) / 2)


def _binomial_se(share: Any, num: int) -> Array:
    # Half a count either way where all or none are covered (Agresti & Coull 1998 add two; the order is the same).
    kept = np.clip(share, 0.5 / num, 1 - 0.5 / num)
    error: Array = np.sqrt(kept * (1 - kept) / num)
    return error


def _sizes(total: int, at_once: int) -> list[int]:
    return [min(at_once, total - start) for start in range(0, total, at_once)]


def _indices(shape: Sequence[int]) -> list[str]:
    return [f"[{', '.join(map(str, index))}]" if index else "" for index in np.ndindex(*shape)]


def _flat(latents: dict[str, Tensor], batch_dims: int) -> Array:
    return np.concatenate([_array(z).reshape(*z.shape[:batch_dims], -1) for z in latents.values()], axis=-1)


def _array(tensor: Tensor) -> Array:
    array: Array = tensor.detach().to("cpu", torch.float64).numpy()
    return array
