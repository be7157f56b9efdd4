"""DIP-VAE: a penalty on the covariance of the aggregate posterior."""

from typing import Literal

import torch
from torch import Tensor

from vae_pyro.densities.log_density import LogDensities
from vae_pyro.objectives.base import OBJECTIVES, MonteCarloObjective, Particles, Weight
from vae_pyro.objectives.divergences import only_site


@OBJECTIVES.register("dip", order=17)
class DIP(MonteCarloObjective):
    """DIP-VAE: the ELBO less ``lambda_od sum_(i != j) C_ij^2 + lambda_d sum_i (C_ii - 1)^2``.

    C is, for kind ``i``, the covariance over data of the posterior means, and for ``ii`` that of the aggregate,
    ``Cov[mean] + E[covariance]``; both with 1/B over the minibatch of B. The target I is that of a standard normal
    prior, and the penalty has no ``kl_weight``.

    Args:
        kind: ``i`` or ``ii``.
        lambda_od: weight of the off-diagonal entries.
        lambda_d: weight of the diagonal.

    References:
        Kumar, Sattigeri & Balakrishnan 2018, Variational inference of disentangled latent concepts from unlabeled
        observations, DIP-VAE-I and -II. arXiv:1711.00848
    """

    def __init__(
        self,
        *,
        num_particles: Particles = 1,
        kind: Literal["i", "ii"] = "ii",
        lambda_od: Weight = 10.0,
        lambda_d: Weight = 10.0,
    ) -> None:
        super().__init__(num_particles=num_particles)
        self.kind, self.lambda_od, self.lambda_d = kind, lambda_od, lambda_d

    def penalty(self, densities: LogDensities) -> Tensor:
        """Penalty that is subtracted from the mean ELBO of a datum, 0-d.

        Raises:
            ValueError: several latent sites, or a guide without moments in closed form.
        """
        _, _, guide = only_site(densities, "dip")
        try:
            mean, variance = guide.mean[0], guide.variance[0]  # the same for every particle
        except NotImplementedError:
            raise ValueError(
                f"objective 'dip' requires a guide with mean and variance in closed form, got {type(guide).__name__}; "
                "choose posterior 'mean_field' or 'full_rank'"
            ) from None
        mean, variance = mean.reshape(len(mean), -1), variance.reshape(len(mean), -1)
        centred = mean - mean.mean(0)
        covariance = centred.T @ centred / len(mean)
        if self.kind == "ii":
            full = getattr(guide, "covariance_matrix", None)
            covariance = covariance + (torch.diag_embed(variance) if full is None else full[0]).mean(0)
        diagonal = covariance.diagonal()
        off = covariance - torch.diag_embed(diagonal)
        return self.lambda_od * (off**2).sum() + self.lambda_d * ((diagonal - 1) ** 2).sum()

    def bound(self, densities: LogDensities) -> Tensor:
        return densities.log_weight.mean(0) - self.penalty(densities)
