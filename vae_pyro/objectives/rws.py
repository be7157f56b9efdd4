"""Reweighted wake-sleep."""

from torch import Tensor

from vae_pyro.densities.log_density import LogDensities
from vae_pyro.objectives.base import OBJECTIVES
from vae_pyro.objectives.importance_weights import normalized_weights
from vae_pyro.objectives.iwae import IWAE


@OBJECTIVES.register("rws", order=12)
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

    def surrogate(self, densities: LogDensities) -> Tensor:
        climbed = densities.log_likelihood + densities.kl_weight * densities.log_prior + densities.log_guide
        return (normalized_weights(densities.log_weight) * climbed).sum(0)
