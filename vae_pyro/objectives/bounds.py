"""Objectives that are reductions of the importance weights: multi-sample bounds, and other gradients of the same."""

from itertools import pairwise
from math import log
from typing import Annotated, Literal

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from vae_pyro.densities.log_densities import Ledger, zero_with_slope
from vae_pyro.objectives.base import OBJECTIVES, LedgerELBO, Particles


def log_mean_exp(value: Tensor, dim: int = 0) -> Tensor:
    """``log mean exp(value)`` over one dimension."""
    return torch.logsumexp(value, dim) - log(value.shape[dim])


def cubo(log_weight: Tensor, *, n: float = 2.0) -> Tensor:
    """Chi upper bound, ``CUBO_n = 1/n log E_q[w^n] >= log p(x)``, for evaluation beside a lower bound.

    The mean of ``w^n`` is unbiased, and so is the estimate of ``exp(n CUBO_n)``; its logarithm is biased *down*
    (Jensen). So this is an upper bound in the limit of many draws only: with few, or with heavy-tailed weights, it can
    fall below log p(x), and with one draw it is the ELBO. It is no objective here: a decoder that lowered an upper
    bound would lower the evidence.

    Args:
        log_weight: log p(x, z) - log q(z | x), shape ``(particle, datum)``.
        n: order, at least 1; the bound rises with it.

    Returns:
        Shape ``(datum,)``, nats.

    Raises:
        ValueError: ``n`` is below 1.

    References:
        Dieng et al. 2017, Variational inference via chi upper bound minimization, CUBO. arXiv:1611.00328
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, where the bound is log p(x) itself, got {n}")
    return log_mean_exp(n * log_weight) / n


def _normalized(log_weight: Tensor, dim: int = 0) -> Tensor:
    """Weights that sum to one over particles, constants of the gradient."""
    return torch.softmax(log_weight.detach(), dim)


@OBJECTIVES.register("stl")
class STL(LedgerELBO):
    """Sticking the landing: the ELBO, with the guide's gradient through the draws alone.

    The score ``E_q[d log q]`` that is left out is zero on average and not in a sample, so the gradient is unbiased, and
    exactly zero where the guide is the posterior. (An exact zero holds for the guide's parameters; a prior made of
    posteriors, such as the VampPrior, keeps its gradient through log p(z).)

    Args:
        num_particles: draws of z for each datum.

    References:
        Roeder, Wu & Duvenaud 2017, Sticking the landing, the path derivative. arXiv:1703.09194
    """

    stop_guide = True

    def bound(self, ledger: Ledger) -> Tensor:
        return ledger.log_weight.mean(0)


@OBJECTIVES.register("iwae")
class IWAE(LedgerELBO):
    """Importance weighted bound ``L_K = E[log 1/K sum_k w_k]``, which rises to log p(x) with K.

    Args:
        num_particles: K.

    References:
        Burda, Grosse & Salakhutdinov 2016, Importance weighted autoencoders, eq. 8. arXiv:1509.00519
    """

    def __init__(self, *, num_particles: Particles = 5) -> None:
        super().__init__(num_particles=num_particles)

    def bound(self, ledger: Ledger) -> Tensor:
        return log_mean_exp(ledger.log_weight)


@OBJECTIVES.register("miwae_missing")
class MIWAEMissing(IWAE):
    """Missing-data importance weighted bound: `iwae` of the observed elements of each datum.

    ``L_K = E[log 1/K sum_k p(x_obs | z_k) p(z_k) / q(z_k | x_obs)]`` bounds log p(x_obs), which is what there is to
    maximise where data are missing at random. The ledger leaves masked elements out whatever the objective, so that
    value and gradient are those of `iwae` with as many particles; the name and the default of 20 are the paper's, who
    calls it MIWAE (not the `miwae` of Rainforth et al. 2018).

    Args:
        num_particles: K.

    References:
        Mattei & Frellsen 2019, MIWAE: deep generative modelling and imputation of incomplete data sets, eq. 4.
        arXiv:1812.02633
    """

    def __init__(self, *, num_particles: Particles = 20) -> None:
        super().__init__(num_particles=num_particles)


@OBJECTIVES.register("dreg")
class DReG(IWAE):
    """Doubly reparameterised gradient of the importance weighted bound.

    Value and the model's gradient ``sum_k v_k d log w_k``, with ``v`` the weights normalised to sum 1, are those of
    `iwae`; the guide's is ``sum_k v_k^2 (d log w_k / d z_k) (d z_k / d phi)``, unbiased for the same and with a signal
    that does not drown in noise as K grows. At another weight c of the KL, ``v^2`` is ``c v^2 + (1 - c) v``.

    Args:
        num_particles: K.

    References:
        Tucker et al. 2019, Doubly reparameterized gradient estimators for Monte Carlo objectives, IWAE-DReG.
        arXiv:1810.04152
    """

    stop_guide = True

    def surrogate(self, ledger: Ledger) -> Tensor:
        weight = _normalized(ledger.log_weight)
        # The score -c v d log q reparameterises to -c (v - v^2); beside the direct v there remains this factor of v.
        ledger.scale_draw_gradients(ledger.kl_weight * weight + (1 - ledger.kl_weight))
        return (weight * ledger.log_weight).sum(0)


@OBJECTIVES.register("ciwae")
class CIWAE(IWAE):
    """Convex combination ``beta ELBO + (1 - beta) L_K`` of the ELBO and the importance weighted bound.

    Args:
        num_particles: K.
        beta: share of the ELBO.

    References:
        Rainforth et al. 2018, Tighter variational bounds are not necessarily better, CIWAE. arXiv:1802.04537
    """

    def __init__(self, *, num_particles: Particles = 5, beta: Annotated[float, Field(ge=0, le=1)] = 0.5) -> None:
        super().__init__(num_particles=num_particles)
        self.beta = beta

    def bound(self, ledger: Ledger) -> Tensor:
        return self.beta * ledger.log_weight.mean(0) + (1 - self.beta) * log_mean_exp(ledger.log_weight)


@OBJECTIVES.register("miwae")
class MIWAE(LedgerELBO):
    """Multiply importance weighted bound: the mean of M independent bounds ``L_K``.

    Not the MIWAE of Mattei & Frellsen 2019 (arXiv:1812.02633), which is `miwae_missing`.

    Args:
        num_particles: K, draws of z in each group.
        num_groups: M; a datum has M K draws, the attribute ``num_particles``.

    References:
        Rainforth et al. 2018, Tighter variational bounds are not necessarily better, MIWAE. arXiv:1802.04537
    """

    def __init__(self, *, num_particles: Particles = 8, num_groups: Annotated[int, Field(ge=1)] = 8) -> None:
        super().__init__(num_particles=num_particles * num_groups)
        self.num_groups = num_groups

    def grouped(self, ledger: Ledger) -> Tensor:
        """Log weights, shape ``(group, particle, datum)``."""
        return ledger.log_weight.unflatten(0, (self.num_groups, -1))

    def bound(self, ledger: Ledger) -> Tensor:
        return log_mean_exp(self.grouped(ledger), 1).mean(0)


@OBJECTIVES.register("piwae")
class PIWAE(MIWAE):
    """Partially importance weighted: the model climbs ``L_(M K)``, the guide the mean of M bounds ``L_K``.

    The value is ``L_(M K)``.

    Args:
        num_particles: K, draws of z in each group.
        num_groups: M; a datum has M K draws.

    References:
        Rainforth et al. 2018, Tighter variational bounds are not necessarily better, PIWAE. arXiv:1802.04537
    """

    def bound(self, ledger: Ledger) -> Tensor:
        return log_mean_exp(ledger.log_weight)

    def surrogate(self, ledger: Ledger) -> Tensor:
        of_model = _normalized(ledger.log_weight)
        of_guide = (_normalized(self.grouped(ledger), 1) / self.num_groups).flatten(0, 1)
        log_joint = ledger.log_likelihood + ledger.kl_weight * ledger.log_prior
        total = of_model * log_joint - of_guide * ledger.kl_weight * ledger.log_guide
        # The draws are to bring back the guide's weights and not the model's. This takes a pass of its own: a factor in
        # one pass, as in DReG, would be a ratio of the two, which is 0 / 0 where a weight underflows.
        draws = [draw for draw in ledger.latents.values() if draw.requires_grad]
        missing = ((of_guide - of_model) * log_joint).sum()
        slopes = torch.autograd.grad(missing, draws, retain_graph=True) if draws else ()
        for draw, slope in zip(draws, slopes, strict=True):
            total = total + zero_with_slope(draw, slope)
        return total.sum(0)


def _not_one(alpha: float | str) -> float | str:
    if alpha == 1:
        raise ValueError("alpha = 1 is the ELBO; choose objective 'elbo'")
    return alpha


@OBJECTIVES.register("renyi")
class Renyi(LedgerELBO):
    """Variational Renyi bound ``1 / (1 - alpha) log 1/K sum_k w_k^(1 - alpha)``.

    It falls as alpha rises: ``alpha = 0`` is `iwae`, ``alpha -> 1`` the ELBO, and ``"max"`` (alpha = -inf) keeps the
    largest weight of each datum alone. In expectation over few draws it is below its limit for alpha < 1 and above for
    alpha > 1. It is the per-datum bound of Pyro's `RenyiELBO`, without the scale of a subsampling plate, which there
    becomes an exponent.

    Args:
        num_particles: K.
        alpha: order, not 1; negative orders do not bound log p(x) from below.

    References:
        Li & Turner 2016, Renyi divergence variational inference, the VR bound and VR-max. arXiv:1602.02311
    """

    def __init__(
        self,
        *,
        num_particles: Particles = 5,
        alpha: Annotated[Annotated[float, Field(allow_inf_nan=False)] | Literal["max"], AfterValidator(_not_one)] = 0.5,
    ) -> None:
        super().__init__(num_particles=num_particles)
        self.alpha = alpha

    def bound(self, ledger: Ledger) -> Tensor:
        if isinstance(self.alpha, str):
            return ledger.log_weight.max(0).values
        return log_mean_exp((1 - self.alpha) * ledger.log_weight) / (1 - self.alpha)


@OBJECTIVES.register("rws")
class ReweightedWakeSleep(IWAE):
    """Reweighted wake-sleep, both updates of the wake phase.

    With weights ``v`` normalised over K draws, the model follows ``sum_k v_k d log p(x, z_k)``, which is its gradient
    of the importance weighted bound (the value), and the guide ``sum_k v_k d log q(z_k | x)``, which lowers
    KL(p(z | x) || q(z | x)). The draws are constants, so the guide may be discrete.

    Args:
        num_particles: K.

    References:
        Bornschein & Bengio 2015, Reweighted wake-sleep, updates of the wake phase. arXiv:1406.2751
    """

    stop_draws = True

    def surrogate(self, ledger: Ledger) -> Tensor:
        climbed = ledger.log_likelihood + ledger.kl_weight * ledger.log_prior + ledger.log_guide
        return (_normalized(ledger.log_weight) * climbed).sum(0)


@OBJECTIVES.register("tvo")
class TVO(LedgerELBO):
    """Thermodynamic variational objective: a left Riemann sum over the path from the guide to the posterior.

    ``log p(x) = int_0^1 E_b[log w] db`` with ``E_b`` over ``pi_b(z) ~ q(z | x) w^b``, and ``E_b[log w]`` rises with b;
    so ``sum_t (b_(t+1) - b_t) E_(b_t)[log w]`` is a lower bound: the ELBO with one partition, log p(x) in the limit of
    many. Expectations are self-normalised importance sums of the K draws (biased by O(1/K)); their gradient is
    ``E_b[d log w] + Cov_b(d log pi_b, log w)`` up to the normaliser of ``pi_b``, with the draws as constants, so the
    guide may be discrete. With a weight of the KL, ``log w`` is the weighted one.

    Args:
        num_particles: K, at least 2: a covariance is estimated from them.
        partitions: terms of the sum.
        beta_min: the first b after 0; the others are spaced evenly in log b from there to 1.

    References:
        Masrani, Le & Wood 2019, The thermodynamic variational objective, the left Riemann sum and the
        covariance gradient. arXiv:1907.00031
    """

    stop_draws = True

    def __init__(
        self,
        *,
        num_particles: Annotated[int, Field(ge=2)] = 10,
        partitions: Annotated[int, Field(ge=1)] = 5,
        beta_min: Annotated[float, Field(gt=0, lt=1)] = 0.03,
    ) -> None:
        super().__init__(num_particles=num_particles)
        inner = [beta_min ** (1 - step / (partitions - 1)) for step in range(partitions - 1)]
        self.points = (0.0, *inner, 1.0)

    def bound(self, ledger: Ledger) -> Tensor:
        log_weight = ledger.log_weight
        terms = [(b - a) * (torch.softmax(a * log_weight, 0) * log_weight).sum(0) for a, b in pairwise(self.points)]
        return torch.stack(terms).sum(0)

    def surrogate(self, ledger: Ledger) -> Tensor:
        log_weight = ledger.log_weight
        # K / (K - 1) makes the covariance of the first term, over the plain draws, the unbiased one.
        unbiased = len(log_weight) / (len(log_weight) - 1)
        total = torch.zeros_like(log_weight)
        for a, b in pairwise(self.points):
            weight = _normalized(a * log_weight)
            centred = log_weight.detach() - (weight * log_weight.detach()).sum(0)
            log_path = ledger.log_guide + a * log_weight
            total = total + (b - a) * weight * (log_weight + unbiased * centred * log_path)
        return total.sum(0)
