"""What a code costs and what it loses: the rate and distortion of fits that differ in beta, and the bounds on them.

For one pair, the rate R = E KL(q(z | x) || p(z)) is what the latent of a datum costs to send, the distortion
D = -E log p(x | z) what the datum costs after it, both in nats. R + D is minus the ELBO; a beta-VAE minimises
D + beta R. H being the entropy of the data and I the information between x and z under q(z | x), H - D <= I <= R.

References:
    Alemi et al. 2018, Fixing a broken ELBO, eqs. 1-4 and sec. 2.3. arXiv:1711.00464
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import isfinite, log, nan, pi, sqrt
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm

from analysis.draws.weights import Weighed, weigh
from analysis.experiments.measurement import gather
from analysis.latent.information.summary import describe_latent
from analysis.results.estimate import plus_minus
from analysis.results.verdict import Outcome, Verdict
from analysis.stats.information import Bracket
from vae_pyro.core.isolation import derive_seed
from vae_pyro.data.dataset import as_split
from vae_pyro.data.split import Split
from vae_pyro.densities.pair import Pair
from vae_pyro.experiments.folder import Experiment, read_experiment
from vae_pyro.objectives import OBJECTIVES
from vae_pyro.runs.folder import RunFolder

type Array = np.ndarray[Any, Any]

# Of all comparisons that a verdict rests on together: how often it is to complain of a curve that is right.
_LEVEL = 0.01
_INFORMATION_STREAM = 3


@dataclass(frozen=True)
class RatePoint:
    """Rate and distortion of one fit, nats, for each datum.

    Attributes:
        label: of the fit.
        beta: weight of the KL that it was fitted with; ``None`` where it was fitted with something else, or stopped
            before the weight was reached.
        rate: KL(q(z | x) || p(z)) from draws, ``(datum,)``, with ``rate_mcse``, its Monte Carlo standard error.
        distortion: -E_q log p(x | z), ``(datum,)``, with ``distortion_mcse``.
        information: bracket on I(x; z); ``None`` where it was not estimated.
    """

    label: str
    beta: float | None
    rate: Array
    rate_mcse: Array
    distortion: Array
    distortion_mcse: Array
    information: Bracket | None = None

    def __len__(self) -> int:
        return len(self.rate)

    def mean(self, weight_rate: float, weight_distortion: float) -> tuple[float, float]:
        """Mean over data of a combination of rate and distortion, and its standard error for other data and draws."""
        return _mean(weight_rate * self.rate + weight_distortion * self.distortion)

    def mcse(self, name: str) -> float:
        """Monte Carlo standard error of the mean ``rate`` or ``distortion`` of these data."""
        return float(np.sqrt((getattr(self, f"{name}_mcse") ** 2).sum()) / len(self))


@dataclass(frozen=True)
class Secant:
    """The curve between two fits that are neighbours in beta, each the best of its own (least D + beta R).

    Attributes:
        first: label of the fit with the smaller beta; likewise ``second``.
        beta: -(change of D) / (change of R), which lies between the two betas where both fits are the best of their
            objectives; with ``beta_se``, its standard error for other data and draws. NaN where the rates are the same.
        low: the smaller beta.
        high: the larger beta.
    """

    first: str
    second: str
    beta: float
    beta_se: float
    low: float
    high: float


@dataclass(frozen=True)
class Beaten:
    """A fit that another one beats at its own objective.

    Attributes:
        label: of the fit.
        by: of the other.
        nats: by how much its D + beta R is larger, per datum, with ``se``, paired by datum.
        significant: whether that is more than chance, over all pairs of the curve.
    """

    label: str
    by: str
    nats: float
    se: float
    significant: bool


@dataclass(frozen=True)
class RateDistortion:
    """Fits on the plane of rate and distortion, on the same data with the same draws, by rising beta.

    Attributes:
        points: the fits.
        num_draws: draws for each datum.
        entropy: H of the data in nats, where it is known.
        spectrum: eigenvalues of the data's covariance, where the data are Gaussian, and ``scale``, the standard
            deviation of the Gaussian likelihood; they give a bound from below.
    """

    points: tuple[RatePoint, ...]
    num_draws: int
    entropy: float | None = None
    spectrum: Array | None = None
    scale: float | None = None

    @cached_property
    def rate(self) -> Array:
        """Mean rates, ``(fit,)``."""
        return np.array([point.rate.mean() for point in self.points])

    @cached_property
    def distortion(self) -> Array:
        """Mean distortions, ``(fit,)``."""
        return np.array([point.distortion.mean() for point in self.points])

    @property
    def elbo(self) -> Array:
        """-(R + D), ``(fit,)``."""
        return -(self.rate + self.distortion)

    @property
    def hull(self) -> tuple[int, ...]:
        """Fits on the lower convex hull, from the smallest distortion to the smallest rate.

        No fit and no mixture of two (one for some data, the other for the rest) has a lower rate at their distortion.
        """
        order = sorted(range(len(self.points)), key=lambda i: (self.distortion[i], self.rate[i]))
        kept: list[int] = []
        for i in order:
            if kept and self.rate[i] >= self.rate[kept[-1]]:
                continue  # no lower rate than one with less distortion
            while len(kept) > 1 and self._above(kept[-2], kept[-1], i):
                kept.pop()
            kept.append(i)
        return tuple(kept)

    def _above(self, first: int, middle: int, last: int) -> bool:
        (d0, d1, d2), (r0, r1, r2) = self.distortion[[first, middle, last]], self.rate[[first, middle, last]]
        return bool((r1 - r0) * (d2 - d0) >= (r2 - r0) * (d1 - d0))

    @property
    def secants(self) -> tuple[Secant, ...]:
        """Between neighbours in beta, of several fits of a beta the best; dR/dD = -1/beta along the curve of these."""
        best: dict[float, RatePoint] = {}
        for point in self.points:
            beta = point.beta
            # What lies between two fits of a beta that are not its best says nothing of the curve.
            if beta is not None and (beta not in best or point.mean(beta, 1)[0] < best[beta].mean(beta, 1)[0]):
                best[beta] = point
        found = []
        for low, high in pairwise(sorted(best)):
            first, second = best[low], best[high]
            beta, error = _ratio(second.distortion - first.distortion, first.rate - second.rate)
            found.append(Secant(first.label, second.label, beta, error, low, high))
        return tuple(found)

    @property
    def beaten(self) -> tuple[Beaten, ...]:
        """Each fit whose D + beta R is larger than that of another fit, beside the one that beats it most clearly."""
        pairs = max(sum(point.beta is not None for point in self.points) * (len(self.points) - 1), 1)
        found = []
        for point in self.points:
            if point.beta is None:
                continue
            worst: Beaten | None = None
            for other in self.points:
                difference = point.distortion - other.distortion + point.beta * (point.rate - other.rate)
                nats, se = _mean(difference)
                if other is not point and nats > 0 and (worst is None or nats * worst.se > worst.nats * se):
                    worst = Beaten(point.label, other.label, nats, se, nats > norm.isf(_LEVEL / pairs) * se)
            if worst is not None:
                found.append(worst)
        return tuple(found)

    @cached_property
    def above_entropy(self) -> tuple[tuple[float, float], ...] | None:
        """R + D - H of each fit, with its standard error for other data and draws: never below 0 in truth."""
        if self.entropy is None:
            return None
        means = [point.mean(1.0, 1.0) for point in self.points]
        return tuple((mean - self.entropy, se) for mean, se in means)

    @cached_property
    def above_bound(self) -> tuple[tuple[float, float], ...] | None:
        """Rate of each fit less that of the best code of Gaussian data at its distortion; never below 0 in truth.

        The standard error, for other data and draws, is that of R less the bound's slope times D.
        """
        if self.spectrum is None or self.scale is None:
            return None
        found = []
        for point in self.points:
            bound, slope = gaussian_rate(self.spectrum, self.scale, float(point.distortion.mean()))
            found.append((float(point.rate.mean()) - bound, point.mean(1.0, -slope)[1] if isfinite(slope) else nan))
        return tuple(found)

    @cached_property
    def above_information(self) -> tuple[tuple[float, float] | None, ...]:
        """R less the lower bound on I of each fit, with that bound's standard error; ``None`` where it has none."""
        return tuple(
            None if p.information is None else (float(p.rate.mean()) - p.information.lower, p.information.lower_se)
            for p in self.points
        )

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Whether the curve keeps to its bounds, and whether each fit is the best of its own objective."""
        found = []
        for name, question, excess, advice in (
            ("entropy_bound", "Do rate and distortion add up to the data's entropy?", self.above_entropy,
             "R + D below H is impossible: the densities are not normalised, or the entropy is that of other data"),
            ("gaussian_bound", "Does the rate stay above that of the best code of Gaussian data?", self.above_bound,
             "a rate below the bound is impossible: the KL is wrong, or the data are not of that covariance"),
            ("information_bound", "Does the rate cover the information in the latents?",
             tuple(one for one in self.above_information if one is not None) or None,
             "R below I is impossible: the KL is not that of q(z | x) from p(z)"),
        ):  # fmt: skip
            if excess is not None:
                found.append(_bound_verdict(name, question, excess, advice))
        if sum(point.beta is not None for point in self.points) > 1:
            found.append(self._best_verdict())
        return tuple(found)

    def _best_verdict(self) -> Verdict:
        lost = [one for one in self.beaten if one.significant]
        worst = max(lost, key=lambda one: one.nats, default=None)
        return Verdict(
            question="Is each fit the best of the curve at its own beta?",
            value=0.0 if worst is None else worst.nats,
            error=None if worst is None else worst.se,
            unit="nats per datum",
            threshold=f"no fit beaten at D + beta R by another, at {_LEVEL:.0%} over all pairs",
            source="definition: a beta-VAE minimises D + beta R",
            outcome="warn" if lost else "pass",
            advice=""
            if worst is None
            else f"{worst.label} is beaten by {worst.by}: fit it longer, from that one's weights, or with a warm-up of "
            "the KL; on held-out data it may also have been overfitted",
            name="best_of_beta",
        )

    def summary(self) -> dict[str, Any]:
        """JSON-able, nats per datum; ``_se`` for other data and draws, ``_mcse`` for other draws."""
        points = []
        hull = self.hull
        for i, point in enumerate(self.points):
            (rate, rate_se), (distortion, distortion_se) = point.mean(1, 0), point.mean(0, 1)
            elbo, elbo_se = point.mean(-1, -1)
            points.append(
                {
                    "label": point.label,
                    "beta": point.beta,
                    "rate": rate,
                    "rate_se": rate_se,
                    "rate_mcse": point.mcse("rate"),
                    "distortion": distortion,
                    "distortion_se": distortion_se,
                    "distortion_mcse": point.mcse("distortion"),
                    "elbo": elbo,
                    "elbo_se": elbo_se,
                    "on_hull": i in hull,
                    **({} if point.information is None else {"information": point.information.summary()}),
                }
            )
        return {
            "points": points,
            "secants": [vars(one) for one in self.secants],
            "beaten": [vars(one) for one in self.beaten],
            "entropy": self.entropy,
            "n": len(self.points[0]),
            "num_draws": self.num_draws,
        }

    def __str__(self) -> str:
        width = max(len(point.label) for point in self.points)
        lines = [f"{'fit':<{width}}  {'beta':>6}  {'rate':>16}  {'distortion':>18}  {'ELBO':>19}"]
        hull = self.hull
        for i, point in enumerate(self.points):
            beta = "-" if point.beta is None else f"{point.beta:g}"
            cells = [plus_minus(*point.mean(*weights)) for weights in ((1, 0), (0, 1), (-1, -1))]
            mark = "" if i in hull else "  above the hull"
            lines.append(f"{point.label:<{width}}  {beta:>6}  {cells[0]:>16}  {cells[1]:>18}  {cells[2]:>19}{mark}")
        lines.append(f"nats per datum ± standard error over {len(self.points[0])} data, {self.num_draws} draws of each")
        return "\n".join([*lines, *map(str, self.verdicts)])


def rate_distortion(
    pairs: Sequence[tuple[float | None, Pair]] | Mapping[str, tuple[float | None, Pair]],
    x: Split | Any,
    *,
    num_draws: int = 200,
    seed: int = 0,
    entropy: float | None = None,
    spectrum: Array | None = None,
    scale: float | None = None,
    information: bool = False,
) -> RateDistortion:
    """Rate and distortion of several pairs on the same data, with the same draws.

    Args:
        pairs: each with the beta that it was fitted with (``None`` where none), as a list or by label; a pair is a
            `VAE` or a Pyro ``(model, guide)`` that keeps the contract of `vae_pyro.densities.log_densities`.
        x: ``(datum, *x_shape)``. A split whose observations are random is fixed with ``seed`` first.
        num_draws: draws for each datum, at least 2.
        seed: of the draws.
        entropy: H of the data's distribution in nats, where it is known: H - D bounds the rate from below.
        spectrum: eigenvalues of the covariance of Gaussian data, ``(dimension,)``; with ``scale`` they give the least
            rate of any code at each distortion, see `gaussian_rate`.
        scale: standard deviation of the Gaussian likelihood of all pairs.
        information: estimate I(x; z) as well, whose time grows with the square of the number of data.

    Raises:
        ValueError: no pair, fewer than 2 draws or data, or one of ``spectrum`` and ``scale`` without the other.
    """
    named = dict(pairs) if isinstance(pairs, Mapping) else {}
    if not isinstance(pairs, Mapping):
        for number, (beta, pair) in enumerate(pairs):
            label = f"fit {number}" if beta is None else f"beta={beta:g}"
            named[f"{label} ({number})" if label in named else label] = (beta, pair)
    if not named:
        raise ValueError("no pair; a curve wants at least one, and two to have a slope")
    if num_draws < 2:
        raise ValueError(f"num_draws must be at least 2 for a standard error, got {num_draws}")
    if (spectrum is None) != (scale is None):
        raise ValueError("spectrum and scale bound the rate together; give both or neither")
    split = as_split(x).fixed(derive_seed(seed, 0))
    if len(split) < 2:
        raise ValueError(f"at least 2 data wanted for a standard error, got {len(split)}")
    points = []
    for label, (beta, pair) in named.items():
        blocks = weigh(pair, split, _moments, num_draws=num_draws, seed=seed)
        figures = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
        bracket = None
        if information:
            found = describe_latent(pair, split, seed=derive_seed(seed, _INFORMATION_STREAM))
            bracket = found.mutual_information
        points.append(RatePoint(label, beta, **figures, information=bracket))
    return RateDistortion(_ordered(points), num_draws, entropy, _spectrum(spectrum), scale)


def rate_distortion_of(experiment: Experiment | str | Path) -> RateDistortion:
    """The curve of an experiment over beta, whose runs were measured by `analysis.experiments.measurement.measure`.

    Each run that is done is a point. Its beta is that of its objective: ``beta:beta=4`` has 4, the ELBO 1, another
    objective none. A run whose KL had not come to its full weight when it ended, or whose weight was cyclic, was not
    fitted with that beta and has none. What is kept of a run has no Monte Carlo error of its distortion; the sum of
    those of rate and ELBO, which it does not exceed, stands for it.

    Args:
        experiment: or its folder.

    Raises:
        ValueError: no run is done, or runs were measured on other data.
        RunError: the folder holds no experiment, or a measurement is absent or damaged.
    """
    if not isinstance(experiment, Experiment):
        experiment = read_experiment(experiment)
    measured, _ = gather(experiment)
    if not measured:
        raise ValueError(f"no run of {str(experiment.path)!r} is done\n{experiment}")
    first = measured[0].held_out
    points = []
    for run, trial in zip(measured, experiment.having("done"), strict=True):
        held = run.held_out
        if held.fingerprint != first.fingerprint or held.num_draws != first.num_draws:
            raise ValueError(f"{run.label!r} was measured on other data or with other draws than {measured[0].label!r}")
        mcse = held.kl_mcse + held.elbo_mcse
        points.append(
            RatePoint(
                f"{run.label} seed {run.seed}",
                beta_of(run.objective) if _full_weight(trial.folder) else None,
                held.kl,
                held.kl_mcse,
                -held.reconstruction,
                mcse,
            )
        )
    return RateDistortion(_ordered(points), first.num_draws)


def beta_of(objective: str) -> float | None:
    """Weight of the KL of an objective such as ``beta:beta=4``; ``None`` where it weighs something else."""
    return OBJECTIVES.build(OBJECTIVES.resolve(objective)).kl_factor


def _full_weight(folder: RunFolder) -> bool:
    """Whether the KL of a run had its full weight at the end, and for good."""
    how = folder.config()["fit"]
    if how.get("kl_cycle") is not None and how.get("kl_warmup"):
        return False
    return folder.read_history()[-1]["kl_weight"] >= 1


def gaussian_rate(spectrum: Array, scale: float, distortion: float) -> tuple[float, float]:
    """The least rate of any code of Gaussian data whose Gaussian likelihood has that distortion, and its slope.

    ``D = d/2 log(2 pi scale^2) + E |x - x'|^2 / (2 scale^2)`` turns the distortion into a squared error, whose least
    rate is that of reverse water-filling: ``R = 1/2 sum_i log(l_i / t)`` over the eigenvalues l_i above the water t,
    where ``sum_i min(t, l_i)`` is the squared error.

    Args:
        spectrum: eigenvalues of the data's covariance, ``(dimension,)``.
        scale: standard deviation of the likelihood.
        distortion: nats.

    Returns:
        The rate in nats, and dR/dD = -scale^2 / t. Infinity and NaN at a distortion that no code has; 0 and 0 at one
        that the mean of the data has.

    References:
        Cover & Thomas 2006, Elements of information theory, 2nd edition, theorem 10.3.3.
    """
    values = np.sort(np.asarray(spectrum, dtype=np.float64))
    d = len(values)
    squared = (distortion - d / 2 * log(2 * pi * scale**2)) * 2 * scale**2
    if squared <= 0:
        return float("inf"), nan
    if squared >= values.sum():
        return 0.0, 0.0
    # With the k smallest eigenvalues under water, the others have t each; the right k is the one whose t lies there.
    under = np.concatenate([[0.0], np.cumsum(values)[:-1]])
    water = (squared - under) / np.arange(d, 0, -1)
    t = float(water[np.flatnonzero(water <= values)[0]])
    return float(0.5 * np.log(values[values > t] / t).sum()), -(scale**2) / t


def gaussian_entropy(spectrum: Array) -> float:
    """Differential entropy of Gaussian data in nats, from the eigenvalues of their covariance."""
    return float(0.5 * np.log(2 * pi * np.e * np.asarray(spectrum, dtype=np.float64)).sum())


def _moments(block: Weighed) -> dict[str, Array]:
    kl = block.log_likelihood - block.log_weight
    root = sqrt(len(kl))
    return {
        "rate": kl.mean(0),
        "rate_mcse": kl.std(0, ddof=1) / root,
        "distortion": -block.log_likelihood.mean(0),
        "distortion_mcse": block.log_likelihood.std(0, ddof=1) / root,
    }


def _ordered(points: Sequence[RatePoint]) -> tuple[RatePoint, ...]:
    return tuple(sorted(points, key=lambda point: (point.beta is None, point.beta or 0.0, -point.rate.mean())))


def _spectrum(values: Array | None) -> Array | None:
    if values is None:
        return None
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not (array > 0).all() or not np.isfinite(array).all():
        raise ValueError(f"a spectrum is a vector of positive eigenvalues, got {array}")
    return array


def _mean(values: Array) -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1) / sqrt(len(values)))


def _ratio(above: Array, below: Array) -> tuple[float, float]:
    """Ratio of two means and its standard error by the delta method; NaN where the lower one is not told from zero."""
    mean, error = _mean(below)
    if not abs(mean) > 3 * error:
        return nan, nan
    ratio = float(above.mean()) / mean
    return ratio, _mean(above - ratio * below)[1] / abs(mean)


def _bound_verdict(name: str, question: str, excess: Sequence[tuple[float, float]], advice: str) -> Verdict:
    """Fails where the least excess is below zero by more than chance, over all fits."""
    limit = float(norm.isf(_LEVEL / len(excess)))

    def depth(one: tuple[float, float]) -> float:
        return one[0] + limit * (one[1] if isfinite(one[1]) else 0.0)

    figure, error = min(excess, key=depth)
    outcome: Outcome = "fail" if depth((figure, error)) < 0 else "pass"
    return Verdict(
        question=question,
        value=figure,
        error=error if isfinite(error) else None,
        unit="nats per datum above it",
        threshold=f"at least 0 less {limit:.2g} standard errors",
        source="Alemi et al. 2018, sec. 2.3, arXiv:1711.00464; false alarms at most 1 % over all fits",
        outcome=outcome,
        advice=advice if outcome == "fail" else "",
        name=name,
    )
