"""p(x | z): the base class of likelihoods, which make a normalised distribution of x of the decoder's output.

A likelihood turns decoder output ``(*batch, num_params, *x_shape)`` into a Pyro distribution with batch shape
``(*batch, *x_shape)``: elements are independent given z, so that an unobserved element can be masked out. A variant is
a file beside this one that registers a class in `LIKELIHOODS`; its class attributes are all that the rest of the
package needs of it.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import StrEnum
from math import prod
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from vae_pyro.core.registry import ClassRegistry
from vae_pyro.data.summary import DataSummary
from vae_pyro.data.tables.schema import Schema
from vae_pyro.densities.measure import Measure
from vae_pyro.nn.features import Features

type Positive = Annotated[float, Field(gt=0)]

# Probabilities and rates of the data's mean are kept this far from their bounds when they start the output bias.
BIAS_MARGIN = 1e-3


class DataForm(StrEnum):
    """Forms of data, known before the data are read, that have a likelihood by default."""

    NUMBERS = "numbers"
    BINARIZED = "binarized intensities"
    MIXED = "columns of mixed kinds"


class Likelihood(nn.Module, ABC):
    """Decoder output -> normalised Pyro distribution of x.

    Args:
        x_shape: event shape of x.

    Attributes:
        discrete: whether log densities are of probabilities; if not they are of densities in the units of x.
        given_total: whether they are conditional on the sum of x.
        reparameterized: whether draws of x are differentiable in the decoder's output.
        shift_invariant: whether data that are moved by a constant have the same density under a model moved likewise.
        binary: whether elements are 0 or 1, with their expectation as the probability of 1.
        by_value: whether `refuse` checks each value, where no range determines the support.
        support: values that an element may have, in words; an instance may state those of its options.
        scale_of_data: ``scale`` of `vae_pyro.DataConfig` where none is chosen: ``none`` for integers as stored.
            ``None`` leaves the default of the configuration.
        default_for: form of data that is described by this likelihood where none is chosen.
        needs_schema: whether it is of a table and takes the option ``columns``, which the data determine.
        schema: of the columns of a table, ``None`` for every other likelihood.
        num_values: number of values ``0 .. num_values - 1`` that an element may have; ``None`` for infinitely many.
        num_params: numbers that the decoder gives for each element of x.
        output_shape: event shape of the decoder's output, ``(num_params, *x_shape)`` where a likelihood has no other.
        features: of x, which the encoder reads; the guide shares them.
        fill: a value inside the support, which stands in for elements that are not observed; a number, or a tensor that
            broadcasts to ``x_shape``.
    """

    discrete: bool
    given_total: ClassVar[bool] = False
    reparameterized: ClassVar[bool] = False
    shift_invariant: ClassVar[bool] = False
    binary: ClassVar[bool] = False
    by_value: ClassVar[bool] = False
    support: str
    scale_of_data: ClassVar[Literal["unit", "none"] | None] = None
    default_for: ClassVar[DataForm | None] = None
    needs_schema: ClassVar[bool] = False
    schema: Schema | None = None
    num_values: int | None = None
    num_params: int = 1
    fill: float | Tensor = 0.0

    def __init__(self, x_shape: Sequence[int]) -> None:
        super().__init__()
        self.x_shape = tuple(x_shape)
        self.features = Features(x_shape)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Event shape of the decoder's output."""
        return (self.num_params, *self.x_shape)

    @property
    def measure(self) -> Measure:
        """Whether p(x | z) is a probability, a density, or a probability given the total of x."""
        if self.given_total:
            return Measure.GIVEN_TOTAL
        return Measure.PROBABILITY if self.discrete else Measure.DENSITY

    @property
    def elementwise(self) -> bool:
        """Whether whole data are the product of elements that are all of one kind."""
        return type(self).observed is Likelihood.observed

    @property
    def max_width(self) -> int:
        """Numbers that the widest tensor of a density holds for each particle and datum."""
        return prod(self.x_shape) * self.num_params

    @staticmethod
    def settings(num_columns: int, num_rows: int, num_epochs: int) -> dict[str, dict[str, Any]]:
        """What suits data of this form where nothing is chosen: of ``model``, fields of `vae_pyro.VAEConfig` beside
        ``x_shape``, and of ``fit``, those of `vae_pyro.FitConfig`.

        Args:
            num_columns: numbers in a datum.
            num_rows: training data.
            num_epochs: of the fit.
        """
        return {}

    @abstractmethod
    def forward(self, output: Tensor) -> TorchDistribution:
        """Decoder output ``(*batch, num_params, *x_shape)`` -> distribution with batch shape ``(*batch, *x_shape)``."""

    def observed(self, output: Tensor, mask: Tensor | None = None) -> TorchDistribution:
        """p(x | z) of whole data: batch shape ``(*batch,)``, event shape ``x_shape``.

        Args:
            output: of the decoder, ``(*batch, *output_shape)``.
            mask: boolean, ``(datum, *x_shape)``; elements where it is false add nothing to the density.
        """
        elements = self(output)
        if mask is not None:
            elements = elements.mask(mask)
        return elements.to_event(len(self.x_shape))

    def filled(self, x: Tensor, mask: Tensor) -> Tensor:
        """x with `fill` where ``mask`` is false; a weight of 0 is not enough, for 0 * NaN would poison a gradient."""
        return torch.where(mask, x, torch.as_tensor(self.fill, dtype=x.dtype, device=x.device))

    @staticmethod
    @abstractmethod
    def accepts(summary: DataSummary) -> bool:
        """Whether such data lie in the support (for some value of the options)."""

    def holds(self, summary: DataSummary) -> bool:
        """Whether such data lie in the support with these options."""
        return self.accepts(summary)

    def refuse(self, x: Tensor, observed: Tensor) -> None:
        """Raise `ValueError` for an observed value outside the support; called where ``by_value``.

        Args:
            x: ``(datum, *x_shape)``.
            observed: boolean, shape of ``x``.
        """

    def initialize(self, x: Tensor, observed: Tensor, step: float | None = None) -> Tensor:
        """Set buffers and scales from training data, and say where the decoder's output bias should start.

        Args:
            x: ``(datum, *x_shape)``.
            observed: boolean, shape of ``x``.
            step: see `DataSummary`.

        Returns:
            Output bias of shape `output_shape`.
        """
        return torch.zeros(self.output_shape, dtype=x.dtype)

    def expectation(self, distribution: TorchDistribution) -> Tensor:
        """E[x | z], shape ``(*batch, *x_shape)``; a likelihood of classes gives the most probable one."""
        return distribution.mean

    def mean_of(self, output: Tensor) -> Tensor:
        """`expectation` for the decoder's output ``(*batch, *output_shape)``, shape ``(*batch, *x_shape)``."""
        return self.expectation(self(output))

    def drop_spread(self) -> None:
        """Remove the parameters of the spread, if there are any: the element is then the mean itself."""

    def parameter(self, output: Tensor, index: int) -> Tensor:
        """Parameter number ``index`` of the decoder's output, shape ``(*batch, *x_shape)``."""
        return output.select(-len(self.x_shape) - 1, index)

    def check(self, summary: DataSummary, name: str) -> None:
        """Refuse data outside the support.

        Raises:
            ValueError: the message names the range and the likelihoods that would fit.
        """
        if self.holds(summary):
            return
        fitting = ", ".join(repr(other) for other in LIKELIHOODS if LIKELIHOODS[other].accepts(summary))
        binarize = "pass binarize='dynamic', " if summary.low >= 0 and self.binary else ""
        raise ValueError(
            f"likelihood {name!r} requires {self.support}, got {summary.range}"
            f"{'' if summary.integral else ' with fractions'}; {binarize}scale the data, or choose "
            f"{fitting or 'another likelihood'}"
        )


LIKELIHOODS: ClassRegistry[Likelihood] = ClassRegistry("likelihood")


def inverse_softplus(y: Tensor) -> Tensor:
    """Inverse of softplus, for positive ``y``."""
    return y + torch.log(-torch.expm1(-y))
