"""log p(x, z) of some data as a function of one flat real vector of latents, and Gaussians over such vectors.

Annealing, a guide optimised for one datum, and Hamiltonian moves all see a pair through these two.
"""

from dataclasses import dataclass
from math import log, pi, prod

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from vae_pyro.data.split import Given
from vae_pyro.densities.programs.programs import Programs

_MOMENT_DRAWS = 500


class LogJoint:
    """log p(x, z) of a batch of data, and its gradient with respect to the latents.

    The latents of all sites are concatenated in one vector of length `dim`.

    Args:
        programs: of a pair.
        x: data, shape ``(datum, *event)``.
        mask: boolean, shape of ``x``, true where observed.
        y: classes that the programs are given, ``(datum,)``.

    Attributes:
        given: mask and y, where there are such.
        shapes: event shape of each latent site, in the order of the vector.
        dim: length of the vector.

    Raises:
        ValueError: a latent site is not real-valued.
    """

    def __init__(self, programs: Programs, x: Tensor, mask: Tensor | None = None, y: Tensor | None = None) -> None:
        programs.require("amortized")
        if mask is not None:  # a masked NaN adds nothing to a density, but 0 * NaN to its gradient
            x = torch.where(mask | x.isfinite(), x, torch.zeros_like(x))
        self.programs, self.x = programs, x
        self.given: Given = {name: value for name, value in (("mask", mask), ("y", y)) if value is not None}
        with torch.no_grad():
            one = {name: value[:1] for name, value in self.given.items()}
            densities = programs.log_densities(x[:1], 1, **one)
        if not densities.distributions:
            raise ValueError("the model has no latents that the guide draws, so that its log p(x) is exact as it is")
        for name, (prior, _) in densities.distributions.items():
            support = prior.support
            while hasattr(support, "base_constraint"):  # of independent dimensions, or of a mixture
                support = support.base_constraint
            if not isinstance(support, type(constraints.real)):
                raise ValueError(
                    f"Hamiltonian moves require real-valued latents, and site {name!r} has support {prior.support}; "
                    "write it as a transform of a real-valued site, or use analysis.elpd, whose importance sampling "
                    "takes any support"
                )
        self.shapes = {name: tuple(prior.event_shape) for name, (prior, _) in densities.distributions.items()}
        self.dim = sum(prod(shape) for shape in self.shapes.values())

    def __len__(self) -> int:
        return len(self.x)

    def flat(self, latents: dict[str, Tensor]) -> Tensor:
        """Draws of every site, ``(particle, datum, *event)``, as vectors ``(particle, datum, dim)``."""
        return torch.cat([latents[name].reshape(*latents[name].shape[:2], -1) for name in self.shapes], dim=-1)

    def sites(self, z: Tensor) -> dict[str, Tensor]:
        """The inverse of `flat`."""
        parts = z.split([prod(shape) for shape in self.shapes.values()], dim=-1)
        return {
            name: part.reshape(*z.shape[:2], *shape)
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }

    def densities(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """log p(x | z) and log p(z), each ``(particle, datum)``, differentiable in ``z`` of shape ``(..., dim)``."""
        scores = self.programs.score(self.x, self.sites(z), **self.given)
        return scores.log_likelihood, scores.total_prior

    def log_guide(self, z: Tensor) -> Tensor:
        """log q(z | x), ``(particle, datum)``, differentiable in ``z``."""
        return self.programs.score_guide(self.x, self.sites(z), **self.given)

    @torch.no_grad()
    def value(self, z: Tensor) -> Tensor:
        """log p(x, z), ``(particle, datum)``."""
        return sum(self.densities(z))  # type: ignore[return-value]

    def value_and_gradient(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """log p(x, z), ``(particle, datum)``, and its gradient, ``(particle, datum, dim)``."""
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            log_joint = sum(self.densities(z))
            assert isinstance(log_joint, Tensor)
            (gradient,) = torch.autograd.grad(log_joint.sum(), z)
        return log_joint.detach(), gradient


@dataclass(frozen=True)
class Gaussian:
    """A Gaussian over vectors of latents for each datum.

    Attributes:
        loc: shape ``(datum, dim)``.
        scale_tril: Cholesky factor of the covariance, shape ``(datum, dim, dim)``.
        diagonal: whether the covariances are diagonal by construction.
    """

    loc: Tensor
    scale_tril: Tensor
    diagonal: bool = False

    def __post_init__(self) -> None:
        eye = torch.eye(self.loc.shape[-1], dtype=self.loc.dtype, device=self.loc.device).expand_as(self.scale_tril)
        object.__setattr__(self, "_inverse", torch.linalg.solve_triangular(self.scale_tril, eye, upper=False))

    @property
    def scale(self) -> Tensor:
        """Marginal standard deviations, ``(datum, dim)``."""
        return self.scale_tril.square().sum(-1).sqrt()

    def shift(self, noise: Tensor) -> Tensor:
        """Standard normal ``noise`` of shape ``(particle, datum, dim)`` as draws."""
        return self.loc + torch.einsum("bij,kbj->kbi", self.scale_tril, noise)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log density at ``z`` of shape ``(particle, datum, dim)``; the result is ``(particle, datum)``."""
        return self.value_and_gradient(z)[0]

    def value_and_gradient(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Log density, ``(particle, datum)``, and its gradient, ``(particle, datum, dim)``."""
        inverse: Tensor = self._inverse  # type: ignore[attr-defined]
        noise = torch.einsum("bij,kbj->kbi", inverse, z - self.loc)
        constant = self.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1) + 0.5 * z.shape[-1] * log(2 * pi)
        return -0.5 * noise.square().sum(-1) - constant, -torch.einsum("bji,kbj->kbi", inverse, noise)


@torch.no_grad()
def guide_gaussian(joint: LogJoint, *, num_draws: int = _MOMENT_DRAWS) -> tuple[Gaussian, bool]:
    """The guide as a Gaussian for each datum, and whether it is one.

    Args:
        joint: of the pair at some data.
        num_draws: draws whose moments stand in where the guide is not Gaussian. They come from torch's generator.

    Returns:
        The guide's own location and covariance where every site is Gaussian given x alone; if not, a diagonal Gaussian
        with the mean and variance of draws of the guide.
    """
    one = joint.programs.log_densities(joint.x, 2, **joint.given)
    parts = [_gaussian(guide) for _, guide in one.distributions.values()]
    if all(part is not None for part in parts):
        exact = [part for part in parts if part is not None]
        loc = torch.cat([part[0] for part in exact], dim=-1)
        scale_tril = loc.new_zeros(len(joint), joint.dim, joint.dim)
        first = 0
        for _, block, _ in exact:
            last = first + block.shape[-1]
            scale_tril[:, first:last, first:last] = block
            first = last
        return Gaussian(loc, scale_tril, all(part[2] for part in exact)), True
    drawn = torch.cat(
        [joint.flat(joint.programs.draw(joint.x, 50, **joint.given).latents) for _ in range(0, num_draws, 50)]
    )
    return Gaussian(drawn.mean(0), torch.diag_embed(drawn.std(0)), True), False


def _gaussian(guide: TorchDistribution) -> tuple[Tensor, Tensor, bool] | None:
    """Location ``(datum, dim)``, Cholesky factor and diagonality of a site of the guide; ``None`` if not Gaussian."""
    while isinstance(guide, dist.Independent | dist.MaskedDistribution):
        guide = guide.base_dist
    if isinstance(guide, dist.Normal):
        shape = (*guide.loc.shape[:2], -1)
        loc, factor, diagonal = guide.loc.reshape(shape), torch.diag_embed(guide.scale.reshape(shape)), True
    elif isinstance(guide, dist.MultivariateNormal | dist.LowRankMultivariateNormal) and guide.loc.dim() == 3:
        loc, factor, diagonal = guide.loc, guide.scale_tril, False
    else:
        return None
    # A site whose parameters depend on an earlier draw is Gaussian given that draw only.
    return (loc[0], factor[0], diagonal) if loc[0].equal(loc[1]) and factor[0].equal(factor[1]) else None
