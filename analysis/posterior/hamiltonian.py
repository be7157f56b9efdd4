"""Hamiltonian moves of many chains along a geometric path, from a density that can be drawn to the log joint.

Torch's generator is used as it stands; `analysis.posterior.annealing` seeds it.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from analysis.posterior.joint import Gaussian, LogJoint, guide_gaussian
from vae_pyro.densities.programs.simulation import prior_latents

type Array = np.ndarray[Any, Any]
type Start = Literal["guide", "prior"]

# The pilot run that finds the step sizes: chains, temperatures at most, moves at the first of them, gain of each move.
_PILOT_CHAINS, _PILOT_TEMPERATURES, _PILOT_SETTLE, _PILOT_GAIN = 4, 50, 15, 0.4
# Trajectories of one length return to where they began on a Gaussian; each takes a random share of it, at least this.
_SHORTEST = 0.5
_PRIOR_DRAWS = 500
# Least standard deviation of a move, in those of the prior.
_LEAST_WIDTH = 1e-4


@dataclass(frozen=True)
class Point:
    """Positions of all chains, with both ends of the path there and their gradients."""

    z: Tensor
    log_start: Tensor
    start_gradient: Tensor
    log_joint: Tensor
    joint_gradient: Tensor

    def log_density(self, beta: float) -> Tensor:
        return torch.lerp(self.log_start, self.log_joint, beta)

    def gradient(self, beta: float) -> Tensor:
        return torch.lerp(self.start_gradient, self.joint_gradient, beta)

    def where(self, taken: Tensor, other: "Point") -> "Point":
        """This point where ``taken``, the other elsewhere."""
        mine, theirs = vars(self), vars(other)
        return Point(
            **{
                name: torch.where(taken if mine[name].dim() == 2 else taken[..., None], mine[name], theirs[name])
                for name in mine
            }
        )


class Path:
    """Densities start^(1 - beta) joint^beta, unnormalised, and the directions in which to move."""

    def __init__(self, joint: LogJoint, start: Start | Gaussian) -> None:
        if not isinstance(start, Gaussian) and start not in ("guide", "prior"):
            raise ValueError(f"unknown start {start!r}; choose 'guide', 'prior', or pass a Gaussian")
        self.joint, self.start = joint, start
        if isinstance(start, Gaussian):
            scale = start
        else:
            scale, exact = guide_gaussian(joint)
            if start == "guide" and exact:
                self.start = scale  # the same density, whose gradient needs no graph
        self._root = scale.scale_tril
        self._prior_precision: Tensor | None = None
        if start == "prior":
            variance = self.draw(_PRIOR_DRAWS).var(0)
            # A scale of the guide that has underflowed has no inverse; moves only have to have some width.
            short = _LEAST_WIDTH * variance.sqrt() - scale.scale_tril.diagonal(dim1=-2, dim2=-1)
            self._precision = torch.cholesky_inverse(scale.scale_tril + torch.diag_embed(short.clamp(min=0)))
            self._prior_precision = torch.diag_embed(variance.reciprocal())

    def draw(self, num_chains: int) -> Tensor:
        """Draws of the start, ``(chain, datum, dim)``."""
        joint = self.joint
        if isinstance(self.start, Gaussian):
            return self.start.shift(torch.randn(num_chains, *self.start.loc.shape).to(self.start.loc))
        if self.start == "guide":
            return joint.flat(joint.programs.draw(joint.x, num_chains, **joint.given).latents)
        return joint.flat(prior_latents(joint.programs, joint.x, num_chains, **joint.given))

    def at(self, z: Tensor) -> Point:
        """Both ends of the path at ``z``."""
        if isinstance(self.start, Gaussian):
            return Point(z, *self.start.value_and_gradient(z), *self.joint.value_and_gradient(z))
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            log_likelihood, log_prior = self.joint.densities(z)
            log_start = log_prior if self.start == "prior" else self.joint.log_guide(z)
            ends = [log_start, log_likelihood + log_prior]
            slopes = [torch.autograd.grad(end.sum(), z, retain_graph=True)[0] for end in ends]
        return Point(z.detach(), ends[0].detach(), slopes[0], ends[1].detach(), slopes[1])

    def root(self, beta: float) -> Tensor:
        """A root ``(datum, dim, dim)`` of the covariance that two Gaussians at the ends would have in between."""
        if self._prior_precision is None:
            return self._root
        precision = torch.lerp(self._prior_precision, self._precision, beta)
        return torch.linalg.inv(torch.linalg.cholesky(precision)).mT


def run(path: Path, z: Tensor, temperatures: Array, steps: Tensor, num_leapfrog: int) -> tuple[Tensor, Tensor]:
    """Log weights ``(chain, datum)`` and acceptance ``(move, datum)`` of one passage through the temperatures."""
    log_weight, acceptance, _ = passage(path, z, temperatures, steps, num_leapfrog)
    return log_weight, acceptance


def passage(
    path: Path, z: Tensor, temperatures: Array, steps: Tensor, num_leapfrog: int
) -> tuple[Tensor, Tensor, Point]:
    """As `run`, with where the chains have come to."""
    point = path.at(z)
    log_weight = torch.zeros(z.shape[:2], dtype=torch.float64, device=z.device)
    acceptance = []
    for number, (before, beta) in enumerate(pairwise(temperatures)):
        log_weight += float(beta - before) * (point.log_joint.double() - point.log_start.double())
        if number < len(temperatures) - 2:
            point, rate = move_chains(path, point, float(beta), steps[number], num_leapfrog)
            acceptance.append(rate.double().mean(0).cpu())
    return log_weight.cpu(), torch.stack(acceptance), point


def pilot(path: Path, temperatures: Array, num_leapfrog: int, target_acceptance: float) -> Tensor:
    """Step sizes ``(move, datum)``, by stochastic approximation along a shorter path with chains of its own."""
    moves = np.arange(1, len(temperatures) - 1)
    chosen = np.unique(np.linspace(1, len(temperatures) - 2, min(_PILOT_TEMPERATURES, len(moves))).round().astype(int))
    point = path.at(path.draw(_PILOT_CHAINS))
    log_step = point.z.new_full(point.z.shape[1:2], -1.0)
    found = []
    for number, move in enumerate(chosen):
        beta = float(temperatures[move])
        for _ in range(1 if number else _PILOT_SETTLE):
            point, rate = move_chains(path, point, beta, log_step.exp(), num_leapfrog)
            log_step = log_step + _PILOT_GAIN * (rate.mean(0) - target_acceptance)
        found.append(log_step)
    at = np.interp(moves, chosen, np.arange(len(chosen)))
    low = torch.as_tensor(np.floor(at).astype(int)).clamp(max=max(len(chosen) - 2, 0))
    share = torch.as_tensor(at, dtype=log_step.dtype, device=log_step.device) - low.to(log_step)
    known = torch.stack(found)
    high = (low + 1).clamp(max=len(chosen) - 1)
    return torch.lerp(known[low], known[high], share[:, None]).exp()


def move_chains(path: Path, point: Point, beta: float, step: Tensor, num_leapfrog: int) -> tuple[Point, Tensor]:
    """One Hamiltonian move at a temperature, and the probability that it was accepted, ``(chain, datum)``.

    References:
        Neal 2011, MCMC using Hamiltonian dynamics, secs. 2.3, 3.2 and 4.1 (linear transformation). arXiv:1206.1901
    """
    root = path.root(beta)
    share = _SHORTEST + (1 - _SHORTEST) * torch.rand(point.z.shape[:2]).to(point.z)
    length = (step * share)[..., None]
    momentum = torch.randn(point.z.shape).to(point.z)
    energy = point.log_density(beta) - 0.5 * momentum.square().sum(-1)
    new = point
    momentum = momentum + 0.5 * length * _times(root.mT, new.gradient(beta))
    for number in range(num_leapfrog):
        new = path.at(new.z + length * _times(root, momentum))
        last = number == num_leapfrog - 1
        momentum = momentum + (0.5 if last else 1.0) * length * _times(root.mT, new.gradient(beta))
    change = new.log_density(beta) - 0.5 * momentum.square().sum(-1) - energy
    rate = change.clamp(max=0).exp().nan_to_num(nan=0.0)  # a trajectory that left the numbers is refused
    taken = torch.rand(rate.shape).to(rate) < rate
    return new.where(taken, point), rate


def _times(matrix: Tensor, vectors: Tensor) -> Tensor:
    """``(datum, dim, dim)`` times ``(chain, datum, dim)``."""
    return torch.einsum("bij,kbj->kbi", matrix, vectors)
