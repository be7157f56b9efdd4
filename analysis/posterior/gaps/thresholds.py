"""When the inference gaps warn or fail: both gaps, and whether the estimates behind them are reliable."""

from typing import TYPE_CHECKING, Literal

import numpy as np

from analysis.results.remedies import REFINE, REFIT
from analysis.results.verdict import Outcome, Verdict, judged

if TYPE_CHECKING:
    from analysis.posterior.gaps.result import InferenceGaps

# Nats for each latent: half the square of a shift of 1/sqrt(2), and of 1, posterior standard deviations.
_WARN, _FAIL = 0.25, 0.5
_CONVENTION = (
    "definition: Cremer et al. 2018, Table 1, arXiv:1801.03558 (1.43 and 1.34 nats, approximation and amortization, on "
    "MNIST); the threshold is a convention: the loss of a guide whose means are off by 0.7 (fail: by 1) posterior "
    "standard deviations in every latent"
)
# Nats that are small beside the gaps, and that are not.
_SMALL, _LARGE = 0.1, 0.5
# Below zero a gap is impossible; so much is left to rounding and to the optimiser.
_ROUNDING = 0.01


def verdicts_of(result: "InferenceGaps") -> tuple[Verdict, ...]:
    """Both gaps, then whether the estimates behind them are reliable."""
    checks = [_optimised(result), _agreement(result), *result.annealing.verdicts]
    checks += result.sandwich.verdicts if result.sandwich else ()
    checks += result.nuts.verdicts if result.nuts else ()
    return (
        _gap(
            result,
            "amortization",
            "Is the encoder's guide as good as one fitted to each datum?",
            f"{REFIT}, widen the encoder, or {REFINE}",
        ),
        _gap(
            result,
            "approximation",
            f"Is the family of the guide ({result.family.replace('_', '-')} Gaussian) rich enough?"
            if result.same_family
            else f"Is a {result.family.replace('_', '-')} Gaussian, or the guide, close to the posterior?",
            "choose posterior 'full_rank' or 'flow'"
            if result.family == "mean_field"
            else f"choose posterior 'flow', or {REFINE}",
        ),
        *checks,
    )


def _gap(result: "InferenceGaps", gap: Literal["amortization", "approximation"], question: str, advice: str) -> Verdict:
    mean, mcse, sampling = result.average(gap)
    error = mcse if np.isnan(sampling) else sampling
    good, bad = _WARN * result.latent_dim, _FAIL * result.latent_dim
    outcome = judged(mean, error, good, bad)
    note = "" if result.same_family else "split by a Gaussian family, to which the guide does not belong; "
    if outcome != "pass" and mean - 2 * error <= good:
        advice = "inconclusive: the estimates are too noisy; raise num_data or num_temperatures"
    if gap == "approximation" and mean < -3 * mcse - _ROUNDING:
        outcome, advice = "warn", "negative, which is impossible: log p(x) is too low; raise num_temperatures"
    elif outcome != "pass" and not result.same_family:
        # A guide outside of the family may be better than its best member, and loses no more than the whole.
        whole, whole_mcse, whole_sampling = result.average("inference")
        if judged(whole, whole_mcse if np.isnan(whole_sampling) else whole_sampling, good, bad) == "pass":
            outcome, note = "pass", note + f"the guide itself loses {whole:.2g} nats only; "
    return Verdict(
        question,
        mean,
        error,
        "nats per datum",
        f"at most {good:g}, {_WARN} for each of {result.latent_dim} latents (fail above {bad:g}), beyond two "
        f"standard errors, and surely below {bad:g}",
        _CONVENTION,
        outcome,
        note + ("" if outcome == "pass" else advice),
        f"{gap}_gap",
    )


def _optimised(result: "InferenceGaps") -> Verdict:
    mean, n = float(result.remaining.mean()), len(result.remaining)
    error = float(np.sqrt((result.remaining_se**2).sum()) / n)
    outcome: Outcome = "pass" if judged(mean, error, _SMALL, _LARGE) == "pass" else "warn"
    return Verdict(
        "Has the optimisation of each datum's guide converged?",
        mean,
        error,
        "nats per datum that a further natural-gradient step would gain",
        f"at most {_SMALL:g}, beyond two standard errors",
        "convention: small beside the gaps",
        outcome,
        remedy="raise num_steps: the amortization gap is too small by about this much",
        name="local_convergence",
    )


def _agreement(result: "InferenceGaps") -> Verdict:
    n = len(result.log_px)
    # The bound that exceeds log p(x) most, in units of what is allowed.
    rows = []
    for name, (bound, bound_se) in result.bounds.items():
        mean = float((result.log_px - bound).mean())
        error = float(np.sqrt((result.log_px_se**2 + bound_se**2).sum()) / n)
        rows.append((mean / max(_SMALL, 3 * error), mean, error, name))
    _, mean, error, name = min(rows)
    low, vague = mean < -max(_SMALL, 3 * error), not 2 * error <= _LARGE
    bad = int((result.pareto_k_local > 0.7).sum())
    if low:
        advice = "log p(x) is too low, and the gaps are too small: raise num_temperatures, then num_chains"
    elif vague:
        advice = "inconclusive: the bounds are too noisy; raise num_chains, num_temperatures or num_draws"
    elif name == "importance sampling from the optimised guide" and bad and mean > 3 * error:
        advice = f"importance sampling is low by as much: its k-hat is above 0.7 for {bad:,} of {n:,} data"
    else:
        advice = ""
    return Verdict(
        "Is log p(x) at least as high as every other bound on it?",
        mean,
        error,
        f"nats per datum, log p(x) minus the highest other bound: {name}",
        f"not below -{_SMALL:g} or minus three standard errors, with two of them below {_LARGE:g}",
        "all are lower bounds on average, the highest is nearest (Wu et al. 2017, arXiv:1611.04273); the numbers are a "
        "convention",
        "warn" if low or vague else "pass",
        advice,
        "log_px_agreement",
    )
