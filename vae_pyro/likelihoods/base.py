"""p(x | z): what the decoder's output means as a normalised distribution of x, and which data it can be asked about.

A likelihood turns decoder output ``(*batch, num_params, *x_shape)`` into a Pyro distribution with batch shape
``(*batch, *x_shape)``: elements are independent given z, so that an unobserved element can be masked out.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from vae_pyro.core.registry import Registry
from vae_pyro.data.summary import DataSummary
from vae_pyro.nn.features import Features

type Positive = Annotated[float, Field(gt=0)]

# Probabilities and rates of the data's mean are kept this far from their bounds when they start the output bias.
BIAS_MARGIN = 1e-3


class Likelihood(nn.Module, ABC):
    """Decoder output -> normalised Pyro distribution of x.

    Attributes:
        discrete: whether log densities are of probabilities; if not they are of densities in the units of x.
        by_value: whether `refuse` looks at each value, where no range says what the support is.
        given_total: whether they are conditional on the sum of x.
        num_params: numbers that the decoder gives for each element of x.
        output_shape: event shape of the decoder's output, ``(num_params, *x_shape)`` where a likelihood has no other.
        features: what the encoder sees of x; the guide shares it.
        fill: a value inside the support, which stands in for elements that are not observed; a number, or a tensor that
            broadcasts to ``x_shape``.
    """

    discrete: bool
    by_value: ClassVar[bool] = False
    given_total: ClassVar[bool] = False
    wants: ClassVar[str]
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
        fitting = ", ".join(repr(other) for other in LIKELIHOODS if fits(other, summary))
        binarize = "pass binarize='dynamic', " if summary.low >= 0 and name == "bernoulli" else ""
        raise ValueError(
            f"likelihood {name!r} wants {self.wants_with_options()}, got {summary.range}"
            f"{'' if summary.integral else ' with fractions'}; {binarize}scale the data, or choose "
            f"{fitting or 'another likelihood'}"
        )

    def wants_with_options(self) -> str:
        """The support in words."""
        return self.wants


LIKELIHOODS: Registry[Likelihood] = Registry("likelihood")


def fits(name: str, summary: DataSummary) -> bool:
    """Whether the likelihood registered as ``name`` can describe such data."""
    variant = LIKELIHOODS[name]
    return isinstance(variant, type) and issubclass(variant, Likelihood) and variant.accepts(summary)


def inverse_softplus(y: Tensor) -> Tensor:
    """What softplus turns into the positive ``y``."""
    return y + torch.log(-torch.expm1(-y))
