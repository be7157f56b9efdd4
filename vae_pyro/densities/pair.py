"""A Pyro model with its amortized guide: the one thing that every estimate and every diagnostic takes."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from torch import Tensor

from vae_pyro.core.isolation import isolated
from vae_pyro.data.split import Split
from vae_pyro.data.tables.schema import Schema
from vae_pyro.densities.measure import Measure, Target
from vae_pyro.densities.programs.arguments import Arguments
from vae_pyro.densities.programs.discovery import discover
from vae_pyro.densities.programs.module_state import ModuleState
from vae_pyro.densities.programs.programs import Programs
from vae_pyro.densities.programs.running import Way, sample_sites
from vae_pyro.densities.programs.simulation import simulate
from vae_pyro.densities.sites import Program

# Data that a model draws to be found out about, where none are given.
_DRAWN = 20


class Pair:
    """A Pyro model and its amortized guide.

    A `vae_pyro.VAE` is one. Two programs written elsewhere are made into one by `as_pair`. What an estimate has to know
    about them is found out by running them on a few rows of the data (`programs`); `analysis.check_pair` prints it. The
    contract:

    - **Arguments**: ``model(x)`` and ``guide(x)``, x of shape ``(datum, *x_shape)``. Optional are ``mask`` (boolean,
      true where observed; the model must take it where data are missing), ``y`` (classes; any name, where it is the
      only other argument that is required or has the default ``None``), and ``size``: ``model(size=n)`` draws n data.
      A model without it draws data by leaving those of a batch unobserved. Further arguments require defaults.
    - **Plate**: latents and data are in one vectorised ``pyro.plate(name, len(x))``, of any name. Scales, of the plate
      or of ``poutine.scale``, are no part of a density.
    - **Observed sites**: any names; log p(x | z) is the sum of all of them, ``pyro.factor`` of the model included.
      Predictive draws require that x is the value of one of them, flattened or not, or of several side by side.
    - **Latents**: every latent site of the model is drawn by the guide, or is discrete, and then summed out. The guide
      draws nothing else, but auxiliary sites; what it observes or adds as a factor is no part of its density.
    - **Shapes**: a log density for each datum. Programs that do not broadcast over a plate of particles to the left of
      the data's are run with particles as further data, or one particle after the other.
    - **State**: modules are in evaluation mode during an estimate, and as they were afterwards.

    `measure` and `target` of such a pair are unknown, and data are checked by the programs alone.

    Args:
        model: ``model(x=None, *, size=None, mask=None, y=None)``.
        guide: ``guide(x, *, mask=None, y=None)``.
        observed: observed sites that count in log p(x | z), where not all do; one name or several.
        plate: name of the plate over data, where several have its size.

    Attributes:
        num_classes: values that the label y takes; 0 where the programs have none, or do not say.
    """

    model: Program
    guide: Program
    observed: tuple[str, ...] | None = None
    plate: str | None = None
    num_classes: int = 0

    def __init__(
        self,
        model: Program,
        guide: Program,
        *,
        observed: str | Sequence[str] | None = None,
        plate: str | None = None,
    ) -> None:
        self.model, self.guide, self.plate = model, guide, plate
        self.observed = (observed,) if isinstance(observed, str) else None if observed is None else tuple(observed)
        self._found: dict[Any, Programs] = {}

    def programs(self, split: Split) -> Programs:
        """What is found out about the programs from a few rows of some data; once for data of one kind.

        Raises:
            ValueError: the programs cannot be run on such data, or can be read in two ways; see
                `vae_pyro.densities.programs.discovery.discover`.
        """
        place = self._place()
        key = (split.x_shape, split.dtype, split.device, split.mask is None, split.y is None, place)
        found = self._found.get(key)
        if found is None or not found.amortized:
            found = discover(self.model, self.guide, split, place, observed=self.observed, plate=self.plate)
            self._found[key] = found
            if Way.LOOPED in (found.model_way, found.guide_way):
                warnings.warn(
                    "the programs run one particle after the other, since their tensors take no dimension of particles "
                    "and no further rows; this is slow: let the model and guide broadcast over leading dimensions",
                    stacklevel=2,
                )
        return found

    def programs_of_draws(
        self, like: Split | None, y: Tensor | None = None, *, dtype: torch.dtype | None = None
    ) -> Programs:
        """As `programs`, where there may be no data: the model then draws some.

        Args:
            like: some data.
            y: classes that the programs are given.
            dtype: of the data that are drawn, where it is not to be the model's.

        Raises:
            ValueError: there are no data, and the model does not draw any.
        """
        if like is not None:
            return self.programs(like)
        if not Arguments.of(self.model, "model").size:
            raise ValueError(
                "the model takes no argument size, and so draws data only beside others; give some of them, such as "
                "x_like= of calibrate"
            )
        x, names = self._draw_some(y)[1:]
        if x is None:
            raise ValueError(
                f"model(size=n) must draw latents and the site 'x'; it draws {names or 'nothing'}; return the data, or "
                "name their site with Pair(model, guide, observed=...)"
            )
        classes = None if y is None else y[torch.arange(len(x), device=y.device) % len(y)]
        return self.programs(Split(x if dtype is None else x.to(dtype), y=classes))

    def _draw_some(self, y: Tensor | None) -> tuple[Programs, Tensor | None, list[str]]:
        """The model as it draws data without any, some of them where their site is known, and all its sites."""
        arguments = Arguments.of(self.model, "model")
        classes = None if y is None else y[torch.arange(_DRAWN, device=y.device) % len(y)]
        bare = Programs(self.model, self.guide, ModuleState(self.model, self.guide), arguments)
        with isolated(0), torch.no_grad(), bare.state.watching():
            trace = poutine.trace(self.model).get_trace(size=_DRAWN, **arguments.given(None, classes))
        sites = {name: site["value"] for name, site in sample_sites(trace)}
        returned = [name for name, value in sites.items() if value is trace.nodes["_RETURN"]["value"]]
        known = [name for name in (*(self.observed or ()), *returned, "x") if name in sites]
        if not known or len(sites) == 1:
            return bare, None, sorted(sites)
        return replace(bare, data_sites=(known[0],)), sites[known[0]], sorted(sites)

    def _place(self) -> tuple[torch.device, torch.dtype] | None:
        """Device and floating-point type of the parameters, where the programs lead to some."""
        for value in ModuleState(self.model, self.guide).parameters():
            return value.device, value.dtype
        return None

    @property
    def decodable(self) -> Any:
        """This pair where it decodes single latents, as a `vae_pyro.VAE` does; ``None`` where it cannot."""
        return None

    @property
    def columns(self) -> tuple[str, ...] | None:
        """Names of the columns of the table that x is a row of; ``None`` for other data."""
        return None

    @property
    def schema(self) -> Schema | None:
        """Kinds of the columns of the table that x is a row of, where they have kinds; ``None`` for other data."""
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
        found = self.programs(split)
        if found.device is not None and found.dtype is not None:
            return found.device, found.dtype
        values = split.head
        return self._place() or (
            values.device,
            values.dtype if values.dtype.is_floating_point else torch.get_default_dtype(),
        )

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
        programs = self.programs(Split(x, **given))
        with isolated(seed):
            return side_by_side(programs.draw(x, num_draws, **given).latents)

    def means_of(self, latents: dict[str, Tensor], distributions: dict[str, TorchDistribution]) -> Tensor | None:
        """`posterior_means` from draws that are there already; ``None`` where the guide has to be run for them.

        Args:
            latents: draws of each latent site, ``(particle, datum, *event)``.
            distributions: q of each latent site.
        """
        return side_by_side(latents)

    def sample(self, size: int, *, y: Any = None, seed: int = 0, like: Split | None = None) -> Tensor:
        """Data drawn from the prior predictive, ``(size, *x_shape)``.

        Args:
            size: number of data.
            y: classes that the programs are given, ``(size,)``.
            seed: of the draws.
            like: some data, without which a model that takes no ``size`` cannot draw others.
        """
        programs = None
        if Arguments.of(self.model, "model").size:  # the guide has no part in it
            bare, x, _ = self._draw_some(y)
            programs = None if x is None else bare
        programs = programs or self.programs_of_draws(like, y)
        with isolated(seed):
            return simulate(programs, size, y=y).x


def side_by_side(latents: dict[str, Tensor]) -> Tensor:
    """Means over particles of the draws of all sites, float64, ``(datum, latent)``.

    Raises:
        ValueError: there are no latents.
    """
    if not latents:
        raise ValueError("the guide draws no latents, so that there are no posterior means")
    means = (value.double().mean(0) for value in latents.values())
    return torch.cat([mean.reshape(len(mean), -1) for mean in means], 1)


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
