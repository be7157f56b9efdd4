"""Partially importance weighted: a bound for the model and another for the guide."""

import torch
from torch import Tensor

from vae_pyro.densities.log_density import LogDensities, zero_with_gradient
from vae_pyro.objectives.base import OBJECTIVES
from vae_pyro.objectives.importance_weights import log_mean_exp, normalized_weights
from vae_pyro.objectives.miwae import MIWAE


@OBJECTIVES.register("piwae", order=8)
class PIWAE(MIWAE):
    """Partially importance weighted: the model climbs ``L_(M K)``, the guide the mean of M bounds ``L_K``.

    The value is ``L_(M K)``.

    Args:
        num_particles: K, draws of z in each group.
        num_groups: M; a datum has M K draws.

    References:
        Rainforth et al. 2018, Tighter variational bounds are not necessarily better, PIWAE. arXiv:1802.04537
    """

    def bound(self, densities: LogDensities) -> Tensor:
        return log_mean_exp(densities.log_weight)

    def surrogate(self, densities: LogDensities) -> Tensor:
        of_model = normalized_weights(densities.log_weight)
        of_guide = (normalized_weights(self.grouped(densities), 1) / self.num_groups).flatten(0, 1)
        log_joint = densities.log_likelihood + densities.kl_weight * densities.log_prior
        total = of_model * log_joint - of_guide * densities.kl_weight * densities.log_guide
        # The draws are to bring back the guide's weights and not the model's. This takes a pass of its own: a factor in
        # one pass, as in DReG, would be a ratio of the two, which is 0 / 0 where a weight underflows.
        draws = [draw for draw in densities.latents.values() if draw.requires_grad]
        missing = ((of_guide - of_model) * log_joint).sum()
        slopes = torch.autograd.grad(missing, draws, retain_graph=True) if draws else ()
        for draw, slope in zip(draws, slopes, strict=True):
            total = total + zero_with_gradient(draw, slope)
        return total.sum(0)
