"""Objectives: Pyro `ELBO` classes by name, usable with `pyro.infer.SVI` as they stand."""

from typing import Annotated, Any

import torch
from pydantic import Field
from pyro.infer import Trace_ELBO
from pyro.infer.elbo import ELBO
from pyro.poutine.messenger import Messenger
from torch import Tensor

from vae_pyro.registry import Registry

OBJECTIVES: Registry[ELBO] = Registry("objective")


class KLWeight(Messenger):
    """Effect handler that multiplies the log densities of latent sites, and so the KL, by a weight.

    As a context around model and guide, it turns the ELBO into ``E[log p(x | z)] - weight KL``; a schedule changes
    `weight` between steps.

    Args:
        weight: not negative; 1 is the ELBO.

    References:
        Bowman et al. 2016, Generating sentences from a continuous space, sec. 3.1 (KL annealing). arXiv:1511.06349
        Higgins et al. 2017, beta-VAE, eq. 4 (a constant weight).
    """

    def __init__(self, weight: float | Tensor = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if not msg["is_observed"]:
            msg["scale"] = msg["scale"] * self.weight


@OBJECTIVES.register("elbo")
class TraceELBO(Trace_ELBO):
    """Evidence lower bound: Pyro's `Trace_ELBO`, value and gradient unchanged, that also keeps its two terms.

    Args:
        num_particles: draws of z for each datum.

    Attributes:
        reconstruction: log p(x | z) of the last loss, summed over data and averaged over particles, in nats.
        kl: log q(z | x) - log p(z), likewise, without any `KLWeight`.

    References:
        Kingma & Welling 2014, Auto-encoding variational Bayes, eq. 2. arXiv:1312.6114
    """

    reconstruction: Tensor
    kl: Tensor

    def __init__(self, *, num_particles: Annotated[int, Field(ge=1)] = 1) -> None:
        # One data plate is the contract, and naming it saves a run of both programs to guess it.
        super().__init__(num_particles=num_particles, max_plate_nesting=1, vectorize_particles=num_particles > 1)

    def _get_traces(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Any:
        for model_trace, guide_trace in super()._get_traces(model, guide, args, kwargs):
            with torch.no_grad():
                particles = self.num_particles if self.vectorize_particles else 1
                self.reconstruction = _total(model_trace, observed=True) / particles
                self.kl = (_total(guide_trace) - _total(model_trace)) / particles
            yield model_trace, guide_trace


def _total(trace: Any, *, observed: bool = False) -> Tensor:
    sites = [site for site in trace.nodes.values() if site["type"] == "sample" and site["is_observed"] == observed]
    return torch.stack([site["unscaled_log_prob"].sum() for site in sites]).sum()
