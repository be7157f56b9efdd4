"""Chi upper bound on log p(x), for evaluation; it is not registered as an objective."""

from torch import Tensor

from vae_pyro.objectives.importance_weights import log_mean_exp


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
