"""What amortized inference loses, and to what: log p(x) - ELBO as approximation gap plus amortization gap, by datum."""

from dataclasses import dataclass
from math import sqrt
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from analysis.density.elpd import log_evidence
from analysis.posterior.annealing import (
    Annealing,
    AnnealingConfig,
    Sandwich,
    anneal,
    join,
    joints,
    sandwich,
)
from analysis.posterior.joint import Gaussian, LogJoint, guide_gaussian
from analysis.posterior.local_guides import Family, LocalConfig, LocalGuide, optimize_locally
from analysis.posterior.nuts import PosteriorMoments, nuts_moments
from analysis.results.verdict import Outcome, Verdict
from analysis.stats.pareto_smoothing import pareto_k
from vae_pyro.core.isolation import derive_seed, isolated
from vae_pyro.data.dataset import as_split
from vae_pyro.data.split import Split
from vae_pyro.densities.log_densities import log_densities
from vae_pyro.densities.pair import PairLike, as_pair

type Array = np.ndarray[Any, Any]

_DRAWS_AT_ONCE = 10
# Nats for each latent: half the square of a shift of 1/sqrt(2), and of 1, posterior standard deviations.
_WARN, _FAIL = 0.25, 0.5
_CONVENTION = (
    "definition: Cremer et al. 2018, Table 1, arXiv:1801.03558 (1.43 and 1.34 nats, approximation and amortization, on "
    "MNIST); the figure is a convention: what a guide loses whose means are off by 0.7 (fail: by 1) posterior standard "
    "deviations in every latent"
)


@dataclass(frozen=True)
class InferenceGaps:
    """The inference gap log p(x) - ELBO and its two parts, in nats.

    Attributes:
        ids: of the data, ``(datum,)``.
        elbo: of the amortized guide, ``(datum,)``; ``elbo_se`` is its Monte Carlo standard error.
        elbo_local: of the guide optimised for that datum, ``(datum,)``, with ``elbo_local_se``.
        amortization_se: Monte Carlo standard error of `amortization`; both ELBOs see the same noise where the guide is
            Gaussian, and most of it cancels.
        annealing: log p(x) by annealing from the optimised guide: the reference.
        log_px_is: log p(x) by importance sampling from the optimised guide, ``(datum,)``, with ``log_px_is_se``.
        pareto_k_local: tail index of its weights, ``(datum,)``.
        log_px_guide: log p(x) by importance sampling from the amortized guide, ``(datum,)``.
        pareto_k_guide: tail index of its weights, ``(datum,)``.
        remaining: nats that a further step of the local optimisation would gain, ``(datum,)``, with ``remaining_se``.
        improved: whether optimising beat the amortized guide, ``(datum,)``.
        latent_dim: numbers in the latents of one datum.
        family: of the optimised guide.
        same_family: whether the amortized guide belongs to it; if not, the two parts are not those of its own family.
        num_draws: draws behind the ELBOs and importance sampling.
        sandwich: bounds on simulated data, which certify the reference; ``None`` where not asked for.
        nuts: posterior moments of a few data by NUTS; ``None`` where not asked for.
    """

    ids: Array
    elbo: Array
    elbo_se: Array
    elbo_local: Array
    elbo_local_se: Array
    amortization_se: Array
    annealing: Annealing
    log_px_is: Array
    log_px_is_se: Array
    pareto_k_local: Array
    log_px_guide: Array
    pareto_k_guide: Array
    remaining: Array
    remaining_se: Array
    improved: Array
    latent_dim: int
    family: Family
    same_family: bool
    num_draws: int
    sandwich: Sandwich | None = None
    nuts: PosteriorMoments | None = None

    @property
    def log_px(self) -> Array:
        """log p(x) of each datum by annealing, ``(datum,)``."""
        return self.annealing.log_px

    @property
    def amortization(self) -> Array:
        """ELBO of the best guide for the datum minus that of the amortized guide, ``(datum,)``."""
        return self.elbo_local - self.elbo

    @property
    def approximation(self) -> Array:
        """log p(x) minus the ELBO of the best guide for the datum, ``(datum,)``."""
        return self.log_px - self.elbo_local

    @property
    def inference(self) -> Array:
        """log p(x) minus the ELBO of the amortized guide, ``(datum,)``: the sum of the two."""
        return self.log_px - self.elbo

    @property
    def approximation_se(self) -> Array:
        """Monte Carlo standard error of `approximation`, ``(datum,)``."""
        return np.hypot(self.annealing.log_px_se, self.elbo_local_se)

    @property
    def inference_se(self) -> Array:
        """Monte Carlo standard error of `inference`, ``(datum,)``."""
        return np.hypot(self.annealing.log_px_se, self.elbo_se)

    def average(self, gap: Literal["amortization", "approximation", "inference"]) -> tuple[float, float, float]:
        """Mean of a gap over data, its Monte Carlo standard error, and that of another sample of data.

        The latter is the spread over data divided by sqrt(n), which holds the former as well; NaN for a single datum.
        """
        values, errors = getattr(self, gap), getattr(self, f"{gap}_se")
        n = len(values)
        sampling = float(values.std(ddof=1) / sqrt(n)) if n > 1 else float("nan")
        return float(values.mean()), float(np.sqrt((errors**2).sum()) / n), sampling

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Both gaps, then whether the figures behind them can be trusted."""
        checks = [self._optimised(), self._agreement(), *self.annealing.verdicts]
        checks += self.sandwich.verdicts if self.sandwich else ()
        checks += self.nuts.verdicts if self.nuts else ()
        return (
            self._gap(
                "amortization",
                "Does the encoder find a guide as good as one fitted to each datum?",
                "train longer, widen the encoder, or refine q for the data that matter",
            ),
            self._gap(
                "approximation",
                f"Is the family of the guide ({self.family.replace('_', '-')} Gaussian) rich enough?",
                "choose posterior 'full_rank' or 'flow'"
                if self.family == "mean_field"
                else "choose posterior 'flow', or weight draws by importance",
            ),
            *checks,
        )

    def _gap(self, gap: Literal["amortization", "approximation"], question: str, advice: str) -> Verdict:
        mean, mcse, sampling = self.average(gap)
        error = mcse if np.isnan(sampling) else sampling
        good, bad = _WARN * self.latent_dim, _FAIL * self.latent_dim
        low = mean - 2 * error
        outcome: Outcome = "pass" if low <= good else "warn" if low <= bad else "fail"
        note = "" if self.same_family else "split by a Gaussian, which the guide is not; "
        return Verdict(
            question,
            mean,
            error,
            "nats per datum",
            f"at most {good:g}, {_WARN} for each of {self.latent_dim} latents (fail above {bad:g}), beyond two "
            "standard errors",
            _CONVENTION,
            outcome,
            note + ("" if outcome == "pass" else advice),
            f"{gap}_gap",
        )

    def _optimised(self) -> Verdict:
        mean, n = float(self.remaining.mean()), len(self.remaining)
        error = float(np.sqrt((self.remaining_se**2).sum()) / n)
        outcome: Outcome = "pass" if mean - 2 * error <= 0.1 else "warn"
        return Verdict(
            "Has the optimisation of each datum's guide converged?",
            mean,
            error,
            "nats per datum that a further natural-gradient step would gain",
            "at most 0.1, beyond two standard errors",
            "convention: small beside the gaps",
            outcome,
            "" if outcome == "pass" else "raise num_steps: the amortization gap is too small by about this much",
            "local_convergence",
        )

    def _agreement(self) -> Verdict:
        difference = self.log_px - self.log_px_is
        n = len(difference)
        mean = float(difference.mean())
        error = float(np.sqrt((self.annealing.log_px_se**2 + self.log_px_is_se**2).sum()) / n)
        bad = int((self.pareto_k_local > 0.7).sum())
        outcome: Outcome = "pass" if mean >= -max(0.1, 3 * error) else "warn"
        advice = (
            "annealing is too short: raise num_temperatures"
            if outcome == "warn"
            else f"importance sampling is low by as much: its k-hat is above 0.7 for {bad:,} of {n:,} data"
            if bad and mean > 3 * error
            else ""
        )
        return Verdict(
            "Does annealing find all that importance sampling finds of log p(x)?",
            mean,
            error,
            "nats per datum, annealing minus importance sampling from the optimised guide",
            "not below -0.1 or minus three standard errors",
            "both are lower bounds on average, the higher is nearer (Wu et al. 2017, arXiv:1611.04273); 0.1 is a "
            "convention",
            outcome,
            advice,
            "log_px_agreement",
        )

    def summary(self) -> dict[str, Any]:
        """Averages over data in nats per datum, each with ``_se`` (other draws) and ``_sampling_se`` (other data)."""
        figures: dict[str, Any] = {
            "elbo": float(self.elbo.mean()),
            "elbo_local": float(self.elbo_local.mean()),
            "log_px": self.annealing.mean,
            "log_px_se": self.annealing.mean_mcse,
            "log_px_is": float(self.log_px_is.mean()),
            "log_px_guide": float(self.log_px_guide.mean()),
        }
        gaps: tuple[Literal["amortization", "approximation", "inference"], ...] = (
            "amortization",
            "approximation",
            "inference",
        )
        for gap in gaps:
            mean, mcse, sampling = self.average(gap)
            figures |= {f"{gap}_gap": mean, f"{gap}_gap_se": mcse}
            figures[f"{gap}_gap_sampling_se"] = None if np.isnan(sampling) else sampling
        figures |= {
            "num_bad_k_guide": int((self.pareto_k_guide > 0.7).sum()),
            "num_bad_k_local": int((self.pareto_k_local > 0.7).sum()),
            "remaining": float(self.remaining.mean()),
            "family": self.family,
            "same_family": self.same_family,
            "latent_dim": self.latent_dim,
            "num_draws": self.num_draws,
            "n": len(self.elbo),
            "annealing": self.annealing.summary(),
            "sandwich": self.sandwich.summary() if self.sandwich else None,
            "nuts": self.nuts.summary() if self.nuts else None,
        }
        return figures

    def __str__(self) -> str:
        lines = [f"inference gaps over {len(self.elbo):,} data, nats per datum (± other draws; ± other data)"]
        notes = {
            "amortization": f"ELBO {self.elbo.mean():.3f} of the encoder, {self.elbo_local.mean():.3f} fitted to each",
            "approximation": f"log p(x) {self.annealing.mean:.3f}; {self.family.replace('_', '-')} Gaussian",
        }
        for (gap, note), verdict in zip(notes.items(), self.verdicts, strict=False):
            mean, mcse, sampling = self.average(gap)  # type: ignore[arg-type]
            lines.append(f"  {gap} {mean:z.3f} ± {mcse:.2g}; ± {sampling:.2g} [{verdict.outcome}]: {note}")
        doubts = [verdict for verdict in self.verdicts[2:] if verdict.outcome != "pass"]
        lines += [f"  {verdict}" for verdict in doubts] or ["  the checks behind these figures pass"]
        return "\n".join(lines)


def inference_gaps(
    pair: PairLike,
    x: Split | Tensor | Array,
    *,
    num_data: int = 100,
    num_draws: int = 5000,
    family: Family | None = None,
    local: LocalConfig | None = None,
    annealing: AnnealingConfig | None = None,
    num_simulated: int = 25,
    num_nuts: int = 0,
    seed: int = 0,
    mask: Tensor | None = None,
    y: Any = None,
) -> InferenceGaps:
    """Split log p(x) - ELBO into what the family of the guide loses and what amortizing it loses.

    The amortization gap is ELBO(q*) - ELBO(q), the approximation gap log p(x) - ELBO(q*), with q the guide and q* the
    best of a family for each datum, found by gradient ascent from q. log p(x) comes from annealing that starts at q*.

    Args:
        pair: a `VAE`, or any Pyro ``(model, guide)`` that keeps the contract of `vae_pyro.densities.log_densities`,
            with real-valued latents.
        x: ``(datum, *x_shape)``. A split whose observations are random is fixed with ``seed`` first.
        num_data: how many of the data to look at, a random subset; all where there are fewer.
        num_draws: for ELBOs and importance sampling, for each datum; at least 25.
        family: of q*; ``None`` takes that of the guide: ``full_rank`` where it is a correlated Gaussian, ``mean_field``
            where it is a diagonal one. A guide that is no Gaussian is compared with a mean-field q*, and may be better.
        local: how q* is found.
        annealing: number of chains, length of the path.
        num_simulated: data to simulate for bounds on the error of annealing; 0 leaves them out.
        num_nuts: data whose posterior moments Pyro's NUTS computes beside the guide's; 0 leaves them out.
        seed: of all draws.
        mask: boolean, shape of ``x``, true where observed; NaN is not observed.
        y: classes ``(datum,)`` that the programs are given.

    Returns:
        Both gaps of each datum with errors, and the evidence that they can be trusted.

    Raises:
        ValueError: latents that are not real-valued, data outside the support of the likelihood, too few data or draws.

    References:
        Cremer, Li & Duvenaud 2018, Inference suboptimality in variational autoencoders, Table 1.
        arXiv:1801.03558
    """
    if num_data < 1 or num_simulated < 0 or num_nuts < 0:
        raise ValueError(
            f"num_data of at least 1 and num_simulated and num_nuts of at least 0 are wanted, got {num_data}, "
            f"{num_simulated}, {num_nuts}"
        )
    if num_draws < 25:
        raise ValueError(f"num_draws must be at least 25 for k-hat, got {num_draws}")
    local, annealing = local or LocalConfig(), annealing or AnnealingConfig()
    split = as_split(x, mask, y).fixed(derive_seed(seed, 0))
    if num_data < len(split):
        rows = np.random.default_rng(derive_seed(seed, 1)).choice(len(split), num_data, replace=False)
        split = split.take(torch.as_tensor(np.sort(rows)))
    held = max(annealing.num_chains, local.num_particles, _DRAWS_AT_ONCE)

    parts: dict[str, list[Array]] = {}
    chains: list[Annealing] = []
    for number, joint in enumerate(joints(pair, split, held)):
        with isolated(derive_seed(seed, 2, number)):
            guide, exact, chosen, best = _optimised(joint, family, local)
            of_guide, of_best = _log_weights(joint, guide if exact else None, best.gaussian, num_draws)
            chains.append(anneal(joint, best.gaussian, annealing))
        block = _estimates(of_guide, of_best, paired=exact)
        for name in ("remaining", "remaining_se", "improved"):
            block[name] = getattr(best, name).cpu().numpy()
        for name, values in block.items():
            parts.setdefault(name, []).append(values)
        same_family = exact and (chosen == "full_rank" or guide.diagonal)
        latent_dim = joint.dim
    joined: dict[str, Any] = {name: np.concatenate(values) for name, values in parts.items()}
    bounds = None
    if num_simulated:
        # Simulated data are masked, and have the classes, of the first of these, of which there may be fewer.
        plain = split.mask is None and split.y is None
        num_simulated = num_simulated if plain else min(num_simulated, len(split))
        mask = None if split.mask is None else split.mask[:num_simulated]
        y = None if split.y is None else split.y[:num_simulated].to(as_pair(pair).place(split)[0])

        def start(joint: LogJoint) -> Gaussian:
            return _optimised(joint, family, local)[-1].gaussian

        bounds = sandwich(pair, num_simulated, start, annealing, mask=mask, y=y, seed=derive_seed(seed, 3))
    return InferenceGaps(
        ids=split.ids.cpu().numpy(),
        **joined,
        annealing=join(chains),
        family=chosen,
        same_family=same_family,
        latent_dim=latent_dim,
        num_draws=num_draws,
        sandwich=bounds,
        nuts=nuts_moments(pair, split.take(slice(0, num_nuts)), seed=derive_seed(seed, 4)) if num_nuts else None,
    )


def _optimised(
    joint: LogJoint, family: Family | None, config: LocalConfig
) -> tuple[Gaussian, bool, Family, LocalGuide]:
    """The guide as a Gaussian, whether it is one, and the best Gaussian of a family for each datum."""
    guide, exact = guide_gaussian(joint)
    # A guide of layers correlates them through its draws, and would beat the best Gaussian that cannot.
    correlated = not guide.diagonal or (not exact and len(joint.shapes) > 1)
    chosen: Family = family or ("full_rank" if correlated else "mean_field")
    start = guide
    if chosen == "mean_field" and not guide.diagonal:
        start = Gaussian(guide.loc, torch.diag_embed(guide.scale), True)
    return guide, exact, chosen, optimize_locally(joint, start, chosen, config)


@torch.no_grad()
def _log_weights(joint: LogJoint, guide: Gaussian | None, best: Gaussian, num_draws: int) -> tuple[Array, Array]:
    """Log weights ``(draw, datum)`` of the guide, ``None`` for one that is no Gaussian, and of ``best``."""
    weights: tuple[list[Tensor], list[Tensor]] = ([], [])
    for first in range(0, num_draws, _DRAWS_AT_ONCE):
        count = min(_DRAWS_AT_ONCE, num_draws - first)
        noise = torch.randn(count, *best.loc.shape).to(best.loc)
        for q, kept in zip((guide, best), weights, strict=True):
            if q is None:
                ledger = log_densities(joint.model, joint.guide, joint.x, num_particles=count, **joint.given)
                kept.append(ledger.log_joint - ledger.log_guide)
            else:
                z = q.shift(noise)
                kept.append(joint.value(z) - q.log_prob(z))
    of_guide, of_best = (torch.cat(kept).double().cpu().numpy() for kept in weights)
    return of_guide, of_best


def _estimates(of_guide: Array, of_best: Array, *, paired: bool) -> dict[str, Array]:
    """ELBOs, log p(x), tail indices and their errors from log weights ``(draw, datum)``."""
    root = sqrt(len(of_guide))
    elbo_se, elbo_local_se = of_guide.std(0, ddof=1) / root, of_best.std(0, ddof=1) / root
    log_px_is, log_px_is_se = log_evidence(of_best)
    return {
        "elbo": of_guide.mean(0),
        "elbo_se": elbo_se,
        "elbo_local": of_best.mean(0),
        "elbo_local_se": elbo_local_se,
        "amortization_se": (of_best - of_guide).std(0, ddof=1) / root if paired else np.hypot(elbo_se, elbo_local_se),
        "log_px_is": log_px_is,
        "log_px_is_se": log_px_is_se,
        "pareto_k_local": pareto_k(of_best),
        "log_px_guide": log_evidence(of_guide)[0],
        "pareto_k_guide": pareto_k(of_guide),
    }
