"""Features of x that an encoder reads: numbers of order one, and zeros where nothing was observed."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Features(nn.Module):
    """x ``(*batch, *x_shape)`` -> features ``(*batch, *feature_shape)``; as it stands, the identity."""

    def __init__(self, x_shape: Sequence[int]) -> None:
        super().__init__()
        self.x_shape = tuple(x_shape)
        self.feature_shape = self.x_shape

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Features of x; those of elements where ``mask`` is false are zero, whatever x holds there (NaN as well)."""
        if mask is None:
            return self.transform(x)
        features = self.transform(torch.where(mask, x, torch.zeros_like(x)))
        return torch.where(self.spread(mask), features, torch.zeros_like(features))

    def transform(self, x: Tensor) -> Tensor:
        """Features of fully observed x."""
        return x

    def spread(self, mask: Tensor) -> Tensor:
        """The mask in the shape of the features."""
        return mask


class Standardize(Features):
    """``(x - loc) / scale`` with statistics of the training data.

    One loc and scale for an image, one for each element of a vector: the columns of a table have units of their own,
    the pixels of an image share theirs.
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, x_shape: Sequence[int]) -> None:
        super().__init__(x_shape)
        shape = self.x_shape if len(x_shape) == 1 else (1,) * len(x_shape)
        self.register_buffer("loc", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(shape))

    def fit(self, x: Tensor, observed: Tensor) -> None:
        """Take mean and standard deviation from ``x`` of shape ``(datum, *x_shape)`` where ``observed`` is true."""
        dims = [0] if len(self.x_shape) == 1 else list(range(x.dim()))
        loc, variance = masked_moments(x, observed, dims)
        self.loc.copy_(loc.reshape(self.loc.shape))
        scale = variance.sqrt().reshape(self.scale.shape)
        self.scale.copy_(torch.where(scale > 0, scale, torch.ones_like(scale)))

    def transform(self, x: Tensor) -> Tensor:
        return (x - self.loc) / self.scale


def masked_moments(x: Tensor, observed: Tensor, dims: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Mean and variance of the observed elements over ``dims``, in float64; 0 and 0 where nothing is observed."""
    over = list(dims)
    weight = observed.to(torch.float64)
    value = torch.where(observed, x, torch.zeros_like(x)).to(torch.float64)
    count = weight.sum(over, keepdim=True).clamp(min=1)
    mean = value.sum(over, keepdim=True) / count
    variance = value.sub_(mean).square_().mul_(weight).sum(over, keepdim=True) / count  # in place: x may be large
    return mean.squeeze(over), variance.squeeze(over)


def indicators(y: Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
    """Classes ``(*batch,)`` as ``(*batch, num_classes)`` of 0 and 1; all 0 for a class that is none of them."""
    # torch's one_hot looks at the values, which a step that is traced cannot do.
    return (y.unsqueeze(-1) == torch.arange(num_classes, device=y.device)).to(dtype)


class OneHot(Features):
    """Integer classes to indicators: classes become channels.

    ``(num_classes, height, width)`` for an image without channels; otherwise the classes multiply the first axis.
    """

    def __init__(self, x_shape: Sequence[int], num_classes: int) -> None:
        super().__init__(x_shape)
        self.num_classes = num_classes
        joined = (num_classes * x_shape[0], *x_shape[1:])
        self.feature_shape = (num_classes, *x_shape) if len(x_shape) == 2 else joined

    def _join(self, classes_last: Tensor) -> Tensor:
        event_dim = len(self.x_shape)
        batch = classes_last.shape[: classes_last.dim() - event_dim - 1]
        return classes_last.movedim(-1, -event_dim - 1).reshape(*batch, *self.feature_shape)

    def transform(self, x: Tensor) -> Tensor:
        classes = torch.arange(self.num_classes, device=x.device, dtype=x.dtype)
        return self._join((x.unsqueeze(-1) == classes).to(x.dtype))

    def spread(self, mask: Tensor) -> Tensor:
        return self._join(mask.unsqueeze(-1).expand(*mask.shape, self.num_classes))


class Levels(Features):
    """``2 x / (levels - 1) - 1``: the integers ``0 .. levels - 1`` to [-1, 1]."""

    def __init__(self, x_shape: Sequence[int], levels: int) -> None:
        super().__init__(x_shape)
        self.levels = levels

    def transform(self, x: Tensor) -> Tensor:
        return x * (2 / (self.levels - 1)) - 1


class Log1p(Features):
    """``log(1 + x)`` of counts."""

    def transform(self, x: Tensor) -> Tensor:
        return torch.log1p(x)


class Inputs(nn.Module):
    """Input of an encoder: features of x and, if chosen, the mask and the label as further channels.

    An encoder without the mask cannot distinguish an unobserved element from one at the mean of the data.

    Args:
        features: of x.
        encode_mask: add the mask, one channel for each of the features'; all ones where everything is observed.
        num_classes: add y as so many channels, of which one is 1.

    Attributes:
        feature_shape: event shape of the output: ``(channels,)``, or ``(channels, height, width)``.
    """

    def __init__(self, features: Features, *, encode_mask: bool = False, num_classes: int = 0) -> None:
        super().__init__()
        self.features, self.encode_mask, self.num_classes = features, encode_mask, num_classes
        self.feature_shape = features.feature_shape
        if encode_mask or num_classes:
            own = features.feature_shape
            channels, *size = own if len(own) != 2 else (1, *own)
            self.feature_shape = ((2 if encode_mask else 1) * channels + num_classes, *size)

    def forward(self, x: Tensor, mask: Tensor | None = None, y: Tensor | None = None) -> Tensor:
        """x ``(*batch, *x_shape)`` -> ``(*batch, *feature_shape)``.

        Args:
            x: data.
            mask: boolean, shape of ``x``, true where observed.
            y: classes from 0, shape ``batch``.

        Raises:
            ValueError: ``y`` is given and ``num_classes`` is 0, or the other way round.
        """
        if (y is None) == bool(self.num_classes):
            raise ValueError(
                f"this guide is conditional: it requires y, classes from 0 to {self.num_classes - 1}"
                if y is None
                else "this guide is not conditional: y must be None; choose structure 'conditional' or 'm2'"
            )
        features = self.features(x, mask)
        if not self.encode_mask and y is None:
            return features
        shape, size = features.shape[: x.dim() - len(self.features.x_shape)], self.feature_shape[1:]
        parts = [features.reshape(*shape, -1, *size)]
        if self.encode_mask:
            seen = torch.ones_like(features) if mask is None else self.features.spread(mask).to(features.dtype)
            parts.append(seen.reshape(parts[0].shape))
        if y is not None:
            classes = indicators(y, self.num_classes, features.dtype)
            parts.append(classes.reshape(*classes.shape, *(1,) * len(size)).expand(*shape, self.num_classes, *size))
        return torch.cat(parts, dim=-1 - len(size))
