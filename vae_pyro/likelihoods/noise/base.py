"""Base class of noise models p(x | x_clean), which make a likelihood of noisy data of that of the clean signal.

Given z the clean signal is marginalised in closed form, so that log p(x | z) of noisy data is exact, a model is fitted
from noisy data alone, and p(x_clean | z, x) is a known distribution. A variant is a file beside this one that registers
a class in `NOISES`.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from math import isfinite, prod
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from pyro.distributions import TorchDistribution
from torch import Tensor

from vae_pyro.core.isolation import seeded
from vae_pyro.core.registry import Choice, ClassRegistry
from vae_pyro.data.summary import DataSummary
from vae_pyro.likelihoods.base import LIKELIHOODS, Likelihood

# A scale or a peak: an infinite one would leave nothing of the signal.
type FinitePositive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Noise(Likelihood):
    """The likelihood p(x | z) of noisy data: the integral of p(x | x_clean) p(x_clean | z) over x_clean.

    Args:
        signal: p(x_clean | z); it becomes part of the noise model.
        deterministic: the clean signal is the mean of ``signal``, a function of z without a spread of its own.

    Attributes:
        signal: as given; its spread, where it has one, is dropped if ``deterministic``.
        signals: likelihoods whose draws this noise can be added to.
        mean_signals: likelihoods whose means it can be added to.
        num_levels: levels of the signal over which densities are summed; ``None`` where there is no such sum.
        peak: mean of x where the clean signal is 1, of noise that makes counts; ``None`` for every other.

    Raises:
        ValueError: the integral has no closed form for this likelihood; the message names those that have one.
    """

    signals: ClassVar[tuple[type[Likelihood], ...]]
    mean_signals: ClassVar[tuple[type[Likelihood], ...]] = ()
    num_levels: int | None = None
    peak: float | None = None

    def __init__(self, signal: Likelihood, *, deterministic: bool = False) -> None:
        super().__init__(signal.x_shape)
        self._require(signal, deterministic)
        self.deterministic = deterministic
        if deterministic:
            signal.drop_spread()
        self.signal = signal
        self.features = signal.features
        self.num_params, self.fill = signal.num_params, signal.fill

    @property
    def output_shape(self) -> tuple[int, ...]:
        return self.signal.output_shape

    @property
    def max_width(self) -> int:
        return prod(self.x_shape) * max(self.num_params, self.num_levels or 1)

    @abstractmethod
    def clean(self, output: Tensor, x: Tensor, mask: Tensor | None = None) -> TorchDistribution:
        """p(x_clean | z, x), exact.

        Args:
            output: of the decoder, ``(*batch, *output_shape)``.
            x: noisy data, broadcasts to ``(*batch, *x_shape)``.
            mask: boolean, shape of ``x``; where it is false nothing was observed, and p(x_clean | z) is given.

        Returns:
            Batch shape ``(*batch, *x_shape)``, in units of the clean signal; it has mean, variance and draws.
        """

    @classmethod
    @abstractmethod
    def given(cls, x_clean: Tensor, low: float, high: float, **options: Any) -> TorchDistribution:
        """p(x | x_clean), batch shape that of ``x_clean``.

        Args:
            x_clean: the clean signal, any shape.
            low: lowest level of a clean signal.
            high: highest level.
            options: as registered.

        Raises:
            ValueError: a clean signal that this noise cannot have.
        """

    def rescaled(self, x: Tensor) -> Tensor:
        """Noisy data in units of the clean signal, any shape."""
        return x

    def check(self, summary: DataSummary, name: str) -> None:
        """Refuse data that this noise does not produce.

        Raises:
            ValueError: the message names the range.
        """
        if not self.holds(summary):
            raise ValueError(
                f"noise {NOISES.name_of(type(self))!r} on likelihood {name!r} makes {self.support}, got {summary.range}"
                f"{'' if summary.integral else ' with fractions'}; scale the data, or choose another noise"
            )

    @classmethod
    def _require(cls, signal: Likelihood, deterministic: bool) -> None:
        possible = cls.mean_signals if deterministic else cls.signals
        if isinstance(signal, possible):
            return
        other = cls.signals if deterministic else cls.mean_signals
        hint = ""
        if isinstance(signal, other):
            hint = f"; with deterministic={'false' if deterministic else 'true'} it can"
        what = "the mean of likelihood" if deterministic else "likelihood"
        raise ValueError(
            f"noise {NOISES.name_of(cls)!r} cannot be put on {what} {LIKELIHOODS.name_of(type(signal))!r} in closed "
            f"form{hint}; choose from {', '.join(LIKELIHOODS.name_of(kind) for kind in possible) or 'none'}"
        )


NOISES: ClassRegistry[Noise] = ClassRegistry("noise")


def likelihood_of(likelihood: Choice, noise: Choice | None, x_shape: Sequence[int]) -> Likelihood:
    """The likelihood of a configuration: that of the clean signal, with the noise on it where there is one.

    Args:
        likelihood: a choice of `LIKELIHOODS`.
        noise: a choice of `NOISES`.

    Raises:
        ValueError: an option that does not suit ``x_shape``, or a noise that cannot be put on the likelihood.
    """
    signal = LIKELIHOODS.build(likelihood, tuple(x_shape))
    return signal if noise is None else NOISES.build(noise, signal)


def add_noise(
    x_clean: Any,
    noise: str | Mapping[str, Any] | Choice,
    *,
    seed: int,
    low: float | None = None,
    high: float | None = None,
) -> Tensor:
    """Noisy data from clean ones, for experiments whose truth is known.

    Args:
        x_clean: any shape.
        noise: name, ``"name:option=value"``, or a mapping, as in ``VAEConfig.noise``.
        seed: of the noise.
        low: lowest level of a clean signal, for salt and pepper; the least of ``x_clean`` if not given.
        high: highest level; the greatest if not given.

    Returns:
        Shape of ``x_clean``, floating point. Poisson noise gives counts, whose mean is the peak times ``x_clean``.

    Raises:
        ValueError: an unknown noise or option, ends that are not finite, or a clean signal that the noise cannot have.
    """
    x = torch.as_tensor(x_clean)
    x = x if x.dtype.is_floating_point else x.to(torch.get_default_dtype())
    if not x.numel() or not x.isfinite().all():
        raise ValueError(f"clean data are finite numbers, at least one; got shape {tuple(x.shape)}")
    choice = NOISES.resolve(noise)
    ends = (float(x.min()) if low is None else low, float(x.max()) if high is None else high)
    if not all(map(isfinite, ends)):
        raise ValueError(f"low and high are levels of a clean signal, finite numbers; got {ends[0]:g} and {ends[1]:g}")
    with seeded(seed):
        drawn: Tensor = NOISES[choice.name].given(x, *ends, **choice.options).sample()
    return drawn
