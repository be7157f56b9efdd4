"""Evidence lower bound, estimated from draws."""

from pyro.infer import Trace_ELBO

from vae_pyro.objectives.base import OBJECTIVES, TracedObjective


@OBJECTIVES.register("elbo", order=1)
class TraceELBO(TracedObjective, Trace_ELBO):
    """Evidence lower bound: Pyro's `Trace_ELBO`.

    ``E_q[log p(x | z)] - kl_weight E_q[log q(z | x) - log p(z)]``, both from draws.

    References:
        Kingma & Welling 2014, Auto-encoding variational Bayes, eq. 2. arXiv:1312.6114
    """

    kl_factor = 1.0
