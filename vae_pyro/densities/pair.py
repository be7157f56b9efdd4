"""A Pyro model with its amortized guide: the one thing that every estimate and every diagnostic takes."""

from math import prod
from typing import Any

import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from vae_pyro.core.isolation import isolated
from vae_pyro.data.split import Split
from vae_pyro.densities.measure import Measure, Target
from vae_pyro.densities.sites import Program, draw_latents


class Pair:
    """A Pyro model and its amortized guide.

    A `vae_pyro.VAE` is one. Two programs written by hand are made into one by `as_pair`, and answer what follows as far
    as programs can: `measure` and `target` are then unknown, and data are checked by the programs alone.

    Args:
        model: ``model(x=None, *, size=None, mask=None, y=None)``; latents are local, inside ``pyro.plate("data", n)``,
            the data are observed at the site ``x``, and without data it draws ``size`` of them.
        guide: ``guide(x, *, mask=None, y=None)``, which draws every latent site of the model.

    Attributes:
        num_classes: values that the label y takes; 0 where the programs have none, or do not say.
        outputs_ignore_data: p(x | z) is the same whether x is given or not, so that one run of the model both scores
            data and draws replications.
    """

    model: Program
    guide: Program
    num_classes: int = 0
    outputs_ignore_data: bool = False

    def __init__(self, model: Program, guide: Program) -> None:
        self.model, self.guide = model, guide

    @property
    def decodable(self) -> Any:
        """This pair where it decodes single latents, as a `vae_pyro.VAE` does; ``None`` where it cannot."""
        return None

    @property
    def measure(self) -> Measure | None:
        """Whether p(x) is a probability, given the total of x or not, or a density; ``None`` where it is unknown."""
        return None

    def target(self, split: Split) -> Target | None:
        """What the log densities of some data are of, see `Target`; ``None`` where it is unknown."""
        return None

    def place(self, split: Split) -> tuple[torch.device, torch.dtype]:
        """Device and floating-point type of the parameters; those of the data where the programs have none."""
        for program in (self.model, self.guide):
            if isinstance(program, nn.Module):
                for parameter in program.parameters():
                    return parameter.device, parameter.dtype
        values = split.head
        return values.device, values.dtype if values.dtype.is_floating_point else torch.get_default_dtype()

    def width(self, split: Split) -> int:
        """Numbers that the widest tensor of a pass holds for each particle and datum."""
        return prod(split.x_shape)

    def check_data(self, split: Split, *, blank: bool = False, y: Tensor | None = None) -> None:
        """Refuse data that the model cannot describe.

        Args:
            split: the data.
            blank: take data of which nothing is observed, too; only their shape can be wrong.
            y: classes in place of the split's, such as one that stands for all that will be tried.

        Raises:
            ValueError: data of another shape, or outside the support of the likelihood.
        """

    def check_shape(self, values: Tensor) -> None:
        """Refuse data of another shape than the model's, where that is known.

        Args:
            values: some of the data, ``(datum, *x_shape)``.

        Raises:
            ValueError: another shape.
        """

    def expectation_of(self, elements: TorchDistribution) -> Tensor:
        """E[x | z] of a distribution of x; the most probable class where classes are names."""
        mean: Tensor = elements.mean
        return mean

    def posterior_means(self, x: Tensor, *, num_draws: int, seed: int, **given: Tensor) -> Tensor:
        """E_q[z | x], the sites of several latents side by side, float64, shape ``(datum, latent)``.

        Args:
            x: ``(datum, *x_shape)``.
            num_draws: of the guide for each datum, where its mean is not known in closed form.
            seed: of the draws.
            given: ``mask`` and ``y`` that the guide is given.
        """
        with isolated(seed), torch.no_grad():
            latents, _ = draw_latents(self.guide, x, num_particles=num_draws, **given)
        return torch.cat([value.double().mean(0).reshape(len(x), -1) for value in latents.values()], 1)

    def means_of(self, latents: dict[str, Tensor], distributions: dict[str, TorchDistribution]) -> Tensor | None:
        """`posterior_means` from draws that are there already; ``None`` where the guide has to be run for them.

        Args:
            latents: draws of each latent site, ``(particle, datum, *event)``.
            distributions: q of each latent site.
        """
        return torch.cat([value.double().mean(0).flatten(1) for value in latents.values()], 1)

    def sample(self, size: int, *, y: Any = None, seed: int = 0) -> Tensor:
        """Data drawn from the prior predictive, ``(size, *x_shape)``.

        Args:
            size: number of data.
            y: classes that the programs are given, ``(size,)``.
            seed: of the draws.
        """
        given = {} if y is None else {"y": y}
        with isolated(seed), torch.no_grad():
            drawn: Tensor = poutine.trace(self.model).get_trace(size=size, **given).nodes["x"]["value"]
        return drawn


type PairLike = Pair | tuple[Program, Program]


def as_pair(pair: PairLike) -> Pair:
    """What a user holds as a `Pair`: one as it is, or a tuple ``(model, guide)`` of Pyro programs.

    Raises:
        ValueError: anything else.
    """
    if isinstance(pair, Pair):
        return pair
    if isinstance(pair, tuple | list) and len(pair) == 2 and all(callable(program) for program in pair):
        return Pair(*pair)
    raise ValueError(
        f"pair is a VAE, a Pair, or a tuple (model, guide) of Pyro programs, got {type(pair).__name__}; "
        "write (model, guide)"
    )
