"""Free bits: the KL of each latent dimension has a floor."""

from typing import Literal

import torch
from torch import Tensor

from vae_pyro.densities.log_density import LogDensities
from vae_pyro.objectives.base import OBJECTIVES, MonteCarloObjective, Particles, Weight
from vae_pyro.objectives.divergences import kl_terms


@OBJECTIVES.register("free_bits", order=15)
class FreeBits(MonteCarloObjective):
    """Free bits: ``E_q[log p(x | z)] - sum_j max(lambda, KL_j)``, ``KL_j`` the minibatch mean of latent dimension j.

    A dimension below the floor has no gradient from its KL, so that it need not collapse early. Where prior and guide
    are not both products over dimensions (full rank, flow, mixture prior), the KL cannot be split and the floor is one
    for the whole site. ``kl_weight`` multiplies the floored sum.

    In several layers, KL_j is that of the conditional distributions, given the draws of the layers above. A bottom-up
    guide (structure ``bottom_up``) has such a KL in the topmost layer alone; below it, the floor applies to the draws'
    ``E_q[log q(z_l | z_(l-1)) - log p(z_l | z_(l+1))]``, the layer's part of the rate, which may be negative.

    Args:
        nats: lambda, the floor of each dimension, or of each layer.
        per: ``dimension``, or ``layer``: one floor for the sum over a site's dimensions.

    References:
        Kingma et al. 2016, Improved variational inference with inverse autoregressive flow, eq. 15. arXiv:1606.04934
    """

    def __init__(
        self, *, num_particles: Particles = 1, nats: Weight = 0.25, per: Literal["dimension", "layer"] = "dimension"
    ) -> None:
        super().__init__(num_particles=num_particles)
        self.nats, self.per = nats, per

    def bound(self, densities: LogDensities) -> Tensor:
        terms = [term.sum(-1, keepdim=True) if self.per == "layer" else term for term in kl_terms(densities)]
        floored = torch.stack([term.mean(0).clamp(min=self.nats).sum() for term in terms]).sum()
        return densities.log_likelihood.mean(0) - densities.kl_weight * floored
