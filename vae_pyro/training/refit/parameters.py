"""The parameters that are the guide's alone, and the bits of all others, which a refit leaves as they are."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pyro
import torch
from pyro import poutine
from torch import Tensor, nn

from vae_pyro.data.split import Given
from vae_pyro.densities.programs.programs import Programs


@dataclass(frozen=True)
class OwnParameters:
    """Tensors of a pair: those that a refit moves, and those that stay.

    Attributes:
        own: unconstrained parameters on which q(z | x) depends and p(x, z) does not.
        others: all further parameters and buffers of both programs.
    """

    own: list[Tensor]
    others: list[Tensor]

    @contextmanager
    def training(self) -> Iterator[None]:
        """The others take no gradient inside, and have the same bits afterwards; so have all where an error is raised.

        Raises:
            RuntimeError: one of the others was changed; all are put back.
        """
        former = self.values()
        kept = [tensor.detach().clone() for tensor in self.others]
        frozen = [tensor for tensor in self.others if tensor.requires_grad and tensor.is_leaf]
        for tensor in frozen:
            tensor.requires_grad_(False)
        try:
            yield
        except BaseException:
            self.set(former)
            raise
        finally:
            for tensor in frozen:
                tensor.requires_grad_(True)
            changed = [(now, was) for now, was in zip(self.others, kept, strict=True) if not _same_bits(now, was)]
            with torch.no_grad():
                for now, was in changed:
                    now.copy_(was)
        if changed:
            self.set(former)
            raise RuntimeError(
                f"{len(changed)} tensors of the model changed while the guide was refitted; all were put back. A "
                "program writes to its own parameters or buffers when it runs"
            )

    def values(self) -> list[Tensor]:
        """A copy of the own parameters."""
        return [tensor.detach().clone() for tensor in self.own]

    @torch.no_grad()
    def set(self, values: list[Tensor]) -> None:
        """Give the own parameters other values."""
        for tensor, value in zip(self.own, values, strict=True):
            tensor.copy_(value)


def own_parameters(programs: Programs, x: Tensor, given: Given) -> OwnParameters:
    """Find the parameters that are the guide's alone, from gradients on a few data.

    A parameter that p(x, z) depends on at given latents is the model's, whichever program holds it: weights that
    encoder and decoder share, or the whole encoder under a prior that is made of posteriors.

    Args:
        programs: of the pair.
        x: a few data, ``(datum, *x_shape)``.
        given: ``mask`` and ``y`` that the programs are given.

    Raises:
        ValueError: the guide has no parameter of its own, or one that Pyro's parameter store does not know yet.
    """
    mask, y = given.get("mask"), given.get("y")
    known = set(pyro.get_param_store().keys())
    with programs.state.evaluating(), torch.enable_grad(), poutine.trace(param_only=True) as captured:
        sites = programs.run_guide(x, (1, len(x)), {}, mask, y)
        drawn = {name: site for name, site in sites.items() if not site.observed and not site.factor}
        terms = [site.log_prob.sum() for site in drawn.values()]
        terms += [site.value.sum() for site in drawn.values() if site.value.requires_grad]
        latents = {name: site.value.detach() for name, site in drawn.items() if not site.auxiliary}
        scores = programs.score(x, latents, **given)
        log_joint = (scores.log_likelihood + scores.total_prior).sum()
    named = dict(_captured(captured.trace))
    found = {id(value): value for value in named.values()}
    held: dict[int, Tensor] = {}
    for module in programs.state.modules:
        for value in (*module._parameters.values(), *module._buffers.values()):
            if value is not None:
                held[id(value)] = value
                if isinstance(value, nn.Parameter) and value.requires_grad:
                    found[id(value)] = value
    unknown = [name for name, value in named.items() if id(value) not in held and name not in known]
    if unknown:
        raise ValueError(
            f"parameter {unknown[0]!r} is not in Pyro's parameter store: the programs make it when they run; fit the "
            "pair first, or run them once"
        )
    candidates = list(found.values())
    of_guide, of_model = _used(sum(terms), candidates), _used(log_joint, candidates)
    own = [value for value, mine, shared in zip(candidates, of_guide, of_model, strict=True) if mine and not shared]
    if not own:
        shared = sum(mine and others for mine, others in zip(of_guide, of_model, strict=True))
        raise ValueError(
            f"the guide has no parameter of its own: p(x, z) depends on all {shared} that q(z | x) depends on (as "
            "under a prior that is made of posteriors), and a refit leaves the model as it is; fit the pair anew"
            if shared
            else "the guide has no parameter that q(z | x) depends on and that takes a gradient (requires_grad), so "
            "that there is nothing to refit"
        )
    mine = {id(value) for value in own}
    others = {**held, **found}
    return OwnParameters(own, [value for key, value in others.items() if key not in mine])


def _captured(trace: poutine.Trace) -> Iterator[tuple[str, Tensor]]:
    """Names and unconstrained leaves of the parameters that programs have named."""
    for name, site in trace.nodes.items():
        if site["type"] == "param" and site["value"] is not None:
            leaf = site["value"].unconstrained() if hasattr(site["value"], "unconstrained") else site["value"]
            if leaf.is_leaf and leaf.requires_grad:
                yield name, leaf


def _used(total: Tensor | float, candidates: list[Tensor]) -> list[bool]:
    """Which of the candidates a number depends on."""
    if not isinstance(total, Tensor) or not total.requires_grad or not candidates:
        return [False] * len(candidates)
    slopes = torch.autograd.grad(total, candidates, allow_unused=True, retain_graph=True)
    return [slope is not None for slope in slopes]


def _same_bits(now: Tensor, was: Tensor) -> bool:
    if now.dtype.is_floating_point:
        return torch.equal(torch.nan_to_num(now), torch.nan_to_num(was)) and torch.equal(now.isnan(), was.isnan())
    return torch.equal(now, was)
