"""Coupling layers of neural spline flows."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pyro.nn import DenseNN
from torch import Tensor, nn
from torch.distributions import Transform, constraints
from torch.nn.functional import softmax, softplus

from vae_pyro.nn.splines import RationalSpline

type SplineOption = Literal["linear", "quadratic"]


class SplineCoupling(nn.Module):
    """Splines of the first half of a vector, and splines of its rest whose parameters a network makes of that half.

    Parameters have the names of `pyro.distributions.transforms.SplineCoupling`, and start as there.

    Args:
        dimension: of the vector, at least 2.
        hidden: widths of the network.
        bins: segments of each spline.
        bound: the splines act on [-bound, bound] and are the identity outside.
        spline: ``linear`` or ``quadratic`` rational segments.
    """

    def __init__(
        self, dimension: int, hidden: Sequence[int], *, bins: int, bound: float, spline: SplineOption = "linear"
    ) -> None:
        super().__init__()
        self.split, self.bins, self.bound, self.spline = dimension // 2, bins, bound, spline
        rest, linear = dimension - self.split, spline == "linear"
        sizes = [bins, bins, bins - 1, *([bins] if linear else [])]
        network = DenseNN(self.split, list(hidden), param_dims=[rest * size for size in sizes])
        self.lower_spline = _Unconditional(self.split, sizes)
        self.upper_spline = _Conditional(network)

    def transform(self) -> Transform:
        """This layer as a transform of torch, without a cache."""
        return _CouplingTransform(self)

    def lower(self) -> RationalSpline:
        """Splines of the first half."""
        return self._spline(list(self.lower_spline.parameters()))

    def upper(self, first: Tensor) -> RationalSpline:
        """Splines of the rest, given the first half, ``(*batch, split)``."""
        return self._spline(
            [value.unflatten(-1, (-1, self._size(i))) for i, value in enumerate(self.upper_spline.nn(first))]
        )

    def _size(self, index: int) -> int:
        return self.bins - 1 if index == 2 else self.bins

    def _spline(self, raw: list[Tensor]) -> RationalSpline:
        divisions = torch.sigmoid(raw[3]) if len(raw) > 3 else None
        return RationalSpline(softmax(raw[0], -1), softmax(raw[1], -1), softplus(raw[2]), divisions, self.bound)


class _Unconditional(nn.Module):
    """Parameters of the splines of a vector of a fixed length."""

    def __init__(self, dimension: int, sizes: Sequence[int]) -> None:
        super().__init__()
        names = ("widths", "heights", "derivatives", "lambdas")
        for name, size in zip(names, sizes, strict=False):
            draw = torch.rand if name == "lambdas" else torch.randn
            self.register_parameter(f"unnormalized_{name}", nn.Parameter(draw(dimension, size)))


class _Conditional(nn.Module):
    """The network that makes the parameters of the other splines."""

    def __init__(self, network: DenseNN) -> None:
        super().__init__()
        self.nn = network


class _CouplingTransform(Transform):
    """One coupling layer as a transform of vectors."""

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self, layer: SplineCoupling) -> None:
        super().__init__()
        self._layer = layer
        # The last result with its log determinant: a density needs both, and a layer's network costs the most.
        self._last: tuple[Tensor, Tensor, Tensor] | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _CouplingTransform) and other._layer is self._layer

    __hash__ = Transform.__hash__

    def _call(self, x: Tensor) -> Tensor:
        first, rest = self._halves(x)
        (first_y, first_slope), (rest_y, rest_slope) = self._layer.lower()(first), self._layer.upper(first)(rest)
        y = torch.cat([first_y, rest_y], -1)
        self._last = x, y, first_slope.sum(-1) + rest_slope.sum(-1)
        return y

    def _inverse(self, y: Tensor) -> Tensor:
        first_y, rest_y = self._halves(y)
        first, first_slope = self._layer.lower().inverse(first_y)
        rest, rest_slope = self._layer.upper(first).inverse(rest_y)
        x = torch.cat([first, rest], -1)
        self._last = x, y, -first_slope.sum(-1) - rest_slope.sum(-1)
        return x

    def _halves(self, value: Tensor) -> tuple[Tensor, Tensor]:
        return value[..., : self._layer.split], value[..., self._layer.split :]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        if self._last is None or self._last[0] is not x or self._last[1] is not y:
            self._call(x)
        assert self._last is not None
        return self._last[2]

    def with_cache(self, cache_size: int = 1) -> Any:
        return self
