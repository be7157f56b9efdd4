"""beta-TCVAE: the KL decomposed into mutual information, total correlation and dimension-wise KL."""

from math import log
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from vae_pyro.densities.log_density import LogDensities
from vae_pyro.objectives.base import OBJECTIVES, MonteCarloObjective, Particles, Weight
from vae_pyro.objectives.divergences import factors_of, only_site


@OBJECTIVES.register("beta_tcvae", order=16)
class BetaTCVAE(MonteCarloObjective):
    """beta-TCVAE: the KL as mutual information, total correlation and dimension-wise KL, each with its weight.

    ``E_q[log p(x | z)] - alpha I(x; z) - beta KL(q(z) || prod_j q(z_j)) - gamma (sum_j log q(z_j) - log p(z))``; with
    all weights 1 it is the ELBO, whatever the estimate of q(z), which cancels. q(z) is estimated by minibatch weighted
    sampling, ``log q(z_i) ~ log 1/(N B) sum_j q(z_i | x_j)`` over the batch of B, and likewise for each dimension.

    Both estimates fall short, by log N where the posteriors overlap so much that the own one does not stand out, and
    by log B where it stands alone. So for D dimensions the total correlation comes out too *high* by between
    (D - 1) log B and (D - 1) log N, to O(1 / B), which is itself positive for narrow posteriors, since the own one is
    always in the sum and weighs more in the joint than in the marginals; the mutual information is too high by up to
    log N, and the dimension-wise KL too low by up to D log N. The parts in N are constants without a gradient.

    Args:
        dataset_size: N, number of training data.
        alpha: weight of the mutual information.
        beta: weight of the total correlation.
        gamma: weight of the dimension-wise KL.

    References:
        Chen et al. 2018, Isolating sources of disentanglement in variational autoencoders, the decomposition and
        minibatch weighted sampling. arXiv:1802.04942
    """

    def __init__(
        self,
        *,
        num_particles: Particles = 1,
        dataset_size: Annotated[int, Field(ge=1)],
        alpha: Weight = 1.0,
        beta: Weight = 6.0,
        gamma: Weight = 1.0,
    ) -> None:
        super().__init__(num_particles=num_particles)
        self.dataset_size = dataset_size
        self.alpha, self.beta, self.gamma = alpha, beta, gamma

    def parts(self, densities: LogDensities) -> tuple[Tensor, Tensor, Tensor]:
        """Mutual information, total correlation and dimension-wise KL of each draw, ``(particle, datum)``, in nats.

        Raises:
            ValueError: several latent sites, or a guide that is not a product over dimensions.
        """
        draw, _, guide = only_site(densities, "beta_tcvae")
        factors = factors_of(guide)
        if factors is None:
            raise ValueError(
                f"objective 'beta_tcvae' requires a guide that is a product over latent dimensions, got "
                f"{type(guide).__name__}; choose posterior 'mean_field'"
            )
        # (datum i, particle, datum j, dimension): log q(z_i | x_j)
        pairs = factors.log_prob(draw.transpose(0, 1).unsqueeze(2))
        size = log(self.dataset_size * draw.shape[1])
        joint = (torch.logsumexp(pairs.sum(-1), 2) - size).T
        marginal = (torch.logsumexp(pairs, 2) - size).sum(-1).T
        return densities.log_guide - joint, joint - marginal, marginal - densities.log_prior

    def bound(self, densities: LogDensities) -> Tensor:
        information, correlation, dimensions = self.parts(densities)
        penalty = self.alpha * information + self.beta * correlation + self.gamma * dimensions
        return (densities.log_likelihood - densities.kl_weight * penalty).mean(0)
