"""Held-out log predictive density: log p(x_i) of each datum by importance sampling, its errors, and comparisons.

What LOO is not. In a Bayesian model with draws of its parameters, the held-out density of x_i can be had without
refitting, by weighting draws with 1 / p(x_i | theta) (PSIS-LOO). A VAE has point estimates of its decoder's weights:
there is no posterior over parameters to leave a datum out of. Its z_i belongs to x_i alone, so leaving x_i out leaves
z_i its prior, and LOO's ``1 / mean_k [1 / p(x_i | z_i^k)]`` over draws of the posterior is the harmonic-mean estimate
of log p(x_i), whose variance is infinite in the common cases. ``az.loo`` on ``log_likelihood`` computes exactly that,
with k-hat above 1 nearly everywhere. So the criterion is log p(x_i) itself, on data that the fit did not see: the guide
is the proposal, ``log p(x_i) ~ log mean_k w_ik``, and k-hat says for which data that holds.
"""

from dataclasses import dataclass
from math import log, sqrt
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from analysis.draws.weights import Fingerprint, Weighed, weigh
from analysis.results.verdict import Outcome, Verdict, worst
from analysis.stats.pareto_smoothing import good_k, pareto_k, smooth_rows
from vae_pyro.core.isolation import derive_seed
from vae_pyro.data.dataset import as_split
from vae_pyro.data.split import Split
from vae_pyro.densities.measure import Measure
from vae_pyro.densities.moments import WeightSums
from vae_pyro.densities.pair import PairLike, as_pair

type Array = np.ndarray[Any, Any]

# Shares of data with k-hat too large, and effective draws, at which a verdict turns.
_FEW_BAD, _MOST_BAD = 0.1, 0.5
_FEW_DRAWS = 10
# Draws times data whose weights are reduced at once.
_AT_ONCE = 1_000_000


class Estimates(NamedTuple):
    """Reductions of the log weights of each datum, each ``(datum,)``, float64, nats.

    Attributes:
        log_px: log of the mean weight.
        log_px_mcse: its Monte Carlo standard error.
        rise: what log_px gained over the mean of the same estimate from either half of the draws; never negative.
        smoothed: log of the mean of the Pareto smoothed weights.
        elbo: mean log weight.
        upper: CUBO, half the log of the mean squared weight.
        pareto_k: tail shape, as `analysis.stats.pareto_smoothing.pareto_k`.
    """

    log_px: Array
    log_px_mcse: Array
    rise: Array
    smoothed: Array
    elbo: Array
    upper: Array
    pareto_k: Array


@dataclass(frozen=True)
class ELPD:
    """Expected log pointwise predictive density of held-out data, in nats.

    ``elbo <= log p(x_i) <= upper`` in the limit of many draws; ``pointwise`` is the estimate between them.

    Attributes:
        pointwise: importance-sampling estimate of log p(x_i), ``(datum,)``: a lower bound on average.
        pointwise_mcse: Monte Carlo standard error of each; not to be trusted where k-hat is above `good_k`.
        pareto_k: tail shape of each datum's importance weights.
        num_draws: K, draws for each datum.
        rise: what ``pointwise`` gained by the second half of the draws, see `bias`.
        smoothed: log p(x_i) from Pareto smoothed weights: less variance, no bound, and too low where k-hat is large.
        elbo: E_q[log w], the lower bound.
        upper: CUBO_2, ``1/2 log E_q[w^2]``, above log p(x_i) in the limit of many draws. Estimated from the same draws
            it is biased down, and never more than ``1/2 log K`` above ``pointwise``.
        ids: of the data.
        space: in words, what the data are; models of other spaces are not comparable.
        measure: ``probability``, ``probability given the total`` of x, or ``density``; ``None`` where
            the pair does not say.
        of: what the densities are of, in words: ``x``, ``x given y``, ``x and y`` or ``x and the mask``; likewise.
        fingerprint: of the observed values, which are to be the same in a comparison.
    """

    pointwise: Array
    pointwise_mcse: Array
    pareto_k: Array
    num_draws: int
    rise: Array
    smoothed: Array
    elbo: Array
    upper: Array
    ids: Array
    space: str = "the values as given"
    measure: Measure | None = None
    fingerprint: str = ""
    of: str | None = None

    def __len__(self) -> int:
        return len(self.pointwise)

    @property
    def good_k(self) -> float:
        """k-hat below which the estimate and its error can be trusted."""
        return good_k(self.num_draws)

    @property
    def elpd(self) -> float:
        """Sum over data, nats."""
        return float(self.pointwise.sum())

    @property
    def se(self) -> float:
        """Standard error of `elpd` for another test set of this size and other draws, nats; NaN for one datum.

        The spread of the estimates over data holds both sources: `se_test` is what is left of it without `mcse`.
        """
        return _spread(self.pointwise)

    @property
    def mcse(self) -> float:
        """Monte Carlo standard error of `elpd`: other draws, the same test set; nats."""
        return float(np.sqrt((self.pointwise_mcse**2).sum()))

    @property
    def se_test(self) -> float:
        """Standard error of `elpd` from the choice of test set alone, nats."""
        return _without(self.se, self.mcse)

    @property
    def bias(self) -> float:
        """Bias of `elpd` to first order, nats, at most 0: ``-sum_i rise_i``.

        It falls as 1 / K, so that what twice the draws gained is what is still missing. Where k-hat is above `good_k`
        it falls more slowly, and several times this is missing (ten times, at a true index of 0.9 and 500 draws).

        References:
            Nowozin 2018, Debiasing evidence approximations: on importance-weighted autoencoders and jackknife
            variational inference, ICLR, openreview HyZoi-WRb; here with half of the draws left out instead of one.
        """
        return -float(self.rise.sum())

    @property
    def bad(self) -> Array:
        """Data whose k-hat is above `good_k`, or could not be had; boolean, ``(datum,)``."""
        return np.asarray(~(self.pareto_k <= self.good_k))

    @property
    def num_bad(self) -> int:
        """Number of `bad` data."""
        return int(self.bad.sum())

    @property
    def trusted(self) -> bool:
        """Whether all but a tenth of the data have a good k-hat, so that `mcse` and `bias` mean what they say."""
        return self.num_bad <= _FEW_BAD * len(self)

    @property
    def bounded(self) -> bool:
        """Whether ten effective draws stand behind `upper` on average; with fewer it can lie below log p(x)."""
        return float(self.width.mean()) <= self._widest

    @property
    def _widest(self) -> float:
        return 0.5 * log(self.num_draws / _FEW_DRAWS)

    @property
    def effective_sample_size(self) -> Array:
        """``(sum w)^2 / sum w^2`` of each datum, between 1 and K."""
        return np.asarray(self.num_draws / (1 + self.num_draws * self.pointwise_mcse**2))

    @property
    def width(self) -> Array:
        """``upper - pointwise`` of each datum, nats: ``1/2 log(K / effective_sample_size)``."""
        return self.upper - self.pointwise

    def summary(self) -> dict[str, Any]:
        """Totals and their errors, and averages over data, in nats; JSON-able."""
        n = len(self)
        return {
            "elpd": self.elpd,
            "elpd_se": _number(self.se),
            "elpd_se_test": _number(self.se_test),
            "elpd_mcse": self.mcse,
            "elpd_bias": _number(self.bias),
            "log_px": self.elpd / n,
            "log_px_smoothed": float(self.smoothed.mean()),
            "elbo": float(self.elbo.mean()),
            "cubo": float(self.upper.mean()),
            "num_bad": self.num_bad,
            "good_k": self.good_k,
            "num_draws": self.num_draws,
            "n": n,
            "space": self.space,
            "measure": self.measure,
            "of": self.of,
        }

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Whether the estimates can be trusted, and whether there are draws enough."""
        n, more = len(self), f"raise num_draws (now {self.num_draws:,}) or bring the guide closer to the posterior"
        share, hopeless = self.num_bad / n, float((~(self.pareto_k <= 1)).mean())
        trust: Outcome = "pass" if self.trusted else "warn" if hopeless <= _MOST_BAD else "fail"
        test = self.se_test / n
        error, missing = self.mcse / n, -self.bias / n
        # The first order says nothing good of weights whose tail it does not see.
        lacking = worst(_graded(missing, test / 3, test), "pass" if self.trusted else "warn")
        width, widest = float(self.width.mean()), self._widest
        return (
            Verdict(
                "For how many data is the guide too far from the posterior to estimate log p(x)?",
                share,
                sqrt(share * (1 - share) / n),
                "of the data",
                f"at most {_FEW_BAD:g} with k-hat above {self.good_k:.2f}; it fails where {_MOST_BAD:g} are above 1",
                "k-hat: Vehtari et al. 2024, arXiv:1507.02646, sec. 3.2; shares: convention, all but a few and most",
                trust,
                ""
                if trust == "pass"
                else f"k-hat is above 1 for {hopeless:.0%}; their log p(x) is a lower bound, too low by an unknown "
                f"amount; {more}",
                "pareto_k",
            ),
            Verdict(
                "Are there draws enough for the mean of log p(x)?",
                error,
                None,
                "nats per datum, Monte Carlo standard error",
                f"at most a third of the test set's own {test:.3g}",
                "convention: a third adds 5 % to the total error",
                _graded(error, test / 3, test),
                "" if error <= test / 3 else f"raise num_draws (now {self.num_draws:,})",
                "log_px_mcse",
            ),
            Verdict(
                "How much is log p(x) still too low for want of draws?",
                missing,
                _spread(self.rise) / n,
                "nats per datum, to first order",
                f"at most a third of the test set's standard error {test:.3g}, and k-hat good enough to say so",
                "estimate: Nowozin 2018, ICLR, jackknife variational inference; share: convention",
                lacking,
                ""
                if lacking == "pass"
                else "quote it as a lower bound; "
                + ("" if self.trusted else "with such k-hat far more can be missing; ")
                + more,
                "log_px_bias",
            ),
            Verdict(
                "Does the upper bound on log p(x) rest on enough draws?",
                width,
                _spread(self.width) / n,
                "nats per datum, from the estimate to CUBO",
                f"at most {widest:.2f}, an effective sample of {_FEW_DRAWS}",
                "CUBO: Dieng et al. 2017, arXiv:1611.00328; its estimate is 1/2 log(K / ESS) above that of log p(x), "
                "never more than 1/2 log K, and biased down; 10 draws: convention",
                _graded(width, widest, 0.5 * log(self.num_draws / 2)),
                "" if width <= widest else f"CUBO may lie below log p(x) here; {more}",
                "sandwich",
            ),
        )

    def __str__(self) -> str:
        n = len(self)
        verdict = (
            "the guide is close enough everywhere"
            if self.num_bad == 0
            else f"there the estimate is too low by an unknown amount: raise num_draws (now {self.num_draws:,}) or "
            "widen the guide"
        )
        return (
            f"elpd {self.elpd:.1f} ± {self.se:.1f} nats over {n:,} held-out data ({self.elpd / n:.3f} each)\n"
            f"  standard error {self.se_test:.1f} (another test set), {self.mcse:.2f} (other draws)\n"
            f"  each datum lies between {self.elbo.mean():.3f} (ELBO) and {self.upper.mean():.3f} (CUBO, itself biased "
            f"down; at most {0.5 * log(self.num_draws):.1f} above the estimate from {self.num_draws:,} draws)\n"
            f"  k-hat above {self.good_k:.2f}: {self.num_bad:,} of {n:,}; {verdict}"
        )


def estimates(log_weight: Array) -> Estimates:
    """All that importance weights say of log p(x), in memory that does not grow with the number of data.

    Args:
        log_weight: log p(x, z) - log q(z | x) in nats, shape ``(particle, datum)``; at least 25 particles.

    Raises:
        ValueError: fewer than 25 particles, or a weight is NaN or +inf (the message gives its datum).

    References:
        Dieng et al. 2017, Variational inference via chi upper bound minimization, CUBO at n = 2. arXiv:1611.00328
    """
    weight = np.asarray(log_weight)
    shape = pareto_k(weight)
    count = max(_AT_ONCE // len(weight), 1)
    starts = range(0, weight.shape[1], count)
    return _joined([_estimate(weight[:, i : i + count], shape[i : i + count]) for i in starts])


def _joined(parts: list[Estimates]) -> Estimates:
    return Estimates(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def _estimate(log_weight: Array, shape: Array) -> Estimates:
    rows = np.array(log_weight.T, dtype=np.float64, order="C")
    elbo = rows.mean(1)
    log_px, error, upper = _moments(rows)
    half = rows.shape[1] // 2
    halves = 0.5 * (_moments(rows[:, :half])[0] + _moments(rows[:, half:])[0])
    with np.errstate(invalid="ignore"):  # -inf - -inf, where every weight of a datum is zero
        rise = np.maximum(log_px - halves, 0.0)
    smooth_rows(rows)
    return Estimates(log_px, error, rise, _moments(rows)[0], elbo, upper, shape)


def _moments(rows: Array) -> tuple[Array, Array, Array]:
    """log mean w, its error, and 1/2 log mean w^2, of weights of shape ``(datum, particle)``."""
    sums = WeightSums.of(torch.from_numpy(rows.T))
    estimate, error = sums.log_evidence()
    return estimate.numpy(), error.numpy(), sums.upper_bound().numpy()


def log_evidence(log_weight: Array) -> tuple[Array, Array]:
    """Importance-sampling estimate of log p(x) and its Monte Carlo standard error.

    Args:
        log_weight: log p(x, z) - log q(z | x) in nats, shape ``(particle, datum)``.

    Returns:
        Two arrays of shape ``(datum,)``, float64, see `vae_pyro.densities.moments.WeightSums.log_evidence`.
    """
    sums = WeightSums.of(torch.from_numpy(np.array(log_weight, dtype=np.float64)))
    estimate, error = sums.log_evidence()
    return estimate.numpy(), error.numpy()


def elpd(tree: xr.DataTree) -> ELPD:
    """Held-out log predictive density from the ``log_weight`` of `analysis.to_datatree`.

    Raises:
        ValueError: the tree has no log weights, fewer than 25 draws, or a weight is NaN or +inf.
    """
    if "sample_stats" not in tree or "log_weight" not in tree["sample_stats"]:
        raise ValueError("the tree has no sample_stats/log_weight; make it with analysis.to_datatree")
    weight = tree["sample_stats"]["log_weight"].transpose("chain", "draw", "datum")
    digest = Fingerprint()
    if "observed_data" in tree:
        digest.update(tree["observed_data"]["x"].transpose("datum", ...).values)
    return _elpd(
        estimates(weight.values.reshape(-1, weight.sizes["datum"])),
        num_draws=weight.sizes["chain"] * weight.sizes["draw"],
        ids=tree["sample_stats"]["datum"].values,
        space=tree.attrs.get("space", "the values as given"),
        measure=tree.attrs.get("measure"),
        of=tree.attrs.get("of"),
        fingerprint=digest.value,
    )


def elpd_of(
    pair: PairLike,
    x: Split | Tensor | Array,
    *,
    num_draws: int = 1000,
    seed: int = 0,
    mask: Tensor | None = None,
    y: Any = None,
) -> ELPD:
    """Held-out log predictive density straight from a pair: as `elpd`, and no draws are kept.

    Args:
        pair: a `VAE`, or any Pyro ``(model, guide)`` that keeps the contract of `vae_pyro.densities.log_densities`.
        x: ``(datum, *x_shape)``. A split whose observations are random is fixed with ``seed`` first.
        num_draws: draws for each datum, at least 25.
        seed: of the draws.
        mask: boolean, shape of ``x``, true where observed.
        y: classes that the programs are given, ``(datum,)``; densities are conditional on them, or, of structure
            ``m2``, joint.

    Raises:
        ValueError: fewer than 25 draws, data outside the support of the likelihood, or a weight that is NaN or +inf.
    """
    split = as_split(x, mask, y).fixed(derive_seed(seed, 0))
    digest = Fingerprint()

    def reduce(block: Weighed) -> Estimates:
        digest.update(block.x)
        return estimates(block.log_weight)

    return _elpd(
        _joined(weigh(pair, split, reduce, num_draws=num_draws, seed=seed)),
        num_draws=num_draws,
        ids=split.ids.cpu().numpy(),
        space=str(split.space),
        measure=as_pair(pair).measure,
        of=as_pair(pair).target(split),
        fingerprint=digest.value,
    )


def _elpd(figures: Estimates, **about: Any) -> ELPD:
    return ELPD(
        pointwise=figures.log_px,
        pointwise_mcse=figures.log_px_mcse,
        pareto_k=figures.pareto_k,
        rise=figures.rise,
        smoothed=figures.smoothed,
        elbo=figures.elbo,
        upper=figures.upper,
        **about,
    )


def _spread(values: Array) -> float:
    return float(sqrt(len(values)) * values.std(ddof=1)) if len(values) > 1 else float("nan")


def _without(total: float, part: float) -> float:
    return float(np.sqrt(np.maximum(total**2 - part**2, 0.0)))


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _graded(value: float, warn: float, fail: float) -> Outcome:
    return "pass" if value <= warn else "warn" if value <= fail else "fail"


def to_elpd_data(tree: xr.DataTree) -> Any:
    """The held-out log predictive density as ArviZ's `ELPDData`, for ``az.plot_khat`` and ``az.compare``.

    It is `analysis.density.elpd`'s estimate of log p(x_i) and its k-hat, not PSIS-LOO: with point estimates of the
    decoder's weights there is nothing to leave one out of. ``p``, an effective number of parameters, is therefore NaN.

    Raises:
        ValueError: see `analysis.density.elpd`.
    """
    from arviz_stats.utils import ELPDData

    result = elpd(tree)
    datum = tree["sample_stats"]["datum"]
    return ELPDData(
        elpd=result.elpd,
        se=result.se,
        p=float("nan"),
        n_samples=result.num_draws,
        n_data_points=len(result.pointwise),
        scale="log",
        warning=result.num_bad > 0,
        good_k=result.good_k,
        elpd_i=xr.DataArray(result.pointwise, coords={"datum": datum}, dims="datum"),
        pareto_k=xr.DataArray(result.pareto_k, coords={"datum": datum}, dims="datum"),
    )
