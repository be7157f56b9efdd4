"""How good a guide is: the ELBO of validation data, and the evidence from both sides on simulated data."""

from dataclasses import dataclass
from math import isnan
from typing import Any, Literal

import numpy as np
import torch

from vae_pyro.core.means import mean_and_error
from vae_pyro.data.split import Split
from vae_pyro.densities.walk import ELEMENTS_AT_ONCE, PairData, pieces
from vae_pyro.evaluation.evaluation import evaluate
from vae_pyro.training.refit.methods import Batch
from vae_pyro.training.refit.simulator import part_of

type Array = np.ndarray[Any, Any]

# Nats per datum below which no difference counts, since rounding alone may make it; and standard errors of a difference
# beyond which it counts.
_NEGLIGIBLE, _ERRORS = 1e-3, 2.0


@dataclass(frozen=True, repr=False)
class GuideQuality:
    """Estimates for each datum, nats.

    Attributes:
        elbo: of the validation data, ``(datum,)``.
        effective_sample_size: of their importance weights, between 1 and `num_draws`, ``(datum,)``.
        upper: log weight log p(x, z) - log q(z | x) of simulated data at the latents that made them, ``(datum,)``; plus
            infinity where the guide has no density there. ``None`` where the guide's density at given latents is
            unknown.
        lower: mean log weight of draws of the guide at the same data, ``(datum,)``.
        num_draws: of the guide for each datum.
    """

    elbo: Array
    effective_sample_size: Array
    upper: Array | None
    lower: Array | None
    num_draws: int

    @property
    def pointwise(self) -> Array | None:
        """Upper minus lower of each simulated datum."""
        return None if self.upper is None or self.lower is None else self.upper - self.lower

    @property
    def symmetric_kl(self) -> float:
        """KL(p || q) + KL(q || p) of posterior and guide on data of the model; NaN where it is unknown.

        References:
            Grosse, Ghahramani & Adams 2015, Sandwiching the marginal likelihood using bidirectional Monte Carlo, sec.
            3. arXiv:1511.02543
        """
        return float("nan") if self.pointwise is None else float(self.pointwise.mean())

    @property
    def loss(self) -> float:
        """Minus the ELBO plus half of the symmetric KL, by which the best of several guides is chosen.

        Up to log p(x), which is the same for all of them, both parts are what the ELBO loses: on the validation data,
        and, to first order, on data of the model.
        """
        beside = 0.0 if isnan(self.symmetric_kl) else 0.5 * self.symmetric_kl
        return beside - float(self.elbo.mean())

    def summary(self) -> dict[str, float]:
        """Averages with their standard errors over data, nats per datum."""
        elbo, elbo_se = mean_and_error(self.elbo)
        found = {"elbo": elbo, "elbo_se": elbo_se}
        if self.pointwise is not None:
            found["symmetric_kl"], found["symmetric_kl_se"] = mean_and_error(self.pointwise)
        found["effective_share"] = float(self.effective_sample_size.mean() / self.num_draws)
        return found

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={value:.4g}" for name, value in self.summary().items())
        return f"<{type(self).__name__}: {values}>"


@torch.no_grad()
def assess(data: PairData, validation: Split, simulated: Batch | None, *, num_draws: int, seed: int) -> GuideQuality:
    """Quality of the guide as it stands.

    Args:
        data: the pair, bound to some data.
        validation: with fixed observations.
        simulated: draws of the model with their latents; ``None`` leaves their evidence out.
        num_draws: of the guide for each datum, at least 2.
        seed: of the draws on the validation data. Those on simulated data come from torch's generator.
    """
    estimated = evaluate(data.pair, validation, num_draws=num_draws, seed=seed)
    upper, lower = (None, None) if simulated is None else evidence(data, simulated, num_draws)
    return GuideQuality(estimated.elbo, estimated.effective_sample_size, upper, lower, num_draws)


@torch.no_grad()
def evidence(data: PairData, simulated: Batch, num_draws: int) -> tuple[Array, Array]:
    """Log weight at the latents that made each datum, and its mean over draws of the guide, each ``(datum,)``."""
    programs, parts = data.programs, []
    for rows in pieces(len(simulated), max(ELEMENTS_AT_ONCE // (num_draws * data.width), 1)):
        some = part_of(simulated, rows)
        truth = {name: value[None] for name, value in some.latents.items()}
        log_guide = programs.score_guide(some.x, truth, **some.given)
        scores = programs.score(some.x, truth, **some.given)
        upper = (scores.log_likelihood + scores.total_prior - log_guide)[0]
        lower = programs.log_densities(some.x, num_draws, **some.given).log_weight.mean(0)
        parts.append(torch.stack([upper, lower]).to("cpu", torch.float64))
    both = torch.cat(parts, 1).numpy()
    return both[0], both[1]


@dataclass(frozen=True)
class Gain:
    """What one guide has over another by one criterion, of the same data.

    Attributes:
        mean: nats per datum; positive where the new guide is better. NaN where both are unknown.
        error: standard error over data.
    """

    mean: float
    error: float

    @property
    def outcome(self) -> Literal["better", "worse", "equal"]:
        """Beyond two standard errors, and by more than rounding makes."""
        error = 0.0 if isnan(self.error) else self.error
        if self.mean - _ERRORS * error > _NEGLIGIBLE:
            return "better"
        return "worse" if self.mean + _ERRORS * error < -_NEGLIGIBLE else "equal"

    def __str__(self) -> str:
        return f"{self.mean:+.3f}" + ("" if isnan(self.error) else f" ± {self.error:.2g}")


def gains(old: GuideQuality, new: GuideQuality) -> dict[str, Gain]:
    """By validation ELBO, and by the symmetric KL on simulated data; datum by datum, so that log p(x) cancels."""
    found = {"elbo": _gain(new.elbo, old.elbo)}
    if old.pointwise is not None and new.pointwise is not None:
        found["symmetric_kl"] = _gain(-new.pointwise, -old.pointwise)
    return found


def _gain(new: Array, old: Array) -> Gain:
    with np.errstate(invalid="ignore"):
        rise = new - old
    known = rise[~np.isnan(rise)]  # infinite in both
    return Gain(0.0, float("nan")) if not len(known) else Gain(*mean_and_error(known))
