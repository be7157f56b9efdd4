"""Objectives that sum over the classes of a discrete latent, in place of drawing it."""

from collections.abc import Iterator
from typing import Annotated, Any

import torch
from pydantic import Field
from pyro.distributions.util import scale_and_mask
from pyro.infer import TraceEnum_ELBO, config_enumerate
from pyro.infer.traceenum_elbo import _compute_dice_elbo
from pyro.ops import packed
from torch import Tensor
from torch.distributions import kl_divergence
from torch.overrides import TorchFunctionMode

from vae_pyro.densities.sites import Program
from vae_pyro.objectives.base import OBJECTIVES, DifferentiableLoss, KLWeight, Particles, TracedObjective


class _AllTerms(TorchFunctionMode):
    """Keeps terms of probability 0 in Pyro's expectation, where it would look at values to leave them out.

    They are finite here, and so add exactly 0; a step that is traced cannot look at values.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.all:
            return True
        return func(*args, **(kwargs or {}))


@OBJECTIVES.register("m2", order=19)
class SemiSupervisedELBO(DifferentiableLoss, TracedObjective, TraceEnum_ELBO):
    """Bound of structure ``m2``: Pyro's `TraceEnum_ELBO` over y, and the classifier's log probability of known classes.

    A sum over data, in nats. A datum whose class y is given adds ``L(x, y) + alpha log q(y | x)``, with
    ``L(x, y) = E_q(z|x,y)[log p(x | y, z) + log p(y) + log p(z) - log q(z | x, y)]``, a bound of log p(x, y); one whose
    class is unknown adds ``U(x) = sum_y q(y | x) (L(x, y) - log q(y | x))``, a bound of log p(x), the sum being exact.
    Neither depends on the other data of a batch or on its size. In the paper, N_l labelled data add ``alpha' = 0.1 N``
    times their mean of log q(y | x), N being the number of all data: that is ``alpha = 0.1 N / N_l`` here, 60 for 100
    of 60,000 data, and ``0.1 / share`` where labelled data are repeated until they are a share of all
    (`vae_pyro.data.labels.repeat_labelled`).

    ``metrics["kl"]`` is that of y and z: log q(y | x) - log p(y) + log q(z | x, y) - log p(z), averaged over q(y | x)
    and draws of z; where y is given, its own part is -log p(y). ``metrics["reconstruction"]`` is log p(x | y, z)
    likewise. The term of alpha is in neither. Both are those of the draws, whatever ``analytic_kl`` says.

    The two kinds of data come in one batch, of any mixture: site ``y`` is a `PartlyGiven` class, certain where it is
    known, so that shapes do not depend on how many are, and a compiled step stays the same. The cost is that all
    classes of labelled data are decoded, though one counts; batches are mostly unlabelled.

    Args:
        num_particles: draws of z for each datum and class.
        alpha: weight of log q(y | x) of a datum whose class is given.
        analytic_kl: take KL(q(z | x, y) || p(z)) in closed form where it has one, instead of from draws. The
            expectation is the same, but q(y | x) follows differences of L(x, y) between classes, each of which has
            draws of its own: with their noise in the KL, unlabelled data teach classes much more slowly.

    References:
        Kingma, Rezende, Mohamed & Welling 2014, Semi-supervised learning with deep generative models, eqs. 6-9.
        arXiv:1406.5298
    """

    def __init__(
        self, *, num_particles: Particles = 1, alpha: Annotated[float, Field(ge=0)] = 1.0, analytic_kl: bool = True
    ) -> None:
        super().__init__(num_particles=num_particles)
        self.alpha, self.analytic_kl = alpha, analytic_kl

    def _get_traces(self, model: Program, guide: Program, args: Any, kwargs: Any) -> Iterator[Any]:
        weight, enumerated = KLWeight(self.kl_weight), config_enumerate(guide)
        # Past `TracedObjective`, whose metrics are those of sites that are drawn.
        for traces in TraceEnum_ELBO._get_traces(self, weight(model), weight(enumerated), args, kwargs):
            if not hasattr(traces[1].nodes.get("y", {}).get("fn"), "log_given"):
                raise ValueError("objective 'm2' requires the classes of structure 'm2' as site 'y'; choose 'elbo'")
            with torch.no_grad():
                self.metrics = {name: value / self.num_particles for name, value in _terms(*traces).items()}
            yield traces

    def differentiable_loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:
        """Negative bound summed over data, in nats, 0-d.

        Args:
            model: Pyro model, with the site ``y`` as `vae_pyro.models.structures.m2` has it.
            guide: Pyro guide, likewise.
            args: of the programs.
            kwargs: of the programs: ``mask`` and ``y``.

        Raises:
            ValueError: the guide has no site ``y`` of that kind.
        """
        # One pair of traces: particles are a plate.
        [(model_trace, guide_trace)] = list(self._get_traces(model, guide, args, kwargs))
        if self.analytic_kl:
            _close_kl(model_trace, guide_trace)
        with _AllTerms():
            bound = _compute_dice_elbo(model_trace, guide_trace)
        loss: Tensor = -(bound + self.alpha * guide_trace.nodes["y"]["fn"].log_given.sum()) / self.num_particles
        return loss


def _close_kl(model_trace: Any, guide_trace: Any) -> None:
    """Put the closed form of a site's KL in the place of log p and log q at its draw, where there is one."""
    for name, site in guide_trace.nodes.items():
        if site["type"] != "sample" or name not in model_trace.nodes or not site["fn"].has_rsample:
            continue
        scored = model_trace.nodes[name]
        try:
            kl = kl_divergence(site["fn"], scored["fn"])
        except NotImplementedError:
            continue
        # Both are replaced in the form in which Pyro contracts them; the densities at the draws stay for the metrics.
        scored["packed"]["log_prob"] = packed.pack(
            scale_and_mask(-kl, scale=scored["scale"], mask=scored["mask"]), scored["infer"]["_dim_to_symbol"]
        )
        zero: Any = torch.zeros_like(site["packed"]["log_prob"])
        zero._pyro_dims = site["packed"]["log_prob"]._pyro_dims
        site["packed"]["log_prob"] = zero


def _terms(model_trace: Any, guide_trace: Any) -> dict[str, Tensor]:
    """Reconstruction and KL summed over particles and data, averaged over enumerated sites."""
    guided = {name: site for name, site in guide_trace.nodes.items() if site["type"] == "sample"}
    enumerated = [site["unscaled_log_prob"] for site in guided.values() if site["infer"].get("enumerate")]
    weight = torch.stack(torch.broadcast_tensors(*enumerated)).sum(0).exp()
    scored = [site for site in model_trace.nodes.values() if site["type"] == "sample"]
    reconstruction = sum((weight * site["unscaled_log_prob"]).sum() for site in scored if site["is_observed"])
    prior = sum((weight * site["unscaled_log_prob"]).sum() for site in scored if not site["is_observed"])
    guide = sum((weight * site["unscaled_log_prob"]).sum() for site in guided.values())
    return {"reconstruction": torch.as_tensor(reconstruction), "kl": torch.as_tensor(guide - prior)}
