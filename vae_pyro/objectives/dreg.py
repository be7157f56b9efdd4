"""Doubly reparameterised gradient of the importance weighted bound."""

from torch import Tensor

from vae_pyro.densities.log_density import LogDensities
from vae_pyro.objectives.base import OBJECTIVES
from vae_pyro.objectives.importance_weights import normalized_weights
from vae_pyro.objectives.iwae import IWAE


@OBJECTIVES.register("dreg", order=5)
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

    def surrogate(self, densities: LogDensities) -> Tensor:
        weight = normalized_weights(densities.log_weight)
        # The score -c v d log q reparameterises to -c (v - v^2); beside the direct v there remains this factor of v.
        densities.scale_draw_gradients(densities.kl_weight * weight + (1 - densities.kl_weight))
        return (weight * densities.log_weight).sum(0)
