"""InfoVAE: a maximum mean discrepancy between aggregate posterior and prior."""

from typing import Annotated

from pydantic import Field
from torch import Tensor

from vae_pyro.densities.log_density import LogDensities
from vae_pyro.objectives.base import OBJECTIVES, MonteCarloObjective, Particles
from vae_pyro.objectives.divergences import only_site


@OBJECTIVES.register("infovae", order=18)
class InfoVAE(MonteCarloObjective):
    """InfoVAE: ``E_q[log p(x | z)] - (1 - alpha) KL(q(z | x) || p(z)) - (alpha + lambda - 1) MMD^2(q(z), p(z))``.

    The KL is from draws. MMD^2 is the unbiased estimate (it can be negative) between the batch's draws and as many from
    the prior, particle by particle, with the inverse multiquadric kernel ``k(a, b) = c / (c + |a - b|^2)``, c = 2 D. It
    has no ``kl_weight``, and a batch of one datum has none of it. A prior without reparameterised draws (a mixture)
    learns from the KL alone.

    Args:
        alpha: at most 1; weight in favour of the mutual information of x and z. At 1 the MMD alone remains.
        lambda_: weight of the divergence of the aggregate, at least ``1 - alpha``.

    Raises:
        ValueError: ``alpha + lambda_ < 1``, which would reward a distance from the prior.

    References:
        Zhao, Song & Ermon 2019, InfoVAE, the objective and its MMD form. arXiv:1706.02262
        Gretton et al. 2012, A kernel two-sample test, JMLR 13, eq. 3 (the unbiased estimate).
        Tolstikhin et al. 2018, Wasserstein auto-encoders, sec. 4 (the kernel). arXiv:1711.01558
    """

    def __init__(
        self,
        *,
        num_particles: Particles = 1,
        alpha: Annotated[float, Field(le=1)] = 0.0,
        lambda_: Annotated[float, Field(gt=0)] = 100.0,
    ) -> None:
        if alpha + lambda_ < 1:
            raise ValueError(f"objective 'infovae' requires alpha + lambda_ >= 1, got {alpha:g} + {lambda_:g}")
        super().__init__(num_particles=num_particles)
        self.alpha, self.lambda_ = alpha, lambda_

    def divergence(self, densities: LogDensities) -> Tensor:
        """MMD^2 between aggregate and prior, 0-d."""
        draw, prior, _ = only_site(densities, "infovae")
        prior = prior.expand(draw.shape[:2])  # where it does not depend on the particle, it has no dimension of them
        draw = draw.reshape(*draw.shape[:2], -1)
        sample = (prior.rsample() if prior.has_rsample else prior.sample()).reshape(draw.shape)
        return mmd(draw, sample).mean()

    def bound(self, densities: LogDensities) -> Tensor:
        kl = densities.log_guide - densities.log_prior
        bound = (densities.log_likelihood - (1 - self.alpha) * densities.kl_weight * kl).mean(0)
        if len(bound) < 2:
            return bound
        return bound - (self.alpha + self.lambda_ - 1) * self.divergence(densities)


def mmd(a: Tensor, b: Tensor) -> Tensor:
    """Unbiased squared maximum mean discrepancy, inverse multiquadric kernel ``c / (c + |a - b|^2)``, c = 2 dimension.

    Args:
        a: draws, shape ``(*batch, n, dimension)``, n at least 2.
        b: draws from the other distribution, same shape.

    Returns:
        Shape ``(*batch,)``; its expectation is zero where the distributions are equal, and positive elsewhere.

    References:
        Gretton et al. 2012, A kernel two-sample test, JMLR 13, eq. 3.
    """
    count, scale = a.shape[-2], 2 * a.shape[-1]

    def kernel(left: Tensor, right: Tensor) -> Tensor:
        square = ((left.unsqueeze(-2) - right.unsqueeze(-3)) ** 2).sum(-1)
        return scale / (scale + square)

    within = kernel(a, a).sum((-1, -2)) + kernel(b, b).sum((-1, -2)) - 2 * count  # k(a, a) = 1 is not a pair
    return within / (count * (count - 1)) - 2 * kernel(a, b).mean((-1, -2))
