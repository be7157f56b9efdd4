"""The best Gaussian guide of each single datum: what the family could do, were it not amortized."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from analysis.posterior.joint import Gaussian, LogJoint

type Family = Literal["mean_field", "full_rank"]

_SELECTION_DRAWS, _CHECK_DRAWS, _DRAWS_AT_ONCE = 100, 200, 10


@dataclass(frozen=True)
class LocalConfig:
    """How the guides are optimised.

    Attributes:
        num_steps: of Adam, whose rate falls to zero as the square of the steps that are left.
        num_particles: draws for each step and datum.
        learning_rate: at the start, in units of the amortized guide's standard deviations.

    Raises:
        ValueError: fewer than 1 step or particle, or a rate that is not positive.
    """

    num_steps: int = 300
    num_particles: int = 8
    learning_rate: float = 0.1

    def __post_init__(self) -> None:
        if self.num_steps < 1 or self.num_particles < 1 or not self.learning_rate > 0:
            raise ValueError(
                f"at least one step and one particle and a positive rate are required, got num_steps={self.num_steps}, "
                f"num_particles={self.num_particles}, learning_rate={self.learning_rate}"
            )


@dataclass(frozen=True)
class LocalGuide:
    """Gaussian guides optimised for each datum.

    Attributes:
        gaussian: the guides.
        remaining: what one more step of natural gradient would add to the ELBO, nats, ``(datum,)``; its estimate may
            be negative where nothing is left.
        remaining_se: Monte Carlo standard error of each.
        improved: whether the result beats the start, ``(datum,)``; where it does not, the start is kept.
    """

    gaussian: Gaussian
    remaining: Tensor
    remaining_se: Tensor
    improved: Tensor


@torch.no_grad()
def optimize_locally(joint: LogJoint, start: Gaussian, family: Family, config: LocalConfig) -> LocalGuide:
    """Maximise the ELBO of every datum over a Gaussian of its own.

    Reparameterised gradients without the score term, whose noise vanishes as q approaches the posterior; all data at
    once. Whether the result beats the start is judged by draws that neither the optimiser nor a later estimate sees.

    Args:
        joint: log p(x, z) of the data.
        start: where to start, and the units: the amortized guide.
        family: ``mean_field`` or ``full_rank``.
        config: see `LocalConfig`.

    Returns:
        The optimised guides, with what is left to gain. Torch's generator is used as it stands.

    Raises:
        ValueError: a mean-field guide was to start from a correlated one.

    References:
        Cremer et al. 2018, Inference suboptimality in variational autoencoders. arXiv:1801.03558
        Roeder et al. 2017, Sticking the landing, sec. 3. arXiv:1703.09194
    """
    if family == "mean_field" and not start.diagonal:
        raise ValueError("a mean-field guide cannot start at a correlated Gaussian; choose family 'full_rank'")
    loc = torch.zeros_like(start.loc)
    log_diagonal = torch.zeros_like(start.loc)
    lower = torch.zeros_like(start.scale_tril)
    parameters = [loc, log_diagonal, *([lower] if family == "full_rank" else [])]
    # In these units curvatures are near 1, and below ``eps`` a step is near to Newton's: rounding at an optimum dies
    # out, where with Adam's usual 1e-8 it would grow to the size of the rate.
    optimizer = torch.optim.Adam(parameters, lr=config.learning_rate, eps=config.learning_rate)
    for step in range(config.num_steps):
        optimizer.param_groups[0]["lr"] = config.learning_rate * (1 - step / config.num_steps) ** 2
        factor = torch.diag_embed(log_diagonal.exp()) + lower
        slopes = _slopes(joint, _moved(start, loc, factor), start.scale_tril, factor, config.num_particles)
        mean_loc, mean_factor = (torch.nan_to_num(slope, 0.0, 0.0, 0.0) for slope in slopes)
        loc.grad = -mean_loc
        log_diagonal.grad = -mean_factor.diagonal(dim1=-2, dim2=-1) * log_diagonal.exp()
        lower.grad = -mean_factor.tril(-1)
        optimizer.step()
    found = _moved(start, loc, torch.diag_embed(log_diagonal.exp()) + lower)
    gain = _gain(joint, found, start)
    improved = gain > 0
    q = Gaussian(
        torch.where(improved[:, None], found.loc, start.loc),
        torch.where(improved[:, None, None], found.scale_tril, start.scale_tril),
        family == "mean_field",
    )
    return LocalGuide(q, *_remaining(joint, q, family), improved)


def _moved(start: Gaussian, loc: Tensor, factor: Tensor) -> Gaussian:
    """``start`` after the affine map ``noise -> loc + factor noise`` of its standard normal noise."""
    centre = start.loc + torch.einsum("bij,bj->bi", start.scale_tril, loc)
    return Gaussian(centre, start.scale_tril @ factor, start.diagonal)


def _slopes(joint: LogJoint, q: Gaussian, unit: Tensor, factor: Tensor, num_particles: int) -> tuple[Tensor, Tensor]:
    """Gradient of the ELBO with respect to location ``(datum, dim)`` and factor ``(datum, dim, dim)``, in ``unit``s."""
    noise = torch.randn(num_particles, *q.loc.shape).to(q.loc)
    z = q.shift(noise)
    slope = joint.value_and_gradient(z)[1] - q.value_and_gradient(z)[1]
    slope = torch.einsum("bji,kbj->kbi", unit, slope)
    return slope.mean(0), torch.einsum("kbi,kbj->bij", slope, noise) / num_particles


def _gain(joint: LogJoint, new: Gaussian, old: Gaussian) -> Tensor:
    """Estimated rise of the ELBO from one Gaussian to another, from the same noise, ``(datum,)``."""
    total = torch.zeros(len(joint), dtype=torch.float64, device=new.loc.device)
    for _ in range(0, _SELECTION_DRAWS, _DRAWS_AT_ONCE):
        noise = torch.randn(_DRAWS_AT_ONCE, *new.loc.shape).to(new.loc)
        weights = [joint.value(q.shift(noise)) - q.log_prob(q.shift(noise)) for q in (new, old)]
        total += (weights[0].double() - weights[1].double()).sum(0)
    return torch.nan_to_num(total, nan=-torch.inf)


def _remaining(joint: LogJoint, q: Gaussian, family: Family) -> tuple[Tensor, Tensor]:
    """Predicted rise of the ELBO by one natural-gradient step, half the squared norm of the gradient, and its error.

    In units of q itself, the Fisher information is 1 for a location and an off-diagonal element, 2 for a log scale.
    """
    chunks = []
    for _ in range(0, _CHECK_DRAWS, _DRAWS_AT_ONCE):
        slope, factor = _slopes(joint, q, q.scale_tril, q.scale_tril, _DRAWS_AT_ONCE)
        parts = [slope, factor.diagonal(dim1=-2, dim2=-1) / 2**0.5]
        if family == "full_rank":
            row, column = torch.tril_indices(joint.dim, joint.dim, offset=-1)
            parts.append(factor[:, row, column])
        chunks.append(torch.cat(parts, -1).double())
    gradient = torch.stack(chunks)
    mean, noise = gradient.mean(0), gradient.var(0) / len(chunks)
    error = (mean**2 * noise + 0.5 * noise**2).sum(-1).sqrt()
    return 0.5 * (mean**2 - noise).sum(-1), error
