"""Evidence lower bound with the KL in closed form."""

from collections.abc import Iterator
from typing import Any

from pyro.infer import TraceMeanField_ELBO
from pyro.poutine.util import site_is_subsample

from vae_pyro.densities.sites import Program
from vae_pyro.objectives.base import OBJECTIVES, TracedObjective


@OBJECTIVES.register("elbo_analytic", order=2)
class TraceMeanFieldELBO(TracedObjective, TraceMeanField_ELBO):
    """Evidence lower bound with the KL in closed form where it has one: Pyro's `TraceMeanField_ELBO`.

    ``E_q[log p(x | z)] - kl_weight KL(q(z | x) || p(z))``. A site whose KL has no closed form (a mixture prior, a flow)
    falls back on draws. ``metrics["kl"]`` is that of the draws all the same.

    Of several latent sites, each KL is taken at the draws of the others. That is right where the guide draws them in
    the order of the model (structure ``ladder``). Where it does not (``bottom_up``) Pyro warns, and with an exact guide
    of two layers its value is off by Jeffreys' divergence of q from the product of its marginals; here it is refused.

    Raises:
        ValueError: on the first loss, where model and guide draw the latents in different orders.

    References:
        Kingma & Welling 2014, Auto-encoding variational Bayes, eqs. 3 and 10. arXiv:1312.6114
    """

    kl_factor = 1.0

    def _get_traces(self, model: Program, guide: Program, args: Any, kwargs: Any) -> Iterator[Any]:
        for model_trace, guide_trace in super()._get_traces(model, guide, args, kwargs):
            drawn = [name for name, site in guide_trace.nodes.items() if _is_latent(site) and name in model_trace]
            scored = [name for name, site in model_trace.nodes.items() if _is_latent(site) and name in guide_trace]
            if drawn != scored:
                raise ValueError(
                    f"objective 'elbo_analytic' requires the guide to draw the latents in the order of the model, "
                    f"{', '.join(scored)}, got {', '.join(drawn)}: a KL given a later draw is not that of the ELBO; "
                    "choose 'elbo', or structure 'ladder'"
                )
            yield model_trace, guide_trace


def _is_latent(site: dict[str, Any]) -> bool:
    return site["type"] == "sample" and not site["is_observed"] and not site_is_subsample(site)
